//! Functions over descriptors of any kind: their types, flags and rights, and the names of pre-opened directories.

use mote_abi::{errno::Errno, file::fdflags};

use super::{Wasi, descriptor::Object, linear::Linear};

/// witx `fdstat`: type, flags, rights.
pub(super) fn fdstat_get(wasi: &mut Wasi, memory: &mut Linear<'_>, fd: u32, stat: u32) -> Result<(), Errno> {
    let descriptor = wasi.fds.get(fd)?;
    let mut bytes = [0; 24];
    let fields: [(usize, &[u8]); 4] = [
        (0, &[descriptor.file_type(wasi.boot)]),
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

/// Only appending and blocking can be changed; how a file reaches the storage is settled when it is opened.
pub(super) fn fdstat_set_flags(wasi: &mut Wasi, _: &mut Linear<'_>, fd: u32, flags: u32) -> Result<(), Errno> {
    const CHANGEABLE: u16 = fdflags::APPEND | fdflags::NONBLOCK;
    let descriptor = wasi.descriptor(fd, mote_kernel_logic::fd::rights::FD_FDSTAT_SET_FLAGS)?;
    let flags = u16::try_from(flags).ok().filter(|flags| flags & !CHANGEABLE == 0).ok_or(Errno::Inval)?;
    match descriptor.object {
        Object::Directory(_) => Err(Errno::Badf),
        _ => {
            descriptor.flags = descriptor.flags & !CHANGEABLE | flags;
            Ok(())
        }
    }
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

/// witx `prestat`: tag 0 for a directory, and the length of its name.
pub(super) fn prestat_get(wasi: &mut Wasi, memory: &mut Linear<'_>, fd: u32, prestat: u32) -> Result<(), Errno> {
    let name = preopened(wasi, fd)?.ok_or(Errno::Badf)?;
    memory.write_u64(prestat, (name.len() as u64) << 32)
}

pub(super) fn prestat_dir_name(wasi: &mut Wasi, memory: &mut Linear<'_>, fd: u32, path: u32, bytes: u32) -> Result<(), Errno> {
    let name = preopened(wasi, fd)?.ok_or(Errno::Notdir)?;
    if name.len() > bytes as usize {
        return Err(Errno::Nametoolong);
    }
    memory.write(path, name)
}

fn preopened(wasi: &Wasi, fd: u32) -> Result<Option<&'static [u8]>, Errno> {
    match &wasi.fds.get(fd)?.object {
        Object::Directory(directory) => Ok(directory.preopened),
        _ => Ok(None),
    }
}
