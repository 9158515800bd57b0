//! The ramdisk: the archive's file system with the guest's own memory as its bound.

use alloc::{format, string::String};

use mote_kernel_logic::ramdisk::{Budget, RamDisk};

use crate::{clock, guest};

pub(super) use mote_kernel_logic::ramdisk::ROOT;

/// The file system of the archive and what was written over it.
pub(super) type Disk = RamDisk<'static, FreeRam>;

/// What is left to linear memories and to the engine when the disk is full.
const RESERVE_BYTES: u64 = 4 << 20;
/// What must be left for memory to be used again: the heap may have none of the size that is wanted.
const LEAST_BYTES: u64 = 2 << 20;

/// A file system that may grow as long as there is RAM.
#[derive(Default)]
pub(super) struct FreeRam {
    /// What the disk had and gave back. The heap keeps it, and it counts as free RAM no more.
    given_bytes: u64,
}

impl Budget for FreeRam {
    fn take(&mut self, bytes: u64) -> bool {
        let free_bytes = guest::free_ram_bytes();
        if self.given_bytes >= bytes && free_bytes >= LEAST_BYTES {
            self.given_bytes -= bytes;
            return true;
        }
        free_bytes >= bytes.saturating_add(RESERVE_BYTES)
    }

    fn give(&mut self, bytes: u64) {
        self.given_bytes = self.given_bytes.saturating_add(bytes);
    }
}

/// The file system in `archive`; what is wrong with it otherwise.
pub(super) fn load(archive: &'static [u8]) -> Result<Disk, String> {
    let disk =
        RamDisk::new(archive, FreeRam::default(), clock::realtime_ns()).map_err(|error| format!("its ramdisk: {error}"))?;
    if disk.skipped() > 0 {
        log::warn!("ramdisk: {} entries are left out, as they are neither files nor directories nor links", disk.skipped());
    }
    Ok(disk)
}
