//! The command line: what can be said, and who does it.

mod arguments;
mod bench;
mod boot;
#[cfg(feature = "compiled")]
mod cache;
#[cfg(feature = "compiled")]
mod compile;
mod doctor;
mod engine;
mod failure;
#[cfg(feature = "gdb")]
mod gdb;
mod guest;
mod image;
mod inspect;
mod invocation;
mod latency;
mod qemu;
mod resume;
mod run;
mod snapshot;
mod stats;

use std::{fmt, io, path::PathBuf, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand, ValueEnum, error::ErrorKind};
use clap_complete::Shell;
use tracing_subscriber::filter::LevelFilter;

use arguments::LogArg;

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
  126  the module cannot be run: not WebAssembly, invalid, unknown import; or the snapshot is damaged or does not fit
  134  a WebAssembly trap, lack of fuel included
  137  interrupted by SIGINT, SIGTERM or SIGHUP";
const CONFINED: &str = "\nSIGSYS ends the process (159 in a shell) if it made a system call that --confinement does not allow.";

/// Runs WebAssembly modules, each in its own micro VM.
#[derive(Parser)]
#[command(name = "mote", version, about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a module: its start function, or one of its exports. Or go on with a snapshot.
    Run(Box<run::RunArgs>),
    /// Run a module in a machine that QEMU makes: without KVM, or to debug the guest.
    Qemu(Box<qemu::QemuArgs>),
    /// Make a disk image that boots a module by BIOS and by UEFI; or boot one in QEMU to see whether it does.
    Image(Box<image::ImageArgs>),
    /// Run a module under GDB, which connects to a socket: registers, memory, breakpoints, single steps of the guest.
    ///
    /// The guest stands still before its first instruction. While it does, so does the clock of --timeout. A guest from which GDB
    /// detaches goes on; one that it kills, or whose connection it loses, ends with status 137. Confinement is that of `mote run`.
    #[cfg(feature = "gdb")]
    Gdb(Box<gdb::GdbArgs>),
    /// Bring a module to a point from which runs go on, and keep it in a file; or check such a file.
    Snapshot(Box<snapshot::SnapshotArgs>),
    /// Measure calls of an export: latency, throughput, what cleaning up costs.
    Bench(Box<bench::BenchArgs>),
    /// Compile a module ahead of time, for this machine or for others.
    #[cfg(feature = "compiled")]
    Compile(compile::CompileArgs),
    /// List or remove what is kept of compiled modules.
    #[cfg(feature = "compiled")]
    Cache {
        #[command(subcommand)]
        action: cache::CacheAction,
    },
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

#[derive(Clone, Copy, ValueEnum)]
enum StatsFormat {
    /// For people.
    Table,
    /// One object on one line.
    Json,
}

/// Parses the command line and does what it says.
pub(crate) fn main() -> ExitCode {
    let started = run::Timeline::start();
    let result = match Cli::parse().command {
        Command::Run(arguments) => {
            init_log(arguments.guest.log);
            return ExitCode::from(run::run(*arguments, started));
        }
        Command::Qemu(arguments) => {
            init_log(arguments.guest.log);
            return ExitCode::from(qemu::main(&arguments));
        }
        Command::Image(arguments) => {
            init_log(arguments.guest.log);
            return ExitCode::from(image::main(&arguments));
        }
        #[cfg(feature = "gdb")]
        Command::Gdb(arguments) => {
            init_log(arguments.run.guest.log);
            return ExitCode::from(gdb::gdb(*arguments, started));
        }
        Command::Snapshot(arguments) => {
            init_log(arguments.log());
            return snapshot::snapshot(*arguments);
        }
        Command::Bench(arguments) => {
            init_log(arguments.log());
            return bench::bench(*arguments);
        }
        #[cfg(feature = "compiled")]
        Command::Compile(arguments) => return compile::main(&arguments),
        #[cfg(feature = "compiled")]
        Command::Cache { action } => cache::main(&action),
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
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("cannot write standard output"))
        }
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
        assert_eq!((arguments.guest.fuel, arguments.command), (Some(3), vec!["a.wasm".into(), "--fuel".into(), "-e".into()]));
    }

    #[test]
    fn options_before_the_module_are_motes() {
        assert!(Cli::try_parse_from(["mote", "run", "--bogus", "a.wasm"]).is_err());
        assert!(Cli::try_parse_from(["mote", "run"]).is_err());
    }
}
