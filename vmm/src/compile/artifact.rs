//! An artifact: compiled code in a file that does not change, checked as far as the host needs it.

use std::{
    fs::File,
    io::{self, Read, Write},
    ops::Range,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::FileExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use thiserror::Error;

use super::{
    CpuFeatures, WASMTIME_VERSION,
    elf::{self, Description},
};
use crate::module::shown;

/// A file that is no artifact for this mote.
#[derive(Debug, Error)]
pub enum ArtifactError {
    /// It could not be opened.
    #[error("cannot open {}: {source}", shown(path))]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It could not be read.
    #[error("cannot read the compiled module: {source}")]
    Read {
        /// Why not.
        source: io::Error,
    },
    /// Something else.
    #[error("it is no compiled module of wasmtime")]
    NotAnArtifact,
    /// A component, which is another format.
    #[error("it is a compiled component; only core modules can be run")]
    Component,
    /// For another processor.
    #[error("it was compiled for another architecture than x86-64; compile the module again with `mote compile`")]
    OtherArchitecture,
    /// Of a version whose code does not fit.
    #[error(
        "it was compiled by wasmtime {found}; this mote runs what version {WASMTIME_VERSION} compiles: compile the module again with \
         `mote compile`"
    )]
    OtherVersion {
        /// By which.
        found: String,
    },
    /// Damaged, or made by nobody who means well.
    #[error("it is damaged: {what}; compile the module again with `mote compile`")]
    Malformed {
        /// In which way.
        what: &'static str,
    },
}

/// Compiled code, ready to be mapped into any number of VMs. The file is one that nobody changes: in memory and sealed, or in
/// the cache, or one that the user answers for, as for a module's.
#[derive(Debug, Clone)]
pub struct Artifact {
    file: Arc<File>,
    bytes: u64,
    description: Description,
}

impl Artifact {
    /// An artifact in a file, as `mote compile` writes it. The file must not change while it is in use: it is mapped.
    pub fn open(path: &Path) -> Result<Self, ArtifactError> {
        let open_error = |source| ArtifactError::Open { path: path.into(), source };
        let file = File::open(path).map_err(open_error)?;
        let metadata = file.metadata().map_err(open_error)?;
        if !metadata.is_file() {
            return Err(open_error(io::Error::other("it is not a regular file")));
        }
        Self::from_file(file)
    }

    /// An artifact in a regular file that is open, from its beginning to its end.
    pub fn from_file(file: File) -> Result<Self, ArtifactError> {
        let bytes = file.metadata().map_err(|source| ArtifactError::Read { source })?.len();
        Self::of_part(file, bytes)
    }

    /// An artifact in bytes, of which a copy is made.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ArtifactError> {
        let copy = super::sealed_copy("mote-artifact", bytes).map_err(|source| ArtifactError::Read { source })?;
        Self::from_file(copy)
    }

    /// The first bytes of a file, behind which is something else.
    pub(super) fn of_part(file: File, bytes: u64) -> Result<Self, ArtifactError> {
        let description = elf::describe(bytes, |buffer, offset| file.read_exact_at(buffer, offset))?;
        Ok(Self { file: Arc::new(file), bytes, description })
    }

    /// Whether a file that begins like this is an artifact of wasmtime, of any version. Eight bytes are enough.
    pub fn is_artifact(start: &[u8]) -> bool {
        elf::is_artifact(start)
    }

    /// Size in bytes. The file can be longer.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where in the file the code lies: whole pages of 4 KiB. Empty for a module without functions.
    pub fn text(&self) -> Range<u64> {
        self.description.text.clone()
    }

    /// Whether the code counts fuel. It can only be run that way.
    pub fn counts_fuel(&self) -> bool {
        self.description.counts_fuel
    }

    /// Features of the processor that the code may use.
    pub fn cpu_features(&self) -> CpuFeatures {
        self.description.features
    }

    /// Its bytes, from the first to the last.
    pub fn reader(&self) -> impl Read + '_ {
        Reader { artifact: self, at: 0 }
    }

    /// Fills a buffer with what lies at `offset`.
    pub(super) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    /// Copies its bytes.
    pub fn write_to(&self, output: &mut impl Write) -> io::Result<()> {
        match io::copy(&mut self.reader(), output)? {
            copied if copied == self.bytes => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl AsFd for Artifact {
    /// Of the file, open for reading.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// With a place of its own, whoever else reads the file.
struct Reader<'a> {
    artifact: &'a Artifact,
    at: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.artifact.bytes - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.artifact.file.read_at(buffer.get_mut(..left).unwrap_or_default(), self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}
