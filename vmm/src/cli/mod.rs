//! The command line: what can be said, and who does it.

mod doctor;
mod inspect;
mod run;
mod stats;

use std::{
    ffi::{OsStr, OsString},
    fmt, io,
    net::SocketAddr,
    os::unix::ffi::OsStrExt,
    path::PathBuf,
    process::ExitCode,
};

use clap::{
    Args, CommandFactory, Parser, Subcommand, ValueEnum,
    builder::{OsStringValueParser, TypedValueParser},
    error::ErrorKind,
};
use clap_complete::Shell;
use tracing_subscriber::filter::LevelFilter;

/// Exit statuses that are not the program's own.
pub(crate) mod status {
    /// The command line is wrong.
    pub(crate) const USAGE: u8 = 2;
    /// The deadline passed.
    pub(crate) const DEADLINE: u8 = 124;
    /// Host or VM failed.
    pub(crate) const FAILURE: u8 = 125;
    /// The module cannot be run.
    pub(crate) const REJECTED: u8 = 126;
    /// A WebAssembly trap.
    pub(crate) const TRAP: u8 = 134;
    /// Interrupted.
    pub(crate) const INTERRUPTED: u8 = 137;
}

const EXIT_STATUS: &str = "\
Exit status:
  the program's own; otherwise
  2    the command line is wrong
  124  the deadline of --timeout passed
  125  the host or the VM failed
  126  the module cannot be run: not WebAssembly, invalid, unknown import
  134  a WebAssembly trap, lack of fuel included
  137  interrupted by SIGINT, SIGTERM or SIGHUP
SIGSYS ends the process (159 in a shell) if it made a system call that --confinement does not allow.";

/// Runs WebAssembly modules, each in its own micro VM.
#[derive(Parser)]
#[command(name = "mote", version, about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a module: its start function, or one of its exports.
    Run(Box<RunArgs>),
    /// Show what a module imports and exports, and what it lacks to run here.
    Inspect {
        /// A `.wasm` or `.wat` file, or `-` for standard input.
        module: PathBuf,
    },
    /// Check whether this machine can run micro VMs, and say what mends it.
    Doctor,
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Print a man page in roff format: of the whole command, or of one subcommand.
    Man {
        /// Which subcommand.
        command: Option<String>,
    },
}

#[derive(Args)]
#[command(after_help = EXIT_STATUS, override_usage = "mote run [OPTIONS] MODULE [ARGS...]")]
pub(crate) struct RunArgs {
    /// A `.wasm` or `.wat` file, or `-` for standard input; then the arguments of the program, or of the function that
    /// --invoke names. Options behind MODULE are the program's.
    // One argument, so that everything behind its first value is taken as it is.
    #[arg(value_name = "MODULE", required = true, trailing_var_arg = true, num_args = 1..)]
    command: Vec<OsString>,
    /// Set an environment variable, or pass one of this process on; may be repeated.
    #[arg(long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Give the program a directory, which it sees under its own path or as GUEST; may be repeated.
    #[arg(long, value_name = "HOST[::GUEST]", value_parser = OsStringValueParser::new().try_map(directory))]
    dir: Vec<DirectoryArg>,
    /// The same, but nothing in it can be changed.
    #[arg(long, value_name = "HOST[::GUEST]", value_parser = OsStringValueParser::new().try_map(directory))]
    dir_ro: Vec<DirectoryArg>,
    /// Mount a tar archive at `/`. What the program writes there is in the guest's RAM, and gone at the end.
    #[arg(long, value_name = "FILE.tar")]
    ramdisk: Option<PathBuf>,
    /// Listen here and give the program the socket; may be repeated. The first is descriptor 3.
    #[arg(long, value_name = "ADDR:PORT")]
    tcplisten: Vec<SocketAddr>,
    /// Call this export instead of the start function, with ARGS parsed by its type, and print its results.
    #[arg(long, value_name = "FUNCTION")]
    invoke: Option<String>,
    /// RAM of the guest, as 256MiB: everything it has, linear memories included. Only what is touched is taken.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = parse_size)]
    memory: u64,
    /// Bound of all linear memories together [default: what fits into --memory].
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    max_wasm_memory: Option<u64>,
    /// Stop with a trap after this much work; roughly one unit an instruction.
    #[arg(long, value_name = "N")]
    fuel: Option<u64>,
    /// Stop after this time, as 500ms or 2min.
    #[arg(long, value_name = "DURATION", value_parser = parse_timeout)]
    timeout: Option<std::time::Duration>,
    /// First of the program's arguments [default: the module's file name].
    #[arg(long, value_name = "NAME")]
    argv0: Option<String>,
    /// At the end, print what the run cost to standard error.
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "table")]
    stats: Option<StatsFormat>,
    /// Log of VMM and guest kernel to standard error.
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    log: LogArg,
    /// Whether the process confines itself by seccomp and Landlock before the guest runs.
    #[arg(long, value_name = "HOW", default_value = "best-effort")]
    confinement: ConfinementArg,
    /// Boot this kernel image instead of the built-in one.
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
}

/// A directory of the host and its name for the program.
#[derive(Clone)]
struct DirectoryArg {
    host: PathBuf,
    guest: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum StatsFormat {
    /// For people.
    Table,
    /// One object on one line.
    Json,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogArg {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, ValueEnum)]
enum ConfinementArg {
    /// By what this machine's kernel supports.
    BestEffort,
    /// By both, or the module does not run.
    Required,
    /// Not at all: for debugging.
    Off,
}

fn directory(text: OsString) -> Result<DirectoryArg, String> {
    // WASI has no names but UTF-8; a host path that is none needs a name to go by.
    let bytes = text.as_bytes();
    let (host, guest) = match bytes.windows(2).rposition(|pair| pair == b"::") {
        Some(at) => bytes.split_at(at),
        None => (bytes, bytes),
    };
    let guest = str::from_utf8(guest.strip_prefix(b"::").unwrap_or(guest));
    let guest = guest.map_err(|_| "the name for the program is not UTF-8; give it one as HOST::GUEST")?;
    if host.is_empty() || guest.is_empty() {
        return Err("a name is empty; give a directory as HOST or HOST::GUEST".into());
    }
    Ok(DirectoryArg { host: PathBuf::from(OsStr::from_bytes(host)), guest: guest.into() })
}

fn parse_timeout(text: &str) -> Result<std::time::Duration, String> {
    match humantime::parse_duration(text) {
        Ok(std::time::Duration::ZERO) => Err("no program can run in no time".into()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error}; give a duration as 500ms or 2min")),
    }
}

fn parse_size(text: &str) -> Result<u64, String> {
    text.parse::<bytesize::ByteSize>()
        .map(|size| size.as_u64())
        .map_err(|error| format!("{error}; give a size as 256MiB or 2GiB"))
}

/// Parses the command line and does what it says.
pub(crate) fn main() -> ExitCode {
    let started = run::Timeline::start();
    let result = match Cli::parse().command {
        Command::Run(arguments) => {
            init_log(arguments.log);
            return ExitCode::from(run::run(*arguments, started));
        }
        Command::Inspect { module } => inspect::inspect(&module),
        Command::Doctor => doctor::doctor(),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "mote", &mut script);
            print(&script)
        }
        Command::Man { command } => man(command.as_deref()),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            say(format_args!("mote: {}\n", chain(&error)));
            ExitCode::from(status::FAILURE)
        }
    }
}

fn man(command: Option<&str>) -> anyhow::Result<ExitCode> {
    let mut whole = Cli::command();
    whole.build();
    let page = match command {
        None => whole,
        Some(name) => match whole.find_subcommand(name).cloned() {
            Some(page) => page,
            None => whole.error(ErrorKind::InvalidSubcommand, format!("there is no subcommand `{name}`")).exit(),
        },
    };
    let mut roff = Vec::new();
    clap_mangen::Man::new(page).render(&mut roff)?;
    print(&roff)
}

/// Writes to standard error. That it cannot be written changes nothing about what happened.
fn say(text: fmt::Arguments<'_>) {
    use io::Write;
    let _nobody_reads_it = io::stderr().write_fmt(text);
}

/// An error and its causes, but for those that it names itself.
fn chain(error: &anyhow::Error) -> String {
    error.chain().skip(1).fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        if text.contains(&cause) { text } else { format!("{text}: {cause}") }
    })
}

/// Writes to standard output; a reader that went away is no failure.
fn print(bytes: &[u8]) -> anyhow::Result<ExitCode> {
    use io::Write;
    match io::stdout().write_all(bytes) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn init_log(level: LogArg) {
    let filter = match level {
        LogArg::Off => LevelFilter::OFF,
        LogArg::Error => LevelFilter::ERROR,
        LogArg::Warn => LevelFilter::WARN,
        LogArg::Info => LevelFilter::INFO,
        LogArg::Debug => LevelFilter::DEBUG,
        LogArg::Trace => LevelFilter::TRACE,
    };
    let to_terminal = io::IsTerminal::is_terminal(&io::stderr());
    tracing_subscriber::fmt()
        .with_max_level(filter)
        .with_writer(io::stderr)
        .with_ansi(to_terminal)
        .log_internal_errors(false)
        .init();
}

impl From<LogArg> for mote_vmm::LogLevel {
    fn from(level: LogArg) -> Self {
        match level {
            LogArg::Off => Self::Off,
            LogArg::Error => Self::Error,
            LogArg::Warn => Self::Warn,
            LogArg::Info => Self::Info,
            LogArg::Debug => Self::Debug,
            LogArg::Trace => Self::Trace,
        }
    }
}

impl From<ConfinementArg> for mote_vmm::Confinement {
    fn from(confinement: ConfinementArg) -> Self {
        match confinement {
            ConfinementArg::BestEffort => Self::BestEffort,
            ConfinementArg::Required => Self::Required,
            ConfinementArg::Off => Self::Off,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_after_the_module_are_the_programs() {
        let cli = Cli::try_parse_from(["mote", "run", "--fuel", "3", "a.wasm", "--fuel", "-e"]).unwrap();
        let Command::Run(arguments) = cli.command else { panic!("not run") };
        assert_eq!((arguments.fuel, arguments.command), (Some(3), vec!["a.wasm".into(), "--fuel".into(), "-e".into()]));
    }

    #[test]
    fn options_before_the_module_are_motes() {
        assert!(Cli::try_parse_from(["mote", "run", "--bogus", "a.wasm"]).is_err());
        assert!(Cli::try_parse_from(["mote", "run"]).is_err());
    }

    #[test]
    fn directories_have_two_names() {
        let names = |text: &str| directory(text.into()).map(|names| (names.host.display().to_string(), names.guest));
        assert_eq!(names("a/b"), Ok(("a/b".into(), "a/b".into())));
        assert_eq!(names("a::/b"), Ok(("a".into(), "/b".into())));
        assert_eq!(names("a::b::/c"), Ok(("a::b".into(), "/c".into())));
        assert!(names("").is_err() && names("::x").is_err() && names("x::").is_err());
        assert!(directory(OsStr::from_bytes(b"\xff").into()).is_err());
        assert!(directory(OsStr::from_bytes(b"\xff::x").into()).is_ok());
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("64MiB"), Ok(64 << 20));
        assert_eq!(parse_size("2GB"), Ok(2_000_000_000));
        assert!(parse_size("much").is_err());
        assert!(parse_size("-1").is_err());
    }
}
