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
    /// How often the tables were changed: what the processor may remember of them is right for one number only.
    changes: u64,
}

/// What was given to a guest when a snapshot was taken of it.
#[derive(Debug, Clone)]
pub(crate) struct DemandState {
    pub(crate) tables: Tables,
    pub(crate) next_chunk: u64,
    pub(crate) mapped: BTreeMap<u64, u64>,
    pub(crate) changes: u64,
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
        let service = Self { tables: state.tables.clone(), slots, mapped: state.mapped.clone(), changes: state.changes };
        service.publish(ram)?;
        Ok(service)
    }

    /// Goes back to a snapshot. Guest RAM, page tables included, is as it was then already.
    pub(crate) fn restore(&mut self, vm: &VmFd, ram: &GuestRam, state: &DemandState, remapped: bool) -> Result<(), HostFailure> {
        let machine = |error: kvm_ioctls::Error| HostFailure::Machine(error.to_string());
        if remapped || self.changes != state.changes {
            self.slots.flush(vm, ram).map_err(machine)?;
            self.mapped.clone_from(&state.mapped);
            self.changes = state.changes;
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
        // The slot first: where tables have a part of it, no other module may come to be.
        self.slots.add_module(vm, placed).map_err(VmError::create("KVM_SET_USER_MEMORY_REGION"))?;
        self.changes += 1;
        let mapped = self.tables.map_module(ram.memory(), placed.address, placed.module.sizes());
        mapped.map_err(|error| VmError::Machine(error.to_string()))
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
            changes: self.changes,
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
        let offset = address % CHUNK_BYTES;
        self.mapped.get(&(address - offset)).map(|start| start + offset)
    }

    /// Whether a first touch of `address` may get memory; until then it reads as zero.
    pub(crate) fn may_be_touched(&self, ram: &GuestRam, address: u64) -> Result<bool, HostFailure> {
        Ok(layout::is_demand(address) || committed(ram, address)?.is_some())
    }

    /// Where in RAM an address lies, which gets some as if the guest had touched it; `None` if none is left, or may be there.
    pub(crate) fn touch(&mut self, vm: &VmFd, ram: &GuestRam, address: u64) -> Result<Option<u64>, HostFailure> {
        let has_some = self.translate(address).is_some() || self.give(vm, ram, address)? == Resolution::Mapped;
        Ok(self.translate(address).filter(|_| has_some))
    }

    /// Maps the first chunk of both regions that every module uses, so that small modules never fault.
    pub(crate) fn new(tables: Tables, slots: Slots, vm: &VmFd, ram: &GuestRam) -> Result<Self, HostFailure> {
        let mut service = Self { tables, slots, mapped: BTreeMap::new(), changes: 0 };
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
        let whole = chunk_of(address);
        let part = common(pages, &whole);
        let chunk = match self.mapped.get(&whole.start) {
            Some(chunk) => *chunk,
            None if part == whole => return self.map(vm, ram, address),
            None => match self.take_chunk(vm, ram)? {
                Some(chunk) => chunk,
                None => return Ok(Resolution::Exhausted),
            },
        };
        self.mapped.insert(whole.start, chunk);
        self.changes += 1;
        resolution(self.tables.map_part(ram.memory(), part, chunk))
    }

    fn map(&mut self, vm: &VmFd, ram: &GuestRam, address: u64) -> Result<Resolution, HostFailure> {
        let Some(chunk) = self.take_chunk(vm, ram)? else { return Ok(Resolution::Exhausted) };
        self.changes += 1;
        let mapped = self.tables.map_chunk(ram.memory(), address, chunk);
        if mapped.is_ok() {
            self.mapped.insert(chunk_of(address).start, chunk);
        }
        resolution(mapped)
    }

    fn take_chunk(&mut self, vm: &VmFd, ram: &GuestRam) -> Result<Option<u64>, HostFailure> {
        self.slots.take_chunk(vm, ram).map_err(|error| HostFailure::Machine(error.to_string()))
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
    let Some(pages) = announced(ram, address)? else { return Ok(()) };
    let whole = chunk_of(address);
    let part = common(&pages, &whole);
    if part == whole {
        tables.map_chunk(ram.memory(), address, chunk)
    } else if part.is_empty() {
        Ok(())
    } else {
        tables.map_part(ram.memory(), part, chunk)
    }
}

/// The addresses of the chunk in which `address` lies.
fn chunk_of(address: u64) -> Range<u64> {
    let start = address / CHUNK_BYTES * CHUNK_BYTES;
    start..start + CHUNK_BYTES
}

/// What lies in both.
fn common(one: &Range<u64>, other: &Range<u64>) -> Range<u64> {
    one.start.max(other.start)..one.end.min(other.end)
}

/// What an attempt to map memory comes to.
fn resolution(mapped: Result<(), TablesError>) -> Result<Resolution, HostFailure> {
    match mapped {
        Ok(()) => Ok(Resolution::Mapped),
        // Touches spread so thin that their tables take all room for tables.
        Err(TablesError::Exhausted) => Ok(Resolution::Exhausted),
        // The guest claims a fault where memory is: nothing that mapping could mend.
        Err(TablesError::Map(_)) => Ok(Resolution::NotDemand),
        Err(error) => Err(HostFailure::Machine(error.to_string())),
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
