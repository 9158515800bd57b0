//! What the processor can do: what is needed, and what compiled code may use.

use core::{arch::x86_64::__cpuid_count, fmt};

use mote_abi::cpu::extended_state;
use mote_machine::cpu::{Register, told_by};
use x86_64::registers::{
    control::{Cr4, Cr4Flags, Efer, EferFlags},
    xcontrol::{XCr0, XCr0Flags},
};

/// Pages that cannot be executed, in `edx` of this function.
const EXTENDED: u32 = 0x8000_0001;
const NO_EXECUTE: u32 = 1 << 20;

/// A processor without something that mote needs.
#[derive(Debug)]
pub(super) struct Lacks(&'static str);

impl fmt::Display for Lacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this processor lacks {}", self.0)
    }
}

/// Checks what `entry` did not, and lets page tables forbid execution.
pub(super) fn check() -> Result<(), Lacks> {
    if __cpuid_count(EXTENDED, 0).edx & NO_EXECUTE == 0 {
        return Err(Lacks("NX, which keeps data from being executed; perhaps firmware switched it off"));
    }
    // SAFETY: the processor has the bit; no entry of a page table has it set by mistake, as there are none yet with it.
    unsafe { Efer::update(|flags| flags.insert(EferFlags::NO_EXECUTE_ENABLE)) };
    Ok(())
}

/// The features that compiled code may use, whose registers are enabled by this. An interpreter uses none.
pub(super) fn enable_features() -> u64 {
    if cfg!(not(feature = "compiled")) {
        return 0;
    }
    const XSAVE: u32 = 1 << 26;
    let has_xsave = __cpuid_count(1, 0).ecx & XSAVE != 0;
    let last = __cpuid_count(0, 0).eax;
    let features = told_by(|function, index, register| {
        // Without XSAVE there are no more registers than those of SSE.
        let is_told = function <= last || function >= 0x8000_0000;
        let leaf = if is_told && (function != 0xd || has_xsave) { __cpuid_count(function, index) } else { return 0 };
        match register {
            Register::Eax => leaf.eax,
            Register::Ebx => leaf.ebx,
            Register::Ecx => leaf.ecx,
        }
    });
    if has_xsave {
        // SAFETY: the processor has XSAVE, and by `told_by` the state of all features that are told.
        unsafe {
            Cr4::update(|flags| flags.insert(Cr4Flags::OSXSAVE));
            XCr0::write(XCr0Flags::from_bits_truncate(extended_state(features)));
        }
    }
    features
}

/// Whether there is an instruction for random numbers: RDSEED, RDRAND.
pub(super) fn random_instructions() -> (bool, bool) {
    let last = __cpuid_count(0, 0).eax;
    let seed = last >= 7 && __cpuid_count(7, 0).ebx >> 18 & 1 == 1;
    (seed, __cpuid_count(1, 0).ecx >> 30 & 1 == 1)
}
