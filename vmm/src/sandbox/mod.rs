//! Sandboxes: a module instantiated in a micro VM of its own, and called from outside as often as one likes.
//!
//! A call is a command (`mote_abi::command`): the host writes it where the guest waits for an answer, enters the guest, and
//! the guest's next hypercall says what came of it. So a call costs one exit, and one more for each function of the host that
//! it calls.

mod builder;
mod calls;
mod error;
mod export;
mod host;
mod hypervisor;
mod instances;
mod linear;
mod memory;
mod pool;
mod session;
mod snapshot;
mod value;

use std::{
    any::Any,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use mote_abi::hypercall::LinearMemory;

pub use builder::{CopyBuilder, SandboxBuilder};
pub use calls::{Func, Progress};
pub use error::{AccessError, BuildError, CallError, HostError, Poison, SandboxState, SnapshotError};
pub use export::{Export, ExportType, FuncType};
pub use host::{Caller, HostClosure, HostReturned};
pub use pool::{Checkout, Pool, PoolError, PoolOptions, PoolStats, Pooled};
pub(crate) use snapshot::MAGIC as SNAPSHOT_MAGIC;
pub use snapshot::{LoadError, LoadOptions, Snapshot, SnapshotInfo};
pub use value::{FuncRef, OtherRef, Value, WasmType, WasmValues};

use crate::{
    config::{Config, Input, Output},
    confinement::{Confinement, ConfinementError, Layer, Permissions, Role},
    control::InterruptHandle,
    directory::Directory,
    engine::Engine,
    guest_ram::GuestRam,
    image::KernelImage,
    machine::{Machine, MachineImage, Purpose},
    module::Module,
    ram_image::Idle,
    stats::{Counters, Stats},
    vm::VmError,
};
use builder::CallLimits;
use export::Exports;
use host::HostFunctions;
use hypervisor::Hypervisor;
use session::{About, Ongoing, done};

/// A module, instantiated in a micro VM of its own.
///
/// ```
/// use mote_vmm::{Caller, Sandbox};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # if let Err(error) = mote_vmm::open_kvm() {
/// #     println!("skipped: {error}");
/// #     return Ok(());
/// # }
/// let mut sandbox = Sandbox::builder()
///     .module_bytes(
///         r#"(module
///             (import "env" "next" (func $next (param i32) (result i32)))
///             (func (export "add_next") (param i32 i32) (result i32)
///               (i32.add (local.get 0) (call $next (local.get 1)))))"#,
///     )
///     .func("env", "next", |_: Caller<'_>, number: i32| number + 1)
///     .build()?;
/// let sum: i32 = sandbox.call("add_next", (2, 3))?;
/// assert_eq!(sum, 6);
/// # Ok(())
/// # }
/// ```
///
/// It can be sent to another thread, and be dropped on any. After a call that did not return it is
/// [poisoned](SandboxState::Poisoned): [`Sandbox::restore`] brings it back.
///
/// A function is translated when it is first called, and that call pays fuel for it
/// ([`Translation::Eager`](crate::Translation::Eager) avoids that). Dropping a sandbox waits for KVM and takes many times as long
/// as a restore: who needs a clean one for each request takes it from a [`Pool`].
pub struct Sandbox {
    machine: Machine,
    hypervisor: Arc<Hypervisor>,
    /// For modules that are instantiated later.
    engine: Engine,
    /// Whether a thread was confined to calls of it: compiling is over then.
    is_confined: bool,
    functions: Arc<HostFunctions>,
    /// What each instance exports, and where its memory is as far as that is known.
    instances: Vec<InstanceState>,
    directories: Arc<Vec<Directory>>,
    limits: CallLimits,
    state: SandboxState,
    fuel_consumed: u64,
    /// The image that RAM shares, and how long pages of it have not been written.
    base: Option<Arc<MachineImage>>,
    idle: Idle,
    counters: Counters,
    data: Option<Box<dyn Any + Send>>,
}

#[derive(Debug, Clone)]
struct InstanceState {
    exports: Arc<Exports>,
    memory: Option<LinearMemory>,
}

/// One of the modules that are instantiated in a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Instance(u32);

impl Sandbox {
    /// Begins to make one.
    pub fn builder() -> SandboxBuilder {
        SandboxBuilder::default()
    }

    /// A copy of what `snapshot` was taken of, with its host functions, its directories and its deadline; its standard streams
    /// are empty. [`Snapshot::sandbox`] gives more choice.
    pub fn from_snapshot(snapshot: &Snapshot) -> Result<Self, BuildError> {
        snapshot.sandbox().build()
    }

    fn new(
        hypervisor: Arc<Hypervisor>,
        kernel: &Arc<KernelImage>,
        module: &Arc<Module>,
        config: Config,
        limits: CallLimits,
        functions: HostFunctions,
        data: Option<Box<dyn Any + Send>>,
    ) -> Result<Self, BuildError> {
        let _span = tracing::debug_span!("build sandbox", module_bytes = module.bytes()).entered();
        let directories = Arc::new(duplicates(&config.directories)?);
        let machine = Machine::new(&hypervisor.kvm, kernel, module, config, &functions.strings(), Purpose::Serve)?;
        let mut sandbox = Self {
            machine,
            hypervisor,
            engine: Engine::for_kernel(kernel),
            is_confined: false,
            functions: Arc::new(functions),
            instances: Vec::new(),
            directories,
            limits,
            state: SandboxState::Poisoned(Poison::Fault),
            fuel_consumed: 0,
            base: None,
            idle: Idle::default(),
            counters: Counters::default(),
            data,
        };
        let started = Instant::now();
        let _call = Ongoing::begin(&sandbox.machine, limits);
        let step = sandbox.enter(About::default(), false, |machine, session| machine.run(&session.attached, false));
        // A module that cannot be instantiated is no fault of the machine.
        let (code, payload) = done(step?)?;
        let (phases, whole) = (&mut sandbox.machine.stats.phases, started.elapsed());
        // Counters of the guest, who may say anything.
        (phases.parse, phases.instantiate) = (phases.parse.min(whole), phases.instantiate.min(whole));
        phases.enter = whole.saturating_sub(phases.parse + phases.instantiate);
        let exports = sandbox.exports_from(0, code, payload)?;
        sandbox.keep_exports(exports);
        Ok(sandbox)
    }

    fn copy(
        snapshot: &Snapshot,
        mut config: Config,
        limits: CallLimits,
        functions: HostFunctions,
        data: Option<Box<dyn Any + Send>>,
    ) -> Result<Self, BuildError> {
        let _span = tracing::debug_span!("copy sandbox").entered();
        let inner = snapshot.inner();
        let functions = if functions.as_slice().is_empty() && inner.has_functions() {
            Arc::clone(&inner.functions)
        } else {
            Arc::new(functions.in_order_of(&inner.needed_functions)?)
        };
        if config.directories.is_empty() {
            config.directories = duplicates(&inner.directories)?;
        }
        let names = |directories: &[Directory]| directories.iter().map(|directory| directory.guest.clone()).collect::<Vec<_>>();
        let (given, expected) = (names(&config.directories), inner.directory_names.clone());
        if given != expected {
            return Err(BuildError::OtherDirectories { expected, given });
        }
        let directories = Arc::new(duplicates(&config.directories)?);
        let hypervisor = Arc::clone(&inner.hypervisor);
        let machine = Machine::resumed(&hypervisor.kvm, &inner.image, config, inner.working_set())?;
        Ok(Self {
            machine,
            hypervisor,
            engine: inner.engine.clone(),
            is_confined: false,
            functions,
            instances: inner.instances.clone(),
            directories,
            limits,
            state: inner.state,
            fuel_consumed: 0,
            base: Some(Arc::clone(&inner.image)),
            idle: Idle::default(),
            counters: Counters::default(),
            data,
        })
    }

    /// Confines the calling thread to what calls of this sandbox need, restores to the snapshot that it has last included:
    /// the files beneath its directories, and few system calls. See [`Confinement`] for what that means; it cannot be
    /// undone. Making sandboxes and snapshots, restores to another snapshot, and instantiating further modules of compiled code,
    /// are over for this thread.
    pub fn confine(&mut self, confinement: Confinement) -> Result<(), ConfinementError> {
        if confinement == Confinement::Off {
            return Ok(());
        }
        let failed = |layer| move |message: String| ConfinementError::Failed { layer, message };
        let permissions = Permissions::beneath(&self.directories);
        let permissions = permissions.map_err(|error| failed(Layer::Landlock)(error.to_string()))?;
        // What calls and restores need has to be open, and the timer of this thread there, before the filter is.
        self.hypervisor.page_map().map_err(|error| failed(Layer::Landlock)(error.to_string()))?;
        confinement.restrict_files(&permissions)?;
        self.machine.attach().map_err(|error| failed(Layer::Seccomp)(error.to_string()))?;
        confinement.restrict_calls(Role { calls: true, ..Role::of(&permissions) })?;
        self.is_confined = true;
        Ok(())
    }

    /// Whether it can be called.
    pub fn state(&self) -> SandboxState {
        self.state
    }

    /// Lets a sandbox be called again after a call that ended by a trap, an error of a host function or an exit. The engine is
    /// sound then; whether the module is, only its author can say. Other poison goes away only by [`Sandbox::restore`].
    pub fn clear_poison(&mut self) -> Result<(), CallError> {
        match self.state {
            SandboxState::Poisoned(poison) if !poison.is_unwound() => Err(CallError::Poisoned(poison)),
            SandboxState::Poisoned(_) => {
                self.state = SandboxState::Ready;
                Ok(())
            }
            SandboxState::Ready | SandboxState::AtInput => Ok(()),
        }
    }

    /// A handle that ends the next call, or the one that runs, from any thread; later ones are never meant.
    pub fn interrupt_handle(&self) -> InterruptHandle {
        self.machine.control.handle()
    }

    /// Fuel that the last call consumed; 0 where it is not counted.
    pub fn fuel_consumed(&self) -> u64 {
        self.fuel_consumed
    }

    /// Gives each call from now on this much fuel. Does nothing where fuel is not counted, which is decided by
    /// [`SandboxBuilder::fuel`].
    pub fn set_fuel(&mut self, fuel: u64) {
        self.limits.fuel = self.limits.fuel.map(|_| fuel);
    }

    /// Lets each call from now on take as long, or as long as it likes.
    pub fn set_deadline(&mut self, deadline: Option<Duration>) {
        self.limits.deadline = deadline;
    }

    /// Where standard input comes from, from now on. What was read ahead of the old one is dropped.
    pub fn set_stdin(&mut self, input: Input) {
        self.machine.set_stdin(input);
    }

    /// Where standard output goes from now on.
    pub fn set_stdout(&mut self, output: Output) {
        self.machine.set_output(mote_abi::ring::Stream::Stdout, output);
    }

    /// Where standard error goes from now on.
    pub fn set_stderr(&mut self, output: Output) {
        self.machine.set_output(mote_abi::ring::Stream::Stderr, output);
    }

    /// What functions of the host find with [`Caller::data`] from now on.
    pub fn set_data(&mut self, data: impl Any + Send) {
        self.data = Some(Box::new(data));
    }

    /// The same, taken back, if it is of this type.
    pub fn take_data<T: Any>(&mut self) -> Option<T> {
        self.data.take_if(|data| data.is::<T>()).and_then(|data| data.downcast().ok()).map(|data| *data)
    }

    /// What the VM cost so far: phases of making it, exits, RAM.
    pub fn stats(&self) -> Stats {
        Stats { touched_bytes: self.machine.ram.resident_bytes(&GuestRam::EVERYWHERE), ..self.machine.stats.clone() }
    }

    /// What happened to the sandbox so far, counted.
    pub fn counters(&self) -> Counters {
        self.counters
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { state, limits, counters, functions, .. } = self;
        f.debug_struct("Sandbox")
            .field("state", state)
            .field("limits", limits)
            .field("counters", counters)
            .field("functions", functions)
            .finish_non_exhaustive()
    }
}

fn duplicates(directories: &[Directory]) -> Result<Vec<Directory>, VmError> {
    let duplicated = directories.iter().map(Directory::try_clone).collect::<Result<_, _>>();
    duplicated.map_err(|source| VmError::Create { step: "dup", source })
}

const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Sandbox>();
    is_send::<Pooled>();
    const fn is_sync<T: Sync>() {}
    is_sync::<Pool>();
    is_sync::<Snapshot>();
    is_send::<Snapshot>();
};
