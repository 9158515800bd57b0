//! `mote bench`: how long calls of an export take, and how many fit into a second.

use std::{
    ffi::OsString,
    fmt::Write,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Args;
use mote_vmm::{CallError, Confinement, LoadOptions, Sandbox, Snapshot};
use serde::Serialize;

use super::{
    arguments::{ConfinementArg, GuestArgs, parse_duration},
    failure::Failure,
    guest::{self, ignore_file_size_signal, shown, utf8},
    invocation::Invocation,
    latency::{self, Latencies, Row, Summary},
    print,
};

const EXIT_STATUS: &str = "\
The module is instantiated once, and a snapshot taken of that; each thread has a copy of it. A clean call is a call and the \
restore behind it, which makes the copy as it was. Standard input is empty, what calls print is thrown away. The process confines \
itself as `mote run` does, but after it has instantiated the module.

A call that does not return ends it, with the exit status that `mote run` has for that; otherwise
  0    it was measured
  2    the command line is wrong
  125  the host or the VM failed
  126  module or snapshot cannot be run, or the function not called like this";

/// Calls before those that are measured, for as long as [`WARM_UP`] lasts.
const WARM_UP_CALLS: u32 = 200;
const WARM_UP: Duration = Duration::from_millis(300);
const DEFAULT_DURATION: Duration = Duration::from_secs(3);

#[derive(Args)]
#[command(after_help = EXIT_STATUS, override_usage = "mote bench [OPTIONS] MODULE --invoke FUNCTION [ARGS...]")]
pub(crate) struct BenchArgs {
    /// A `.wasm` or `.wat` file, or `-` for standard input, or a snapshot; then the arguments of the function. Options can
    /// stand behind MODULE, so arguments that begin with a hyphen and are no numbers go behind `--`.
    #[arg(value_name = "MODULE", required = true, num_args = 1.., allow_negative_numbers = true)]
    command: Vec<OsString>,
    /// Call this export, with ARGS parsed by its type.
    #[arg(long, value_name = "FUNCTION")]
    invoke: String,
    /// For how long [default: 3s].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, conflicts_with = "count")]
    duration: Option<Duration>,
    /// How many calls, all threads together.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Threads, each with a sandbox of its own, at most 1024.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// Calls only: what one leaves behind is there for the next.
    #[arg(long)]
    no_clean: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Check each byte of a snapshot against its digests before it is used.
    #[arg(long)]
    verify: bool,
    /// Whether threads confine themselves by seccomp and Landlock before the first call.
    #[arg(long, value_name = "HOW", default_value = "best-effort")]
    confinement: ConfinementArg,
    #[command(flatten)]
    guest: GuestArgs,
}

impl BenchArgs {
    pub(crate) fn log(&self) -> super::arguments::LogArg {
        self.guest.log
    }
}

/// What is done, the same in each thread.
struct Plan<'a> {
    arguments: &'a GuestArgs,
    module: String,
    /// Whether it comes from a file, and not from a module.
    is_of_file: bool,
    snapshot: Snapshot,
    function: String,
    function_arguments: Vec<String>,
    clean: bool,
    confinement: Confinement,
    /// How many calls nobody has taken on yet; without a bound, until [`Plan::duration`] is over.
    left: Option<AtomicU64>,
    duration: Duration,
    /// Becomes readable at a signal that ends this; calls that go on end by it.
    signals: OwnedFd,
    /// The same, which is quickly looked at between calls.
    interrupted: Arc<AtomicBool>,
    /// A thread failed: the others are over, too.
    failed: AtomicBool,
}

/// What one thread, or all of them, measured.
#[derive(Debug, Default)]
struct Measured {
    calls: Latencies,
    restores: Latencies,
    both: Latencies,
    restored_pages: u64,
    elapsed: Duration,
    calls_per_second: f64,
}

/// Measures and prints; the exit status of the process.
pub(crate) fn bench(arguments: BenchArgs) -> ExitCode {
    match measure(&arguments).and_then(|(plan, measured)| report(&arguments, &plan, &measured)) {
        Ok(code) => code,
        Err(failure) => ExitCode::from(failure.tell()),
    }
}

fn measure(arguments: &BenchArgs) -> Result<(Plan<'_>, Measured), Failure> {
    ignore_file_size_signal();
    let plan = plan(arguments)?;
    let threads = usize::from(arguments.threads);
    let parts = thread::scope(|scope| {
        let handles: Result<Vec<_>, _> =
            (0..threads).map(|_| thread::Builder::new().spawn_scoped(scope, || plan.measure_in_thread())).collect();
        // Those that did start end by this.
        let handles = handles.inspect_err(|_| plan.failed.store(true, Ordering::Relaxed)).context("cannot start a thread")?;
        let gone = || Err(Failure::of_host(anyhow::anyhow!("a thread that measured panicked")));
        handles.into_iter().map(|handle| handle.join().unwrap_or_else(|_| gone())).collect::<Result<Vec<_>, Failure>>()
    })?;
    let mut all = Measured::default();
    for part in parts {
        all.calls.merge(&part.calls);
        all.restores.merge(&part.restores);
        all.both.merge(&part.both);
        all.restored_pages += part.restored_pages;
        all.elapsed = all.elapsed.max(part.elapsed);
        all.calls_per_second += part.calls_per_second;
    }
    Ok((plan, all))
}

fn plan(arguments: &BenchArgs) -> Result<Plan<'_>, Failure> {
    let mut words = arguments.command.iter().cloned();
    let path = words.next().map(PathBuf::from).unwrap_or_default();
    let function_arguments = utf8(words)?;
    let is_of_file = Snapshot::is_snapshot(&path);
    // First, so that no signal is lost.
    let (signals, interrupted) = (guest::signals()?, Arc::default());
    guest::flag_signals(&interrupted)?;
    let snapshot = if is_of_file { load(arguments, &path)? } else { take(arguments, &path, guest::duplicate(&signals)?)? };
    if snapshot.is_at_input() {
        return Err(Failure::usage(format!(
            "{}: it waits for standard input in the middle of a call: nothing of it can be called",
            shown(&path)
        )));
    }
    Ok(Plan {
        arguments: &arguments.guest,
        module: shown(&path),
        is_of_file,
        snapshot,
        function: arguments.invoke.clone(),
        function_arguments,
        clean: !arguments.no_clean,
        confinement: arguments.confinement.into(),
        left: arguments.count.map(AtomicU64::new),
        duration: arguments.duration.unwrap_or(DEFAULT_DURATION),
        signals,
        interrupted,
        failed: AtomicBool::new(false),
    })
}

fn load(arguments: &BenchArgs, path: &Path) -> Result<Snapshot, Failure> {
    arguments.guest.refuse_settled()?;
    let kernel = guest::given_kernel(&arguments.guest)?;
    let snapshot = Snapshot::load_with(path, &LoadOptions { kernel, verify: arguments.verify })?;
    guest::refuse_uncounted_fuel(&arguments.guest, &snapshot)?;
    Ok(snapshot)
}

fn take(arguments: &BenchArgs, path: &Path, signals: OwnedFd) -> Result<Snapshot, Failure> {
    if arguments.verify {
        return Err(guest::nothing_to_verify());
    }
    let mut sandbox = arguments.guest.sandbox(path, Vec::new(), signals)?;
    Ok(sandbox.snapshot()?)
}

impl Plan<'_> {
    fn measure_in_thread(&self) -> Result<Measured, Failure> {
        let result = self.sandbox().and_then(|(sandbox, invocation)| self.measure(sandbox, &invocation));
        if result.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        result
    }

    fn sandbox(&self) -> Result<(Sandbox, Invocation), Failure> {
        let mut builder =
            self.snapshot.sandbox().interrupt_on(guest::duplicate(&self.signals)?).log_level(self.arguments.log.into());
        if self.is_of_file {
            for directory in self.arguments.directories()? {
                builder = builder.directory(directory);
            }
        }
        if let Some(fuel) = self.arguments.fuel {
            builder = builder.fuel(fuel);
        }
        builder = match self.arguments.timeout {
            Some(timeout) => builder.deadline(timeout),
            None => builder.without_deadline(),
        };
        let mut sandbox = builder.build()?;
        let invocation = Invocation::new(sandbox.exports(), self.function.clone(), &self.function_arguments);
        let invocation = invocation.map_err(|rejection| Failure::rejected(format!("{}: {rejection}", self.module)))?;
        sandbox.confine(self.confinement).map_err(Failure::of_host)?;
        Ok((sandbox, invocation))
    }

    fn measure(&self, mut sandbox: Sandbox, invocation: &Invocation) -> Result<Measured, Failure> {
        let mut measured = Measured::default();
        let begun = Instant::now();
        for _ in 0..WARM_UP_CALLS {
            self.step(&mut sandbox, invocation, &mut Measured::default())?;
            if begun.elapsed() >= WARM_UP {
                break;
            }
        }
        let pages_before = sandbox.counters().restored_pages;
        let started = Instant::now();
        while !self.failed.load(Ordering::Relaxed) && self.has_more(started) {
            self.step(&mut sandbox, invocation, &mut measured)?;
        }
        measured.elapsed = started.elapsed();
        measured.restored_pages = sandbox.counters().restored_pages - pages_before;
        measured.calls_per_second = rate(measured.calls.count(), measured.elapsed);
        Ok(measured)
    }

    /// Whether there is one more call to be made.
    fn has_more(&self, started: Instant) -> bool {
        match &self.left {
            Some(left) => left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok(),
            None => started.elapsed() < self.duration,
        }
    }

    /// A call and, unless that is not wanted, a restore.
    fn step(&self, sandbox: &mut Sandbox, invocation: &Invocation, measured: &mut Measured) -> Result<(), Failure> {
        // A short call ends before anybody looks whether it is to be interrupted.
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(Failure::of_call(&self.module, CallError::Interrupted));
        }
        let started = Instant::now();
        let _results = invocation.call(sandbox).map_err(|error| Failure::of_call(&self.module, error))?;
        let called = Instant::now();
        measured.calls.add(called - started);
        if self.clean {
            sandbox.restore(&self.snapshot)?;
            let restored = Instant::now();
            measured.restores.add(restored - called);
            measured.both.add(restored - started);
        }
        Ok(())
    }
}

fn rate(count: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() { 0.0 } else { count as f64 / elapsed.as_secs_f64() }
}

/// As it is printed for programs. Times are in microseconds.
#[derive(Serialize)]
struct Json {
    function: String,
    clean: bool,
    threads: usize,
    calls: u64,
    seconds: f64,
    calls_per_second: f64,
    call_us: Option<Summary>,
    restore_us: Option<Summary>,
    both_us: Option<Summary>,
    restored_pages_per_call: f64,
    histogram: Vec<Row>,
}

fn report(arguments: &BenchArgs, plan: &Plan<'_>, measured: &Measured) -> Result<ExitCode, Failure> {
    let calls = measured.calls.count();
    let json = Json {
        function: plan.function.clone(),
        clean: plan.clean,
        threads: usize::from(arguments.threads),
        calls,
        seconds: measured.elapsed.as_secs_f64(),
        calls_per_second: measured.calls_per_second,
        call_us: measured.calls.summary(),
        restore_us: measured.restores.summary(),
        both_us: measured.both.summary(),
        restored_pages_per_call: rate(measured.restored_pages, Duration::from_secs(calls.max(1))),
        histogram: if plan.clean { &measured.both } else { &measured.calls }.rows(),
    };
    let text = if arguments.json { serde_json::to_string(&json).context("JSON")? + "\n" } else { describe(&json) };
    Ok(print(text.as_bytes())?)
}

fn describe(measured: &Json) -> String {
    let mut text = String::new();
    let kind = if measured.clean { "clean calls" } else { "calls" };
    let threads = if measured.threads == 1 { "1 thread".into() } else { format!("{} threads", measured.threads) };
    let function = measured.function.replace(char::is_control, "\u{fffd}");
    // Writing to a string cannot fail.
    let mut line = |arguments: std::fmt::Arguments<'_>| {
        let _written = writeln!(text, "{arguments}");
    };
    line(format_args!("{} {kind} of `{function}` in {:.2} s, {threads}\n", measured.calls, measured.seconds));
    line(format_args!("{:<10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}", "µs", "min", "p50", "p90", "p99", "p99.9", "max"));
    let rows = [("call", measured.call_us), ("restore", measured.restore_us), ("both", measured.both_us)];
    for (name, summary) in rows {
        if let Some(Summary { min, p50, p90, p99, p99_9, max, .. }) = summary {
            line(format_args!("{name:<10}{min:>10.1}{p50:>10.1}{p90:>10.1}{p99:>10.1}{p99_9:>10.1}{max:>10.1}"));
        }
    }
    line(format_args!("\ncalls per second         {:>12.1}", measured.calls_per_second));
    if measured.clean {
        line(format_args!("pages restored per call  {:>12.1}", measured.restored_pages_per_call));
    }
    line(format_args!("\n{}, µs", if measured.clean { "call and restore" } else { "call" }));
    text + &latency::draw(&measured.histogram)
}
