//! How a run ended, and telling the host.

use alloc::{boxed::Box, string::String};

use mote_abi::hypercall::{ExitArgs, exit_kind};

use crate::{clock, hypercall};

/// The end of a run.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    pub(crate) kind: u32,
    pub(crate) code: u32,
    pub(crate) message: String,
    /// The export that was called.
    pub(crate) export: Box<str>,
    /// The last call from the module to the host.
    pub(crate) last_call: Box<str>,
    /// The frames of WebAssembly at the time of a trap, in the form of [`mote_abi::hypercall::ExitArgs::backtrace_bytes`].
    pub(crate) backtrace: Box<str>,
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
    let texts = [&*ending.message, &ending.export, &ending.last_call, &ending.backtrace];
    hypercall::exit(arguments, texts.map(|text| text.as_bytes()))
}
