//! The first instructions, those around the doorbell, and the symbols that the compiler expects of a platform.

use core::sync::atomic::AtomicU64;

use mote_abi::{
    ABI_VERSION,
    boot::{BootInfo, flags},
    layout::{BOOT_INFO, DOORBELL},
    note::{AbiNote, engine},
};

/// Tells the VMM which contract this image speaks, and what it runs.
#[used]
#[unsafe(link_section = ".note.mote")]
static NOTE: AbiNote = AbiNote::new(ABI_VERSION, ENGINE);

const ENGINE: u32 = if cfg!(feature = "compiled") { engine::COMPILED } else { engine::INTERPRETER };

/// ELF entry. Brings the floating-point units into the state that compiled code expects, then starts the kernel, or lets one
/// go on that was stopped in a hypercall.
///
/// Preconditions, kept by whoever starts the kernel:
/// 1. 64-bit mode, ring 3, interrupts off, direction flag clear;
/// 2. `rsp` is the end of the stack region, a multiple of 16;
/// 3. CR0 and CR4 allow SSE;
/// 4. where the boot information has the flag RESUME, memory is as it was when the kernel rang the doorbell, but for what
///    the host writes, the answer among it.
#[unsafe(naked)]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".text._start")]
pub(crate) extern "C" fn _start() -> ! {
    core::arch::naked_asm!(
        "fninit",
        "test dword ptr [{flags}], {resume_flag}",
        "jnz 2f",
        "sub rsp, 16",
        "mov dword ptr [rsp], 0x1f80", // all exceptions masked, round to nearest (volume 1, section 4.2.2)
        "ldmxcsr [rsp]",
        "add rsp, 16",
        "xor ebp, ebp",
        "call {main}",
        "ud2",
        // The end of the stack region is in use: what goes on is below the place where it was left.
        "2:",
        "mov rsp, [{parked}]",
        "push 0x1f80",
        "ldmxcsr [rsp]",
        "jmp {resume}",
        flags = const BOOT_INFO.start + core::mem::offset_of!(BootInfo, flags) as u64,
        resume_flag = const flags::RESUME,
        parked = sym PARKED_STACK,
        main = sym crate::main,
        resume = sym resume,
    )
}

/// Where the stack of a kernel is that waits for the host.
static PARKED_STACK: AtomicU64 = AtomicU64::new(0);

/// Rings the doorbell: the host answers the request in the mailbox before this returns.
///
/// All that the caller needs again is on the stack when the vCPU exits, and the stack is found by a place in memory. So the
/// kernel can go on from here in any VM that has its memory, by its ordinary entry: what the processor held does not matter.
#[unsafe(naked)]
pub(crate) extern "C" fn ring_doorbell() {
    core::arch::naked_asm!(
        // What the calling convention lets a callee not change (System V ABI for x86-64, section 3.2.1). Control words of
        // the floating-point units are never changed.
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov [{parked}], rsp",
        "mov eax, {doorbell}",
        "mov dword ptr [rax], 1",
        "jmp {resume}",
        parked = sym PARKED_STACK,
        doorbell = const DOORBELL.start,
        resume = sym resume,
    )
}

/// The other half of [`ring_doorbell`].
#[unsafe(naked)]
pub(crate) extern "C" fn resume() {
    core::arch::naked_asm!(
        "mov rsp, [{parked}]",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
        parked = sym PARKED_STACK,
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
