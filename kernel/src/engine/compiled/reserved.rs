//! Address space for linear memories, as `wasmtime` asks for it by the functions of its platform interface.
//!
//! Each reservation gets slots of [`LINEAR`] that nothing had before. What of them may be touched is announced to the host, which
//! maps RAM there, and only there, when it is touched: so a reservation costs nothing, growing costs no hypercall, and what is
//! outside of a memory is an exception. Slots are not used twice, as what was mapped in them stays mapped.

use alloc::boxed::Box;
use core::{
    ptr,
    sync::atomic::{AtomicPtr, AtomicU64, Ordering},
};

use mote_abi::{
    announce::{Committed, committed_at},
    hypercall::CopyModuleArgs,
    layout::{LINEAR, LINEAR_SLOT_BYTES, LINEAR_SLOTS, MODULE, PAGE_BYTES},
};

use crate::hypercall;

/// Bit of `wasmtime`'s protections: the memory can be written.
const WRITABLE: u32 = 1 << 1;

/// The first slot that nothing had.
static NEXT_SLOT: AtomicU64 = AtomicU64::new(0);

/// What `wasmtime` has for each thread, of which there is one.
static THREAD: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());

/// Reserves address space.
#[unsafe(no_mangle)]
extern "C" fn wasmtime_mmap_new(bytes: usize, protection: u32, result: &mut *mut u8) -> i32 {
    let slots = (bytes as u64).div_ceil(LINEAR_SLOT_BYTES);
    let slot = NEXT_SLOT.load(Ordering::Relaxed);
    if slots > LINEAR_SLOTS - slot {
        return failed("no address space is left for a memory");
    }
    NEXT_SLOT.store(slot + slots, Ordering::Relaxed);
    let start = LINEAR.start + slot * LINEAR_SLOT_BYTES;
    *result = start as *mut u8;
    wasmtime_mprotect(start as *mut u8, if protection & WRITABLE == 0 { 0 } else { bytes }, WRITABLE)
}

/// Lets memory be touched. What was announced of a slot before must end where this begins.
#[unsafe(no_mangle)]
extern "C" fn wasmtime_mprotect(start: *mut u8, bytes: usize, protection: u32) -> i32 {
    if bytes == 0 {
        return 0;
    }
    let (mut at, end) = (start as u64, (start as u64).saturating_add(bytes as u64));
    if protection & WRITABLE == 0 || !LINEAR.contains_range(at, bytes as u64) || !(at | end).is_multiple_of(PAGE_BYTES) {
        return failed("memory cannot be taken away, nor be where none was reserved");
    }
    while at < end {
        let part_end = end.min((at / LINEAR_SLOT_BYTES + 1) * LINEAR_SLOT_BYTES);
        if !commit(at, part_end) {
            return failed("a memory would have a gap");
        }
        at = part_end;
    }
    0
}

/// Announces that a part of one slot may be touched; whether it goes on where what was announced before ended.
fn commit(start: u64, end: u64) -> bool {
    let Some(place) = committed_at(start) else { return false };
    let place = place as *mut Committed;
    // SAFETY: the place is RAM that is mapped for the kernel, aligned, one of each slot. Volatile, as the host reads it.
    let before = unsafe { ptr::read_volatile(place) };
    let grown = match before {
        Committed { start: 0, end: 0 } => Committed { start, end },
        before if before.start <= start && start <= before.end => Committed { start: before.start, end: end.max(before.end) },
        _ => return false,
    };
    // SAFETY: as above.
    unsafe { ptr::write_volatile(place, grown) };
    true
}

/// There is nothing to do: slots are not used twice.
#[unsafe(no_mangle)]
extern "C" fn wasmtime_munmap(_: *mut u8, _: usize) -> i32 {
    0
}

/// Would replace memory by other memory, which only an allocator with pools asks for.
#[unsafe(no_mangle)]
extern "C" fn wasmtime_mmap_remap(_: *mut u8, _: usize, _: u32) -> i32 {
    failed("memory cannot be replaced")
}

#[unsafe(no_mangle)]
extern "C" fn wasmtime_page_size() -> usize {
    PAGE_BYTES as usize
}

/// The initial contents of a memory: a part of an artifact.
struct Image {
    start: u64,
    bytes: u64,
}

/// What is smaller the engine copies itself: an exit costs more.
const SMALLEST_IMAGE_BYTES: usize = 128 << 10;

/// Makes an image of what lies in an artifact, or none.
#[unsafe(no_mangle)]
extern "C" fn wasmtime_memory_image_new(start: *const u8, bytes: usize, image: &mut *mut Image) -> i32 {
    let (start, bytes) = (start as u64, bytes as u64);
    *image = if bytes >= SMALLEST_IMAGE_BYTES as u64 && MODULE.contains_range(start, bytes) {
        Box::into_raw(Box::new(Image { start, bytes }))
    } else {
        ptr::null_mut()
    };
    0
}

/// Puts an image where a memory is new.
#[unsafe(no_mangle)]
extern "C" fn wasmtime_memory_image_map_at(image: *const Image, to: *mut u8, bytes: usize) -> i32 {
    // SAFETY: wasmtime gives back what `wasmtime_memory_image_new` made, before it frees that.
    let Image { start, bytes: image_bytes } = unsafe { &*image };
    let arguments = CopyModuleArgs { from: *start, to: to as u64, bytes: bytes as u64 };
    if bytes as u64 <= *image_bytes && hypercall::copy_module(&arguments) {
        0
    } else {
        failed("a memory has no room for its data")
    }
}

#[unsafe(no_mangle)]
extern "C" fn wasmtime_memory_image_free(image: *mut Image) {
    // SAFETY: as above; wasmtime frees each image once.
    drop(unsafe { Box::from_raw(image) });
}

#[unsafe(no_mangle)]
extern "C" fn wasmtime_tls_get(slot: usize) -> *mut u8 {
    if slot == 0 { THREAD.load(Ordering::Relaxed) } else { ptr::null_mut() }
}

#[unsafe(no_mangle)]
extern "C" fn wasmtime_tls_set(slot: usize, value: *mut u8) {
    if slot == 0 {
        THREAD.store(value, Ordering::Relaxed);
    }
}

fn failed(why: &str) -> i32 {
    log::debug!("{why}");
    1
}
