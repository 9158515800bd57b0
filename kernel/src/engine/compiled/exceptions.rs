//! Exceptions of the processor in compiled code, which are its traps.
//!
//! The host makes ring 3 go on at the handler that the kernel announced. There `wasmtime` looks the instruction up in the tables
//! of the artifact, and unwinds to the call from outside.

use core::{
    ptr,
    sync::atomic::{AtomicUsize, Ordering},
};

use mote_abi::{
    announce,
    boot::{Exception, status_offset},
    layout::HOST_STATUS,
};

use crate::failure;

/// Page fault.
const PAGE_FAULT: u64 = 14;

/// What `wasmtime` does about an exception: instruction, frame, whether there is an address, address. It returns only where the
/// exception is no trap.
type Handler = extern "C" fn(usize, usize, bool, usize);

/// The handler; 0 before there is one.
static HANDLER: AtomicUsize = AtomicUsize::new(0);

/// Where wasmtime tells its handler.
#[unsafe(no_mangle)]
extern "C" fn wasmtime_init_traps(handler: Handler) -> i32 {
    HANDLER.store(handler as usize, Ordering::Relaxed);
    // SAFETY: the word is RAM that is mapped for the kernel to write, aligned, and read by the host only.
    unsafe { ptr::write_volatile(announce::HANDLER as *mut u64, entry as *const () as u64) };
    0
}

/// Where ring 3 goes on after an exception in compiled code. The stack pointer is that of the code; its frame is in `rbp`.
#[unsafe(naked)]
extern "C" fn entry() -> ! {
    core::arch::naked_asm!(
        "cld",
        "and rsp, -16",
        "mov rdi, rbp",
        "xor ebp, ebp",
        "call {handle}",
        "ud2",
        handle = sym handle,
    )
}

extern "C" fn handle(frame: usize) -> ! {
    let at = HOST_STATUS.start + status_offset::EXCEPTION;
    // SAFETY: the field lies in a mapped page, aligned; every bit pattern is one. Volatile, as the host wrote it just now.
    let Exception { vector, rip, address } = unsafe { ptr::read_volatile(at as *const Exception) };
    let handler = HANDLER.load(Ordering::Relaxed);
    if handler != 0 {
        // SAFETY: the only value that is stored there but 0 is a handler of this type.
        let handler: Handler = unsafe { core::mem::transmute(handler) };
        handler(rip as usize, frame, vector == PAGE_FAULT, address as usize);
    }
    failure::abort_fmt(format_args!(
        "exception {vector} at {rip:#x} (address {address:#x}) in compiled code, which has no trap there"
    ))
}
