//! Confinement: what the thread of a VM may still ask of the host's kernel once the guest runs.
//!
//! It is for the day on which a guest has taken over the VMM by a mistake in it or in KVM. Two layers, each of which holds
//! if the other fails: seccomp (`seccomp.rs`) allows the system calls that a run needs and ends the process at any other;
//! Landlock (`landlock.rs`) refuses all files but those beneath the VM's directories. It is not for keeping one thread from
//! another: they share memory, so the threads of a VM are no safer than the least confined of them.
//!
//! Both layers hold for a thread, and for ever. No thread is started behind them, so no filter has to allow that.

mod filter;
mod landlock;
mod seccomp;
#[cfg(test)]
mod tests;

use std::{fmt, io, os::fd::OwnedFd, thread};

use thiserror::Error;

use crate::{
    config::Config,
    directory::{Access, Directory},
};

/// Whether [`crate::Vm::run`] confines the calling thread before the guest's first instruction.
///
/// This cannot be undone: a confined thread stays so when the run is over. Run the VM on a thread of its own, and let
/// that thread do nothing afterwards but hand over the report and end; it cannot open a file or start a thread. Other
/// threads of the process are not touched.
///
/// A system call that is not allowed **ends the whole process** with the signal SIGSYS, because who makes it has taken over
/// memory that all threads share. That goes for calls of a panic hook or a `tracing` subscriber on these threads too: they
/// may allocate and write to descriptors that are open, and little else.
///
/// With glibc, the first confined thread sets a bound of the allocator for the whole process (`M_TRIM_THRESHOLD`, 64 MiB): free
/// memory at the end of a heap goes back to the system when there is that much of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Confinement {
    /// Not at all.
    #[default]
    Off,
    /// By what the host's kernel supports. What it lacks is logged at level info, what fails at level warn.
    BestEffort,
    /// By seccomp and Landlock, or the run ends with [`crate::HostFailure::Confinement`] before the guest's first
    /// instruction.
    Required,
}

/// One of the two means of confinement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// Of system calls.
    Seccomp,
    /// Of files.
    Landlock,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Seccomp => "seccomp",
            Self::Landlock => "Landlock",
        })
    }
}

/// A thread that could not be confined.
#[derive(Debug, Error)]
pub enum ConfinementError {
    /// The kernel lacks it.
    #[error("this kernel does not offer {layer}: {remedy}")]
    Unsupported {
        /// What it lacks.
        layer: Layer,
        /// What helps.
        remedy: &'static str,
    },
    /// The kernel has it, but a step failed.
    #[error("cannot confine a thread by {layer}: {message}")]
    Failed {
        /// By what.
        layer: Layer,
        /// Why not.
        message: String,
    },
}

/// What the machine supports.
#[derive(Debug)]
pub struct ConfinementSupport {
    /// Filters of system calls.
    pub seccomp: Result<(), ConfinementError>,
    /// The version of Landlock's ABI: the higher, the more it can refuse.
    pub landlock_abi: Result<u32, ConfinementError>,
}

impl ConfinementSupport {
    /// Tries both on a thread that ends with that.
    pub fn probe() -> Self {
        let trial =
            || Self { landlock_abi: landlock::restrict(&Permissions::default()), seccomp: seccomp::install(Role::default()) };
        let gone = |layer| ConfinementError::Failed { layer, message: "the thread that tried it ended".into() };
        let lost = || Self { seccomp: Err(gone(Layer::Seccomp)), landlock_abi: Err(gone(Layer::Landlock)) };
        thread::Builder::new().spawn(trial).ok().and_then(|thread| thread.join().ok()).unwrap_or_else(lost)
    }
}

/// What a VM has beside its memory and the descriptors that are open.
#[derive(Debug, Default)]
pub(crate) struct Permissions {
    directories: Vec<(OwnedFd, Access)>,
    sockets: bool,
}

impl Permissions {
    /// What a VM of this configuration has; nothing if it is not confined.
    pub(crate) fn of(config: &Config) -> io::Result<Self> {
        if config.confinement == Confinement::Off {
            return Ok(Self::default());
        }
        let permissions = Self::beneath(&config.directories)?;
        Ok(if config.listeners.is_empty() { permissions } else { permissions.with_sockets() })
    }

    /// These directories and all beneath them.
    pub(crate) fn beneath(directories: &[Directory]) -> io::Result<Self> {
        directories.iter().try_fold(Self::default(), |permissions, directory| {
            Ok(permissions.with_directory(directory.file.try_clone()?.into(), directory.access))
        })
    }

    /// Adds a directory and all beneath it.
    pub(crate) fn with_directory(mut self, directory: OwnedFd, access: Access) -> Self {
        self.directories.push((directory, access));
        self
    }

    fn has_files(&self) -> bool {
        !self.directories.is_empty()
    }

    /// Adds accepting connections of listening sockets that are open, and using them.
    pub(crate) fn with_sockets(mut self) -> Self {
        self.sockets = true;
        self
    }
}

/// What a thread has to do beside running the vCPU and the services that every VM has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Role {
    pub(crate) files: bool,
    pub(crate) sockets: bool,
    /// It calls a sandbox any number of times, and brings it back to its snapshot.
    pub(crate) calls: bool,
    /// It runs compiled modules.
    pub(crate) compiled: bool,
    /// It serves a debugger, whose connection is open.
    pub(crate) debugger: bool,
    /// That watches memory by the processor's debug registers.
    pub(crate) watchpoints: bool,
}

impl Role {
    pub(crate) fn of(permissions: &Permissions) -> Self {
        Self { files: permissions.has_files(), sockets: permissions.sockets, ..Self::default() }
    }
}

impl Confinement {
    /// Confines the calling thread to the files beneath these directories.
    pub(crate) fn restrict_files(self, permissions: &Permissions) -> Result<(), ConfinementError> {
        self.enforce(|| landlock::restrict(permissions).map(|abi| tracing::debug!(abi, "confined by Landlock")))
    }

    /// Confines the calling thread to the system calls of its role.
    pub(crate) fn restrict_calls(self, role: Role) -> Result<(), ConfinementError> {
        self.enforce(|| seccomp::install(role))
    }

    fn enforce(self, layer: impl FnOnce() -> Result<(), ConfinementError>) -> Result<(), ConfinementError> {
        match (self, if self == Self::Off { Ok(()) } else { layer() }) {
            (Self::BestEffort, Err(error @ ConfinementError::Unsupported { .. })) => tracing::info!("{error}"),
            (Self::BestEffort, Err(error)) => tracing::warn!("{error}"),
            (_, result) => return result,
        }
        Ok(())
    }
}
