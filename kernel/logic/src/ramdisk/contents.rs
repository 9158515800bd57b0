//! Contents of a file: bytes of the archive and, over them, chunks that were written. Offsets here are checked already.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use mote_abi::errno::Errno;

use super::Budget;

/// What is copied at most when a byte is written.
pub(super) const CHUNK_BYTES: u64 = 32 << 10;
/// A chunk starts with as many bytes and doubles, so that small files take little.
const SMALLEST_BYTES: u64 = 512;
/// What a chunk takes beside its bytes: its place in the map, which is at least half full.
const PLACE_BYTES: u64 = 2 * size_of::<(u64, Box<[u8]>)>() as u64;
/// What the first chunk takes besides: the map's first node, with room for 11.
const MAP_BYTES: u64 = 11 * size_of::<(u64, Box<[u8]>)>() as u64;

#[derive(Debug, Default)]
pub(super) struct Contents<'a> {
    bytes: u64,
    /// What the file has where it has no chunk; zeros follow. Never longer than `bytes`.
    archive: &'a [u8],
    /// By offset divided by [`CHUNK_BYTES`]. A chunk shorter than that is followed by zeros; what it has behind the end
    /// of the file is zeros too.
    chunks: BTreeMap<u64, Box<[u8]>>,
}

/// A range of bytes within one chunk.
#[derive(Debug, Clone, Copy)]
struct Part {
    index: u64,
    start: u64,
    end: u64,
}

impl<'a> Contents<'a> {
    pub(super) const fn of_archive(archive: &'a [u8]) -> Self {
        Self { bytes: archive.len() as u64, archive, chunks: BTreeMap::new() }
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What it took of the budget.
    pub(super) fn memory_bytes(&self) -> u64 {
        let map = if self.chunks.is_empty() { 0 } else { MAP_BYTES };
        self.chunks.values().fold(map, |sum, chunk| sum + PLACE_BYTES + chunk.len() as u64)
    }

    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let end = self.bytes.min(offset.saturating_add(buffer.len() as u64));
        let mut rest = buffer;
        for part in parts(offset, end) {
            let Some((to, behind)) = rest.split_at_mut_checked(part.len()) else { break };
            let (source, start) = match self.chunks.get(&part.index) {
                Some(chunk) => (&**chunk, part.start),
                None => (self.archive, part.index * CHUNK_BYTES + part.start),
            };
            let from = tail(source, start);
            let from = from.get(..to.len()).unwrap_or(from);
            let (copied, zeros) = to.split_at_mut_checked(from.len()).unwrap_or_default();
            copied.copy_from_slice(from);
            zeros.fill(0);
            rest = behind;
        }
        end.saturating_sub(offset) as usize
    }

    /// Writes as far as there is room; `nospc` if that is nowhere.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8], budget: &mut impl Budget) -> Result<usize, Errno> {
        let mut rest = bytes;
        for part in parts(offset, offset.saturating_add(bytes.len() as u64)) {
            let Some(to) = self.writable(part, budget) else { break };
            let Some((from, behind)) = rest.split_at_checked(to.len()) else { break };
            to.copy_from_slice(from);
            rest = behind;
        }
        let written = bytes.len() - rest.len();
        if written == 0 && !bytes.is_empty() {
            return Err(Errno::Nospc);
        }
        if written > 0 {
            self.bytes = self.bytes.max(offset.saturating_add(written as u64));
        }
        Ok(written)
    }

    pub(super) fn set_bytes(&mut self, bytes: u64, budget: &mut impl Budget) {
        if bytes < self.bytes {
            let first_gone = bytes.div_ceil(CHUNK_BYTES);
            let mut given = 0;
            while self.chunks.last_key_value().is_some_and(|(index, _)| *index >= first_gone)
                && let Some((_, chunk)) = self.chunks.pop_last()
            {
                given += PLACE_BYTES + chunk.len() as u64;
            }
            if given > 0 && self.chunks.is_empty() {
                // An empty map may still hold memory.
                self.chunks = BTreeMap::new();
                given += MAP_BYTES;
            }
            budget.give(given);
            if let Some(last) = self.chunks.get_mut(&(bytes / CHUNK_BYTES))
                && let Some(cut) = last.get_mut((bytes % CHUNK_BYTES) as usize..)
            {
                cut.fill(0);
            }
            self.archive = self.archive.get(..bytes as usize).unwrap_or(self.archive);
        }
        self.bytes = bytes;
    }

    /// Gives all of `start..end`, which is not empty, chunks; nothing is changed if the budget has no room for them.
    pub(super) fn allocate(&mut self, start: u64, end: u64, budget: &mut impl Budget) -> Result<(), Errno> {
        let (first, last) = (start / CHUNK_BYTES, end.saturating_sub(1) / CHUNK_BYTES);
        let present = self.chunks.range(first..last);
        let (count, bytes) = present.fold((0, 0), |(count, bytes), (_, chunk)| (count + 1, bytes + chunk.len() as u64));
        // At most 2^48 chunks, and no sum beyond 2^64 for it.
        let before_last = (last - first) * CHUNK_BYTES - bytes + (last - first - count) * PLACE_BYTES;
        let needed = before_last.saturating_add(self.growth(last, end - last * CHUNK_BYTES));
        if !budget.take(needed) {
            return Err(Errno::Nospc);
        }
        budget.give(needed);
        for index in first..=last {
            let part = Part { index, start: 0, end: (end - index * CHUNK_BYTES).min(CHUNK_BYTES) };
            self.writable(part, budget).ok_or(Errno::Nospc)?;
        }
        self.bytes = self.bytes.max(end);
        Ok(())
    }

    /// The bytes of `part`, to be written: in a chunk, which is made or grows if need be. `None` if there is no room.
    fn writable(&mut self, part: Part, budget: &mut impl Budget) -> Option<&mut [u8]> {
        let growth = self.growth(part.index, part.end);
        if growth > 0 {
            if !budget.take(growth) {
                return None;
            }
            let Some(chunk) = self.copied(part.index, part.end) else {
                budget.give(growth);
                return None;
            };
            self.chunks.insert(part.index, chunk);
        }
        self.chunks.get_mut(&part.index)?.get_mut(part.start as usize..part.end as usize)
    }

    /// What the chunk takes of the budget when it becomes `end` bytes long; 0 if it is so long already.
    fn growth(&self, index: u64, end: u64) -> u64 {
        let wanted = self.chunk_bytes(index, end);
        match self.chunks.get(&index) {
            Some(chunk) => wanted.saturating_sub(chunk.len() as u64),
            None if self.chunks.is_empty() => wanted + PLACE_BYTES + MAP_BYTES,
            None => wanted + PLACE_BYTES,
        }
    }

    /// The length of the chunk for its first `end` bytes to be written: what is there now has to fit as well.
    fn chunk_bytes(&self, index: u64, end: u64) -> u64 {
        end.max(self.present(index).len() as u64).next_power_of_two().clamp(SMALLEST_BYTES, CHUNK_BYTES)
    }

    /// A longer copy of a chunk; `None` if there is no memory.
    fn copied(&self, index: u64, end: u64) -> Option<Box<[u8]>> {
        let wanted = self.chunk_bytes(index, end) as usize;
        let mut copy = Vec::new();
        copy.try_reserve_exact(wanted).ok()?;
        copy.extend_from_slice(self.present(index));
        copy.resize(wanted, 0);
        Some(copy.into_boxed_slice())
    }

    /// What a chunk has, or would have, without the zeros behind it.
    fn present(&self, index: u64) -> &[u8] {
        if let Some(chunk) = self.chunks.get(&index) {
            return chunk;
        }
        let archive = tail(self.archive, index * CHUNK_BYTES);
        archive.get(..CHUNK_BYTES as usize).unwrap_or(archive)
    }
}

impl Part {
    const fn len(self) -> usize {
        (self.end - self.start) as usize
    }
}

/// The range `offset..end`, chunk by chunk.
fn parts(offset: u64, end: u64) -> impl Iterator<Item = Part> {
    let mut at = offset;
    core::iter::from_fn(move || {
        let index = at / CHUNK_BYTES;
        let base = index * CHUNK_BYTES;
        let part = Part { index, start: at - base, end: end.saturating_sub(base).min(CHUNK_BYTES) };
        let more = at < end;
        at = base.saturating_add(CHUNK_BYTES);
        more.then_some(part)
    })
}

fn tail(bytes: &[u8], start: u64) -> &[u8] {
    usize::try_from(start).ok().and_then(|start| bytes.get(start..)).unwrap_or(&[])
}
