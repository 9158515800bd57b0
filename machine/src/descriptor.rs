//! Descriptor tables: GDT, IDT and TSS (AMD64 Architecture Programmer's Manual, volume 2, sections 4.7, 4.8, 8.2, 12.2).

use mote_abi::layout::{STUBS, TSS};
use x86_64::structures::gdt::DescriptorFlags;

use crate::stub;

/// Selector of ring-0 code.
pub const KERNEL_CODE: u16 = 0x08;
/// Selector of ring-0 data.
pub const KERNEL_DATA: u16 = 0x10;
/// Selector of ring-3 data.
pub const USER_DATA: u16 = 0x18 | 3;
/// Selector of ring-3 code.
pub const USER_CODE: u16 = 0x20 | 3;
/// Selector of the task state segment.
pub const TASK: u16 = 0x28;

/// Type of a busy 64-bit TSS: loaded without `ltr`, so nobody sets the busy bit later.
pub const TYPE_BUSY_TSS: u8 = 0xb;
/// Bit of the descriptor of the TSS that `ltr` wants clear, and sets: for who loads it by that.
pub const BUSY: u64 = 1 << 41;
/// Which word of the GDT has it.
pub const TASK_WORD: usize = (TASK >> 3) as usize;
/// Last offset in the TSS: 104 bytes and no I/O permission map.
pub const TSS_LIMIT: u16 = 103;
/// Last offset in the GDT.
pub const GDT_LIMIT: u16 = 8 * GDT_WORDS as u16 - 1;
/// Last offset in the IDT.
pub const IDT_LIMIT: u16 = 16 * stub::VECTORS as u16 - 1;

const GDT_WORDS: usize = 7;

/// The global descriptor table. Accessed bits are set, so that the processor has no reason to write it.
pub fn gdt() -> [u64; GDT_WORDS] {
    let accessed = DescriptorFlags::ACCESSED;
    let [task_low, task_high] = task_descriptor();
    [
        0,
        (DescriptorFlags::KERNEL_CODE64 | accessed).bits(),
        (DescriptorFlags::KERNEL_DATA | accessed).bits(),
        (DescriptorFlags::USER_DATA | accessed).bits(),
        (DescriptorFlags::USER_CODE64 | accessed).bits(),
        task_low,
        task_high,
    ]
}

fn task_descriptor() -> [u64; 2] {
    let base = TSS.start;
    let low = u64::from(TSS_LIMIT)
        | (base & 0x00ff_ffff) << 16
        | u64::from(TYPE_BUSY_TSS) << 40
        | DescriptorFlags::PRESENT.bits()
        | (base >> 24 & 0xff) << 56;
    [low, base >> 32]
}

/// The interrupt descriptor table: an interrupt gate to the stub of each exception, closed to `int` from ring 3.
pub fn idt() -> [u64; 2 * stub::VECTORS] {
    let mut words = [0; 2 * stub::VECTORS];
    for (vector, gate) in words.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        let handler = STUBS.start + stub::entry_offset(vector) as u64;
        let present_interrupt_gate = 0x8e00_u64;
        gate[0] = handler & 0xffff | u64::from(KERNEL_CODE) << 16 | present_interrupt_gate << 32 | (handler >> 16 & 0xffff) << 48;
        gate[1] = handler >> 32;
    }
    words
}

/// The task state segment: only the end of the stack of ring 0 matters.
pub fn tss(stack_end: u64) -> [u8; TSS_LIMIT as usize + 1] {
    let mut bytes = [0; TSS_LIMIT as usize + 1];
    let rsp0 = stack_end.to_le_bytes();
    let io_map_base = (TSS_LIMIT + 1).to_le_bytes();
    bytes[4..12].copy_from_slice(&rsp0);
    bytes[102..].copy_from_slice(&io_map_base);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_point_to_their_stubs() {
        for vector in 0..stub::VECTORS {
            let words = idt();
            let (low, high) = (words[2 * vector], words[2 * vector + 1]);
            let handler = low & 0xffff | (low >> 48) << 16 | high << 32;
            assert_eq!(handler, STUBS.start + stub::entry_offset(vector) as u64);
            assert_eq!(low >> 45 & 3, 0, "ring 3 may not call gate {vector}");
        }
    }

    #[test]
    fn task_descriptor_holds_its_base() {
        let [low, high] = task_descriptor();
        assert_eq!((low >> 16 & 0xff_ffff) | (low >> 56) << 24 | high << 32, TSS.start);
    }

    #[test]
    fn selectors_name_their_descriptors() {
        let gdt = gdt();
        assert_eq!(gdt[usize::from(USER_CODE >> 3)] >> 45 & 3, 3);
        assert_eq!(gdt[usize::from(USER_DATA >> 3)] >> 45 & 3, 3);
        assert_eq!(gdt[usize::from(KERNEL_CODE >> 3)] >> 45 & 3, 0);
    }
}
