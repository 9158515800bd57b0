//! Host memory that guests see: mappings, and the files that lie below them. `guest_ram.rs` makes the RAM of a VM of them.
//!
//! `unsafe` is here because the kernel, not Rust, says what lies behind a mapping; everything is given out through
//! `vm-memory`, whose accesses are checked and volatile.

use std::{
    fs::File,
    io,
    ops::Range,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    ptr::{self, NonNull},
};

use mote_abi::layout::{CHUNK_BYTES, PAGE_BYTES};
use rustix::{
    fs::{MemfdFlags, SealFlags},
    mm::{Advice, MapFlags, ProtFlags},
};
use thiserror::Error;
use vm_memory::{GuestAddress, GuestRegionMmap, mmap::MmapRegionBuilder};

/// Bytes of a page, for buffers.
#[expect(clippy::cast_possible_truncation, reason = "a small constant")]
pub(crate) const PAGE: usize = PAGE_BYTES as usize;

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
    /// The page map of this process cannot be read, without which nothing can be restored.
    #[error("cannot read /proc/self/pagemap: {0}")]
    PageMap(io::Error),
    /// The pieces do not make a guest memory.
    #[error("cannot lay out guest memory: {0}")]
    Layout(String),
}

/// The contents of a page.
#[allow(clippy::cast_possible_truncation, reason = "a page is small")]
pub(crate) type Page = [u8; PAGE];
/// Of one that nobody has written.
pub(crate) const ZERO_PAGE: Page = [0; PAGE];

/// Bytes of the program that begin on a page, and have the last one to its end.
#[repr(C, align(4096))]
#[derive(Debug)]
pub(crate) struct Pages<B: ?Sized>(pub(crate) B);

/// A private mapping that lives as long as this value.
#[derive(Debug)]
pub(crate) struct Mapping {
    /// Of the whole mapping.
    start: NonNull<u8>,
    /// What is unmapped in the end; 0 for what is part of the program.
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
        let start =
            unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), mapped_bytes, ProtFlags::READ | ProtFlags::WRITE, flags) };
        let start = NonNull::new(start.map_err(|errno| error(errno.into()))?.cast::<u8>())
            .ok_or_else(|| error(io::ErrorKind::OutOfMemory.into()))?;
        let offset = start.as_ptr().align_offset(alignment);
        Ok(Self { start, mapped_bytes, offset, bytes: used_bytes })
    }

    /// The pages of the program in which a part of `pages` lies, read-only; `None` if it does not begin on a page.
    pub(crate) fn of_pages(pages: &'static Pages<[u8]>, part: &Range<usize>) -> Option<Self> {
        let bytes = part.end.checked_next_multiple_of(PAGE)?.checked_sub(part.start)?;
        let inside = part.start.checked_add(bytes)? <= size_of_val(pages);
        let start = NonNull::from(pages.0.get(part.start..)?).cast::<u8>();
        (inside && part.start.is_multiple_of(PAGE)).then_some(Self { start, mapped_bytes: 0, offset: 0, bytes })
    }

    /// A file from its beginning, read-only. Later changes of the file by others may or may not be seen.
    pub(crate) fn file(what: &'static str, file: BorrowedFd<'_>, bytes: u64) -> Result<Self, MemoryError> {
        Self::part_of_file(what, file, 0, bytes)
    }

    /// The same from an offset on, which is a multiple of the page size.
    pub(crate) fn part_of_file(what: &'static str, file: BorrowedFd<'_>, from: u64, bytes: u64) -> Result<Self, MemoryError> {
        let error = |source: io::Error| MemoryError::Map { what, bytes, source };
        let used_bytes = usize::try_from(bytes).map_err(|_| error(io::ErrorKind::OutOfMemory.into()))?;
        // SAFETY: a new mapping at an address that the kernel chooses changes no memory that exists. No reference to
        // its contents is ever made, so that others may change the file.
        let start =
            unsafe { rustix::mm::mmap(ptr::null_mut(), used_bytes, ProtFlags::READ, MapFlags::PRIVATE, file.as_fd(), from) };
        let start = NonNull::new(start.map_err(|errno| error(errno.into()))?.cast::<u8>())
            .ok_or_else(|| error(io::ErrorKind::OutOfMemory.into()))?;
        Ok(Self { start, mapped_bytes: used_bytes, offset: 0, bytes: used_bytes })
    }

    /// Writes all of it. That its file was cut short meanwhile is an error.
    pub(crate) fn write_to(&self, to: &mut impl io::Write) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 20];
        let mut at = 0;
        while at < self.bytes() {
            let length = usize::try_from(self.bytes() - at).unwrap_or(usize::MAX).min(buffer.len());
            let part = buffer.get_mut(..length).unwrap_or(&mut []);
            self.read_carefully(at, part)?;
            to.write_all(part)?;
            at += length as u64;
        }
        Ok(())
    }

    /// Where the used part begins in this process.
    pub(crate) fn host_address(&self) -> u64 {
        self.start.as_ptr().wrapping_add(self.offset) as u64
    }

    /// Bytes of the used part.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    /// Asks for transparent huge pages in a part. A kernel without them is no error: it only costs time.
    pub(crate) fn use_huge_pages(&self, offset: u64, bytes: u64) {
        self.advise(offset, bytes, Advice::LinuxHugepage);
    }

    /// Keeps huge pages away from a part of which little is touched, on hosts that use them unasked.
    pub(crate) fn use_small_pages(&self, offset: u64, bytes: u64) {
        self.advise(offset, bytes, Advice::LinuxNoHugepage);
    }

    /// Makes the pages of a part present, so that the guest's first touch of each costs less. Failing is no error.
    pub(crate) fn populate(&self, offset: u64, bytes: u64) {
        self.advise(offset, bytes, Advice::LinuxPopulateWrite);
    }

    /// Makes a range of a file present, as far as it is in the host's memory; that it is not is no error.
    pub(crate) fn populate_to_read(&self, offset: u64, bytes: u64) {
        self.advise(offset, bytes, Advice::LinuxPopulateRead);
    }

    fn advise(&self, offset: u64, bytes: u64, advice: Advice) {
        let end = offset.checked_add(bytes);
        if let (Some(_), Ok(offset), Ok(bytes)) =
            (end.filter(|end| *end <= self.bytes as u64), usize::try_from(offset), usize::try_from(bytes))
        {
            let start = self.start.as_ptr().wrapping_add(self.offset + offset);
            // SAFETY: the range was checked to lie in this mapping, and none of these advices changes its contents.
            let result = unsafe { rustix::mm::madvise(start.cast(), bytes, advice) };
            tracing::trace!(?advice, bytes, ?result, "madvise");
        }
    }

    /// Puts a part of a file in the place of what was there, as private memory: what is written does not reach the file.
    pub(crate) fn overlay(&self, offset: u64, bytes: u64, backing: &Backing, from: u64) -> Result<(), MemoryError> {
        if from.checked_add(bytes).is_none_or(|end| end > backing.bytes) {
            return Err(MemoryError::Layout(format!("{bytes} bytes from {from} lie beyond the end of a file")));
        }
        self.replace(backing.what, offset, bytes, Some((backing.file.as_fd(), from)))
    }

    /// Puts zeros in the place of what was there.
    pub(crate) fn clear(&self, offset: u64, bytes: u64) -> Result<(), MemoryError> {
        self.replace("guest RAM", offset, bytes, None)
    }

    fn replace(
        &self,
        what: &'static str,
        offset: u64,
        bytes: u64,
        file: Option<(BorrowedFd<'_>, u64)>,
    ) -> Result<(), MemoryError> {
        let error = |source: io::Error| MemoryError::Map { what, bytes, source };
        let start = self.part(offset, bytes).ok_or_else(|| error(io::ErrorKind::InvalidInput.into()))?;
        let length = usize::try_from(bytes).unwrap_or(0);
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE);
        // SAFETY: the range was checked to lie in this mapping, to which there are no references: guest memory is accessed
        // by pointers that stay valid, as the new memory has the same place and rights.
        let mapped = unsafe {
            match file {
                Some((file, from)) => rustix::mm::mmap(start.cast(), length, protection, flags, file, from),
                None => rustix::mm::mmap_anonymous(start.cast(), length, protection, flags),
            }
        };
        mapped.map(drop).map_err(|errno| error(errno.into()))
    }

    /// Gives up what was written to private pages: they are the file's again, or zeros. Failing is no error, but told.
    pub(crate) fn drop_pages(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let start = self.part(offset, bytes).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: the range was checked to lie in this mapping, to which there are no references.
        let result = unsafe { libc::madvise(start.cast(), usize::try_from(bytes).unwrap_or(0), libc::MADV_DONTNEED) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// The address of a part, if it lies in this mapping.
    fn part(&self, offset: u64, bytes: u64) -> Option<*mut u8> {
        offset.checked_add(bytes).filter(|end| *end <= self.bytes.next_multiple_of(4096) as u64)?;
        Some(self.start.as_ptr().wrapping_add(self.offset + usize::try_from(offset).ok()?))
    }

    /// Copies between `bytes` bytes at `other` and what lies at `offset`. With `carefully` a page that is not there any more,
    /// as of a file that was cut short, is an error; otherwise it is a signal.
    ///
    /// # Safety
    ///
    /// `other` is memory of this process that is valid for this, and not of this mapping. If bytes are copied in, this mapping
    /// can be written.
    pub(crate) unsafe fn copy(
        &self,
        offset: u64,
        other: *mut u8,
        bytes: usize,
        direction: Direction,
        carefully: bool,
    ) -> io::Result<()> {
        let here = self.part(offset, bytes as u64).ok_or(io::ErrorKind::InvalidInput)?;
        if !carefully {
            // SAFETY: the range was checked to lie in this mapping; the other is valid and apart, by the contract of this
            // function. No reference is made to the mapping, which a guest may be changing.
            unsafe {
                match direction {
                    Direction::Out => ptr::copy_nonoverlapping(here.cast_const(), other, bytes),
                    Direction::In => ptr::copy_nonoverlapping(other.cast_const(), here, bytes),
                }
            }
            return Ok(());
        }
        let [there, here] = [other, here].map(|start| libc::iovec { iov_base: start.cast(), iov_len: bytes });
        let (process, none) = (std::process::id().cast_signed(), 0);
        // SAFETY: one vector of each, and both ranges as above; the kernel checks what it touches.
        let copied = unsafe {
            match direction {
                Direction::Out => libc::process_vm_readv(process, &raw const there, 1, &raw const here, 1, none),
                Direction::In => libc::process_vm_writev(process, &raw const there, 1, &raw const here, 1, none),
            }
        };
        match usize::try_from(copied) {
            Ok(copied) if copied == bytes => Ok(()),
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }

    /// Copies into `to` what lies at `offset`.
    pub(crate) fn read(&self, offset: u64, to: &mut [u8]) -> io::Result<()> {
        // SAFETY: `to` is memory of Rust, to which nothing else refers.
        unsafe { self.copy(offset, to.as_mut_ptr(), to.len(), Direction::Out, false) }
    }

    /// The same where the file may be cut short meanwhile: that is an error, and not a signal.
    pub(crate) fn read_carefully(&self, offset: u64, to: &mut [u8]) -> io::Result<()> {
        // SAFETY: as above.
        unsafe { self.copy(offset, to.as_mut_ptr(), to.len(), Direction::Out, true) }
    }

    /// Makes the page at `offset` of a mapping that can be written equal to `page`; whether it was not before. A page of a file
    /// that was cut short is an error, and not a signal: cutting takes pages away that were written, too.
    pub(crate) fn make_equal_carefully(&self, offset: u64, page: &Page) -> io::Result<bool> {
        let mut now = ZERO_PAGE;
        self.read_carefully(offset, &mut now)?;
        let differs = now != *page;
        if differs {
            // SAFETY: `page` is memory of Rust, which is only read; a page that is restored is one of RAM, which can be written.
            unsafe { self.copy(offset, page.as_ptr().cast_mut(), page.len(), Direction::In, true)? };
        }
        Ok(differs)
    }

    /// Copies `from` to what lies at `offset`.
    #[cfg(test)]
    pub(crate) fn write(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        // SAFETY: `from` is memory of Rust, which is only read; tests write to mappings that can be written.
        unsafe { self.copy(offset, from.as_ptr().cast_mut(), from.len(), Direction::In, false) }
    }

    /// Makes what lies at `offset` equal to `bytes` bytes of `source`; whether it was not before. `None` for a range that
    /// does not exist in both.
    pub(crate) fn make_equal(&self, offset: u64, bytes: u64, source: Source<'_>) -> Option<bool> {
        let to = self.part(offset, bytes)?;
        let length = usize::try_from(bytes).ok()?;
        let from = match source {
            Source::Bytes(given) => given.get(..length)?.as_ptr(),
            Source::Mapping(mapping, offset) => mapping.part(offset, bytes)?.cast_const(),
        };
        // SAFETY: both ranges were checked to be mapped, this one for writes, and are of different mappings. The guest does
        // not run while its memory is restored, and the source is a sealed file or memory of this process, so neither
        // changes.
        unsafe {
            let differs = libc::memcmp(to.cast(), from.cast(), length) != 0;
            if differs {
                ptr::copy_nonoverlapping(from, to, length);
            }
            Some(differs)
        }
    }

    /// Whether a part holds the same as `bytes` bytes of another mapping.
    pub(crate) fn equals(&self, offset: u64, bytes: u64, other: &Self, other_offset: u64) -> bool {
        let (Some(a), Some(b)) = (self.part(offset, bytes), other.part(other_offset, bytes)) else { return false };
        // SAFETY: both ranges were checked to be mapped. The guest does not run, and the other is a sealed file.
        unsafe { libc::memcmp(a.cast(), b.cast(), usize::try_from(bytes).unwrap_or(0)) == 0 }
    }

    /// Whether all of a part is zeros. Untouched pages of it become present.
    pub(crate) fn is_zero(&self, offset: u64, bytes: u64) -> bool {
        let Some(start) = self.part(offset, bytes) else { return false };
        let words = usize::try_from(bytes / 8).unwrap_or(0);
        // SAFETY: the range was checked to lie in this mapping, which is aligned to pages. The guest does not run.
        (0..words).all(|word| unsafe { start.cast::<u64>().add(word).read() } == 0)
    }

    /// Writes a part to a file.
    pub(crate) fn save(&self, offset: u64, bytes: u64, file: BorrowedFd<'_>, at: u64) -> io::Result<()> {
        let (mut offset, mut left, mut at) = (offset, bytes, to_offset(at)?);
        while left > 0 {
            let start = self.part(offset, left).ok_or(io::ErrorKind::InvalidInput)?;
            let length = usize::try_from(left).unwrap_or(0);
            // SAFETY: the range was checked to lie in this mapping; the kernel reads it, and tells if it cannot.
            let written = unsafe { libc::pwrite(file.as_raw_fd(), start.cast_const().cast(), length, at) };
            let written = u64::try_from(written).map_err(|_| io::Error::last_os_error())?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            (offset, left, at) = (offset + written, left - written, at.saturating_add_unsigned(written));
        }
        Ok(())
    }

    /// Reads a part from a file.
    pub(crate) fn load(&self, offset: u64, bytes: u64, file: BorrowedFd<'_>, at: u64) -> io::Result<()> {
        let (mut offset, mut left, mut at) = (offset, bytes, to_offset(at)?);
        while left > 0 {
            let start = self.part(offset, left).ok_or(io::ErrorKind::InvalidInput)?;
            let length = usize::try_from(left).unwrap_or(0);
            // SAFETY: the range was checked to lie in this mapping, which can be written and to which there are no references.
            let read = unsafe { libc::pread(file.as_raw_fd(), start.cast(), length, at) };
            let read = u64::try_from(read).map_err(|_| io::Error::last_os_error())?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            (offset, left, at) = (offset + read, left - read, at.saturating_add_unsigned(read));
        }
        Ok(())
    }

    /// This mapping as a region of guest memory.
    ///
    /// # Safety
    ///
    /// The mapping can be written, and the region, its copies included, does not outlive it.
    pub(crate) unsafe fn region(&self, at: u64) -> Result<GuestRegionMmap, MemoryError> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let start = self.start.as_ptr().wrapping_add(self.offset);
        let builder = MmapRegionBuilder::new(self.bytes).with_mmap_prot(protection).with_mmap_flags(flags);
        // SAFETY: a private mapping that can be written has this protection, and outlives the region, by the contract of
        // this function. That parts of it may be of files matters to nobody.
        let region = unsafe { builder.with_raw_mmap_pointer(start) }.build();
        let region = region.map_err(|error| MemoryError::Layout(error.to_string()))?;
        GuestRegionMmap::new(region, GuestAddress(at)).ok_or_else(|| MemoryError::Layout(format!("region at {at:#x} overflows")))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.mapped_bytes == 0 {
            return;
        }
        // SAFETY: the mapping was made by this value, and by the contract of `region` nothing refers to it any more.
        let result = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.mapped_bytes) };
        debug_assert!(result.is_ok(), "unmapping what was mapped");
    }
}

/// Which way bytes are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Out of guest memory.
    Out,
    /// Into it.
    In,
}

/// What guest memory is made equal to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source<'a> {
    Bytes(&'a [u8]),
    /// From an offset on.
    Mapping(&'a Mapping, u64),
}

/// A file whose parts become memory of guests.
#[derive(Debug)]
pub(crate) struct Backing {
    what: &'static str,
    pub(crate) file: File,
    bytes: u64,
    /// All of it, if nobody can change it any more.
    pub(crate) view: Option<Mapping>,
}

impl Backing {
    /// A file in memory of this size, to be filled and then sealed.
    pub(crate) fn in_memory(what: &'static str, bytes: u64) -> Result<Self, MemoryError> {
        let error = |errno: rustix::io::Errno| MemoryError::Map { what, bytes, source: errno.into() };
        let fd = rustix::fs::memfd_create("mote-snapshot", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).map_err(error)?;
        rustix::fs::ftruncate(&fd, bytes).map_err(error)?;
        Ok(Self { what, file: File::from(fd), bytes, view: None })
    }

    /// Lets nobody change it any more, this process included.
    pub(crate) fn seal(mut self) -> Result<Self, MemoryError> {
        let (what, bytes) = (self.what, self.bytes);
        let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&self.file, seals).map_err(|errno| MemoryError::Map { what, bytes, source: errno.into() })?;
        self.view = Some(Mapping::file(what, self.file.as_fd(), bytes)?);
        Ok(self)
    }

    /// A file that others may be able to change.
    pub(crate) fn from_file(what: &'static str, file: File, bytes: u64) -> Self {
        Self { what, file, bytes, view: None }
    }

    /// A sealed file in memory with these contents.
    #[cfg(test)]
    pub(crate) fn from_bytes(what: &'static str, contents: &[u8]) -> Result<Self, MemoryError> {
        let backing = Self::in_memory(what, contents.len() as u64)?;
        std::os::unix::fs::FileExt::write_all_at(&backing.file, contents, 0).unwrap();
        backing.seal()
    }
}

pub(crate) fn to_offset(offset: u64) -> io::Result<i64> {
    i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Counts the pages of a part of a mapping that are present (mincore(2)). What of it lies behind the mapping has none.
pub(crate) fn resident_bytes(mapping: &Mapping, offset: u64, bytes: u64) -> u64 {
    let page_bytes = usize::try_from(PAGE_BYTES).unwrap_or(4096);
    let place = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(mapping.bytes);
    let (start, end) = (place(offset), place(offset.saturating_add(bytes)));
    let mut pages = vec![0u8; (end - start).div_ceil(page_bytes).min(1 << 16)];
    let mut resident = 0;
    for offset in (start..end).step_by((pages.len() * page_bytes).max(1)) {
        let bytes = (end - offset).min(pages.len() * page_bytes);
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

    #[test]
    fn more_than_the_address_space_is_refused() {
        assert!(Mapping::anonymous("test", u64::MAX).is_err());
        assert!(Mapping::anonymous("test", 1 << 60).is_err());
    }
}
