//! `mote qemu`: a run in a machine that QEMU makes, with the kernel booting by itself. It needs no KVM, and can be debugged.

mod dry_run;
mod stats;

use std::{
    ffi::OsString,
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use bytesize::ByteSize;
use clap::Args;
use mote_abi::layout::MONITOR;
use mote_vmm::Ending;

use super::{
    EXIT_STATUS, StatsFormat,
    arguments::{ConfinementArg, GuestArgs},
    boot::{
        self,
        load::{self, Files, Target},
        machine::{self, Lines, MachineArgs, RAM_BYTES},
        process::{self, PassedFile, RecordChannel},
        watch::{End, Observed, SWITCH_OFF, Watch},
        words::Words,
    },
    failure::Failure,
    guest::{shown, signals, utf8},
    run,
};

const DETAILS: &str = "\
Standard output and standard error of the program both come by the machine's one console, on standard output. Standard input is read \
ahead of the program. --memory is the RAM of the machine, its kernel included. The time of --timeout begins when QEMU starts.";

/// The least that can be tried: up to there the kernel and what starts it have places of their own.
const LEAST_RAM_BYTES: u64 = MONITOR.end.next_multiple_of(16 << 20);
/// The least that a kernel takes for itself and the program.
const PROGRAM_BYTES: u64 = 8 << 20;
/// What of memory is below the addresses of devices, if there is so much: there QEMU loads.
const LOW_BYTES: u64 = 2 << 30;
/// Longest command line that is given to QEMU itself: its loader has a page for it.
const MAX_APPEND_BYTES: usize = 2000;
/// Where a debugger is waited for, as QEMU's `-s` has it.
const GDB_ADDRESS: &str = "localhost:1234";

#[derive(Args)]
#[command(
    after_help = format!("{DETAILS}\n\n{EXIT_STATUS}"),
    override_usage = "mote qemu [OPTIONS] MODULE [-- ARGS...]",
    mut_arg("dir", |argument| argument.hide(true)),
    mut_arg("engine", |argument| argument.help("What runs the module; auto is the interpreter, unless it lacks something that the module needs")),
    mut_arg("kernel", |argument| argument.help("Boot this kernel image instead of the built-in one")),
    mut_arg("log", |argument| argument.help("Log: mote's to standard error, the guest kernel's to the console, on standard output")),
    mut_arg("dir_ro", |argument| argument.hide(true))
)]
pub(crate) struct QemuArgs {
    /// A `.wasm` or `.wat` file, compiled or not, or `-` for standard input; then the arguments of the program, or of the function
    /// that --invoke names. Options can stand behind MODULE, so arguments that begin with a hyphen go behind `--`.
    #[arg(value_name = "MODULE", required = true, num_args = 1.., allow_negative_numbers = true)]
    command: Vec<OsString>,
    #[command(flatten)]
    pub(crate) guest: GuestArgs,
    /// Call this export instead of the start function, with ARGS parsed by its type, and print its results.
    #[arg(long, value_name = "FUNCTION")]
    invoke: Option<String>,
    /// At the end, print to standard error where time went, in ticks of the machine's time-stamp counter.
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "table")]
    stats: Option<StatsFormat>,
    /// More words for the kernel's command line, as random=weak (docs/boot.md). They count where an option says something else.
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    cmdline: Option<String>,
    /// Processors that --engine aot compiles for, as `mote compile` has them.
    #[cfg(feature = "compiled")]
    #[arg(long, value_name = "CPU", default_value = "x86-64")]
    target_cpu: Target,
    #[command(flatten)]
    machine: MachineArgs,
    /// Stop before the first instruction and wait for a debugger at this address [default: localhost:1234].
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, require_equals = true, default_missing_value = GDB_ADDRESS)]
    gdb: Option<String>,
    /// Print QEMU's command line, to be pasted, instead of starting it. What it names is kept in a directory.
    #[arg(long)]
    dry_run: bool,
    /// The directory for that, which is made [default: a new one for temporary files].
    #[arg(long, value_name = "DIRECTORY", requires = "dry_run")]
    keep: Option<PathBuf>,
    // What only `mote run` has, to be refused by name.
    #[arg(long, hide = true)]
    tcplisten: Vec<String>,
    #[arg(long, hide = true)]
    verify: bool,
    #[arg(long, hide = true)]
    confinement: Option<ConfinementArg>,
}

impl QemuArgs {
    #[cfg(feature = "compiled")]
    fn target(&self) -> Target {
        self.target_cpu
    }

    #[cfg(not(feature = "compiled"))]
    fn target(&self) -> Target {}
}

/// Runs the module; the exit status of the process.
pub(crate) fn main(arguments: &QemuArgs) -> u8 {
    execute(arguments).unwrap_or_else(|failure| failure.tell())
}

fn execute(arguments: &QemuArgs) -> Result<u8, Failure> {
    boot::refuse(
        "qemu",
        &[
            ("--dir", !arguments.guest.dir.is_empty(), boot::ONLY_RAMDISK),
            ("--dir-ro", !arguments.guest.dir_ro.is_empty(), boot::ONLY_RAMDISK),
            ("--tcplisten", !arguments.tcplisten.is_empty(), boot::NO_NETWORK),
            ("--verify", arguments.verify, "it is for snapshots, which only `mote run` goes on with"),
            (
                "--confinement=required",
                matches!(arguments.confinement, Some(ConfinementArg::Required)),
                "QEMU is not confined by mote",
            ),
        ],
    )?;
    if arguments.guest.memory.is_some_and(|bytes| bytes < LEAST_RAM_BYTES) {
        let least = ByteSize::b(LEAST_RAM_BYTES);
        return Err(Failure::usage(format!("--memory is too small for a machine of its own: it takes {least} at least")));
    }
    let module = arguments.command.first().map(PathBuf::from).unwrap_or_default();
    let files = load::load(&arguments.guest, &module, arguments.target())?;
    let plan = Plan::new(arguments, &module)?;
    refuse_too_large(arguments, &module, &files, &plan)?;
    if arguments.dry_run {
        return dry_run::print(arguments, &files, &plan);
    }
    let observed = run_machine(arguments, &files, &plan)?;
    Ok(conclude(arguments, &module, &files, observed))
}

/// QEMU puts the bundle as high as it can in the lower part of memory, and over the kernel if that is too small for both: then nobody
/// would be left to say so.
fn refuse_too_large(arguments: &QemuArgs, module: &Path, files: &Files, plan: &Plan) -> Result<(), Failure> {
    let (in_bundle, _) = plan.command_line();
    let mut bundle = Counter(0);
    boot::write_bundle(files, &in_bundle, &mut bundle).context("cannot make the bundle")?;
    let needed = bundle.0 + MONITOR.end + PROGRAM_BYTES;
    let memory = arguments.guest.memory.unwrap_or(RAM_BYTES);
    if needed <= memory.min(LOW_BYTES) {
        return Ok(());
    }
    let lower = if memory > LOW_BYTES { format!(", of which {} are for loading", ByteSize::b(LOW_BYTES)) } else { String::new() };
    let [memory, bundle, needed] = [memory, bundle.0, needed].map(ByteSize::b);
    let name = shown(module);
    Err(Failure::rejected(format!(
        "{name}: it does not fit into a machine with {memory} of memory{lower}: with what belongs to it, it has {bundle}, for which \
         {needed} are needed (--memory)"
    )))
}

/// Counts what is written.
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the kernel is told, beside what differs between a run and a dry one.
struct Plan {
    words: Words,
    program_arguments: Vec<String>,
}

impl Plan {
    fn new(arguments: &QemuArgs, module: &Path) -> Result<Self, Failure> {
        let given = Words::parse("--cmdline", arguments.cmdline.as_deref().unwrap_or_default())?;
        let mut words = boot::program_words(&arguments.guest, module, arguments.invoke.as_deref(), given)?;
        words.push_default("record", "com2");
        words.push_default("exit", "debug");
        Ok(Self { words, program_arguments: utf8(arguments.command.iter().skip(1).cloned())? })
    }

    /// Its text: for the bundle, and for QEMU.
    fn command_line(&self) -> (String, String) {
        let text = self.words.text(&self.program_arguments);
        if text.len() <= MAX_APPEND_BYTES { (String::new(), text) } else { (text, String::new()) }
    }
}

fn run_machine(arguments: &QemuArgs, files: &Files, plan: &Plan) -> Result<Observed, Failure> {
    let (in_bundle, append) = plan.command_line();
    let kernel = PassedFile::new("kernel", |to| to.write_all(&files.kernel))?;
    let bundle = PassedFile::new("bundle", |to| boot::write_bundle(files, &in_bundle, to))?;
    let records = RecordChannel::new()?;
    let signals = signals()?;
    let boot = boot_options(arguments, &kernel.path(), &bundle.path(), &append);
    let lines = Lines::piped(records.backend());
    let line = arguments.machine.line(&machine::memory(arguments.guest.memory), &lines, boot);
    let running = process::start(&arguments.machine.qemu, &line, &[kernel, bundle], records)?;
    if let Some(address) = &arguments.gdb {
        invite(address, arguments.guest.kernel.as_deref())?;
    }
    let deadline = arguments.guest.timeout;
    Watch { input: io::stdin(), output: io::stdout(), deadline, signals, switch_off: SWITCH_OFF }.until_end(running)
}

/// Tells how to connect, as a command to be pasted.
fn invite(address: &str, kernel: Option<&Path>) -> Result<(), Failure> {
    let kernel = kernel.unwrap_or(Path::new("KERNEL-WITH-SYMBOLS")).as_os_str().as_encoded_bytes();
    let connect = format!("mote-connect {address}");
    let mut line = b"mote: the machine waits for a debugger when it has started: gdb -x scripts/mote.gdb -ex ".to_vec();
    for (word, end) in [(connect.as_bytes(), b' '), (kernel, b'\n')] {
        line.extend_from_slice(&shlex::bytes::try_quote(word).context("an argument cannot be quoted")?);
        line.push(end);
    }
    let _nobody_reads_it = io::stderr().write_all(&line);
    Ok(())
}

/// What is booted, and what a debugger needs.
fn boot_options(arguments: &QemuArgs, kernel: &Path, bundle: &Path, append: &str) -> Vec<OsString> {
    let mut options: Vec<OsString> = ["-kernel".into(), kernel.into(), "-initrd".into(), bundle.into()].into();
    if !append.is_empty() {
        options.extend(["-append".into(), append.into()]);
    }
    if let Some(address) = &arguments.gdb {
        options.extend(["-gdb".into(), format!("tcp:{address}").into(), "-S".into()]);
    }
    options
}

/// Says what there is to be said; the exit status.
fn conclude(arguments: &QemuArgs, module: &Path, files: &Files, observed: Observed) -> u8 {
    let Observed { end, phases, complaints } = observed;
    let fail = |what: &str| boot::failed(format!("{}: {what}", shown(module)), &complaints).tell();
    let (ending, record) = match end {
        End::Told(record) => {
            let record = *record;
            (record.ending, Some((record.fuel_used, record.tsc)))
        }
        End::DeadlineExceeded => (Ending::DeadlineExceeded, None),
        End::Interrupted => (Ending::Interrupted, None),
        End::OutputLost(source) => {
            let failure = mote_vmm::HostFailure::Output { stream: "standard output", source };
            (Ending::HostFailure(failure), None)
        }
        End::Failed(text) => return fail(&format!("the kernel cannot run it in this machine: {text}")),
        End::Silent(status) => return fail(&format!("QEMU ended ({status}) before the guest told how the run ended")),
    };
    if !complaints.is_empty() {
        tracing::info!("QEMU says: {}", boot::one_line(&complaints));
    }
    let status = run::tell(module, &ending, Some(files.choice));
    if let Some(format) = arguments.stats {
        stats::print(format, status, files.choice, phases, record);
    }
    status
}
