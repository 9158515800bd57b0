//! `mote snapshot`: brings a module to a point from which copies go on, and keeps it in a file.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::Context;
use bytesize::ByteSize;
use clap::{Args, Subcommand};
use mote_vmm::{CallError, ExportType, KernelImage, Progress, Sandbox, SandboxState, Snapshot, SnapshotInfo};

use super::{
    arguments::GuestArgs,
    failure::Failure,
    guest::{ignore_file_size_signal, shown, signals, utf8},
    invocation::{self, Invocation},
    print,
};

const EXIT_STATUS: &str = "\
Without --after-start, --invoke or --at-stdin it is taken when the module is instantiated, its start function and `_initialize` \
done. Until it is taken, standard input is empty, and output goes where this process has it.

Environment, arguments, ramdisk and limits are part of it, with all that the program has in memory: who can read the file can read \
them. Directories are not, and must be given to each run by the same names. Here the process does not confine itself.

Exit status:
  0    the snapshot is there, or is whole
  2    the command line is wrong
  124  the deadline of --timeout passed
  125  the host or the VM failed, or the file cannot be written
  126  the module cannot be run, or ended or has files open where the snapshot was to be taken; or the file is no whole snapshot
  134  a WebAssembly trap, lack of fuel included
  137  interrupted by SIGINT, SIGTERM or SIGHUP";

#[derive(Args)]
#[command(
    after_help = EXIT_STATUS,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    override_usage = "mote snapshot [OPTIONS] -o FILE MODULE [-- ARGS...]\n       mote snapshot verify FILE"
)]
pub(crate) struct SnapshotArgs {
    #[command(subcommand)]
    action: Option<Action>,
    /// A `.wasm` or `.wat` file, or `-` for standard input; then the arguments of the program, or of the function that --invoke
    /// names. Options can stand behind MODULE, so arguments that begin with a hyphen go behind `--`.
    #[arg(value_name = "MODULE", required = true, num_args = 1.., allow_negative_numbers = true)]
    command: Vec<OsString>,
    /// Where the snapshot goes. What is there is replaced when the new one is whole.
    #[arg(short, long, value_name = "FILE", required = true)]
    output: Option<PathBuf>,
    /// Take it when the program first waits for standard input; `mote run` then goes on with its own.
    #[arg(long, group = "point")]
    at_stdin: bool,
    /// Take it after this export returned, called with ARGS parsed by its type; print its results.
    #[arg(long, value_name = "FUNCTION", group = "point")]
    invoke: Option<String>,
    /// Take it after the start function returned.
    #[arg(long, group = "point")]
    after_start: bool,
    #[command(flatten)]
    guest: GuestArgs,
}

#[derive(Subcommand)]
enum Action {
    /// Check each byte of a snapshot against its digests, and show what it holds.
    Verify {
        /// The snapshot.
        file: PathBuf,
    },
}

impl SnapshotArgs {
    pub(crate) fn log(&self) -> super::arguments::LogArg {
        self.guest.log
    }
}

/// Takes or checks one; the exit status of the process.
pub(crate) fn snapshot(arguments: SnapshotArgs) -> ExitCode {
    let result = match &arguments.action {
        Some(Action::Verify { file }) => verify(file),
        None => take(arguments).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|failure| ExitCode::from(failure.tell()))
}

fn take(arguments: SnapshotArgs) -> Result<(), Failure> {
    ignore_file_size_signal();
    let started = Instant::now();
    let output = arguments.output.unwrap_or_default();
    // Better now than after a program has run for long.
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(Failure::of_host(anyhow::anyhow!("cannot write {}: {} is no directory", shown(&output), shown(folder))));
    }
    let mut words = arguments.command.into_iter();
    let module = words.next().map(PathBuf::from).unwrap_or_default();
    let rest = utf8(words)?;
    let (function_arguments, program_arguments) = if arguments.invoke.is_some() { (rest, vec![]) } else { (vec![], rest) };
    let mut sandbox = arguments.guest.sandbox(&module, program_arguments, signals()?)?;
    // Both parts together have the time.
    sandbox.set_deadline(arguments.guest.timeout.map(|timeout| timeout.saturating_sub(started.elapsed())));
    if let Some(function) = arguments.invoke {
        invoke(&mut sandbox, &module, function, &function_arguments)?;
    } else if arguments.at_stdin {
        until_input(&mut sandbox, &module)?;
    } else if arguments.after_start {
        start(&mut sandbox, &module)?;
    }
    sandbox.set_deadline(None);
    let snapshot = sandbox.snapshot().map_err(|error| {
        let Failure { status, error } = error.into();
        Failure { status, error: anyhow::anyhow!("{}: {error}", shown(&module)) }
    })?;
    snapshot.save(&output).with_context(|| format!("cannot write {}", shown(&output)))?;
    Ok(())
}

fn invoke(sandbox: &mut Sandbox, module: &Path, function: String, arguments: &[String]) -> Result<(), Failure> {
    let invocation = Invocation::new(sandbox.exports(), function, arguments);
    let invocation = invocation.map_err(|rejection| Failure::rejected(format!("{}: {rejection}", shown(module))))?;
    let results = invocation.call(sandbox).map_err(|error| failed(module, error))?;
    print(invocation::show(&results).as_bytes())?;
    Ok(())
}

fn until_input(sandbox: &mut Sandbox, module: &Path) -> Result<(), Failure> {
    match sandbox.start_until_input() {
        Ok(Progress::AtInput) => Ok(()),
        Ok(Progress::Finished) => Err(ended(module, 0)),
        Err(error) => Err(failed(module, error)),
    }
}

fn start(sandbox: &mut Sandbox, module: &Path) -> Result<(), Failure> {
    let status = sandbox.start().map_err(|error| failed(module, error))?;
    if sandbox.state() == SandboxState::Ready { Ok(()) } else { Err(ended(module, status)) }
}

fn failed(module: &Path, error: CallError) -> Failure {
    match error {
        CallError::Exit(status) => ended(module, status),
        error => Failure::of_call(&shown(module), error),
    }
}

/// There is nothing to be kept of a program that is over.
fn ended(module: &Path, status: u32) -> Failure {
    Failure::rejected(format!("{}: the program ended, with status {status}, before a snapshot could be taken", shown(module)))
}

fn verify(path: &Path) -> Result<ExitCode, Failure> {
    let info = Snapshot::verify(path)?;
    let kernel = if info.is_compiled { KernelImage::embedded_compiled()? } else { Some(KernelImage::embedded()?) };
    let is_of_this_kernel = kernel.is_some_and(|kernel| info.fits_kernel(&kernel));
    Ok(print(describe(&info, is_of_this_kernel).as_bytes())?)
}

fn describe(info: &SnapshotInfo, is_of_this_kernel: bool) -> String {
    let plain = |text: &str| text.replace(char::is_control, "\u{fffd}");
    let functions = info.exports.iter().filter_map(|export| match &export.ty {
        ExportType::Func(ty) => Some(format!("{} {ty}", plain(&export.name))),
        _ => None,
    });
    let host_functions = info.functions.iter().map(|[module, name, ty]| plain(&format!("{module}::{name} {ty}")));
    let directories = info.directories.iter().map(|name| plain(name));
    let sections: [(&str, Vec<String>); 3] = [
        ("functions", functions.collect()),
        ("host functions that it needs", host_functions.collect()),
        ("directories that it needs", directories.collect()),
    ];
    let sections = sections.into_iter().map(|(title, lines)| {
        let count = if lines.is_empty() { "none".into() } else { lines.len().to_string() };
        lines.iter().fold(format!("{title}: {count}\n"), |text, line| format!("{text}  {line}\n"))
    });
    format!(
        "kernel: {}, {}\nRAM: {}\nstored: {}\nat standard input: {}\n{}the snapshot is whole\n",
        plain(&info.kernel),
        if is_of_this_kernel { "the built-in one" } else { "not the built-in one" },
        ByteSize::b(info.ram_bytes),
        ByteSize::b(info.stored_bytes),
        if info.at_input { "yes: mote run FILE" } else { "no: mote run --invoke FUNCTION FILE" },
        sections.collect::<String>(),
    )
}
