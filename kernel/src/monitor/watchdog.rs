//! A hardware watchdog: resets the machine if the monitor is not heard of for too long.
//!
//! It is fed whenever the kernel asks for something, so a program that computes without output, input or waiting has to be done
//! within the time. The one that is here is that of the IB700 board, which QEMU has too; another one is another variant.

use x86_64::instructions::port::Port;

/// Port that stops it, and port that starts it anew (WDT-700 of the IB700 single-board computer).
const STOP: u16 = 0x441;
const START: u16 = 0x443;
/// What the second port gets for 0 seconds; each less is two seconds more.
const NO_TIME: u32 = 15;

/// A watchdog, or none.
#[derive(Debug, Clone, Copy)]
pub(super) enum Watchdog {
    None,
    Ib700 {
        /// For the port.
        value: u8,
    },
}

impl Watchdog {
    /// One that waits for so many seconds, rounded up, from when it is first fed.
    pub(super) const fn new(seconds: Option<u32>) -> Self {
        match seconds {
            Some(seconds) => Self::Ib700 { value: NO_TIME.saturating_sub(seconds.div_ceil(2)) as u8 },
            None => Self::None,
        }
    }

    /// The machine is alive.
    pub(super) fn feed(&self) {
        if let Self::Ib700 { value } = self {
            // SAFETY: the command line says that this watchdog is here.
            unsafe { Port::<u8>::new(START).write(*value) };
        }
    }

    /// Nobody is to be watched any more.
    pub(super) fn stop(&self) {
        if let Self::Ib700 { .. } = self {
            // SAFETY: as above.
            unsafe { Port::<u8>::new(STOP).write(0) };
        }
    }
}
