//! The floor: the least VM that exits by MMIO. What it costs to make one, and to leave and enter it, is what KVM takes on this
//! host, whatever runs inside.
//!
//! There are two. [`Mode::Ring3`] is the state in which any guest computes: 64-bit long mode, paging, ring 3; targets are held
//! against it. [`Mode::Real`] is for information only: where KVM has no hardware virtualization it emulates code in real mode
//! and never enters the guest, so that an exit of it costs a third.

#![allow(dead_code, reason = "no benchmark needs all of it")]

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// What the processor is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Ring3,
    Real,
}

/// The VM. Fields are dropped in this order, the memory last.
pub(crate) struct Bare {
    pub(crate) vcpu: VcpuFd,
    pub(crate) vm: VmFd,
    pub(crate) memory: GuestMemoryMmap,
}

/// Where RAM and the code begin. Page 0 lies below, is mapped, and has no memory: a store to it is MMIO.
pub(crate) const START: u64 = 0x1000;
pub(crate) const RAM_BYTES: usize = 64 << 20;
/// `again: mov [rdi], al; jmp again`; in real mode the same bytes are `mov [bx], al`. Both registers are 0.
const CODE: [u8; 4] = [0x88, 0x07, 0xeb, 0xfc];
/// One page table of each level, from the root down, and the task-state segment.
const ROOT: u64 = 0x2000;
pub(crate) const DIRECTORY: u64 = 0x4000;
const TABLES: [u64; 4] = [ROOT, 0x3000, DIRECTORY, 0x5000];
const TSS: u64 = 0x6000;
/// Present, writable, user, accessed, dirty (AMD64 Architecture Programmer's Manual, volume 2, section 5.4).
const ENTRY: u64 = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 5 | 1 << 6;

impl Bare {
    /// Makes one: memory, one slot, one vCPU and its registers.
    pub(crate) fn new(kvm: &Kvm, mode: Mode) -> Self {
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(START), RAM_BYTES)]).expect("64 MiB can be mapped");
        memory.write_slice(&CODE, GuestAddress(START)).expect("the code fits");
        if mode == Mode::Ring3 {
            write_tables(&memory);
        }
        Self::with_memory(kvm, mode, memory, 0)
    }

    /// The same with memory that holds code and tables already, and flags of its slot.
    pub(crate) fn with_memory(kvm: &Kvm, mode: Mode, memory: GuestMemoryMmap, flags: u32) -> Self {
        let host = memory.get_host_address(GuestAddress(START)).expect("the memory has an address");
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags,
            guest_phys_addr: START,
            memory_size: RAM_BYTES as u64,
            userspace_addr: host as u64,
        };
        let vm = kvm.create_vm().expect("KVM_CREATE_VM");
        // SAFETY: the region is the whole mapping, which is dropped after VM and vCPU.
        unsafe { vm.set_user_memory_region(region) }.expect("KVM_SET_USER_MEMORY_REGION");
        let vcpu = vm.create_vcpu(0).expect("KVM_CREATE_VCPU");
        let initial = vcpu.get_sregs().expect("KVM_GET_SREGS");
        let special = match mode {
            Mode::Ring3 => ring3(initial),
            Mode::Real => real(initial),
        };
        vcpu.set_sregs(&special).expect("KVM_SET_SREGS");
        let registers = kvm_regs { rip: START, rflags: 1 << 1, ..kvm_regs::default() };
        vcpu.set_regs(&registers).expect("KVM_SET_REGS");
        Self { vcpu, vm, memory }
    }

    /// Enters it until it stores to page 0.
    pub(crate) fn run_to_exit(&mut self) {
        let exit = self.vcpu.run().expect("KVM_RUN");
        assert!(matches!(exit, VcpuExit::MmioWrite(0, _)), "{exit:?}");
    }
}

/// Maps page 0 and the code, each at its own address.
pub(crate) fn write_tables(memory: &GuestMemoryMmap) {
    let write = |table: u64, index: u64, entry: u64| {
        memory.write_obj(entry, GuestAddress(table + 8 * index)).expect("the tables lie in RAM");
    };
    for (table, next) in TABLES.iter().zip(TABLES.iter().skip(1)) {
        write(*table, 0, next | ENTRY);
    }
    let [.., last] = TABLES;
    write(last, 0, ENTRY);
    write(last, START >> 12, START | ENTRY);
}

/// 64-bit long mode in ring 3.
fn ring3(initial: kvm_sregs) -> kvm_sregs {
    let code = kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector: 0x33,
        type_: 0xb, // execute, read, accessed
        present: 1,
        dpl: 3,
        s: 1,
        l: 1,
        g: 1,
        ..kvm_segment::default()
    };
    let data = kvm_segment { selector: 0x2b, type_: 0x3, l: 0, db: 1, ..code };
    let task = kvm_segment { base: TSS, limit: 0x67, selector: 0x40, type_: 0xb, present: 1, ..kvm_segment::default() };
    kvm_sregs {
        cs: code,
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: task,
        ldt: kvm_segment { unusable: 1, ..kvm_segment::default() },
        // Protection, monitor coprocessor, extension type, numeric error, write protect, paging.
        cr0: 1 << 0 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 31,
        cr3: ROOT,
        // Physical address extension, FXSAVE and SSE, unmasked SSE exceptions.
        cr4: 1 << 5 | 1 << 9 | 1 << 10,
        // Long mode enabled and active, no-execute.
        efer: 1 << 8 | 1 << 10 | 1 << 11,
        ..initial
    }
}

fn real(mut initial: kvm_sregs) -> kvm_sregs {
    (initial.cs.base, initial.cs.selector) = (0, 0);
    initial
}
