//! Hypercalls: their numbers, and the structures of their arguments and results.
//!
//! A hypercall is a [`crate::mailbox::Request`] in the mailbox followed by a store to [`crate::layout::DOORBELL`].
//! Everything in it is an allegation: the host copies it out once, checks it, acts, and writes the
//! [`crate::mailbox::Response`] back. A request that no kernel of ours sends ends the VM as a guest fault.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub mod files;

/// The run is over: [`ExitArgs`]; never answered.
pub const EXIT: u32 = 1;
/// Empty the ring before answering: no arguments. Sent when the ring is full. Every other request but [`READ_CLOCK`] does so
/// too, before it does anything else.
pub const DRAIN_OUTPUT: u32 = 2;
/// Read from standard input: [`ReadStdinArgs`]; the bytes come as data, none at the end of the stream.
pub const READ_STDIN: u32 = 3;
/// Sleep, or wait for standard input, files and sockets: [`WaitArgs`]; answered with [`WaitResult`].
pub const WAIT: u32 = 4;
/// Renew the clock bases in the boot information: no arguments. Sent only without an invariant time-stamp counter.
pub const READ_CLOCK: u32 = 5;
/// A command is done, the instantiation of the module being the first; give me the next: [`ReturnArgs`]. The answer is a
/// [`crate::command`].
pub const RETURN: u32 = 6;
/// A module calls a function of the host: [`HostCallArgs`], its arguments as data ([`crate::value::RawValue`]); answered with
/// [`HostReturn`], the results as data, or with a status of 1: then the call ends as a trap.
pub const HOST_CALL: u32 = 7;
/// Copy a part of a compiled module into a linear memory: [`CopyModuleArgs`]. The host does it with fewer faults than a guest, for
/// which each page of both is new.
pub const COPY_MODULE: u32 = 8;
/// Open a path: [`files::OpenArgs`]; answered with [`files::OpenResult`].
pub const FILE_OPEN: u32 = 16;
/// Give a handle back: [`files::HandleArgs`]. The status tells of writes through it that failed and of which nothing was
/// told before; the handle is gone in any case.
pub const FILE_CLOSE: u32 = 17;
/// What a handle stands for: [`files::HandleArgs`]; answered with a [`crate::file::FileStat`].
pub const FILE_STAT: u32 = 18;
/// Read: [`files::TransferArgs`]; answered with [`files::TransferResult`].
pub const FILE_READ: u32 = 19;
/// Write: [`files::TransferArgs`]; answered with [`files::TransferResult`].
pub const FILE_WRITE: u32 = 20;
/// Size, space, times, storage of an open file: [`files::ChangeArgs`].
pub const FILE_CHANGE: u32 = 21;
/// Entries of a directory from a cookie on: [`files::TransferArgs`]; answered with [`files::TransferResult`]. The buffer gets
/// as many whole entries as fit, in the layout of witx `dirent`, each followed by its name.
pub const DIRECTORY_LIST: u32 = 22;
/// Everything that is done to a path but opening: [`files::PathArgs`].
pub const PATH: u32 = 23;
/// Take a connection: [`files::SocketArgs`]; answered with [`files::HandleArgs`].
pub const SOCKET_ACCEPT: u32 = 24;
/// Receive: [`files::TransferArgs`]; answered with [`files::TransferResult`].
pub const SOCKET_RECEIVE: u32 = 25;
/// Send: [`files::TransferArgs`]; answered with [`files::TransferResult`].
pub const SOCKET_SEND: u32 = 26;
/// Close one or both directions: [`files::SocketArgs`].
pub const SOCKET_SHUTDOWN: u32 = 27;

/// How a run ended.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ExitArgs {
    /// One of [`exit_kind`].
    pub kind: u32,
    /// The program's exit status for [`exit_kind::EXITED`], a [`trap`] code for [`exit_kind::TRAPPED`], else 0.
    pub code: u32,
    /// Bytes of each of the texts that lie in the data, in this order: the message, the export that was called, the
    /// last call from the module to the host with its arguments, the backtrace. UTF-8; any may be empty.
    pub message_bytes: u32,
    /// See [`ExitArgs::message_bytes`].
    pub export_bytes: u32,
    /// See [`ExitArgs::message_bytes`].
    pub last_call_bytes: u32,
    /// See [`ExitArgs::message_bytes`]. Of each frame of WebAssembly, the innermost first: the index of the function, the offset
    /// of the instruction in the module or `-`, the name of the function if it has one; blanks between these, a NUL behind.
    pub backtrace_bytes: u32,
    /// Fuel used by the call, 0 if none was given.
    pub fuel_used: u64,
    /// Time-stamp counter at entry of the kernel, after the module was parsed, after it was instantiated, and now.
    pub tsc: [u64; 4],
}

/// Values of [`ExitArgs::kind`].
pub mod exit_kind {
    /// The program ended by itself.
    pub const EXITED: u32 = 0;
    /// A WebAssembly trap.
    pub const TRAPPED: u32 = 1;
    /// The module is not valid WebAssembly, or uses a proposal that the engine lacks.
    pub const INVALID_MODULE: u32 = 2;
    /// The module is valid, but cannot be run: unknown import, no entry, wrong arguments, memory too large.
    pub const CANNOT_RUN: u32 = 3;
    /// The kernel found itself in a state that cannot be.
    pub const PANIC: u32 = 4;
    /// The kernel's heap is exhausted.
    pub const OUT_OF_MEMORY: u32 = 5;
}

/// Codes of traps, named as in the WebAssembly specification's test-suite.
pub mod trap {
    /// unreachable
    pub const UNREACHABLE: u32 = 1;
    /// out of bounds memory access
    pub const MEMORY_OUT_OF_BOUNDS: u32 = 2;
    /// out of bounds table access
    pub const TABLE_OUT_OF_BOUNDS: u32 = 3;
    /// uninitialized element
    pub const INDIRECT_CALL_TO_NULL: u32 = 4;
    /// integer divide by zero
    pub const INTEGER_DIVIDE_BY_ZERO: u32 = 5;
    /// integer overflow
    pub const INTEGER_OVERFLOW: u32 = 6;
    /// invalid conversion to integer
    pub const INVALID_CONVERSION_TO_INTEGER: u32 = 7;
    /// call stack exhausted
    pub const STACK_OVERFLOW: u32 = 8;
    /// indirect call type mismatch
    pub const BAD_SIGNATURE: u32 = 9;
    /// all fuel consumed
    pub const OUT_OF_FUEL: u32 = 10;
    /// growth beyond a limit that traps
    pub const GROWTH_LIMITED: u32 = 11;
    /// no memory for the engine itself
    pub const OUT_OF_SYSTEM_MEMORY: u32 = 12;
    /// anything else, told by the message
    pub const OTHER: u32 = 13;

    /// What a trap is called; `None` for [`OTHER`], and for what is no code.
    pub fn name(code: u32) -> Option<&'static str> {
        Some(match code {
            UNREACHABLE => "unreachable",
            MEMORY_OUT_OF_BOUNDS => "out of bounds memory access",
            TABLE_OUT_OF_BOUNDS => "out of bounds table access",
            INDIRECT_CALL_TO_NULL => "uninitialized element",
            INTEGER_DIVIDE_BY_ZERO => "integer divide by zero",
            INTEGER_OVERFLOW => "integer overflow",
            INVALID_CONVERSION_TO_INTEGER => "invalid conversion to integer",
            STACK_OVERFLOW => "call stack exhausted",
            BAD_SIGNATURE => "indirect call type mismatch",
            OUT_OF_FUEL => "all fuel consumed",
            GROWTH_LIMITED => "growth beyond a limit",
            OUT_OF_SYSTEM_MEMORY => "out of memory in the engine",
            _ => return None,
        })
    }
}

/// Arguments of [`READ_STDIN`].
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ReadStdinArgs {
    /// Most bytes wanted; at most the mailbox's data area.
    pub max_bytes: u32,
    /// Zero.
    pub reserved: u32,
}

/// Arguments of [`WAIT`].
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct WaitArgs {
    /// Nanoseconds to wait at most; [`FOREVER_NS`] for no bound.
    pub timeout_ns: u64,
    /// How many [`files::Interest`]s are the data; at most [`files::MAX_INTERESTS`].
    pub interests: u32,
    /// Zero.
    pub reserved: u32,
}

/// No timeout in [`WaitArgs::timeout_ns`].
pub const FOREVER_NS: u64 = u64::MAX;

/// Result of [`WAIT`]; the interests come back as data.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct WaitResult {
    /// How many of the interests are ready; 0 if the time ran out.
    pub ready: u32,
    /// Zero.
    pub reserved: u32,
}

/// Where the linear memory lies that a module exports as `memory`: guest-virtual, in a demand region; zeros if there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LinearMemory {
    /// First byte.
    pub address: u64,
    /// Size in bytes.
    pub bytes: u64,
}

/// Arguments of [`COPY_MODULE`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CopyModuleArgs {
    /// Address in [`crate::layout::MODULE`], within one module.
    pub from: u64,
    /// Address in [`crate::layout::LINEAR`], where memory is announced.
    pub to: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What came of a command. The data are first `payload_bytes` of what was asked for, then the texts.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ReturnArgs {
    /// One of [`return_kind`].
    pub kind: u32,
    /// The exit status for [`return_kind::EXITED`], a [`trap`] code for [`return_kind::TRAPPED`], the number that the command
    /// asks for with [`return_kind::DONE`], else 0.
    pub code: u32,
    /// Bytes of what was asked for.
    pub payload_bytes: u32,
    /// Bytes of the message.
    pub message_bytes: u32,
    /// Bytes of the last call from the module to WASI with its arguments.
    pub last_call_bytes: u32,
    /// Bytes of the backtrace, as in [`ExitArgs`].
    pub backtrace_bytes: u32,
    /// Fuel that a call left; [`NO_FUEL`] if none was given.
    pub fuel_left: u64,
    /// The memory of the instance that the command was about.
    pub memory: LinearMemory,
    /// Time-stamp counter at entry of the kernel, after the module was parsed, after it was instantiated.
    pub tsc: [u64; 3],
}

/// Values of [`ReturnArgs::kind`].
pub mod return_kind {
    /// It was done.
    pub const DONE: u32 = 0;
    /// A WebAssembly trap.
    pub const TRAPPED: u32 = 1;
    /// The program ended itself.
    pub const EXITED: u32 = 2;
    /// A function of the host failed; the host knows how.
    pub const HOST_ERROR: u32 = 3;
    /// It cannot be done, for the reason that the message gives: a module that is not valid.
    pub const INVALID: u32 = 4;
    /// It cannot be done, for the reason that the message gives: anything else.
    pub const REFUSED: u32 = 5;
}

/// In the place of an amount of fuel: it is not counted.
pub const NO_FUEL: u64 = u64::MAX;

/// Arguments of [`HOST_CALL`].
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HostCallArgs {
    /// Which function: the index in [`crate::boot::BootInfo::host_functions`].
    pub function: u32,
    /// How many arguments.
    pub count: u32,
    /// Fuel that is left, or [`NO_FUEL`].
    pub fuel_left: u64,
    /// The memory of the module that calls.
    pub memory: LinearMemory,
}

/// Result of [`HOST_CALL`].
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HostReturn {
    /// How many results.
    pub count: u32,
    /// Zero.
    pub reserved: u32,
    /// Fuel that the caller goes on with, or [`NO_FUEL`] to leave it.
    pub fuel: u64,
}

/// Status of an answer: 0, or the number of a [`crate::errno::Errno`].
pub mod status {
    /// Done.
    pub const OK: u32 = 0;
    /// What [`super::HOST_CALL`] is answered with if the function failed.
    pub const HOST_ERROR: u32 = 1;
}

const _: () = {
    assert!(size_of::<ExitArgs>() == 64 && size_of::<ReadStdinArgs>() == 8);
    assert!(size_of::<WaitArgs>() == 16 && size_of::<WaitResult>() == 8);
    assert!(size_of::<ReturnArgs>() == 72 && size_of::<HostCallArgs>() == 32 && size_of::<HostReturn>() == 16);
    assert!(size_of::<ExitArgs>() <= crate::mailbox::ARGUMENT_BYTES && size_of::<ReturnArgs>() <= crate::mailbox::ARGUMENT_BYTES);
};
