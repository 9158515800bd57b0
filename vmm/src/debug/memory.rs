//! Guest memory by guest-virtual addresses: the page tables are walked as a processor does.

use mote_abi::layout::{IMAGE, MODULE, RAMDISK};
use mote_machine::paging::{self, Translation};
use vm_memory::{Bytes, GuestAddress};

use crate::{
    machine::Machine,
    memory::{Mapping, Source},
    tables::ROOT,
};

impl Machine {
    /// Reads from `address` on, up to what is not mapped; how much that is.
    pub(super) fn read_virtual(&self, address: u64, to: &mut [u8]) -> usize {
        let mut done = 0;
        while let Some(rest) = to.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let Some((page, at)) = address.checked_add(done as u64).and_then(|at| Some((self.translate(at)?, at))) else { break };
            let bytes = piece(&page, rest.len());
            let read = rest.get_mut(..bytes).and_then(|rest| self.read_physical(page.physical_address, rest));
            if read.is_none() {
                tracing::debug!(at, "nothing that can be read");
                break;
            }
            done += bytes;
        }
        done
    }

    /// Writes all of `bytes`, or nothing: where ring 3 could, and to code.
    pub(super) fn write_virtual(&mut self, address: u64, bytes: &[u8]) -> Option<()> {
        let mut pieces = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let at = address.checked_add((bytes.len() - rest.len()) as u64)?;
            let page = self.translate(at).filter(|page| page.writable || page.executable)?;
            let (now, later) = rest.split_at_checked(piece(&page, rest.len()))?;
            pieces.push((page, now));
            rest = later;
        }
        pieces.into_iter().try_for_each(|(page, bytes)| self.write_physical(&page, bytes))
    }

    /// Whether ring 3 can execute what is at `address`.
    pub(super) fn is_code(&self, address: u64) -> bool {
        self.translate(address).is_some_and(|page| page.executable && !page.writable)
    }

    fn translate(&self, address: u64) -> Option<Translation> {
        paging::translate(|entry| self.ram.memory().read_obj(GuestAddress(entry)).ok(), ROOT, address)
    }

    fn read_physical(&self, address: u64, to: &mut [u8]) -> Option<()> {
        match self.shared(address) {
            // A file may have been cut short.
            Some((start, mapping)) => mapping.read_carefully(address.checked_sub(start)?, to).ok(),
            // RAM, or what has no memory behind it: a doorbell.
            None => self.ram.memory().read_slice(to, GuestAddress(address)).ok(),
        }
    }

    fn write_physical(&mut self, page: &Translation, bytes: &[u8]) -> Option<()> {
        let address = page.physical_address;
        if page.writable {
            return self.ram.memory().write_slice(bytes, GuestAddress(address)).ok();
        }
        // A debugged VM has the code of kernel and compiled modules for itself alone, and nothing else is executable.
        let is_own = IMAGE.contains(address) || MODULE.contains(address) && self.runs_compiled();
        let (start, mapping) = self.shared(address).filter(|_| is_own)?;
        mapping.make_equal(address.checked_sub(start)?, bytes.len() as u64, Source::Bytes(bytes)).map(drop)
    }

    /// What lies at a guest-physical address and is no RAM, and its first address.
    fn shared(&self, address: u64) -> Option<(u64, &Mapping)> {
        if IMAGE.contains(address) {
            return self.kernel().own_mapping();
        }
        if RAMDISK.contains(address) {
            return Some((RAMDISK.start, self.ramdisk()?.mapping()));
        }
        let placed = self.demand.modules().rev().find(|placed| placed.address <= address)?;
        MODULE.contains(address).then(|| (placed.address, placed.module.mapping()))
    }
}

/// Bytes that lie in one page.
fn piece(page: &Translation, bytes: usize) -> usize {
    usize::try_from(page.bytes_left).unwrap_or(usize::MAX).min(bytes)
}
