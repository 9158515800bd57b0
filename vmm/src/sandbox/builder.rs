//! Making sandboxes: from a module, or as copies of a snapshot.

use std::{
    any::Any,
    fmt,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    Sandbox,
    error::{BuildError, HostError},
    export::FuncType,
    host::{Caller, HostClosure, HostFunction, HostFunctions},
    hypervisor::Hypervisor,
    snapshot::Snapshot,
    value::Value,
};
use crate::{ClockSource, Config, Directory, Engine, Input, KernelImage, LogLevel, Module, Output, Ramdisk, Translation};

/// What one call may take, where it is bounded.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallLimits {
    pub(super) deadline: Option<Duration>,
    pub(super) fuel: Option<u64>,
}

/// The deadline of a call unless another is chosen.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);

/// Where a module comes from.
enum Source {
    None,
    Loaded(Arc<Module>),
    File(PathBuf),
    Bytes(Vec<u8>),
}

/// What new sandboxes and copies have in common: methods of both builders.
macro_rules! common_methods {
    () => {
        /// Where standard input comes from. Without this its end is reached at once.
        pub fn stdin(mut self, input: Input) -> Self {
            self.config.stdin = input;
            self
        }

        /// Where standard output goes. Without this it is thrown away.
        pub fn stdout(mut self, output: Output) -> Self {
            self.config.stdout = output;
            self
        }

        /// Where standard error goes. Without this it is thrown away.
        pub fn stderr(mut self, output: Output) -> Self {
            self.config.stderr = output;
            self
        }

        /// Gives the program a directory.
        pub fn directory(mut self, directory: Directory) -> Self {
            self.config.directories.push(directory);
            self
        }

        /// How long a call may take: 30 s without this. Making a sandbox is a call, too. Output that nobody has taken by then is
        /// lost. Functions of the host, and callbacks for input and output, are not ended: they have to look at the time.
        pub fn deadline(mut self, deadline: Duration) -> Self {
            self.limits.deadline = Some(deadline);
            self
        }

        /// Lets calls take as long as they like.
        pub fn without_deadline(mut self) -> Self {
            self.limits.deadline = None;
            self
        }

        /// A function that modules can import. `closure` takes a [`Caller`] and up to twelve numbers (see
        /// [`crate::WasmType`]), and returns numbers, or a `Result` of them.
        pub fn func<P, R>(mut self, module: &str, name: &str, closure: impl HostClosure<P, R>) -> Self {
            self.functions.add(HostFunction::new(module, name, closure));
            self
        }

        /// The same for a type that is known at run time.
        pub fn func_dynamic<E: Into<HostError>>(
            mut self,
            module: &str,
            name: &str,
            ty: FuncType,
            closure: impl Fn(Caller<'_>, &[Value]) -> Result<Vec<Value>, E> + Send + Sync + 'static,
        ) -> Self {
            self.functions.add(HostFunction::dynamic(module, name, ty, closure));
            self
        }

        /// Ends a call when this becomes readable, as a pipe to which a signal handler writes; later calls, too, as long as it
        /// is.
        pub fn interrupt_on(mut self, readable: OwnedFd) -> Self {
            self.config.interrupt_on = Some(readable);
            self
        }

        /// What functions of the host find with [`Caller::data`].
        pub fn data(mut self, data: impl Any + Send) -> Self {
            self.data = Some(Box::new(data));
            self
        }

        /// What the guest kernel logs; its lines become `tracing` events.
        pub fn log_level(mut self, level: LogLevel) -> Self {
            self.config.log_level = level;
            self
        }
    };
}

/// Makes a [`Sandbox`] of a module.
#[must_use]
pub struct SandboxBuilder {
    source: Source,
    engine: Engine,
    kernel: Option<Arc<KernelImage>>,
    config: Config,
    limits: CallLimits,
    functions: HostFunctions,
    data: Option<Box<dyn Any + Send>>,
}

impl Default for SandboxBuilder {
    fn default() -> Self {
        Self {
            source: Source::None,
            engine: Engine::default(),
            kernel: None,
            config: Config::default(),
            limits: CallLimits { deadline: Some(DEFAULT_DEADLINE), fuel: None },
            functions: HostFunctions::default(),
            data: None,
        }
    }
}

impl SandboxBuilder {
    common_methods!();

    /// The module: one that was loaded before, and may be in any number of sandboxes.
    pub fn module(mut self, module: &Arc<Module>) -> Self {
        self.source = Source::Loaded(Arc::clone(module));
        self
    }

    /// The module: a file in binary or text format. It is mapped and must not change while sandboxes use it.
    pub fn module_file(mut self, path: impl AsRef<Path>) -> Self {
        self.source = Source::File(path.as_ref().into());
        self
    }

    /// The module: bytes in binary or text format.
    pub fn module_bytes(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.source = Source::Bytes(bytes.into());
        self
    }

    /// What runs the module: the interpreter, without this.
    pub fn engine(mut self, engine: &Engine) -> Self {
        self.engine = engine.clone();
        self
    }

    /// A kernel other than the one that is built in.
    pub fn kernel(mut self, kernel: &Arc<KernelImage>) -> Self {
        self.kernel = Some(Arc::clone(kernel));
        self
    }

    /// The program's arguments, its own name first.
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.config.arguments = arguments.into_iter().map(Into::into).collect();
        self
    }

    /// An environment variable.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.environment.push((name.into(), value.into()));
        self
    }

    /// A file system at `/`, in memory.
    pub fn ramdisk(mut self, ramdisk: &Arc<Ramdisk>) -> Self {
        self.config.ramdisk = Some(Arc::clone(ramdisk));
        self
    }

    /// When functions are translated: each when it is first called, without this.
    pub fn translation(mut self, translation: Translation) -> Self {
        self.config.translation = translation;
        self
    }

    /// What clocks show.
    pub fn clock(mut self, clock: ClockSource) -> Self {
        self.config.clock = clock;
        self
    }

    /// The seed of the program's random numbers, which are then always the same. Without this each sandbox, each copy and each
    /// restore has its own.
    pub fn random_seed(mut self, seed: [u8; 32]) -> Self {
        self.config.random_seed = Some(seed);
        self
    }

    /// RAM of the guest: everything it has. 1 GiB without this; only what is touched is taken from the host.
    pub fn ram_bytes(mut self, bytes: u64) -> Self {
        self.config.limits.ram_bytes = bytes;
        self
    }

    /// Bound of all linear memories together; without this it is RAM alone.
    pub fn linear_memory_bytes(mut self, bytes: u64) -> Self {
        self.config.limits.wasm_memory_bytes = Some(bytes);
        self
    }

    /// Bound of the elements of all tables together: ten million without this.
    pub fn table_elements(mut self, elements: u64) -> Self {
        self.config.limits.table_elements = elements;
        self
    }

    /// How many modules can be instantiated in the sandbox, the first one included: 1,000 without this.
    pub fn instances(mut self, instances: u32) -> Self {
        self.config.limits.instances = instances;
        self
    }

    /// Stack of WebAssembly values, 8 MiB without this, and how deep functions may call each other, 50,000 without this.
    pub fn stack(mut self, bytes: u64, frames: u64) -> Self {
        (self.config.limits.wasm_stack_bytes, self.config.limits.wasm_frames) = (bytes, frames);
        self
    }

    /// Counts fuel, and gives each call this much: roughly one unit an instruction. A call that uses it up traps. Counting
    /// costs about 5 % in code that calls much.
    pub fn fuel(mut self, fuel: u64) -> Self {
        self.limits.fuel = Some(fuel);
        self
    }

    /// Makes the sandbox: boots its VM, and instantiates the module, with its start function and `_initialize` if it has that.
    pub fn build(self) -> Result<Sandbox, BuildError> {
        let Self { source, engine, kernel, mut config, limits, functions, data } = self;
        let fuel = limits.fuel.is_some();
        let module = match source {
            Source::None => return Err(BuildError::NoModule),
            Source::Loaded(module) => engine.prepare(module, fuel)?,
            Source::File(path) => engine.load_file(&path, fuel)?,
            Source::Bytes(bytes) => engine.load_bytes("the module".as_ref(), bytes, fuel)?,
        };
        let kernel = match kernel {
            Some(kernel) => kernel,
            None => KernelImage::embedded_for(&module)?,
        };
        functions.check()?;
        config.limits.fuel = limits.fuel;
        let hypervisor = Arc::new(Hypervisor::open()?);
        let mut sandbox = Sandbox::new(hypervisor, &kernel, &module, config, limits, functions, data)?;
        if sandbox.machine.runs_compiled() == engine.is_compiled() {
            sandbox.engine = engine;
        }
        Ok(sandbox)
    }
}

impl fmt::Debug for SandboxBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { config, limits, functions, .. } = self;
        f.debug_struct("SandboxBuilder")
            .field("config", config)
            .field("limits", limits)
            .field("functions", functions)
            .finish_non_exhaustive()
    }
}

/// Makes a [`Sandbox`] that goes on where a [`Snapshot`] was taken. What is not chosen here is as it was in the snapshot:
/// module, limits of the guest, arguments, environment; a snapshot of this process brings its host functions, its deadline and
/// its fuel along.
#[must_use]
pub struct CopyBuilder {
    snapshot: Snapshot,
    config: Config,
    limits: CallLimits,
    functions: HostFunctions,
    data: Option<Box<dyn Any + Send>>,
}

impl CopyBuilder {
    common_methods!();

    pub(super) fn new(snapshot: &Snapshot) -> Self {
        Self {
            snapshot: snapshot.clone(),
            config: Config::default(),
            limits: snapshot.limits(),
            functions: HostFunctions::default(),
            data: None,
        }
    }

    /// Gives each call this much fuel, if the snapshot's engine counts it.
    pub fn fuel(mut self, fuel: u64) -> Self {
        self.limits.fuel = self.limits.fuel.map(|_| fuel);
        self
    }

    /// Makes a sandbox that went back to the snapshot like a new one in what a restore leaves as it is: streams, limits of calls
    /// and data are those of this builder, and handles for its next call mean nothing any more.
    pub(super) fn renew(self, sandbox: &mut Sandbox) {
        let Self { config, limits, data, .. } = self;
        sandbox.set_stdin(config.stdin);
        sandbox.set_stdout(config.stdout);
        sandbox.set_stderr(config.stderr);
        (sandbox.limits, sandbox.data) = (limits, data);
        sandbox.machine.control.hand_over();
    }

    /// Makes the sandbox. It shares all pages with the snapshot that it does not write.
    pub fn build(self) -> Result<Sandbox, BuildError> {
        self.functions.check()?;
        Sandbox::copy(&self.snapshot, self.config, self.limits, self.functions, self.data)
    }
}

impl fmt::Debug for CopyBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { snapshot, config, limits, functions, .. } = self;
        f.debug_struct("CopyBuilder")
            .field("snapshot", snapshot)
            .field("config", config)
            .field("limits", limits)
            .field("functions", functions)
            .finish_non_exhaustive()
    }
}
