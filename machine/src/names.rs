//! What exceptions are called in messages.

use core::fmt;

/// Names of the exceptions (AMD64 Architecture Programmer's Manual, volume 2, table 8-1).
pub fn exception(vector: u64) -> &'static str {
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

/// What a page fault was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageFault {
    /// What the processor pushed.
    pub error_code: u64,
    /// The address.
    pub address: u64,
}

impl fmt::Display for PageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { error_code, address } = *self;
        let access = match error_code {
            code if code & 0x10 != 0 => "execution of",
            code if code & 0x02 != 0 => "write to",
            _ => "read of",
        };
        let page = if error_code & 1 == 0 { "is not mapped" } else { "does not allow that" };
        write!(f, "{access} {address:#x}, which {page}")
    }
}
