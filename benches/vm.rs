//! What a VM costs within one process: making one and running `hello.wat` in it to the end, the kernel image shared.
//!
//! Beside it, from the same run, what KVM itself takes for less than that, which is the floor: a VM in ring 3 with one vCPU and
//! one memory slot of 64 MiB, made, entered until its first MMIO exit, and dropped. What a host call adds is compared
//! with `kvm_mmio_exit`: one exit by MMIO and the next entry. Times are wall-clock times.
//!
//! `cargo bench -p mote-vmm`; needs `/dev/kvm`.

#![expect(clippy::expect_used, reason = "a benchmark that fails has nothing to go on with")]

#[path = "support/bare.rs"]
mod bare;

use std::{path::Path, sync::Arc};

use bare::{Bare, Mode};
use criterion::Criterion;
use kvm_ioctls::Kvm;
use mote_vmm::{Config, Ending, KernelImage, Module, Vm, open_kvm};

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
        bencher.iter(|| Bare::new(kvm, Mode::Ring3).run_to_exit());
    });
    group.bench_function("kvm_mmio_exit", |bencher| {
        let mut bare = Bare::new(kvm, Mode::Ring3);
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
