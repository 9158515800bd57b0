//! Writes what the machine consists of into guest memory: page tables, descriptor tables, stubs.
//!
//! Also the only place that ever adds a mapping later: [`Tables::map_chunk`].

use std::ops::Range;

use mote_abi::layout::{GDT, IDT, MODULE, RAMDISK, RING0_STACK, STUBS, TSS};
pub(crate) use mote_machine::space::{ModuleSizes, ROOT};
use mote_machine::{
    descriptor,
    paging::MapError,
    space::{Entries, Owner, Parts, Place, Space, TableError},
    stub,
};
use thiserror::Error;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};
use zerocopy::IntoBytes;

use crate::image::KernelImage;

/// The machine could not be written into guest memory: a mistake in this crate, or in the address map.
#[derive(Debug, Error)]
pub(crate) enum TablesError {
    #[error("guest memory: {0}")]
    Memory(#[from] GuestMemoryError),
    #[error("no room for another page table")]
    Exhausted,
    #[error("{0}")]
    Map(MapError<TableError<GuestMemoryError>>),
}

impl From<MapError<TableError<GuestMemoryError>>> for TablesError {
    fn from(error: MapError<TableError<GuestMemoryError>>) -> Self {
        match error {
            MapError::Memory(TableError::Memory(error)) => Self::Memory(error),
            MapError::Memory(TableError::Exhausted) => Self::Exhausted,
            other => Self::Map(other),
        }
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
pub(crate) struct Tables(Space);

impl Tables {
    /// Writes everything for a VM with this image and files of these sizes.
    pub(crate) fn build(memory: &GuestMemoryMmap, image: &KernelImage, sizes: &Sizes) -> Result<Self, TablesError> {
        memory.write_slice(descriptor::gdt().as_bytes(), GuestAddress(GDT.start))?;
        memory.write_slice(descriptor::idt().as_bytes(), GuestAddress(IDT.start))?;
        memory.write_slice(&descriptor::tss(RING0_STACK.end), GuestAddress(TSS.start))?;
        memory.write_slice(&stub::code(), GuestAddress(STUBS.start))?;
        let segments: Vec<_> = image.segments().iter().map(|segment| segment.pages()).collect();
        let parts = Parts {
            owner: Owner::Vmm,
            segments: &segments,
            data_bytes: image.data_bytes(),
            config_bytes: sizes.config_bytes,
            module: sizes.module,
            ramdisk_bytes: sizes.ramdisk_bytes,
            module_at: MODULE.start,
            ramdisk_at: RAMDISK.start,
        };
        Ok(Self(Space::build(&Memory(memory), &parts)?))
    }

    /// Maps the chunk of RAM at `chunk` where `address` lies.
    pub(crate) fn map_chunk(&mut self, memory: &GuestMemoryMmap, address: u64, chunk: u64) -> Result<(), TablesError> {
        Ok(self.0.map_chunk(&Memory(memory), address, chunk)?)
    }

    /// Maps a module that lies at `at`.
    pub(crate) fn map_module(&mut self, memory: &GuestMemoryMmap, at: u64, module: ModuleSizes) -> Result<(), TablesError> {
        Ok(self.0.map_module(&Memory(memory), Place::identity(at), module)?)
    }

    /// Maps those pages of the chunk of RAM at `chunk` where `pages` are that are not mapped yet.
    pub(crate) fn map_part(&mut self, memory: &GuestMemoryMmap, pages: Range<u64>, chunk: u64) -> Result<(), TablesError> {
        Ok(self.0.map_part(&Memory(memory), pages, chunk)?)
    }
}

/// Guest memory as the page-table code wants it.
struct Memory<'a>(&'a GuestMemoryMmap);

impl Entries for Memory<'_> {
    type Error = GuestMemoryError;

    fn load(&self, address: u64) -> Result<u64, GuestMemoryError> {
        self.0.read_obj(GuestAddress(address))
    }

    fn store(&self, address: u64, entry: u64) -> Result<(), GuestMemoryError> {
        self.0.write_obj(entry, GuestAddress(address))
    }
}
