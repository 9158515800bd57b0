//! Clocks (witx: `clockid`).

use mote_abi::errno::Errno;

use super::{Wasi, linear::Linear};
use crate::clock;

/// A clock that there is. The clocks of processor time are not supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClockId {
    Realtime,
    Monotonic,
}

impl ClockId {
    pub(super) fn decode(id: u32) -> Result<Self, Errno> {
        match id {
            0 => Ok(Self::Realtime),
            1 => Ok(Self::Monotonic),
            // Process and thread time: `badf`, as other implementations answer.
            2 | 3 => Err(Errno::Badf),
            _ => Err(Errno::Inval),
        }
    }

    pub(super) fn now_ns(self) -> u64 {
        match self {
            Self::Realtime => clock::realtime_ns(),
            Self::Monotonic => clock::monotonic_ns(),
        }
    }
}

pub(super) fn res_get(_: &mut Wasi, memory: &mut Linear<'_>, id: u32, resolution: u32) -> Result<(), Errno> {
    ClockId::decode(id)?;
    memory.write_u64(resolution, clock::resolution_ns())
}

pub(super) fn time_get(_: &mut Wasi, memory: &mut Linear<'_>, id: u32, _precision: u64, time: u32) -> Result<(), Errno> {
    let now_ns = ClockId::decode(id)?.now_ns();
    memory.write_u64(time, now_ns)
}
