//! The compiler's program: part of this crate, and started from memory, so that whoever embeds mote needs no file beside it.

use std::{fs::File, io, io::Write, os::fd::AsRawFd, path::PathBuf, sync::OnceLock};

use rustix::{
    fs::{MemfdFlags, SealFlags},
    io::Errno,
};

use super::CompileError;

static EMBEDDED: &[u8] = include_bytes!(env!("MOTE_COMPILER_PROGRAM"));

/// Distinguishes the compilers of different builds, by their contents.
pub(super) const IDENTITY: &str = env!("MOTE_COMPILER_IDENTITY");

/// What to start. It is written once in a process.
pub(super) fn path() -> Result<PathBuf, CompileError> {
    static WRITTEN: OnceLock<File> = OnceLock::new();
    let file = match WRITTEN.get() {
        Some(file) => file,
        None => {
            let file = write().map_err(|source| CompileError::Host { what: "cannot unpack the compiler", source })?;
            WRITTEN.get_or_init(|| file)
        }
    };
    // Of the process that is started: it has the descriptor until then.
    Ok(PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())))
}

fn write() -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = match rustix::fs::memfd_create("mote-compiler", flags | MemfdFlags::EXEC) {
        // Before Linux 6.3 all were executable.
        Err(Errno::INVAL) => rustix::fs::memfd_create("mote-compiler", flags)?,
        result => result?,
    };
    let mut file = File::from(file);
    file.write_all(EMBEDDED)?;
    rustix::fs::fcntl_add_seals(&file, super::ALL_SEALS | SealFlags::SEAL)?;
    Ok(file)
}
