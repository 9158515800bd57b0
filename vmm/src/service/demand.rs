//! Demand memory: a first touch of a demand region gets the next free chunk of RAM.

use std::{collections::BTreeMap, ops::Range};

use kvm_ioctls::VmFd;
use mote_abi::{
    boot::status_offset,
    layout::{self, BASE, CHUNK_BYTES, HEAP, HOST_STATUS, MEDIUM, POOL_NEAR},
};
use mote_machine::stub::Frame;
use vm_memory::{Bytes, GuestAddress};

use crate::{
    ending::HostFailure,
    guest_ram::GuestRam,
    slots::Slots,
    tables::{Tables, TablesError},
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
}

/// What was given to a guest when a snapshot was taken of it.
#[derive(Debug, Clone)]
pub(crate) struct DemandState {
    pub(crate) tables: Tables,
    pub(crate) next_chunk: u64,
    pub(crate) mapped: BTreeMap<u64, u64>,
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
        let service = Self { tables: state.tables.clone(), slots, mapped: state.mapped.clone() };
        service.publish(ram)?;
        Ok(service)
    }

    /// Goes back to a snapshot. Guest RAM, page tables included, is as it was then already.
    pub(crate) fn restore(&mut self, vm: &VmFd, ram: &GuestRam, state: &DemandState, remapped: bool) -> Result<(), HostFailure> {
        let machine = |error: kvm_ioctls::Error| HostFailure::Machine(error.to_string());
        if remapped || self.mapped.len() != state.mapped.len() {
            self.slots.flush(vm, ram).map_err(machine)?;
            self.mapped.clone_from(&state.mapped);
        }
        self.tables = state.tables.clone();
        self.slots.set_next_chunk(vm, ram, state.next_chunk).map_err(machine)?;
        self.publish(ram)
    }

    pub(crate) fn state(&self) -> DemandState {
        DemandState { tables: self.tables.clone(), next_chunk: self.slots.next_chunk(), mapped: self.mapped.clone() }
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

    /// Maps memory as if the guest had touched `address`, which lies in a demand region; whether there was some left.
    pub(crate) fn touch(&mut self, vm: &VmFd, ram: &GuestRam, address: u64) -> Result<bool, HostFailure> {
        let resolution = if layout::is_demand(address) { self.map(vm, ram, address)? } else { Resolution::NotDemand };
        self.publish(ram)?;
        Ok(resolution == Resolution::Mapped)
    }

    /// Maps the first chunk of both regions that every module uses, so that small modules never fault.
    pub(crate) fn new(tables: Tables, slots: Slots, vm: &VmFd, ram: &GuestRam) -> Result<Self, HostFailure> {
        let mut service = Self { tables, slots, mapped: BTreeMap::new() };
        for start in [HEAP.start, MEDIUM.start] {
            service.map(vm, ram, start)?;
        }
        service.publish(ram)?;
        Ok(service)
    }

    /// Maps memory if that is what the fault asks for.
    pub(crate) fn resolve(&mut self, vm: &VmFd, ram: &GuestRam, frame: &Frame, address: u64) -> Result<Resolution, HostFailure> {
        let demand = frame.vector == PAGE_FAULT && frame.error_code & (PRESENT | FETCH) == 0 && layout::is_demand(address);
        if !demand {
            return Ok(Resolution::NotDemand);
        }
        let resolution = self.map(vm, ram, address)?;
        self.publish(ram)?;
        Ok(resolution)
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
