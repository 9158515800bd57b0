//! Functions over the contents of open files: reading, writing, positions, and closing. Standard streams and sockets, which
//! are read and written by the same functions, are in files of their own.

use mote_abi::{errno::Errno, file::fdflags, ring};
use mote_kernel_logic::{fd::rights, ramdisk::NodeId};

use super::{
    Disk, Wasi, attributes,
    descriptor::{Object, Place, RamFile},
    host_file::{Shared, close_handle, post_close},
    linear::{IoVec, Linear},
    sockets, streams,
};
use crate::clock;

pub(super) fn read(wasi: &mut Wasi, memory: &mut Linear<'_>, fd: u32, iovs: u32, count: u32, done: u32) -> Result<(), Errno> {
    wasi.descriptor(fd, rights::FD_READ)?;
    read_from(wasi, memory, fd, (iovs, count, done), None)
}

pub(super) fn pread(
    wasi: &mut Wasi,
    memory: &mut Linear<'_>,
    fd: u32,
    iovs: u32,
    count: u32,
    offset: u64,
    done: u32,
) -> Result<(), Errno> {
    wasi.descriptor(fd, rights::FD_READ | rights::FD_SEEK)?;
    check_offset(offset)?;
    read_from(wasi, memory, fd, (iovs, count, done), Some(offset))
}

/// Reads at `offset`, or at the position and moves it.
fn read_from(
    wasi: &mut Wasi,
    memory: &mut Linear<'_>,
    fd: u32,
    (iovs, count, done): (u32, u32, u32),
    offset: Option<u64>,
) -> Result<(), Errno> {
    let vectors = vectors(memory, iovs, count, done)?;
    let (files, ram, stdin) = (&mut wasi.files, &wasi.ram, &mut wasi.stdin);
    let descriptor = wasi.fds.get_mut(fd)?;
    let flags = descriptor.flags;
    let total = match &mut descriptor.object {
        Object::File(file) if !file.readable => return Err(Errno::Badf),
        Object::File(file) if file.is_regular() => {
            let start = offset.map_or_else(|| file.position(), Ok)?;
            let total = read_vectors(memory, &vectors, |target, done| file.read_at(files, target, at(start, done)?))?;
            if offset.is_none() {
                file.set_position(at(start, u64::from(total))?);
            }
            total
        }
        Object::RamFile(file) => {
            let (node, disk) = (file.readable_node()?, ram.as_ref().ok_or(Errno::Badf)?);
            let start = offset.unwrap_or(file.position);
            let total = read_vectors(memory, &vectors, |target, done| disk.read(node, at(start, done)?, target))?;
            if offset.is_none() {
                file.position = at(start, u64::from(total))?;
            }
            total
        }
        object if offset.is_some() => return Err(without_position(object)),
        Object::File(file) => read_once(memory, &vectors, |target| file.read_stream(target, flags))?,
        Object::Stdin => streams::read(stdin, memory, &vectors, flags)?,
        Object::Connection { handle } => {
            let handle = *handle;
            read_once(memory, &vectors, |target| sockets::receive_into(handle, target, sockets::wait_flag(flags)))?
        }
        Object::Listener { .. } => return Err(Errno::Notconn),
        Object::Stdout | Object::Stderr | Object::Directory(_) => return Err(Errno::Badf),
    };
    memory.write_u32(done, total)
}

pub(super) fn write(wasi: &mut Wasi, memory: &mut Linear<'_>, fd: u32, iovs: u32, count: u32, done: u32) -> Result<(), Errno> {
    wasi.descriptor(fd, rights::FD_WRITE)?;
    write_to(wasi, memory, fd, (iovs, count, done), None)
}

pub(super) fn pwrite(
    wasi: &mut Wasi,
    memory: &mut Linear<'_>,
    fd: u32,
    iovs: u32,
    count: u32,
    offset: u64,
    done: u32,
) -> Result<(), Errno> {
    wasi.descriptor(fd, rights::FD_WRITE | rights::FD_SEEK)?;
    check_offset(offset)?;
    write_to(wasi, memory, fd, (iovs, count, done), Some(offset))
}

/// Writes at `offset`, or at the position and moves it. As on Linux, a file that is appended to is so in both cases.
fn write_to(
    wasi: &mut Wasi,
    memory: &mut Linear<'_>,
    fd: u32,
    (iovs, count, done): (u32, u32, u32),
    offset: Option<u64>,
) -> Result<(), Errno> {
    let total = memory.iovecs_bytes(iovs, count)?;
    memory.check(done, 4)?;
    let (files, ram, boot) = (&mut wasi.files, &mut wasi.ram, wasi.boot);
    let parts = || memory.parts(iovs, count);
    let descriptor = wasi.fds.get_mut(fd)?;
    let flags = descriptor.flags;
    let written = match &mut descriptor.object {
        Object::File(file) if !file.writable => return Err(Errno::Badf),
        Object::File(file) if file.is_regular() || offset.is_none() => {
            file.write(files, parts(), total as usize, offset, flags)? as u32
        }
        Object::RamFile(file) => {
            let (node, disk) = (file.writable_node()?, ram.as_mut().ok_or(Errno::Badf)?);
            let append = flags & fdflags::APPEND != 0;
            let start = if append { disk.stat(node)?.bytes } else { offset.unwrap_or(file.position) };
            let written = write_ram(disk, node, parts(), start)?;
            if offset.is_none() && total > 0 {
                file.position = at(start, u64::from(written))?;
            }
            written
        }
        object if offset.is_some() => return Err(without_position(object)),
        Object::Stdout => streams::write(files, boot, ring::Stream::Stdout, 1, parts())?,
        Object::Stderr => streams::write(files, boot, ring::Stream::Stderr, 2, parts())?,
        Object::Connection { handle } => sockets::send_from(*handle, parts(), sockets::wait_flag(flags))?,
        Object::Listener { .. } => return Err(Errno::Notconn),
        Object::Stdin | Object::File(_) | Object::Directory(_) => return Err(Errno::Badf),
    };
    memory.write_u32(done, written)
}

/// witx `whence`.
mod whence {
    pub(super) const SET: u32 = 0;
    pub(super) const CUR: u32 = 1;
    pub(super) const END: u32 = 2;
}

pub(super) fn seek(
    wasi: &mut Wasi,
    memory: &mut Linear<'_>,
    fd: u32,
    offset: u64,
    whence: u32,
    position: u32,
) -> Result<(), Errno> {
    let offset = offset.cast_signed();
    // A descriptor that may only be told its position may still be asked for it.
    let needed = if whence == whence::CUR && offset == 0 { rights::FD_TELL } else { rights::FD_SEEK };
    wasi.descriptor(fd, needed)?;
    memory.check(position, 8)?;
    match &wasi.fds.get(fd)?.object {
        Object::File(file) if file.is_regular() => {}
        Object::RamFile(_) => {}
        object => return Err(without_position(object)),
    }
    let base = match whence {
        whence::SET => 0,
        whence::CUR => current(wasi, fd)?,
        whence::END => attributes::stat(wasi, fd)?.bytes,
        _ => return Err(Errno::Inval),
    };
    let target = base.checked_add_signed(offset).filter(|target| i64::try_from(*target).is_ok()).ok_or(Errno::Inval)?;
    match &mut wasi.fds.get_mut(fd)?.object {
        Object::File(file) => file.set_position(target),
        Object::RamFile(file) => file.position = target,
        object => return Err(without_position(object)),
    }
    memory.write_u64(position, target)
}

pub(super) fn tell(wasi: &mut Wasi, memory: &mut Linear<'_>, fd: u32, position: u32) -> Result<(), Errno> {
    wasi.descriptor(fd, rights::FD_TELL)?;
    let current = current(wasi, fd)?;
    memory.write_u64(position, current)
}

pub(super) fn close(wasi: &mut Wasi, _: &mut Linear<'_>, fd: u32) -> Result<(), Errno> {
    let closed = wasi.fds.close(fd)?;
    release(&mut wasi.files, &mut wasi.ram, closed.object)
}

pub(super) fn renumber(wasi: &mut Wasi, _: &mut Linear<'_>, from: u32, to: u32) -> Result<(), Errno> {
    match wasi.fds.renumber(from, to)? {
        Some(replaced) => release(&mut wasi.files, &mut wasi.ram, replaced.object),
        None => Ok(()),
    }
}

/// Gives back what a descriptor stood for.
fn release(files: &mut Shared, ram: &mut Option<Disk>, object: Object) -> Result<(), Errno> {
    match object {
        Object::File(file) => {
            files.windows.forget(file.id);
            file.close()
        }
        Object::Directory(directory) => match directory.place {
            Place::Host(handle) => {
                files.listing.forget(handle);
                post_close(handle)
            }
            Place::Ram(node) => release_node(ram, node),
        },
        Object::RamFile(file) => release_node(ram, file.node),
        Object::Listener { handle } | Object::Connection { handle } => close_handle(handle),
        Object::Stdin | Object::Stdout | Object::Stderr => Ok(()),
    }
}

fn release_node(ram: &mut Option<Disk>, node: NodeId) -> Result<(), Errno> {
    if let Some(disk) = ram {
        disk.release(node);
    }
    Ok(())
}

fn current(wasi: &mut Wasi, fd: u32) -> Result<u64, Errno> {
    match &mut wasi.fds.get_mut(fd)?.object {
        Object::File(file) if file.is_regular() => file.position(),
        Object::RamFile(file) => Ok(file.position),
        object => Err(without_position(object)),
    }
}

/// The error of a function that needs a position.
fn without_position(object: &Object) -> Errno {
    match object {
        Object::Directory(_) => Errno::Badf,
        _ => Errno::Spipe,
    }
}

impl RamFile {
    pub(super) fn readable_node(&self) -> Result<NodeId, Errno> {
        if self.readable { Ok(self.node) } else { Err(Errno::Badf) }
    }

    pub(super) fn writable_node(&self) -> Result<NodeId, Errno> {
        if self.writable { Ok(self.node) } else { Err(Errno::Badf) }
    }
}

/// The vectors for reading, checked: what cannot be stored may not be taken. They are copied, as a buffer may overlap them.
pub(super) fn vectors(memory: &Linear<'_>, iovs: u32, count: u32, done: u32) -> Result<alloc::vec::Vec<IoVec>, Errno> {
    memory.iovecs_bytes(iovs, count)?;
    memory.check(done, 4)?;
    let mut vectors = super::room_for(count)?;
    for index in 0..count {
        vectors.push(memory.iovec(iovs, index)?);
    }
    Ok(vectors)
}

/// Fills vector after vector until one stays short. An error after some bytes is left to the next call.
fn read_vectors(
    memory: &mut Linear<'_>,
    vectors: &[IoVec],
    mut read: impl FnMut(&mut [u8], u64) -> Result<usize, Errno>,
) -> Result<u32, Errno> {
    let mut total = 0u32;
    for vector in vectors {
        let bytes = match read(memory.slice_mut(vector.pointer, vector.bytes)?, u64::from(total)) {
            Ok(bytes) => bytes as u32,
            Err(_) if total > 0 => break,
            Err(errno) => return Err(errno),
        };
        total += bytes;
        if bytes < vector.bytes {
            break;
        }
    }
    Ok(total)
}

/// Fills the first vector that has room: what comes from a stream is not held back for more.
pub(super) fn read_once(
    memory: &mut Linear<'_>,
    vectors: &[IoVec],
    read: impl FnOnce(&mut [u8]) -> Result<usize, Errno>,
) -> Result<u32, Errno> {
    match vectors.iter().find(|vector| vector.bytes > 0) {
        Some(vector) => Ok(read(memory.slice_mut(vector.pointer, vector.bytes)?)? as u32),
        None => Ok(0),
    }
}

fn write_ram<'a>(disk: &mut Disk, node: NodeId, parts: impl Iterator<Item = &'a [u8]>, start: u64) -> Result<u32, Errno> {
    let mut total = 0u32;
    for part in parts.filter(|part| !part.is_empty()) {
        let written = match disk.write(node, at(start, u64::from(total))?, part, clock::realtime_ns()) {
            Ok(written) => written as u32,
            Err(_) if total > 0 => break,
            Err(errno) => return Err(errno),
        };
        total += written;
        if (written as usize) < part.len() {
            break;
        }
    }
    Ok(total)
}

/// Positions are what off_t holds.
fn check_offset(offset: u64) -> Result<(), Errno> {
    i64::try_from(offset).map(drop).map_err(|_| Errno::Inval)
}

fn at(offset: u64, done: u64) -> Result<u64, Errno> {
    offset.checked_add(done).ok_or(Errno::Inval)
}
