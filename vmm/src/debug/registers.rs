//! The registers of ring 3 in the form of GDB, and back. At an exception some of them are in the frame of the stub.

use gdbstub_arch::x86::reg::{X86_64CoreRegs, X86SegmentRegs, X87FpuInternalRegs};
use kvm_bindings::{kvm_regs, kvm_sregs, kvm_xsave};
use mote_machine::stub::Frame;

/// Carry, parity, adjust, zero, sign, direction, overflow, alignment check, identification: the flags that a debugger may set.
const FLAGS: u64 = 1 << 0 | 1 << 2 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 10 | 1 << 11 | 1 << 18 | 1 << 21;
/// Addresses of ring 3 end here.
const ADDRESSES_END: u64 = 1 << 47;

/// Places in the legacy region of XSAVE, and of its header's XSTATE_BV (AMD64 Architecture Programmer's Manual, volume 2, sections
/// 11.5.2 and 11.5.3).
mod place {
    pub(super) const CONTROL: usize = 0;
    pub(super) const STATUS: usize = 2;
    pub(super) const TAGS: usize = 4;
    pub(super) const OPCODE: usize = 6;
    pub(super) const INSTRUCTION: usize = 8;
    pub(super) const INSTRUCTION_SEGMENT: usize = 12;
    pub(super) const OPERAND: usize = 16;
    pub(super) const OPERAND_SEGMENT: usize = 20;
    pub(super) const MXCSR: usize = 24;
    pub(super) const X87: usize = 32;
    pub(super) const XMM: usize = 160;
    pub(super) const COMPONENTS: usize = 512;
}

/// The bits of MXCSR that every processor has.
const MXCSR_BITS: u32 = 0xffff;

/// All that KVM has of the registers.
pub(super) struct Registers {
    pub(super) general: kvm_regs,
    pub(super) special: kvm_sregs,
    pub(super) extended: kvm_xsave,
}

impl Registers {
    /// `frame` is that of the stub in which the guest is stopped, if it is in one.
    pub(super) fn to_gdb(&self, frame: Option<&Frame>) -> X86_64CoreRegs {
        let kvm_regs { rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags } = self.general;
        let kvm_sregs { cs, ss, ds, es, fs, gs, .. } = &self.special;
        let (rax, rsp, rip, rflags, cs, ss) = match frame {
            Some(frame) => (frame.rax, frame.rsp, frame.rip, frame.rflags, low(frame.cs), low(frame.ss)),
            None => (rax, rsp, rip, rflags, u32::from(cs.selector), u32::from(ss.selector)),
        };
        let [ds, es, fs, gs] = [ds, es, fs, gs].map(|segment| u32::from(segment.selector));
        let bytes = bytes(&self.extended);
        X86_64CoreRegs {
            regs: [rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15],
            eflags: low(rflags),
            rip,
            segments: X86SegmentRegs { cs, ss, ds, es, fs, gs },
            st: std::array::from_fn(|index| array(&bytes, place::X87 + 16 * index)),
            fpu: X87FpuInternalRegs {
                fctrl: half(&bytes, place::CONTROL),
                fstat: half(&bytes, place::STATUS),
                ftag: whole_tags(half(&bytes, place::TAGS)),
                fiseg: half(&bytes, place::INSTRUCTION_SEGMENT),
                fioff: u32::from_le_bytes(array(&bytes, place::INSTRUCTION)),
                foseg: half(&bytes, place::OPERAND_SEGMENT),
                fooff: u32::from_le_bytes(array(&bytes, place::OPERAND)),
                fop: half(&bytes, place::OPCODE),
            },
            xmm: std::array::from_fn(|index| u128::from_le_bytes(array(&bytes, place::XMM + 16 * index))),
            mxcsr: u32::from_le_bytes(array(&bytes, place::MXCSR)),
        }
    }

    /// Takes what a debugger changed; `None`, and nothing is to be used, if ring 3 cannot have that. Segments stay as they are.
    pub(super) fn take(&mut self, frame: Option<&mut Frame>, new: &X86_64CoreRegs) -> Option<()> {
        let old = self.to_gdb(frame.as_deref());
        if new.segments != old.segments || new.rip >= ADDRESSES_END || new.mxcsr & !MXCSR_BITS != 0 {
            return None;
        }
        let [rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15] = new.regs;
        let flags = |rflags: u64| rflags & !FLAGS | u64::from(new.eflags) & FLAGS;
        let general = kvm_regs { rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15, ..self.general };
        self.general = match frame {
            Some(frame) => {
                *frame = Frame { rax, rsp, rip: new.rip, rflags: flags(frame.rflags), ..*frame };
                general
            }
            None => kvm_regs { rax, rsp, rip: new.rip, rflags: flags(general.rflags), ..general },
        };
        if (&new.st, &new.fpu, &new.xmm, new.mxcsr) != (&old.st, &old.fpu, &old.xmm, old.mxcsr) {
            self.take_extended(new);
        }
        Some(())
    }

    /// What KVM was told last about x87 and SSE registers may be that they are in their initial state: so both are named.
    fn take_extended(&mut self, new: &X86_64CoreRegs) {
        let mut bytes = bytes(&self.extended);
        for (index, register) in new.st.iter().enumerate() {
            put(&mut bytes, place::X87 + 16 * index, register);
        }
        for (index, register) in new.xmm.iter().enumerate() {
            put(&mut bytes, place::XMM + 16 * index, &register.to_le_bytes());
        }
        put(&mut bytes, place::MXCSR, &new.mxcsr.to_le_bytes());
        for (at, word) in [(place::CONTROL, new.fpu.fctrl), (place::STATUS, new.fpu.fstat), (place::OPCODE, new.fpu.fop)] {
            put(&mut bytes, at, &low_half(word).to_le_bytes());
        }
        put(&mut bytes, place::TAGS, &short_tags(new.fpu.ftag).to_le_bytes());
        const X87_AND_SSE: u8 = 0b11;
        if let Some(components) = bytes.get_mut(place::COMPONENTS) {
            *components |= X87_AND_SSE;
        }
        for (word, bytes) in self.extended.region.iter_mut().zip(bytes.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
    }
}

/// GDB has two bits for each register of x87, both set for one that is empty; XSAVE has one, set for one that is not.
fn whole_tags(short: u32) -> u32 {
    (0..8).filter(|register| short >> register & 1 == 0).fold(0, |tags, register| tags | 0b11 << (2 * register))
}

/// The other way.
fn short_tags(whole: u32) -> u16 {
    (0..8u16).filter(|register| whole >> (2 * register) & 0b11 != 0b11).fold(0, |tags, register| tags | 1 << register)
}

fn bytes(state: &kvm_xsave) -> Vec<u8> {
    state.region.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Zeros if they do not lie in `bytes`: the places are those of a structure that is larger.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
}

fn half(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16::from_le_bytes(array(bytes, at)))
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
const fn low(value: u64) -> u32 {
    value as u32
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
const fn low_half(value: u32) -> u16 {
    value as u16
}
