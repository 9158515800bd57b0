//! What can go wrong with a sandbox, and what state that leaves it in.

use std::{error::Error, fmt};

use mote_abi::value::MAX_VALUES;
use thiserror::Error;

use crate::{
    ending::{Ending, GuestFault, HostFailure, Rejection, Trap},
    engine::EngineError,
    image::ImageError,
    memory::MemoryError,
    vm::VmError,
};

/// Whether a sandbox can be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SandboxState {
    /// It can.
    Ready,
    /// It waits for standard input in the middle of a call, where a snapshot can be taken: [`crate::Sandbox::resume`] goes on.
    AtInput,
    /// It cannot, until it is restored from a snapshot.
    Poisoned(Poison),
}

/// Why a sandbox cannot be called: a call did not return. What the module was doing is half done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Poison {
    /// A WebAssembly trap, lack of fuel included.
    Trapped,
    /// A function of the host failed.
    HostError,
    /// The program ended itself.
    Exited,
    /// The deadline passed.
    DeadlineExceeded,
    /// Somebody interrupted it.
    Interrupted,
    /// The guest kernel failed or misbehaved, the host could not go on, or a function of the host panicked.
    Fault,
}

impl Poison {
    /// Whether the call was unwound, so that the engine is as sound as before, though the module may not be.
    pub(crate) fn is_unwound(self) -> bool {
        matches!(self, Self::Trapped | Self::HostError | Self::Exited)
    }
}

impl fmt::Display for Poison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trapped => "a call trapped",
            Self::HostError => "a function of the host failed in a call",
            Self::Exited => "the program ended itself",
            Self::DeadlineExceeded => "a call met its deadline",
            Self::Interrupted => "a call was interrupted",
            Self::Fault => "the guest or the host failed in a call",
        })
    }
}

/// An error that a function of the host returned.
pub type HostError = Box<dyn Error + Send + Sync>;

/// A call that did not return.
#[derive(Debug, Error)]
pub enum CallError {
    /// A WebAssembly trap.
    #[error("{0}")]
    Trap(Box<Trap>),
    /// A function of the host failed; this is its own error.
    #[error("the host function {function} failed: {source}")]
    Host {
        /// Module and name of the function.
        function: Box<str>,
        /// What it returned. [`CallError::host_error`] gives it as its own type.
        source: HostError,
    },
    /// The program ended itself with this status, as by `proc_exit`.
    #[error("the program ended itself with status {0}")]
    Exit(u32),
    /// The deadline of the call passed.
    #[error("the deadline of the call passed")]
    DeadlineExceeded,
    /// Somebody interrupted it.
    #[error("the call was interrupted")]
    Interrupted,
    /// The guest kernel failed or misbehaved.
    #[error(transparent)]
    Guest(Box<GuestFault>),
    /// The host could not go on.
    #[error(transparent)]
    HostFailure(Box<HostFailure>),
    /// There is nothing like that to be called.
    #[error("{0}")]
    Mismatch(Box<str>),
    /// The engine refuses what was asked of it.
    #[error(transparent)]
    Rejected(Box<Rejection>),
    /// An earlier call left the sandbox in a state in which it cannot be called.
    #[error("the sandbox cannot be called: {0}; restore it from a snapshot")]
    Poisoned(Poison),
    /// It is in the middle of another call.
    #[error("the sandbox waits for standard input in the middle of a call: resume it")]
    AtInput,
}

impl CallError {
    /// The error that a function of the host returned, as its own type.
    pub fn host_error<E: Error + 'static>(&self) -> Option<&E> {
        match self {
            Self::Host { source, .. } => source.downcast_ref(),
            _ => None,
        }
    }

    /// The trap, if it is one.
    pub fn trap(&self) -> Option<&Trap> {
        match self {
            Self::Trap(trap) => Some(trap),
            _ => None,
        }
    }

    /// What it leaves the sandbox in; nothing if it did not begin.
    pub(crate) fn poison(&self) -> Option<Poison> {
        Some(match self {
            Self::Trap(_) => Poison::Trapped,
            Self::Host { .. } => Poison::HostError,
            Self::Exit(_) => Poison::Exited,
            Self::DeadlineExceeded => Poison::DeadlineExceeded,
            Self::Interrupted => Poison::Interrupted,
            Self::Guest(_) | Self::HostFailure(_) => Poison::Fault,
            Self::Mismatch(_) | Self::Rejected(_) | Self::Poisoned(_) | Self::AtInput => return None,
        })
    }
}

impl From<Ending> for CallError {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Exited(status) => Self::Exit(status),
            Ending::Trapped(trap) => Self::Trap(trap),
            Ending::Rejected(rejection) => Self::Rejected(Box::new(rejection)),
            Ending::DeadlineExceeded => Self::DeadlineExceeded,
            Ending::Interrupted => Self::Interrupted,
            Ending::GuestFault(fault) => Self::Guest(fault),
            Ending::HostFailure(failure) => failure.into(),
        }
    }
}

impl From<GuestFault> for CallError {
    fn from(fault: GuestFault) -> Self {
        Self::Guest(Box::new(fault))
    }
}

impl From<HostFailure> for CallError {
    fn from(failure: HostFailure) -> Self {
        Self::HostFailure(Box::new(failure))
    }
}

/// A sandbox that could not be made.
#[derive(Debug, Error)]
pub enum BuildError {
    /// No module was given.
    #[error("a sandbox needs a module: give it one with `module`, `module_file` or `module_bytes`")]
    NoModule,
    /// The module cannot be read, or not be compiled.
    #[error(transparent)]
    Module(#[from] EngineError),
    /// The kernel image cannot be used.
    #[error(transparent)]
    Kernel(#[from] ImageError),
    /// The VM could not be made.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// Two functions of the host with the same names.
    #[error("there are two host functions {0}")]
    SameFunction(String),
    /// A function of the host with more parameters or results than any can have.
    #[error("the host function {0} has more than {MAX_VALUES} parameters or results")]
    FunctionType(String),
    /// A function of the host that the snapshot's modules import, and that was not given, or has another type.
    #[error("the snapshot needs the host function {} of type {ty}", name.escape_debug())]
    MissingFunction {
        /// Module and name.
        name: String,
        /// Its type.
        ty: String,
    },
    /// Directories other than those of the snapshot.
    #[error(
        "the snapshot has the directories {expected:?}, not {given:?}; give it as many, with the same names and in this order"
    )]
    OtherDirectories {
        /// What the program knows them by.
        expected: Vec<String>,
        /// What was given.
        given: Vec<String>,
    },
    /// The module was not instantiated.
    #[error("the module was not instantiated: {0}")]
    Instantiate(#[from] CallError),
}

/// An access to linear memory that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AccessError {
    /// The range does not lie in the memory.
    #[error("{bytes} bytes from {offset:#x} are out of bounds of a linear memory of {memory_bytes} bytes")]
    OutOfBounds {
        /// Where it begins.
        offset: u64,
        /// How long it is.
        bytes: u64,
        /// How large the memory is.
        memory_bytes: u64,
    },
    /// There is no such memory.
    #[error("the module exports no memory `{0}`")]
    NoMemory(String),
    /// The memory lies in RAM that the guest does not have, or that is used up.
    #[error("the linear memory cannot be reached: {0}")]
    Unreachable(String),
    /// The sandbox cannot be asked where the memory is.
    #[error("{0}")]
    Unavailable(String),
}

/// A snapshot that was not taken, or not gone back to.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// The sandbox is not at a quiet point.
    #[error("no snapshot can be taken of a sandbox in this state: {0:?}; it must be ready, or wait for standard input")]
    NotQuiet(SandboxState),
    /// Something of the host is open, which a snapshot cannot hold.
    #[error(
        "no snapshot can be taken while the program has {0} files, directories or sockets of the host open beside the directories that it was given; listening sockets count, and given directories that it closed"
    )]
    OpenFiles(usize),
    /// The snapshot is of a sandbox that differs in what cannot be changed.
    #[error("the snapshot does not fit this sandbox: {0}")]
    Other(&'static str),
    /// RAM could not be copied or mapped.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The VM could not be brought back.
    #[error(transparent)]
    Vm(#[from] VmError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_calls_stay_small() {
        assert!(size_of::<CallError>() <= 40, "{}", size_of::<CallError>());
        assert!(size_of::<Result<i32, CallError>>() <= 40);
    }
}
