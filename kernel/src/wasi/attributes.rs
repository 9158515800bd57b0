//! Functions over what open files are beside their contents: size, space, times, and getting them to the storage.

use mote_abi::{
    errno::Errno,
    file::FileStat,
    hypercall::{
        self as abi,
        files::{HandleArgs, change, fstflags},
    },
};
use mote_kernel_logic::fd::rights;
use zerocopy::IntoBytes;

use super::{
    Wasi,
    descriptor::{Object, Place},
    host_file::change_handle,
    linear::Linear,
};
use crate::{clock, hypercall};

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

/// What is known of an open file, directory, stream or socket.
pub(super) fn stat(wasi: &Wasi, fd: u32) -> Result<FileStat, Errno> {
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
