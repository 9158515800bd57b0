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
    ram_bytes: u64,
    /// Free RAM before there was any memory or table.
    first_free_bytes: u64,
    /// Bytes that all linear memories together have, touched or not.
    memory_bytes: u64,
    /// The same of tables.
    table_bytes: u64,
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
}

impl Limiter {
    pub(crate) fn new(boot: BootInfo) -> Self {
        Self {
            max_memory_bytes: boot.max_wasm_memory_bytes(),
            ram_bytes: boot.ram_bytes(),
            first_free_bytes: guest::free_ram_bytes(),
            memory_bytes: 0,
            table_bytes: 0,
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
            }
        })
    }

    /// Bytes that a memory or table may still grow by. What was granted but not touched yet is counted as used, and a
    /// reserve is kept that the engine itself needs, to translate functions and to keep its stack.
    fn growable_bytes(&self) -> u64 {
        let reserve = (self.ram_bytes / 16).max(2 * CHUNK_BYTES);
        let uncommitted = self.first_free_bytes.saturating_sub(self.memory_bytes + self.table_bytes);
        uncommitted.min(guest::free_ram_bytes()).saturating_sub(reserve)
    }

    fn decide(&mut self, what: &'static str, current: u64, desired: u64, (allowed_bytes, of): (u64, Bound)) -> bool {
        let bytes = desired.saturating_sub(current);
        let granted = bytes <= allowed_bytes;
        if !granted {
            log::debug!("{what}: growth by {bytes} bytes denied, {allowed_bytes} bytes are left");
            self.denied = Some(Denied { what, bytes, allowed_bytes, of });
        }
        granted
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> Result<bool, LimiterError> {
        let (current, desired) = (current as u64, desired as u64);
        let (ram, limit) = (self.growable_bytes(), self.max_memory_bytes.saturating_sub(self.memory_bytes));
        let allowed = if limit < ram { (limit, Bound::MaxWasmMemory) } else { (ram, Bound::Ram) };
        let granted = self.decide("linear memories", current, desired, allowed);
        if granted {
            self.last_growth_bytes = desired.saturating_sub(current);
            self.memory_bytes += self.last_growth_bytes;
        }
        Ok(granted)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> Result<bool, LimiterError> {
        let bytes = |elements: usize| (elements as u64).saturating_mul(ELEMENT_BYTES);
        let allowed = (self.growable_bytes(), Bound::Ram);
        let granted = self.decide("tables", bytes(current), bytes(desired), allowed);
        if granted {
            self.table_bytes += bytes(desired).saturating_sub(bytes(current));
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
        1
    }

    fn tables(&self) -> usize {
        usize::MAX
    }

    fn memories(&self) -> usize {
        usize::MAX
    }
}
