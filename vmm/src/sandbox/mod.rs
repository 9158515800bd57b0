//! Sandboxes: a module instantiated in a micro VM of its own, and called from outside as often as one likes.
//!
//! A call is a command (`mote_abi::command`): the host writes it where the guest waits for an answer, enters the guest, and
//! the guest's next hypercall says what came of it. So a call costs one exit, and one more for each function of the host that
//! it calls.

mod builder;
mod error;
mod export;
mod host;
mod hypervisor;
mod linear;
mod pool;
mod snapshot;
mod value;

use std::{
    any::Any,
    fmt,
    marker::PhantomData,
    sync::Arc,
    time::{Duration, Instant},
};

use mote_abi::{
    command::{self, CallArgs, ExportArgs, ExportsArgs, InstantiateArgs, RegisterArgs, StageArgs},
    hypercall::{LinearMemory, NO_FUEL},
    layout::MAILBOX_DATA,
    mailbox::{DATA_BYTES, Response},
    value::{MAX_VALUES, RawValue, ValueType},
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

pub use builder::{CopyBuilder, SandboxBuilder};
pub use error::{AccessError, BuildError, CallError, HostError, Poison, SandboxState, SnapshotError};
pub use export::{Export, ExportType, FuncType};
pub use host::{Caller, HostClosure, HostReturned};
pub use pool::{Checkout, Pool, PoolError, PoolOptions, PoolStats, Pooled};
pub(crate) use snapshot::MAGIC as SNAPSHOT_MAGIC;
pub use snapshot::{LoadError, Snapshot, SnapshotInfo};
pub use value::{FuncRef, Value, WasmType, WasmValues};

use crate::{
    config::{Config, Input, Output},
    confinement::{Confinement, ConfinementError, Layer, Permissions, Role},
    control::{Attached, Control, InterruptHandle},
    directory::Directory,
    ending::{Ending, GuestFault, HostFailure, Rejection},
    image::KernelImage,
    machine::{Machine, MachineImage, Purpose},
    module::{Module, ModuleError, read_module},
    ram_image::Idle,
    request::{Outcome, Returned, values},
    run::Event,
    stats::{Counters, Stats},
    vm::VmError,
};
use builder::CallLimits;
use export::Exports;
use host::{Answered, HostFunctions};
use hypervisor::Hypervisor;
use value::type_names;

/// Most bytes of a list of exports: they are the host's memory. Functions of many parameters make long lists of short modules.
const MAX_EXPORTS_BYTES: usize = 16 << 20;

/// A module, instantiated in a micro VM of its own.
///
/// ```no_run
/// use mote_vmm::{Caller, Sandbox};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut sandbox = Sandbox::builder()
///     .module_file("plugin.wasm")
///     .func("env", "log", |caller: Caller<'_>, pointer: u32, bytes: u32| -> Result<(), mote_vmm::AccessError> {
///         let text = caller.read_memory_to_vec(pointer.into(), bytes.into())?;
///         println!("{}", String::from_utf8_lossy(&text));
///         Ok(())
///     })
///     .build()?;
/// let sum: i32 = sandbox.call("add", (2, 3))?;
/// # Ok(())
/// # }
/// ```
///
/// It can be sent to another thread, and be dropped on any. After a call that did not return it is
/// [poisoned](SandboxState::Poisoned): [`Sandbox::restore`] brings it back.
pub struct Sandbox {
    machine: Machine,
    hypervisor: Arc<Hypervisor>,
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

/// An exported function, looked up once. It is good for the sandbox that it comes from, and for all copies and restores of it.
#[derive(Debug)]
pub struct Func<P, R> {
    instance: u32,
    export: u32,
    types: PhantomData<fn(P) -> R>,
}

impl<P, R> Clone for Func<P, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P, R> Copy for Func<P, R> {}

/// How far a program came that was started with [`Sandbox::start_until_input`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It waits for standard input: take a snapshot, or [`Sandbox::resume`] it.
    AtInput,
    /// Its start function returned without having asked for input.
    Finished,
}

/// A call that goes on, of one command or of several: for [`Control`] it ends with this, whatever happens.
struct Ongoing(Arc<Control>);

impl Ongoing {
    fn begin(machine: &Machine, limits: CallLimits) -> Self {
        machine.control.begin(limits.deadline.and_then(|after| Instant::now().checked_add(after)));
        Self(Arc::clone(&machine.control))
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A command that goes on, in this thread.
struct Session {
    _call: Ongoing,
    attached: Attached,
}

impl Session {
    fn begin(machine: &Machine, limits: CallLimits) -> Result<Self, CallError> {
        let call = Ongoing::begin(machine, limits);
        Ok(Self { attached: machine.attach()?, _call: call })
    }
}

/// What a command is about: an instance, and the function of it that is called.
#[derive(Debug, Clone, Copy, Default)]
struct About {
    instance: u32,
    export: Option<u32>,
}

impl About {
    fn instance(instance: u32) -> Self {
        Self { instance, export: None }
    }
}

/// What a command brings, beside what the sandbox keeps.
enum Step {
    Done { code: u32, payload: Vec<u8> },
    AtInput,
}

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

    /// Calls the exported function `name` of the first module. The types of arguments and results are checked against its type
    /// first.
    pub fn call<P: WasmValues, R: WasmValues>(&mut self, name: &str, params: P) -> Result<R, CallError> {
        let func = self.func(name)?;
        self.call_func(func, params)
    }

    /// Looks an exported function of the first module up, so that calls need not.
    pub fn func<P: WasmValues, R: WasmValues>(&self, name: &str) -> Result<Func<P, R>, CallError> {
        self.func_of(Instance(0), name)
    }

    /// The same for a function of any instance.
    pub fn func_of<P: WasmValues, R: WasmValues>(&self, instance: Instance, name: &str) -> Result<Func<P, R>, CallError> {
        let (export, ty) = self.find_function(instance, name)?;
        if ty.params != P::TYPES || ty.results != R::TYPES {
            let wanted = format!("{} -> {}", type_names(P::TYPES), type_names(R::TYPES));
            return Err(CallError::Mismatch(format!("`{name}` is a function {ty}, not {wanted}").into()));
        }
        Ok(Func { instance: instance.0, export, types: PhantomData })
    }

    /// Calls a function that was looked up.
    pub fn call_func<P: WasmValues, R: WasmValues>(&mut self, func: Func<P, R>, params: P) -> Result<R, CallError> {
        // A handle of another sandbox names something else here, or nothing.
        let ty = self.instance(Instance(func.instance)).ok().and_then(|instance| instance.exports.function(func.export));
        if ty.is_none_or(|ty| ty.params != P::TYPES || ty.results != R::TYPES) {
            return Err(CallError::Mismatch("this function was looked up in another sandbox".into()));
        }
        let mut raw = Vec::with_capacity(P::TYPES.len());
        params.push(&mut raw);
        let results = self.call_raw(func.instance, func.export, &raw, R::TYPES.len())?;
        Ok(R::take(&results))
    }

    /// Calls the exported function `name` of the first module with values whose types are known at run time.
    pub fn call_dynamic(&mut self, name: &str, params: &[Value]) -> Result<Vec<Value>, CallError> {
        self.call_dynamic_of(Instance(0), name, params)
    }

    /// The same for a function of any instance.
    pub fn call_dynamic_of(&mut self, instance: Instance, name: &str, params: &[Value]) -> Result<Vec<Value>, CallError> {
        let (export, ty) = self.find_function(instance, name)?;
        let given: Vec<_> = params.iter().map(Value::ty).collect();
        if given != ty.params {
            let message = format!("`{name}` is a function {ty}; arguments {} were given", type_names(&given));
            return Err(CallError::Mismatch(message.into()));
        }
        if params.iter().any(|value| matches!(value, Value::FuncRef(Some(_)))) {
            return Err(CallError::Mismatch("a reference to a function cannot be given from outside".into()));
        }
        let results = ty.results.clone();
        let raw: Vec<_> = params.iter().map(|value| value.to_raw()).collect();
        let returned = self.call_raw(instance.0, export, &raw, results.len())?;
        Ok(results.iter().zip(returned).map(|(ty, raw)| Value::from_raw(*ty, raw)).collect())
    }

    fn call_raw(&mut self, instance: u32, export: u32, raw: &[RawValue], results: usize) -> Result<Vec<RawValue>, CallError> {
        if raw.len().max(results) > MAX_VALUES {
            return Err(CallError::Mismatch(format!("more than {MAX_VALUES} arguments or results").into()));
        }
        let _span = tracing::trace_span!("call", instance, export).entered();
        let count = u32::try_from(raw.len()).unwrap_or(0);
        let arguments = CallArgs { instance, export, count, reserved: 0, fuel: self.fuel() };
        let (_, payload) =
            done(self.command(command::CALL, About { instance, export: Some(export) }, &arguments, raw.as_bytes(), false)?)?;
        let returned = values(&payload);
        if returned.len() != results {
            return Err(self.fault("another number of results than the function has"));
        }
        Ok(returned)
    }

    /// Fuel of a call, as the guest is told.
    fn fuel(&self) -> u64 {
        self.limits.fuel.map_or(NO_FUEL, |fuel| fuel.min(NO_FUEL - 1))
    }

    /// Calls `_start`, as a WASI command has it: 0 if it returns, else the status with which it ended itself.
    pub fn start(&mut self) -> Result<u32, CallError> {
        let result = self.call("_start", ());
        self.status_of(result)
    }

    /// Calls `_start`, and stops where the program first waits for standard input: an interpreter is warmed up then, and has
    /// seen nothing of what it is going to work on.
    pub fn start_until_input(&mut self) -> Result<Progress, CallError> {
        let Func { instance, export, .. } = self.func::<(), ()>("_start")?;
        let arguments = CallArgs { instance, export, count: 0, reserved: 0, fuel: self.fuel() };
        match self.command(command::CALL, About { instance, export: Some(export) }, &arguments, &[], true)? {
            Step::AtInput => Ok(Progress::AtInput),
            Step::Done { .. } => Ok(Progress::Finished),
        }
    }

    /// Goes on with a program that waits for standard input: 0 if its start function returns, else the status with which it
    /// ended itself.
    pub fn resume(&mut self) -> Result<u32, CallError> {
        match self.state {
            SandboxState::AtInput => {}
            SandboxState::Poisoned(poison) => return Err(CallError::Poisoned(poison)),
            SandboxState::Ready => return Err(CallError::Mismatch("the sandbox is not in the middle of a call".into())),
        }
        let result = self.enter(About::default(), false, |machine, session| machine.run_on(&session.attached));
        self.status_of(result.map(drop))
    }

    /// The status with which a program ended.
    fn status_of(&self, result: Result<(), CallError>) -> Result<u32, CallError> {
        let status = match result {
            Ok(()) => 0,
            Err(CallError::Exit(status)) => status,
            Err(error) => return Err(error),
        };
        if self.machine.files.has_lost_writes() { Err(HostFailure::LostWrites.into()) } else { Ok(status) }
    }

    /// Confines the calling thread to what calls of this sandbox need, restores to the snapshot that it has last included:
    /// the files beneath its directories, and few system calls. See [`Confinement`] for what that means; it cannot be
    /// undone. Making sandboxes and snapshots, and restores to another snapshot, are over for this thread.
    pub fn confine(&mut self, confinement: Confinement) -> Result<(), ConfinementError> {
        if confinement == Confinement::Off {
            return Ok(());
        }
        let failed = |layer| move |message: String| ConfinementError::Failed { layer, message };
        let permissions = Permissions::beneath(&self.directories);
        let permissions = permissions.map_err(|error| failed(Layer::Landlock)(error.to_string()))?;
        confinement.restrict_files(&permissions)?;
        // The timer of this thread has to be there before the filter is.
        self.machine.attach().map_err(|error| failed(Layer::Seccomp)(error.to_string()))?;
        confinement.restrict_calls(Role { calls: true, ..Role::of(&permissions) })
    }

    /// Instantiates another module in this sandbox. Its imports are functions of the host, exports of instances that were
    /// [registered](Sandbox::register), and WASI.
    pub fn instantiate(&mut self, bytes: &[u8]) -> Result<Instance, CallError> {
        let module = read_module("the module".as_ref(), bytes.to_vec()).map_err(|error| refused(&error))?;
        let whole_bytes = module.len() as u64;
        let _call = Ongoing::begin(&self.machine, self.limits);
        for (index, part) in module.chunks(DATA_BYTES).enumerate() {
            let bytes = u32::try_from(part.len()).unwrap_or(0);
            let arguments = StageArgs { bytes, first: u32::from(index == 0), whole_bytes };
            self.command(command::STAGE, About::instance(0), &arguments, part, false)?;
        }
        let (number, _) =
            done(self.command(command::INSTANTIATE, About::instance(0), &InstantiateArgs { fuel: self.fuel() }, &[], false)?)?;
        if usize::try_from(number).ok() != Some(self.instances.len()) {
            return Err(self.fault("an instance out of order"));
        }
        let arguments = ExportsArgs { instance: number, from: 0 };
        let (code, payload) = done(self.command(command::EXPORTS, About::instance(number), &arguments, &[], false)?)?;
        let exports = self.exports_from(number, code, payload)?;
        self.keep_exports(exports);
        Ok(Instance(number))
    }

    /// Offers the exports of an instance, under this name, to the imports of modules that are instantiated after it.
    pub fn register(&mut self, name: &str, instance: Instance) -> Result<(), CallError> {
        let name_bytes = u32::try_from(name.len()).ok().filter(|_| name.len() <= DATA_BYTES);
        let name_bytes = name_bytes.ok_or_else(|| CallError::Mismatch("the name is too long".into()))?;
        self.instance(instance)?;
        let arguments = RegisterArgs { instance: instance.0, name_bytes };
        self.command(command::REGISTER, About::instance(instance.0), &arguments, name.as_bytes(), false).map(drop)
    }

    /// The module that the sandbox was made with.
    pub fn main_instance(&self) -> Instance {
        Instance(0)
    }

    /// What the first module exports, in an order that stays the same.
    pub fn exports(&self) -> &[Export] {
        self.exports_of(Instance(0))
    }

    /// What an instance exports, in an order that stays the same.
    pub fn exports_of(&self, instance: Instance) -> &[Export] {
        self.instance(instance).map_or(&[], |instance| instance.exports.as_slice())
    }

    /// The value of an exported global of the first module.
    pub fn global(&mut self, name: &str) -> Result<Value, CallError> {
        self.global_of(Instance(0), name)
    }

    /// The same for any instance.
    pub fn global_of(&mut self, instance: Instance, name: &str) -> Result<Value, CallError> {
        let (export, ty, _) = self.find_global(instance, name)?;
        let arguments = ExportArgs { instance: instance.0, export };
        let (_, payload) = done(self.command(command::GLOBAL_GET, About::instance(instance.0), &arguments, &[], false)?)?;
        match RawValue::read_from_bytes(&payload) {
            Ok(raw) => Ok(Value::from_raw(ty, raw)),
            Err(_) => Err(self.fault("a global without a value")),
        }
    }

    /// Sets an exported global of the first module that is mutable.
    pub fn set_global(&mut self, name: &str, value: Value) -> Result<(), CallError> {
        self.set_global_of(Instance(0), name, value)
    }

    /// The same for any instance.
    pub fn set_global_of(&mut self, instance: Instance, name: &str, value: Value) -> Result<(), CallError> {
        let (export, ty, mutable) = self.find_global(instance, name)?;
        if !mutable || value.ty() != ty {
            let kind = if mutable { "mutable" } else { "immutable" };
            let message = format!("`{name}` is {kind} and of type {}; {} was given", ty.name(), value.ty().name());
            return Err(CallError::Mismatch(message.into()));
        }
        let arguments = ExportArgs { instance: instance.0, export };
        self.command(command::GLOBAL_SET, About::instance(instance.0), &arguments, value.to_raw().as_bytes(), false).map(drop)
    }

    /// Size in bytes of the linear memory that the first module exports as `memory`.
    pub fn memory_bytes(&mut self) -> Result<u64, AccessError> {
        self.memory("memory").map(|memory| memory.bytes)
    }

    /// Reads the linear memory that the first module exports as `memory`, from `offset` on. Also after a trap, an error of a
    /// host function or an exit.
    pub fn read_memory(&mut self, offset: u64, to: &mut [u8]) -> Result<(), AccessError> {
        self.read_memory_of("memory", offset, to)
    }

    /// Writes to the same from `offset` on.
    pub fn write_memory(&mut self, offset: u64, from: &[u8]) -> Result<(), AccessError> {
        self.write_memory_of("memory", offset, from)
    }

    /// Reads a memory that is exported under another name.
    pub fn read_memory_of(&mut self, name: &str, offset: u64, to: &mut [u8]) -> Result<(), AccessError> {
        let memory = self.memory(name)?;
        linear::read(&self.machine, memory, offset, to)
    }

    /// Writes to a memory that is exported under another name.
    pub fn write_memory_of(&mut self, name: &str, offset: u64, from: &[u8]) -> Result<(), AccessError> {
        if let SandboxState::Poisoned(poison) = self.state {
            return Err(AccessError::Unavailable(CallError::Poisoned(poison).to_string()));
        }
        let memory = self.memory(name)?;
        linear::write(&mut self.machine, memory, offset, from)
    }

    /// Where a memory of the first module lies; asked of the guest only if it is not known.
    fn memory(&mut self, name: &str) -> Result<LinearMemory, AccessError> {
        let no_memory = || AccessError::NoMemory(name.into());
        let instance = self.instances.first().ok_or_else(no_memory)?;
        let (export, found) = instance.exports.find(name).ok_or_else(no_memory)?;
        if !matches!(found.ty, ExportType::Memory { .. }) {
            return Err(no_memory());
        }
        match self.state {
            SandboxState::Poisoned(poison) if !poison.is_unwound() => {
                return Err(AccessError::Unavailable(CallError::Poisoned(poison).to_string()));
            }
            SandboxState::AtInput => return Err(AccessError::Unavailable(CallError::AtInput.to_string())),
            SandboxState::Ready | SandboxState::Poisoned(_) => {}
        }
        if let ("memory", Some(known)) = (name, instance.memory) {
            return Ok(known);
        }
        let arguments = ExportArgs { instance: 0, export };
        let unavailable = |error: CallError| AccessError::Unavailable(error.to_string());
        let (step, memory) =
            self.command_with_memory(command::MEMORY, About::default(), &arguments, &[], false).map_err(unavailable)?;
        done(step).map_err(unavailable)?;
        Ok(memory)
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
        self.machine.output.set_stream(mote_abi::ring::Stream::Stdout, output);
    }

    /// Where standard error goes from now on.
    pub fn set_stderr(&mut self, output: Output) {
        self.machine.output.set_stream(mote_abi::ring::Stream::Stderr, output);
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
        Stats { touched_bytes: self.machine.ram.resident_bytes(), ..self.machine.stats.clone() }
    }

    /// What happened to the sandbox so far, counted.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn command(
        &mut self,
        number: u32,
        about: About,
        arguments: &(impl IntoBytes + Immutable),
        data: &[u8],
        stops_at_input: bool,
    ) -> Result<Step, CallError> {
        self.command_with_memory(number, about, arguments, data, stops_at_input).map(|(step, _)| step)
    }

    /// Gives the guest a command and lets it do that. Also tells where the memory is that it was about.
    fn command_with_memory(
        &mut self,
        number: u32,
        about: About,
        arguments: &(impl IntoBytes + Immutable),
        data: &[u8],
        stops_at_input: bool,
    ) -> Result<(Step, LinearMemory), CallError> {
        // A sandbox whose call was unwound cannot be called, but looked at.
        let looks = matches!(number, command::MEMORY | command::GLOBAL_GET | command::EXPORTS);
        let state_before = self.state;
        match state_before {
            SandboxState::Ready => {}
            SandboxState::Poisoned(poison) if looks && poison.is_unwound() => {}
            SandboxState::AtInput => return Err(CallError::AtInput),
            SandboxState::Poisoned(poison) => return Err(CallError::Poisoned(poison)),
        }
        let command = Response::new(number, arguments, u32::try_from(data.len()).unwrap_or(0));
        let memory_before = self.instances.first().and_then(|instance| instance.memory);
        let step = self.enter(about, stops_at_input, |machine, session| {
            machine.write(MAILBOX_DATA.start, data)?;
            machine.respond(&command)?;
            machine.renew_clock()?;
            machine.run(&session.attached, stops_at_input)
        })?;
        if looks {
            self.state = state_before;
        }
        let index = usize::try_from(about.instance).unwrap_or(usize::MAX);
        let memory = self.instances.get(index).and_then(|instance| instance.memory).unwrap_or_default();
        if number != command::CALL
            && let Some(instance) = self.instances.get_mut(index)
        {
            // Only calls tell of the memory that is kept. This may have been about another one, or about none.
            instance.memory = if number == command::MEMORY { memory_before } else { None };
        }
        Ok((step, memory))
    }

    /// Enters the guest by `first`, answers its calls of host functions, and keeps what it says at the end.
    fn enter(
        &mut self,
        about: About,
        stops_at_input: bool,
        first: impl FnOnce(&mut Machine, &Session) -> Result<Event, Ending>,
    ) -> Result<Step, CallError> {
        let session = Session::begin(&self.machine, self.limits)?;
        // Until the end is known; also if a function of the host panics.
        self.state = SandboxState::Poisoned(Poison::Fault);
        self.counters.calls += 1;
        if about.export.is_some() {
            self.fuel_consumed = 0;
        }
        let result = self.go_on(about, stops_at_input, &session, first);
        let result = result.map_err(|error| self.ended(error));
        drop(session);
        // Only where there can be another copy that profits from it.
        if let (1, Some(base)) = (self.counters.calls, &self.base)
            && Arc::strong_count(base) > 1
        {
            self.machine.note_working_set(&self.hypervisor.page_map, base);
        }
        self.state = match &result {
            Ok(Step::AtInput) => SandboxState::AtInput,
            Ok(Step::Done { .. }) => SandboxState::Ready,
            Err(error) => error.poison().map_or(SandboxState::Ready, SandboxState::Poisoned),
        };
        if let Ok(Step::AtInput) = &result {
            // It is in the middle of a call, which may have moved them.
            for instance in &mut self.instances {
                instance.memory = None;
            }
        }
        if let Err(error) = &result {
            self.counters.count(error);
            tracing::debug!(%error, "a call did not return");
        }
        result
    }

    fn go_on(
        &mut self,
        about: About,
        stops_at_input: bool,
        session: &Session,
        first: impl FnOnce(&mut Machine, &Session) -> Result<Event, Ending>,
    ) -> Result<Step, CallError> {
        let mut failed = None;
        let mut given_fuel = self.limits.fuel.map(|_| i128::from(self.fuel()));
        let mut event = first(&mut self.machine, session).map_err(|ending| self.without_return(ending))?;
        loop {
            match event {
                Event::HostCall(call) => {
                    if failed.is_some() {
                        return Err(GuestFault::BadRequest("it went on after a host function failed".into()).into());
                    }
                    self.counters.host_calls += 1;
                    match self.functions.answer(&mut self.machine, &call, &mut self.data)? {
                        Answered::Returned { refilled } => given_fuel = given_fuel.map(|given| given + refilled),
                        Answered::Failed(function, error) => failed = Some((function, error)),
                    }
                }
                Event::Input => return Ok(Step::AtInput),
                Event::Returned(returned) => {
                    // Looking at a global, say, is no call and tells nothing about fuel.
                    if let (Some(given), Some(left)) = (given_fuel, returned.fuel_left) {
                        self.fuel_consumed = u64::try_from(given - i128::from(left)).unwrap_or(0);
                    }
                    return self.returned(about, *returned, failed);
                }
            }
            event = self.machine.run(&session.attached, stops_at_input).map_err(|ending| self.without_return(ending))?;
        }
    }

    /// The end of a command that the guest did not return from. One that serves tells no end of a program in another way: it
    /// is not there any more to go on.
    fn without_return(&self, ending: Ending) -> CallError {
        match ending {
            Ending::Exited(_) | Ending::Trapped(_) | Ending::Rejected(_) if !self.instances.is_empty() => {
                GuestFault::BadRequest("it ended in the middle of a command".into()).into()
            }
            other => other.into(),
        }
    }

    /// What a command came to.
    fn returned(
        &mut self,
        About { instance, export }: About,
        returned: Returned,
        failed: Option<(String, HostError)>,
    ) -> Result<Step, CallError> {
        let index = usize::try_from(instance).unwrap_or(usize::MAX);
        if self.instances.is_empty() {
            let [entered, parsed, instantiated] = returned.tsc;
            let between = |from: u64, to: u64| self.machine.clock.duration(to.saturating_sub(from));
            let phases = &mut self.machine.stats.phases;
            (phases.parse, phases.instantiate) = (between(entered, parsed), between(parsed, instantiated));
        }
        match (returned.outcome, failed) {
            (Outcome::Done { code, payload }, None) => {
                if let Some(instance) = self.instances.get_mut(index) {
                    instance.memory = Some(returned.memory);
                }
                // Whatever one instance does may have moved the memory of another.
                for other in self.instances.iter_mut().enumerate().filter(|(other, _)| *other != index) {
                    other.1.memory = None;
                }
                Ok(Step::Done { code, payload })
            }
            (outcome, failed) => {
                let exports = self.instances.get(index).map(|instance| &instance.exports);
                let function = export.and_then(|export| exports?.name(export)).map(str::to_owned);
                for instance in &mut self.instances {
                    instance.memory = None;
                }
                Err(match (outcome, failed) {
                    (Outcome::HostError, Some((function, source))) => CallError::Host { function: function.into(), source },
                    (Outcome::Trapped(mut trap), None) => {
                        trap.export = function.unwrap_or_default();
                        CallError::Trap(trap)
                    }
                    (Outcome::Exited(status), None) => CallError::Exit(status),
                    (Outcome::Rejected(rejection), None) => CallError::Rejected(Box::new(rejection)),
                    _ => GuestFault::BadRequest("an outcome that does not fit what the host did".into()).into(),
                })
            }
        }
    }

    /// Writes out what is left of a call that did not return.
    fn ended(&mut self, error: CallError) -> CallError {
        let stopped = match error {
            CallError::DeadlineExceeded => Ending::DeadlineExceeded,
            CallError::Interrupted => Ending::Interrupted,
            CallError::Guest(_) | CallError::HostFailure(_) => Ending::Interrupted,
            _ => return error,
        };
        // Who called waits no longer than the deadline said.
        self.machine.finish(stopped, Duration::ZERO);
        error
    }

    /// The guest said what cannot be.
    fn fault(&mut self, what: &str) -> CallError {
        self.state = SandboxState::Poisoned(Poison::Fault);
        GuestFault::BadRequest(what.into()).into()
    }

    /// All exports of an instance, of which `payload` has the first and `count` says how many there are.
    fn exports_from(&mut self, instance: u32, count: u32, payload: Vec<u8>) -> Result<Exports, CallError> {
        let mut bytes = payload.len();
        let mut all = export::decode(&payload)?;
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        while all.len() < count {
            let from = u32::try_from(all.len()).unwrap_or(u32::MAX);
            let arguments = ExportsArgs { instance, from };
            let (_, payload) = done(self.command(command::EXPORTS, About::instance(instance), &arguments, &[], false)?)?;
            let more = export::decode(&payload)?;
            if more.is_empty() {
                return Err(self.fault("fewer exports than it said"));
            }
            bytes += payload.len();
            if bytes > MAX_EXPORTS_BYTES {
                self.state = SandboxState::Poisoned(Poison::Fault);
                let message = format!("its exports take more than {MAX_EXPORTS_BYTES} bytes to be described");
                return Err(CallError::Rejected(Box::new(Rejection::CannotRun(message))));
            }
            all.extend(more);
        }
        Ok(Exports::new(all))
    }

    fn keep_exports(&mut self, exports: Exports) {
        self.instances.push(InstanceState { exports: Arc::new(exports), memory: None });
    }

    fn instance(&self, instance: Instance) -> Result<&InstanceState, CallError> {
        let found = usize::try_from(instance.0).ok().and_then(|index| self.instances.get(index));
        found.ok_or_else(|| CallError::Mismatch("there is no such instance in this sandbox".into()))
    }

    fn find_function(&self, instance: Instance, name: &str) -> Result<(u32, &FuncType), CallError> {
        match self.instance(instance)?.exports.find(name) {
            Some((export, Export { ty: ExportType::Func(ty), .. })) => Ok((export, ty)),
            Some(_) => Err(CallError::Mismatch(format!("the export `{name}` is no function").into())),
            None => Err(CallError::Mismatch(format!("the module exports no function `{name}`").into())),
        }
    }

    fn find_global(&self, instance: Instance, name: &str) -> Result<(u32, ValueType, bool), CallError> {
        match self.instance(instance)?.exports.find(name) {
            Some((export, Export { ty: ExportType::Global { ty, mutable }, .. })) => Ok((export, *ty, *mutable)),
            Some(_) => Err(CallError::Mismatch(format!("the export `{name}` is no global").into())),
            None => Err(CallError::Mismatch(format!("the module exports no global `{name}`").into())),
        }
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

/// A command that was done, and did not stop at input.
fn done(step: Step) -> Result<(u32, Vec<u8>), CallError> {
    match step {
        Step::Done { code, payload } => Ok((code, payload)),
        Step::AtInput => Err(CallError::AtInput),
    }
}

/// What a module is told that does not even reach the guest.
fn refused(error: &ModuleError) -> CallError {
    let message = error.to_string();
    CallError::Rejected(Box::new(match error {
        ModuleError::Empty { .. }
        | ModuleError::NotWasm { .. }
        | ModuleError::Component { .. }
        | ModuleError::Snapshot { .. }
        | ModuleError::Text { .. } => Rejection::Invalid(message),
        ModuleError::Read { .. } | ModuleError::TooLarge { .. } | ModuleError::Memory(_) => Rejection::CannotRun(message),
    }))
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
