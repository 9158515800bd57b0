//! Which pages of a private mapping are the process's own: written to since they were mapped, so that they are not the file's
//! any more (or were never a file's).
//!
//! Source: Linux documentation, admin-guide/mm/pagemap.rst. The ioctl PAGEMAP_SCAN is there from Linux 6.7 on; before that the
//! same is read from the file, eight bytes for each page.

use std::{
    fs::File,
    io,
    ops::Range,
    os::{fd::AsRawFd, unix::fs::FileExt},
};

use mote_abi::layout::PAGE_BYTES;

/// Categories of PAGEMAP_SCAN.
const IS_FILE: u64 = 1 << 2;
const IS_PRESENT: u64 = 1 << 3;
const IS_SWAPPED: u64 = 1 << 4;
/// Bits of an entry of the file.
const ENTRY_FILE: u64 = 1 << 61;
const ENTRY_SWAPPED: u64 = 1 << 62;
const ENTRY_PRESENT: u64 = 1 << 63;

/// Ranges that one ioctl, entries that one read brings.
const MAX_RANGES: usize = 512;
const MAX_ENTRIES: usize = 8192;

/// struct pm_scan_arg.
#[repr(C)]
#[derive(Debug, Default)]
struct ScanArgument {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vector: u64,
    vector_length: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_any_of_mask: u64,
    return_mask: u64,
}

/// struct page_region.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

vmm_sys_util::ioctl_iowr_nr!(PAGEMAP_SCAN, b'f' as u32, 16, ScanArgument);

/// The page map of this process.
#[derive(Debug)]
pub(crate) struct PageMap {
    file: File,
    has_scan: bool,
}

impl PageMap {
    /// Opens it and finds out what it can.
    pub(crate) fn open() -> io::Result<Self> {
        let file = File::open("/proc/self/pagemap")?;
        let mut map = Self { file, has_scan: true };
        map.has_scan = map.scan(0..PAGE_BYTES, &mut Vec::new()).is_ok();
        Ok(map)
    }

    /// The pages of `range` that are the process's own, as ranges of addresses in rising order.
    pub(crate) fn private_pages(&self, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
        let mut found = Vec::new();
        if self.has_scan {
            self.scan(range, &mut found)?
        } else {
            self.read(range, &mut found)?
        }
        Ok(found)
    }

    fn scan(&self, range: Range<u64>, found: &mut Vec<Range<u64>>) -> io::Result<()> {
        let mut regions = [PageRegion::default(); MAX_RANGES];
        let mut start = range.start;
        while start < range.end {
            let mut argument = ScanArgument {
                size: size_of::<ScanArgument>() as u64,
                start,
                end: range.end,
                vector: regions.as_mut_ptr() as u64,
                vector_length: MAX_RANGES as u64,
                category_inverted: IS_FILE,
                category_mask: IS_FILE,
                category_any_of_mask: IS_PRESENT | IS_SWAPPED,
                return_mask: IS_PRESENT,
                ..ScanArgument::default()
            };
            // SAFETY: the argument has the size that it says and lives through the call, and so does the vector, which has as
            // many elements as it says.
            let count = unsafe { vmm_sys_util::ioctl::ioctl_with_mut_ref(&self.file, PAGEMAP_SCAN(), &mut argument) };
            let Ok(count) = usize::try_from(count) else {
                let error = io::Error::last_os_error();
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                return Err(error);
            };
            for region in regions.iter().take(count) {
                push(found, region.start..region.end);
            }
            if argument.walk_end <= start {
                return Err(io::Error::other("PAGEMAP_SCAN does not get on"));
            }
            start = argument.walk_end;
        }
        Ok(())
    }

    fn read(&self, range: Range<u64>, found: &mut Vec<Range<u64>>) -> io::Result<()> {
        let mut buffer = [0; 8 * MAX_ENTRIES];
        let pages = (range.end - range.start) / PAGE_BYTES;
        let mut page = 0;
        while page < pages {
            let entries = usize::try_from(pages - page).unwrap_or(MAX_ENTRIES).min(MAX_ENTRIES);
            let bytes = buffer.get_mut(..8 * entries).unwrap_or(&mut []);
            self.file.read_exact_at(bytes, (range.start / PAGE_BYTES + page) * 8)?;
            for (index, entry) in bytes.as_chunks::<8>().0.iter().enumerate() {
                let entry = u64::from_ne_bytes(*entry);
                if entry & (ENTRY_PRESENT | ENTRY_SWAPPED) != 0 && entry & ENTRY_FILE == 0 {
                    let start = range.start + (page + index as u64) * PAGE_BYTES;
                    push(found, start..start + PAGE_BYTES);
                }
            }
            page += entries as u64;
        }
        Ok(())
    }
}

/// Adds a range, as part of the last one if it follows that.
fn push(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    match ranges.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => ranges.push(range),
    }
}

impl AsRawFd for PageMap {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.file.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Backing, Mapping};

    #[test]
    fn written_pages_are_found_either_way_and_others_are_not() {
        let backing = Backing::from_bytes("test", &[7; 64 << 10]).unwrap();
        let mapping = Mapping::anonymous("test", 128 << 10).unwrap();
        mapping.overlay(0, 64 << 10, &backing, 0).unwrap();
        let start = mapping.host_address();
        for page in [0u64, 3, 4, 20] {
            mapping.write(page * PAGE_BYTES, &[1]).unwrap();
        }
        let mut read = [0];
        mapping.read(9 * PAGE_BYTES, &mut read).unwrap();
        assert_eq!(read, [7]);
        let at = |page: u64| start + page * PAGE_BYTES;
        let expected = [at(0)..at(1), at(3)..at(5), at(20)..at(21)];
        let map = PageMap::open().unwrap();
        for has_scan in [map.has_scan, false] {
            let map = PageMap { file: map.file.try_clone().unwrap(), has_scan };
            assert_eq!(map.private_pages(start..at(32)).unwrap(), expected, "scan: {has_scan}");
        }
    }
}
