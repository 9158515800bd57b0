//! Functions over paths. Checking their syntax is done here; following them is done by the host, or in the ramdisk.

use mote_abi::{
    errno::Errno,
    file::{FileStat, MAX_PATH_BYTES, fdflags, file_type, oflags},
    hypercall::{
        self as abi,
        files::{MAILBOX_BUFFER, OpenArgs, OpenResult, PathArgs, access, path as operation},
    },
};
use mote_kernel_logic::{fd::rights, ramdisk::NodeId, window::Ahead};
use zerocopy::IntoBytes;

use super::{
    Disk, Wasi,
    attributes::{check_times, times},
    descriptor::{Descriptor, Directory, Object, Place, RamFile},
    host_file::{HostFile, window_buffer},
    linear::Linear,
};
use crate::{clock, hypercall};

/// witx `lookupflags`.
const SYMLINK_FOLLOW: u32 = 1;

#[expect(clippy::too_many_arguments, reason = "the function of preview 1 has them")]
pub(super) fn open(
    wasi: &mut Wasi,
    memory: &mut Linear<'_>,
    fd: u32,
    dirflags: u32,
    path: u32,
    bytes: u32,
    oflags: u32,
    base: u64,
    _inheriting: u64,
    flags: u32,
    opened: u32,
) -> Result<(), Errno> {
    memory.check(opened, 4)?;
    let follow = lookup(dirflags)?;
    let oflags = u16::try_from(oflags).ok().filter(|bits| bits >> 4 == 0).ok_or(Errno::Inval)?;
    let flags = u16::try_from(flags).ok().filter(|bits| bits & !fdflags::ALL == 0).ok_or(Errno::Inval)?;
    let asked = |flag: u16| oflags & flag != 0;
    let needed = rights::PATH_OPEN | if asked(oflags::CREAT) { rights::PATH_CREATE_FILE } else { 0 };
    let start = directory(wasi, fd, needed)?;
    let path = text(memory, path, bytes)?;
    wasi.fds.check_room()?;
    let how = How { follow, oflags, flags, read: base & rights::FD_READ != 0, write: base & rights::FD_WRITE != 0 };
    let object = match start {
        Place::Host(handle) => open_host(wasi, handle, path, &how)?,
        Place::Ram(node) => {
            let disk = wasi.ram.as_mut().ok_or(Errno::Badf)?;
            let node = disk.open(node, path, follow, oflags, how.may_write(), clock::realtime_ns())?;
            match disk.stat(node)?.file_type {
                file_type::DIRECTORY => directory_object(Place::Ram(node), None),
                _ => Object::RamFile(RamFile { node, position: 0, readable: how.read, writable: how.write }),
            }
        }
    };
    let number = wasi.fds.insert(Descriptor::new(object, flags))?;
    memory.write_u32(opened, number)
}

/// How a path is opened.
struct How {
    follow: bool,
    oflags: u16,
    flags: u16,
    read: bool,
    write: bool,
}

impl How {
    /// Whether something may change by it, then or later.
    fn may_write(&self) -> bool {
        self.write || self.oflags & (oflags::CREAT | oflags::TRUNC) != 0
    }
}

fn open_host(wasi: &mut Wasi, directory: u32, path: &str, how: &How) -> Result<Object, Errno> {
    let bit = |set: bool, bit: u32| if set { bit } else { 0 };
    // Whoever asks for reading alone is likely to read from the beginning.
    let window = (how.read && !how.may_write()).then(|| wasi.files.windows.spare());
    let arguments = OpenArgs {
        directory,
        path_bytes: path.len() as u32,
        access: bit(how.read, access::READ) | bit(how.write, access::WRITE) | bit(how.follow, access::FOLLOW),
        oflags: how.oflags,
        fdflags: how.flags,
        buffer: window.map_or(MAILBOX_BUFFER, window_buffer),
        ahead_bytes: if window.is_some() { Ahead::FIRST_BYTES as u32 } else { 0 },
    };
    if how.may_write() {
        wasi.files.changes += 1;
        // Opening may cut a file that another descriptor has appended to.
        for descriptor in wasi.fds.iter_mut() {
            if let Object::File(file) = &mut descriptor.object {
                file.settle_position();
            }
        }
    }
    let result: OpenResult = hypercall::file(abi::FILE_OPEN, &arguments, &[path.as_bytes()])?;
    if result.stat.file_type == file_type::DIRECTORY {
        return Ok(directory_object(Place::Host(result.handle), Some(result.stat.inode)));
    }
    let mut file = HostFile::new(&result, how.read, how.write, how.flags, window, &mut wasi.files);
    if how.oflags & oflags::TRUNC != 0 {
        wasi.files.windows.forget(file.id);
    }
    for descriptor in wasi.fds.iter_mut() {
        if let Object::File(other) = &mut descriptor.object
            && other.id == file.id
        {
            (other.is_shared, file.is_shared) = (true, true);
        }
    }
    Ok(Object::File(file))
}

fn directory_object(place: Place, inode: Option<u64>) -> Object {
    Object::Directory(Directory { place, preopened: None, inode })
}

pub(super) fn filestat_get(
    wasi: &mut Wasi,
    memory: &mut Linear<'_>,
    fd: u32,
    flags: u32,
    path: u32,
    bytes: u32,
    result: u32,
) -> Result<(), Errno> {
    let follow = lookup(flags)?;
    let start = directory(wasi, fd, rights::PATH_FILESTAT_GET)?;
    let path = text(memory, path, bytes)?;
    let stat: FileStat = match start {
        Place::Host(handle) => host(operation::STAT, handle, path, &Extra { follow, ..Extra::default() })?,
        Place::Ram(node) => {
            let disk = wasi.ram.as_ref().ok_or(Errno::Badf)?;
            disk.stat(disk.lookup(node, path, follow)?)?
        }
    };
    memory.write(result, stat.as_bytes())
}

#[expect(clippy::too_many_arguments, reason = "the function of preview 1 has them")]
pub(super) fn filestat_set_times(
    wasi: &mut Wasi,
    memory: &mut Linear<'_>,
    fd: u32,
    flags: u32,
    path: u32,
    bytes: u32,
    accessed_ns: u64,
    modified_ns: u64,
    which: u32,
) -> Result<(), Errno> {
    check_times(which)?;
    let follow = lookup(flags)?;
    let start = directory(wasi, fd, rights::PATH_FILESTAT_SET_TIMES)?;
    let path = text(memory, path, bytes)?;
    match start {
        Place::Host(handle) => {
            wasi.files.changes += 1;
            host::<u32>(
                operation::SET_TIMES,
                handle,
                path,
                &Extra { follow, accessed_ns, modified_ns, which, ..Extra::default() },
            )
            .map(drop)
        }
        Place::Ram(node) => {
            let disk = wasi.ram.as_mut().ok_or(Errno::Badf)?;
            let now_ns = clock::realtime_ns();
            let [accessed, modified] = times(accessed_ns, modified_ns, which, now_ns);
            let node = disk.lookup(node, path, follow)?;
            disk.set_times(node, accessed, modified, now_ns)
        }
    }
}

pub(super) fn create_directory(wasi: &mut Wasi, memory: &mut Linear<'_>, fd: u32, path: u32, bytes: u32) -> Result<(), Errno> {
    one(wasi, memory, (fd, path, bytes), rights::PATH_CREATE_DIRECTORY, operation::CREATE_DIRECTORY, Disk::create_directory)
}

pub(super) fn remove_directory(wasi: &mut Wasi, memory: &mut Linear<'_>, fd: u32, path: u32, bytes: u32) -> Result<(), Errno> {
    one(wasi, memory, (fd, path, bytes), rights::PATH_REMOVE_DIRECTORY, operation::REMOVE_DIRECTORY, Disk::remove_directory)
}

pub(super) fn unlink_file(wasi: &mut Wasi, memory: &mut Linear<'_>, fd: u32, path: u32, bytes: u32) -> Result<(), Errno> {
    one(wasi, memory, (fd, path, bytes), rights::PATH_UNLINK_FILE, operation::UNLINK_FILE, Disk::unlink_file)
}

/// What takes one path and answers nothing.
fn one(
    wasi: &mut Wasi,
    memory: &Linear<'_>,
    (fd, path, bytes): (u32, u32, u32),
    right: u64,
    operation: u32,
    on_ram: fn(&mut Disk, NodeId, &str, u64) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let start = directory(wasi, fd, right)?;
    let path = text(memory, path, bytes)?;
    wasi.files.changes += 1;
    match start {
        Place::Host(handle) => host::<u32>(operation, handle, path, &Extra::default()).map(drop),
        Place::Ram(node) => on_ram(wasi.ram.as_mut().ok_or(Errno::Badf)?, node, path, clock::realtime_ns()),
    }
}

#[expect(clippy::too_many_arguments, reason = "the function of preview 1 has them")]
pub(super) fn rename(
    wasi: &mut Wasi,
    memory: &mut Linear<'_>,
    from_fd: u32,
    from: u32,
    from_bytes: u32,
    to_fd: u32,
    to: u32,
    to_bytes: u32,
) -> Result<(), Errno> {
    let start = directory(wasi, from_fd, rights::PATH_RENAME_SOURCE)?;
    let second_start = directory(wasi, to_fd, rights::PATH_RENAME_TARGET)?;
    let (from, to) = (text(memory, from, from_bytes)?, text(memory, to, to_bytes)?);
    between(wasi, (start, from), (second_start, to), operation::RENAME, Disk::rename)
}

#[expect(clippy::too_many_arguments, reason = "the function of preview 1 has them")]
pub(super) fn link(
    wasi: &mut Wasi,
    memory: &mut Linear<'_>,
    from_fd: u32,
    flags: u32,
    from: u32,
    from_bytes: u32,
    to_fd: u32,
    to: u32,
    to_bytes: u32,
) -> Result<(), Errno> {
    let follow = lookup(flags)?;
    let start = directory(wasi, from_fd, rights::PATH_LINK_SOURCE)?;
    let second_start = directory(wasi, to_fd, rights::PATH_LINK_TARGET)?;
    let (from, to) = (text(memory, from, from_bytes)?, text(memory, to, to_bytes)?);
    // A link to what a symbolic link names would have to follow it without a race, which no host can do.
    if follow {
        return Err(Errno::Inval);
    }
    between(wasi, (start, from), (second_start, to), operation::LINK, Disk::link)
}

type BetweenNodes = fn(&mut Disk, NodeId, &str, NodeId, &str, u64) -> Result<(), Errno>;

/// What takes two paths, both on the host or both in the ramdisk, and answers nothing.
fn between(
    wasi: &mut Wasi,
    (start, from): (Place, &str),
    (second_start, to): (Place, &str),
    operation: u32,
    on_ram: BetweenNodes,
) -> Result<(), Errno> {
    wasi.files.changes += 1;
    match (start, second_start) {
        (Place::Host(handle), Place::Host(second_directory)) => {
            host::<u32>(operation, handle, from, &Extra { second_directory, second: to, ..Extra::default() }).map(drop)
        }
        (Place::Ram(node), Place::Ram(second)) => {
            on_ram(wasi.ram.as_mut().ok_or(Errno::Badf)?, node, from, second, to, clock::realtime_ns())
        }
        _ => Err(Errno::Xdev),
    }
}

pub(super) fn symlink(
    wasi: &mut Wasi,
    memory: &mut Linear<'_>,
    target: u32,
    target_bytes: u32,
    fd: u32,
    path: u32,
    bytes: u32,
) -> Result<(), Errno> {
    let start = directory(wasi, fd, rights::PATH_SYMLINK)?;
    let (target, path) = (text(memory, target, target_bytes)?, text(memory, path, bytes)?);
    wasi.files.changes += 1;
    match start {
        Place::Host(handle) => {
            host::<u32>(operation::SYMLINK, handle, path, &Extra { second: target, ..Extra::default() }).map(drop)
        }
        Place::Ram(node) => wasi.ram.as_mut().ok_or(Errno::Badf)?.symlink(target, node, path, clock::realtime_ns()),
    }
}

#[expect(clippy::too_many_arguments, reason = "the function of preview 1 has them")]
pub(super) fn readlink(
    wasi: &mut Wasi,
    memory: &mut Linear<'_>,
    fd: u32,
    path: u32,
    path_bytes: u32,
    buffer: u32,
    bytes: u32,
    used: u32,
) -> Result<(), Errno> {
    memory.check(buffer, bytes)?;
    memory.check(used, 4)?;
    let start = directory(wasi, fd, rights::PATH_READLINK)?;
    let path = text(memory, path, path_bytes)?;
    let length = match start {
        Place::Host(handle) => {
            let arguments = PathArgs {
                operation: operation::READLINK,
                directory: handle,
                path_bytes: path.len() as u32,
                ..PathArgs::default()
            };
            let length = hypercall::file_data(abi::PATH, &arguments, &[path.as_bytes()])?.min(bytes as usize);
            hypercall::copy_out(MAILBOX_BUFFER, 0, memory.slice_mut(buffer, length as u32)?);
            length
        }
        Place::Ram(node) => {
            let target = wasi.ram.as_ref().ok_or(Errno::Badf)?.readlink(node, path)?.as_bytes();
            let length = target.len().min(bytes as usize);
            memory.write(buffer, target.get(..length).unwrap_or(target))?;
            length
        }
    };
    memory.write_u32(used, length as u32)
}

/// What a path has with it, for the operations that need more.
#[derive(Default)]
struct Extra<'a> {
    follow: bool,
    second_directory: u32,
    second: &'a str,
    accessed_ns: u64,
    modified_ns: u64,
    which: u32,
}

fn host<R: zerocopy::FromBytes>(operation: u32, directory: u32, path: &str, extra: &Extra<'_>) -> Result<R, Errno> {
    let arguments = PathArgs {
        operation,
        directory,
        path_bytes: path.len() as u32,
        second_directory: extra.second_directory,
        second_bytes: extra.second.len() as u32,
        follow: u32::from(extra.follow),
        accessed_ns: extra.accessed_ns,
        modified_ns: extra.modified_ns,
        which: extra.which,
        reserved: 0,
    };
    hypercall::file(abi::PATH, &arguments, &[path.as_bytes(), extra.second.as_bytes()])
}

/// The directory at which a path starts.
fn directory(wasi: &mut Wasi, fd: u32, right: u64) -> Result<Place, Errno> {
    match &wasi.descriptor(fd, right)?.object {
        Object::Directory(directory) => Ok(directory.place),
        // Only path_open tells that there is something else.
        _ if right & rights::PATH_OPEN != 0 => Err(Errno::Notdir),
        _ => Err(Errno::Badf),
    }
}

fn lookup(flags: u32) -> Result<bool, Errno> {
    if flags & !SYMLINK_FOLLOW == 0 { Ok(flags & SYMLINK_FOLLOW != 0) } else { Err(Errno::Inval) }
}

/// A path, or the text of a symbolic link: UTF-8 without NUL, not empty, not too long.
fn text<'a>(memory: &'a Linear<'_>, pointer: u32, bytes: u32) -> Result<&'a str, Errno> {
    let bytes = memory.slice(pointer, bytes)?;
    let text = core::str::from_utf8(bytes).map_err(|_| Errno::Ilseq)?;
    match text.len() {
        0 => Err(Errno::Noent),
        _ if text.contains('\0') => Err(Errno::Inval),
        length if length > MAX_PATH_BYTES => Err(Errno::Nametoolong),
        _ => Ok(text),
    }
}
