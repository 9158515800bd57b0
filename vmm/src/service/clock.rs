//! Clock bases: real and monotonic time beside the guest's time-stamp counter.

use std::{
    mem::offset_of,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::VcpuFd;
use mote_abi::{
    boot::{BootInfo, Clock},
    layout::BOOT_INFO,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use zerocopy::IntoBytes;

use crate::ending::HostFailure;

/// IA32_TIME_STAMP_COUNTER.
const MSR_TSC: u32 = 0x10;

/// Makes the bases.
#[derive(Debug)]
pub(crate) struct ClockService {
    /// Zero of monotonic time.
    start: Instant,
    multiplier: u64,
    has_invariant_tsc: bool,
}

impl ClockService {
    pub(crate) fn new(vcpu: &VcpuFd) -> Self {
        // Without a rate the guest must ask for every reading.
        let multiplier = vcpu.get_tsc_khz().ok().and_then(Clock::multiplier_for);
        let has_invariant_tsc = multiplier.is_some() && host_has_invariant_tsc();
        Self { start: Instant::now(), multiplier: multiplier.unwrap_or(0), has_invariant_tsc }
    }

    pub(crate) fn has_invariant_tsc(&self) -> bool {
        self.has_invariant_tsc
    }

    /// How long the guest's counter takes for `ticks`.
    pub(crate) fn duration(&self, ticks: u64) -> std::time::Duration {
        let clock = Clock { multiplier: self.multiplier, ..Clock::default() };
        std::time::Duration::from_nanos(clock.elapsed_ns(ticks))
    }

    /// The bases of this moment.
    pub(crate) fn now(&self, vcpu: &VcpuFd) -> Result<Clock, HostFailure> {
        let machine = |what: String| HostFailure::Machine(format!("the guest's time-stamp counter: {what}"));
        let entry = kvm_msr_entry { index: MSR_TSC, ..kvm_msr_entry::default() };
        let mut msrs = Msrs::from_entries(&[entry]).map_err(|error| machine(format!("{error:?}")))?;
        let read = vcpu.get_msrs(&mut msrs).map_err(|error| machine(error.to_string()))?;
        let tsc_base = msrs.as_slice().first().filter(|_| read == 1).ok_or_else(|| machine("KVM does not tell it".into()))?.data;
        let nanoseconds = |duration: std::time::Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Ok(Clock {
            tsc_base,
            multiplier: self.multiplier,
            realtime_ns: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, nanoseconds),
            monotonic_ns: nanoseconds(self.start.elapsed()),
        })
    }

    /// Writes the bases of this moment to where the guest reads them.
    pub(crate) fn renew(&self, vcpu: &VcpuFd, memory: &GuestMemoryMmap) -> Result<(), HostFailure> {
        let at = GuestAddress(BOOT_INFO.start + offset_of!(BootInfo, clock) as u64);
        let clock = self.now(vcpu)?;
        memory.write_slice(clock.as_bytes(), at).map_err(|error| HostFailure::Machine(error.to_string()))
    }
}

/// CPUID 8000_0007h, EDX bit 8 (AMD64 Architecture Programmer's Manual, volume 3, E.4.6).
fn host_has_invariant_tsc() -> bool {
    use std::arch::x86_64::__cpuid;
    __cpuid(0x8000_0000).eax >= 0x8000_0007 && __cpuid(0x8000_0007).edx >> 8 & 1 == 1
}
