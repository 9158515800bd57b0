//! Demand memory: a first touch of a demand region gets the next free chunk of RAM.

use std::{collections::BTreeMap, ops::Range};

use kvm_ioctls::VmFd;
use mote_abi::{
    announce::{self, Committed},
    boot::status_offset,
    layout::{self, BASE, CHUNK_BYTES, HEAP, HOST_STATUS, MEDIUM, POOL_NEAR},
};
use mote_machine::stub::Frame;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::{
    ending::HostFailure,
    guest_ram::GuestRam,
    module::PlacedModule,
    slots::Slots,
    tables::{Tables, TablesError},
    vm::VmError,
};

/// What to do about a fault.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Resolution {
    /// RAM is there now: the instruction can go on.
    Mapped,
    /// There is no RAM left.
    Exhausted,
    /// It was no demand for memory.
    NotDemand,
}

/// Page fault.
const PAGE_FAULT: u64 = 14;
/// Error code bits: the page was present; the access was an instruction fetch.
const PRESENT: u64 = 1 << 0;
const FETCH: u64 = 1 << 4;

/// The RAM of a VM with everything that gives it to the guest.
#[derive(Debug)]
pub(crate) struct DemandService {
    tables: Tables,
    slots: Slots,
    /// Chunks of the pool by the guest-virtual address where they are mapped.
    mapped: BTreeMap<u64, u64>,
    /// How often a part of a chunk was mapped, or what is mapped changed by a restore: what the processor may remember of it.
    parts: u64,
}

/// What was given to a guest when a snapshot was taken of it.
#[derive(Debug, Clone)]
pub(crate) struct DemandState {
    pub(crate) tables: Tables,
    pub(crate) next_chunk: u64,
    pub(crate) mapped: BTreeMap<u64, u64>,
    pub(crate) parts: u64,
}

/// How much more of the first part of RAM than was used a copy can use before it needs another memory slot.
const SPARE_NEAR_BYTES: u64 = 4 << 20;

impl DemandState {
    /// How large the first memory slot of a copy has to be.
    pub(crate) fn near_bytes(&self) -> u64 {
        self.next_chunk.min(POOL_NEAR.end) - BASE.start + SPARE_NEAR_BYTES
    }
}

impl DemandService {
    /// For a guest that goes on from a snapshot: its tables are in its RAM already.
    pub(crate) fn resumed(mut slots: Slots, vm: &VmFd, ram: &GuestRam, state: &DemandState) -> Result<Self, HostFailure> {
        let machine = |error: kvm_ioctls::Error| HostFailure::Machine(error.to_string());
        slots.set_next_chunk(vm, ram, state.next_chunk).map_err(machine)?;
        let service = Self { tables: state.tables.clone(), slots, mapped: state.mapped.clone(), parts: state.parts };
        service.publish(ram)?;
        Ok(service)
    }

    /// Goes back to a snapshot. Guest RAM, page tables included, is as it was then already.
    pub(crate) fn restore(&mut self, vm: &VmFd, ram: &GuestRam, state: &DemandState, remapped: bool) -> Result<(), HostFailure> {
        let machine = |error: kvm_ioctls::Error| HostFailure::Machine(error.to_string());
        if remapped || self.mapped.len() != state.mapped.len() || self.parts != state.parts {
            self.slots.flush(vm, ram).map_err(machine)?;
            self.mapped.clone_from(&state.mapped);
            self.parts = state.parts;
        }
        self.tables = state.tables.clone();
        self.slots.set_next_chunk(vm, ram, state.next_chunk).map_err(machine)?;
        self.publish(ram)
    }

    /// The modules of the guest.
    pub(crate) fn modules(&self) -> impl DoubleEndedIterator<Item = &PlacedModule> {
        self.slots.modules()
    }

    /// Gives a guest another module.
    pub(crate) fn add_module(&mut self, vm: &VmFd, ram: &GuestRam, placed: &PlacedModule) -> Result<(), VmError> {
        let mapped = self.tables.map_module(ram.memory(), placed.address, placed.module.sizes());
        mapped.map_err(|error| VmError::Machine(error.to_string()))?;
        self.parts += 1;
        self.slots.add_module(vm, placed).map_err(VmError::create("KVM_SET_USER_MEMORY_REGION"))
    }

    /// Gives it the modules that its tables have, which went back to a snapshot, and no others.
    pub(crate) fn set_modules(&mut self, vm: &VmFd, wanted: &[PlacedModule]) -> Result<(), VmError> {
        self.slots.set_modules(vm, wanted).map_err(VmError::create("KVM_SET_USER_MEMORY_REGION"))
    }

    pub(crate) fn state(&self) -> DemandState {
        DemandState {
            tables: self.tables.clone(),
            next_chunk: self.slots.next_chunk(),
            mapped: self.mapped.clone(),
            parts: self.parts,
        }
    }

    /// The parts of RAM that the guest can have touched.
    pub(crate) fn used(&self) -> [Range<u64>; 2] {
        self.slots.used()
    }

    /// The same with what it touched before it went back to a snapshot.
    pub(crate) fn kept(&self) -> [Range<u64>; 2] {
        self.slots.kept()
    }

    /// Nothing from `end` on takes memory any more.
    pub(crate) fn set_kept_end(&mut self, end: u64) {
        self.slots.set_kept_end(end);
    }

    /// Where in RAM a guest-virtual address of a demand region lies; `None` if nothing is mapped there.
    pub(crate) fn translate(&self, address: u64) -> Option<u64> {
        let chunk = address / CHUNK_BYTES * CHUNK_BYTES;
        self.mapped.get(&chunk).map(|start| start + (address - chunk))
    }

    /// Whether a first touch of `address` may get memory; until then it reads as zero.
    pub(crate) fn may_be_touched(&self, ram: &GuestRam, address: u64) -> Result<bool, HostFailure> {
        Ok(layout::is_demand(address) || committed(ram, address)?.is_some())
    }

    /// Maps memory as if the guest had touched `address`, which lies in a demand region; whether there was some left.
    pub(crate) fn touch(&mut self, vm: &VmFd, ram: &GuestRam, address: u64) -> Result<bool, HostFailure> {
        Ok(self.give(vm, ram, address)? == Resolution::Mapped)
    }

    /// Maps the first chunk of both regions that every module uses, so that small modules never fault.
    pub(crate) fn new(tables: Tables, slots: Slots, vm: &VmFd, ram: &GuestRam) -> Result<Self, HostFailure> {
        let mut service = Self { tables, slots, mapped: BTreeMap::new(), parts: 0 };
        for start in [HEAP.start, MEDIUM.start] {
            service.map(vm, ram, start)?;
        }
        service.publish(ram)?;
        Ok(service)
    }

    /// Maps memory if that is what the fault asks for.
    pub(crate) fn resolve(&mut self, vm: &VmFd, ram: &GuestRam, frame: &Frame, address: u64) -> Result<Resolution, HostFailure> {
        if frame.vector != PAGE_FAULT || frame.error_code & (PRESENT | FETCH) != 0 {
            return Ok(Resolution::NotDemand);
        }
        self.give(vm, ram, address)
    }

    /// Maps memory where `address` lies, if there is none yet; whether there is some then.
    pub(crate) fn ensure(&mut self, vm: &VmFd, ram: &GuestRam, address: u64) -> Result<bool, HostFailure> {
        Ok(self.translate(address).is_some() || self.touch(vm, ram, address)?)
    }

    /// Whether the kernel announced that all of these bytes may be touched.
    pub(crate) fn is_announced(&self, ram: &GuestRam, address: u64, bytes: u64) -> Result<bool, HostFailure> {
        Ok(committed(ram, address)?.is_some_and(|pages| pages.end - address >= bytes))
    }

    /// Maps memory where `address` lies, if there may be some.
    fn give(&mut self, vm: &VmFd, ram: &GuestRam, address: u64) -> Result<Resolution, HostFailure> {
        let resolution = if layout::is_demand(address) {
            self.map(vm, ram, address)?
        } else if let Some(pages) = committed(ram, address)? {
            self.map_committed(vm, ram, address, &pages)?
        } else {
            return Ok(Resolution::NotDemand);
        };
        self.publish(ram)?;
        Ok(resolution)
    }

    /// Maps what the kernel announced of the chunk in which `address` lies.
    fn map_committed(&mut self, vm: &VmFd, ram: &GuestRam, address: u64, pages: &Range<u64>) -> Result<Resolution, HostFailure> {
        let machine = |error: &dyn std::fmt::Display| HostFailure::Machine(error.to_string());
        let start = address / CHUNK_BYTES * CHUNK_BYTES;
        let part = pages.start.max(start)..pages.end.min(start + CHUNK_BYTES);
        let chunk = match self.mapped.get(&start) {
            Some(chunk) => *chunk,
            None if part == (start..start + CHUNK_BYTES) => return self.map(vm, ram, address),
            None => match self.slots.take_chunk(vm, ram).map_err(|error| machine(&error))? {
                Some(chunk) => chunk,
                None => return Ok(Resolution::Exhausted),
            },
        };
        self.mapped.insert(start, chunk);
        self.parts += 1;
        match self.tables.map_part(ram.memory(), part, chunk) {
            Ok(()) => Ok(Resolution::Mapped),
            Err(TablesError::Exhausted) => Ok(Resolution::Exhausted),
            Err(TablesError::Map(_)) => Ok(Resolution::NotDemand),
            Err(error) => Err(machine(&error)),
        }
    }

    fn map(&mut self, vm: &VmFd, ram: &GuestRam, address: u64) -> Result<Resolution, HostFailure> {
        let machine = |error: &dyn std::fmt::Display| HostFailure::Machine(error.to_string());
        let Some(chunk) = self.slots.take_chunk(vm, ram).map_err(|error| machine(&error))? else {
            return Ok(Resolution::Exhausted);
        };
        match self.tables.map_chunk(ram.memory(), address, chunk) {
            Ok(()) => {
                self.mapped.insert(address / CHUNK_BYTES * CHUNK_BYTES, chunk);
                Ok(Resolution::Mapped)
            }
            // Touches spread so thin that their tables take all room for tables.
            Err(TablesError::Exhausted) => Ok(Resolution::Exhausted),
            // The guest claims a fault where memory is: nothing that mapping could mend.
            Err(TablesError::Map(_)) => Ok(Resolution::NotDemand),
            Err(error) => Err(machine(&error)),
        }
    }

    /// Tells the guest how much RAM is left.
    fn publish(&self, ram: &GuestRam) -> Result<(), HostFailure> {
        let at = GuestAddress(HOST_STATUS.start + status_offset::FREE_CHUNKS);
        let stored = ram.memory().store(self.slots.free_chunks(), at, std::sync::atomic::Ordering::Release);
        stored.map_err(|error| HostFailure::Machine(error.to_string()))
    }
}

/// Maps a chunk where it was mapped when a snapshot was taken, as far as the kernel has announced that.
pub(crate) fn map_again(tables: &mut Tables, ram: &GuestRam, address: u64, chunk: u64) -> Result<(), TablesError> {
    if layout::is_demand(address) {
        return tables.map_chunk(ram.memory(), address, chunk);
    }
    let whole = address..address + CHUNK_BYTES;
    match announced(ram, address)? {
        Some(pages) if pages.start <= whole.start && whole.end <= pages.end => tables.map_chunk(ram.memory(), address, chunk),
        Some(pages) if pages.start < whole.end && whole.start < pages.end => {
            tables.map_part(ram.memory(), pages.start.max(whole.start)..pages.end.min(whole.end), chunk)
        }
        _ => Ok(()),
    }
}

/// The pages that the kernel announced of the slot of address space in which `address` lies, if that is one of them.
fn committed(ram: &GuestRam, address: u64) -> Result<Option<Range<u64>>, HostFailure> {
    let announced = announced(ram, address).map_err(|error| HostFailure::Machine(error.to_string()))?;
    Ok(announced.filter(|pages| pages.contains(&address)))
}

/// The pages that the kernel announced of the slot of address space in which `address` lies; `None` for none, and for an address
/// outside of [`layout::LINEAR`].
fn announced(ram: &GuestRam, address: u64) -> Result<Option<Range<u64>>, GuestMemoryError> {
    let Some(at) = announce::committed_at(address) else { return Ok(None) };
    let [start, end] = ram.memory().read_obj(GuestAddress(at))?;
    Ok(Committed { start, end }.pages(address))
}

#[cfg(test)]
mod tests;
