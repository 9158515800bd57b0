//! Opening paths.

use std::{fs::File, os::fd::AsFd, sync::atomic::AtomicU16};

use cap_fs_ext::{FollowSymlinks, OpenOptionsFollowExt, OpenOptionsMaybeDirExt, OpenOptionsSyncExt};
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use mote_abi::{
    errno::Errno,
    file::{fdflags, file_type, oflags},
    hypercall::{files::OpenResult, status},
    mailbox::Response,
};
use rustix::fs::OFlags;
use vm_memory::GuestMemoryMmap;

use super::{
    Directory, FileService, Open, OpenFile, Refusal, stat,
    transfer::{self, Read},
};
use crate::request;

impl FileService {
    pub(super) fn open(&self, request: &request::Open, memory: &GuestMemoryMmap) -> Result<Response, Refusal> {
        self.check_room()?;
        let start = self.get(request.directory)?;
        let directory = start.directory()?;
        let file = open_in(directory, request)?;
        let stat = stat(file.as_fd())?;
        if stat.file_type == file_type::DIRECTORY {
            let dir = Dir::from_std_file(file);
            let handle = self.insert(Open::Directory(Directory { dir, writable: directory.writable }))?;
            return Ok(Response::new(status::OK, &OpenResult { handle, stat, ..OpenResult::default() }, 0));
        }
        if request.oflags & oflags::DIRECTORY != 0 {
            return Err(Errno::Notdir.into());
        }
        if self.proc_device == Some(stat.device) {
            return Err(Errno::Acces.into());
        }
        let regular = stat.file_type == file_type::REGULAR_FILE;
        let open = OpenFile { file, regular, writable: directory.writable, failure: AtomicU16::new(0) };
        let mut result = OpenResult { stat, ..OpenResult::default() };
        if regular && request.ahead.bytes > 0 {
            // What cannot be read now is read, and its error told, when the guest asks for it.
            if let Ok(Read { bytes, at_end }) = transfer::read_at(&open.file, memory, request.ahead, 0) {
                result.ahead_bytes = u32::try_from(bytes).unwrap_or(0);
                result.was_read = 1;
                result.at_end = u32::from(at_end);
            }
        }
        result.handle = self.insert(Open::File(open))?;
        Ok(Response::new(status::OK, &result, 0))
    }
}

fn open_in(directory: &Directory, request: &request::Open) -> Result<File, Refusal> {
    let asked = |flag: u16| request.oflags & flag != 0;
    if asked(oflags::DIRECTORY) && (asked(oflags::CREAT) || asked(oflags::EXCL) || asked(oflags::TRUNC)) {
        return Err(Errno::Inval.into());
    }
    let write = request.write || asked(oflags::CREAT) || asked(oflags::TRUNC);
    if write && !directory.writable {
        return Err(Errno::Perm.into());
    }
    let mut options = OpenOptions::new();
    options
        // What is opened for nothing can at least be asked for its attributes.
        .read(request.read || !request.write)
        .write(write)
        .create(asked(oflags::CREAT))
        .create_new(asked(oflags::CREAT) && asked(oflags::EXCL))
        .truncate(asked(oflags::TRUNC))
        .maybe_dir(true)
        .follow(if request.follow { FollowSymlinks::Yes } else { FollowSymlinks::No })
        // A pipe without a writer must not hold the host up, nor may a terminal become that of this process.
        .nonblock(true)
        .custom_flags(i32::try_from(OFlags::NOCTTY.bits()).unwrap_or(0));
    if request.fdflags & fdflags::DSYNC != 0 {
        options.dsync(true);
    }
    if request.fdflags & fdflags::RSYNC != 0 {
        options.rsync(true);
    }
    if request.fdflags & fdflags::SYNC != 0 {
        options.sync(true);
    }
    Ok(directory.dir.open_with(&request.path, &options)?.into_std())
}
