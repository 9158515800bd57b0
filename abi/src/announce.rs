//! What the kernel tells of itself without a hypercall, at [`crate::layout::ANNOUNCED`]: the host reads it when it needs it.
//!
//! Like all that comes from the guest it is an allegation. Whatever it says, the host maps nothing but RAM of the pool in
//! [`LINEAR`], readable and writable, and lets nothing but ring 3 handle exceptions.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::layout::{ANNOUNCED, LINEAR, LINEAR_SLOT_BYTES, PAGE_BYTES};

/// Where the kernel writes the address of its handler of exceptions in compiled code; 0 for none.
///
/// An exception in [`crate::layout::MODULE`] that asks for no memory makes ring 3 go on there, with all registers but `rip` as
/// they were; what happened is at [`crate::boot::HostStatus::exception`].
pub const HANDLER: u64 = ANNOUNCED.start;

/// The part of a slot of [`LINEAR`] in which memory may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Committed {
    /// First address, a multiple of the page size.
    pub start: u64,
    /// First address behind it, a multiple of the page size.
    pub end: u64,
}

impl Committed {
    /// The pages of the slot with `address` that may be touched; `None` if what was announced is no part of that slot.
    pub fn pages(self, address: u64) -> Option<core::ops::Range<u64>> {
        let slot = address / LINEAR_SLOT_BYTES * LINEAR_SLOT_BYTES;
        let Self { start, end } = self;
        let aligned = start.is_multiple_of(PAGE_BYTES) && end.is_multiple_of(PAGE_BYTES);
        (aligned && slot <= start && start < end && end <= slot + LINEAR_SLOT_BYTES).then_some(start..end)
    }
}

/// Where the [`Committed`] of the slot with `address` lies; `None` for an address outside of [`LINEAR`].
pub const fn committed_at(address: u64) -> Option<u64> {
    if !LINEAR.contains(address) {
        return None;
    }
    let slot = (address - LINEAR.start) / LINEAR_SLOT_BYTES;
    Some(ANNOUNCED.start + PAGE_BYTES + slot * size_of::<Committed>() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::LINEAR_SLOTS;
    use proptest::prelude::*;

    #[test]
    fn every_slot_has_its_place() {
        assert_eq!(committed_at(LINEAR.start), Some(ANNOUNCED.start + PAGE_BYTES));
        assert_eq!(committed_at(LINEAR.end - 1), Some(ANNOUNCED.end - 16));
        assert_eq!(committed_at(LINEAR.end), None);
        assert_eq!(committed_at(LINEAR.start - 1), None);
        assert_eq!(ANNOUNCED.bytes(), PAGE_BYTES + LINEAR_SLOTS * 16);
    }

    proptest! {
        #[test]
        fn pages_never_leave_their_slot(start: u64, end: u64, offset in 0..LINEAR.bytes()) {
            let address = LINEAR.start + offset;
            if let Some(pages) = (Committed { start, end }).pages(address) {
                prop_assert!(LINEAR.contains(pages.start) && pages.end <= LINEAR.end && pages.start < pages.end);
                prop_assert_eq!(pages.start / LINEAR_SLOT_BYTES, address / LINEAR_SLOT_BYTES);
            }
        }
    }
}
