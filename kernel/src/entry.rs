//! The first instructions, and the symbols that the compiler expects of a platform.

use mote_abi::{ABI_VERSION, note::AbiNote};

/// Tells the VMM which contract this image speaks.
#[used]
#[unsafe(link_section = ".note.mote")]
static NOTE: AbiNote = AbiNote::new(ABI_VERSION);

/// ELF entry. Brings the floating-point units into the state that compiled code expects, then never returns.
///
/// Preconditions, kept by whoever starts the kernel:
/// 1. 64-bit mode, ring 3, interrupts off, direction flag clear;
/// 2. `rsp` is the end of the stack region, a multiple of 16;
/// 3. CR0 and CR4 allow SSE.
#[unsafe(naked)]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".text._start")]
extern "C" fn _start() -> ! {
    core::arch::naked_asm!(
        "fninit",
        "sub rsp, 16",
        "mov dword ptr [rsp], 0x1f80", // all exceptions masked, round to nearest (volume 1, section 4.2.2)
        "ldmxcsr [rsp]",
        "add rsp, 16",
        "xor ebp, ebp",
        "call {main}",
        "ud2",
        main = sym crate::main,
    )
}

/// Named by the compiler's tables even where nothing unwinds.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// See [`rust_eh_personality`].
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    crate::failure::abort("unwinding in a kernel that aborts on panic")
}
