//! Writes what the machine consists of into guest memory: page tables, descriptor tables, stubs.
//!
//! Also the only place that ever adds a mapping later: [`Tables::map_chunk`].

use std::ops::Range;

use mote_abi::layout::{
    ANNOUNCED, BOOT_INFO, CHUNK_BYTES, CONFIG, DOORBELL, FAULT_DOORBELL, GDT, HOST_STATUS, IDT, KERNEL_DATA, MAILBOX, MODULE,
    PAGE_BYTES, PAGE_TABLES, RAMDISK, READ_AHEAD, RING_DATA, RING_HEAD, RING0_STACK, STACK, STUBS, SYSTEM, SYSTEM_VIEW, TSS,
};
use mote_machine::{
    descriptor,
    paging::{self, Access, MapError, TableMemory},
    stub,
};
use thiserror::Error;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};
use zerocopy::IntoBytes;

use crate::image::{KernelImage, Segment};

/// The machine could not be written into guest memory: a mistake in this crate, or in the address map.
#[derive(Debug, Error)]
pub(crate) enum TablesError {
    #[error("guest memory: {0}")]
    Memory(#[from] GuestMemoryError),
    #[error("no room for another page table")]
    Exhausted,
    #[error("{0}")]
    Map(MapError<TableError>),
}

#[derive(Debug, Error)]
pub(crate) enum TableError {
    #[error("guest memory: {0}")]
    Memory(#[from] GuestMemoryError),
    #[error("no room for another page table")]
    Exhausted,
}

impl From<MapError<TableError>> for TablesError {
    fn from(error: MapError<TableError>) -> Self {
        match error {
            MapError::Memory(TableError::Memory(error)) => Self::Memory(error),
            MapError::Memory(TableError::Exhausted) => Self::Exhausted,
            other => Self::Map(other),
        }
    }
}

/// How large a module is, and where in it lies what can be executed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ModuleSizes {
    pub(crate) bytes: u64,
    /// Offsets from its start, in whole pages; empty for a module that is interpreted.
    pub(crate) text_start: u64,
    pub(crate) text_end: u64,
}

impl ModuleSizes {
    /// Of a module that is interpreted: there is nothing to be executed.
    pub(crate) fn interpreted(bytes: u64) -> Self {
        Self { bytes, text_start: 0, text_end: 0 }
    }
}

/// How large the parts are that differ between VMs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) module: ModuleSizes,
    pub(crate) ramdisk_bytes: u64,
    pub(crate) config_bytes: u64,
}

/// The page tables of one VM: what the host knows of them beside what lies in guest memory.
#[derive(Debug, Clone)]
pub(crate) struct Tables {
    next_table: u64,
}

/// Guest-physical address of the root table.
pub(crate) const ROOT: u64 = PAGE_TABLES.start;

impl Tables {
    /// Writes everything for a VM with this image and files of these sizes.
    pub(crate) fn build(memory: &GuestMemoryMmap, image: &KernelImage, sizes: &Sizes) -> Result<Self, TablesError> {
        write_descriptors(memory)?;
        let mut tables = Self { next_table: ROOT + PAGE_BYTES };
        let pages = |bytes: u64| bytes.next_multiple_of(PAGE_BYTES);
        let identity = [
            (KERNEL_DATA.start, pages(image.data_bytes()), Access::UserReadWrite),
            (BOOT_INFO.start, BOOT_INFO.bytes(), Access::UserRead),
            (HOST_STATUS.start, HOST_STATUS.bytes(), Access::UserRead),
            (MAILBOX.start, MAILBOX.bytes(), Access::UserReadWrite),
            (RING_HEAD.start, RING_HEAD.bytes(), Access::UserReadWrite),
            (RING_DATA.start, RING_DATA.bytes(), Access::UserReadWrite),
            (STACK.start, STACK.bytes(), Access::UserReadWrite),
            (ANNOUNCED.start, ANNOUNCED.bytes(), Access::UserReadWrite),
            (CONFIG.start, pages(sizes.config_bytes), Access::UserRead),
            (READ_AHEAD.start, READ_AHEAD.bytes(), Access::UserReadWrite),
            (DOORBELL.start, DOORBELL.bytes(), Access::UserReadWrite),
            (FAULT_DOORBELL.start, FAULT_DOORBELL.bytes(), Access::SupervisorReadWrite),
            (GDT.start, GDT.bytes(), Access::SupervisorRead),
            (IDT.start, IDT.bytes(), Access::SupervisorRead),
            (TSS.start, TSS.bytes(), Access::SupervisorRead),
            (STUBS.start, STUBS.bytes(), Access::SupervisorReadExecute),
            (RING0_STACK.start, RING0_STACK.bytes(), Access::SupervisorReadWrite),
        ];
        for (at, bytes, access) in identity {
            tables.pages(memory, at, bytes, access)?;
        }
        for segment in image.segments() {
            tables.map_segment(memory, segment, image.segments())?;
        }
        let view = paging::Mapping {
            virtual_address: SYSTEM_VIEW.start,
            physical_address: SYSTEM.start,
            bytes: SYSTEM_VIEW.bytes(),
            access: Access::UserRead,
        };
        paging::map_chunks(&mut Writer { tables: &mut tables, memory }, ROOT, view)?;
        tables.map_module(memory, MODULE.start, sizes.module)?;
        tables.map_file(memory, RAMDISK.start, sizes.ramdisk_bytes, Access::UserRead)?;
        Ok(tables)
    }

    /// Maps the chunk of RAM at `chunk` where `address` lies.
    pub(crate) fn map_chunk(&mut self, memory: &GuestMemoryMmap, address: u64, chunk: u64) -> Result<(), TablesError> {
        let mapping = paging::Mapping {
            virtual_address: address / CHUNK_BYTES * CHUNK_BYTES,
            physical_address: chunk,
            bytes: CHUNK_BYTES,
            access: Access::UserReadWrite,
        };
        Ok(paging::map_chunks(&mut Writer { tables: self, memory }, ROOT, mapping)?)
    }

    /// Large pages, if nothing else lies in them. What is behind the segment in its last one is zeros, or nothing where the image
    /// is used in place: an access there ends the VM. Where the host's memory is huge pages too, the whole text costs one fault.
    fn map_segment(&mut self, memory: &GuestMemoryMmap, segment: &Segment, all: &[Segment]) -> Result<(), TablesError> {
        let end = segment.end.next_multiple_of(CHUNK_BYTES);
        let alone = !all.iter().any(|other| other.start != segment.start && segment.start < other.end && other.start < end);
        if !segment.start.is_multiple_of(CHUNK_BYTES) || !alone {
            return self.pages(memory, segment.start, segment.bytes(), segment.access);
        }
        let mapping = paging::Mapping {
            virtual_address: segment.start,
            physical_address: segment.start,
            bytes: end - segment.start,
            access: segment.access,
        };
        Ok(paging::map_chunks(&mut Writer { tables: self, memory }, ROOT, mapping)?)
    }

    /// Maps a module that lies at `at`: what can be executed of it so, all else to be read.
    pub(crate) fn map_module(&mut self, memory: &GuestMemoryMmap, at: u64, module: ModuleSizes) -> Result<(), TablesError> {
        let ModuleSizes { bytes, text_start, text_end } = module;
        for (start, end, access) in [
            (0, text_start, Access::UserRead),
            (text_start, text_end, Access::UserReadExecute),
            (text_end, bytes, Access::UserRead),
        ] {
            self.map_file(memory, at + start, end.saturating_sub(start), access)?;
        }
        Ok(())
    }

    /// Large pages for the whole chunks of a file that is shared between VMs, small ones for the rest.
    fn map_file(&mut self, memory: &GuestMemoryMmap, at: u64, bytes: u64, access: Access) -> Result<(), TablesError> {
        let end = at + bytes.next_multiple_of(PAGE_BYTES);
        let first_chunk = at.next_multiple_of(CHUNK_BYTES).min(end);
        let last_chunk = (end / CHUNK_BYTES * CHUNK_BYTES).max(first_chunk);
        self.pages(memory, at, first_chunk - at, access)?;
        if first_chunk < last_chunk {
            let bytes = last_chunk - first_chunk;
            let mapping = paging::Mapping { virtual_address: first_chunk, physical_address: first_chunk, bytes, access };
            paging::map_chunks(&mut Writer { tables: self, memory }, ROOT, mapping)?;
        }
        self.pages(memory, last_chunk, end - last_chunk, access)
    }

    /// Maps those pages of the chunk of RAM at `chunk` where `pages` are that are not mapped yet.
    pub(crate) fn map_part(&mut self, memory: &GuestMemoryMmap, pages: Range<u64>, chunk: u64) -> Result<(), TablesError> {
        let mapping = paging::Mapping {
            virtual_address: pages.start,
            physical_address: chunk + pages.start % CHUNK_BYTES,
            bytes: pages.end - pages.start,
            access: Access::UserReadWrite,
        };
        Ok(paging::map_missing_pages(&mut Writer { tables: self, memory }, ROOT, mapping)?)
    }

    fn pages(&mut self, memory: &GuestMemoryMmap, at: u64, bytes: u64, access: Access) -> Result<(), TablesError> {
        let mapping = paging::Mapping { virtual_address: at, physical_address: at, bytes, access };
        Ok(paging::map_pages(&mut Writer { tables: self, memory }, ROOT, mapping)?)
    }
}

fn write_descriptors(memory: &GuestMemoryMmap) -> Result<(), TablesError> {
    memory.write_slice(descriptor::gdt().as_bytes(), GuestAddress(GDT.start))?;
    memory.write_slice(descriptor::idt().as_bytes(), GuestAddress(IDT.start))?;
    memory.write_slice(&descriptor::tss(), GuestAddress(TSS.start))?;
    memory.write_slice(&stub::code(), GuestAddress(STUBS.start))?;
    Ok(())
}

/// The tables as the page-table code wants them.
struct Writer<'a> {
    tables: &'a mut Tables,
    memory: &'a GuestMemoryMmap,
}

impl TableMemory for Writer<'_> {
    type Error = TableError;

    fn load(&self, address: u64) -> Result<u64, TableError> {
        Ok(self.memory.read_obj(GuestAddress(address))?)
    }

    fn store(&mut self, address: u64, entry: u64) -> Result<(), TableError> {
        Ok(self.memory.write_obj(entry, GuestAddress(address))?)
    }

    fn allocate(&mut self) -> Result<u64, TableError> {
        let table = self.tables.next_table;
        if table + PAGE_BYTES > PAGE_TABLES.end {
            return Err(TableError::Exhausted);
        }
        self.tables.next_table += PAGE_BYTES;
        Ok(table)
    }
}
