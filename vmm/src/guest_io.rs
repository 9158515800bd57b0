//! System calls that read into guest memory and write out of it, without a copy in between.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use vm_memory::{GuestMemoryBackend, GuestMemoryMmap};

use crate::{memory::to_offset, request::Area};

/// Whether what was received stays to be received again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    Taken,
    Stays,
}

/// pread(2) into guest memory.
pub(crate) fn read_at(fd: BorrowedFd<'_>, memory: &GuestMemoryMmap, area: Area, offset: u64) -> io::Result<usize> {
    let offset = to_offset(offset)?;
    // SAFETY: by the contract of `transfer` the range is valid for writes.
    transfer(memory, area, |start, bytes| unsafe { libc::pread(fd.as_raw_fd(), start, bytes, offset) })
}

/// pwrite(2) out of guest memory.
pub(crate) fn write_at(fd: BorrowedFd<'_>, memory: &GuestMemoryMmap, area: Area, offset: u64) -> io::Result<usize> {
    let offset = to_offset(offset)?;
    // SAFETY: by the contract of `transfer` the range is valid for reads.
    transfer(memory, area, |start, bytes| unsafe { libc::pwrite(fd.as_raw_fd(), start, bytes, offset) })
}

/// pwritev2(2) out of guest memory to the end of a file.
pub(crate) fn append(fd: BorrowedFd<'_>, memory: &GuestMemoryMmap, area: Area) -> io::Result<usize> {
    transfer(memory, area, |start, bytes| {
        let vector = libc::iovec { iov_base: start, iov_len: bytes };
        // SAFETY: one vector, whose range is valid for reads by the contract of `transfer`.
        unsafe { libc::pwritev2(fd.as_raw_fd(), &raw const vector, 1, 0, libc::RWF_APPEND) }
    })
}

/// read(2) into guest memory.
pub(crate) fn read_stream(fd: BorrowedFd<'_>, memory: &GuestMemoryMmap, area: Area) -> io::Result<usize> {
    // SAFETY: by the contract of `transfer` the range is valid for writes.
    transfer(memory, area, |start, bytes| unsafe { libc::read(fd.as_raw_fd(), start, bytes) })
}

/// write(2) out of guest memory.
pub(crate) fn write_stream(fd: BorrowedFd<'_>, memory: &GuestMemoryMmap, area: Area) -> io::Result<usize> {
    // SAFETY: by the contract of `transfer` the range is valid for reads.
    transfer(memory, area, |start, bytes| unsafe { libc::write(fd.as_raw_fd(), start, bytes) })
}

/// recv(2) into guest memory, without waiting.
pub(crate) fn receive(fd: BorrowedFd<'_>, memory: &GuestMemoryMmap, area: Area, how: Received) -> io::Result<usize> {
    let peek = if how == Received::Stays { libc::MSG_PEEK } else { 0 };
    // SAFETY: by the contract of `transfer` the range is valid for writes.
    transfer(memory, area, |start, bytes| unsafe { libc::recv(fd.as_raw_fd(), start, bytes, libc::MSG_DONTWAIT | peek) })
}

/// send(2) out of guest memory, without waiting and without SIGPIPE.
pub(crate) fn send(fd: BorrowedFd<'_>, memory: &GuestMemoryMmap, area: Area) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: by the contract of `transfer` the range is valid for reads.
    transfer(memory, area, |start, bytes| unsafe { libc::send(fd.as_raw_fd(), start, bytes, flags) })
}

/// Calls `call` with the host address and the size of `area`, which is guest RAM for as long as the call lasts: valid for
/// reads and writes by the host's kernel. The guest may change it at any time; no reference to it is made.
fn transfer(
    memory: &GuestMemoryMmap,
    area: Area,
    call: impl FnOnce(*mut libc::c_void, usize) -> libc::ssize_t,
) -> io::Result<usize> {
    if area.bytes == 0 {
        return Ok(0);
    }
    let slice = memory.get_slice(area.start, area.bytes).map_err(io::Error::other)?;
    let guard = slice.ptr_guard_mut();
    usize::try_from(call(guard.as_ptr().cast(), guard.len())).map_err(|_| io::Error::last_os_error())
}
