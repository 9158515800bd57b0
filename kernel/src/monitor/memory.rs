//! Physical memory: as the loader left it, and as it is given to the kernel.

use core::{ptr, slice};

use mote_abi::layout::{BASE, MONITOR_VIEW, PAGE_BYTES, SYSTEM};
use mote_kernel_logic::boot::loader::Physical;
use mote_machine::space::Entries;

/// Memory below 4 GiB as it is mapped before the machine's own tables: for what the loader left.
#[derive(Clone, Copy)]
pub(super) struct Low;

/// Where [`Low`] ends.
pub(super) const LOW_END: u64 = 1 << 32;

impl Physical<'static> for Low {
    fn bytes(self, address: u64, bytes: u64) -> Option<&'static [u8]> {
        let end = address.checked_add(bytes)?;
        // SAFETY: all below 4 GiB is mapped while the loader's structures are read, and the monitor writes only into memory
        // that it keeps for itself. What is no memory reads as ones.
        (address != 0 && end <= LOW_END).then(|| unsafe { slice::from_raw_parts(address as *const u8, bytes as usize) })
    }
}

/// Copies to where nothing is yet.
///
/// # Safety
///
/// `to` is the address of as many bytes of memory below 4 GiB that nothing else uses, and [`Low`] is mapped.
pub(super) unsafe fn copy_low(to: u64, from: &[u8]) {
    // SAFETY: by the contract of this function.
    unsafe { ptr::copy(from.as_ptr(), to as *mut u8, from.len()) };
}

/// Base RAM and system area, which the monitor can write at its view whatever ring 3 may do.
#[derive(Clone, Copy)]
pub(super) struct View;

/// What the view adds to an address.
const VIEW_OFFSET: u64 = MONITOR_VIEW.start - BASE.start;

impl View {
    fn at<T>(address: u64) -> Option<*mut T> {
        (Self::has(address, size_of::<T>() as u64) && address.is_multiple_of(align_of::<T>() as u64))
            .then_some((address + VIEW_OFFSET) as *mut T)
    }

    /// Reads a value that is valid whatever its bytes are. Zero for what does not lie there.
    pub(super) fn load<T: zerocopy::FromBytes>(address: u64) -> T {
        match Self::at::<T>(address) {
            // SAFETY: the address was checked to lie in memory that is always mapped, aligned; every pattern is a value. Ring 3
            // does not run meanwhile.
            Some(place) => unsafe { ptr::read_volatile(place) },
            None => T::new_zeroed(),
        }
    }

    /// Writes a value; nothing for what does not lie there.
    pub(super) fn store<T: zerocopy::IntoBytes>(address: u64, value: T) {
        if let Some(place) = Self::at::<T>(address) {
            // SAFETY: as above; the regions hold nothing that Rust relies on while the monitor runs.
            unsafe { ptr::write_volatile(place, value) };
        }
    }

    /// Copies bytes in; nothing if they do not fit.
    pub(super) fn write(address: u64, bytes: &[u8]) {
        if let Some(place) = Self::range(address, bytes.len()) {
            // SAFETY: the range was checked; it is mapped and nobody refers to it.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) };
        }
    }

    /// What lies in a range, until the kernel goes on; nothing if it is not in there.
    pub(super) fn slice(address: u64, bytes: usize) -> &'static [u8] {
        let place = Self::range(address, bytes);
        // SAFETY: the range was checked and is mapped. Ring 3 does not run while the monitor does, and the monitor itself writes
        // neither the ring nor the texts of a request that it reads.
        place.map_or(&[], |place| unsafe { slice::from_raw_parts(place, bytes) })
    }

    /// Makes a range zero.
    pub(super) fn clear(address: u64, bytes: u64) {
        if let Some(place) = Self::range(address, bytes as usize) {
            // SAFETY: as above.
            unsafe { clear(place as u64, bytes) };
        }
    }

    fn has(address: u64, bytes: u64) -> bool {
        BASE.contains_range(address, bytes) || SYSTEM.contains_range(address, bytes)
    }

    fn range(address: u64, bytes: usize) -> Option<*mut u8> {
        Self::has(address, bytes as u64).then_some((address + VIEW_OFFSET) as *mut u8)
    }
}

impl Entries for View {
    type Error = core::convert::Infallible;

    fn load(&self, address: u64) -> Result<u64, Self::Error> {
        Ok(Self::load(address))
    }

    fn store(&self, address: u64, entry: u64) -> Result<(), Self::Error> {
        Self::store(address, entry);
        Ok(())
    }

    fn clear(&self, address: u64) -> Result<(), Self::Error> {
        Self::clear(address, PAGE_BYTES);
        Ok(())
    }
}

/// Copies words of eight bytes.
///
/// # Safety
///
/// So many words can be read at `from` and written at `to`, to which nobody refers; they do not overlap.
pub(super) unsafe fn copy_words(to: u64, from: u64, words: u64) {
    // SAFETY: by the contract of this function. The direction flag is clear in all of Rust.
    unsafe {
        core::arch::asm!("rep movsq", inout("rcx") words => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags));
    }
}

/// Writes zeros, eight bytes at a time.
///
/// # Safety
///
/// `bytes` bytes at `start`, a multiple of eight, can be written, and nobody refers to them.
pub(super) unsafe fn clear(start: u64, bytes: u64) {
    // SAFETY: by the contract of this function. The direction flag is clear in all of Rust.
    unsafe {
        core::arch::asm!("rep stosq", inout("rcx") bytes / 8 => _, inout("rdi") start => _, in("rax") 0u64,
            options(nostack, preserves_flags));
    }
}
