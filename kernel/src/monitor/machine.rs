//! The machine that the kernel runs in: the same tables as the VMM's, in the memory that there is.

use core::{fmt, ops::Range, ptr};

use mote_abi::{
    ABI_VERSION,
    announce::{self, Committed},
    boot::{BOOT_MAGIC, BootInfo, flags, status_offset, stream_kind},
    hypercall::CopyModuleArgs,
    layout::{
        ANNOUNCED, BASE, BOOT_INFO, CHUNK_BYTES, GDT, HOST_STATUS, IDT, KERNEL_DATA, LINEAR, MAILBOX, MAILBOX_DATA, MODULE,
        MONITOR_STACK, MONITOR_STATE, MONITOR_TABLES, PAGE_BYTES, RING_HEAD, STUBS, TSS, is_demand,
    },
};
use mote_kernel_logic::boot::memory::FreeMemory;
use mote_machine::{
    descriptor,
    paging::{Access, MapError},
    space::{Owner, Parts, ROOT, Segment, Space, TableError},
    stub,
};
use x86_64::{
    VirtAddr,
    instructions::tables::{lgdt, lidt, load_tss},
    structures::{DescriptorTablePointer, gdt::SegmentSelector},
};
use zerocopy::IntoBytes;

use super::{
    Monitor, cpu, entry,
    memory::{View, clear, copy_words},
};

/// Room for what the kernel's data is before it runs, at the end of the monitor's memory.
pub(super) const INITIAL_DATA_BYTES: u64 = 256 << 10;
const INITIAL_DATA: u64 = MONITOR_STATE.end - INITIAL_DATA_BYTES;

/// Bounds that the VMM has as defaults.
const WASM_STACK_BYTES: u64 = 8 << 20;
const WASM_FRAMES: u64 = 50_000;
const TABLE_ELEMENTS: u64 = 10_000_000;

/// Symbols of the linker script: only their addresses mean something.
mod image {
    unsafe extern "C" {
        pub(super) static __text_start: u8;
        pub(super) static __text_end: u8;
        pub(super) static __constants_start: u8;
        pub(super) static __constants_end: u8;
        pub(super) static __data_filled: u8;
        pub(super) static __data_end: u8;
    }
}

/// The address of a symbol.
macro_rules! address {
    ($symbol:ident) => {
        // SAFETY: taking the address of a symbol of the linker script reads nothing.
        (&raw const image::$symbol) as u64
    };
}

/// The tables, and the memory that is left.
pub(super) struct Machine {
    space: Space,
    free: FreeMemory,
    /// How far the output ring was emptied.
    pub(super) ring_tail: u64,
    /// Whether there is one.
    pub(super) is_built: bool,
}

/// What came of a demand for memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Demand {
    Mapped,
    /// There is no memory left, or no room for its tables.
    Exhausted,
    /// No memory may be there.
    None,
}

/// What came of a copy out of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copied {
    Whole,
    /// There is no memory for the rest.
    InPart,
    /// No kernel of ours asks for it.
    Impossible,
}

/// The tables could not be made.
pub(super) struct BuildError(MapError<TableError<core::convert::Infallible>>);

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the machine cannot be made: {}", self.0)
    }
}

/// Writes descriptor tables and stubs, and loads them: exceptions reach the monitor from here on.
pub(super) fn load_descriptors() {
    let mut gdt = descriptor::gdt();
    if let Some(word) = gdt.get_mut(descriptor::TASK_WORD) {
        *word &= !descriptor::BUSY;
    }
    View::write(GDT.start, gdt.as_bytes());
    View::write(IDT.start, descriptor::idt().as_bytes());
    View::write(TSS.start, &descriptor::tss(MONITOR_STACK.end));
    View::write(STUBS.start, &stub::code_for_monitor(entry::exception as *const () as u64));
    let pointer = |limit, base| DescriptorTablePointer { limit, base: VirtAddr::new_truncate(base) };
    // SAFETY: the tables were just written, stay where they are, and are mapped there now and in the kernel's tables; the
    // selector of ring-0 code means the same in the table before. The task's descriptor is one, and not busy.
    unsafe {
        lgdt(&pointer(descriptor::GDT_LIMIT, GDT.start));
        lidt(&pointer(descriptor::IDT_LIMIT, IDT.start));
        load_tss(SegmentSelector(descriptor::TASK));
    }
}

/// Keeps the kernel's data as the image has it, for the next time that it is entered. Called before the first time.
pub(super) fn keep_initial_data() {
    let bytes = address!(__data_filled) - KERNEL_DATA.start;
    // The linker script asserts that it fits.
    if bytes <= INITIAL_DATA_BYTES {
        // SAFETY: the end of the monitor's memory is for this alone, and the data is nobody's while the kernel does not run.
        unsafe { copy_words(INITIAL_DATA, KERNEL_DATA.start, bytes.div_ceil(8)) };
    }
}

/// Enters the kernel in the machine that was built.
pub(super) fn enter() -> ! {
    switch_tables(ROOT);
    entry::enter_kernel()
}

/// Goes back to the tables with which the monitor began, where all below 4 GiB is mapped.
pub(super) fn leave() {
    switch_tables(MONITOR_TABLES.start);
}

fn switch_tables(root: u64) {
    // SAFETY: both sets of tables map the monitor's code, stack and memory at the same addresses.
    unsafe { core::arch::asm!("mov cr3, {}", in(reg) root, options(nostack, preserves_flags)) };
}

impl Machine {
    pub(super) const fn none() -> Self {
        Self { space: Space::empty(), free: FreeMemory::new(), ring_tail: 0, is_built: false }
    }

    /// Makes everything that the kernel finds when it is entered.
    pub(super) fn build(monitor: &Monitor, seed: [u8; 32]) -> Result<Self, BuildError> {
        // Those that the processor uses cannot be made anew.
        leave();
        let files = &monitor.files;
        let page = |address: u64| address.next_multiple_of(PAGE_BYTES);
        let segments = [
            Segment { start: address!(__text_start), end: page(address!(__text_end)), access: Access::UserReadExecute },
            Segment { start: address!(__constants_start), end: page(address!(__constants_end)), access: Access::UserRead },
        ];
        let parts = Parts {
            owner: Owner::Monitor,
            segments: &segments,
            data_bytes: address!(__data_end) - KERNEL_DATA.start,
            config_bytes: files.config_bytes,
            module: files.module,
            ramdisk_bytes: files.ramdisk_bytes,
            module_at: files.module_at,
            ramdisk_at: files.ramdisk_at,
        };
        let space = Space::build(&View, &parts).map_err(BuildError)?;
        restore_data();
        for (start, bytes) in [
            (HOST_STATUS.start, PAGE_BYTES),
            (MAILBOX.start, MAILBOX_DATA.start + PAGE_BYTES - MAILBOX.start),
            (RING_HEAD.start, PAGE_BYTES),
            (ANNOUNCED.start, ANNOUNCED.bytes()),
        ] {
            View::clear(start, bytes);
        }
        View::write(BOOT_INFO.start, boot_info(monitor, seed).as_bytes());
        let machine = Self { space, free: monitor.memory.clone(), ring_tail: 0, is_built: true };
        machine.publish();
        Ok(machine)
    }

    /// Maps memory where `address` lies, if there may be some.
    pub(super) fn give(&mut self, address: u64) -> Demand {
        let whole = address / CHUNK_BYTES * CHUNK_BYTES;
        let part = if is_demand(address) {
            whole..whole + CHUNK_BYTES
        } else {
            match committed(address) {
                Some(pages) => pages.start.max(whole)..pages.end.min(whole + CHUNK_BYTES),
                None => {
                    return match self.space.map_fixed(&View, address) {
                        Ok(true) => Demand::Mapped,
                        Ok(false) => Demand::None,
                        Err(_) => Demand::Exhausted,
                    };
                }
            }
        };
        // Of a chunk of which a part is mapped, another part is wanted.
        let there = self.space.chunk_behind(&View, address);
        let chunk = match there {
            Some(chunk) => chunk,
            None => match self.free.take_chunk() {
                Some(chunk) => chunk,
                None => return Demand::Exhausted,
            },
        };
        self.publish();
        let mapped = if part == (whole..whole + CHUNK_BYTES) && there.is_none() {
            let mapped = self.space.map_chunk(&View, address, chunk);
            mapped.map(|()| {
                // SAFETY: all of it was just mapped, and nobody knows what was there before.
                unsafe { clear(whole, CHUNK_BYTES) };
            })
        } else {
            self.map_pages(part, chunk)
        };
        if mapped.is_ok() { Demand::Mapped } else { Demand::Exhausted }
    }

    /// Maps those pages of a chunk that are not mapped yet, each of them zero.
    fn map_pages(&mut self, pages: Range<u64>, chunk: u64) -> Result<(), MapError<TableError<core::convert::Infallible>>> {
        for page in pages.step_by(PAGE_BYTES as usize) {
            if !self.space.is_mapped(&View, page) {
                self.space.map_part(&View, page..page + PAGE_BYTES, chunk)?;
                // SAFETY: the page was just mapped, and nobody knows what was there before.
                unsafe { clear(page, PAGE_BYTES) };
            }
        }
        Ok(())
    }

    /// Tells the kernel how much memory is left.
    fn publish(&self) {
        View::store(HOST_STATUS.start + status_offset::FREE_CHUNKS, self.free.chunks());
    }
}

impl Monitor {
    /// Copies a part of a compiled module into linear memory, page by page, and gives that the memory it needs.
    pub(super) fn copy_module(&mut self, arguments: &CopyModuleArgs) -> Copied {
        let CopyModuleArgs { from, to, bytes } = *arguments;
        let offset = from.wrapping_sub(MODULE.start);
        let is_inside = offset.checked_add(bytes).is_some_and(|end| end <= self.files.module.bytes);
        let is_announced = committed(to).is_some_and(|pages| to.checked_add(bytes).is_some_and(|end| end <= pages.end));
        if !is_inside || !LINEAR.contains_range(to, bytes) || !is_announced {
            return Copied::Impossible;
        }
        let mut done = 0;
        while done < bytes {
            let at = to + done;
            let part = (PAGE_BYTES - at % PAGE_BYTES).min(bytes - done);
            if !self.machine.space.is_mapped(&View, at) && self.machine.give(at) != Demand::Mapped {
                return Copied::InPart;
            }
            // SAFETY: the module is mapped as a whole, the target's page is mapped now, both are of ring 3, which does not run,
            // and they do not overlap, being of different regions.
            unsafe { ptr::copy_nonoverlapping((from + done) as *const u8, at as *mut u8, part as usize) };
            done += part;
        }
        Copied::Whole
    }
}

/// The pages that the kernel announced of the slot of address space in which `address` lies, if that is one of them.
fn committed(address: u64) -> Option<Range<u64>> {
    let at = announce::committed_at(address)?;
    let committed: Committed = View::load(at);
    committed.pages(address).filter(|pages| pages.contains(&address))
}

/// Makes the kernel's data what it was before it ran.
fn restore_data() {
    let (filled, end) = (address!(__data_filled), address!(__data_end));
    let bytes = (filled - KERNEL_DATA.start).min(INITIAL_DATA_BYTES);
    // SAFETY: `keep_initial_data` filled the one, and the other is nobody's, as above; the monitor's first tables have both.
    unsafe { copy_words(KERNEL_DATA.start, INITIAL_DATA, bytes.div_ceil(8)) };
    let zeros = filled.next_multiple_of(8);
    View::clear(zeros, end.next_multiple_of(PAGE_BYTES) - zeros);
}

fn boot_info(monitor: &Monitor, random_seed: [u8; 32]) -> BootInfo {
    let Monitor { options, files, .. } = monitor;
    let stream = if options.is_terminal { stream_kind::TERMINAL } else { stream_kind::OTHER };
    let fuel = if options.fuel.is_some() { flags::FUEL } else { 0 };
    BootInfo {
        magic: BOOT_MAGIC,
        version: ABI_VERSION,
        flags: flags::INVARIANT_TSC | flags::PROMPT | fuel,
        module_bytes: files.module.bytes,
        ram_bytes: BASE.bytes() + monitor.memory.chunks() * CHUNK_BYTES,
        max_wasm_memory_bytes: options.max_wasm_memory_bytes.unwrap_or(u64::MAX),
        fuel: options.fuel.unwrap_or(0),
        max_wasm_stack_bytes: WASM_STACK_BYTES,
        max_wasm_frames: WASM_FRAMES,
        arguments: files.strings.arguments,
        environment: files.strings.environment,
        entry: files.strings.entry,
        entry_arguments: files.strings.entry_arguments,
        directories: Default::default(),
        ramdisk_bytes: files.ramdisk_bytes,
        listeners: 0,
        reserved: 0,
        output_files: [[0; 2]; 2],
        random_seed,
        clock: monitor.timer.now(),
        streams: [stream; 3],
        log_level: options.log_level,
        seed_generation: 0,
        max_table_elements: TABLE_ELEMENTS,
        host_functions: Default::default(),
        max_instances: 1,
        reserved_too: 0,
        input_generation: 0,
        cpu_features: cpu::enable_features(),
    }
}
