//! Compiling ahead of time: a module becomes an [`Artifact`], which guests run at the speed of native code.
//!
//! The compiler is a program of its own (`compiler/`) that is embedded here, started for each module, and confined before it reads
//! the first byte: no file, no socket, no other process, memory and time bounded. This crate does not link it. What it makes is
//! no more trusted than the module was: it runs inside a VM.
//!
//! An [`ArtifactCache`] keeps artifacts between processes.

mod artifact;
mod cache;
mod child;
mod elf;
mod processor;
mod program;
#[path = "../../../compiler/src/protocol.rs"]
mod protocol;
#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io::{self, Write},
    num::NonZeroUsize,
    ops::ControlFlow,
    time::Duration,
};

use rustix::fs::{MemfdFlags, SealFlags};
use thiserror::Error;

pub use artifact::{Artifact, ArtifactError};
pub use cache::{ArtifactCache, CacheEntry, CacheError, CacheKey};
pub use processor::{CpuFeatures, TargetCpu, UnknownTargetCpu};

/// The version of wasmtime that compiles, and that runs what it compiled.
pub const WASMTIME_VERSION: &str = "48.0.8";

/// Nothing about the contents changes any more.
const ALL_SEALS: SealFlags = SealFlags::WRITE.union(SealFlags::GROW).union(SealFlags::SHRINK);

/// How to compile. What of it changes the code is part of a [`CacheKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileOptions {
    /// Whether the code counts fuel, which makes it slower.
    pub fuel: bool,
    /// For which processors.
    pub target_cpu: TargetCpu,
    /// What guests of this machine may use, for [`TargetCpu::Native`].
    pub guest_features: CpuFeatures,
    /// Threads that compile; `None` for as many as there are processors.
    pub threads: Option<NonZeroUsize>,
    /// What a compilation may take.
    pub limits: CompileLimits,
}

impl CompileOptions {
    /// Features that the code may use.
    pub fn cpu_features(&self) -> CpuFeatures {
        self.target_cpu.features(self.guest_features)
    }
}

impl Default for CompileOptions {
    /// For guests of this machine, without fuel, on all processors.
    fn default() -> Self {
        Self {
            fuel: false,
            target_cpu: TargetCpu::Native,
            guest_features: CpuFeatures::of_guests(),
            threads: None,
            limits: CompileLimits::default(),
        }
    }
}

/// What one compilation may take of the host. One that takes more fails; nothing else does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileLimits {
    /// Address space of the compiler in bytes. Its own program, and each of its threads, take part of it: a few 100 MiB.
    pub memory_bytes: u64,
    /// From its start to its end.
    pub time: Duration,
    /// Of the artifact.
    pub artifact_bytes: u64,
}

impl Default for CompileLimits {
    /// 6 GiB, five minutes, 1 GiB.
    fn default() -> Self {
        Self { memory_bytes: 6 << 30, time: Duration::from_secs(300), artifact_bytes: 1 << 30 }
    }
}

/// How far a compilation is. For people: a compiler that was taken over says what it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileProgress {
    /// Since it began.
    pub elapsed: Duration,
    /// Functions that are compiled, and all that there are, once the compiler knows.
    pub functions: Option<(u64, u64)>,
}

/// A module that was not compiled.
#[derive(Debug, Error)]
pub enum CompileError {
    /// It is not valid WebAssembly, or needs a proposal that is not there.
    #[error("the module is not valid: {message}")]
    Invalid {
        /// What the compiler says.
        message: String,
    },
    /// It is valid, and beyond what the compiler can do.
    #[error("the module cannot be compiled: {message}")]
    Unsupported {
        /// What the compiler says.
        message: String,
    },
    /// Not within the memory.
    #[error("compiling the module takes more than {limit_bytes} bytes of memory")]
    Memory {
        /// The limit.
        limit_bytes: u64,
    },
    /// Not within the time.
    #[error("compiling the module takes more time than {limit:?}")]
    Time {
        /// The limit.
        limit: Duration,
    },
    /// More code than is allowed.
    #[error("the artifact of the module takes more than {limit_bytes} bytes")]
    ArtifactTooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// The compiler did not come to an end of its own.
    #[error("the compiler was ended by {how}, which says nothing about others than this module{}{message}", if message.is_empty() { "" } else { ": " })]
    Crashed {
        /// Signal or exit status.
        how: String,
        /// What it said before.
        message: String,
    },
    /// The observer wanted no more.
    #[error("the compilation was cancelled")]
    Cancelled,
    /// What the compiler wrote is not what this crate runs.
    #[error("the compiler wrote no artifact: {0}")]
    Artifact(#[from] ArtifactError),
    /// Not the module's fault.
    #[error("{what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// Compiles a module in binary or text format, in a process of its own. The artifact is in memory, and sealed.
///
/// `observer` is called ten times a second at least, on this thread; that it breaks off ends the compilation. A thread that was
/// confined ([`crate::Confinement`]) can start no process, so compile before.
pub fn compile(
    module: &[u8],
    options: &CompileOptions,
    mut observer: impl FnMut(CompileProgress) -> ControlFlow<()>,
) -> Result<Artifact, CompileError> {
    let host = |what| move |source: io::Error| CompileError::Host { what, source };
    let input = sealed_copy("mote-module", module).map_err(host("cannot copy the module"))?;
    let artifact = memory_file("mote-artifact").map_err(host("cannot make a file in memory for the artifact"))?;
    let output = artifact.try_clone().map_err(host("cannot make a file in memory for the artifact"))?;
    child::compile(input, output, options, &mut observer)?;
    // The process has ended, and nobody else has it.
    seal(&artifact).map_err(host("cannot seal the artifact"))?;
    Ok(Artifact::from_file(artifact)?)
}

/// A file in memory with these bytes, which nobody can change.
fn sealed_copy(name: &str, bytes: &[u8]) -> io::Result<File> {
    let mut file = memory_file(name)?;
    file.write_all(bytes)?;
    seal(&file)?;
    Ok(file)
}

fn memory_file(name: &str) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    Ok(File::from(rustix::fs::memfd_create(name, flags)?))
}

fn seal(file: &File) -> io::Result<()> {
    Ok(rustix::fs::fcntl_add_seals(file, ALL_SEALS | SealFlags::SEAL)?)
}
