//! Keeps linear memories and tables within guest RAM, so that growing fails as WebAssembly says and never by a fault.

use alloc::{format, string::String};

use mote_abi::layout::CHUNK_BYTES;
use wasmi::{ResourceLimiter, errors::MemoryError};
use wasmi_core::LimiterError;

use crate::guest::{self, BootInfo};

/// Bytes of a table element in the interpreter.
const ELEMENT_BYTES: u64 = 8;

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
        let ram_bytes = in_chunks(desired).saturating_sub(in_chunks(current));
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
        true
    }
}

/// RAM that a memory of `bytes` bytes can come to use.
fn in_chunks(bytes: u64) -> u64 {
    if bytes < CHUNK_BYTES { bytes } else { bytes.checked_next_multiple_of(CHUNK_BYTES).unwrap_or(u64::MAX) }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> Result<bool, LimiterError> {
        let (current, desired) = (current as u64, desired as u64);
        let max_bytes = self.max_memory_bytes.saturating_sub(self.memory_bytes);
        let granted = self.decide("linear memories", current, desired, max_bytes);
        if granted {
            self.last_growth_bytes = desired.saturating_sub(current);
            self.memory_bytes += self.last_growth_bytes;
        }
        Ok(granted)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> Result<bool, LimiterError> {
        let elements = (desired as u64).saturating_sub(current as u64);
        let allowed = self.max_table_elements.saturating_sub(self.table_elements);
        if elements > allowed {
            self.denied = Some(Denied { what: "tables", bytes: elements, allowed_bytes: allowed, of: Bound::MaxTableElements });
            return Ok(false);
        }
        let bytes = |elements: usize| (elements as u64).saturating_mul(ELEMENT_BYTES);
        let granted = self.decide("tables", bytes(current), bytes(desired), u64::MAX);
        if granted {
            self.table_elements += elements;
        }
        Ok(granted)
    }

    fn memory_grow_failed(&mut self, error: &MemoryError) -> Result<(), LimiterError> {
        log::debug!("a linear memory could not grow: {error}");
        self.memory_bytes -= self.last_growth_bytes;
        self.last_growth_bytes = 0;
        Ok(())
    }

    fn instances(&self) -> usize {
        self.max_instances
    }

    fn tables(&self) -> usize {
        usize::MAX
    }

    fn memories(&self) -> usize {
        usize::MAX
    }
}
