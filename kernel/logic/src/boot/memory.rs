//! Which memory of a machine is free.

use core::ops::Range;

use mote_abi::layout::{CHUNK_BYTES, PAGE_BYTES};

/// More parts than the maps of machines have, which have some dozens.
const MAX_PARTS: usize = 128;

/// Parts of guest-physical memory in ascending order, in whole pages, none of which touches another.
#[derive(Debug, Clone)]
pub struct FreeMemory {
    parts: [(u64, u64); MAX_PARTS],
    count: usize,
}

/// More parts than there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyParts;

impl FreeMemory {
    /// Nothing.
    pub const fn new() -> Self {
        Self { parts: [(0, 0); MAX_PARTS], count: 0 }
    }

    /// The parts.
    pub fn parts(&self) -> impl Iterator<Item = Range<u64>> {
        self.slice().iter().map(|(start, end)| *start..*end)
    }

    /// All bytes.
    pub fn bytes(&self) -> u64 {
        self.slice().iter().map(|(start, end)| end - start).sum()
    }

    /// How many whole chunks there are.
    pub fn chunks(&self) -> u64 {
        self.parts().map(|part| chunks_of(&part).map_or(0, |chunks| (chunks.end - chunks.start) / CHUNK_BYTES)).sum()
    }

    /// These addresses are free, as far as they are whole pages. What is there already stays.
    pub fn add(&mut self, range: Range<u64>) -> Result<(), TooManyParts> {
        let Some(start) = range.start.checked_next_multiple_of(PAGE_BYTES) else { return Ok(()) };
        let end = range.end / PAGE_BYTES * PAGE_BYTES;
        if start >= end {
            return Ok(());
        }
        // One with all that it touches.
        let (mut start, mut end) = (start, end);
        let mut kept = 0;
        for index in 0..self.count {
            let Some(part) = self.parts.get(index).copied() else { break };
            if part.0 <= end && start <= part.1 {
                (start, end) = (start.min(part.0), end.max(part.1));
            } else {
                self.set(kept, part);
                kept += 1;
            }
        }
        self.count = kept;
        let at = self.slice().iter().position(|part| part.0 > start).unwrap_or(self.count);
        self.insert(at, (start, end))
    }

    /// These addresses are not free, nor is any other byte of the same pages.
    pub fn remove(&mut self, range: Range<u64>) -> Result<(), TooManyParts> {
        let start = range.start / PAGE_BYTES * PAGE_BYTES;
        let end = range.end.checked_next_multiple_of(PAGE_BYTES).unwrap_or(u64::MAX / PAGE_BYTES * PAGE_BYTES);
        if start >= end {
            return Ok(());
        }
        let mut index = 0;
        while let Some((part_start, part_end)) = self.slice().get(index).copied() {
            let (before, after) = ((part_start, part_end.min(start)), (part_start.max(end), part_end));
            match (before.0 < before.1, after.0 < after.1) {
                _ if part_end <= start || end <= part_start => index += 1,
                (false, false) => self.delete(index),
                (true, false) => self.set(index, before),
                (false, true) => self.set(index, after),
                (true, true) if self.count == MAX_PARTS => return Err(TooManyParts),
                (true, true) => {
                    self.set(index, before);
                    self.insert(index + 1, after)?;
                }
            }
        }
        Ok(())
    }

    /// Takes a chunk: the lowest one.
    pub fn take_chunk(&mut self) -> Option<u64> {
        let chunk = self.parts().find_map(|part| chunks_of(&part))?.start;
        // At its start a part only gets shorter, and the rest in front of it, if there is one, takes the place that is left of
        // a part that is used up; else there is room, or the chunk stays unused.
        self.remove(chunk..chunk + CHUNK_BYTES).ok()?;
        Some(chunk)
    }

    /// Takes so many bytes in a row, in whole pages, from below `limit`: out of the smallest part that has them.
    pub fn take(&mut self, bytes: u64, limit: u64) -> Option<u64> {
        let bytes = bytes.checked_next_multiple_of(PAGE_BYTES)?;
        let fits = |part: &Range<u64>| part.start.checked_add(bytes).is_some_and(|end| end <= part.end.min(limit));
        let start = self.parts().filter(fits).min_by_key(|part| part.end - part.start)?.start;
        self.remove(start..start + bytes).ok()?;
        Some(start)
    }

    fn slice(&self) -> &[(u64, u64)] {
        self.parts.get(..self.count).unwrap_or(&[])
    }

    fn set(&mut self, index: usize, part: (u64, u64)) {
        if let Some(place) = self.parts.get_mut(index) {
            *place = part;
        }
    }

    fn insert(&mut self, index: usize, part: (u64, u64)) -> Result<(), TooManyParts> {
        if self.count == MAX_PARTS {
            return Err(TooManyParts);
        }
        self.parts.copy_within(index..self.count, index + 1);
        self.set(index, part);
        self.count += 1;
        Ok(())
    }

    fn delete(&mut self, index: usize) {
        self.parts.copy_within(index + 1..self.count, index);
        self.count -= 1;
    }
}

impl Default for FreeMemory {
    fn default() -> Self {
        Self::new()
    }
}

/// The whole chunks of a part; `None` if it has none.
fn chunks_of(part: &Range<u64>) -> Option<Range<u64>> {
    let start = part.start.checked_next_multiple_of(CHUNK_BYTES)?;
    let end = part.end / CHUNK_BYTES * CHUNK_BYTES;
    (start < end).then_some(start..end)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::{collections::BTreeSet, vec::Vec};

    #[derive(Debug, Clone)]
    enum Step {
        Add(u64, u64),
        Remove(u64, u64),
        Chunk,
        Take(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let bytes = || (0..4 * CHUNK_BYTES, 0..2 * CHUNK_BYTES);
        prop_oneof![
            bytes().prop_map(|(start, bytes)| Step::Add(start, bytes)),
            bytes().prop_map(|(start, bytes)| Step::Remove(start, bytes / 8)),
            Just(Step::Chunk),
            (1..CHUNK_BYTES).prop_map(Step::Take),
        ]
    }

    proptest! {
        #[test]
        fn as_a_set_of_pages(steps in prop::collection::vec(step(), 0..40)) {
            let (mut free, mut model) = (FreeMemory::new(), BTreeSet::new());
            for step in steps {
                match step {
                    Step::Add(start, bytes) => {
                        free.add(start..start + bytes).unwrap();
                        model.extend(start.div_ceil(PAGE_BYTES)..(start + bytes) / PAGE_BYTES);
                    }
                    Step::Remove(start, bytes) => {
                        free.remove(start..start + bytes).unwrap();
                        (start / PAGE_BYTES..(start + bytes).div_ceil(PAGE_BYTES)).for_each(|page| { model.remove(&page); });
                    }
                    Step::Chunk => match free.take_chunk() {
                        Some(chunk) => {
                            prop_assert!(chunk.is_multiple_of(CHUNK_BYTES));
                            prop_assert!((chunk..chunk + CHUNK_BYTES).step_by(4096).all(|at| model.remove(&(at / PAGE_BYTES))));
                        }
                        None => prop_assert_eq!(free.chunks(), 0),
                    },
                    Step::Take(bytes) => if let Some(start) = free.take(bytes, 3 * CHUNK_BYTES) {
                        prop_assert!(start + bytes <= 3 * CHUNK_BYTES);
                        prop_assert!((start..start + bytes).step_by(4096).all(|at| model.remove(&(at / PAGE_BYTES))));
                    }
                }
                let pages: Vec<_> = free.parts().flat_map(|part| part.start / PAGE_BYTES..part.end / PAGE_BYTES).collect();
                prop_assert!(pages.iter().copied().eq(model.iter().copied()));
                prop_assert_eq!(free.bytes(), model.len() as u64 * PAGE_BYTES);
                let parts: Vec<_> = free.parts().collect();
                prop_assert!(parts.windows(2).all(|pair| pair[0].end < pair[1].start));
            }
        }
    }

    #[test]
    fn extremes() {
        let mut free = FreeMemory::new();
        free.add(0..u64::MAX).unwrap();
        free.remove(u64::MAX - 1..u64::MAX).unwrap();
        free.remove(0..0).unwrap();
        assert_eq!(free.take(u64::MAX, u64::MAX), None);
        assert_eq!(free.take(1, 0), None);
        let mut free = FreeMemory::new();
        for part in 0..MAX_PARTS as u64 {
            free.add(part * 2 * PAGE_BYTES..(part * 2 + 1) * PAGE_BYTES).unwrap();
        }
        assert_eq!(free.add(1 << 40..1 << 41), Err(TooManyParts));
        assert_eq!(free.take_chunk(), None);
    }
}
