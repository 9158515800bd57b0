//! The ramdisk: an archive that guests map read-only. Its bytes are first parsed inside the VM.

use std::{
    fs::File,
    io,
    os::{fd::AsFd, unix::fs::FileExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use mote_abi::layout::RAMDISK;
use rustix::fs::{Mode, OFlags};
use thiserror::Error;

use crate::{
    memory::{Mapping, MemoryError},
    module::shown,
};

/// An archive that cannot even be tried.
#[derive(Debug, Error)]
pub enum RamdiskError {
    /// The file could not be read.
    #[error("cannot read the ramdisk {}: {source}", shown(path))]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A directory, pipe or device, or an empty file.
    #[error("the ramdisk {} is no archive: it must be a regular file that is not empty", shown(path))]
    NotArchive {
        /// Which file.
        path: PathBuf,
    },
    /// A compressed archive.
    #[error("the ramdisk {} is compressed: unpack it first, as by `{tool} -d`", shown(path))]
    Compressed {
        /// Which file.
        path: PathBuf,
        /// What unpacks it.
        tool: &'static str,
    },
    /// More than the guest has addresses for.
    #[error("the ramdisk {} is too large: {bytes} bytes, at most {} can be mapped", shown(path), RAMDISK.bytes())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// No host memory for it.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// A tar archive, ready to be mapped into any number of VMs as their file system.
#[derive(Debug)]
pub struct Ramdisk {
    mapping: Mapping,
    bytes: u64,
}

impl Ramdisk {
    /// An archive in a file, which must not change while it is in use: it is mapped, not copied.
    pub fn from_file(path: &Path) -> Result<Arc<Self>, RamdiskError> {
        let read_error = |source| RamdiskError::Read { path: path.into(), source };
        // Non-blocking, as opening a pipe would wait for its other end.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| read_error(errno.into()))?;
        let file = File::from(file);
        let metadata = file.metadata().map_err(read_error)?;
        let bytes = metadata.len();
        if !metadata.is_file() || bytes == 0 {
            return Err(RamdiskError::NotArchive { path: path.into() });
        }
        if bytes > RAMDISK.bytes() {
            return Err(RamdiskError::TooLarge { path: path.into(), bytes });
        }
        let mut start = [0; 6];
        let read = file.read_at(&mut start, 0).map_err(read_error)?;
        if let Some(tool) = compressor(start.get(..read).unwrap_or(&[])) {
            return Err(RamdiskError::Compressed { path: path.into(), tool });
        }
        Ok(Arc::new(Self { mapping: Mapping::file("the ramdisk", file.as_fd(), bytes)?, bytes }))
    }

    /// An archive that is a part of a file, from a multiple of the page size on.
    pub(crate) fn from_part(file: &File, from: u64, bytes: u64) -> Result<Arc<Self>, MemoryError> {
        Ok(Arc::new(Self { mapping: Mapping::part_of_file("the ramdisk", file.as_fd(), from, bytes)?, bytes }))
    }

    /// Size of the archive in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn mapping(&self) -> &Mapping {
        &self.mapping
    }
}

/// What made a file that begins like this.
fn compressor(start: &[u8]) -> Option<&'static str> {
    const MAGIC: [(&[u8], &str); 4] =
        [(b"\x1f\x8b", "gzip"), (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2")];
    MAGIC.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, tool)| *tool)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_archive_is_told_so() {
        let directory = tempfile::tempdir().unwrap();
        let message = |path: &Path| Ramdisk::from_file(path).unwrap_err().to_string();
        assert!(message(directory.path()).contains("is no archive"));
        assert!(message(&directory.path().join("no")).contains("No such file"));
        let empty = directory.path().join("empty.tar");
        File::create(&empty).unwrap();
        assert!(message(&empty).contains("not empty"));
        let compressed = directory.path().join("a.tar.gz");
        std::fs::write(&compressed, b"\x1f\x8b\x08\0").unwrap();
        assert!(message(&compressed).contains("`gzip -d`"));
        let large = File::create(directory.path().join("large.tar")).unwrap();
        large.set_len(RAMDISK.bytes() + 1).unwrap();
        assert!(message(&directory.path().join("large.tar")).contains("too large"));
    }
}
