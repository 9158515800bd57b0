//! Memory that nobody touched yet, told by the page tables: it is zero, and costs no RAM as long as nobody writes to it.
//!
//! The interpreter fills each new linear memory with zeros. Without this every memory would be touched whole at once.

use core::ptr;

use mote_abi::layout::{CHUNK_BYTES, LARGE, PAGE_TABLES, SYSTEM, SYSTEM_VIEW};
use mote_machine::paging;

/// The parts of the range that have to be written to be zero, as address and length: all but the whole or partial chunks
/// of the large region that are not mapped.
pub(super) fn for_each_touched(start: u64, bytes: u64, mut write: impl FnMut(u64, u64)) {
    if !LARGE.contains_range(start, bytes) {
        return write(start, bytes);
    }
    let end = start + bytes;
    let mut at = start;
    while at < end {
        let next = (at / CHUNK_BYTES + 1) * CHUNK_BYTES;
        let part_end = next.min(end);
        if paging::is_mapped(load_entry, PAGE_TABLES.start, at) {
            write(at, part_end - at);
        }
        at = part_end;
    }
}

/// The page-table entry at a guest-physical address.
fn load_entry(address: u64) -> Option<u64> {
    if !SYSTEM.contains_range(address, 8) || !address.is_multiple_of(8) {
        return None;
    }
    let view = SYSTEM_VIEW.start + (address - SYSTEM.start);
    // SAFETY: the system area is mapped read-only at SYSTEM_VIEW, and the entry was checked to lie in it, aligned. The
    // host may add entries at any time, so the load is volatile.
    Some(unsafe { ptr::read_volatile(view as *const u64) })
}
