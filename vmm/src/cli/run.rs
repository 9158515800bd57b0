//! `mote run`.

use std::{
    env,
    ffi::OsString,
    io,
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use mote_vmm::{
    Access, ClockSource, Config, Directory, DirectoryError, Ending, Entry, GuestFault, ImageError, Input, KernelImage, Limits,
    Module, ModuleError, Output, Ramdisk, RamdiskError, Report, Translation, Vm, VmError,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::{DirectoryArg, RunArgs, StatsFormat, chain, say, stats, status};

/// When the phases before the VM happened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeline {
    /// Start of `main`, and the processor time that the process had used by then.
    main: Instant,
    pub(crate) before_main: Duration,
    pub(crate) command_line: Duration,
    pub(crate) load_kernel: Duration,
    pub(crate) load_module: Duration,
}

impl Timeline {
    pub(crate) fn start() -> Self {
        let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let before_main = Duration::try_from(used).unwrap_or_default();
        let zero = Duration::ZERO;
        Self { main: Instant::now(), before_main, command_line: zero, load_kernel: zero, load_module: zero }
    }

    /// Time since process start, as far as it is known.
    pub(crate) fn total(&self) -> Duration {
        self.before_main + self.main.elapsed()
    }
}

/// Why a run did not even begin.
struct Failure {
    status: u8,
    error: anyhow::Error,
}

impl From<ModuleError> for Failure {
    fn from(error: ModuleError) -> Self {
        Self { status: status::REJECTED, error: error.into() }
    }
}

impl From<DirectoryError> for Failure {
    fn from(error: DirectoryError) -> Self {
        Self { status: status::FAILURE, error: error.into() }
    }
}

impl From<RamdiskError> for Failure {
    fn from(error: RamdiskError) -> Self {
        Self { status: status::FAILURE, error: error.into() }
    }
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        Self { status: status::FAILURE, error: error.into() }
    }
}

impl From<VmError> for Failure {
    fn from(error: VmError) -> Self {
        match error {
            VmError::Config(error) => Self { status: status::USAGE, error: error.into() },
            // Without KVM there is something to be done, and a command that says what.
            VmError::Kvm(error) => {
                let error = anyhow::Error::new(error).context("cannot use KVM (`mote doctor` checks the machine)");
                Self { status: status::FAILURE, error }
            }
            error => Self { status: status::FAILURE, error: error.into() },
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { status: status::FAILURE, error }
    }
}

/// Runs the module; the exit status of the process.
pub(crate) fn run(arguments: RunArgs, mut timeline: Timeline) -> u8 {
    timeline.command_line = timeline.main.elapsed();
    let module = arguments.command.first().map(PathBuf::from).unwrap_or_default();
    // A message is one line, whatever the file's name is.
    let name = module.display().to_string().replace(char::is_control, "\u{fffd}");
    let format = arguments.stats;
    match execute(arguments, &module, &mut timeline) {
        Ok(report) => {
            let (code, message) = judge(&report.ending);
            if let Some(message) = message {
                say(format_args!("mote: {name}: {message}\n"));
            }
            match format {
                Some(StatsFormat::Table) => say(format_args!("{}", stats::table(&timeline, &report))),
                Some(StatsFormat::Json) => say(format_args!("{}\n", stats::json(&timeline, &report, code))),
                None => {}
            }
            code
        }
        Err(Failure { status, error }) => {
            say(format_args!("mote: {}\n", chain(&error)));
            status
        }
    }
}

fn execute(arguments: RunArgs, module: &Path, timeline: &mut Timeline) -> Result<Report, Failure> {
    ignore_file_size_signal();
    let kernel = match &arguments.kernel {
        Some(path) => KernelImage::from_file(path)?,
        None => KernelImage::embedded()?,
    };
    timeline.load_kernel = timeline.main.elapsed() - timeline.command_line;
    let file_name = module.file_name().map_or_else(|| "-".into(), |name| name.to_string_lossy().into_owned());
    let module = load_module(module)?;
    timeline.load_module = timeline.main.elapsed() - timeline.command_line - timeline.load_kernel;
    Ok(Vm::new(&kernel, &module, config(arguments, file_name)?)?.run())
}

fn load_module(path: &Path) -> Result<Arc<Module>, ModuleError> {
    if path == Path::new("-") {
        Module::from_reader("standard input".as_ref(), io::stdin().lock())
    } else {
        Module::from_file(path)
    }
}

fn config(arguments: RunArgs, file_name: String) -> Result<Config, Failure> {
    let argv0 = arguments.argv0.unwrap_or(file_name);
    let rest = arguments.command.into_iter().skip(1).map(utf8).collect::<Result<Vec<_>, _>>()?;
    let environment =
        arguments.env.iter().filter_map(|variable| environment_variable(variable).transpose()).collect::<Result<_, _>>()?;
    let (entry, program_arguments) = match arguments.invoke {
        Some(function) => (Entry::Invoke { function, arguments: rest }, Vec::new()),
        None => (Entry::Start, rest),
    };
    let open = |directories: &[DirectoryArg], access| -> Result<Vec<Directory>, DirectoryError> {
        directories.iter().map(|names| Directory::open(&names.host, &names.guest, access)).collect()
    };
    let directories =
        open(&arguments.dir, Access::ReadWrite)?.into_iter().chain(open(&arguments.dir_ro, Access::ReadOnly)?).collect();
    let listeners = arguments.tcplisten.iter().map(listen).collect::<Result<_, _>>()?;
    let ramdisk = arguments.ramdisk.as_deref().map(Ramdisk::from_file).transpose()?;
    Ok(Config {
        entry,
        arguments: [argv0].into_iter().chain(program_arguments).collect(),
        environment,
        stdin: Input::Fd(duplicate(io::stdin())?),
        stdout: Output::Fd(duplicate(io::stdout())?),
        stderr: Output::Fd(duplicate(io::stderr())?),
        directories,
        listeners,
        ramdisk,
        limits: Limits {
            ram_bytes: arguments.memory,
            wasm_memory_bytes: arguments.max_wasm_memory,
            fuel: arguments.fuel,
            deadline: arguments.timeout,
            ..Limits::default()
        },
        interrupt_on: Some(signals()?),
        log_level: arguments.log.into(),
        translation: Translation::Lazy,
        clock: ClockSource::Host,
        random_seed: None,
        confinement: arguments.confinement.into(),
    })
}

fn listen(address: &SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).with_context(|| format!("cannot listen at {address}"))
}

/// WASI has no strings but UTF-8.
fn utf8(argument: OsString) -> Result<String, Failure> {
    let error = |argument: OsString| anyhow::anyhow!("the argument {argument:?} is not UTF-8");
    argument.into_string().map_err(|argument| Failure { status: status::USAGE, error: error(argument) })
}

fn duplicate(stream: impl AsFd) -> anyhow::Result<OwnedFd> {
    stream.as_fd().try_clone_to_owned().context("cannot duplicate a standard stream")
}

/// `NAME=VALUE`, or `NAME` for the value that this process has; one that it lacks stays unset.
fn environment_variable(text: &str) -> Result<Option<(String, String)>, Failure> {
    if let Some((name, value)) = text.split_once('=') {
        return Ok(Some((name.into(), value.into())));
    }
    match env::var(text) {
        Ok(value) => Ok(Some((text.into(), value))),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(error) => Err(Failure { status: status::USAGE, error: anyhow::anyhow!("--env {text}: {error}") }),
    }
}

/// The end of a pipe that becomes readable when a signal asks this process to end, so that output is not lost.
fn signals() -> anyhow::Result<OwnedFd> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("cannot make a pipe")?;
    for signal in [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| !is_ignored(*signal)) {
        let writer = writer.try_clone().context("cannot duplicate a pipe")?;
        signal_hook::low_level::pipe::register(signal, writer).context("cannot catch signals")?;
    }
    Ok(reader)
}

/// A program that writes more than `ulimit -f` allows gets an errno; it must not end the process.
fn ignore_file_size_signal() {
    // SAFETY: ignoring a signal runs no code of ours in a handler.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Whether this process was started with the signal ignored, as by nohup(1): then it stays so.
fn is_ignored(signal: libc::c_int) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action this only writes the old one, and all zeros are a valid action if it fails.
    let action = unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
        action.assume_init()
    };
    action.sa_sigaction == libc::SIG_IGN
}

/// Exit status, and what to say.
fn judge(ending: &Ending) -> (u8, Option<String>) {
    match ending {
        // As for any process, the low eight bits are what the parent sees.
        Ending::Exited(code) => (u8::try_from(code & 0xff).unwrap_or(0), None),
        Ending::Trapped(trap) => (status::TRAP, Some(trap.to_string())),
        Ending::Rejected(rejection) => (status::REJECTED, Some(rejection.to_string())),
        Ending::DeadlineExceeded => (status::DEADLINE, Some("stopped: the deadline of --timeout passed".into())),
        Ending::Interrupted => (status::INTERRUPTED, Some("stopped: interrupted by a signal".into())),
        Ending::GuestFault(fault) => (status::FAILURE, Some(guest_fault(fault))),
        Ending::HostFailure(failure) => (status::FAILURE, Some(failure.to_string())),
    }
}

fn guest_fault(fault: &GuestFault) -> String {
    match fault {
        GuestFault::OutOfMemory(_) => fault.to_string(),
        fault => format!("{fault}; with the built-in kernel this is a bug in mote, please report it"),
    }
}
