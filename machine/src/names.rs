//! What exceptions are called in messages.

use core::fmt;

use mote_abi::layout::{PAGE_BYTES, STACK};

const PAGE_FAULT: u64 = 14;

/// Names of the exceptions (AMD64 Architecture Programmer's Manual, volume 2, table 8-1).
fn exception(vector: u64) -> &'static str {
    match vector {
        0 => "divide error #DE",
        1 => "debug #DB",
        2 => "non-maskable interrupt #NMI",
        3 => "breakpoint #BP",
        4 => "overflow #OF",
        5 => "bound range #BR",
        6 => "invalid opcode #UD",
        7 => "device not available #NM",
        8 => "double fault #DF",
        10 => "invalid TSS #TS",
        11 => "segment not present #NP",
        12 => "stack #SS",
        13 => "general protection #GP",
        14 => "page fault #PF",
        16 => "x87 floating-point #MF",
        17 => "alignment check #AC",
        18 => "machine check #MC",
        19 => "SIMD floating-point #XF",
        _ => "exception",
    }
}

/// An exception that a kernel must not cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Vector.
    pub vector: u64,
    /// What the processor pushed, 0 where it pushes none.
    pub error_code: u64,
    /// Instruction.
    pub rip: u64,
    /// Stack.
    pub rsp: u64,
    /// Flags.
    pub rflags: u64,
    /// Faulting address of a page fault.
    pub address: u64,
}

impl Fault {
    /// Whether the kernel ran over the end of its stack.
    pub fn is_stack_overflow(&self) -> bool {
        self.vector == PAGE_FAULT && (STACK.start - PAGE_BYTES..STACK.start).contains(&self.address)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vector, error_code, rip, rsp, rflags, address } = *self;
        let name = exception(vector);
        write!(f, "{name} ({vector}), error code {error_code:#x}, at rip {rip:#x}, rsp {rsp:#x}, rflags {rflags:#x}")?;
        if vector != PAGE_FAULT {
            return Ok(());
        }
        let access = match error_code {
            code if code & 0x10 != 0 => "execution of",
            code if code & 0x02 != 0 => "write to",
            _ => "read of",
        };
        let page = if error_code & 1 == 0 { "is not mapped" } else { "does not allow that" };
        write!(f, "; {access} {address:#x}, which {page}")
    }
}
