//! `mote compile`: makes an artifact of a module, and keeps it in a file.

use std::{
    fs::{File, Permissions},
    io::{self, IsTerminal, Write},
    ops::ControlFlow,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use bytesize::ByteSize;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mote_vmm::{Artifact, CompileError, CompileLimits, CompileOptions, CompileProgress, Module, TargetCpu, compile};

use super::{
    arguments::{parse_duration, parse_size},
    failure::Failure,
    guest::{flag_signals, shown},
    status,
};

const EXIT_STATUS: &str = "\
The compiler is a process of its own that can open no file and no connection. What it makes runs in this version of mote only, and \
on processors that have what --target-cpu says.

Exit status:
  0    the artifact is there
  2    the command line is wrong
  125  the host failed, or the file cannot be written
  126  the module cannot be compiled: not WebAssembly, invalid, or it takes more memory or time than is allowed
  137  interrupted by SIGINT, SIGTERM or SIGHUP";

/// What takes less time gets no progress bar.
const BAR_AFTER: Duration = Duration::from_secs(1);

#[derive(Args)]
#[command(after_help = EXIT_STATUS)]
pub(crate) struct CompileArgs {
    /// A `.wasm` or `.wat` file, or `-` for standard input.
    module: PathBuf,
    /// Where the artifact goes, or `-` for standard output. What is there is replaced when the new one is whole.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Processors that the code is for: native, x86-64, x86-64-v2, x86-64-v3 or x86-64-v4, or v2 to v4 for short.
    #[arg(long, value_name = "CPU", default_value_t)]
    target_cpu: TargetCpu,
    /// Let the code count fuel, so that runs can be given --fuel.
    #[arg(long)]
    fuel: bool,
    /// Address space that the compiler may take, as 2GiB [default: 6GiB].
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    memory: Option<u64>,
    /// Give up after this time [default: 5min].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

/// Compiles the module; the exit status of the process.
pub(crate) fn main(arguments: &CompileArgs) -> ExitCode {
    match execute(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => ExitCode::from(failure.tell()),
    }
}

fn execute(arguments: &CompileArgs) -> Result<(), Failure> {
    if arguments.output == Path::new("-") && io::stdout().is_terminal() {
        return Err(Failure::usage("an artifact is not for a terminal; give a file by -o FILE"));
    }
    let module = Module::read(&arguments.module)?;
    let defaults = CompileLimits::default();
    let limits = CompileLimits {
        memory_bytes: arguments.memory.unwrap_or(defaults.memory_bytes),
        time: arguments.timeout.unwrap_or(defaults.time),
        ..defaults
    };
    let options = CompileOptions { fuel: arguments.fuel, target_cpu: arguments.target_cpu, limits, ..CompileOptions::default() };
    let artifact = compile_visibly(&arguments.module, &module, &options)?;
    write(&artifact, &arguments.output)
}

/// With a progress bar if it takes long enough to look at one, until a signal comes.
pub(crate) fn compile_visibly(name: &Path, module: &[u8], options: &CompileOptions) -> Result<Artifact, Failure> {
    let interrupted = Arc::new(AtomicBool::new(false));
    flag_signals(&interrupted)?;
    let mut bar = None;
    let observer = |progress: CompileProgress| {
        if progress.elapsed >= BAR_AFTER {
            show(bar.get_or_insert_with(|| new_bar(name, module.len())), &progress);
        }
        if interrupted.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let result = compile(module, options, observer);
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    result.map_err(|error| failure(name, error))
}

/// It is drawn on standard error, if that is a terminal.
fn new_bar(name: &Path, bytes: usize) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.set_message(format!("compiling {} ({})", shown(name), ByteSize::b(bytes as u64)));
    bar
}

fn show(bar: &ProgressBar, progress: &CompileProgress) {
    match progress.functions {
        Some((compiled, all)) if all > 0 => {
            if bar.length() != Some(all) {
                bar.set_length(all);
                let template = "{msg} [{bar:30}] {pos}/{len} functions, {elapsed} ";
                bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
                // It was there before the bar.
                bar.set_elapsed(progress.elapsed);
            }
            bar.set_position(compiled);
        }
        _ => bar.tick(),
    }
}

fn failure(name: &Path, error: CompileError) -> Failure {
    let status = match &error {
        CompileError::Cancelled => {
            return Failure { status: status::INTERRUPTED, error: anyhow::anyhow!("stopped: interrupted by a signal") };
        }
        CompileError::Host { .. } | CompileError::Artifact(_) => status::FAILURE,
        _ => status::REJECTED,
    };
    Failure { status, error: anyhow::Error::new(error).context(format!("cannot compile {}", shown(name))) }
}

/// Whoever looks at the file sees what was there, or all of it.
fn write(artifact: &Artifact, path: &Path) -> Result<(), Failure> {
    let result = if path == Path::new("-") {
        let mut output = io::stdout().lock();
        artifact.write_to(&mut output).and_then(|()| output.flush())
    } else if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        // A pipe or device: there is nothing to be replaced.
        File::options().write(true).open(path).and_then(|mut file| artifact.write_to(&mut file))
    } else {
        replace(artifact, path)
    };
    Ok(result.with_context(|| format!("cannot write {}", shown(path)))?)
}

fn replace(artifact: &Artifact, path: &Path) -> io::Result<()> {
    let directory = match path.parent() {
        Some(directory) if directory != Path::new("") => directory,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    // What the mask of the process leaves of it.
    let mut file = builder.prefix(".mote-").permissions(Permissions::from_mode(0o666)).tempfile_in(directory)?;
    artifact.write_to(&mut file)?;
    file.persist(path)?;
    Ok(())
}
