//! What a VM costs within one process: making one and running `hello.wat` in it to the end, the kernel image shared.
//!
//! Beside it, from the same run, what KVM itself takes for less than that, which is the floor: a VM with one vCPU and
//! one memory slot of 64 MiB, made, entered until its first MMIO exit, and dropped. What a host call adds is compared
//! with `kvm_mmio_exit`: one exit by MMIO and the next entry. Times are wall-clock times.
//!
//! `cargo bench -p mote-vmm`; needs `/dev/kvm`.

#![expect(clippy::expect_used, reason = "a benchmark that fails has nothing to go on with")]

use std::{path::Path, sync::Arc};

use criterion::Criterion;
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use mote_vmm::{Config, Ending, KernelImage, Module, Vm, open_kvm};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

fn main() {
    let kvm = match open_kvm() {
        Ok(kvm) => kvm,
        Err(error) => {
            eprintln!("skipped: {error}");
            return;
        }
    };
    let mut criterion = Criterion::default().configure_from_args();
    floor(&mut criterion, &kvm);
    hello(&mut criterion, &kvm);
    criterion.final_summary();
}

fn floor(criterion: &mut Criterion, kvm: &Kvm) {
    let mut group = criterion.benchmark_group("floor");
    group.bench_function("kvm_vm_one_exit", |bencher| {
        bencher.iter(|| Bare::new(kvm).run_to_exit());
    });
    group.bench_function("kvm_mmio_exit", |bencher| {
        let mut bare = Bare::new(kvm);
        bencher.iter(|| bare.run_to_exit());
    });
    group.finish();
}

fn hello(criterion: &mut Criterion, kvm: &Kvm) {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../wasm-payloads/hello.wat"));
    let module = Module::from_file(path).expect("wasm-payloads/hello.wat is a module");
    let kernel = KernelImage::embedded().expect("the embedded kernel is one");
    let make = || Vm::with_kvm(kvm, &kernel, &module, Config::default()).expect("a VM can be made");
    let mut group = criterion.benchmark_group("hello");
    group.bench_function("make_and_drop", |bencher| bencher.iter(|| drop(make())));
    group.bench_function("make_run_drop", |bencher| bencher.iter(|| run(make())));
    group.bench_function("parse_make_run_drop", |bencher| {
        bencher.iter(|| {
            let module = Module::from_file(path).expect("wasm-payloads/hello.wat is a module");
            run(Vm::with_kvm(kvm, &kernel, &Arc::clone(&module), Config::default()).expect("a VM can be made"));
        });
    });
    group.finish();
}

fn run(vm: Vm) {
    let ending = vm.run().ending;
    assert!(matches!(ending, Ending::Exited(0)), "hello.wat ended otherwise: {ending:?}");
}

/// The least VM that exits by MMIO. Fields are dropped in this order, the memory last.
struct Bare {
    vcpu: VcpuFd,
    _vm: VmFd,
    _memory: GuestMemoryMmap,
}

impl Bare {
    /// Below it nothing is mapped, so that address 0 is MMIO.
    const START: u64 = 0x1000;
    const BYTES: usize = 64 << 20;
    /// `again: mov [0], al; jmp again`, in real mode.
    const CODE: [u8; 5] = [0xa2, 0x00, 0x00, 0xeb, 0xfb];

    fn new(kvm: &Kvm) -> Self {
        let memory =
            GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(Self::START), Self::BYTES)]).expect("64 MiB can be mapped");
        memory.write_slice(&Self::CODE, GuestAddress(Self::START)).expect("the code fits");
        let host = memory.get_host_address(GuestAddress(Self::START)).expect("the memory has an address");
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: Self::START,
            memory_size: Self::BYTES as u64,
            userspace_addr: host as u64,
        };
        let vm = kvm.create_vm().expect("KVM_CREATE_VM");
        // SAFETY: the region is the whole mapping, which is dropped after VM and vCPU.
        unsafe { vm.set_user_memory_region(region) }.expect("KVM_SET_USER_MEMORY_REGION");
        let vcpu = vm.create_vcpu(0).expect("KVM_CREATE_VCPU");
        let mut segments = vcpu.get_sregs().expect("KVM_GET_SREGS");
        (segments.cs.base, segments.cs.selector) = (0, 0);
        vcpu.set_sregs(&segments).expect("KVM_SET_SREGS");
        let mut registers = vcpu.get_regs().expect("KVM_GET_REGS");
        registers.rip = Self::START;
        vcpu.set_regs(&registers).expect("KVM_SET_REGS");
        Self { vcpu, _vm: vm, _memory: memory }
    }

    fn run_to_exit(&mut self) {
        let exit = self.vcpu.run().expect("KVM_RUN");
        assert!(matches!(exit, VcpuExit::MmioWrite(0, _)), "{exit:?}");
    }
}
