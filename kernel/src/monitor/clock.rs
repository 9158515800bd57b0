//! Time: the rate of the time-stamp counter, measured once, and the time of day.
//!
//! The rate comes from CPUID where that tells it, else from the high-precision event timer, else from channel 2 of the interval
//! timer: what firmware and boards have in this order of quality. The counter is taken as going on at that rate.

use core::{arch::x86_64::__cpuid_count, fmt, ptr};

use mote_abi::boot::Clock;
use mote_kernel_logic::boot::realtime::{self, Registers};
use x86_64::instructions::port::Port;

pub(super) use crate::clock::timestamp;

/// How long the counter is compared with a timer.
const MEASURE_US: u64 = 10_000;
/// A timer that has not moved by then does not move: seconds on any processor.
const PATIENCE_TICKS: u64 = 8 << 30;
/// How often something is read or measured of which the best counts.
const READINGS: u32 = 5;
/// Of the interval timer (Intel 8254).
const PIT_HZ: u64 = 1_193_182;

/// What is known of time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timer {
    multiplier: u64,
    /// The counter when the other two were read.
    base: u64,
    realtime_ns: u64,
    ticks_a_second: u64,
}

/// No timer to compare the counter with.
#[derive(Debug)]
pub(super) struct NoTimer;

impl fmt::Display for NoTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the rate of the time-stamp counter cannot be found: neither CPUID (15h, 40000010h), HPET nor interval timer (channel 2, port 61h) tell it")
    }
}

impl Timer {
    /// Before it was measured. The rate is more than that of processors, so that nothing waits too short.
    pub(super) const fn unknown() -> Self {
        Self { multiplier: 0, base: 0, realtime_ns: 0, ticks_a_second: 8_000_000_000 }
    }

    /// Finds the rate. `hpet` is where the registers of that timer are.
    #[inline(never)]
    pub(super) fn calibrate(hpet: Option<u64>) -> Result<Self, NoTimer> {
        let hz = told_hz().or_else(|| hpet.and_then(measure_by_hpet)).or_else(measure_by_pit).ok_or(NoTimer)?;
        let multiplier = ((1_000_000_000u128 << 32) / u128::from(hz.max(1))) as u64;
        let realtime_ns = seconds().unwrap_or(0).saturating_mul(1_000_000_000);
        Ok(Self { multiplier, base: timestamp(), realtime_ns, ticks_a_second: hz })
    }

    /// Clock bases of this moment; monotonic time began when the rate was found.
    pub(super) fn now(&self) -> Clock {
        let clock = Clock { tsc_base: self.base, multiplier: self.multiplier, ..Clock::default() };
        let now = timestamp();
        let elapsed_ns = clock.elapsed_ns(now);
        Clock { tsc_base: now, realtime_ns: self.realtime_ns.saturating_add(elapsed_ns), monotonic_ns: elapsed_ns, ..clock }
    }

    /// The counter so many nanoseconds from now.
    pub(super) fn after_ns(&self, nanoseconds: u64) -> u64 {
        let ticks = u128::from(nanoseconds) * u128::from(self.ticks_a_second) / 1_000_000_000;
        timestamp().saturating_add(u64::try_from(ticks).unwrap_or(u64::MAX))
    }

    /// Lets time pass.
    pub(super) fn sleep_s(&self, seconds: u32) {
        let end = self.after_ns(u64::from(seconds) * 1_000_000_000);
        while timestamp() < end {
            core::hint::spin_loop();
        }
    }
}

/// What CPUID says: function 15h (crystal and ratio), or that of hypervisors (40000010h, in kHz).
#[inline(never)]
fn told_hz() -> Option<u64> {
    let last = __cpuid_count(0, 0).eax;
    if last >= 0x15 {
        let leaf = __cpuid_count(0x15, 0);
        let (ratio, crystal) = ((u64::from(leaf.ebx), u64::from(leaf.eax)), u64::from(leaf.ecx));
        if ratio.0 != 0 && ratio.1 != 0 && crystal != 0 {
            return Some(crystal * ratio.0 / ratio.1);
        }
    }
    let has_hypervisor = __cpuid_count(1, 0).ecx >> 31 == 1;
    let has_leaf = has_hypervisor && (0x4000_0010..0x4001_0000).contains(&__cpuid_count(0x4000_0000, 0).eax);
    has_leaf.then(|| u64::from(__cpuid_count(0x4000_0010, 0).eax) * 1000).filter(|hz| *hz != 0)
}

/// IA-PC HPET Specification 1.0a, section 2.3.
#[inline(never)]
fn measure_by_hpet(address: u64) -> Option<u64> {
    const CAPABILITIES: u64 = 0;
    const CONFIGURATION: u64 = 0x10;
    const COUNTER: u64 = 0xf0;
    const FEMTOSECONDS: u64 = 1_000_000_000_000_000;
    if !(1 << 20..=super::memory::LOW_END - 0x400).contains(&address) || !address.is_multiple_of(8) {
        return None;
    }
    // SAFETY: firmware says that the registers are here; all below 4 GiB is mapped, and accesses are aligned. Nobody else uses
    // the timer.
    let read = |register: u64| unsafe { ptr::read_volatile((address + register) as *const u64) };
    let period_fs = read(CAPABILITIES) >> 32;
    // The specification's bounds: up to 100 ns.
    if !(1..=100_000_000).contains(&period_fs) {
        return None;
    }
    // SAFETY: as above; the first bit lets the counter count.
    unsafe { ptr::write_volatile((address + CONFIGURATION) as *mut u64, read(CONFIGURATION) | 1) };
    // Both at one moment, as well as it can be had: whatever holds the processor up between the two readings, as a management
    // mode or a host with other things to do, does not do so each time. A counter may have 32 bits.
    let both = || {
        let tries = (0..READINGS).map(|_| {
            let (before, counter, after) = (timestamp(), read(COUNTER) as u32, timestamp());
            (after - before, before, counter)
        });
        tries.min().unwrap_or((0, 0, 0))
    };
    let wanted = (MEASURE_US * 1_000_000_000 / period_fs) as u32;
    let (_, start, from) = both();
    while (read(COUNTER) as u32).wrapping_sub(from) < wanted {
        if timestamp() - start > PATIENCE_TICKS {
            return None;
        }
    }
    let (_, now, counter) = both();
    let passed_fs = u128::from(counter.wrapping_sub(from)) * u128::from(period_fs);
    Some((u128::from(now - start) * u128::from(FEMTOSECONDS) / passed_fs) as u64)
}

/// The shortest of several: whatever holds the processor up makes them longer.
fn measure_by_pit() -> Option<u64> {
    (0..READINGS).map_while(|_| count_down()).min()
}

/// Lets the interval timer count down once, in mode 0, with the speaker off; how fast the counter went.
fn count_down() -> Option<u64> {
    const GATE: u8 = 1;
    const SPEAKER: u8 = 1 << 1;
    const OUTPUT: u8 = 1 << 5;
    let count = PIT_HZ * MEASURE_US / 1_000_000;
    let (mut control, mut command, mut data) = (Port::<u8>::new(0x61), Port::<u8>::new(0x43), Port::<u8>::new(0x42));
    // SAFETY: the ports of the interval timer of a PC, which nobody else uses; where there is none, nothing happens.
    unsafe {
        let before = control.read();
        control.write(before & !SPEAKER | GATE);
        command.write(0b1011_0000); // channel 2, both bytes, mode 0
        data.write(count as u8);
        data.write((count >> 8) as u8);
        let start = timestamp();
        // All ones is no answer at all.
        let output = || Some(Port::<u8>::new(0x61).read()).filter(|value| *value != 0xff);
        let measured = loop {
            let (value, now) = (output(), timestamp());
            match value {
                Some(value) if value & OUTPUT != 0 => break Some(now - start),
                Some(_) if now - start <= PATIENCE_TICKS => {}
                _ => break None,
            }
        };
        control.write(before);
        // One that was done at once never counted.
        measured.map(|ticks| ticks * 1_000_000 / MEASURE_US).filter(|hz| *hz > 1_000_000)
    }
}

/// The time of day; `None` where there is no clock, or it never shows the same twice.
#[inline(never)]
fn seconds() -> Option<u64> {
    const UPDATE_IN_PROGRESS: u8 = 1 << 7;
    let read = |register: u8| {
        // SAFETY: the ports of the clock of a PC; the register is chosen, then read. Interrupts that the first port could
        // mask are not used.
        unsafe {
            Port::<u8>::new(0x70).write(register);
            Port::<u8>::new(0x71).read()
        }
    };
    // All ones is no clock at all.
    if read(0xa) == 0xff {
        return None;
    }
    let registers = || Registers {
        second: read(0),
        minute: read(2),
        hour: read(4),
        day: read(7),
        month: read(8),
        year: read(9),
        mode: read(0xb),
    };
    let mut attempts = (0..100_000).filter(|_| read(0xa) & UPDATE_IN_PROGRESS == 0).map(|_| (registers(), registers()));
    attempts.find(|(one, other)| one == other).and_then(|(registers, _)| realtime::seconds(&registers))
}
