//! How a run ended, and telling the host.

use alloc::{format, string::String};

use mote_abi::hypercall::{ExitArgs, exit_kind, trap};
use wasmi::{Error, TrapCode, errors::ErrorKind};

use crate::{clock, engine::HostFailed, hypercall};

/// The end of a run.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    pub(crate) kind: u32,
    pub(crate) code: u32,
    pub(crate) message: String,
    /// The export that was called.
    pub(crate) export: String,
    /// The last call from the module to the host.
    pub(crate) last_call: String,
    /// A function of the host failed.
    pub(crate) host_failed: bool,
    pub(crate) fuel_used: u64,
    /// Time stamps: entry, parsed, instantiated.
    pub(crate) tsc: [u64; 3],
}

impl Ending {
    /// The program ended by itself.
    pub(crate) fn exited(status: u32) -> Self {
        Self { kind: exit_kind::EXITED, code: status, ..Self::default() }
    }

    /// The module is valid but cannot be run, for the reason that `message` gives.
    pub(crate) fn cannot_run(message: String) -> Self {
        Self { kind: exit_kind::CANNOT_RUN, message, ..Self::default() }
    }

    /// The engine refused the module.
    pub(crate) fn invalid(error: &Error) -> Self {
        Self { kind: exit_kind::INVALID_MODULE, message: format!("{error}"), ..Self::default() }
    }

    /// What an error of a running module means.
    pub(crate) fn from_call(error: &Error) -> Self {
        if let Some(status) = error.i32_exit_status() {
            return Self::exited(status.cast_unsigned());
        }
        if let ErrorKind::Wasm(_) | ErrorKind::Translation(_) | ErrorKind::ImplementationLimits(_) = error.kind() {
            return Self::invalid(error);
        }
        let code = error.as_trap_code().map_or(trap::OTHER, trap_code);
        let host_failed = error.downcast_ref::<HostFailed>().is_some();
        Self { kind: exit_kind::TRAPPED, code, message: format!("{error}"), host_failed, ..Self::default() }
    }
}

fn trap_code(code: TrapCode) -> u32 {
    match code {
        TrapCode::UnreachableCodeReached => trap::UNREACHABLE,
        TrapCode::MemoryOutOfBounds => trap::MEMORY_OUT_OF_BOUNDS,
        TrapCode::TableOutOfBounds => trap::TABLE_OUT_OF_BOUNDS,
        TrapCode::IndirectCallToNull => trap::INDIRECT_CALL_TO_NULL,
        TrapCode::IntegerDivisionByZero => trap::INTEGER_DIVIDE_BY_ZERO,
        TrapCode::IntegerOverflow => trap::INTEGER_OVERFLOW,
        TrapCode::BadConversionToInteger => trap::INVALID_CONVERSION_TO_INTEGER,
        TrapCode::StackOverflow => trap::STACK_OVERFLOW,
        TrapCode::BadSignature => trap::BAD_SIGNATURE,
        TrapCode::OutOfFuel => trap::OUT_OF_FUEL,
        TrapCode::GrowthOperationLimited => trap::GROWTH_LIMITED,
        TrapCode::OutOfSystemMemory => trap::OUT_OF_SYSTEM_MEMORY,
    }
}

/// Tells the host and does not come back.
pub(crate) fn finish(ending: Ending) -> ! {
    let [entered, parsed, instantiated] = ending.tsc;
    let arguments = ExitArgs {
        kind: ending.kind,
        code: ending.code,
        fuel_used: ending.fuel_used,
        tsc: [entered, parsed, instantiated, clock::timestamp()],
        ..ExitArgs::default()
    };
    hypercall::exit(arguments, [ending.message.as_bytes(), ending.export.as_bytes(), ending.last_call.as_bytes()])
}
