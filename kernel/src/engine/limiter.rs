//! Keeps linear memories and tables within guest RAM, so that growing fails as WebAssembly says and never by a fault.

use alloc::{format, string::String};
use core::fmt;

use mote_abi::layout::CHUNK_BYTES;

use super::backend::{self, TABLE_ELEMENT_BYTES};
use crate::guest::{self, BootInfo};

/// Decides over each growth.
#[derive(Debug)]
pub(crate) struct Limiter {
    max_memory_bytes: u64,
    max_table_elements: u64,
    max_instances: usize,
    ram_bytes: u64,
    /// Free RAM before there was any memory or table.
    first_free_bytes: u64,
    /// Bytes that all linear memories together have.
    memory_bytes: u64,
    /// Elements that all tables together have.
    table_elements: u64,
    /// RAM that memories and tables may come to use, in the units in which it is given.
    committed_bytes: u64,
    /// What the last growth that was granted added.
    last_growth_bytes: u64,
    /// The RAM that was counted for it.
    last_committed_bytes: u64,
    /// The last growth that was denied.
    denied: Option<Denied>,
}

#[derive(Debug)]
struct Denied {
    what: &'static str,
    bytes: u64,
    allowed_bytes: u64,
    of: Bound,
}

/// What a growth is held against.
#[derive(Debug, Clone, Copy)]
enum Bound {
    Ram,
    MaxWasmMemory,
    MaxTableElements,
}

impl Limiter {
    pub(crate) fn new(boot: BootInfo) -> Self {
        Self {
            max_memory_bytes: boot.max_wasm_memory_bytes(),
            max_table_elements: boot.max_table_elements(),
            max_instances: boot.max_instances() as usize,
            ram_bytes: boot.ram_bytes(),
            first_free_bytes: guest::free_ram_bytes(),
            memory_bytes: 0,
            table_elements: 0,
            committed_bytes: 0,
            last_growth_bytes: 0,
            last_committed_bytes: 0,
            denied: None,
        }
    }

    /// The last growth that was denied, for people.
    pub(crate) fn denied(&self) -> Option<String> {
        self.denied.as_ref().map(|Denied { what, bytes, allowed_bytes, of }| {
            let (ram_bytes, max_bytes) = (self.ram_bytes, self.max_memory_bytes);
            match of {
                Bound::Ram => format!("its {what} of {bytes} bytes do not fit: {allowed_bytes} of {ram_bytes} bytes of guest RAM are left for them"),
                Bound::MaxWasmMemory => format!("its {what} of {bytes} bytes do not fit: {allowed_bytes} of the {max_bytes} bytes of --max-wasm-memory are left"),
                Bound::MaxTableElements => format!("its {what} of {bytes} elements do not fit: {allowed_bytes} of {} elements that tables may have are left", self.max_table_elements),
            }
        })
    }

    /// Whether a memory may grow from `current` to `desired` bytes.
    pub(super) fn grow_memory(&mut self, current: usize, desired: usize) -> bool {
        let (current, desired) = (current as u64, desired as u64);
        let max_bytes = self.max_memory_bytes.saturating_sub(self.memory_bytes);
        let granted = self.decide("linear memories", current, desired, max_bytes);
        if granted {
            self.last_growth_bytes = desired.saturating_sub(current);
            self.memory_bytes += self.last_growth_bytes;
        }
        granted
    }

    /// The growth that was granted last did not happen.
    pub(super) fn take_memory_back(&mut self, error: &dyn fmt::Display) {
        log::debug!("a linear memory could not grow: {error}");
        self.memory_bytes -= self.last_growth_bytes;
        self.committed_bytes -= self.last_committed_bytes;
        (self.last_growth_bytes, self.last_committed_bytes) = (0, 0);
    }

    /// Whether a table may grow from `current` to `desired` elements.
    pub(super) fn grow_table(&mut self, current: usize, desired: usize) -> bool {
        let elements = (desired as u64).saturating_sub(current as u64);
        let allowed = self.max_table_elements.saturating_sub(self.table_elements);
        if elements > allowed {
            self.denied = Some(Denied { what: "tables", bytes: elements, allowed_bytes: allowed, of: Bound::MaxTableElements });
            return false;
        }
        let bytes = |elements: usize| (elements as u64).saturating_mul(TABLE_ELEMENT_BYTES);
        let granted = self.decide("tables", bytes(current), bytes(desired), u64::MAX);
        if granted {
            self.table_elements += elements;
        }
        granted
    }

    pub(super) fn max_instances(&self) -> usize {
        self.max_instances
    }

    /// Bytes that a memory or table may still grow by. What was granted but not touched yet is counted as used, and a
    /// reserve is kept that the engine itself needs, to translate functions and to keep its stack.
    fn growable_bytes(&self) -> u64 {
        let reserve = (self.ram_bytes / 16).max(2 * CHUNK_BYTES);
        let uncommitted = self.first_free_bytes.saturating_sub(self.committed_bytes);
        uncommitted.min(guest::free_ram_bytes()).saturating_sub(reserve)
    }

    /// Grants or denies a growth from `current` to `desired` bytes.
    fn decide(&mut self, what: &'static str, current: u64, desired: u64, max_bytes: u64) -> bool {
        let bytes = desired.saturating_sub(current);
        // A memory that outgrows its address space moves, and what it had stays used.
        let kept = if backend::MOVES_BEYOND_BYTES.is_some_and(|bytes| desired > bytes) { 0 } else { in_chunks(current) };
        let ram_bytes = in_chunks(desired).saturating_sub(kept);
        let growable_bytes = self.growable_bytes();
        let refusal = if bytes > max_bytes {
            Some((max_bytes, Bound::MaxWasmMemory))
        } else if ram_bytes > growable_bytes {
            Some((growable_bytes, Bound::Ram))
        } else {
            None
        };
        if let Some((allowed_bytes, of)) = refusal {
            log::debug!("{what}: growth by {bytes} bytes denied, {allowed_bytes} bytes are left");
            self.denied = Some(Denied { what, bytes, allowed_bytes, of });
            return false;
        }
        self.committed_bytes += ram_bytes;
        self.last_committed_bytes = ram_bytes;
        true
    }
}

/// RAM that a memory of `bytes` bytes can come to use.
fn in_chunks(bytes: u64) -> u64 {
    if bytes == 0 || (bytes < CHUNK_BYTES && backend::SMALL_MEMORIES_SHARE_CHUNKS) {
        bytes
    } else {
        bytes.checked_next_multiple_of(CHUNK_BYTES).unwrap_or(u64::MAX)
    }
}
