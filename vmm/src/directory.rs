//! Directories of the host that a program may use.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags};
use thiserror::Error;

use crate::module::shown;

/// What a program may do in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Look and read.
    ReadOnly,
    /// Everything.
    ReadWrite,
}

/// A directory that cannot be given to a program.
#[derive(Debug, Error)]
#[error("cannot open the directory {}: {source}", shown(path))]
pub struct DirectoryError {
    /// Which one.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}

/// A directory of the host, opened for a program, which sees it under a name of its own. Nothing outside of it can be reached
/// through it, whatever symbolic links it holds.
#[derive(Debug)]
pub struct Directory {
    pub(crate) file: File,
    pub(crate) host: PathBuf,
    pub(crate) guest: String,
    pub(crate) access: Access,
}

impl Directory {
    /// Opens `host`, which the program sees as `guest`.
    pub fn open(host: &Path, guest: &str, access: Access) -> Result<Self, DirectoryError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(host, flags, Mode::empty()) {
            Ok(fd) => Ok(Self { file: fd.into(), host: host.into(), guest: guest.into(), access }),
            Err(errno) => Err(DirectoryError { path: host.into(), source: errno.into() }),
        }
    }

    /// The same directory, opened once more.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        let Self { file, host, guest, access } = self;
        Ok(Self { file: file.try_clone()?, host: host.clone(), guest: guest.clone(), access: *access })
    }

    /// Where it is on the host.
    pub fn host(&self) -> &Path {
        &self.host
    }

    /// What the program calls it.
    pub fn guest(&self) -> &str {
        &self.guest
    }

    /// What the program may do in it.
    pub fn access(&self) -> Access {
        self.access
    }
}
