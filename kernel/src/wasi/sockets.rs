//! Sockets: listeners that the host opened, and connections.

use mote_abi::{
    errno::Errno,
    file::fdflags,
    hypercall::{
        self as abi,
        files::{HandleArgs, MAILBOX_BUFFER, SocketArgs, TransferArgs, TransferResult, sdflags, transfer},
    },
    mailbox::DATA_BYTES,
};
use mote_kernel_logic::fd::rights;

use super::{
    Wasi,
    descriptor::{Descriptor, Object},
    files::{read_once, vectors},
    host_file::{close_handle, read_through_mailbox},
    linear::Linear,
};
use crate::hypercall;

pub(super) use super::host_file::wait_flag;

/// witx `riflags`.
mod riflags {
    pub(super) const RECV_PEEK: u32 = 1 << 0;
    pub(super) const RECV_WAITALL: u32 = 1 << 1;
}

pub(super) fn accept(wasi: &mut Wasi, memory: &mut Linear<'_>, fd: u32, flags: u32, accepted: u32) -> Result<(), Errno> {
    memory.check(accepted, 4)?;
    let (listener, own_flags) = match wasi.socket(fd, rights::SOCK_ACCEPT)? {
        Descriptor { object: Object::Listener { handle }, flags, .. } => (*handle, *flags),
        _ => return Err(Errno::Inval),
    };
    let flags = u16::try_from(flags).ok().filter(|flags| flags & !fdflags::NONBLOCK == 0).ok_or(Errno::Inval)?;
    wasi.fds.check_room()?;
    let arguments = SocketArgs { handle: listener, flags: wait_flag(own_flags) };
    let HandleArgs { handle, .. } = hypercall::file(abi::SOCKET_ACCEPT, &arguments, &[])?;
    match wasi.fds.insert(Descriptor::new(Object::Connection { handle }, flags)) {
        Ok(number) => memory.write_u32(accepted, number),
        Err(full) => {
            close_handle(handle)?;
            Err(full.into())
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the function of preview 1 has them")]
pub(super) fn recv(
    wasi: &mut Wasi,
    memory: &mut Linear<'_>,
    fd: u32,
    iovs: u32,
    count: u32,
    how: u32,
    done: u32,
    out_flags: u32,
) -> Result<(), Errno> {
    let (handle, flags) = connection(wasi, fd, rights::FD_READ)?;
    if how & !(riflags::RECV_PEEK | riflags::RECV_WAITALL) != 0 {
        return Err(Errno::Inval);
    }
    memory.check(out_flags, 2)?;
    let vectors = vectors(memory, iovs, count, done)?;
    let bit = |asked: u32, flag: u32| if how & asked != 0 { flag } else { 0 };
    let flags = wait_flag(flags) | bit(riflags::RECV_PEEK, transfer::PEEK) | bit(riflags::RECV_WAITALL, transfer::WAITALL);
    let mut total = 0;
    if how & riflags::RECV_WAITALL != 0 && how & riflags::RECV_PEEK == 0 {
        for vector in vectors {
            let bytes = match receive_into(handle, memory.slice_mut(vector.pointer, vector.bytes)?, flags) {
                // What came is told first; the next call meets the error.
                Err(_) if total > 0 => break,
                received => received?,
            };
            total += bytes as u32;
            if bytes < vector.bytes as usize {
                break;
            }
        }
    } else {
        total = read_once(memory, &vectors, |target| receive_into(handle, target, flags))?;
    }
    memory.write_u32(done, total)?;
    // Streams never cut what they deliver.
    memory.write(out_flags, &0u16.to_le_bytes())
}

pub(super) fn send(
    wasi: &mut Wasi,
    memory: &mut Linear<'_>,
    fd: u32,
    iovs: u32,
    count: u32,
    _how: u32,
    done: u32,
) -> Result<(), Errno> {
    let (handle, flags) = connection(wasi, fd, rights::FD_WRITE)?;
    memory.iovecs_bytes(iovs, count)?;
    memory.check(done, 4)?;
    let total = send_from(handle, memory.parts(iovs, count), wait_flag(flags))?;
    memory.write_u32(done, total)
}

pub(super) fn shutdown(wasi: &mut Wasi, _: &mut Linear<'_>, fd: u32, how: u32) -> Result<(), Errno> {
    let (handle, _) = connection(wasi, fd, rights::SOCK_SHUTDOWN)?;
    if how == 0 || how & !(sdflags::RECEIVE | sdflags::SEND) != 0 {
        return Err(Errno::Inval);
    }
    hypercall::file::<_, u32>(abi::SOCKET_SHUTDOWN, &SocketArgs { handle, flags: how }, &[]).map(drop)
}

/// Receives what there is, at least one byte unless the other end has closed.
pub(super) fn receive_into(handle: u32, target: &mut [u8], flags: u32) -> Result<usize, Errno> {
    read_through_mailbox(abi::SOCKET_RECEIVE, handle, target, flags)
}

/// Sends as much of `parts` as the mailbox and the socket take.
pub(super) fn send_from<'a>(handle: u32, parts: impl Iterator<Item = &'a [u8]>, flags: u32) -> Result<u32, Errno> {
    let mut filled = 0;
    for part in parts {
        let part = part.get(..part.len().min(DATA_BYTES - filled)).unwrap_or(part);
        hypercall::write_data(filled, part);
        filled += part.len();
    }
    if filled == 0 {
        return Ok(0);
    }
    let arguments = TransferArgs { handle, buffer: MAILBOX_BUFFER, bytes: filled as u32, flags, offset: 0 };
    let result: TransferResult = hypercall::file(abi::SOCKET_SEND, &arguments, &[])?;
    Ok(result.bytes.min(filled as u32))
}

fn connection(wasi: &Wasi, fd: u32, right: u64) -> Result<(u32, u16), Errno> {
    match wasi.socket(fd, right)? {
        Descriptor { object: Object::Connection { handle }, flags, .. } => Ok((*handle, *flags)),
        _ => Err(Errno::Notconn),
    }
}

impl Wasi {
    /// A descriptor that is a socket and has the right.
    fn socket(&self, fd: u32, right: u64) -> Result<&Descriptor, Errno> {
        let descriptor = self.fds.get(fd)?;
        match descriptor.object {
            Object::Listener { .. } | Object::Connection { .. } if descriptor.rights & right == right => Ok(descriptor),
            Object::Connection { .. } => Err(Errno::Notcapable),
            // Which one it is decides what is wrong, not what it may do.
            Object::Listener { .. } => Ok(descriptor),
            _ => Err(Errno::Notsock),
        }
    }
}
