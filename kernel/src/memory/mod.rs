//! The heap: three demand regions behind one global allocator.
//!
//! Below 64 KiB free lists by size serve, and `linked_list_allocator` behind them; from there to 2 MiB pages in first fit; from 2 MiB on every allocation
//! has a slot of address space in which it grows in place. All regions are address space only: the first touch of each
//! 2 MiB makes the host map RAM there, so reserving more than is used costs nothing. A linear memory that doubles its
//! capacity moves at most until it is 2 MiB large and costs RAM only for what it uses.

mod intrinsics;
mod small;
mod untouched;

use core::{
    alloc::{GlobalAlloc, Layout},
    ptr::{self, NonNull},
    sync::atomic::{AtomicBool, Ordering},
};

use mote_abi::layout::{CHUNK_BYTES, HEAP, LARGE, MEDIUM, PAGE_BYTES};
use mote_kernel_logic::{large::LargeSlots, medium::MediumPages};
use small::SmallHeap;
use spin::Mutex;

use crate::guest::{self, BootInfo};

/// From here on an allocation is medium.
const MEDIUM_BYTES: usize = 64 << 10;
/// From here on an allocation is large.
const LARGE_BYTES: usize = CHUNK_BYTES as usize;
/// Medium allocations and gaps between them that can be kept track of.
const MEDIUM_EXTENTS: usize = 2048;

struct KernelHeap {
    small: Mutex<SmallHeap>,
    medium: Mutex<MediumPages<MEDIUM_EXTENTS>>,
    large: Mutex<LargeSlots>,
}

#[global_allocator]
static HEAP_ALLOCATOR: KernelHeap = KernelHeap {
    small: Mutex::new(SmallHeap::empty()),
    medium: Mutex::new(MediumPages::new(MEDIUM.start, (MEDIUM.bytes() / PAGE_BYTES) as u32)),
    large: Mutex::new(LargeSlots::new()),
};

static EXHAUSTED: AtomicBool = AtomicBool::new(false);

/// Gives the small heap its address space. To be called once, before the first allocation.
pub(crate) fn init() {
    let bytes = BootInfo::read().ram_bytes().min(HEAP.bytes());
    // SAFETY: HEAP belongs to this heap alone, is mapped on demand, and lives for ever.
    unsafe { HEAP_ALLOCATOR.small.lock().init(HEAP.start as *mut u8, bytes as usize) };
}

/// Whether an allocation was refused, ever.
pub(crate) fn was_exhausted() -> bool {
    EXHAUSTED.load(Ordering::Relaxed)
}

// SAFETY: every path returns memory of one region's allocator, which hands out no byte twice, or null. Blocks of the
// medium and large regions are aligned to at least a page; greater alignments are refused.
unsafe impl GlobalAlloc for KernelHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let block = match layout.size() {
            ..MEDIUM_BYTES => self.small.lock().allocate(layout),
            _ if layout.align() as u64 > PAGE_BYTES => ptr::null_mut(),
            bytes => self.address_space(bytes as u64),
        };
        if block.is_null() {
            EXHAUSTED.store(true, Ordering::Relaxed);
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let address = block as u64;
        let known = if HEAP.contains(address) {
            // SAFETY: by the caller's contract the block came from `alloc` with this layout, and lies in the small heap.
            NonNull::new(block).map(|block| unsafe { self.small.lock().deallocate(block, layout) }).is_some()
        } else if MEDIUM.contains(address) {
            self.medium.lock().free(address)
        } else {
            self.large.lock().free(address)
        };
        debug_assert!(known, "freed a block that is none");
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_bytes: usize) -> *mut u8 {
        let address = block as u64;
        let grown = (LARGE.contains(address) && self.large.lock().resize(address, new_bytes as u64))
            || (MEDIUM.contains(address) && new_bytes < LARGE_BYTES && self.medium.lock().resize(address, new_bytes as u64));
        if grown {
            return block;
        }
        // SAFETY: the caller gives a size that is valid with this alignment.
        let new = unsafe { self.alloc(Layout::from_size_align_unchecked(new_bytes, layout.align())) };
        if !new.is_null() {
            // SAFETY: both blocks are live, do not overlap, and have at least the smaller size; the old one is given up.
            unsafe {
                ptr::copy_nonoverlapping(block, new, layout.size().min(new_bytes));
                self.dealloc(block, layout);
            }
        }
        new
    }
}

impl KernelHeap {
    fn address_space(&self, bytes: u64) -> *mut u8 {
        let medium = if bytes < LARGE_BYTES as u64 { self.medium.lock().allocate(bytes) } else { None };
        // Without the RAM for it an allocation fails here, where its owner can still handle that.
        let address = medium.or_else(|| self.large.lock().allocate(bytes, guest::free_ram_bytes()));
        address.map_or(ptr::null_mut(), |address| address as *mut u8)
    }
}
