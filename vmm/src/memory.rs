//! Host memory that guests see: mappings, and the RAM of one VM made of them.
//!
//! `unsafe` is here because the kernel, not Rust, says what lies behind a mapping; everything is given out through
//! `vm-memory`, whose accesses are checked and volatile.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    ptr::{self, NonNull},
};

use mote_abi::layout::{BASE, CHUNK_BYTES, PAGE_BYTES, POOL_START, SYSTEM};
use rustix::mm::{Advice, MapFlags, ProtFlags};
use thiserror::Error;
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap, mmap::MmapRegionBuilder};

/// Host memory that could not be had.
#[derive(Debug, Error)]
pub enum MemoryError {
    /// The kernel refused a mapping.
    #[error("cannot map {bytes} bytes of {what}: {source}")]
    Map {
        /// What it was for.
        what: &'static str,
        /// How much.
        bytes: u64,
        /// Why not.
        source: io::Error,
    },
    /// The pieces do not make a guest memory.
    #[error("cannot lay out guest memory: {0}")]
    Layout(String),
}

/// A private mapping that lives as long as this value.
#[derive(Debug)]
pub(crate) struct Mapping {
    /// Of the whole mapping.
    start: NonNull<u8>,
    mapped_bytes: usize,
    /// From `start` to the part that is used.
    offset: usize,
    bytes: usize,
}

// SAFETY: a mapping is memory of the process, not of a thread, and this type gives no access to its contents.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Zeroed memory that takes RAM as it is touched, aligned so that huge pages can back it.
    pub(crate) fn anonymous(what: &'static str, bytes: u64) -> Result<Self, MemoryError> {
        let error = |source: io::Error| MemoryError::Map { what, bytes, source };
        let alignment = if bytes >= CHUNK_BYTES { CHUNK_BYTES } else { PAGE_BYTES };
        let used_bytes = usize::try_from(bytes).map_err(|_| error(io::ErrorKind::OutOfMemory.into()))?;
        let alignment = usize::try_from(alignment).unwrap_or(usize::MAX);
        let mapped_bytes = used_bytes.checked_add(alignment).ok_or_else(|| error(io::ErrorKind::OutOfMemory.into()))?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address that the kernel chooses changes no memory that exists.
        let start = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), mapped_bytes, ProtFlags::READ | ProtFlags::WRITE, flags) };
        let start = NonNull::new(start.map_err(|errno| error(errno.into()))?.cast::<u8>()).ok_or_else(|| error(io::ErrorKind::OutOfMemory.into()))?;
        let offset = start.as_ptr().align_offset(alignment);
        Ok(Self { start, mapped_bytes, offset, bytes: used_bytes })
    }

    /// A file from its beginning, read-only. Later changes of the file by others may or may not be seen.
    pub(crate) fn file(what: &'static str, file: BorrowedFd<'_>, bytes: u64) -> Result<Self, MemoryError> {
        let error = |source: io::Error| MemoryError::Map { what, bytes, source };
        let used_bytes = usize::try_from(bytes).map_err(|_| error(io::ErrorKind::OutOfMemory.into()))?;
        // SAFETY: a new mapping at an address that the kernel chooses changes no memory that exists. No reference to
        // its contents is ever made, so that others may change the file.
        let start = unsafe { rustix::mm::mmap(ptr::null_mut(), used_bytes, ProtFlags::READ, MapFlags::PRIVATE, file.as_fd(), 0) };
        let start = NonNull::new(start.map_err(|errno| error(errno.into()))?.cast::<u8>()).ok_or_else(|| error(io::ErrorKind::OutOfMemory.into()))?;
        Ok(Self { start, mapped_bytes: used_bytes, offset: 0, bytes: used_bytes })
    }

    /// Where the used part begins in this process.
    pub(crate) fn host_address(&self) -> u64 {
        self.start.as_ptr().wrapping_add(self.offset) as u64
    }

    /// Bytes of the used part.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    /// Asks for transparent huge pages. A kernel without them is no error: it only costs time.
    pub(crate) fn use_huge_pages(&self) {
        self.advise(0, self.bytes as u64, Advice::LinuxHugepage);
    }

    /// Makes the pages of a part present, so that the guest's first touch of each costs less. Failing is no error.
    pub(crate) fn populate(&self, offset: u64, bytes: u64) {
        self.advise(offset, bytes, Advice::LinuxPopulateWrite);
    }

    fn advise(&self, offset: u64, bytes: u64, advice: Advice) {
        let end = offset.checked_add(bytes);
        if let (Some(_), Ok(offset), Ok(bytes)) = (end.filter(|end| *end <= self.bytes as u64), usize::try_from(offset), usize::try_from(bytes)) {
            let start = self.start.as_ptr().wrapping_add(self.offset + offset);
            // SAFETY: the range was checked to lie in this mapping, and neither advice changes its contents.
            let result = unsafe { rustix::mm::madvise(start.cast(), bytes, advice) };
            tracing::trace!(?advice, bytes, ?result, "madvise");
        }
    }

    /// This mapping as a region of guest memory. The region must not outlive the mapping.
    pub(crate) fn region(&self, at: u64) -> Result<GuestRegionMmap, MemoryError> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let start = self.start.as_ptr().wrapping_add(self.offset);
        let builder = MmapRegionBuilder::new(self.bytes).with_mmap_prot(protection).with_mmap_flags(flags);
        // SAFETY: the range is mapped with this protection and these flags for the life of this value, which the owners
        // of regions keep beside them.
        let region = unsafe { builder.with_raw_mmap_pointer(start) }.build();
        let region = region.map_err(|error| MemoryError::Layout(error.to_string()))?;
        GuestRegionMmap::new(region, GuestAddress(at)).ok_or_else(|| MemoryError::Layout(format!("region at {at:#x} overflows")))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by this value, and by the contract of `region` nothing refers to it any more.
        let result = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.mapped_bytes) };
        debug_assert!(result.is_ok(), "unmapping what was mapped");
    }
}

/// The RAM of one VM: base, system area and pool.
#[derive(Debug)]
pub(crate) struct GuestRam {
    /// Declared, and so dropped, before the mappings that it refers to.
    memory: GuestMemoryMmap,
    pub(crate) base: Mapping,
    pub(crate) system: Mapping,
    pub(crate) pool: Mapping,
}

impl GuestRam {
    /// RAM of `ram_bytes`, of which [`BASE`] is a part; nothing of it is touched yet.
    pub(crate) fn new(ram_bytes: u64) -> Result<Self, MemoryError> {
        let pool_bytes = ram_bytes.saturating_sub(BASE.bytes()) / CHUNK_BYTES * CHUNK_BYTES;
        let base = Mapping::anonymous("guest RAM", BASE.bytes())?;
        let system = Mapping::anonymous("page tables", crate::tables::system_bytes(pool_bytes))?;
        let pool = Mapping::anonymous("guest RAM", pool_bytes)?;
        pool.use_huge_pages();
        let regions = vec![base.region(BASE.start)?, system.region(SYSTEM.start)?, pool.region(POOL_START)?];
        let memory = GuestMemoryMmap::from_regions(regions).map_err(|error| MemoryError::Layout(error.to_string()))?;
        Ok(Self { memory, base, system, pool })
    }

    /// Checked access by guest-physical address.
    pub(crate) fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// Bytes of RAM that the host has given so far.
    pub(crate) fn resident_bytes(&self) -> u64 {
        [&self.base, &self.system, &self.pool].into_iter().map(resident_bytes).sum()
    }
}

/// Counts the pages of a mapping that are present (mincore(2)).
fn resident_bytes(mapping: &Mapping) -> u64 {
    let page_bytes = usize::try_from(PAGE_BYTES).unwrap_or(4096);
    let mut pages = vec![0u8; 1 << 16];
    let mut resident = 0;
    for offset in (0..mapping.bytes).step_by(pages.len() * page_bytes) {
        let bytes = (mapping.bytes - offset).min(pages.len() * page_bytes);
        let start = mapping.start.as_ptr().wrapping_add(mapping.offset + offset);
        // SAFETY: the range lies in the mapping, and the vector has a byte for each of its pages.
        let result = unsafe { libc::mincore(start.cast(), bytes, pages.as_mut_ptr()) };
        if result == 0 {
            resident += pages.iter().take(bytes.div_ceil(page_bytes)).filter(|page| **page & 1 == 1).count();
        }
    }
    resident as u64 * PAGE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;

    #[test]
    fn ram_is_where_the_layout_says_and_nowhere_else() {
        let ram = GuestRam::new(64 << 20).unwrap();
        for at in [BASE.start, SYSTEM.start, POOL_START, POOL_START + (60 << 20) - 8] {
            ram.memory().write_obj(at, GuestAddress(at)).unwrap();
            assert_eq!(ram.memory().read_obj::<u64>(GuestAddress(at)).unwrap(), at);
        }
        for at in [0, BASE.end, POOL_START + (60 << 20), u64::MAX - 7] {
            assert!(ram.memory().write_obj(0u64, GuestAddress(at)).is_err(), "{at:#x}");
        }
    }

    #[test]
    fn only_touched_pages_are_resident() {
        let ram = GuestRam::new(1 << 30).unwrap();
        assert_eq!(ram.resident_bytes(), 0);
        ram.memory().write_obj(1u8, GuestAddress(BASE.start)).unwrap();
        assert_eq!(ram.resident_bytes(), PAGE_BYTES);
    }

    #[test]
    fn more_than_the_address_space_is_refused() {
        assert!(Mapping::anonymous("test", u64::MAX).is_err());
        assert!(Mapping::anonymous("test", 1 << 60).is_err());
    }
}
