//! Sockets: listeners that were opened for the guest, and the connections that it takes from them.

use std::{
    net::{Shutdown, TcpListener, TcpStream},
    os::fd::{AsFd, BorrowedFd},
};

use mote_abi::{
    errno::Errno,
    hypercall::{files::TransferResult, status},
    mailbox::Response,
};
use rustix::event::PollFlags;
use vm_memory::GuestMemoryMmap;

use super::{files::Refusal, wait};
use crate::{
    control::Control,
    guest_io::{self, Received},
    request::Transfer,
};

/// The next connection.
pub(super) fn accept(listener: &TcpListener, nonblocking: bool, control: &Control) -> Result<TcpStream, Refusal> {
    let mut taken = None;
    wait::retry(listener.as_fd(), PollFlags::IN, nonblocking, control, || {
        let (stream, _peer) = listener.accept()?;
        stream.set_nonblocking(true)?;
        taken = Some(stream);
        Ok(0)
    })?;
    taken.ok_or(Refusal::Errno(Errno::Again))
}

/// Receives what is there, at least one byte unless the other end has closed.
pub(super) fn receive(
    fd: BorrowedFd<'_>,
    transfer: &Transfer,
    memory: &GuestMemoryMmap,
    control: &Control,
) -> Result<Response, Refusal> {
    let whole = transfer.wait_all && !transfer.peek && !transfer.nonblocking;
    let mut done = 0;
    loop {
        let area = transfer.area.rest(done);
        let how = if transfer.peek { Received::Stays } else { Received::Taken };
        let received = wait::retry(fd, PollFlags::IN, transfer.nonblocking, control, || guest_io::receive(fd, memory, area, how));
        let bytes = match received {
            // What came is told first; the next call meets the error.
            Err(Refusal::Errno(_)) if done > 0 => 0,
            received => received?,
        };
        done += bytes;
        if bytes == 0 || !whole || done == transfer.area.bytes {
            return Ok(answer(done));
        }
    }
}

/// Sends as much as the socket takes, at least one byte.
pub(super) fn send(
    fd: BorrowedFd<'_>,
    transfer: &Transfer,
    memory: &GuestMemoryMmap,
    control: &Control,
) -> Result<Response, Refusal> {
    let bytes = wait::retry(fd, PollFlags::OUT, transfer.nonblocking, control, || guest_io::send(fd, memory, transfer.area))?;
    Ok(answer(bytes))
}

/// Ends one or both directions.
pub(super) fn shutdown(stream: &TcpStream, receive: bool, send: bool) -> Result<(), Refusal> {
    let how = match (receive, send) {
        (true, true) => Shutdown::Both,
        (true, false) => Shutdown::Read,
        (false, true) => Shutdown::Write,
        (false, false) => return Err(Errno::Inval.into()),
    };
    Ok(stream.shutdown(how)?)
}

fn answer(bytes: usize) -> Response {
    let result = TransferResult { bytes: u32::try_from(bytes).unwrap_or(0), ..TransferResult::default() };
    Response::new(status::OK, &result, 0)
}
