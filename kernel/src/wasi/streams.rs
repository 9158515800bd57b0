//! Descriptors that are standard streams: reading, writing, stat results as on a pipe or a terminal.

use mote_abi::ring;
use mote_kernel_logic::fd::{Descriptor, Stream, fdflags, rights};

use super::{Wasi, errno::Errno, linear::Linear};
use crate::{console, guest};

/// witx `filetype`.
mod filetype {
    pub(super) const UNKNOWN: u8 = 0;
    pub(super) const CHARACTER_DEVICE: u8 = 2;
}

/// Bytes of witx `filestat`.
const FILESTAT_BYTES: usize = 64;

pub(super) fn read(wasi: &mut Wasi, memory: &mut Linear<'_>, fd: u32, iovs: u32, count: u32, done: u32) -> Result<(), Errno> {
    let descriptor = *wasi.fds.get(fd)?;
    if descriptor.stream != Stream::Stdin || descriptor.rights & rights::FD_READ == 0 {
        return Err(Errno::Badf);
    }
    // What cannot be stored may not be taken from the stream.
    memory.iovecs_bytes(iovs, count)?;
    memory.check(done, 4)?;
    if descriptor.flags & fdflags::NONBLOCK != 0 && !super::poll::stdin_is_ready(wasi) {
        return Err(Errno::Again);
    }
    // The vectors are read before anything is written, as a buffer may overlap them.
    let mut vectors = super::room_for(count)?;
    for index in 0..count {
        vectors.push(memory.iovec(iovs, index)?);
    }
    let mut total = 0u32;
    for vector in vectors {
        // Only the first read may block: what came already is not held back for more.
        if total > 0 && wasi.stdin.buffered_bytes() == 0 {
            break;
        }
        let bytes = wasi.stdin.read(memory.slice_mut(vector.pointer, vector.bytes)?)? as u32;
        total += bytes;
        if bytes < vector.bytes {
            break;
        }
    }
    memory.write_u32(done, total)
}

pub(super) fn write(wasi: &mut Wasi, memory: &mut Linear<'_>, fd: u32, iovs: u32, count: u32, done: u32) -> Result<(), Errno> {
    let descriptor = wasi.fds.get(fd)?;
    let stream = match descriptor.stream {
        Stream::Stdout => ring::Stream::Stdout,
        Stream::Stderr => ring::Stream::Stderr,
        Stream::Stdin => return Err(Errno::Badf),
    };
    if descriptor.rights & rights::FD_WRITE == 0 {
        return Err(Errno::Badf);
    }
    let total = memory.iovecs_bytes(iovs, count)?;
    memory.check(done, 4)?;
    if guest::is_broken(descriptor.stream.index()) {
        return Err(Errno::Pipe);
    }
    for index in 0..count {
        let vector = memory.iovec(iovs, index)?;
        console::write(stream, memory.slice(vector.pointer, vector.bytes)?);
    }
    memory.write_u32(done, total)
}

pub(super) fn close(wasi: &mut Wasi, _: &mut Linear<'_>, fd: u32) -> Result<(), Errno> {
    Ok(wasi.fds.close(fd)?)
}

pub(super) fn renumber(wasi: &mut Wasi, _: &mut Linear<'_>, from: u32, to: u32) -> Result<(), Errno> {
    Ok(wasi.fds.renumber(from, to)?)
}

/// witx `fdstat`: type, flags, rights.
pub(super) fn fdstat_get(wasi: &mut Wasi, memory: &mut Linear<'_>, fd: u32, stat: u32) -> Result<(), Errno> {
    let descriptor = *wasi.fds.get(fd)?;
    let mut bytes = [0; 24];
    let fields: [(usize, &[u8]); 4] = [
        (0, &[file_type(wasi, &descriptor)]),
        (2, &descriptor.flags.to_le_bytes()),
        (8, &descriptor.rights.to_le_bytes()),
        (16, &descriptor.rights_inheriting.to_le_bytes()),
    ];
    for (at, field) in fields {
        for (to, from) in bytes.iter_mut().skip(at).zip(field) {
            *to = *from;
        }
    }
    memory.write(stat, &bytes)
}

pub(super) fn fdstat_set_flags(wasi: &mut Wasi, _: &mut Linear<'_>, fd: u32, flags: u32) -> Result<(), Errno> {
    let descriptor = wasi.fds.get_mut(fd)?;
    let flags = u16::try_from(flags).map_err(|_| Errno::Inval)?;
    if flags & !(fdflags::APPEND | fdflags::NONBLOCK) != 0 {
        return Err(Errno::Inval);
    }
    descriptor.flags = flags;
    Ok(())
}

/// Rights can only be given up.
pub(super) fn fdstat_set_rights(wasi: &mut Wasi, _: &mut Linear<'_>, fd: u32, base: u64, inheriting: u64) -> Result<(), Errno> {
    let descriptor = wasi.fds.get_mut(fd)?;
    if base & !descriptor.rights != 0 || inheriting & !descriptor.rights_inheriting != 0 {
        return Err(Errno::Notcapable);
    }
    descriptor.rights = base;
    descriptor.rights_inheriting = inheriting;
    Ok(())
}

/// witx `filestat`: a stream has a type, one link, and neither size nor times.
pub(super) fn filestat_get(wasi: &mut Wasi, memory: &mut Linear<'_>, fd: u32, stat: u32) -> Result<(), Errno> {
    let descriptor = *wasi.fds.get(fd)?;
    let mut bytes = [0; FILESTAT_BYTES];
    bytes[16] = file_type(wasi, &descriptor);
    memory.write(stat, &bytes)
}

/// The answer of a function that makes no sense on a stream: `errno`, unless `fd` is not open at all.
pub(super) fn only(wasi: &Wasi, fd: u32, errno: Errno) -> Result<(), Errno> {
    wasi.fds.get(fd)?;
    Err(errno)
}

fn file_type(wasi: &Wasi, descriptor: &Descriptor) -> u8 {
    let terminal = wasi.boot.is_terminal(descriptor.stream.index() as usize);
    if terminal { filetype::CHARACTER_DEVICE } else { filetype::UNKNOWN }
}
