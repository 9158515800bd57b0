//! A micro VM with everything that it takes to enter it: how it is made, from a module or from a snapshot, and how it goes
//! back to one. `run.rs` enters it. One file, because all of these are lists of the same parts.

use std::{
    io,
    mem::offset_of,
    ops::Range,
    sync::{Arc, OnceLock},
    time::Instant,
};

use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use mote_abi::{
    ABI_VERSION,
    boot::{BOOT_MAGIC, BootInfo, flags, stream_kind},
    hypercall::CopyModuleArgs,
    layout::{BASE, BOOT_INFO, CHUNK_BYTES, CONFIG, KERNEL_DATA, LINEAR, MODULE, PAGE_BYTES},
    ring::Stream,
};
use rustix::fs::FileType;
use vm_memory::{Bytes, GuestAddress};
use zerocopy::IntoBytes;

use crate::{
    config::{ClockSource, Config, Input, Output, Strings, Translation},
    control::Control,
    directory::Access,
    ending::{Ending, HostFailure},
    guest_ram::GuestRam,
    image::KernelImage,
    kvm,
    module::{Module, PlacedModule},
    pagemap::PageMap,
    ram_image::{self, Idle, RamImage, Restored},
    ramdisk::Ramdisk,
    service::{
        clock::{ClockOrigin, ClockService},
        demand::{DemandService, DemandState},
        files::FileService,
        output::{DrainError, OutputService},
        stdin::Stdin,
    },
    slots::Slots,
    stats::Stats,
    tables::{Sizes, Tables},
    vcpu::{self, EntryState},
    vm::VmError,
};

/// A VM and its services. Fields that refer to guest memory come before those that own it.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) vcpu: VcpuFd,
    pub(crate) vm: VmFd,
    entry: EntryState,
    /// Whether the vCPU stopped in a store to the doorbell, and nowhere else.
    pub(crate) is_parked: bool,
    pub(crate) demand: DemandService,
    pub(crate) clock: ClockService,
    pub(crate) stdin: Stdin,
    pub(crate) files: Arc<FileService>,
    pub(crate) output: OutputService,
    pub(crate) control: Arc<Control>,
    pub(crate) ram: GuestRam,
    pub(crate) stats: Stats,
    boot: BootInfo,
    /// Whether random numbers are the same in every copy.
    seeded: bool,
    config_bytes: u64,
    kernel: Arc<KernelImage>,
    ramdisk: Option<Arc<Ramdisk>>,
}

/// What a new machine does with its module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Runs it to its end.
    Run,
    /// Waits for commands.
    Serve,
}

/// What came of a copy out of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Copied {
    Whole,
    /// There is no RAM for the rest, or the run is to end.
    InPart,
    /// No kernel of ours asks for it.
    Impossible,
}

/// A machine at rest: stopped in a hypercall, with nothing on its way.
#[derive(Debug)]
pub(crate) struct MachineImage {
    pub(crate) ram: RamImage,
    pub(crate) ram_bytes: u64,
    /// Whether parts of RAM are of a file that others may be able to change.
    pub(crate) is_of_file: bool,
    pub(crate) demand: DemandState,
    pub(crate) boot: BootInfo,
    pub(crate) seeded: bool,
    pub(crate) clock: ClockOrigin,
    /// Bytes of the strings that the kernel was given.
    pub(crate) config_bytes: u64,
    /// How far the output ring was emptied.
    pub(crate) ring_tail: u64,
    pub(crate) kernel: Arc<KernelImage>,
    pub(crate) ramdisk: Option<Arc<Ramdisk>>,
    /// The modules that the guest has mapped, as far as it needs them still.
    pub(crate) modules: Vec<PlacedModule>,
    /// The pages that the first copy wrote in its first call: others will do the same, and are given them ahead of that.
    pub(crate) working_set: OnceLock<Vec<Range<u64>>>,
}

/// A working set of more pages than this is none.
const MAX_WORKING_SET_PAGES: u64 = 1024;

impl Machine {
    /// Makes a VM: lays out memory, writes the machine into it. Nothing runs yet. `host_functions` are module, name and
    /// signature of each.
    pub(crate) fn new(
        kvm: &Kvm,
        kernel: &Arc<KernelImage>,
        module: &Arc<Module>,
        mut config: Config,
        host_functions: &[String],
        purpose: Purpose,
    ) -> Result<Self, VmError> {
        let started = Instant::now();
        config.check()?;
        if kernel.runs_compiled() != module.is_compiled() {
            return Err(VmError::OtherEngine { runs_compiled: kernel.runs_compiled() });
        }
        if module.is_compiled() && config.limits.fuel.is_some() && !module.counts_fuel() {
            return Err(VmError::NoFuel);
        }
        // Code that counts fuel has to be given some.
        if module.counts_fuel() {
            config.limits.fuel.get_or_insert(u64::MAX);
        }
        let strings = config.strings(host_functions)?;
        let ram = GuestRam::new(config.limits.ram_bytes)?;
        let ramdisk = config.ramdisk.clone();
        let sizes = Sizes {
            module: module.sizes(),
            ramdisk_bytes: ramdisk.as_ref().map_or(0, |ramdisk| ramdisk.bytes()),
            config_bytes: strings.bytes.len() as u64,
        };
        let tables = Tables::build(ram.memory(), kernel, &sizes).map_err(|error| machine(&error))?;
        ram.memory().write_slice(kernel.data(), GuestAddress(KERNEL_DATA.start)).map_err(|error| machine(&error))?;
        ram.memory().write_slice(&strings.bytes, GuestAddress(CONFIG.start)).map_err(|error| machine(&error))?;
        ram.warm(module.bytes());
        module.warm();

        let vm = kvm::create_vm(kvm).map_err(VmError::create("KVM_CREATE_VM"))?;
        let slots = Slots::add(&vm, &ram, kernel, &[PlacedModule::first(module)], ramdisk.as_deref(), ram.near.bytes())
            .map_err(VmError::create("KVM_SET_USER_MEMORY_REGION"))?;
        let demand = DemandService::new(tables, slots, &vm, &ram).map_err(|error| machine(&error))?;
        let (vcpu, entry) =
            vcpu::create(&vm, kernel.entry(), kernel.cpu_features()).map_err(VmError::create("setting up the vCPU"))?;
        let clock = ClockService::new(&vcpu, ClockOrigin::new(config.clock)).map_err(|error| machine(&error))?;
        let boot = boot_info(&config, &strings, &sizes, &ram, &clock, purpose)?;
        let boot = BootInfo { cpu_features: kernel.cpu_features(), ..boot };
        ram.memory().write_slice(boot.as_bytes(), GuestAddress(BOOT_INFO.start)).map_err(|error| machine(&error))?;

        let seeded = config.random_seed.is_some();
        let services = Services::new(config)?;
        let mut stats = Stats { ram_bytes: ram.pool_bytes + BASE.bytes(), ..Stats::default() };
        stats.phases.create = started.elapsed();
        let Services { control, stdin, files, output } = services;
        Ok(Self {
            vcpu,
            vm,
            entry,
            is_parked: false,
            demand,
            clock,
            stdin,
            files,
            output,
            control,
            ram,
            stats,
            boot,
            seeded,
            config_bytes: sizes.config_bytes,
            kernel: Arc::clone(kernel),
            ramdisk,
        })
    }

    /// Guest RAM that was touched so far, page tables included, where the guest can have touched some.
    pub(crate) fn touched_bytes(&self) -> u64 {
        self.ram.resident_bytes(&self.demand.kept())
    }

    /// Makes a VM that goes on from an image. Of the configuration only streams, directories, listeners and limits of the host
    /// count: the rest is in the image.
    pub(crate) fn resumed(kvm: &Kvm, image: &MachineImage, config: Config, hint: &[Range<u64>]) -> Result<Self, VmError> {
        let started = Instant::now();
        let mut ram = GuestRam::new(image.ram_bytes)?;
        ram.is_of_file = image.is_of_file;
        image.ram.map_into(&ram)?;
        ram.populate(hint);
        let (kernel, ramdisk) = (Arc::clone(&image.kernel), image.ramdisk.clone());
        let vm = kvm::create_vm(kvm).map_err(VmError::create("KVM_CREATE_VM"))?;
        let slots = Slots::add(&vm, &ram, &kernel, &image.modules, ramdisk.as_deref(), image.demand.near_bytes())
            .map_err(VmError::create("KVM_SET_USER_MEMORY_REGION"))?;
        let demand = DemandService::resumed(slots, &vm, &ram, &image.demand).map_err(|error| machine(&error))?;
        let (vcpu, entry) =
            vcpu::create(&vm, kernel.entry(), kernel.cpu_features()).map_err(VmError::create("setting up the vCPU"))?;
        let clock = ClockService::new(&vcpu, image.clock).map_err(|error| machine(&error))?;
        let log_level = config.log_level as u32;
        let Services { control, stdin, files, mut output } = Services::new(config)?;
        output.reset(ram.memory(), image.ring_tail).map_err(|error| machine(&format!("{error:?}")))?;
        let mut stats = Stats { ram_bytes: ram.pool_bytes + BASE.bytes(), ..Stats::default() };
        stats.phases.create = started.elapsed();
        let mut resumed = Self {
            vcpu,
            vm,
            entry,
            is_parked: false,
            demand,
            clock,
            stdin,
            files,
            output,
            control,
            ram,
            stats,
            boot: BootInfo { log_level, ..image.boot },
            seeded: image.seeded,
            config_bytes: image.config_bytes,
            kernel,
            ramdisk,
        };
        resumed.renew_boot_info()?;
        Ok(resumed)
    }

    /// Takes an image. `base` is the one that RAM shares now.
    pub(crate) fn capture(&mut self, page_map: &PageMap, base: Option<&RamImage>) -> Result<MachineImage, VmError> {
        let ram = RamImage::capture(&self.ram, page_map, &self.demand.used(), base)?;
        Ok(MachineImage {
            ram,
            ram_bytes: self.ram.pool_bytes + BASE.bytes(),
            is_of_file: self.ram.is_of_file,
            demand: self.demand.state(),
            boot: self.boot,
            seeded: self.seeded,
            clock: self.clock.origin(),
            config_bytes: self.config_bytes,
            ring_tail: self.output.tail(),
            kernel: Arc::clone(&self.kernel),
            ramdisk: self.ramdisk.clone(),
            modules: self.demand.modules().filter(|placed| placed.module.is_compiled()).cloned().collect(),
            working_set: OnceLock::new(),
        })
    }

    /// Lets RAM share the pages of an image that was just taken of it.
    pub(crate) fn share(&self, image: &MachineImage) -> Result<(), VmError> {
        Ok(image.ram.map_into(&self.ram)?)
    }

    /// Where standard input comes from, from now on.
    pub(crate) fn set_stdin(&mut self, input: Input) {
        self.stdin = input.into();
        self.boot.input_generation = self.boot.input_generation.wrapping_add(1);
        let at = GuestAddress(BOOT_INFO.start + offset_of!(BootInfo, input_generation) as u64);
        // The boot information is RAM of every guest.
        let written = self.ram.memory().write_obj(self.boot.input_generation, at);
        debug_assert!(written.is_ok());
    }

    /// Where a stream goes, from now on.
    pub(crate) fn set_output(&mut self, stream: Stream, output: Output) {
        // What the host tells is RAM of every guest.
        let told = self.output.set_stream(self.ram.memory(), stream, output);
        debug_assert!(told.is_ok());
    }

    /// Whether the machine can go back to an image: it has the same parts.
    pub(crate) fn fits(&self, image: &MachineImage) -> bool {
        let same_ramdisk = match (&self.ramdisk, &image.ramdisk) {
            (Some(here), Some(there)) => Arc::ptr_eq(here, there),
            (None, None) => true,
            _ => false,
        };
        let same_kernel = Arc::ptr_eq(&self.kernel, &image.kernel) || self.kernel.digest() == image.kernel.digest();
        same_kernel && same_ramdisk && self.ram.pool_bytes + BASE.bytes() == image.ram_bytes
    }

    #[cfg(feature = "gdb")]
    pub(crate) fn kernel(&self) -> &KernelImage {
        &self.kernel
    }

    #[cfg(feature = "gdb")]
    pub(crate) fn ramdisk(&self) -> Option<&Ramdisk> {
        self.ramdisk.as_deref()
    }

    /// Whether modules have to be compiled for this machine.
    pub(crate) fn runs_compiled(&self) -> bool {
        self.kernel.runs_compiled()
    }

    /// Whether its engine counts fuel.
    pub(crate) fn counts_fuel(&self) -> bool {
        self.boot.flags & flags::FUEL != 0
    }

    /// Maps another compiled module, and tells where.
    pub(crate) fn add_module(&mut self, module: &Arc<Module>) -> Result<u64, VmError> {
        let address = match self.demand.modules().next_back() {
            Some(last) => last.next_address(module.bytes()),
            None => Some(MODULE.start),
        };
        let address = address.ok_or_else(|| machine(&"there is no room for another module"))?;
        let placed = PlacedModule { address, module: Arc::clone(module) };
        self.demand.add_module(&self.vm, &self.ram, &placed)?;
        Ok(address)
    }

    /// Copies a part of a compiled module into linear memory, and gives it the RAM for that; whether there are both.
    pub(crate) fn copy_module(&mut self, arguments: &CopyModuleArgs) -> Result<Copied, HostFailure> {
        const PIECE_BYTES: u64 = 256 << 10;
        let CopyModuleArgs { from, to, bytes } = *arguments;
        let holds = |placed: &&PlacedModule| {
            let offset = from.checked_sub(placed.address);
            offset.and_then(|offset| offset.checked_add(bytes)).is_some_and(|end| end <= placed.module.bytes())
        };
        let Some(placed) = self.demand.modules().find(holds).cloned() else { return Ok(Copied::Impossible) };
        if !LINEAR.contains_range(to, bytes) {
            return Ok(Copied::Impossible);
        }
        let (mut done, mut buffer) = (0, vec![0; usize::try_from(PIECE_BYTES.min(bytes)).unwrap_or(0)]);
        while done < bytes {
            let at = to + done;
            // No piece crosses the end of a chunk.
            let length = PIECE_BYTES.min(bytes - done).min(CHUNK_BYTES - at % CHUNK_BYTES);
            let Some(piece) = usize::try_from(length).ok().and_then(|length| buffer.get_mut(..length)) else {
                return Ok(Copied::Impossible);
            };
            if !self.demand.is_announced(&self.ram, at, length)? {
                return Ok(Copied::Impossible);
            }
            if self.control.stop_reason().is_some() {
                return Ok(Copied::InPart);
            }
            let Some(ram_address) = self.demand.touch(&self.vm, &self.ram, at)? else { return Ok(Copied::InPart) };
            let copied = placed.module.mapping().read_carefully(from - placed.address + done, piece);
            copied.and_then(|()| self.ram.write_pool(ram_address, piece)).map_err(|_| HostFailure::MemoryGone)?;
            done += length;
        }
        Ok(Copied::Whole)
    }

    /// Notes what was written since the machine began with `image`, for those that come after it.
    pub(crate) fn note_working_set(&self, page_map: &PageMap, image: &MachineImage) {
        image.working_set.get_or_init(|| {
            let written = ram_image::written(&self.ram, page_map, &self.demand.used()).unwrap_or_default();
            let pages: u64 = written.iter().map(|range| (range.end - range.start) / PAGE_BYTES).sum();
            if pages <= MAX_WORKING_SET_PAGES { written } else { Vec::new() }
        });
    }

    /// Goes back to an image. `shares` tells whether RAM has it below what was written; else all is mapped anew.
    pub(crate) fn restore(
        &mut self,
        page_map: &PageMap,
        image: &MachineImage,
        shares: bool,
        idle: &mut Idle,
    ) -> Result<Restored, VmError> {
        // First, as that may write to RAM.
        if !self.is_parked {
            vcpu::finish_exit(&mut self.vcpu).map_err(VmError::create("finishing what the guest was doing"))?;
            self.is_parked = true;
        }
        self.ram.is_of_file = image.is_of_file;
        let restored = if shares {
            image.ram.restore(&self.ram, page_map, &self.demand.kept(), idle)?
        } else {
            self.ram.clear()?;
            image.ram.map_into(&self.ram)?;
            idle.clear();
            Restored::default()
        };
        // Those that are interpreted the guest has in its RAM.
        if self.runs_compiled() {
            self.demand.set_modules(&self.vm, &image.modules)?;
        }
        vcpu::reset(&mut self.vcpu, &self.entry).map_err(VmError::create("setting up the vCPU"))?;
        self.demand.restore(&self.vm, &self.ram, &image.demand, !shares).map_err(|error| machine(&error))?;
        self.demand.set_kept_end(restored.private_end);
        self.files.reset();
        self.output.reset(self.ram.memory(), image.ring_tail).map_err(|error| machine(&format!("{error:?}")))?;
        // Later than any that this machine or the one of the image had: the kernel takes a new seed, and drops input that it
        // read ahead, if it sees another.
        let seed_generation = self.boot.seed_generation.max(image.boot.seed_generation);
        let input_generation = self.boot.input_generation.max(image.boot.input_generation);
        self.boot = BootInfo { log_level: self.boot.log_level, seed_generation, input_generation, ..image.boot };
        self.seeded = image.seeded;
        self.config_bytes = image.config_bytes;
        self.clock.set_origin(image.clock);
        self.renew_boot_info()?;
        Ok(restored)
    }

    /// Writes the boot information of a kernel that goes on: clocks of this moment and, unless random numbers are meant to be
    /// the same always, a new seed.
    fn renew_boot_info(&mut self) -> Result<(), VmError> {
        self.boot.flags |= flags::RESUME;
        if !self.seeded {
            self.boot.random_seed = random_seed()?;
            // A file may have told any number.
            self.boot.seed_generation = self.boot.seed_generation.wrapping_add(1);
        }
        self.boot.input_generation = self.boot.input_generation.wrapping_add(1);
        self.boot.clock = self.clock.now();
        let written = self.ram.memory().write_slice(self.boot.as_bytes(), GuestAddress(BOOT_INFO.start));
        written.map_err(|error| machine(&error))
    }
}

/// The parts of a machine that are the host's alone.
struct Services {
    control: Arc<Control>,
    stdin: Stdin,
    files: Arc<FileService>,
    output: OutputService,
}

impl Services {
    fn new(config: Config) -> Result<Self, VmError> {
        let create = |step| move |source| VmError::Create { step, source };
        let control = Control::new(config.interrupt_on).map_err(create("eventfd"))?;
        for listener in &config.listeners {
            listener.set_nonblocking(true).map_err(create("making a listener non-blocking"))?;
        }
        let directories =
            config.directories.into_iter().map(|directory| (directory.file, directory.access == Access::ReadWrite)).collect();
        let files = Arc::new(FileService::new(config.listeners, directories, config.limits.open_files));
        let output = OutputService::new(config.stdout, config.stderr, config.log_level as u8, Arc::clone(&files));
        Ok(Self { control, stdin: Stdin::from(config.stdin), files, output })
    }
}

fn machine(error: &dyn std::fmt::Display) -> VmError {
    VmError::Machine(error.to_string())
}

fn boot_info(
    config: &Config,
    strings: &Strings,
    sizes: &Sizes,
    ram: &GuestRam,
    clock: &ClockService,
    purpose: Purpose,
) -> Result<BootInfo, VmError> {
    let limits = &config.limits;
    let random_seed = match config.random_seed {
        Some(seed) => seed,
        None => random_seed()?,
    };
    let flag = |condition: bool, flag: u32| if condition { flag } else { 0 };
    let flags = flag(limits.fuel.is_some(), flags::FUEL)
        | flag(clock.has_invariant_tsc(), flags::INVARIANT_TSC)
        | flag(purpose == Purpose::Serve, flags::SERVE)
        | flag(config.clock != ClockSource::Host, flags::FIXED_CLOCK)
        | flag(config.translation == Translation::Eager, flags::EAGER);
    Ok(BootInfo {
        magic: BOOT_MAGIC,
        version: ABI_VERSION,
        flags,
        module_bytes: sizes.module.bytes,
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
        clock: clock.now(),
        streams: [input_kind(&config.stdin), output_kind(&config.stdout), output_kind(&config.stderr)],
        log_level: config.log_level as u32,
        seed_generation: 0,
        max_table_elements: limits.table_elements,
        host_functions: strings.host_functions,
        max_instances: limits.instances,
        reserved_too: 0,
        input_generation: 0,
        cpu_features: 0,
    })
}

fn random_seed() -> Result<[u8; 32], VmError> {
    let failed = |source| VmError::Create { step: "getrandom", source };
    let mut seed = [0; 32];
    let bytes = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty());
    match bytes.map_err(|errno| failed(errno.into()))? {
        bytes if bytes == seed.len() => Ok(seed),
        _ => Err(failed(io::ErrorKind::UnexpectedEof.into())),
    }
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

impl From<DrainError> for Ending {
    fn from(error: DrainError) -> Self {
        match error {
            DrainError::Guest(fault) => fault.into(),
            DrainError::Host(failure) => failure.into(),
            DrainError::Stopped => Self::Interrupted,
        }
    }
}
