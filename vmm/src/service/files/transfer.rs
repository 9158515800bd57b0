//! Reading and writing: between files and guest memory directly, without a copy on the way.

use std::{fs::File, io, os::fd::AsFd};

use mote_abi::{
    errno::Errno,
    hypercall::{files::TransferResult, status},
    mailbox::Response,
};
use rustix::event::PollFlags;
use vm_memory::GuestMemoryMmap;

use super::{OpenFile, Refusal, stat};
use crate::{
    control::Control,
    guest_io,
    request::{Area, Transfer},
    service::{errno, wait},
};

/// Reads what is there, from a stream at least one byte if it has not ended.
pub(super) fn read(
    file: &OpenFile,
    transfer: &Transfer,
    memory: &GuestMemoryMmap,
    control: &Control,
) -> Result<Response, Refusal> {
    if file.regular {
        let Read { bytes, at_end } = read_at(&file.file, memory, transfer.area, transfer.offset)?;
        return Ok(answer(bytes, at_end, 0));
    }
    let bytes = wait::retry(file.file.as_fd(), PollFlags::IN, transfer.nonblocking, control, || {
        guest_io::read_stream(file.file.as_fd(), memory, transfer.area)
    })?;
    Ok(answer(bytes, false, 0))
}

/// What a read from a position came to.
pub(super) struct Read {
    pub(super) bytes: usize,
    /// Whether the file ends behind them.
    pub(super) at_end: bool,
}

/// Reads from a position, all that there is up to the size of the area. An error after some bytes is left to the next read.
pub(super) fn read_at(file: &File, memory: &GuestMemoryMmap, area: Area, offset: u64) -> Result<Read, Errno> {
    let mut bytes = 0;
    while bytes < area.bytes {
        match guest_io::read_at(file.as_fd(), memory, area.rest(bytes), offset.saturating_add(bytes as u64)) {
            Ok(0) => return Ok(Read { bytes, at_end: true }),
            Ok(more) => bytes += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) if bytes > 0 => break,
            Err(error) => return Err(errno::of(&error)),
        }
    }
    Ok(Read { bytes, at_end: false })
}

/// Writes as much as can be, at least one byte.
pub(super) fn write(
    file: &OpenFile,
    transfer: &Transfer,
    memory: &GuestMemoryMmap,
    control: &Control,
) -> Result<Response, Refusal> {
    file.take_failure()?;
    if !file.regular {
        let bytes = wait::retry(file.file.as_fd(), PollFlags::OUT, transfer.nonblocking, control, || {
            guest_io::write_stream(file.file.as_fd(), memory, transfer.area)
        })?;
        return Ok(answer(bytes, false, 0));
    }
    let (done, error) = write_some(file, transfer, memory);
    match error {
        Some(errno) if done == 0 => Err(errno.into()),
        // What was written counts; the next write meets the error again.
        _ => {
            let file_bytes = if transfer.append { stat(file.file.as_fd())?.bytes } else { 0 };
            Ok(answer(done, false, file_bytes))
        }
    }
}

/// Writes everything: the guest was told so already.
pub(super) fn write_whole(file: &OpenFile, transfer: &Transfer, memory: &GuestMemoryMmap) -> Result<(), Errno> {
    match write_some(file, transfer, memory) {
        (_, Some(errno)) => Err(errno),
        (done, None) if done == transfer.area.bytes => Ok(()),
        _ => Err(Errno::Io),
    }
}

/// How many bytes could be written, and what stopped it.
fn write_some(file: &OpenFile, transfer: &Transfer, memory: &GuestMemoryMmap) -> (usize, Option<Errno>) {
    let mut done = 0;
    while done < transfer.area.bytes {
        let area = transfer.area.rest(done);
        let written = if transfer.append {
            guest_io::append(file.file.as_fd(), memory, area)
        } else {
            guest_io::write_at(file.file.as_fd(), memory, area, transfer.offset.saturating_add(done as u64))
        };
        match written {
            Ok(0) => break,
            Ok(bytes) => done += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (done, Some(errno::of(&error))),
        }
    }
    (done, None)
}

fn answer(bytes: usize, at_end: bool, file_bytes: u64) -> Response {
    let result = TransferResult { bytes: u32::try_from(bytes).unwrap_or(0), at_end: u32::from(at_end), file_bytes };
    Response::new(status::OK, &result, 0)
}
