//! The memory that kernel and host share, at its fixed addresses.
//!
//! The only module that makes references or accesses out of the constants of [`mote_abi::layout`]. What the host may
//! change while the kernel runs is read as single words, never through a reference.

use core::{
    ptr,
    sync::atomic::{AtomicU64, Ordering},
};

use mote_kernel_logic::window::FileId;
use spin::Once;

use mote_abi::{
    boot::{self, Clock, Span, flags, status_offset},
    layout::{BOOT_INFO, CONFIG, HOST_STATUS, MODULE, PAGE_BYTES, RAMDISK},
};

/// What the host told at the start.
#[derive(Clone, Copy)]
pub(crate) struct BootInfo(&'static boot::BootInfo);

impl BootInfo {
    pub(crate) fn read() -> Self {
        static COPY: Once<boot::BootInfo> = Once::new();
        // SAFETY: BOOT_INFO is a mapped, page-aligned, read-only page holding a BootInfo, every bit pattern of which is
        // valid. A copy, as the host renews the clock bases in the page.
        Self(COPY.call_once(|| unsafe { ptr::read_volatile(BOOT_INFO.start as *const boot::BootInfo) }))
    }

    /// Ends the run if the host speaks another version of the contract.
    pub(crate) fn check(self) {
        if self.0.magic != boot::BOOT_MAGIC || self.0.version != mote_abi::ABI_VERSION {
            crate::failure::abort("the boot information is of another version of the ABI")
        }
    }

    /// The module file.
    pub(crate) fn module(self) -> &'static [u8] {
        mapped_module(MODULE.start, self.0.module_bytes.min(MODULE.bytes())).unwrap_or(&[])
    }

    pub(crate) fn arguments(self) -> Strings {
        strings(self.0.arguments)
    }

    pub(crate) fn environment(self) -> Strings {
        strings(self.0.environment)
    }

    /// The function to call, if not the start function of a command.
    pub(crate) fn entry(self) -> Option<&'static [u8]> {
        strings(self.0.entry).iter().next()
    }

    pub(crate) fn entry_arguments(self) -> Strings {
        strings(self.0.entry_arguments)
    }

    /// Names of the pre-opened directories, in the order of their handles, which follow those of the listeners.
    pub(crate) fn directories(self) -> Strings {
        strings(self.0.directories)
    }

    /// How many listening sockets there are; their handles count from 0.
    pub(crate) fn listeners(self) -> u32 {
        self.0.listeners
    }

    /// The file that standard output (1) or standard error (2) is, if it is one.
    pub(crate) fn output_file(self, stream: u32) -> Option<FileId> {
        let [device, inode] = *self.0.output_files.get((stream as usize).checked_sub(1)?)?;
        ([device, inode] != [0; 2]).then_some(FileId { device, inode })
    }

    /// The archive of the ramdisk.
    pub(crate) fn ramdisk(self) -> Option<&'static [u8]> {
        match self.0.ramdisk_bytes.min(RAMDISK.bytes()) as usize {
            0 => None,
            // SAFETY: the host maps RAMDISK read-only for the whole archive.
            bytes => Some(unsafe { core::slice::from_raw_parts(RAMDISK.start as *const u8, bytes) }),
        }
    }

    pub(crate) fn ram_bytes(self) -> u64 {
        self.0.ram_bytes
    }

    pub(crate) fn max_wasm_memory_bytes(self) -> u64 {
        self.0.max_wasm_memory_bytes
    }

    pub(crate) fn max_wasm_stack_bytes(self) -> usize {
        self.0.max_wasm_stack_bytes as usize
    }

    #[cfg(not(feature = "compiled"))]
    pub(crate) fn max_wasm_frames(self) -> usize {
        self.0.max_wasm_frames as usize
    }

    pub(crate) fn fuel(self) -> Option<u64> {
        (self.0.flags & flags::FUEL != 0).then_some(self.0.fuel)
    }

    /// Whether the kernel waits for commands once the module is instantiated.
    pub(crate) fn serves(self) -> bool {
        self.0.flags & flags::SERVE != 0
    }

    /// Whether functions are translated before they are called.
    #[cfg(not(feature = "compiled"))]
    pub(crate) fn is_eager(self) -> bool {
        self.0.flags & flags::EAGER != 0
    }

    /// Whether clocks go on by readings alone.
    pub(crate) fn has_fixed_clock(self) -> bool {
        self.0.flags & flags::FIXED_CLOCK != 0
    }

    /// Whether output is only taken when it is asked for.
    pub(crate) fn is_prompt(self) -> bool {
        self.0.flags & flags::PROMPT != 0
    }

    pub(crate) fn max_table_elements(self) -> u64 {
        self.0.max_table_elements
    }

    pub(crate) fn max_instances(self) -> u32 {
        self.0.max_instances
    }

    /// Module, name and signature of each function of the host.
    pub(crate) fn host_functions(self) -> Strings {
        strings(self.0.host_functions)
    }

    pub(crate) fn has_invariant_tsc(self) -> bool {
        self.0.flags & flags::INVARIANT_TSC != 0
    }

    /// The seed of this moment, and how often it was renewed.
    pub(crate) fn random_seed(self) -> ([u8; 32], u64) {
        let seed = BOOT_INFO.start + core::mem::offset_of!(boot::BootInfo, random_seed) as u64;
        // SAFETY: the field lies in the page of `read`; bytes have no alignment. Volatile, as the host may have renewed it in
        // a hypercall.
        (unsafe { ptr::read_volatile(seed as *const [u8; 32]) }, self.seed_generation())
    }

    /// How often standard input changed.
    pub(crate) fn input_generation(self) -> u64 {
        let generation = BOOT_INFO.start + core::mem::offset_of!(boot::BootInfo, input_generation) as u64;
        // SAFETY: as in `random_seed`; the field is aligned.
        unsafe { ptr::read_volatile(generation as *const u64) }
    }

    /// How often the seed was renewed.
    pub(crate) fn seed_generation(self) -> u64 {
        let generation = BOOT_INFO.start + core::mem::offset_of!(boot::BootInfo, seed_generation) as u64;
        // SAFETY: as above; the field is aligned.
        unsafe { ptr::read_volatile(generation as *const u64) }
    }

    pub(crate) fn is_terminal(self, stream: usize) -> bool {
        self.0.streams.get(stream) == Some(&boot::stream_kind::TERMINAL)
    }

    /// Features of the processor, as [`mote_abi::cpu`] numbers them.
    #[cfg(feature = "compiled")]
    pub(crate) fn cpu_features(self) -> u64 {
        self.0.cpu_features
    }

    pub(crate) fn log_level(self) -> u32 {
        self.0.log_level
    }

    /// The clock bases of this moment.
    pub(crate) fn clock(self) -> Clock {
        let clock = BOOT_INFO.start + core::mem::offset_of!(boot::BootInfo, clock) as u64;
        // SAFETY: the field lies in the page of `read`, aligned; volatile, as the host may have renewed it in a hypercall.
        unsafe { ptr::read_volatile(clock as *const Clock) }
    }
}

/// What the host mapped in the region for modules, and says that it did; `None` for what is not in there.
pub(crate) fn mapped_module(address: u64, bytes: u64) -> Option<&'static [u8]> {
    // SAFETY: the host maps read-only what it tells of in MODULE, and never takes it away.
    MODULE.contains_range(address, bytes).then(|| unsafe { core::slice::from_raw_parts(address as *const u8, bytes as usize) })
}

/// Strings of the configuration region.
#[derive(Clone, Copy)]
pub(crate) struct Strings {
    bytes: &'static [u8],
    count: u32,
}

impl Strings {
    /// All strings, each with its NUL.
    pub(crate) fn bytes(self) -> &'static [u8] {
        self.bytes
    }

    pub(crate) fn count(self) -> u32 {
        self.count
    }

    /// Each string without its NUL.
    pub(crate) fn iter(self) -> impl Iterator<Item = &'static [u8]> {
        let strings = self.bytes.split(|byte| *byte == 0);
        strings.take(self.count as usize)
    }
}

fn strings(span: Span) -> Strings {
    let whole = CONFIG.contains_range(CONFIG.start + u64::from(span.offset), u64::from(span.bytes));
    let (offset, bytes, count) = if whole { (span.offset, span.bytes, span.count) } else { (0, 0, 0) };
    let start = (CONFIG.start + u64::from(offset)) as *const u8;
    // SAFETY: the span was just checked to lie in CONFIG, of which the host maps the pages that it filled.
    let bytes = unsafe { core::slice::from_raw_parts(start, bytes as usize) };
    Strings { bytes, count }
}

/// Bytes of the output ring that the host took.
pub(crate) fn ring_tail() -> u64 {
    status(status_offset::RING_TAIL)
}

/// Bytes of RAM that no demand page uses yet.
pub(crate) fn free_ram_bytes() -> u64 {
    status(status_offset::FREE_CHUNKS).saturating_mul(mote_abi::layout::CHUNK_BYTES)
}

/// Whether nobody will ever read what is written to standard stream `stream`.
pub(crate) fn is_broken(stream: u32) -> bool {
    status(status_offset::BROKEN_STREAMS) >> stream & 1 == 1
}

/// How many writes that were posted have failed.
pub(crate) fn failed_writes() -> u64 {
    status(status_offset::FAILED_WRITES)
}

fn status(offset: u64) -> u64 {
    const { assert!(size_of::<boot::HostStatus>() as u64 <= PAGE_BYTES) }
    // SAFETY: HOST_STATUS is a mapped page, the offsets are those of aligned 64-bit fields within it, and the host
    // writes them as whole words. Only loads are made, so that the page is read-only does not matter.
    unsafe { &*((HOST_STATUS.start + offset) as *const AtomicU64) }.load(Ordering::Acquire)
}
