//! Clock bases: real and monotonic time beside the guest's time-stamp counter.

use std::{
    mem::offset_of,
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::VcpuFd;
use mote_abi::{
    boot::{BootInfo, Clock},
    layout::BOOT_INFO,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use zerocopy::IntoBytes;

use crate::{config::ClockSource, ending::HostFailure, kvm};

/// IA32_TIME_STAMP_COUNTER.
const MSR_TSC: u32 = 0x10;

/// Where the clocks of a guest begin.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClockOrigin {
    source: ClockSource,
    /// When monotonic time was `elapsed`.
    start: Instant,
    elapsed: Duration,
}

impl ClockOrigin {
    /// Clocks that begin now.
    pub(crate) fn new(source: ClockSource) -> Self {
        Self::at(source, Duration::ZERO)
    }

    /// Clocks whose monotonic time is `elapsed` now.
    pub(crate) fn at(source: ClockSource, elapsed: Duration) -> Self {
        Self { source, start: Instant::now(), elapsed }
    }

    pub(crate) fn source(&self) -> ClockSource {
        self.source
    }

    /// Monotonic time of this moment.
    pub(crate) fn monotonic(&self) -> Duration {
        self.elapsed.saturating_add(self.start.elapsed())
    }
}

/// Makes the bases.
#[derive(Debug)]
pub(crate) struct ClockService {
    origin: ClockOrigin,
    multiplier: u64,
    has_invariant_tsc: bool,
    /// The guest's counter less the host's, which stays what it is for the life of a vCPU.
    tsc_offset: u64,
}

impl ClockService {
    pub(crate) fn new(vcpu: &VcpuFd, origin: ClockOrigin) -> Result<Self, HostFailure> {
        // That of the processor, which all VMs have. Without a rate the guest must ask for every reading.
        static RATE_KHZ: OnceLock<Option<u32>> = OnceLock::new();
        let multiplier = RATE_KHZ.get_or_init(|| vcpu.get_tsc_khz().ok()).and_then(Clock::multiplier_for);
        let has_invariant_tsc = multiplier.is_some() && host_has_invariant_tsc();
        let tsc_offset = if kvm::is_pvm() { 0 } else { guest_tsc(vcpu)?.wrapping_sub(host_tsc()) };
        Ok(Self { origin, multiplier: multiplier.unwrap_or(0), has_invariant_tsc, tsc_offset })
    }

    pub(crate) fn has_invariant_tsc(&self) -> bool {
        self.has_invariant_tsc
    }

    pub(crate) fn origin(&self) -> ClockOrigin {
        self.origin
    }

    /// Goes on as another guest's clocks do.
    pub(crate) fn set_origin(&mut self, origin: ClockOrigin) {
        self.origin = origin;
    }

    /// How long the guest's counter takes for `ticks`.
    pub(crate) fn duration(&self, ticks: u64) -> Duration {
        let clock = Clock { multiplier: self.multiplier, ..Clock::default() };
        Duration::from_nanos(clock.elapsed_ns(ticks))
    }

    /// The bases of this moment.
    pub(crate) fn now(&self) -> Clock {
        let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let (realtime_ns, monotonic_ns) = match self.origin.source {
            ClockSource::Fixed { realtime_ns } => (realtime_ns, 0),
            ClockSource::Host => {
                (SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, nanoseconds), nanoseconds(self.origin.monotonic()))
            }
        };
        let tsc_base = host_tsc().wrapping_add(self.tsc_offset);
        Clock { tsc_base, multiplier: self.multiplier, realtime_ns, monotonic_ns }
    }

    /// Writes the bases of this moment to where the guest reads them.
    pub(crate) fn renew(&self, memory: &GuestMemoryMmap) -> Result<(), HostFailure> {
        let at = GuestAddress(BOOT_INFO.start + offset_of!(BootInfo, clock) as u64);
        memory.write_slice(self.now().as_bytes(), at).map_err(|error| HostFailure::Machine(error.to_string()))
    }
}

/// The guest's time-stamp counter, which began with the VM.
fn guest_tsc(vcpu: &VcpuFd) -> Result<u64, HostFailure> {
    let machine = |what: String| HostFailure::Machine(format!("the guest's time-stamp counter: {what}"));
    let entry = kvm_msr_entry { index: MSR_TSC, ..kvm_msr_entry::default() };
    let mut msrs = Msrs::from_entries(&[entry]).map_err(|error| machine(format!("{error:?}")))?;
    let read = vcpu.get_msrs(&mut msrs).map_err(|error| machine(error.to_string()))?;
    let found = msrs.as_slice().first().filter(|_| read == 1).ok_or_else(|| machine("KVM does not tell it".into()))?;
    Ok(found.data)
}

fn host_tsc() -> u64 {
    // SAFETY: `rdtsc` is part of every x86-64; where it may not be used the process ends, whatever it is.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// CPUID 8000_0007h, EDX bit 8 (AMD64 Architecture Programmer's Manual, volume 3, E.4.6).
pub(crate) fn host_has_invariant_tsc() -> bool {
    use std::arch::x86_64::__cpuid;
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| __cpuid(0x8000_0000).eax >= 0x8000_0007 && __cpuid(0x8000_0007).edx >> 8 & 1 == 1)
}
