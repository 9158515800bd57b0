//! The ramdisk: the archive's file system with the guest's own memory as its bound.

use alloc::{format, string::String};

use mote_kernel_logic::ramdisk::{Budget, RamDisk};

use crate::{clock, guest};

pub(super) use mote_kernel_logic::ramdisk::ROOT;

/// The file system of the archive and what was written over it.
pub(super) type Disk = RamDisk<'static, FreeRam>;

/// What is always left to linear memories and to the engine.
const RESERVE_BYTES: u64 = 4 << 20;

/// A file system that may grow as long as there is RAM.
pub(super) struct FreeRam;

impl Budget for FreeRam {
    fn take(&mut self, bytes: u64) -> bool {
        guest::free_ram_bytes() >= bytes.saturating_add(RESERVE_BYTES)
    }

    /// The heap has it back already.
    fn give(&mut self, _bytes: u64) {}
}

/// The file system in `archive`; what is wrong with it otherwise.
pub(super) fn load(archive: &'static [u8]) -> Result<Disk, String> {
    let disk = RamDisk::new(archive, FreeRam, clock::realtime_ns()).map_err(|error| format!("its ramdisk: {error}"))?;
    if disk.skipped() > 0 {
        log::warn!("ramdisk: {} entries are left out, as they are neither files nor directories nor links", disk.skipped());
    }
    Ok(disk)
}
