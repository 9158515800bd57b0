//! What the kernel finds when it is entered.
//!
//! Entry state: 64-bit mode, ring 3, interrupts off, direction flag clear, `rip` at the ELF entry, `rsp` at the end of
//! [`crate::layout::STACK`], `rdi` the address of the boot information, other general registers zero; the same at the first
//! entry and when a kernel goes on from a snapshot ([`flags::RESUME`]). [`BootInfo`] lies
//! at [`crate::layout::BOOT_INFO`], read-only for the kernel. The kernel takes processor features and clock rate from it
//! and never executes `cpuid`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// First field of [`BootInfo`]: "motebOOT".
pub const BOOT_MAGIC: u64 = u64::from_le_bytes(*b"motebOOT");

/// Everything the kernel is told at its start.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BootInfo {
    /// [`BOOT_MAGIC`].
    pub magic: u64,
    /// [`crate::ABI_VERSION`].
    pub version: u32,
    /// Bits of [`flags`].
    pub flags: u32,
    /// Bytes of the module at [`crate::layout::MODULE`].
    pub module_bytes: u64,
    /// Bytes of all guest RAM: base and pool.
    pub ram_bytes: u64,
    /// Bytes that all linear memories together may have; `u64::MAX` for no bound but RAM.
    pub max_wasm_memory_bytes: u64,
    /// Fuel for the call, if [`flags::FUEL`] is set.
    pub fuel: u64,
    /// Bytes of the value stack of the interpreter.
    pub max_wasm_stack_bytes: u64,
    /// Most frames of WebAssembly functions at a time.
    pub max_wasm_frames: u64,
    /// Where in [`crate::layout::CONFIG`] the strings of the call lie.
    pub arguments: Span,
    /// Environment, as `NAME=VALUE` strings.
    pub environment: Span,
    /// Name of the function to call, one string; none means the WASI start function.
    pub entry: Span,
    /// Arguments of that function as text.
    pub entry_arguments: Span,
    /// Names of the pre-opened directories as the program sees them. Their handles follow those of the listeners.
    pub directories: Span,
    /// Bytes of the ramdisk's archive in [`crate::layout::RAMDISK`], 0 for no ramdisk.
    pub ramdisk_bytes: u64,
    /// Listening sockets; their handles count from 0.
    pub listeners: u32,
    /// Zero.
    pub reserved: u32,
    /// Device and inode of standard output and standard error, where these are regular files; else zeros.
    pub output_files: [[u64; 2]; 2],
    /// Seed of the random generator.
    pub random_seed: [u8; 32],
    /// Clock bases.
    pub clock: Clock,
    /// Kind of each standard stream: one of [`stream_kind`].
    pub streams: [u32; 3],
    /// Most verbose level that is logged: 0 none, 1 error … 5 trace.
    pub log_level: u32,
    /// Counts renewals of [`BootInfo::random_seed`]: a kernel that sees another number than before takes the new seed.
    pub seed_generation: u64,
    /// Elements that all tables together may have.
    pub max_table_elements: u64,
    /// Functions of the host that modules can import: three strings each, the name of the module, that of the function,
    /// and its type as [`crate::value::signature`] has it.
    pub host_functions: Span,
    /// Modules that may be instantiated in the life of the VM.
    pub max_instances: u32,
    /// Zero.
    pub reserved_too: u32,
    /// Counts changes of where standard input comes from: a kernel that sees another number than when it read ahead drops what
    /// it read.
    pub input_generation: u64,
    /// Features of the processor that may be used, as [`crate::cpu::FEATURES`] numbers them.
    pub cpu_features: u64,
}

/// Bits of [`BootInfo::flags`].
pub mod flags {
    /// The call has [`super::BootInfo::fuel`].
    pub const FUEL: u32 = 1 << 0;
    /// The time-stamp counter is invariant, so clocks need no hypercall.
    pub const INVARIANT_TSC: u32 = 1 << 1;
    /// The kernel was stopped in a hypercall, perhaps in another VM, and its memory is as it was then: it goes on by taking
    /// the answer. Nothing of the processor's state is needed for that but the state of an ordinary entry.
    pub const RESUME: u32 = 1 << 2;
    /// Once the module is instantiated, the kernel waits for commands ([`crate::command`]).
    pub const SERVE: u32 = 1 << 3;
    /// Clocks do not follow the time-stamp counter but go on by [`super::FIXED_CLOCK_STEP_NS`] with each reading, and sleeping
    /// moves them: what a program sees of time is always the same.
    pub const FIXED_CLOCK: u32 = 1 << 4;
    /// All functions of a module are translated when it is loaded, not each when it is first called: a snapshot then has them.
    pub const EAGER: u32 = 1 << 5;
    /// Nobody looks into the output ring by himself: the kernel asks that it be emptied after each write to a standard stream.
    pub const PROMPT: u32 = 1 << 6;
}

/// How far a reading moves clocks that are fixed.
pub const FIXED_CLOCK_STEP_NS: u64 = 1_000;

/// What a standard stream is on the host.
pub mod stream_kind {
    /// Pipe, file or anything else that is not a terminal.
    pub const OTHER: u32 = 0;
    /// A terminal.
    pub const TERMINAL: u32 = 1;
}

/// A part of [`crate::layout::CONFIG`]: `count` strings, each ended by a NUL byte, in `bytes` bytes from `offset`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Span {
    /// Offset from the start of the region.
    pub offset: u32,
    /// Bytes, NULs included.
    pub bytes: u32,
    /// Number of strings.
    pub count: u32,
    /// Zero.
    pub reserved: u32,
}

/// How to turn the time-stamp counter into clocks: `ns = base + ((tsc − tsc_base) × multiplier >> 32)`.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Clock {
    /// The guest's counter at the moment of the two bases.
    pub tsc_base: u64,
    /// Nanoseconds for each tick, times 2^32.
    pub multiplier: u64,
    /// Real time in nanoseconds since 1970-01-01T00:00Z.
    pub realtime_ns: u64,
    /// Monotonic time in nanoseconds since the VM was made.
    pub monotonic_ns: u64,
}

impl Clock {
    /// Nanoseconds between [`Clock::tsc_base`] and `tsc`; 0 for a counter before the base.
    pub fn elapsed_ns(&self, tsc: u64) -> u64 {
        let ticks = tsc.saturating_sub(self.tsc_base);
        let ns = (u128::from(ticks) * u128::from(self.multiplier)) >> 32;
        u64::try_from(ns).unwrap_or(u64::MAX)
    }

    /// The multiplier for a counter of `khz` thousand ticks a second; `None` for 0.
    pub fn multiplier_for(khz: u32) -> Option<u64> {
        (1_000_000u64 << 32).checked_div(u64::from(khz))
    }
}

/// What the host tells while the guest runs, at [`crate::layout::HOST_STATUS`]. Each field is read and written as one
/// aligned word.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HostStatus {
    /// How many bytes of the output ring the host has taken, ever.
    pub ring_tail: u64,
    /// Chunks of the pool that are still free.
    pub free_chunks: u64,
    /// Bit n: standard stream n is broken, as by a pipe without reader.
    pub broken_streams: u64,
    /// How many writes that came through the ring have failed, ever. Which ones, the next request about the handle tells.
    pub failed_writes: u64,
    /// The exception that the handler of [`crate::announce::HANDLER`] is called for.
    pub exception: Exception,
}

/// An exception of the processor in ring 3.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Exception {
    /// Its vector.
    pub vector: u64,
    /// The instruction.
    pub rip: u64,
    /// For a page fault, the address that was accessed.
    pub address: u64,
}

/// Offsets of the fields of [`HostStatus`], for both sides' single-word accesses.
pub mod status_offset {
    use super::HostStatus;
    /// Of [`HostStatus::ring_tail`].
    pub const RING_TAIL: u64 = core::mem::offset_of!(HostStatus, ring_tail) as u64;
    /// Of [`HostStatus::free_chunks`].
    pub const FREE_CHUNKS: u64 = core::mem::offset_of!(HostStatus, free_chunks) as u64;
    /// Of [`HostStatus::broken_streams`].
    pub const BROKEN_STREAMS: u64 = core::mem::offset_of!(HostStatus, broken_streams) as u64;
    /// Of [`HostStatus::exception`].
    pub const EXCEPTION: u64 = core::mem::offset_of!(HostStatus, exception) as u64;
    /// Of [`HostStatus::failed_writes`].
    pub const FAILED_WRITES: u64 = core::mem::offset_of!(HostStatus, failed_writes) as u64;
}

const _: () = {
    assert!(size_of::<BootInfo>() == 328);
    assert!(size_of::<BootInfo>() as u64 <= crate::layout::BOOT_INFO.bytes());
    assert!(core::mem::offset_of!(BootInfo, arguments) == 64);
    assert!(core::mem::offset_of!(BootInfo, clock) == 224 && core::mem::offset_of!(BootInfo, seed_generation) == 272);
    assert!(size_of::<Span>() == 16 && size_of::<Clock>() == 32 && size_of::<HostStatus>() == 56);
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn elapsed_is_exact_to_a_millionth(khz in 1_000u32.., seconds in 0u64..100_000) {
            let clock = Clock { tsc_base: 5, multiplier: Clock::multiplier_for(khz).unwrap(), ..Clock::default() };
            let ns = clock.elapsed_ns(5 + seconds * u64::from(khz) * 1000);
            let exact = seconds * 1_000_000_000;
            prop_assert!(ns <= exact && exact - ns <= exact / 1_000_000 + 1, "{ns} for {exact}");
        }

        #[test]
        fn elapsed_never_goes_back(a: u64, b: u64, multiplier: u64, tsc_base: u64) {
            let clock = Clock { tsc_base, multiplier, ..Clock::default() };
            let (early, late) = (a.min(b), a.max(b));
            prop_assert!(clock.elapsed_ns(early) <= clock.elapsed_ns(late));
        }
    }

    #[test]
    fn a_stopped_counter_has_no_multiplier() {
        assert_eq!(Clock::multiplier_for(0), None);
    }
}
