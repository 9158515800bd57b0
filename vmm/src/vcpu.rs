//! The vCPU: its processor state at entry, and what it holds when it stops.

use std::{
    arch::x86_64::{__cpuid, __cpuid_count, CpuidResult},
    sync::OnceLock,
};

use kvm_bindings::{
    CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_SYNC_X86_EVENTS, KVM_SYNC_X86_REGS, KVM_SYNC_X86_SREGS, kvm_cpuid_entry2,
    kvm_dtable, kvm_regs, kvm_segment, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{Cap, SyncReg, VcpuExit, VcpuFd, VmFd};
use mote_abi::{
    cpu,
    layout::{BOOT_INFO, GDT, IDT, RING0_STACK, STACK, TSS},
};
use mote_machine::cpu::{BASIC, EXTENDED, Register, STATE, STRUCTURED, bits};
use mote_machine::{
    descriptor,
    stub::{FRAME_ADDRESS, FRAME_WORDS, Frame, RIP_WORD},
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use crate::{kvm, tables};

/// Control register bits (AMD64 Architecture Programmer's Manual, volume 2, section 3.1).
mod control_register {
    /// Protection, monitor coprocessor, extension type, numeric error, write protect, alignment mask, paging.
    pub(super) const CR0: u64 = 1 << 0 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 18 | 1 << 31;
    /// Physical address extension, FXSAVE and SSE, unmasked SSE exceptions.
    pub(super) const CR4: u64 = 1 << 5 | 1 << 9 | 1 << 10;
    /// In CR4: extended state, such as the registers of AVX.
    pub(super) const OSXSAVE: u64 = 1 << 18;
    /// Long mode enabled and active, no-execute. Not system calls: nothing in ring 0 takes them.
    pub(super) const EFER: u64 = 1 << 8 | 1 << 10 | 1 << 11;
}

/// The state in which the kernel is entered, and how it gets into the vCPU.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EntryState {
    registers: kvm_regs,
    special: kvm_sregs,
    /// Whether KVM takes registers from the page that it shares with this process, on entry: a call less for each kind, which
    /// take microseconds where there is no hardware virtualization.
    has_sync_registers: bool,
}

/// Makes vCPU 0 ready to enter ring 3 at `entry`, with the registers that `features` need beyond those of SSE.
pub(crate) fn create(vm: &VmFd, entry: u64, features: u64) -> Result<(VcpuFd, EntryState), kvm_ioctls::Error> {
    const SYNC: u32 = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;
    let mut vcpu = vm.create_vcpu(0)?;
    // It takes as long as the rest of this function together where it means nothing.
    if !kvm::is_pvm() {
        vcpu.set_cpuid2(&cpuid(features)?)?;
    }
    let extended_state = cpu::extended_state(features);
    // Without hardware virtualization ring 3 has all registers that the host has, and KVM takes no XCR0 without the leaves.
    if extended_state != cpu::extended_state(0) && !kvm::is_pvm() {
        let mut registers = kvm_xcrs { nr_xcrs: 1, ..kvm_xcrs::default() };
        if let Some(first) = registers.xcrs.first_mut() {
            first.value = extended_state;
        }
        vcpu.set_xcrs(&registers)?;
    }
    let registers = kvm_regs { rip: entry, rsp: STACK.end, rflags: 1 << 1, rdi: BOOT_INFO.start, ..kvm_regs::default() };
    let supported = u32::try_from(vm.check_extension_int(Cap::SyncRegs)).unwrap_or(0);
    let mut special = special_registers(vcpu.get_sregs()?);
    if extended_state != cpu::extended_state(0) && !kvm::is_pvm() {
        special.cr4 |= control_register::OSXSAVE;
    }
    let state = EntryState { registers, special, has_sync_registers: supported & SYNC == SYNC };
    state.load(&mut vcpu)?;
    Ok((vcpu, state))
}

impl EntryState {
    /// General, segment and control registers, and no exception on its way.
    fn load(&self, vcpu: &mut VcpuFd) -> Result<(), kvm_ioctls::Error> {
        if !self.has_sync_registers {
            vcpu.set_vcpu_events(&kvm_vcpu_events::default())?;
            vcpu.set_sregs(&self.special)?;
            return vcpu.set_regs(&self.registers);
        }
        let shared = vcpu.sync_regs_mut();
        (shared.regs, shared.sregs, shared.events) = (self.registers, self.special, kvm_vcpu_events::default());
        for kind in [SyncReg::Register, SyncReg::SystemRegister, SyncReg::VcpuEvents] {
            vcpu.set_sync_dirty_reg(kind);
        }
        Ok(())
    }
}

/// Brings a vCPU that ran back to the state of entry, whatever the guest has done to it: general, segment and control
/// registers, floating-point and vector registers, and exceptions that were on their way. Nothing of its last exit may be left
/// to do: see [`finish_exit`].
pub(crate) fn reset(vcpu: &mut VcpuFd, entry: &EntryState) -> Result<(), kvm_ioctls::Error> {
    entry.load(vcpu)?;
    // SAFETY: KVM takes as many bytes as the structure has, unless the process asked for registers that need more, as those of
    // AMX. All that guests are announced, AVX-512 included, take less.
    unsafe { vcpu.set_xsave(&initial_floating_point()) }
}

/// Floating-point and vector registers as after a reset: in the layout of XSAVE, where components that the header does not name
/// are in their initial state (AMD64 Architecture Programmer's Manual, volume 2, section 11.5). x87 and SSE are named, as the
/// control word of SSE is only taken with them.
fn initial_floating_point() -> kvm_xsave {
    /// Places of 32-bit words: x87 control word, MXCSR, first half of the header's XSTATE_BV.
    const CONTROL: usize = 0;
    const MXCSR: usize = 6;
    const COMPONENTS: usize = 128;
    let mut state = kvm_xsave::default();
    for (index, word) in [(CONTROL, 0x037f), (MXCSR, 0x1f80), (COMPONENTS, 0b11)] {
        if let Some(place) = state.region.get_mut(index) {
            *place = word;
        }
    }
    state
}

/// Lets KVM complete what the last exit left undone: the second half of a long store, or a load, whose value KVM then writes to
/// where the guest wanted it, be that a register or RAM. The guest does not run on. After a single store to the doorbell there is
/// nothing to complete.
pub(crate) fn finish_exit(vcpu: &mut VcpuFd) -> Result<(), kvm_ioctls::Error> {
    // Instructions that repeat go on exiting, one load each.
    const MOST_PARTS: usize = 4096;
    vcpu.set_kvm_immediate_exit(1);
    let mut finished = Err(kvm_ioctls::Error::new(libc::EIO));
    for _ in 0..MOST_PARTS {
        match vcpu.run() {
            Ok(VcpuExit::MmioRead(_, data)) => data.fill(0),
            Ok(_) => {}
            Err(error) => {
                finished = if error.errno() == libc::EINTR { Ok(()) } else { Err(error) };
                break;
            }
        }
    }
    vcpu.set_kvm_immediate_exit(0);
    finished
}

/// The features that the processor state needs, and no more: the kernel never executes `cpuid`, and asking KVM for all
/// that it supports takes longer than making the VM. The processor is asked once: in a VM each `cpuid` is an exit.
fn cpuid(features: u64) -> Result<CpuId, kvm_ioctls::Error> {
    static LEAVES: OnceLock<[kvm_cpuid_entry2; 5]> = OnceLock::new();
    static WITH_FEATURES: OnceLock<Vec<kvm_cpuid_entry2>> = OnceLock::new();
    let leaves = LEAVES.get_or_init(leaves);
    // The features are none, or always the same.
    let leaves = if features == 0 { leaves.as_slice() } else { WITH_FEATURES.get_or_init(|| extended_leaves(leaves, features)) };
    CpuId::from_entries(leaves).map_err(|_| kvm_ioctls::Error::new(libc::E2BIG))
}

/// The same with these features and the registers that they need: KVM takes XCR0 only with the leaves that tell of it, and
/// hardware lets the guest use every instruction whose registers it has. Nothing else is told of: for some registers, as those
/// of AMX, a process has to ask first.
fn extended_leaves(basic: &[kvm_cpuid_entry2], features: u64) -> Vec<kvm_cpuid_entry2> {
    const XSAVE: u32 = 1 << 26;
    let mut leaves = basic.to_vec();
    for leaf in &mut leaves {
        match leaf.function {
            0 => leaf.eax = STATE,
            BASIC => leaf.ecx = XSAVE | bits(features, BASIC, 0, Register::Ecx),
            EXTENDED => leaf.ecx = bits(features, EXTENDED, 0, Register::Ecx),
            _ => {}
        }
    }
    let leaf = |function, index, eax, ebx, ecx| {
        let flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        kvm_cpuid_entry2 { function, index, flags, eax, ebx, ecx, ..kvm_cpuid_entry2::default() }
    };
    let structured = |index, register| bits(features, STRUCTURED, index, register);
    leaves.push(leaf(STRUCTURED, 0, 1, structured(0, Register::Ebx), structured(0, Register::Ecx)));
    leaves.push(leaf(STRUCTURED, 1, structured(1, Register::Eax), 0, 0));
    // Which registers, and how many bytes all of them take. KVM itself keeps what tells that of those in use.
    let state = cpu::extended_state(features);
    let CpuidResult { ebx, ecx, .. } = __cpuid_count(STATE, 0);
    // All that there are have numbers below 32.
    leaves.push(leaf(STATE, 0, u32::try_from(state).unwrap_or(u32::MAX), ebx, ecx));
    leaves.extend((2..32).filter(|index| state >> index & 1 == 1).map(|index| {
        let CpuidResult { eax, ebx, ecx, .. } = __cpuid_count(STATE, index);
        leaf(STATE, index, eax, ebx, ecx)
    }));
    leaves
}

fn leaves() -> [kvm_cpuid_entry2; 5] {
    const EXTENDED_LEAVES: u32 = 0x8000_0000;
    // x87, TSC, MSR, PAE, CMPXCHG8B, CMOV, FXSR, SSE, SSE2.
    const BASIC_EDX: u32 = 1 << 0 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 15 | 1 << 24 | 1 << 25 | 1 << 26;
    // The basic ones that leaf 8000_0001h repeats on AMD, no-execute, long mode.
    const EXTENDED_EDX: u32 = 1 << 0 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 15 | 1 << 20 | 1 << 24 | 1 << 29;
    let (vendor, family, address_sizes) = (__cpuid(0), __cpuid(1), __cpuid(EXTENDED_LEAVES + 8));
    let leaf = |function, eax, ebx, ecx, edx| kvm_cpuid_entry2 { function, eax, ebx, ecx, edx, ..kvm_cpuid_entry2::default() };
    [
        leaf(0, 1, vendor.ebx, vendor.ecx, vendor.edx),
        leaf(1, family.eax, 0, 0, BASIC_EDX),
        leaf(EXTENDED_LEAVES, EXTENDED_LEAVES + 8, vendor.ebx, vendor.ecx, vendor.edx),
        leaf(EXTENDED, family.eax, 0, 0, EXTENDED_EDX),
        leaf(EXTENDED_LEAVES + 8, address_sizes.eax, 0, 0, 0),
    ]
}

fn special_registers(initial: kvm_sregs) -> kvm_sregs {
    let code = kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector: descriptor::USER_CODE,
        type_: 0xb, // execute, read, accessed
        present: 1,
        dpl: 3,
        s: 1,
        l: 1,
        g: 1,
        ..kvm_segment::default()
    };
    let data = kvm_segment { selector: descriptor::USER_DATA, type_: 0x3, l: 0, db: 1, ..code };
    let task = kvm_segment {
        base: TSS.start,
        limit: u32::from(descriptor::TSS_LIMIT),
        selector: descriptor::TASK,
        type_: descriptor::TYPE_BUSY_TSS,
        present: 1,
        ..kvm_segment::default()
    };
    kvm_sregs {
        cs: code,
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: task,
        ldt: kvm_segment { unusable: 1, ..kvm_segment::default() },
        gdt: kvm_dtable { base: GDT.start, limit: descriptor::GDT_LIMIT, ..kvm_dtable::default() },
        idt: kvm_dtable { base: IDT.start, limit: descriptor::IDT_LIMIT, ..kvm_dtable::default() },
        cr0: control_register::CR0,
        cr3: tables::ROOT,
        cr4: control_register::CR4,
        efer: control_register::EFER,
        ..initial
    }
}

/// The frame of the exception whose stub is ringing.
pub(crate) fn exception_frame(memory: &GuestMemoryMmap) -> Result<Frame, GuestMemoryError> {
    const { assert!(FRAME_ADDRESS + 8 * FRAME_WORDS as u64 == RING0_STACK.end) }
    let words: [u64; FRAME_WORDS] = memory.read_obj(GuestAddress(FRAME_ADDRESS))?;
    Ok(Frame::from(words))
}

/// Changes the frame of the exception whose stub is ringing: with that the stub returns.
#[cfg(feature = "gdb")]
pub(crate) fn set_exception_frame(memory: &GuestMemoryMmap, frame: &Frame) -> Result<(), GuestMemoryError> {
    let Frame { rax, vector, error_code, rip, cs, rflags, rsp, ss } = *frame;
    memory.write_obj([rax, vector, error_code, rip, cs, rflags, rsp, ss], GuestAddress(FRAME_ADDRESS))
}

/// Makes ring 3 go on at `handler` after the exception whose stub is ringing.
pub(crate) fn redirect(memory: &GuestMemoryMmap, handler: u64) -> Result<(), GuestMemoryError> {
    memory.write_obj(handler, GuestAddress(FRAME_ADDRESS + 8 * RIP_WORD))
}

/// The general registers of ring 3 at an exception, by name; the stub has saved `rax` and changed no other.
pub(crate) fn registers(vcpu: &VcpuFd, frame: &Frame) -> Vec<(&'static str, u64)> {
    let Ok(registers) = vcpu.get_regs() else { return Vec::new() };
    let kvm_regs { rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15, .. } = registers;
    let names = ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];
    let values = [frame.rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15];
    names.into_iter().zip(values).collect()
}
