//! A VM: made from kernel, module and configuration, run once, and what came of it.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use kvm_ioctls::Kvm;
use thiserror::Error;

use crate::{
    config::{Config, ConfigError},
    confinement::{Confinement, Permissions, Role},
    control::{Attached, InterruptHandle},
    ending::{Ending, GuestFault, HostFailure},
    image::KernelImage,
    kvm::{self, KvmError},
    machine::{Machine, Purpose},
    memory::MemoryError,
    module::Module,
    run::replace_success,
    stats::Stats,
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
    /// Kernel and module are of different engines.
    #[error("{}", if *runs_compiled { "this kernel image runs compiled modules only; `mote compile` makes one" } else { "this kernel image interprets modules, and the module is compiled" })]
    OtherEngine {
        /// Whether the kernel is the one for compiled modules.
        runs_compiled: bool,
    },
    /// Fuel for code that counts none.
    #[error(
        "the module was compiled without counting fuel, so no fuel can be given; compile it again with `mote compile --fuel`"
    )]
    NoFuel,
    /// The machine could not be written into guest memory.
    #[error("cannot build the guest machine: {0}")]
    Machine(String),
}

impl VmError {
    pub(crate) fn create(step: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |error| Self::Create { step, source: io::Error::from_raw_os_error(error.errno()) }
    }
}

/// How long a run that was stopped waits for readers of its output.
const GRACE: Duration = Duration::from_secs(2);

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
    pub(crate) machine: Machine,
    deadline: Option<Duration>,
    confinement: Confinement,
    permissions: Permissions,
}

impl Vm {
    /// Makes the VM: opens KVM, lays out memory, writes the machine into it. Nothing runs yet.
    pub fn new(kernel: &Arc<KernelImage>, module: &Arc<Module>, config: Config) -> Result<Self, VmError> {
        Self::with_kvm(&kvm::open()?, kernel, module, config)
    }

    /// As [`Vm::new`], with a KVM handle that is used for many VMs.
    pub fn with_kvm(kvm: &Kvm, kernel: &Arc<KernelImage>, module: &Arc<Module>, config: Config) -> Result<Self, VmError> {
        let (deadline, confinement) = (config.limits.deadline, config.confinement);
        let permissions = Permissions::of(&config).map_err(|source| VmError::Create { step: "dup", source })?;
        let machine = Machine::new(kvm, kernel, module, config, &[], Purpose::Run)?;
        Ok(Self { machine, deadline, confinement, permissions })
    }

    /// A handle that ends the run from another thread.
    pub fn interrupt_handle(&self) -> InterruptHandle {
        self.machine.control.handle()
    }

    /// Runs the module to its end on the calling thread, and confines that first if the configuration says so. Whatever the
    /// end is, all output is written out.
    pub fn run(mut self) -> Report {
        let started = Instant::now();
        let ended = self.begin(started, self.role()).and_then(|attached| self.machine.run(&attached, false));
        let ending = match ended {
            Err(ending) => ending,
            Ok(_) => no_commands(),
        };
        self.conclude(ending)
    }

    /// What the thread that runs it has to do.
    pub(crate) fn role(&self) -> Role {
        Role { compiled: self.machine.runs_compiled(), ..Role::of(&self.permissions) }
    }

    /// All that comes before the first entry: confines the calling thread to `role`, and makes it the one that runs the guest.
    pub(crate) fn begin(&mut self, started: Instant, role: Role) -> Result<Attached, Ending> {
        let machine = &mut self.machine;
        self.confinement.restrict_files(&self.permissions).map_err(HostFailure::from)?;
        machine.control.begin(self.deadline.and_then(|after| started.checked_add(after)));
        let attached = machine.attach()?;
        self.confinement.restrict_calls(role).map_err(HostFailure::from)?;
        // The time that making the VM took must not make its clocks late.
        machine.renew_clock()?;
        Ok(attached)
    }

    /// All that comes behind the end.
    pub(crate) fn conclude(&mut self, ending: Ending) -> Report {
        let flushing = Instant::now();
        let mut ending = self.machine.finish(ending, GRACE);
        if self.machine.files.has_lost_writes() {
            ending = replace_success(ending, HostFailure::LostWrites.into());
        }
        let touched_bytes = self.machine.touched_bytes();
        let mut stats = Stats { touched_bytes, ..self.machine.stats };
        stats.phases.flush = flushing.elapsed();
        Report { ending, stats }
    }
}

/// The end of a guest that is to run a module once, and waits for commands.
pub(crate) fn no_commands() -> Ending {
    GuestFault::BadRequest("it waits for commands that nobody gives".into()).into()
}
