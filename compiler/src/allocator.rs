//! The allocator of the system, with an end of its own for want of memory: the parent tells the limit from a crash by it.

use std::alloc::{GlobalAlloc, Layout, System};

use crate::protocol;

struct Limited;

#[global_allocator]
static ALLOCATOR: Limited = Limited;

fn checked(block: *mut u8) -> *mut u8 {
    if block.is_null() {
        // SAFETY: it ends the process and runs nothing of it, so it may be called in any state.
        unsafe { libc::_exit(protocol::OUT_OF_MEMORY) }
    }
    block
}

// SAFETY: all of it is the allocator of the system, but for what does not return.
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are the same.
        checked(unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are the same.
        checked(unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_bytes: usize) -> *mut u8 {
        // SAFETY: the caller's promises are the same.
        checked(unsafe { System.realloc(block, layout, new_bytes) })
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the same.
        unsafe { System.dealloc(block, layout) }
    }
}
