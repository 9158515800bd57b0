//! A VM: made from kernel, module and configuration, run once, and what came of it.

use std::{io, sync::Arc, time::Instant};

use kvm_ioctls::{Kvm, VcpuFd};
use mote_abi::{
    ABI_VERSION,
    boot::{BOOT_MAGIC, BootInfo, flags, stream_kind},
    layout::{BASE, BOOT_INFO, CONFIG, KERNEL_DATA},
};
use rustix::fs::FileType;
use thiserror::Error;
use vm_memory::{Bytes, GuestAddress};
use zerocopy::IntoBytes;

use crate::{
    config::{Config, ConfigError, Input, Output, Strings},
    confinement::{Confinement, Permissions},
    control::{Control, InterruptHandle},
    directory::Access,
    ending::{Ending, HostFailure},
    housekeeping::Housekeeping,
    image::KernelImage,
    kvm::{self, KvmError},
    memory::{GuestRam, MemoryError},
    module::Module,
    run::Runner,
    service::{clock::ClockService, demand::DemandService, files::FileService, output::OutputService, stdin::Stdin},
    slots::Slots,
    stats::Stats,
    tables::{Sizes, Tables},
    vcpu,
};

/// A VM that could not be made.
#[derive(Debug, Error)]
pub enum VmError {
    /// KVM cannot be used.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// The configuration cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No host memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// KVM refused a step.
    #[error("{step} failed: {source}")]
    Create {
        /// Which step, by the name of its ioctl or system call.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The machine could not be written into guest memory.
    #[error("cannot build the guest machine: {0}")]
    Machine(String),
}

impl VmError {
    fn create(step: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |error| Self::Create { step, source: io::Error::from_raw_os_error(error.errno()) }
    }
}

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// How it ended.
    pub ending: Ending,
    /// What it cost.
    pub stats: Stats,
}

/// A micro VM, ready to run its module once.
#[derive(Debug)]
pub struct Vm {
    runner: Runner,
}

impl Vm {
    /// Makes the VM: opens KVM, lays out memory, writes the machine into it. Nothing runs yet.
    pub fn new(kernel: &Arc<KernelImage>, module: &Arc<Module>, config: Config) -> Result<Self, VmError> {
        Self::with_kvm(&kvm::open()?, kernel, module, config)
    }

    /// As [`Vm::new`], with a KVM handle that is used for many VMs.
    pub fn with_kvm(kvm: &Kvm, kernel: &Arc<KernelImage>, module: &Arc<Module>, config: Config) -> Result<Self, VmError> {
        let started = Instant::now();
        config.check()?;
        let strings = config.strings()?;
        let ram = GuestRam::new(config.limits.ram_bytes)?;
        let machine = |error: &dyn std::fmt::Display| VmError::Machine(error.to_string());
        let ramdisk = config.ramdisk.clone();
        let sizes = Sizes {
            module_bytes: module.bytes(),
            ramdisk_bytes: ramdisk.as_ref().map_or(0, |ramdisk| ramdisk.bytes()),
            config_bytes: strings.bytes.len() as u64,
        };
        let tables = Tables::build(ram.memory(), kernel, &sizes).map_err(|error| machine(&error))?;
        ram.memory().write_slice(kernel.data(), GuestAddress(KERNEL_DATA.start)).map_err(|error| machine(&error))?;
        ram.memory().write_slice(&strings.bytes, GuestAddress(CONFIG.start)).map_err(|error| machine(&error))?;
        ram.warm(module.bytes());

        let vm = kvm.create_vm().map_err(VmError::create("KVM_CREATE_VM"))?;
        let slots =
            Slots::add(&vm, &ram, kernel, module, ramdisk.as_deref()).map_err(VmError::create("KVM_SET_USER_MEMORY_REGION"))?;
        let demand = DemandService::new(tables, slots, &vm, &ram).map_err(|error| machine(&error))?;
        let vcpu = vcpu::create(&vm, kernel.entry()).map_err(VmError::create("setting up the vCPU"))?;
        let clock = ClockService::new(&vcpu);
        let boot = boot_info(&config, &strings, &sizes, &ram, &clock, &vcpu)?;
        ram.memory().write_slice(boot.as_bytes(), GuestAddress(BOOT_INFO.start)).map_err(|error| machine(&error))?;

        let eventfd = |source| VmError::Create { step: "eventfd", source };
        let control = Control::new().map_err(eventfd)?;
        for listener in &config.listeners {
            listener
                .set_nonblocking(true)
                .map_err(|source| VmError::Create { step: "making a listener non-blocking", source })?;
        }
        let permissions = permissions(&config)?;
        let directories =
            config.directories.into_iter().map(|directory| (directory.file, directory.access == Access::ReadWrite)).collect();
        let files = Arc::new(FileService::new(config.listeners, directories, config.limits.open_files));
        let output = OutputService::new(config.stdout, config.stderr, config.log_level as u8, Arc::clone(&files));
        let housekeeping = Housekeeping::new(control, Arc::new(ram), output).map_err(eventfd)?;
        let mut stats = Stats { ram_bytes: config.limits.ram_bytes, ..Stats::default() };
        stats.phases.create = started.elapsed();
        let runner = Runner {
            vcpu,
            vm,
            demand,
            clock,
            stdin: Stdin::from(config.stdin),
            files,
            housekeeping,
            deadline: config.limits.deadline,
            interrupt_on: config.interrupt_on,
            confinement: config.confinement,
            permissions,
            stats,
            _kernel: Arc::clone(kernel),
            _module: Arc::clone(module),
            _ramdisk: ramdisk,
        };
        Ok(Self { runner })
    }

    /// A handle that ends the run from another thread.
    pub fn interrupt_handle(&self) -> InterruptHandle {
        InterruptHandle::new(self.runner.housekeeping.control())
    }

    /// Runs the module to its end on the calling thread, and confines that first if the configuration says so.
    pub fn run(self) -> Report {
        self.runner.run()
    }
}

fn boot_info(
    config: &Config,
    strings: &Strings,
    sizes: &Sizes,
    ram: &GuestRam,
    clock: &ClockService,
    vcpu: &VcpuFd,
) -> Result<BootInfo, VmError> {
    let limits = &config.limits;
    let random_seed = match config.random_seed {
        Some(seed) => seed,
        None => random_seed().map_err(|source| VmError::Create { step: "getrandom", source })?,
    };
    let fuel_flag = if limits.fuel.is_some() { flags::FUEL } else { 0 };
    let tsc_flag = if clock.has_invariant_tsc() { flags::INVARIANT_TSC } else { 0 };
    Ok(BootInfo {
        magic: BOOT_MAGIC,
        version: ABI_VERSION,
        flags: fuel_flag | tsc_flag,
        module_bytes: sizes.module_bytes,
        ram_bytes: ram.pool_bytes + BASE.bytes(),
        max_wasm_memory_bytes: limits.wasm_memory_bytes.unwrap_or(u64::MAX),
        fuel: limits.fuel.unwrap_or(0),
        max_wasm_stack_bytes: limits.wasm_stack_bytes,
        max_wasm_frames: limits.wasm_frames,
        arguments: strings.arguments,
        environment: strings.environment,
        entry: strings.entry,
        entry_arguments: strings.entry_arguments,
        directories: strings.directories,
        ramdisk_bytes: sizes.ramdisk_bytes,
        listeners: u32::try_from(config.listeners.len()).unwrap_or(0),
        reserved: 0,
        output_files: [output_file(&config.stdout), output_file(&config.stderr)],
        random_seed,
        clock: clock.now(vcpu).map_err(|error| VmError::Machine(error.to_string()))?,
        streams: [input_kind(&config.stdin), output_kind(&config.stdout), output_kind(&config.stderr)],
        log_level: config.log_level as u32,
    })
}

/// What the threads of the VM are confined to, if they are.
fn permissions(config: &Config) -> Result<Permissions, VmError> {
    let mut permissions = Permissions::default();
    if config.confinement == Confinement::Off {
        return Ok(permissions);
    }
    for directory in &config.directories {
        let duplicate = directory.file.try_clone().map_err(|source| VmError::Create { step: "dup", source })?;
        permissions = permissions.with_directory(duplicate.into(), directory.access);
    }
    Ok(if config.listeners.is_empty() { permissions } else { permissions.with_sockets() })
}

fn random_seed() -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    let bytes = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())?;
    if bytes == seed.len() { Ok(seed) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Device and inode of a regular file, zeros for all else: the guest may have the same file open by its path.
fn output_file(output: &Output) -> [u64; 2] {
    let Output::Fd(fd) = output else { return [0; 2] };
    match rustix::fs::fstat(fd) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => [stat.st_dev, stat.st_ino],
        _ => [0; 2],
    }
}

fn input_kind(input: &Input) -> u32 {
    match input {
        Input::Fd(fd) if rustix::termios::isatty(fd) => stream_kind::TERMINAL,
        _ => stream_kind::OTHER,
    }
}

fn output_kind(output: &Output) -> u32 {
    match output {
        Output::Fd(fd) if rustix::termios::isatty(fd) => stream_kind::TERMINAL,
        _ => stream_kind::OTHER,
    }
}

impl From<HostFailure> for Ending {
    fn from(failure: HostFailure) -> Self {
        Self::HostFailure(failure)
    }
}
