//! Keeps linear memories and tables within guest RAM, so that growing fails as WebAssembly says and never by a fault.

use alloc::{format, string::String};

use mote_abi::layout::{CHUNK_BYTES, STACK};
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
    /// Bytes that all linear memories together have.
    memory_bytes: u64,
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
}

impl Limiter {
    pub(crate) fn new(boot: BootInfo) -> Self {
        Self {
            max_memory_bytes: boot.max_wasm_memory_bytes(),
            ram_bytes: boot.ram_bytes(),
            memory_bytes: 0,
            last_growth_bytes: 0,
            denied: None,
        }
    }

    /// The last growth that was denied, for people.
    pub(crate) fn denied(&self) -> Option<String> {
        self.denied.as_ref().map(|denied| {
            let Denied { what, bytes, allowed_bytes } = denied;
            format!(
                "its {what} of {bytes} bytes do not fit: {allowed_bytes} bytes are left of {} bytes of guest RAM",
                self.ram_bytes
            )
        })
    }

    /// Bytes that a memory or table may still grow by: what is free but for a reserve that the engine itself needs, to
    /// translate functions and to keep its stack.
    fn growable_bytes(&self) -> u64 {
        let reserve = (self.ram_bytes / 32).max(2 * CHUNK_BYTES);
        guest::free_ram_bytes().saturating_sub(reserve)
    }

    /// Refuses to go on, as a trap, when the native stack is nearly used up: the engine keeps some of it for each
    /// growth, granted or not, until the call from outside returns.
    fn check_stack() -> Result<(), LimiterError> {
        const LEAST_BYTES: u64 = 256 << 10;
        let local = 0u8;
        let stack = core::hint::black_box(&raw const local) as u64;
        let in_chunk = stack % CHUNK_BYTES;
        let no_more_ram = guest::free_ram_bytes() == 0 && in_chunk < LEAST_BYTES;
        if stack.saturating_sub(STACK.start) < LEAST_BYTES || no_more_ram {
            log::error!("too many growths of memories or tables in one call: the native stack is used up");
            return Err(LimiterError::ResourceLimiterDeniedAllocation);
        }
        Ok(())
    }

    fn decide(&mut self, what: &'static str, current: u64, desired: u64, allowed_bytes: u64) -> bool {
        let bytes = desired.saturating_sub(current);
        let granted = bytes <= allowed_bytes;
        if !granted {
            log::debug!("{what}: growth by {bytes} bytes denied, {allowed_bytes} bytes are left");
            self.denied = Some(Denied { what, bytes, allowed_bytes });
        }
        granted
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> Result<bool, LimiterError> {
        Self::check_stack()?;
        let (current, desired) = (current as u64, desired as u64);
        let allowed_bytes = self.growable_bytes().min(self.max_memory_bytes.saturating_sub(self.memory_bytes));
        let granted = self.decide("linear memories", current, desired, allowed_bytes);
        if granted {
            self.last_growth_bytes = desired.saturating_sub(current);
            self.memory_bytes += self.last_growth_bytes;
        }
        Ok(granted)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> Result<bool, LimiterError> {
        Self::check_stack()?;
        let bytes = |elements: usize| (elements as u64).saturating_mul(ELEMENT_BYTES);
        let allowed_bytes = self.growable_bytes();
        Ok(self.decide("tables", bytes(current), bytes(desired), allowed_bytes))
    }

    fn memory_grow_failed(&mut self, error: &MemoryError) -> Result<(), LimiterError> {
        log::warn!("a linear memory could not grow: {error}");
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
