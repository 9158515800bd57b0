//! Where loaders enter, and the way from there to long mode; where exceptions enter, and the way to ring 3.
//!
//! Assembly reaches Rust and stops. What loaders look for are a note (PVH: Xen, "x86/HVM direct boot ABI") and a header in the first
//! 32 KiB of the file (Multiboot2 Specification 2.0, section 3.1).

use core::arch::{global_asm, naked_asm};

use mote_abi::layout::{BOOT_INFO, MONITOR_STACK, MONITOR_TABLES, MONITOR_VIEW, PAGE_BYTES, STACK};
use mote_machine::descriptor::{KERNEL_CODE, KERNEL_DATA, USER_CODE, USER_DATA};

use super::trap;

/// Protection, monitor of the coprocessor, extension type, numeric errors, write protection, paging.
pub(super) const CR0: u64 = 1 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 31;
/// Physical-address extension, FXSAVE, exceptions of SSE.
pub(super) const CR4: u64 = 1 << 5 | 1 << 9 | 1 << 10;
/// Physical-address extension, FXSAVE, SSE and SSE2, in `edx` of CPUID function 1.
const NEEDED_FEATURES: u32 = 1 << 6 | 1 << 24 | 1 << 25 | 1 << 26;
const POINTERS: u64 = MONITOR_TABLES.start + PAGE_BYTES;
const DIRECTORIES: u64 = POINTERS + PAGE_BYTES;
/// Present, writable; of a page of 2 MiB.
const TABLE: u64 = 0b11;
const CHUNK: u64 = 0b1000_0011;

/// Bytes of an entry of the root table cover 512 GiB.
const VIEW_ENTRY: u64 = MONITOR_TABLES.start + 8 * (MONITOR_VIEW.start >> 39);

global_asm!(
    ".pushsection .note.mote, \"a\", @note",
    ".balign 4",
    ".long 4, 8, 18", // XEN_ELFNOTE_PHYS32_ENTRY
    ".asciz \"Xen\"",
    ".quad mote_pvh_entry",
    ".popsection",
    ".pushsection .multiboot2, \"ax\"",
    ".balign 8",
    "20: .long 0xe85250d6, 0, 21f - 20b, -(0xe85250d6 + 21f - 20b)",
    // The memory map is wanted.
    ".balign 8",
    ".short 1, 0",
    ".long 12, 6",
    // Modules on pages.
    ".balign 8",
    ".short 6, 0",
    ".long 8",
    // The entry.
    ".balign 8",
    ".short 3, 0",
    ".long 12, mote_multiboot2_entry",
    ".balign 8",
    ".short 0, 0",
    ".long 8",
    "21:",
    // Both protocols enter in protected mode with flat segments of 32 bits, paging off and interrupts off. `ebx` is where
    // the loader left what it knows; Multiboot2 leaves a number in `eax`, PVH nothing.
    ".code32",
    "mote_pvh_entry:",
    "xor eax, eax",
    "mote_multiboot2_entry:",
    "cld",
    "mov esp, {stack_end}",
    "mov edi, eax",
    "rdtsc",
    "push edx",
    "push eax",
    "push 0",
    "push ebx",
    "push 0",
    "push edi",
    // Long mode, and what every processor has that has it, but for emulated ones.
    "mov esi, offset .Lno_long_mode",
    "mov eax, 0x80000000",
    "cpuid",
    "cmp eax, 0x80000001",
    "jb 40f",
    "mov eax, 0x80000001",
    "cpuid",
    "bt edx, 29",
    "jnc 40f",
    "mov esi, offset .Lno_sse2",
    "mov eax, 1",
    "cpuid",
    "and edx, {needed}",
    "cmp edx, {needed}",
    "jne 40f",
    // Tables that map the first 4 GiB where they are, and once more at the view of the monitor.
    "mov edi, {tables}",
    "xor eax, eax",
    "mov ecx, 2048",
    "rep stosd",
    "mov dword ptr [{tables}], {pointers} + {table}",
    "mov dword ptr [{view_entry}], {pointers} + {table}",
    "mov eax, {directories} + {table}",
    "mov edi, {pointers}",
    "mov ecx, 4",
    "50: mov [edi], eax",
    "add eax, 4096",
    "add edi, 8",
    "loop 50b",
    "mov eax, {chunk}",
    "mov edi, {directories}",
    "mov ecx, 2048",
    "51: mov [edi], eax",
    "mov dword ptr [edi + 4], 0",
    "add eax, 0x200000",
    "add edi, 8",
    "dec ecx",
    "jnz 51b",
    "mov eax, {cr4}",
    "mov cr4, eax",
    "mov eax, {tables}",
    "mov cr3, eax",
    // EFER has nothing but long mode, so that no `syscall` leads to where firmware had its own; nor does `sysenter`.
    "mov ecx, 0xc0000080",
    "mov eax, 1 << 8",
    "xor edx, edx",
    "wrmsr",
    "mov ecx, 0x174",
    "xor eax, eax",
    "wrmsr",
    "mov eax, {cr0}",
    "mov cr0, eax",
    "lgdt [.Lgdt_pointer]",
    "push {code}",
    "mov eax, offset .Llong_mode",
    "push eax",
    "retf",
    // Says what is missing at the first serial port, 115200 8N1, ends an emulated machine, and stops any other.
    "40: mov ebx, offset .Lserial_setup",
    "41: mov dl, [ebx]",
    "mov al, [ebx + 1]",
    "movzx edx, dl",
    "test edx, edx",
    "jz 42f",
    "add edx, 0x300",
    "out dx, al",
    "add ebx, 2",
    "jmp 41b",
    "42: lodsb",
    "test al, al",
    "jz 45f",
    "mov ah, al",
    "mov ecx, 0x100000",
    "mov edx, 0x3fd",
    "43: in al, dx",
    "test al, 0x20", // transmitter holding register empty
    "jnz 44f",
    "dec ecx",
    "jnz 43b",
    "44: mov edx, 0x3f8",
    "mov al, ah",
    "out dx, al",
    "jmp 42b",
    "45: mov eax, 1",
    "cpuid",
    "bt ecx, 31", // runs under a hypervisor
    "jnc 46f",
    "mov edx, 0xf4",
    "mov eax, 125",
    "out dx, eax",
    "46: hlt",
    "jmp 46b",
    ".Lno_long_mode: .asciz \"mote: this processor has no 64-bit mode: mote needs x86-64\\r\\n\"",
    ".Lno_sse2: .asciz \"mote: this processor lacks SSE2 or FXSAVE, which mote needs\\r\\n\"",
    // Line control, divisor, line control, FIFO, modem control: registers of the port and what they get.
    ".Lserial_setup: .byte 0xfb, 0x80, 0xf8, 1, 0xf9, 0, 0xfb, 3, 0xfa, 1, 0xfc, 3, 0",
    ".balign 8",
    ".Lgdt: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff", // code, data
    ".Lgdt_pointer: .short 23",
    ".long .Lgdt",
    ".code64",
    ".Llong_mode: mov eax, {data}",
    "mov ds, eax",
    "mov es, eax",
    "mov ss, eax",
    "mov fs, eax",
    "mov gs, eax",
    "mov esp, esp", // its upper half means nothing yet
    "pop rdi",
    "pop rsi",
    "pop rdx",
    "mov esp, {stack_end}",
    "xor ebp, ebp",
    "call {start}",
    "ud2",
    ".popsection",
    stack_end = const MONITOR_STACK.end,
    needed = const NEEDED_FEATURES,
    tables = const MONITOR_TABLES.start,
    pointers = const POINTERS,
    directories = const DIRECTORIES,
    view_entry = const VIEW_ENTRY,
    table = const TABLE,
    chunk = const CHUNK,
    cr0 = const CR0,
    cr4 = const CR4,
    code = const KERNEL_CODE,
    data = const KERNEL_DATA,
    start = sym super::start,
);

/// What the stack holds in [`trap::handle`]: the registers that this file pushes, then what the stub and the processor did.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Registers {
    pub(super) r15: u64,
    pub(super) r14: u64,
    pub(super) r13: u64,
    pub(super) r12: u64,
    pub(super) r11: u64,
    pub(super) r10: u64,
    pub(super) r9: u64,
    pub(super) r8: u64,
    pub(super) rbp: u64,
    pub(super) rdi: u64,
    pub(super) rsi: u64,
    pub(super) rdx: u64,
    pub(super) rcx: u64,
    pub(super) rbx: u64,
    pub(super) rax: u64,
    pub(super) vector: u64,
    pub(super) error_code: u64,
    pub(super) rip: u64,
    pub(super) cs: u64,
    pub(super) rflags: u64,
    pub(super) rsp: u64,
    pub(super) ss: u64,
}

/// Where the stubs of exceptions go on: ring 0, with `rax`, vector, error code and the processor's frame on the stack. Ring 3's
/// registers of SSE are kept; of wider ones the upper halves are not touched, as nothing here is compiled for them.
#[unsafe(naked)]
pub(super) extern "C" fn exception() {
    naked_asm!(
        "push rbx",
        "push rcx",
        "push rdx",
        "push rsi",
        "push rdi",
        "push rbp",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "cld",
        "mov rdi, rsp",
        "mov rbx, rsp",
        "sub rsp, 512",
        "and rsp, -64",
        "fxsave64 [rsp]",
        "call {handle}",
        "fxrstor64 [rsp]",
        "mov rsp, rbx",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rbp",
        "pop rdi",
        "pop rsi",
        "pop rdx",
        "pop rcx",
        "pop rbx",
        "pop rax",
        "add rsp, 16", // vector and error code
        "iretq",
        handle = sym trap::handle,
    )
}

/// Enters the kernel as [`mote_abi::boot`] says, in ring 3. Descriptor tables and page tables are those of the machine.
#[unsafe(naked)]
pub(super) extern "C" fn enter_kernel() -> ! {
    naked_asm!(
        "push {data}",
        "push {stack_end}",
        "push 2", // flags: interrupts off
        "push {code}",
        "lea rax, [rip + {entry}]",
        "push rax",
        "xor eax, eax",
        "xor ebx, ebx",
        "xor ecx, ecx",
        "xor edx, edx",
        "xor esi, esi",
        "xor ebp, ebp",
        "xor r8d, r8d",
        "xor r9d, r9d",
        "xor r10d, r10d",
        "xor r11d, r11d",
        "xor r12d, r12d",
        "xor r13d, r13d",
        "xor r14d, r14d",
        "xor r15d, r15d",
        "mov edi, {boot_info}",
        "pxor xmm0, xmm0",
        "pxor xmm1, xmm1",
        "pxor xmm2, xmm2",
        "pxor xmm3, xmm3",
        "pxor xmm4, xmm4",
        "pxor xmm5, xmm5",
        "pxor xmm6, xmm6",
        "pxor xmm7, xmm7",
        "pxor xmm8, xmm8",
        "pxor xmm9, xmm9",
        "pxor xmm10, xmm10",
        "pxor xmm11, xmm11",
        "pxor xmm12, xmm12",
        "pxor xmm13, xmm13",
        "pxor xmm14, xmm14",
        "pxor xmm15, xmm15",
        "iretq",
        data = const USER_DATA,
        code = const USER_CODE,
        stack_end = const STACK.end,
        boot_info = const BOOT_INFO.start,
        entry = sym crate::entry::_start,
    )
}
