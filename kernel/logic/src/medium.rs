//! Address space of medium allocations, in pages, first fit; grows in place where the space behind is free.
//!
//! The bookkeeping is a sorted array of extents of fixed capacity: it needs no allocator below it. When it is full,
//! allocations are refused and go elsewhere; frees always succeed.

use mote_abi::layout::PAGE_BYTES;

/// One run of pages.
#[derive(Debug, Clone, Copy)]
struct Extent {
    first_page: u32,
    pages: u32,
    live: bool,
}

/// An allocator of up to `EXTENTS` runs, live and free ones counted, in `pages` pages from `start`.
#[derive(Debug)]
pub struct MediumPages<const EXTENTS: usize> {
    start: u64,
    /// Sorted, without gaps, never two free neighbours; the last `EXTENTS - len` are unused.
    extents: [Extent; EXTENTS],
    len: usize,
}

impl<const EXTENTS: usize> MediumPages<EXTENTS> {
    /// All `pages` pages from address `start` free.
    pub const fn new(start: u64, pages: u32) -> Self {
        assert!(EXTENTS > 0);
        Self { start, extents: [Extent { first_page: 0, pages, live: false }; EXTENTS], len: 1 }
    }

    /// Address for `bytes` bytes, a multiple of the page size; `None` if they are 0 or there is no room.
    pub fn allocate(&mut self, bytes: u64) -> Option<u64> {
        let pages = pages_for(bytes)?;
        let index = self.used().iter().position(|extent| !extent.live && extent.pages >= pages)?;
        self.take(index, pages)?;
        let first_page = self.used().get(index)?.first_page;
        Some(self.start + u64::from(first_page) * PAGE_BYTES)
    }

    /// Gives the allocation at `address` another size in place; `false` if that is not possible.
    pub fn resize(&mut self, address: u64, bytes: u64) -> bool {
        let (Some(index), Some(pages)) = (self.find(address), pages_for(bytes)) else { return false };
        let behind = self.used().get(index + 1).filter(|extent| !extent.live).map_or(0, |extent| extent.pages);
        let Some(extent) = self.extents.get_mut(index) else { return false };
        if pages > extent.pages.saturating_add(behind) {
            return false;
        }
        // As if the free pages behind were freed into this extent, and the wanted ones taken again.
        if behind > 0 {
            extent.pages += behind;
            self.remove(index + 1);
        }
        self.take(index, pages).is_some()
    }

    /// Frees the allocation at `address`; `false` if there is none.
    pub fn free(&mut self, address: u64) -> bool {
        let Some(index) = self.find(address) else { return false };
        if let Some(extent) = self.extents.get_mut(index) {
            extent.live = false;
        }
        self.merge_with_next(index);
        if let Some(before) = index.checked_sub(1) {
            self.merge_with_next(before);
        }
        true
    }

    fn used(&self) -> &[Extent] {
        self.extents.get(..self.len).unwrap_or(&[])
    }

    fn find(&self, address: u64) -> Option<usize> {
        let offset = address.checked_sub(self.start)?;
        let page = u32::try_from(offset / PAGE_BYTES).ok().filter(|_| offset.is_multiple_of(PAGE_BYTES))?;
        let index = self.used().binary_search_by_key(&page, |extent| extent.first_page).ok()?;
        self.used().get(index).filter(|extent| extent.live).map(|_| index)
    }

    /// Makes the extent at `index` live with `pages` pages and splits off the rest. A rest that finds no room in the
    /// array stays with the extent, unless that was free before.
    fn take(&mut self, index: usize, pages: u32) -> Option<()> {
        let full = self.len == EXTENTS;
        let extent = self.extents.get_mut(index)?;
        let rest = extent.pages.checked_sub(pages)?;
        if rest > 0 && full {
            return extent.live.then_some(());
        }
        extent.live = true;
        extent.pages = pages;
        let behind = Extent { first_page: extent.first_page + pages, pages: rest, live: false };
        if rest > 0 {
            let len = self.len;
            self.extents.get_mut(index + 1..=len)?.rotate_right(1);
            *self.extents.get_mut(index + 1)? = behind;
            self.len += 1;
        }
        Some(())
    }

    fn merge_with_next(&mut self, index: usize) {
        if let Some([Extent { live: false, .. }, Extent { live: false, pages, .. }]) = self.used().get(index..index + 2) {
            let pages = *pages;
            if let Some(extent) = self.extents.get_mut(index) {
                extent.pages += pages;
            }
            self.remove(index + 1);
        }
    }

    fn remove(&mut self, index: usize) {
        let len = self.len;
        if let Some(tail) = self.extents.get_mut(index..len) {
            tail.rotate_left(1);
            self.len -= 1;
        }
    }
}

fn pages_for(bytes: u64) -> Option<u32> {
    u32::try_from(bytes.div_ceil(PAGE_BYTES)).ok().filter(|pages| *pages > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const START: u64 = 0x10_0000;
    const PAGES: u32 = 1000;

    fn check<const N: usize>(pages: &MediumPages<N>, live: &[(u64, u64)]) -> Result<(), TestCaseError> {
        let mut next = 0;
        for extent in pages.used() {
            prop_assert_eq!(extent.first_page, next, "gap or overlap");
            prop_assert!(extent.pages > 0);
            next += extent.pages;
        }
        prop_assert_eq!(next, PAGES);
        let neighbours = pages.used().windows(2).any(|pair| !pair[0].live && !pair[1].live);
        prop_assert!(!neighbours, "two free neighbours");
        for (address, bytes) in live {
            let index = pages.find(*address);
            prop_assert!(index.is_some_and(|index| u64::from(pages.used()[index].pages) * PAGE_BYTES >= *bytes));
        }
        Ok(())
    }

    fn drive<const N: usize>(steps: Vec<(u8, u64, usize)>) -> Result<(), TestCaseError> {
        let mut pages = MediumPages::<N>::new(START, PAGES);
        let mut live: Vec<(u64, u64)> = Vec::new();
        for (step, bytes, pick) in steps {
            match step {
                0 => {
                    if let Some(address) = pages.allocate(bytes) {
                        live.push((address, bytes));
                    }
                }
                1 if !live.is_empty() => {
                    let pick = pick % live.len();
                    if pages.resize(live[pick].0, bytes) {
                        live[pick].1 = bytes;
                    }
                }
                2 if !live.is_empty() => {
                    let (address, _) = live.swap_remove(pick % live.len());
                    prop_assert!(pages.free(address));
                    prop_assert!(!pages.free(address), "freed twice");
                }
                _ => {}
            }
            check(&pages, &live)?;
        }
        for (address, _) in live {
            prop_assert!(pages.free(address));
        }
        prop_assert_eq!(pages.len, 1, "everything freed is one extent again");
        Ok(())
    }

    proptest! {
        #[test]
        fn extents_stay_sound(steps in prop::collection::vec((0u8..3, 0u64..200 * PAGE_BYTES, 0usize..64), 1..200)) {
            drive::<64>(steps)?;
        }

        #[test]
        fn a_full_array_refuses_and_stays_sound(steps in prop::collection::vec((0u8..3, 0u64..20 * PAGE_BYTES, 0usize..64), 1..200)) {
            drive::<5>(steps)?;
        }
    }

    #[test]
    fn growth_in_place_takes_the_free_pages_behind() {
        let mut pages = MediumPages::<8>::new(START, PAGES);
        let first = pages.allocate(PAGE_BYTES).unwrap();
        assert!(pages.resize(first, 10 * PAGE_BYTES));
        let second = pages.allocate(PAGE_BYTES).unwrap();
        assert_eq!(second, first + 10 * PAGE_BYTES);
        assert!(!pages.resize(first, 11 * PAGE_BYTES));
        assert!(pages.free(second));
        assert!(pages.resize(first, u64::from(PAGES) * PAGE_BYTES));
        assert!(!pages.resize(first, u64::from(PAGES + 1) * PAGE_BYTES));
    }
}
