//! `mote run` of a snapshot: it goes on where it was taken.

use std::{io, path::Path, time::Instant};

use mote_vmm::{
    CallError, ConfinementError, Ending, HostFailure, Input, LoadOptions, Output, Report, Sandbox, SandboxState, Snapshot, Stats,
};

use super::{
    failure::{Failure, ending},
    guest::{duplicate, given_kernel, refuse_uncounted_fuel, settled_by_snapshot, signals, utf8},
    invocation::{self, Invocation},
    print,
    run::{RunArgs, Timeline},
};

/// Goes on with the program, or calls one of its exports.
pub(crate) fn resume(arguments: RunArgs, path: &Path, timeline: &mut Timeline) -> Result<Report, Failure> {
    arguments.guest.refuse_settled()?;
    if !arguments.tcplisten.is_empty() {
        return Err(settled_by_snapshot("--tcplisten"));
    }
    let kernel = given_kernel(&arguments.guest)?;
    timeline.kernel_is_loaded();
    let snapshot = Snapshot::load_with(path, &LoadOptions { kernel, verify: arguments.verify })?;
    timeline.module_is_loaded();
    refuse_out_of_place(&arguments, &snapshot)?;
    let sandbox = sandbox(&arguments, &snapshot)?;
    // No second copy will be made of it.
    drop(snapshot);
    run(arguments, sandbox)
}

/// Refuses what does not go with this snapshot.
fn refuse_out_of_place(arguments: &RunArgs, snapshot: &Snapshot) -> Result<(), Failure> {
    let RunArgs { command, guest, invoke, .. } = arguments;
    match (snapshot.is_at_input(), invoke) {
        (true, Some(_)) => Err(Failure::usage(
            "--invoke cannot be given with this snapshot: its program waits for standard input in the middle of a call, and \
             goes on with that",
        )),
        (true, None) if command.len() > 1 => Err(settled_by_snapshot("arguments")),
        (true, None) if guest.fuel.is_some() => Err(settled_by_snapshot("--fuel")),
        (false, None) => Err(Failure::usage(
            "this snapshot waits for calls: name the function to call with --invoke (`mote snapshot verify` lists them)",
        )),
        _ => refuse_uncounted_fuel(guest, snapshot),
    }
}

/// A copy with the streams of this process.
fn sandbox(arguments: &RunArgs, snapshot: &Snapshot) -> Result<Sandbox, Failure> {
    let guest = &arguments.guest;
    let mut builder = snapshot
        .sandbox()
        .stdin(Input::Fd(duplicate(io::stdin())?))
        .stdout(Output::Fd(duplicate(io::stdout())?))
        .stderr(Output::Fd(duplicate(io::stderr())?))
        .log_level(guest.log.into())
        .interrupt_on(signals()?);
    for directory in guest.directories()? {
        builder = builder.directory(directory);
    }
    if let Some(fuel) = guest.fuel {
        builder = builder.fuel(fuel);
    }
    builder = match guest.timeout {
        Some(timeout) => builder.deadline(timeout),
        None => builder.without_deadline(),
    };
    Ok(builder.build()?)
}

fn run(arguments: RunArgs, mut sandbox: Sandbox) -> Result<Report, Failure> {
    let has_stats = arguments.stats.is_some();
    let invocation = match arguments.invoke {
        Some(function) => {
            let rest = utf8(arguments.command.into_iter().skip(1))?;
            match Invocation::new(sandbox.exports(), function, &rest) {
                Ok(invocation) => Some(invocation),
                Err(rejection) => return Ok(report(&sandbox, has_stats, Ending::Rejected(rejection))),
            }
        }
        None => None,
    };
    debug_assert_eq!(invocation.is_none(), sandbox.state() == SandboxState::AtInput);
    if let Err(error) = sandbox.confine(arguments.confinement.into()) {
        return Ok(report(&sandbox, has_stats, not_confined(error)));
    }
    let started = Instant::now();
    let ended = match &invocation {
        None => sandbox.resume().map(Ending::Exited),
        Some(invocation) => call(invocation, &mut sandbox)?,
    };
    let ran = started.elapsed();
    let mut report = report(&sandbox, has_stats, ended.unwrap_or_else(ending));
    report.stats.phases.run = ran;
    Ok(report)
}

/// Calls the function, and prints what it returns.
fn call(invocation: &Invocation, sandbox: &mut Sandbox) -> Result<Result<Ending, CallError>, Failure> {
    match invocation.call(sandbox) {
        Ok(results) => {
            print(invocation::show(&results).as_bytes())?;
            Ok(Ok(Ending::Exited(0)))
        }
        Err(error) => Ok(Err(error)),
    }
}

fn not_confined(error: ConfinementError) -> Ending {
    Ending::HostFailure(HostFailure::Confinement(error))
}

/// Counting the pages that were touched takes a while, so it is only done if somebody asks.
fn report(sandbox: &Sandbox, has_stats: bool, ending: Ending) -> Report {
    let stats = if has_stats { Stats { fuel_used: sandbox.fuel_consumed(), ..sandbox.stats() } } else { Stats::default() };
    Report { ending, stats }
}
