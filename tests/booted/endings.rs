//! Runs that do not come to their own end: nothing hangs, and no QEMU is left.

use std::{
    fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Child,
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::support::{
    command::{LIMIT, finish, kill, module_file, mote, payload},
    qemu,
};

/// A machine that prints "started" and goes on, with a mark by which its QEMU is known.
fn spinning(mark: &str, options: &[&str]) -> Child {
    let cmdline = format!("env=MARK={mark}");
    let options = [&["--cmdline", &cmdline], options].concat();
    mote(qemu::payload_line(&options, "print-then-spin.wat", &[])).spawn().unwrap()
}

/// What that program prints, once it has done so.
fn wait_for_output(child: &mut Child) -> String {
    let mut text = Vec::new();
    let stdout = child.stdout.as_mut().unwrap();
    while text.last() != Some(&b'\n') {
        let mut byte = [0];
        assert_eq!(stdout.read(&mut byte).unwrap(), 1, "it ended after {text:?}");
        text.extend(byte);
    }
    String::from_utf8(text).unwrap()
}

/// Whether a process lives that has this mark on its command line and is no `mote`.
fn qemu_lives(mark: &str) -> bool {
    fs::read_dir("/proc").unwrap().filter_map(Result::ok).any(|entry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains(mark) && line.starts_with("qemu-system-x86_64")
    })
}

#[track_caller]
fn wait_until_gone(mark: &str) {
    let started = Instant::now();
    while qemu_lives(mark) {
        assert!(started.elapsed() < LIMIT, "QEMU is still there");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_deadline_ends_the_machine() {
    if !qemu::usable() {
        return;
    }
    // Its time begins when QEMU starts, which is slow where much else goes on.
    let run = |time: &&str| finish(spinning("deadline-8f1c", &["--timeout", time])).expect(124);
    let outcome = ["3s", "10s", "40s"].iter().map(run).find(|outcome| !outcome.stdout.is_empty()).expect("it never began");
    assert_eq!(outcome.text(), "before the loop\n");
    assert_eq!(outcome.complaint().split(": ").skip(2).collect::<Vec<_>>(), ["stopped", "the deadline of --timeout passed"]);
    assert!(!qemu_lives("deadline-8f1c"));
}

#[test]
fn a_signal_ends_the_machine() {
    if !qemu::usable() {
        return;
    }
    let mut child = spinning("signal-77aa", &[]);
    assert_eq!(wait_for_output(&mut child), "before the loop\n");
    assert!(qemu_lives("signal-77aa"), "the mark is not found");
    kill(&child, Signal::INT);
    let outcome = finish(child).expect(137);
    assert!(outcome.complaint().ends_with(": stopped: interrupted by a signal"), "{outcome:?}");
    assert!(!qemu_lives("signal-77aa"));
}

/// A script that starts QEMU, and does something before and behind that.
fn wrapper(directory: &Path, before: &str, behind: &str) -> String {
    let path = directory.join("wrapper");
    fs::write(&path, format!("#!/bin/sh\n{before}\nqemu-system-x86_64 \"$@\"\nstatus=$?\n{behind}\nexit $status\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

#[test]
fn a_script_around_qemu_is_ended_with_it() {
    if !qemu::usable() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let script = wrapper(directory.path(), "", "");
    finish(spinning("script-51c0", &["--timeout", "2s", "--qemu", &script])).expect(124);
    assert!(!qemu_lives("script-51c0"));

    let mut child = spinning("script-e8d2", &["--qemu", &script]);
    wait_for_output(&mut child);
    assert!(qemu_lives("script-e8d2"), "the mark is not found");
    kill(&child, Signal::TERM);
    finish(child).expect(137);
    assert!(!qemu_lives("script-e8d2"));
}

/// One that holds all that QEMU was given, is in no group of mote's, and outlives this test.
#[test]
fn nobody_else_is_waited_for() {
    if !qemu::usable() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let script = wrapper(directory.path(), &format!("setsid sleep {} &", 2 * LIMIT.as_secs()), "");
    let run = |options: &[&str], name| {
        finish(mote(qemu::payload_line(&[&["--qemu", &script], options].concat(), name, &[])).spawn().unwrap())
    };
    assert_eq!(run(&[], "exit.wat").expect(42).stderr, "");
    run(&["--timeout", "2s"], "print-then-spin.wat").expect(124);
}

#[test]
fn a_killed_mote_takes_its_machine_along() {
    if !qemu::usable() {
        return;
    }
    let mut child = spinning("killed-03bd", &[]);
    wait_for_output(&mut child);
    kill(&child, Signal::KILL);
    assert_eq!(finish(child).status, None);
    wait_until_gone("killed-03bd");
}

#[test]
fn a_reader_that_goes_away_ends_the_machine() {
    if !qemu::usable() {
        return;
    }
    let mut child = mote(qemu::payload_line(&[], "flood.wat", &[])).spawn().unwrap();
    let mut some = [0; 100];
    child.stdout.as_mut().unwrap().read_exact(&mut some).unwrap();
    drop(child.stdout.take());
    finish(child).complains(125, "cannot write standard output");
}

#[test]
fn a_reader_that_pauses_loses_nothing() {
    if !qemu::usable() {
        return;
    }
    let child = mote(qemu::payload_line(&[], "lines.wat", &[])).spawn().unwrap();
    thread::sleep(Duration::from_secs(3));
    let outcome = finish(child).expect(0);
    let mut expected = 1..=100_000;
    let wrong = outcome.text().lines().find(|line| Some(*line) != expected.next().map(|n| format!("line {n}")).as_deref());
    assert_eq!((wrong, expected.next(), outcome.stderr.as_str()), (None, None, ""));
}

#[test]
fn a_qemu_that_ends_by_itself_is_told_with_its_words() {
    let module = payload("hello.wat");
    let run = |options: &[&str]| finish(mote(qemu::line("qemu", options, &module, &[])).spawn().unwrap());
    run(&["--qemu", "/no/such/qemu"]).complains(125, "cannot start /no/such/qemu").complains(125, "package qemu-system-x86");
    run(&["--qemu", "false"]).complains(125, "QEMU ended (exit status: 1) before the guest told how the run ended");
    if qemu::usable() {
        run(&["--qemu-arg=-no-such-option"]).complains(125, "QEMU says: ").complains(125, "-no-such-option");
        run(&["--cpu", "no-such-model"]).complains(125, "no-such-model");
    }
}

#[test]
fn a_missing_or_wrong_module_is_told_as_by_run() {
    let wrong = module_file("no module");
    for module in [Path::new("/no/such/module.wasm"), wrong.path()] {
        let outcome = |subcommand| finish(mote(qemu::line(subcommand, &[], module, &[])).spawn().unwrap()).expect(126);
        assert_eq!(outcome("qemu").complaint(), outcome("run").complaint());
    }
}
