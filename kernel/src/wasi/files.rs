//! Functions over open files: reading, writing, positions, attributes. Standard streams and sockets, which are read and
//! written by the same functions, are in files of their own.

use mote_abi::{
    errno::Errno,
    file::{FileStat, fdflags},
    hypercall::{
        self as abi,
        files::{HandleArgs, change, fstflags},
    },
    ring,
};
use mote_kernel_logic::{fd::rights, ramdisk::NodeId};
use zerocopy::IntoBytes;

use super::{
    Disk, Wasi,
    descriptor::{Object, Place, RamFile},
    host_file::{Shared, change_handle, close_handle, post_close},
    linear::{IoVec, Linear},
    sockets, streams,
};
use crate::{clock, hypercall};

pub(super) fn read(wasi: &mut Wasi, memory: &mut Linear<'_>, fd: u32, iovs: u32, count: u32, done: u32) -> Result<(), Errno> {
    let flags = wasi.descriptor(fd, rights::FD_READ)?.flags;
    let vectors = vectors(memory, iovs, count, done)?;
    let (files, ram, stdin) = (&mut wasi.files, &mut wasi.ram, &mut wasi.stdin);
    let total = match &mut wasi.fds.get_mut(fd)?.object {
        Object::File(file) if !file.readable => return Err(Errno::Badf),
        Object::File(file) if file.is_regular() => {
            let start = file.position()?;
            let total = read_vectors(memory, &vectors, |target, done| file.read_at(files, target, start.saturating_add(done)))?;
            file.set_position(start.saturating_add(u64::from(total)));
            total
        }
        Object::File(file) => read_once(memory, &vectors, |target| file.read_stream(target, flags))?,
        Object::RamFile(file) => {
            let (node, start) = (file.readable_node()?, file.position);
            let disk = ram.as_ref().ok_or(Errno::Badf)?;
            let total = read_vectors(memory, &vectors, |target, done| disk.read(node, start.saturating_add(done), target))?;
            file.position = start.saturating_add(u64::from(total));
            total
        }
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
    let vectors = vectors(memory, iovs, count, done)?;
    let (files, ram) = (&mut wasi.files, &wasi.ram);
    let total = match &mut wasi.fds.get_mut(fd)?.object {
        Object::File(file) if !file.readable => return Err(Errno::Badf),
        Object::File(file) if file.is_regular() => {
            read_vectors(memory, &vectors, |target, done| file.read_at(files, target, at(offset, done)?))?
        }
        Object::RamFile(file) => {
            let (node, disk) = (file.readable_node()?, ram.as_ref().ok_or(Errno::Badf)?);
            read_vectors(memory, &vectors, |target, done| disk.read(node, at(offset, done)?, target))?
        }
        object => return Err(without_position(object)),
    };
    memory.write_u32(done, total)
}

pub(super) fn write(wasi: &mut Wasi, memory: &mut Linear<'_>, fd: u32, iovs: u32, count: u32, done: u32) -> Result<(), Errno> {
    let flags = wasi.descriptor(fd, rights::FD_WRITE)?.flags;
    let total = memory.iovecs_bytes(iovs, count)?;
    memory.check(done, 4)?;
    let (files, ram, boot) = (&mut wasi.files, &mut wasi.ram, wasi.boot);
    let parts = || memory.parts(iovs, count);
    let written = match &mut wasi.fds.get_mut(fd)?.object {
        Object::File(file) if !file.writable => return Err(Errno::Badf),
        Object::File(file) => file.write(files, parts(), total as usize, None, flags)? as u32,
        Object::RamFile(file) => {
            let (node, disk) = (file.writable_node()?, ram.as_mut().ok_or(Errno::Badf)?);
            let start = if flags & fdflags::APPEND != 0 { disk.stat(node)?.bytes } else { file.position };
            let written = write_ram(disk, node, parts(), start)?;
            file.position = start.saturating_add(u64::from(written));
            written
        }
        Object::Stdout => streams::write(files, boot, ring::Stream::Stdout, 1, parts())?,
        Object::Stderr => streams::write(files, boot, ring::Stream::Stderr, 2, parts())?,
        Object::Connection { handle } => sockets::send_from(*handle, parts(), sockets::wait_flag(flags))?,
        Object::Listener { .. } => return Err(Errno::Notconn),
        Object::Stdin | Object::Directory(_) => return Err(Errno::Badf),
    };
    memory.write_u32(done, written)
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
    let flags = wasi.descriptor(fd, rights::FD_WRITE | rights::FD_SEEK)?.flags;
    check_offset(offset)?;
    let total = memory.iovecs_bytes(iovs, count)?;
    memory.check(done, 4)?;
    let (files, ram) = (&mut wasi.files, &mut wasi.ram);
    let parts = memory.parts(iovs, count);
    let written = match &mut wasi.fds.get_mut(fd)?.object {
        Object::File(file) if !file.writable => return Err(Errno::Badf),
        // As on Linux, a file that is appended to is appended to by this function, too.
        Object::File(file) if file.is_regular() => file.write(files, parts, total as usize, Some(offset), flags)? as u32,
        Object::RamFile(file) => {
            let (node, disk) = (file.writable_node()?, ram.as_mut().ok_or(Errno::Badf)?);
            let start = if flags & fdflags::APPEND != 0 { disk.stat(node)?.bytes } else { offset };
            write_ram(disk, node, parts, start)?
        }
        object => return Err(without_position(object)),
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
        whence::END => stat(wasi, fd)?.bytes,
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

pub(super) fn filestat_get(wasi: &mut Wasi, memory: &mut Linear<'_>, fd: u32, result: u32) -> Result<(), Errno> {
    wasi.descriptor(fd, rights::FD_FILESTAT_GET)?;
    let stat = stat(wasi, fd)?;
    memory.write(result, stat.as_bytes())
}

pub(super) fn filestat_set_size(wasi: &mut Wasi, _: &mut Linear<'_>, fd: u32, bytes: u64) -> Result<(), Errno> {
    wasi.descriptor(fd, rights::FD_FILESTAT_SET_SIZE)?;
    let (files, ram) = (&mut wasi.files, &mut wasi.ram);
    match &mut wasi.fds.get_mut(fd)?.object {
        Object::File(file) if !file.writable => Err(Errno::Inval),
        Object::File(file) => file.change(files, change::SET_BYTES, bytes, 0, 0),
        Object::RamFile(file) if !file.writable => Err(Errno::Inval),
        Object::RamFile(file) => ram.as_mut().ok_or(Errno::Badf)?.set_bytes(file.node, bytes, clock::realtime_ns()),
        _ => Err(Errno::Badf),
    }
}

pub(super) fn allocate(wasi: &mut Wasi, _: &mut Linear<'_>, fd: u32, offset: u64, bytes: u64) -> Result<(), Errno> {
    wasi.descriptor(fd, rights::FD_ALLOCATE)?;
    let (files, ram) = (&mut wasi.files, &mut wasi.ram);
    match &mut wasi.fds.get_mut(fd)?.object {
        Object::File(file) if !file.writable => Err(Errno::Badf),
        Object::File(file) => file.change(files, change::ALLOCATE, offset, bytes, 0),
        Object::RamFile(file) => {
            let node = file.writable_node()?;
            ram.as_mut().ok_or(Errno::Badf)?.allocate(node, offset, bytes, clock::realtime_ns())
        }
        _ => Err(Errno::Badf),
    }
}

pub(super) fn advise(wasi: &mut Wasi, _: &mut Linear<'_>, fd: u32, offset: u64, bytes: u64, advice: u32) -> Result<(), Errno> {
    const LAST_ADVICE: u32 = 5;
    if advice > LAST_ADVICE {
        return Err(Errno::Inval);
    }
    wasi.descriptor(fd, rights::FD_ADVISE)?;
    match &mut wasi.fds.get_mut(fd)?.object {
        Object::File(file) => change_handle(file.handle, change::ADVISE, offset, bytes, advice),
        Object::RamFile(_) if i64::try_from(bytes).is_err() => Err(Errno::Inval),
        // Everything is in memory already.
        Object::RamFile(_) => Ok(()),
        _ => Err(Errno::Badf),
    }
}

pub(super) fn sync(wasi: &mut Wasi, _: &mut Linear<'_>, fd: u32) -> Result<(), Errno> {
    wasi.descriptor(fd, rights::FD_SYNC)?;
    synchronize(wasi, fd, change::SYNC)
}

pub(super) fn datasync(wasi: &mut Wasi, _: &mut Linear<'_>, fd: u32) -> Result<(), Errno> {
    wasi.descriptor(fd, rights::FD_DATASYNC)?;
    synchronize(wasi, fd, change::DATASYNC)
}

fn synchronize(wasi: &mut Wasi, fd: u32, how: u32) -> Result<(), Errno> {
    let files = &mut wasi.files;
    match &mut wasi.fds.get_mut(fd)?.object {
        Object::File(file) => file.change(files, how, 0, 0, 0),
        Object::Directory(directory) => match directory.place {
            Place::Host(handle) => change_handle(handle, how, 0, 0, 0),
            Place::Ram(_) => Ok(()),
        },
        Object::RamFile(_) => Ok(()),
        _ => Err(Errno::Badf),
    }
}

pub(super) fn filestat_set_times(
    wasi: &mut Wasi,
    _: &mut Linear<'_>,
    fd: u32,
    accessed: u64,
    modified: u64,
    which: u32,
) -> Result<(), Errno> {
    check_times(which)?;
    wasi.descriptor(fd, rights::FD_FILESTAT_SET_TIMES)?;
    let (files, ram) = (&mut wasi.files, &mut wasi.ram);
    let node = match &mut wasi.fds.get_mut(fd)?.object {
        Object::File(file) => return file.change(files, change::SET_TIMES, accessed, modified, which),
        Object::Directory(directory) => match directory.place {
            Place::Host(handle) => {
                files.changes += 1;
                return change_handle(handle, change::SET_TIMES, accessed, modified, which);
            }
            Place::Ram(node) => node,
        },
        Object::RamFile(file) => file.node,
        _ => return Err(Errno::Badf),
    };
    let now_ns = clock::realtime_ns();
    let [accessed, modified] = times(accessed, modified, which, now_ns);
    ram.as_mut().ok_or(Errno::Badf)?.set_times(node, accessed, modified, now_ns)
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

/// What is known of an open file, directory, stream or socket.
fn stat(wasi: &Wasi, fd: u32) -> Result<FileStat, Errno> {
    let descriptor = wasi.fds.get(fd)?;
    let handle = match &descriptor.object {
        Object::File(file) => return file.stat(&wasi.files),
        Object::RamFile(file) => return wasi.ram.as_ref().ok_or(Errno::Badf)?.stat(file.node),
        Object::Directory(directory) => match directory.place {
            Place::Host(handle) => handle,
            Place::Ram(node) => return wasi.ram.as_ref().ok_or(Errno::Badf)?.stat(node),
        },
        // A stream has a type and neither size nor times.
        _ => return Ok(FileStat { file_type: descriptor.file_type(wasi.boot), ..FileStat::default() }),
    };
    hypercall::file(abi::FILE_STAT, &HandleArgs { handle, reserved: 0 }, &[])
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

/// Conflicting flags (witx: `fstflags`).
pub(super) fn check_times(which: u32) -> Result<(), Errno> {
    let both = |one: u32, other: u32| which & one != 0 && which & other != 0;
    let known = fstflags::ATIM | fstflags::ATIM_NOW | fstflags::MTIM | fstflags::MTIM_NOW;
    if which & !known != 0 || both(fstflags::ATIM, fstflags::ATIM_NOW) || both(fstflags::MTIM, fstflags::MTIM_NOW) {
        return Err(Errno::Inval);
    }
    Ok(())
}

/// The times to be set, as `which` says.
pub(super) fn times(accessed: u64, modified: u64, which: u32, now_ns: u64) -> [Option<u64>; 2] {
    let one = |set: u32, now: u32, time_ns: u64| match (which & set != 0, which & now != 0) {
        (true, _) => Some(time_ns),
        (_, true) => Some(now_ns),
        _ => None,
    };
    [one(fstflags::ATIM, fstflags::ATIM_NOW, accessed), one(fstflags::MTIM, fstflags::MTIM_NOW, modified)]
}

impl RamFile {
    fn readable_node(&self) -> Result<NodeId, Errno> {
        if self.readable { Ok(self.node) } else { Err(Errno::Badf) }
    }

    fn writable_node(&self) -> Result<NodeId, Errno> {
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
