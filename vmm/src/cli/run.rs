//! `mote run`.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Args;
use mote_vmm::{ClockSource, Config, Ending, Entry, Input, Limits, Output, Rejection, Report, Snapshot, Translation, Vm};

use super::{
    CONFINED, EXIT_STATUS, StatsFormat,
    arguments::{ConfinementArg, GuestArgs},
    engine::{self, Choice, Loaded},
    failure::{Failure, judge},
    guest::{duplicate, ignore_file_size_signal, nothing_to_verify, shown, signals, utf8},
    resume, say, stats,
};

#[derive(Args)]
#[command(after_help = format!("{EXIT_STATUS}{CONFINED}"), override_usage = "mote run [OPTIONS] MODULE [ARGS...]\n       mote run [OPTIONS] SNAPSHOT [ARGS...]")]
pub(crate) struct RunArgs {
    /// A `.wasm` or `.wat` file, or `-` for standard input, or a snapshot; then the arguments of the program, or of the
    /// function that --invoke names. Options behind MODULE are the program's.
    // One argument, so that everything behind its first value is taken as it is.
    #[arg(value_name = "MODULE", required = true, trailing_var_arg = true, num_args = 1..)]
    pub(crate) command: Vec<std::ffi::OsString>,
    #[command(flatten)]
    pub(crate) guest: GuestArgs,
    /// Listen here and give the program the socket; may be repeated. The first is descriptor 3.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) tcplisten: Vec<SocketAddr>,
    /// Call this export instead of the start function, with ARGS parsed by its type, and print its results.
    #[arg(long, value_name = "FUNCTION")]
    pub(crate) invoke: Option<String>,
    /// Check each byte of a snapshot against its digests before it is used.
    #[arg(long)]
    pub(crate) verify: bool,
    /// At the end, print what the run cost to standard error.
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "table")]
    pub(crate) stats: Option<StatsFormat>,
    /// Whether the process confines itself by seccomp and Landlock before the guest runs.
    #[arg(long, value_name = "HOW", default_value = "best-effort")]
    pub(crate) confinement: ConfinementArg,
}

/// When the phases before the VM happened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeline {
    /// Start of `main`, and the processor time that the process had used by then.
    main: Instant,
    pub(crate) before_main: Duration,
    pub(crate) command_line: Duration,
    pub(crate) load_kernel: Duration,
    pub(crate) load_module: Duration,
    /// What runs the module, and why.
    pub(crate) engine: Option<Choice>,
}

impl Timeline {
    pub(crate) fn start() -> Self {
        let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let before_main = Duration::try_from(used).unwrap_or_default();
        let zero = Duration::ZERO;
        Self { main: Instant::now(), before_main, command_line: zero, load_kernel: zero, load_module: zero, engine: None }
    }

    pub(crate) fn kernel_is_loaded(&mut self) {
        self.load_kernel = self.main.elapsed() - self.command_line;
    }

    /// The module, or the snapshot.
    pub(crate) fn module_is_loaded(&mut self) {
        self.load_module = self.main.elapsed() - self.command_line - self.load_kernel;
    }

    /// Time since process start, as far as it is known.
    pub(crate) fn total(&self) -> Duration {
        self.before_main + self.main.elapsed()
    }
}

/// Runs the module; the exit status of the process.
pub(crate) fn run(arguments: RunArgs, mut timeline: Timeline) -> u8 {
    timeline.command_line = timeline.main.elapsed();
    let module = arguments.command.first().map(PathBuf::from).unwrap_or_default();
    let format = arguments.stats;
    let result = execute(arguments, &module, &mut timeline);
    conclude(result, &module, &timeline, format)
}

/// Says what came of a run, and what it cost if that is asked for; the exit status.
pub(crate) fn conclude(result: Result<Report, Failure>, module: &Path, timeline: &Timeline, format: Option<StatsFormat>) -> u8 {
    match result {
        Ok(report) => {
            let code = tell(module, &report.ending, timeline.engine);
            match format {
                Some(StatsFormat::Table) => say(format_args!("{}", stats::table(timeline, &report))),
                Some(StatsFormat::Json) => say(format_args!("{}\n", stats::json(timeline, &report, code))),
                None => {}
            }
            code
        }
        Err(failure) => failure.tell(),
    }
}

/// Says how the run of a module ended, if that is to be said; the exit status.
pub(crate) fn tell(module: &Path, ending: &Ending, choice: Option<Choice>) -> u8 {
    let (code, message) = judge(ending);
    if let Some(message) = message {
        let message = match (ending, choice) {
            (Ending::Rejected(Rejection::Invalid(_)), Some(choice)) => message + choice.hint(),
            _ => message,
        };
        say(format_args!("mote: {}: {message}\n", shown(module)));
    }
    code
}

fn execute(arguments: RunArgs, path: &Path, timeline: &mut Timeline) -> Result<Report, Failure> {
    ignore_file_size_signal();
    if Snapshot::is_snapshot(path) {
        return resume::resume(arguments, path, timeline);
    }
    if arguments.verify {
        return Err(nothing_to_verify());
    }
    let Loaded { kernel, module, choice } = engine::load(&arguments.guest, path)?;
    timeline.engine = Some(choice);
    timeline.module_is_loaded();
    Ok(Vm::new(&kernel, &module, config(arguments, path)?)?.run())
}

pub(crate) fn config(arguments: RunArgs, path: &Path) -> Result<Config, Failure> {
    let RunArgs { command, guest, tcplisten, invoke, confinement, .. } = arguments;
    let rest = utf8(command.into_iter().skip(1))?;
    let (entry, program_arguments) = match invoke {
        Some(function) => (Entry::Invoke { function, arguments: rest }, Vec::new()),
        None => (Entry::Start, rest),
    };
    let limits = Limits::default();
    Ok(Config {
        entry,
        arguments: [guest.program_name(path)].into_iter().chain(program_arguments).collect(),
        environment: guest.environment()?,
        stdin: Input::Fd(duplicate(io::stdin())?),
        stdout: Output::Fd(duplicate(io::stdout())?),
        stderr: Output::Fd(duplicate(io::stderr())?),
        directories: guest.directories()?,
        listeners: tcplisten.iter().map(listen).collect::<Result<_, _>>()?,
        ramdisk: guest.open_ramdisk()?,
        limits: Limits {
            ram_bytes: guest.memory.unwrap_or(limits.ram_bytes),
            wasm_memory_bytes: guest.max_wasm_memory,
            fuel: guest.fuel,
            deadline: guest.timeout,
            ..limits
        },
        interrupt_on: Some(signals()?),
        log_level: guest.log.into(),
        translation: Translation::Lazy,
        clock: ClockSource::Host,
        random_seed: None,
        confinement: confinement.into(),
    })
}

fn listen(address: &SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).with_context(|| format!("cannot listen at {address}"))
}
