//! The address space of a machine: what is mapped where before the kernel is entered, and what can be added later.
//!
//! Whoever starts a kernel makes its tables by this: the VMM from outside, in memory that it gives to a guest, and the boot stub
//! from inside, in the memory that the machine has.

use core::{fmt, ops::Range};

use mote_abi::layout::{
    ANNOUNCED, BASE, BOOT_INFO, CHUNK_BYTES, CONFIG, DOORBELL, FAULT_DOORBELL, GDT, HOST_STATUS, IDT, KERNEL_DATA, MAILBOX,
    MAILBOX_DATA, MODULE, MONITOR_STACK, MONITOR_STATE, MONITOR_VIEW, PAGE_BYTES, PAGE_TABLES, RAMDISK, READ_AHEAD, RING_DATA,
    RING_HEAD, RING0_STACK, STACK, STUBS, SYSTEM, SYSTEM_VIEW, TSS,
};

use crate::paging::{self, Access, MapError, Mapping, TableMemory};

/// Guest-physical address of the root table.
pub const ROOT: u64 = PAGE_TABLES.start;

/// Guest-physical memory, a page-table entry at a time.
pub trait Entries {
    /// What can go wrong.
    type Error;
    /// Reads the entry at guest-physical `address`.
    fn load(&self, address: u64) -> Result<u64, Self::Error>;
    /// Writes the entry at guest-physical `address`.
    fn store(&self, address: u64, entry: u64) -> Result<(), Self::Error>;
    /// Makes the page at guest-physical `address` all zero, for a table. What a VMM gives to a new guest is.
    fn clear(&self, address: u64) -> Result<(), Self::Error> {
        let _is_zero = address;
        Ok(())
    }
}

/// Why there is no table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableError<E> {
    /// The memory refused.
    Memory(E),
    /// The region for tables is full.
    Exhausted,
}

impl<E: fmt::Display> fmt::Display for TableError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(error) => error.fmt(f),
            Self::Exhausted => f.write_str("no room for another page table"),
        }
    }
}

/// A read-only segment of a kernel image, in whole pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// First guest address.
    pub start: u64,
    /// First guest address behind it.
    pub end: u64,
    /// Rights.
    pub access: Access,
}

impl Segment {
    /// Size in bytes.
    pub const fn bytes(&self) -> u64 {
        self.end - self.start
    }
}

/// How large a module is, and where in it lies what can be executed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ModuleSizes {
    /// All of it.
    pub bytes: u64,
    /// Offset from its start, in whole pages; with `text_end` empty for a module that is interpreted.
    pub text_start: u64,
    /// Offset of what follows.
    pub text_end: u64,
}

impl ModuleSizes {
    /// Of a module that is interpreted: there is nothing to be executed.
    pub const fn interpreted(bytes: u64) -> Self {
        Self { bytes, text_start: 0, text_end: 0 }
    }
}

/// A file that the kernel sees: at which guest-virtual address, and where it lies in guest-physical memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Guest-virtual.
    pub virtual_address: u64,
    /// Guest-physical.
    pub physical_address: u64,
}

impl Place {
    /// At an address that is both.
    pub const fn identity(address: u64) -> Self {
        Self { virtual_address: address, physical_address: address }
    }

    const fn add(self, offset: u64) -> Self {
        Self { virtual_address: self.virtual_address + offset, physical_address: self.physical_address + offset }
    }
}

/// Who answers the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A VMM, outside of the machine: the doorbells have no memory behind them.
    Vmm,
    /// A monitor in ring 0: the doorbells are not mapped, so that ringing is an exception, and it has memory of its own. Memory may
    /// hold anything before it is given out, so nothing is mapped beyond the last page of a segment, and what is large gets
    /// its pages one by one ([`Space::map_fixed`]).
    Monitor,
}

/// What differs between machines.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// Who answers.
    pub owner: Owner,
    /// Read-only segments of the image.
    pub segments: &'a [Segment],
    /// Bytes of the image's writable segment.
    pub data_bytes: u64,
    /// Bytes of the configuration.
    pub config_bytes: u64,
    /// The first module.
    pub module: ModuleSizes,
    /// Bytes of the ramdisk's archive.
    pub ramdisk_bytes: u64,
    /// Guest-physical address of the module.
    pub module_at: u64,
    /// Guest-physical address of the archive.
    pub ramdisk_at: u64,
}

/// Page tables in [`PAGE_TABLES`]: how far that region is used. The rest is in memory.
#[derive(Debug, Clone)]
pub struct Space {
    next_table: u64,
}

type Mapped<E> = Result<(), MapError<TableError<E>>>;

impl Space {
    /// Of no tables: nothing can be mapped in it.
    pub const fn empty() -> Self {
        Self { next_table: PAGE_TABLES.end }
    }

    /// Maps all that a kernel finds when it is entered.
    pub fn build<M: Entries>(memory: &M, parts: &Parts<'_>) -> Result<Self, MapError<TableError<M::Error>>> {
        let mut space = Self { next_table: ROOT + PAGE_BYTES };
        memory.clear(ROOT).map_err(TableError::Memory)?;
        let pages = |bytes: u64| bytes.next_multiple_of(PAGE_BYTES);
        let identity = [
            (KERNEL_DATA.start, pages(parts.data_bytes), Access::UserReadWrite),
            (BOOT_INFO.start, BOOT_INFO.bytes(), Access::UserRead),
            (HOST_STATUS.start, HOST_STATUS.bytes(), Access::UserRead),
            (MAILBOX.start, MAILBOX_DATA.start + PAGE_BYTES - MAILBOX.start, Access::UserReadWrite),
            (RING_HEAD.start, RING_HEAD.bytes(), Access::UserReadWrite),
            (ANNOUNCED.start, ANNOUNCED.bytes(), Access::UserReadWrite),
            (CONFIG.start, pages(parts.config_bytes), Access::UserRead),
            (GDT.start, GDT.bytes(), Access::SupervisorRead),
            (IDT.start, IDT.bytes(), Access::SupervisorRead),
            (TSS.start, TSS.bytes(), Access::SupervisorRead),
            (STUBS.start, STUBS.bytes(), Access::SupervisorReadExecute),
        ];
        // Nobody but a VMM reads files ahead.
        let of_vmm = [
            (MAILBOX_DATA.start + PAGE_BYTES, MAILBOX_DATA.bytes() - PAGE_BYTES, Access::UserReadWrite),
            (RING_DATA.start, RING_DATA.bytes(), Access::UserReadWrite),
            (STACK.start, STACK.bytes(), Access::UserReadWrite),
            (READ_AHEAD.start, READ_AHEAD.bytes(), Access::UserReadWrite),
            (DOORBELL.start, DOORBELL.bytes(), Access::UserReadWrite),
            (FAULT_DOORBELL.start, FAULT_DOORBELL.bytes(), Access::SupervisorReadWrite),
            (RING0_STACK.start, RING0_STACK.bytes(), Access::SupervisorReadWrite),
        ];
        let of_monitor = [
            (MONITOR_STACK.start, MONITOR_STACK.bytes(), Access::SupervisorReadWrite),
            (MONITOR_STATE.start, MONITOR_STATE.bytes(), Access::SupervisorReadWrite),
        ];
        let of_owner: &[_] = if parts.owner == Owner::Vmm { &of_vmm } else { &of_monitor };
        for (at, bytes, access) in identity.iter().chain(of_owner) {
            space.pages(memory, Place::identity(*at), *bytes, *access)?;
        }
        for segment in parts.segments {
            match parts.owner {
                Owner::Vmm => space.map_segment(memory, segment, parts.segments)?,
                Owner::Monitor => space.pages(memory, Place::identity(segment.start), segment.bytes(), segment.access)?,
            }
        }
        if parts.owner == Owner::Monitor {
            let view = Place { virtual_address: MONITOR_VIEW.start, physical_address: BASE.start };
            space.chunks(memory, view, MONITOR_VIEW.bytes(), Access::SupervisorReadWrite)?;
        }
        if parts.owner == Owner::Vmm {
            let view = Place { virtual_address: SYSTEM_VIEW.start, physical_address: SYSTEM.start };
            space.chunks(memory, view, SYSTEM_VIEW.bytes(), Access::UserRead)?;
        }
        space.map_module(memory, Place { virtual_address: MODULE.start, physical_address: parts.module_at }, parts.module)?;
        let ramdisk = Place { virtual_address: RAMDISK.start, physical_address: parts.ramdisk_at };
        space.map_file(memory, ramdisk, parts.ramdisk_bytes, Access::UserRead)?;
        Ok(space)
    }

    /// Maps the chunk of RAM at `chunk` where `address` lies.
    pub fn map_chunk<M: Entries>(&mut self, memory: &M, address: u64, chunk: u64) -> Mapped<M::Error> {
        let place = Place { virtual_address: address / CHUNK_BYTES * CHUNK_BYTES, physical_address: chunk };
        self.chunks(memory, place, CHUNK_BYTES, Access::UserReadWrite)
    }

    /// Maps those pages of the chunk of RAM at `chunk` where `pages` are that are not mapped yet.
    pub fn map_part<M: Entries>(&mut self, memory: &M, pages: Range<u64>, chunk: u64) -> Mapped<M::Error> {
        let mapping = Mapping {
            virtual_address: pages.start,
            physical_address: chunk + pages.start % CHUNK_BYTES,
            bytes: pages.end - pages.start,
            access: Access::UserReadWrite,
        };
        paging::map_missing_pages(&mut self.writer(memory), ROOT, mapping)
    }

    /// With [`Owner::Monitor`], maps the page of `address`, zero, if it is one of those with a fixed place that wait for that: of stack,
    /// mailbox and output ring, and page tables to be read in [`SYSTEM_VIEW`]. Whether it is.
    pub fn map_fixed<M: Entries>(&mut self, memory: &M, address: u64) -> Result<bool, MapError<TableError<M::Error>>> {
        let page = address / PAGE_BYTES * PAGE_BYTES;
        if [STACK, MAILBOX_DATA, RING_DATA].iter().any(|region| region.contains(address)) {
            memory.clear(page).map_err(TableError::Memory)?;
            self.pages(memory, Place::identity(page), PAGE_BYTES, Access::UserReadWrite)?;
            return Ok(true);
        }
        let table = page.wrapping_sub(SYSTEM_VIEW.start).wrapping_add(SYSTEM.start);
        if !SYSTEM_VIEW.contains(address) || table < ROOT || table >= self.next_table {
            return Ok(false);
        }
        self.pages(memory, Place { virtual_address: page, physical_address: table }, PAGE_BYTES, Access::UserRead)?;
        Ok(true)
    }

    /// Whether `address` is mapped.
    pub fn is_mapped<M: Entries>(&self, memory: &M, address: u64) -> bool {
        paging::is_mapped(|at| memory.load(at).ok(), ROOT, address)
    }

    /// The chunk of RAM of which a page is mapped in the chunk of addresses where `address` lies; `None` if none is.
    pub fn chunk_behind<M: Entries>(&self, memory: &M, address: u64) -> Option<u64> {
        paging::chunk_behind(|at| memory.load(at).ok(), ROOT, address)
    }

    /// Maps a module: what can be executed of it so, all else to be read.
    pub fn map_module<M: Entries>(&mut self, memory: &M, at: Place, module: ModuleSizes) -> Mapped<M::Error> {
        let ModuleSizes { bytes, text_start, text_end } = module;
        for (start, end, access) in [
            (0, text_start, Access::UserRead),
            (text_start, text_end, Access::UserReadExecute),
            (text_end, bytes, Access::UserRead),
        ] {
            self.map_file(memory, at.add(start), end.saturating_sub(start), access)?;
        }
        Ok(())
    }

    /// Large pages, if nothing else lies in them. What is behind the segment in its last one is zeros, or nothing where the image
    /// is used in place: an access there ends the VM. Where the host's memory is huge pages too, the whole text costs one fault.
    fn map_segment<M: Entries>(&mut self, memory: &M, segment: &Segment, all: &[Segment]) -> Mapped<M::Error> {
        let end = segment.end.next_multiple_of(CHUNK_BYTES);
        let alone = !all.iter().any(|other| other.start != segment.start && segment.start < other.end && other.start < end);
        let place = Place::identity(segment.start);
        if segment.start.is_multiple_of(CHUNK_BYTES) && alone {
            self.chunks(memory, place, end - segment.start, segment.access)
        } else {
            self.pages(memory, place, segment.bytes(), segment.access)
        }
    }

    /// Large pages for whole chunks of a file, where it lies in such, small ones for the rest.
    fn map_file<M: Entries>(&mut self, memory: &M, at: Place, bytes: u64, access: Access) -> Mapped<M::Error> {
        let bytes = bytes.next_multiple_of(PAGE_BYTES);
        let Place { virtual_address, physical_address } = at;
        let (first, last) = if virtual_address % CHUNK_BYTES == physical_address % CHUNK_BYTES {
            let end = virtual_address + bytes;
            let first = virtual_address.next_multiple_of(CHUNK_BYTES).min(end);
            (first - virtual_address, (end / CHUNK_BYTES * CHUNK_BYTES).max(first) - virtual_address)
        } else {
            (bytes, bytes)
        };
        self.pages(memory, at, first, access)?;
        self.chunks(memory, at.add(first), last - first, access)?;
        self.pages(memory, at.add(last), bytes - last, access)
    }

    fn pages<M: Entries>(&mut self, memory: &M, at: Place, bytes: u64, access: Access) -> Mapped<M::Error> {
        let Place { virtual_address, physical_address } = at;
        paging::map_pages(&mut self.writer(memory), ROOT, Mapping { virtual_address, physical_address, bytes, access })
    }

    fn chunks<M: Entries>(&mut self, memory: &M, at: Place, bytes: u64, access: Access) -> Mapped<M::Error> {
        if bytes == 0 {
            return Ok(());
        }
        let Place { virtual_address, physical_address } = at;
        paging::map_chunks(&mut self.writer(memory), ROOT, Mapping { virtual_address, physical_address, bytes, access })
    }

    fn writer<'a, M>(&'a mut self, memory: &'a M) -> Writer<'a, M> {
        Writer { space: self, memory }
    }
}

/// The tables as the page-table code wants them.
struct Writer<'a, M> {
    space: &'a mut Space,
    memory: &'a M,
}

impl<M: Entries> TableMemory for Writer<'_, M> {
    type Error = TableError<M::Error>;

    fn load(&self, address: u64) -> Result<u64, Self::Error> {
        self.memory.load(address).map_err(TableError::Memory)
    }

    fn store(&mut self, address: u64, entry: u64) -> Result<(), Self::Error> {
        self.memory.store(address, entry).map_err(TableError::Memory)
    }

    fn allocate(&mut self) -> Result<u64, Self::Error> {
        let table = self.space.next_table;
        if table + PAGE_BYTES > PAGE_TABLES.end {
            return Err(TableError::Exhausted);
        }
        self.memory.clear(table).map_err(TableError::Memory)?;
        self.space.next_table += PAGE_BYTES;
        Ok(table)
    }
}
