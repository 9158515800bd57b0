//! The exception stubs: under a VMM the only code that runs in ring 0.
//!
//! Each of the 32 exceptions has an entry that makes the frame uniform and jumps to a common tail. Where there is no VMM that leads
//! to the monitor. Where there is one, the tail stores CR2 to the fault doorbell, where the host decides: it mapped what was
//! missing, and the tail returns to the faulting instruction; or it ends the VM with a report. The stubs touch only their own
//! stack and need nothing of ring 3 to be intact, so a smashed stack pointer is reported as well as anything else.

use mote_abi::layout::{FAULT_DOORBELL, RING0_STACK};

/// Exceptions, and so gates of the IDT.
pub const VECTORS: usize = 32;

/// Exceptions for which the processor pushes an error code (volume 2, table 8-1).
const HAS_ERROR_CODE: u32 = 1 << 8 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 17 | 1 << 21 | 1 << 29 | 1 << 30;

const ENTRY_BYTES: usize = 16;
const TAIL_OFFSET: usize = VECTORS * ENTRY_BYTES;
const TAIL: [u8; 21] = tail();
/// Bytes of all the stubs.
pub const CODE_BYTES: usize = TAIL_OFFSET + TAIL.len();

/// What the stack of ring 0 holds when the fault doorbell rings, from [`FRAME_ADDRESS`] upwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// `rax` at the exception; all other general registers still hold their values.
    pub rax: u64,
    /// Exception vector.
    pub vector: u64,
    /// Error code, 0 where the exception has none.
    pub error_code: u64,
    /// Where it happened.
    pub rip: u64,
    /// Code segment selector.
    pub cs: u64,
    /// Flags.
    pub rflags: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Stack segment selector.
    pub ss: u64,
}

/// Words of a [`Frame`].
pub const FRAME_WORDS: usize = 8;
/// Which of them is [`Frame::rip`].
pub const RIP_WORD: u64 = 3;
/// Guest address of the [`Frame`].
pub const FRAME_ADDRESS: u64 = RING0_STACK.end - 8 * FRAME_WORDS as u64;

impl From<[u64; FRAME_WORDS]> for Frame {
    fn from([rax, vector, error_code, rip, cs, rflags, rsp, ss]: [u64; FRAME_WORDS]) -> Self {
        Self { rax, vector, error_code, rip, cs, rflags, rsp, ss }
    }
}

/// Offset of the entry for `vector` in the code.
pub const fn entry_offset(vector: usize) -> usize {
    vector * ENTRY_BYTES
}

/// The same with a tail that pushes `rax`, so that the stack holds a [`Frame`], and goes on at `handler`.
pub fn code_for_monitor(handler: u64) -> [u8; CODE_BYTES] {
    let mut code = code();
    let [a, b, c, d, e, f, g, h] = handler.to_le_bytes();
    let jump = [
        0x50, // push rax
        0x48, 0xb8, a, b, c, d, e, f, g, h, // mov rax, imm64
        0xff, 0xe0, // jmp rax
        0x0f, 0x0b, // ud2
    ];
    for (to, from) in code.iter_mut().skip(TAIL_OFFSET).zip(jump) {
        *to = from;
    }
    code
}

/// The machine code, to be placed at the start of [`mote_abi::layout::STUBS`].
pub fn code() -> [u8; CODE_BYTES] {
    let mut code = [0xcc; CODE_BYTES];
    let (entries, tail) = code.split_at_mut(TAIL_OFFSET);
    for (vector, entry) in entries.as_chunks_mut::<ENTRY_BYTES>().0.iter_mut().enumerate() {
        let push_error_code: &[u8] = if HAS_ERROR_CODE >> vector & 1 == 0 { &[0x6a, 0x00] } else { &[] };
        let push_vector = [0x6a, vector as u8];
        let jump_from = entry_offset(vector) + push_error_code.len() + push_vector.len() + 5;
        let distance = (TAIL_OFFSET - jump_from) as u32;
        let jump = core::iter::once(0xe9).chain(distance.to_le_bytes());
        let bytes = push_error_code.iter().copied().chain(push_vector).chain(jump);
        for (to, from) in entry.iter_mut().zip(bytes) {
            *to = from;
        }
    }
    tail.copy_from_slice(&TAIL);
    code
}

/// ```text
/// push rax
/// mov  rax, cr2
/// mov  [FAULT_DOORBELL], rax   ; the host looks at the frame, and at the value stored for #PF
/// pop  rax
/// add  rsp, 16                 ; vector and error code
/// iretq
/// ```
const fn tail() -> [u8; 21] {
    let [a, b, c, d] = (FAULT_DOORBELL.start as u32).to_le_bytes();
    [
        0x50, // push rax
        0x0f, 0x20, 0xd0, // mov rax, cr2
        0x48, 0x89, 0x04, 0x25, a, b, c, d,    // mov [disp32], rax
        0x58, // pop rax
        0x48, 0x83, 0xc4, 0x10, // add rsp, 16
        0x48, 0xcf, // iretq
        0x0f, 0x0b, // ud2
    ]
}

const _: () = assert!(CODE_BYTES as u64 <= mote_abi::layout::STUBS.bytes() && FAULT_DOORBELL.start <= i32::MAX as u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_jumps_to_the_tail() {
        let code = code();
        for vector in 0..VECTORS {
            let entry = &code[entry_offset(vector)..entry_offset(vector + 1)];
            let pushes_error_code = entry[..2] == [0x6a, 0] && entry[2] == 0x6a;
            assert_eq!(pushes_error_code, HAS_ERROR_CODE >> vector & 1 == 0, "vector {vector}");
            let at = if pushes_error_code { 2 } else { 0 };
            assert_eq!(entry[at..at + 3], [0x6a, vector as u8, 0xe9]);
            let distance = u32::from_le_bytes(entry[at + 3..at + 7].try_into().unwrap());
            assert_eq!(entry_offset(vector) + at + 7 + distance as usize, TAIL_OFFSET);
        }
    }
}
