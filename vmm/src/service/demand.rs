//! Demand memory: a first touch of a demand region gets the next free chunk of RAM.

use mote_abi::{
    boot::status_offset,
    layout::{self, HOST_STATUS},
};
use mote_machine::stub::Frame;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::{
    ending::HostFailure,
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

/// Maps memory if that is what the fault asks for.
pub(crate) fn resolve(memory: &GuestMemoryMmap, tables: &mut Tables, frame: &Frame, address: u64) -> Result<Resolution, HostFailure> {
    let demand = frame.vector == PAGE_FAULT && frame.error_code & (PRESENT | FETCH) == 0 && layout::is_demand(address);
    if !demand {
        return Ok(Resolution::NotDemand);
    }
    match tables.map_chunk(memory, address) {
        Ok(true) => {}
        Ok(false) => return Ok(Resolution::Exhausted),
        // The guest claims a fault where memory is: nothing that mapping could mend.
        Err(TablesError::Map(_)) => return Ok(Resolution::NotDemand),
        Err(error) => return Err(HostFailure::Machine(error.to_string())),
    }
    publish_free_chunks(memory, tables)?;
    Ok(Resolution::Mapped)
}

/// Tells the guest how much RAM is left.
pub(crate) fn publish_free_chunks(memory: &GuestMemoryMmap, tables: &Tables) -> Result<(), HostFailure> {
    let at = GuestAddress(HOST_STATUS.start + status_offset::FREE_CHUNKS);
    let stored = memory.store(tables.free_chunks(), at, std::sync::atomic::Ordering::Release);
    stored.map_err(|error| HostFailure::Machine(error.to_string()))
}
