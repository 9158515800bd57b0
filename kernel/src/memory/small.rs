//! Small allocations: free lists by size in front of `linked_list_allocator`.
//!
//! That one looks for room in a list of all gaps, which takes longer the more of them a module causes. So it only gives out
//! runs of [`RUN_BYTES`], from which blocks of each size class are cut; what is freed waits in the list of its class for the
//! next of the same. Memory of one class never becomes that of another.

use core::{
    alloc::Layout,
    ptr::{self, NonNull},
};

use linked_list_allocator::Heap;
use mote_kernel_logic::classes::{ALIGNMENT, CLASSES, class_bytes, class_of, class_within};

/// What is taken at once to be cut into blocks.
const RUN_BYTES: usize = 64 << 10;

/// The small heap.
pub(super) struct SmallHeap {
    backing: Heap,
    /// The first free block of each class.
    free: [Option<NonNull<FreeBlock>>; CLASSES],
    /// The rest of the last run.
    run: NonNull<u8>,
    run_bytes: usize,
}

/// A free block holds the next one of its class.
struct FreeBlock {
    next: Option<NonNull<FreeBlock>>,
}

const _: () = assert!(size_of::<FreeBlock>() <= ALIGNMENT && align_of::<FreeBlock>() <= ALIGNMENT);

// SAFETY: the pointers lead into memory that this heap owns alone.
unsafe impl Send for SmallHeap {}

impl SmallHeap {
    pub(super) const fn empty() -> Self {
        Self { backing: Heap::empty(), free: [None; CLASSES], run: NonNull::dangling(), run_bytes: 0 }
    }

    /// Gives it its memory.
    ///
    /// # Safety
    ///
    /// To be called once. The memory is this heap's alone, valid, and lives for ever.
    pub(super) unsafe fn init(&mut self, start: *mut u8, bytes: usize) {
        // SAFETY: by the contract of this function.
        unsafe { self.backing.init(start, bytes) }
    }

    /// A block for `layout`, or null.
    pub(super) fn allocate(&mut self, layout: Layout) -> *mut u8 {
        let Some(class) = class_for(layout) else {
            return self.backing.allocate_first_fit(layout).map_or(ptr::null_mut(), NonNull::as_ptr);
        };
        if let Some(list) = self.free.get_mut(class)
            && let Some(block) = *list
        {
            // SAFETY: a block in a list is free, was written when it was put there, and is in no other.
            *list = unsafe { block.read().next };
            return block.as_ptr().cast();
        }
        self.cut(class_bytes(class))
    }

    /// A new block of `bytes`, the size of a class, or null.
    fn cut(&mut self, bytes: usize) -> *mut u8 {
        if self.run_bytes < bytes {
            let Ok(layout) = Layout::from_size_align(RUN_BYTES, ALIGNMENT) else { return ptr::null_mut() };
            let Ok(run) = self.backing.allocate_first_fit(layout) else { return ptr::null_mut() };
            self.keep_rest();
            (self.run, self.run_bytes) = (run, RUN_BYTES);
        }
        let block = self.run.as_ptr();
        // SAFETY: the run has `run_bytes` bytes from here on, at least as many as are taken.
        self.run = unsafe { self.run.add(bytes) };
        self.run_bytes -= bytes;
        block
    }

    /// Puts what is left of the run into the lists.
    fn keep_rest(&mut self) {
        while let Some(class) = class_within(self.run_bytes) {
            let bytes = class_bytes(class);
            self.put(self.run, class);
            // SAFETY: as in `cut`.
            self.run = unsafe { self.run.add(bytes) };
            self.run_bytes -= bytes;
        }
    }

    fn put(&mut self, block: NonNull<u8>, class: usize) {
        let block: NonNull<FreeBlock> = block.cast();
        if let Some(list) = self.free.get_mut(class) {
            // SAFETY: the block is nobody's, large enough and aligned, as every size of a class is.
            unsafe { block.write(FreeBlock { next: *list }) };
            *list = Some(block);
        }
    }

    /// Takes a block back.
    ///
    /// # Safety
    ///
    /// The block came from [`SmallHeap::allocate`] with this layout, and is not used any more.
    pub(super) unsafe fn deallocate(&mut self, block: NonNull<u8>, layout: Layout) {
        match class_for(layout) {
            Some(class) => self.put(block, class),
            // SAFETY: without a class it came from the backing heap, by the contract of this function.
            None => unsafe { self.backing.deallocate(block, layout) },
        }
    }
}

/// The class that serves `layout`; `None` for those that the backing heap serves itself.
fn class_for(layout: Layout) -> Option<usize> {
    if layout.align() <= ALIGNMENT { class_of(layout.size()) } else { None }
}
