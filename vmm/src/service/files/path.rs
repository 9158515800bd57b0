//! What is done to paths.

use std::{os::unix::ffi::OsStrExt, time::Duration};

use cap_fs_ext::{DirExt, FollowSymlinks, OpenOptionsFollowExt, OpenOptionsMaybeDirExt, SystemTimeSpec};
use cap_std::{
    fs::{FileTypeExt, Metadata, MetadataExt, OpenOptions, OpenOptionsExt},
    time::SystemTime,
};
use mote_abi::{
    errno::Errno,
    file::{FileStat, file_type},
    hypercall::status,
    layout::MAILBOX_DATA,
    mailbox::Response,
};
use rustix::fs::{AtFlags, Timespec, UTIME_NOW, UTIME_OMIT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{Directory, FileService, Refusal, change, nanoseconds};
use crate::request::{PathOperation, Times};

impl FileService {
    pub(super) fn path(
        &self,
        directory: u32,
        path: &str,
        operation: PathOperation,
        memory: &GuestMemoryMmap,
    ) -> Result<Response, Refusal> {
        let start = self.get(directory)?;
        let start = start.directory()?;
        let dir = &start.dir;
        match operation {
            PathOperation::Stat { follow } => {
                let metadata = if follow { dir.metadata(path) } else { dir.symlink_metadata(path) }?;
                return Ok(Response::new(status::OK, &stat(&metadata), 0));
            }
            PathOperation::ReadLink => {
                let target = dir.read_link(path)?;
                let target = target.as_os_str().as_bytes();
                if std::str::from_utf8(target).is_err() {
                    return Err(Errno::Ilseq.into());
                }
                memory.write_slice(target, GuestAddress(MAILBOX_DATA.start)).map_err(|_| Errno::Nametoolong)?;
                return Ok(Response::new(status::OK, &0u32, u32::try_from(target.len()).map_err(|_| Errno::Overflow)?));
            }
            _ => start.check_writable()?,
        }
        match operation {
            PathOperation::SetTimes { follow, times } => set_times(start, path, follow, times)?,
            PathOperation::CreateDirectory => dir.create_dir(path)?,
            PathOperation::RemoveDirectory => dir.remove_dir(path)?,
            PathOperation::UnlinkFile => dir.remove_file_or_symlink(path)?,
            PathOperation::Rename { directory, path: to } => {
                let second = self.get(directory)?;
                let second = second.directory()?;
                second.check_writable()?;
                dir.rename(path, &second.dir, to)?;
            }
            PathOperation::Link { directory, path: to } => {
                let second = self.get(directory)?;
                let second = second.directory()?;
                second.check_writable()?;
                dir.hard_link(path, &second.dir, to)?;
            }
            PathOperation::Symlink { target } => DirExt::symlink(dir, target, path)?,
            PathOperation::Stat { .. } | PathOperation::ReadLink => return Err(Errno::Inval.into()),
        }
        Ok(Response::new(status::OK, &0u32, 0))
    }
}

impl Directory {
    pub(super) fn check_writable(&self) -> Result<(), Errno> {
        if self.writable { Ok(()) } else { Err(Errno::Perm) }
    }
}

fn set_times(start: &Directory, path: &str, follow: bool, times: Times) -> Result<(), Refusal> {
    let timestamps = change::timestamps(times)?;
    if follow {
        // Whatever may be done with it, a file can be opened to be a place.
        let mut options = OpenOptions::new();
        options.read(true).follow(FollowSymlinks::Yes).maybe_dir(true).custom_flags(libc::O_PATH);
        let file = start.dir.open_with(path, &options)?;
        return Ok(rustix::fs::utimensat(&file, c"", &timestamps, AtFlags::EMPTY_PATH)?);
    }
    let one = |time: Timespec| match (time.tv_sec, time.tv_nsec) {
        (_, UTIME_NOW) => Some(SystemTimeSpec::SymbolicNow),
        (_, UTIME_OMIT) => None,
        (seconds, nanoseconds) => {
            let since = Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanoseconds).ok()?);
            Some(SystemTimeSpec::Absolute(SystemTime::from_std(std::time::UNIX_EPOCH.checked_add(since)?)))
        }
    };
    Ok(start.dir.set_symlink_times(path, one(timestamps.last_access), one(timestamps.last_modification))?)
}

fn stat(metadata: &Metadata) -> FileStat {
    let kind = metadata.file_type();
    let file_type = if kind.is_dir() {
        file_type::DIRECTORY
    } else if kind.is_file() {
        file_type::REGULAR_FILE
    } else if kind.is_symlink() {
        file_type::SYMBOLIC_LINK
    } else if kind.is_block_device() {
        file_type::BLOCK_DEVICE
    } else if kind.is_char_device() {
        file_type::CHARACTER_DEVICE
    } else if kind.is_socket() {
        file_type::SOCKET_STREAM
    } else {
        file_type::UNKNOWN
    };
    FileStat {
        device: metadata.dev(),
        inode: metadata.ino(),
        file_type,
        reserved: [0; 7],
        links: metadata.nlink(),
        bytes: metadata.size(),
        accessed_ns: nanoseconds(metadata.atime(), metadata.atime_nsec()),
        modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
        changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
    }
}
