//! How a run can end.

use std::fmt;

use mote_abi::hypercall::trap;
use mote_machine::{names::Fault, stub};
use thiserror::Error;

use crate::confinement::ConfinementError;

/// How a run ended.
#[derive(Debug)]
pub enum Ending {
    /// The program ended by itself, with this status.
    Exited(u32),
    /// A WebAssembly trap.
    Trapped(Box<Trap>),
    /// The module cannot be run.
    Rejected(Rejection),
    /// The deadline passed.
    DeadlineExceeded,
    /// Somebody interrupted it.
    Interrupted,
    /// The guest kernel failed or misbehaved.
    GuestFault(Box<GuestFault>),
    /// The host could not go on.
    HostFailure(HostFailure),
}

/// A WebAssembly trap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trap {
    /// Which.
    pub kind: TrapKind,
    /// What the engine says.
    pub message: String,
    /// The export that was called; empty while the module was instantiated.
    pub export: String,
    /// The last call from the module to the host, with its arguments; empty if there was none.
    pub last_call: String,
    /// The functions of WebAssembly that were called, the innermost first, as far as the engine tells: the interpreter does not.
    pub backtrace: Vec<Frame>,
}

/// A function in a backtrace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its index in the module, imports counted.
    pub function: u32,
    /// The instruction, as offset in the module's binary format, if that is known.
    pub module_offset: Option<u64>,
    /// Its name, if the module has one for it.
    pub name: Option<String>,
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(offset) = self.module_offset {
            write!(f, "{offset:#x} ")?;
        }
        match &self.name {
            Some(name) => write!(f, "{name}"),
            None => write!(f, "function {}", self.function),
        }
    }
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.kind.name().unwrap_or(&self.message);
        write!(f, "wasm trap: {name}, ")?;
        match self.export.as_str() {
            "" => write!(f, "while the module was instantiated")?,
            export => write!(f, "in a call of `{export}`")?,
        }
        if !self.last_call.is_empty() {
            write!(f, "; the last call to the host was {}", self.last_call)?;
        }
        for frame in &self.backtrace {
            write!(f, "\n    at {frame}")?;
        }
        Ok(())
    }
}

/// Traps, with the names of the WebAssembly specification's test-suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the specification explains them")]
pub enum TrapKind {
    Unreachable,
    MemoryOutOfBounds,
    TableOutOfBounds,
    IndirectCallToNull,
    IntegerDivideByZero,
    IntegerOverflow,
    InvalidConversionToInteger,
    StackOverflow,
    BadSignature,
    OutOfFuel,
    GrowthLimited,
    OutOfSystemMemory,
    Other,
}

/// Every trap with its code.
const TRAPS: [(u32, TrapKind); 13] = [
    (trap::UNREACHABLE, TrapKind::Unreachable),
    (trap::MEMORY_OUT_OF_BOUNDS, TrapKind::MemoryOutOfBounds),
    (trap::TABLE_OUT_OF_BOUNDS, TrapKind::TableOutOfBounds),
    (trap::INDIRECT_CALL_TO_NULL, TrapKind::IndirectCallToNull),
    (trap::INTEGER_DIVIDE_BY_ZERO, TrapKind::IntegerDivideByZero),
    (trap::INTEGER_OVERFLOW, TrapKind::IntegerOverflow),
    (trap::INVALID_CONVERSION_TO_INTEGER, TrapKind::InvalidConversionToInteger),
    (trap::STACK_OVERFLOW, TrapKind::StackOverflow),
    (trap::BAD_SIGNATURE, TrapKind::BadSignature),
    (trap::OUT_OF_FUEL, TrapKind::OutOfFuel),
    (trap::GROWTH_LIMITED, TrapKind::GrowthLimited),
    (trap::OUT_OF_SYSTEM_MEMORY, TrapKind::OutOfSystemMemory),
    (trap::OTHER, TrapKind::Other),
];

impl TrapKind {
    /// `None` for a code that no kernel of ours sends.
    pub(crate) fn from_code(code: u32) -> Option<Self> {
        TRAPS.iter().find(|(known, _)| *known == code).map(|(_, kind)| *kind)
    }

    /// The specification's name; `None` for [`TrapKind::Other`].
    pub fn name(self) -> Option<&'static str> {
        TRAPS.iter().find(|(_, kind)| *kind == self).and_then(|(code, _)| trap::name(*code))
    }
}

/// Why a module cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Rejection {
    /// It is not valid WebAssembly, or needs a proposal that the engine lacks.
    #[error("the module is not valid: {0}")]
    Invalid(String),
    /// It is valid but cannot be run here.
    #[error("the module cannot be run: {0}")]
    CannotRun(String),
}

/// What the guest kernel did that a kernel may not do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GuestFault {
    /// It found itself in a state that cannot be, and said so.
    #[error("the guest kernel panicked: {0}")]
    Panic(String),
    /// Its heap is exhausted.
    #[error("guest RAM is exhausted ({0}); give it more with --memory")]
    OutOfMemory(String),
    /// A processor exception.
    #[error("{0}")]
    Exception(Exception),
    /// A request that no kernel of ours sends.
    #[error("the guest kernel sent a bad request: {0}")]
    BadRequest(String),
    /// Output that is no record of the ring.
    #[error("the guest kernel corrupted its output ring: {0}")]
    BadOutput(String),
    /// An access to an address with no memory.
    #[error("the guest kernel touched {address:#x}, where no memory is")]
    StrayAccess {
        /// Guest-physical address.
        address: u64,
    },
    /// The virtual machine stopped in a way that a kernel of ours never causes.
    #[error("the guest kernel stopped the virtual machine: {0}")]
    Stopped(&'static str),
}

/// A processor exception with its registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    /// Vector, error code and the registers that the processor saved.
    pub vector: u64,
    /// Error code, 0 where the exception has none.
    pub error_code: u64,
    /// Faulting address of a page fault.
    pub address: u64,
    /// Instruction.
    pub rip: u64,
    /// Stack.
    pub rsp: u64,
    /// Flags.
    pub rflags: u64,
    /// The other general registers: name and value.
    pub registers: Vec<(&'static str, u64)>,
}

impl Exception {
    pub(crate) fn new(frame: &stub::Frame, address: u64, registers: Vec<(&'static str, u64)>) -> Self {
        let stub::Frame { vector, error_code, rip, rsp, rflags, .. } = *frame;
        Self { vector, error_code, address, rip, rsp, rflags, registers }
    }

    /// Whether the kernel ran over the end of its stack.
    pub fn is_stack_overflow(&self) -> bool {
        self.fault().is_stack_overflow()
    }

    fn fault(&self) -> Fault {
        let Self { vector, error_code, address, rip, rsp, rflags, .. } = *self;
        Fault { vector, error_code, rip, rsp, rflags, address }
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_stack_overflow() {
            write!(f, "the guest kernel's stack overflowed: ")?;
        } else {
            write!(f, "the guest kernel faulted: ")?;
        }
        self.fault().fmt(f)?;
        for (name, value) in &self.registers {
            write!(f, ", {name} {value:#x}")?;
        }
        Ok(())
    }
}

/// What the host could not do while the VM ran.
#[derive(Debug, Error)]
pub enum HostFailure {
    /// A thread could not be confined, but had to be.
    #[error("{0}; --confinement=best-effort runs without what is missing")]
    Confinement(#[from] ConfinementError),
    /// KVM refused to run the vCPU.
    #[error("KVM_RUN failed: {0}")]
    Run(std::io::Error),
    /// Memory that a guest may see is gone from the host, as when the module's file was cut short.
    #[error("memory of the guest is not there any more; was the module's file changed while it ran? or that of the snapshot?")]
    MemoryGone,
    /// The processor state does not fit this machine.
    #[error("KVM cannot enter the guest (reason {reason:#x})")]
    Entry {
        /// Hardware's reason.
        reason: u64,
    },
    /// The machine in guest memory could not be read or changed.
    #[error("the guest machine cannot be reached: {0}")]
    Machine(String),
    /// The host told that the writing of a file failed, when the program had been told that it was written, and had not asked
    /// since.
    #[error(
        "bytes that the program wrote to a file are lost: the host could not store them (no space, or a limit of sizes), and the \
         program ended without closing or syncing the file"
    )]
    LostWrites,
    /// Standard output or error could not be written.
    #[error("cannot write {stream}: {source}")]
    Output {
        /// Which.
        stream: &'static str,
        /// Why not.
        source: std::io::Error,
    },
}

#[cfg(test)]
mod tests {
    use mote_abi::layout::STACK;

    use super::*;

    #[test]
    fn the_guard_page_is_a_stack_overflow_and_others_are_not() {
        let at = |address| Exception { vector: 14, error_code: 6, address, rip: 0, rsp: 0, rflags: 2, registers: vec![] };
        assert!(at(STACK.start - 8).is_stack_overflow());
        assert!(!at(STACK.start).is_stack_overflow());
        assert!(at(STACK.start - 8).to_string().contains("write to"));
        assert!(at(0).to_string().contains("not mapped"));
    }

    #[test]
    fn every_code_of_the_abi_has_a_kind() {
        for code in trap::UNREACHABLE..=trap::OTHER {
            let kind = TrapKind::from_code(code).unwrap();
            assert_eq!(kind.name().is_none(), kind == TrapKind::Other, "{code}");
        }
        assert_eq!(TrapKind::from_code(0), None);
        assert_eq!(TrapKind::from_code(trap::OTHER + 1), None);
    }
}
