//! Clocks: the time-stamp counter scaled by what the host says of it, or the host's own clock where it is not invariant.

use core::sync::atomic::{AtomicU64, Ordering};

use mote_abi::boot::FIXED_CLOCK_STEP_NS;

use crate::{guest::BootInfo, hypercall};

/// The time-stamp counter.
pub(crate) fn timestamp() -> u64 {
    // SAFETY: `rdtsc` is part of every x86-64 and allowed in ring 3 (CR4.TSD is clear).
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Nanoseconds since 1970-01-01T00:00Z.
pub(crate) fn realtime_ns() -> u64 {
    let (clock, elapsed_ns) = now();
    clock.realtime_ns.saturating_add(elapsed_ns)
}

/// Nanoseconds since the VM was made; never goes back.
pub(crate) fn monotonic_ns() -> u64 {
    let (clock, elapsed_ns) = now();
    clock.monotonic_ns.saturating_add(elapsed_ns)
}

/// As [`monotonic_ns`], but without asking a host whose counter is not invariant: good enough to tell how old something is.
pub(crate) fn stale_monotonic_ns() -> u64 {
    let clock = BootInfo::read().clock();
    clock.monotonic_ns.saturating_add(clock.elapsed_ns(timestamp()))
}

/// Nanoseconds between two values that a clock can give.
pub(crate) fn resolution_ns() -> u64 {
    let boot = BootInfo::read();
    if boot.has_fixed_clock() {
        FIXED_CLOCK_STEP_NS
    } else if boot.has_invariant_tsc() {
        (boot.clock().multiplier >> 32).max(1)
    } else {
        1
    }
}

/// Moves clocks that are fixed; others go by themselves.
pub(crate) fn advance(nanoseconds: u64) {
    if BootInfo::read().has_fixed_clock() {
        FIXED_NS.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

/// Whether time goes on by readings alone.
pub(crate) fn is_fixed() -> bool {
    BootInfo::read().has_fixed_clock()
}

/// How far clocks that are fixed have gone.
static FIXED_NS: AtomicU64 = AtomicU64::new(0);

/// The bases, and the nanoseconds since.
fn now() -> (mote_abi::boot::Clock, u64) {
    let boot = BootInfo::read();
    if boot.has_fixed_clock() {
        (boot.clock(), FIXED_NS.fetch_add(FIXED_CLOCK_STEP_NS, Ordering::Relaxed))
    } else if boot.has_invariant_tsc() {
        let clock = boot.clock();
        (clock, clock.elapsed_ns(timestamp()))
    } else {
        hypercall::read_clock();
        (boot.clock(), 0)
    }
}
