//! Address space of large allocations: each has a slot of [`layout::LARGE_SLOT_BYTES`], so it can always grow where it is.
//!
//! Only address space is handed out here. RAM comes with the first touch of each 2 MiB and stays with the slot, so a
//! freed slot whose RAM fits is used again before a fresh one.

use mote_abi::layout::{self, LARGE, LARGE_SLOT_BYTES, LARGE_SLOTS};

const SLOTS: usize = LARGE_SLOTS as usize;

#[derive(Debug, Clone, Copy)]
struct Slot {
    /// Size now, 0 if free.
    bytes: u64,
    /// Largest size ever, an upper bound of the RAM that the slot holds.
    most_bytes: u64,
}

/// The slots.
#[derive(Debug)]
pub struct LargeSlots {
    slots: [Slot; SLOTS],
}

impl LargeSlots {
    /// All slots free and without RAM.
    pub const fn new() -> Self {
        Self { slots: [Slot { bytes: 0, most_bytes: 0 }; SLOTS] }
    }

    /// Address for `bytes` bytes; `None` if they are 0, more than a slot, or no slot is free that needs at most
    /// `new_ram_bytes` beyond the RAM that it has.
    pub fn allocate(&mut self, bytes: u64, new_ram_bytes: u64) -> Option<u64> {
        if bytes == 0 || bytes > LARGE_SLOT_BYTES {
            return None;
        }
        // A slot that needs the least new RAM, and of these the one that leaves the least RAM unused.
        let affordable = |slot: &Slot| bytes.saturating_sub(slot.most_bytes) <= new_ram_bytes;
        let free = self.slots.iter_mut().enumerate().filter(|(_, slot)| slot.bytes == 0 && affordable(slot));
        let (index, slot) =
            free.min_by_key(|(_, slot)| (bytes.saturating_sub(slot.most_bytes), slot.most_bytes.saturating_sub(bytes)))?;
        slot.bytes = bytes;
        slot.most_bytes = slot.most_bytes.max(bytes);
        Some(LARGE.start + index as u64 * LARGE_SLOT_BYTES)
    }

    /// Gives the allocation at `address` another size in place; `false` if there is none or the size does not fit.
    pub fn resize(&mut self, address: u64, bytes: u64) -> bool {
        match self.slot(address) {
            Some(slot) if slot.bytes != 0 && bytes != 0 && bytes <= LARGE_SLOT_BYTES => {
                slot.bytes = bytes;
                slot.most_bytes = slot.most_bytes.max(bytes);
                true
            }
            _ => false,
        }
    }

    /// Frees the allocation at `address`; `false` if there is none.
    pub fn free(&mut self, address: u64) -> bool {
        match self.slot(address) {
            Some(slot) if slot.bytes != 0 => {
                slot.bytes = 0;
                true
            }
            _ => false,
        }
    }

    fn slot(&mut self, address: u64) -> Option<&mut Slot> {
        let offset = address.checked_sub(layout::LARGE.start)?;
        let index = usize::try_from(offset / LARGE_SLOT_BYTES).ok()?;
        if offset.is_multiple_of(LARGE_SLOT_BYTES) { self.slots.get_mut(index) } else { None }
    }
}

impl Default for LargeSlots {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn live_allocations_never_overlap(steps in prop::collection::vec((0u8..3, 1u64..1 << 38, 0usize..300), 1..400)) {
            let mut slots = LargeSlots::new();
            let mut live: Vec<(u64, u64)> = Vec::new();
            for (step, bytes, pick) in steps {
                match step {
                    0 => if let Some(address) = slots.allocate(bytes, u64::MAX) {
                        live.push((address, bytes));
                    },
                    1 if !live.is_empty() => {
                        let pick = pick % live.len();
                        if slots.resize(live[pick].0, bytes) {
                            live[pick].1 = bytes;
                        } else {
                            prop_assert!(bytes > LARGE_SLOT_BYTES);
                        }
                    }
                    2 if !live.is_empty() => {
                        let (address, _) = live.swap_remove(pick % live.len());
                        prop_assert!(slots.free(address));
                        prop_assert!(!slots.free(address), "freed twice");
                    }
                    _ => {}
                }
                live.sort_unstable();
                for pair in live.windows(2) {
                    prop_assert!(pair[0].0 + pair[0].1 <= pair[1].0);
                }
                prop_assert!(live.iter().all(|(address, bytes)| LARGE.contains_range(*address, *bytes)));
            }
        }
    }

    #[test]
    fn memory_that_is_there_is_used_first() {
        let mut slots = LargeSlots::new();
        let (small, big) = (slots.allocate(10 << 20, u64::MAX).unwrap(), slots.allocate(100 << 20, u64::MAX).unwrap());
        slots.free(small);
        slots.free(big);
        assert_eq!(slots.allocate(200 << 20, 50 << 20), None, "needs 100 MiB more");
        assert_eq!(slots.allocate(50 << 20, 0), Some(big));
        assert_eq!(slots.allocate(5 << 20, 0), Some(small));
    }

    #[test]
    fn slots_run_out_with_an_answer() {
        let mut slots = LargeSlots::new();
        for _ in 0..LARGE_SLOTS {
            assert!(slots.allocate(1, u64::MAX).is_some());
        }
        assert_eq!(slots.allocate(1, u64::MAX), None);
    }
}
