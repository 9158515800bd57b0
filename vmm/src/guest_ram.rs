//! The RAM of one VM: which mappings it consists of, and where guest-physical addresses lie in them.

use std::{io, ops::Range};

use mote_abi::layout::{
    BASE, CHUNK_BYTES, HOST_STATUS, MAILBOX, MAILBOX_DATA, PAGE_BYTES, POOL_FAR, POOL_NEAR, RING_DATA, RING_HEAD, STACK,
};
use vm_memory::GuestMemoryMmap;

use crate::memory::{Direction, Mapping, MemoryError, resident_bytes};

/// The RAM of one VM.
#[derive(Debug)]
pub(crate) struct GuestRam {
    /// Declared, and so dropped, before the mappings that it refers to.
    memory: GuestMemoryMmap,
    /// Base, system area and the first part of the pool.
    pub(crate) near: Mapping,
    /// The rest of the pool, if there is so much RAM.
    pub(crate) far: Option<Mapping>,
    pub(crate) pool_bytes: u64,
    /// Whether parts of the pool are of a file that others may be able to change.
    pub(crate) is_of_file: bool,
}

/// Where a range of guest-physical addresses lies in a mapping: which, and at which offset.
pub(crate) struct Place<'a> {
    pub(crate) mapping: &'a Mapping,
    pub(crate) offset: u64,
}

impl GuestRam {
    /// Where there can be RAM.
    pub(crate) const EVERYWHERE: [Range<u64>; 2] = [BASE.start..POOL_NEAR.end, POOL_FAR.start..POOL_FAR.end];

    /// RAM of `ram_bytes`, of which [`BASE`] is a part; nothing of it is touched yet.
    pub(crate) fn new(ram_bytes: u64) -> Result<Self, MemoryError> {
        let pool_bytes = ram_bytes.saturating_sub(BASE.bytes()) / CHUNK_BYTES * CHUNK_BYTES;
        let near_pool_bytes = pool_bytes.min(POOL_NEAR.bytes());
        let near = Mapping::anonymous("guest RAM", POOL_NEAR.start - BASE.start + near_pool_bytes)?;
        near.use_small_pages(0, near.bytes());
        // SAFETY: both mappings can be written and become fields of the value that owns the regions, dropped after them; the
        // memory is only lent out.
        let mut regions = vec![unsafe { near.region(BASE.start)? }];
        let far = match pool_bytes - near_pool_bytes {
            0 => None,
            bytes => Some(Mapping::anonymous("guest RAM", bytes)?),
        };
        if let Some(far) = &far {
            far.use_huge_pages(0, far.bytes());
            // SAFETY: as above.
            regions.push(unsafe { far.region(POOL_FAR.start)? });
        }
        let memory = GuestMemoryMmap::from_regions(regions).map_err(|error| MemoryError::Layout(error.to_string()))?;
        Ok(Self { memory, near, far, pool_bytes, is_of_file: false })
    }

    /// Makes the pages present that every kernel touches before it runs a module of `module_bytes`: from the host that
    /// costs a fraction of a fault in the guest. Small modules need few pages of the heap and of a linear memory; for
    /// others a huge page of each costs less.
    pub(crate) fn warm(&self, module_bytes: u64) {
        const SMALL_MODULE_BYTES: u64 = 256 << 10;
        const STACK_BYTES: u64 = 32 << 10;
        const SMALL_HEAP_BYTES: u64 = 160 << 10;
        const SMALL_MEMORY_BYTES: u64 = 64 << 10;
        let warm = |start: u64, bytes: u64| self.near.populate(start - BASE.start, bytes);
        let (heap, memory) = (POOL_NEAR.start, POOL_NEAR.start + CHUNK_BYTES);
        let pool_offset = POOL_NEAR.start - BASE.start;
        let huge_from = if module_bytes < SMALL_MODULE_BYTES { pool_offset + 3 * CHUNK_BYTES } else { pool_offset };
        self.near.use_huge_pages(huge_from, self.near.bytes().saturating_sub(huge_from));

        warm(HOST_STATUS.start, HOST_STATUS.bytes());
        warm(MAILBOX.start, MAILBOX_DATA.start - MAILBOX.start + PAGE_BYTES);
        warm(RING_HEAD.start, RING_DATA.start - RING_HEAD.start + PAGE_BYTES);
        warm(STACK.end - STACK_BYTES, STACK_BYTES);
        if module_bytes < SMALL_MODULE_BYTES {
            warm(heap, SMALL_HEAP_BYTES);
            warm(memory, SMALL_MEMORY_BYTES);
        } else {
            warm(heap, CHUNK_BYTES);
        }
    }

    /// All zeros, and nothing touched.
    pub(crate) fn clear(&self) -> Result<(), MemoryError> {
        for mapping in [Some(&self.near), self.far.as_ref()].into_iter().flatten() {
            mapping.clear(0, mapping.bytes())?;
        }
        self.near.use_small_pages(0, self.near.bytes());
        if let Some(far) = &self.far {
            far.use_huge_pages(0, far.bytes());
        }
        Ok(())
    }

    /// Makes these ranges of guest-physical addresses present.
    pub(crate) fn populate(&self, ranges: &[Range<u64>]) {
        for range in ranges {
            if let Some(Place { mapping, offset }) = self.place(range.start, range.end - range.start) {
                mapping.populate(offset, range.end - range.start);
            }
        }
    }

    /// Where guest-physical addresses from `start` on lie; `None` if not all are RAM of one mapping.
    pub(crate) fn place(&self, start: u64, bytes: u64) -> Option<Place<'_>> {
        let (mapping, first) = match &self.far {
            Some(far) if start >= POOL_FAR.start => (far, POOL_FAR.start),
            _ => (&self.near, BASE.start),
        };
        let offset = start.checked_sub(first)?;
        offset.checked_add(bytes).filter(|end| *end <= mapping.bytes())?;
        Some(Place { mapping, offset })
    }

    /// Reads RAM of the pool. Where it may be of a file that somebody cuts short, that is an error and not a signal.
    pub(crate) fn read_pool(&self, start: u64, to: &mut [u8]) -> io::Result<()> {
        let place = self.place(start, to.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: `to` is memory of Rust, to which nothing else refers.
        unsafe { place.mapping.copy(place.offset, to.as_mut_ptr(), to.len(), Direction::Out, self.is_of_file) }
    }

    /// Writes RAM of the pool.
    pub(crate) fn write_pool(&self, start: u64, from: &[u8]) -> io::Result<()> {
        let place = self.place(start, from.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: `from` is memory of Rust, which is only read; RAM can be written.
        unsafe { place.mapping.copy(place.offset, from.as_ptr().cast_mut(), from.len(), Direction::In, self.is_of_file) }
    }

    /// Checked access by guest-physical address.
    pub(crate) fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// Bytes of RAM that the host has given so far, in these parts of it. To look at all of it takes longer than most runs.
    pub(crate) fn resident_bytes(&self, parts: &[Range<u64>]) -> u64 {
        let resident = |part: &Range<u64>| {
            let place = self.place(part.start, 0);
            place.map_or(0, |place| resident_bytes(place.mapping, place.offset, part.end - part.start))
        };
        parts.iter().map(resident).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_abi::layout::SYSTEM;
    use vm_memory::{Bytes, GuestAddress};

    #[test]
    fn ram_is_where_the_layout_says_and_nowhere_else() {
        let ram = GuestRam::new(64 << 20).unwrap();
        for at in [BASE.start, SYSTEM.start, POOL_NEAR.start, POOL_FAR.start, POOL_FAR.start + (24 << 20) - 8] {
            ram.memory().write_obj(at, GuestAddress(at)).unwrap();
            assert_eq!(ram.memory().read_obj::<u64>(GuestAddress(at)).unwrap(), at);
        }
        for at in [0, BASE.start - 8, POOL_NEAR.end, POOL_FAR.start + (24 << 20), u64::MAX - 7] {
            assert!(ram.memory().write_obj(0u64, GuestAddress(at)).is_err(), "{at:#x}");
        }
    }

    #[test]
    fn only_touched_pages_are_resident() {
        let ram = GuestRam::new(1 << 30).unwrap();
        let all = GuestRam::EVERYWHERE;
        let resident = |parts: &[Range<u64>]| ram.resident_bytes(parts);
        assert_eq!(resident(&all), 0);
        ram.memory().write_obj(1u8, GuestAddress(BASE.start)).unwrap();
        ram.memory().write_obj(1u8, GuestAddress(POOL_FAR.start + (512 << 20))).unwrap();
        assert_eq!(resident(&all[..1]), PAGE_BYTES);
        assert!(resident(&all) > PAGE_BYTES);
        assert_eq!(resident(&[BASE.start + PAGE_BYTES..BASE.end, POOL_FAR.start..POOL_FAR.start + PAGE_BYTES]), 0);
    }
}
