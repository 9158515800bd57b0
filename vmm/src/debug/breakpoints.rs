//! Software breakpoints: `int3` in code, and what was there before.

use std::collections::BTreeMap;

use crate::machine::Machine;

/// The instruction, one byte.
pub(super) const INT3: u8 = 0xcc;

/// More than anybody sets.
const MOST: usize = 4096;

/// The breakpoints of a guest: their addresses, and the bytes in the place of which they are.
#[derive(Debug, Default)]
pub(super) struct Breakpoints(BTreeMap<u64, u8>);

impl Breakpoints {
    pub(super) fn contains(&self, address: u64) -> bool {
        self.0.contains_key(&address)
    }

    /// `None` where no code is.
    pub(super) fn add(&mut self, machine: &mut Machine, address: u64) -> Option<()> {
        if self.contains(address) {
            return Some(());
        }
        let mut byte = [0];
        if self.0.len() >= MOST || !machine.is_code(address) || machine.read_virtual(address, &mut byte) != byte.len() {
            return None;
        }
        machine.write_virtual(address, &[INT3])?;
        self.0.insert(address, byte[0]);
        Some(())
    }

    /// `None` if there is none.
    pub(super) fn remove(&mut self, machine: &mut Machine, address: u64) -> Option<()> {
        let byte = self.0.remove(&address)?;
        machine.write_virtual(address, &[byte])
    }

    pub(super) fn remove_all(&mut self, machine: &mut Machine) {
        for (address, byte) in std::mem::take(&mut self.0) {
            let written = machine.write_virtual(address, &[byte]);
            debug_assert!(written.is_some(), "code that was written before");
        }
    }

    /// Puts what was there before into bytes that were read from `address` on: debuggers know nothing of how it is done.
    pub(super) fn hide(&self, address: u64, bytes: &mut [u8]) {
        for (at, byte) in self.within(address, bytes.len()) {
            if let Some(place) = bytes.get_mut(at) {
                *place = *byte;
            }
        }
    }

    /// Writes bytes below the breakpoints.
    pub(super) fn write(&mut self, machine: &mut Machine, address: u64, bytes: &[u8]) -> Option<()> {
        let mut written = bytes.to_vec();
        for (at, _) in self.within(address, bytes.len()) {
            if let Some(place) = written.get_mut(at) {
                *place = INT3;
            }
        }
        machine.write_virtual(address, &written)?;
        for (at, byte) in bytes.iter().enumerate() {
            if let Some(below) = self.0.get_mut(&address.wrapping_add(at as u64)) {
                *below = *byte;
            }
        }
        Some(())
    }

    /// The breakpoints among `bytes` bytes from `address` on, by their places there.
    fn within(&self, address: u64, bytes: usize) -> impl Iterator<Item = (usize, &u8)> {
        let end = address.saturating_add(bytes as u64);
        let range = self.0.range(address..end.max(address));
        range.filter_map(move |(at, byte)| Some((usize::try_from(at - address).ok()?, byte)))
    }
}
