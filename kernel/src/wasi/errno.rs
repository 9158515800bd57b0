//! Error numbers (witx: `errno`).

use mote_kernel_logic::fd::BadFd;

use crate::hypercall::HostError;

/// Those that a process with only standard streams can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Errno {
    Again = 6,
    Badf = 8,
    Fault = 21,
    Inval = 28,
    Io = 29,
    Nomem = 48,
    Notdir = 54,
    Notsock = 57,
    Notsup = 58,
    Pipe = 64,
    Spipe = 70,
    Notcapable = 76,
}

/// What the function returns to the module.
pub(super) fn to_code(result: Result<(), Errno>) -> i32 {
    result.map_or_else(|errno| i32::from(errno as u16), |()| 0)
}

impl From<BadFd> for Errno {
    fn from(_: BadFd) -> Self {
        Self::Badf
    }
}

impl From<HostError> for Errno {
    fn from(_: HostError) -> Self {
        // Reading standard input is the only operation of the host that fails, and any failure of it means this.
        Self::Io
    }
}
