//! Linear memory of a guest, read and written by the host.
//!
//! The guest says where its memory lies; that is an allegation, but one that can do no harm: whatever it says, only RAM of
//! this VM is reached, and only through the mappings that the host itself made.

use mote_abi::{hypercall::LinearMemory, layout::CHUNK_BYTES};

use crate::machine::Machine;

use super::error::AccessError;

/// Reads `to.len()` bytes from `offset` on.
pub(super) fn read(machine: &Machine, memory: LinearMemory, offset: u64, to: &mut [u8]) -> Result<(), AccessError> {
    let mut address = first_address(memory, offset, to.len())?;
    let mut left = to;
    while !left.is_empty() {
        let (now, later) = left.split_at_mut(in_one_chunk(address, left.len()));
        match machine.demand.translate(address) {
            Some(at) => machine.ram.read_pool(at, now).map_err(|error| unreachable(&error))?,
            // Nobody has touched it yet.
            None if machine.demand.may_be_touched(&machine.ram, address).map_err(|error| unreachable(&error))? => now.fill(0),
            None => return Err(unreachable(&"it is no memory of the guest")),
        }
        address = address.saturating_add(now.len() as u64);
        left = later;
    }
    Ok(())
}

/// Writes `from` from `offset` on.
pub(super) fn write(machine: &mut Machine, memory: LinearMemory, offset: u64, from: &[u8]) -> Result<(), AccessError> {
    let mut address = first_address(memory, offset, from.len())?;
    let mut left = from;
    while !left.is_empty() {
        let (now, later) = left.split_at(in_one_chunk(address, left.len()));
        let at = machine.demand.touch(&machine.vm, &machine.ram, address).map_err(|error| unreachable(&error))?;
        let at = at.ok_or_else(|| unreachable(&"guest RAM is exhausted, or it is no memory of the guest"))?;
        machine.ram.write_pool(at, now).map_err(|error| unreachable(&error))?;
        address = address.saturating_add(now.len() as u64);
        left = later;
    }
    Ok(())
}

/// The guest-virtual address of `bytes` bytes at `offset`.
fn first_address(memory: LinearMemory, offset: u64, bytes: usize) -> Result<u64, AccessError> {
    let bytes = bytes as u64;
    let inside = offset.checked_add(bytes).is_some_and(|end| end <= memory.bytes);
    if !inside {
        return Err(AccessError::OutOfBounds { offset, bytes, memory_bytes: memory.bytes });
    }
    let address = memory.address.checked_add(offset).filter(|address| address.checked_add(bytes).is_some());
    address.ok_or_else(|| unreachable(&"it is no memory of the guest"))
}

/// How many of `bytes` bytes from `address` on lie in the chunk in which the first one does.
fn in_one_chunk(address: u64, bytes: usize) -> usize {
    let room = CHUNK_BYTES - address % CHUNK_BYTES;
    usize::try_from(room).unwrap_or(usize::MAX).min(bytes)
}

fn unreachable(error: &dyn std::fmt::Display) -> AccessError {
    AccessError::Unreachable(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_range_overflows(address: u64, bytes: u64, offset: u64, length in 0usize..1 << 40) {
            match first_address(LinearMemory { address, bytes }, offset, length) {
                Ok(first) => prop_assert!(first >= address && first.checked_add(length as u64).is_some() && offset + length as u64 <= bytes),
                Err(AccessError::OutOfBounds { .. }) => prop_assert!(offset.checked_add(length as u64).is_none_or(|end| end > bytes)),
                Err(_) => prop_assert!(u128::from(address) + u128::from(offset) + length as u128 > u128::from(u64::MAX)),
            }
        }

        #[test]
        fn pieces_do_not_cross_chunks(address: u64, bytes in 1usize..1 << 30) {
            let piece = in_one_chunk(address, bytes) as u64;
            prop_assert!(piece > 0 && piece <= bytes as u64 && address % CHUNK_BYTES + piece <= CHUNK_BYTES);
        }
    }
}
