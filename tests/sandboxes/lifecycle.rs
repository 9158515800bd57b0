//! Making, calling and dropping sandboxes without number leaks nothing of the host.
//!
//! The process is measured, so it is one of its own: the tests start this test program again for [`child`] alone.

use std::{env, fs, process::Command};

use mote_vmm::{CallError, Sandbox};

use super::{
    guests::{MEMORY, build},
    soak,
};
use crate::support::kvm;

/// Tells the child what to do.
const CASE: &str = "MOTE_LIFECYCLE_CASE";

/// What the process has of the host at this moment.
#[derive(Debug)]
struct Holdings {
    resident_kib: u64,
    descriptors: usize,
    threads: usize,
    mappings: usize,
}

impl Holdings {
    fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        Self {
            resident_kib: resident.trim().trim_end_matches(" kB").parse().unwrap(),
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
            // Some kernels work for KVM by threads of their own in the process, which end later than their VM.
            threads: fs::read_dir("/proc/self/task")
                .unwrap()
                .filter(|task| {
                    let name = fs::read_to_string(task.as_ref().unwrap().path().join("comm")).unwrap_or_default();
                    !name.is_empty() && !name.starts_with("kvm-")
                })
                .count(),
            mappings: fs::read_to_string("/proc/self/maps").unwrap().lines().count(),
        }
    }

    /// Checks that nothing was added that would go on to be added. Allocators keep some for themselves.
    #[track_caller]
    fn check_against(&self, before: &Self) {
        let both = format!("{before:?}, then {self:?}");
        assert!(self.descriptors <= before.descriptors, "descriptors: {both}");
        assert!(self.threads <= before.threads, "threads: {both}");
        assert!(self.mappings <= before.mappings + 16, "mappings: {both}");
        assert!(self.resident_kib <= before.resident_kib + (2 << 10), "memory: {both}");
    }
}

fn start(case: &str) {
    if !kvm::usable() {
        return;
    }
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "sandboxes::lifecycle::child", "--ignored", "--nocapture"]).env(CASE, case);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{case}: {output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("1 passed"), "{case}: the child did not run: {text}");
}

#[test]
#[ignore = "the other tests start it with a case"]
fn child() {
    match env::var(CASE).unwrap().as_str() {
        "copies" => copies(),
        "builds" => builds(),
        "restores" => restores(),
        other => panic!("{other}"),
    }
}

/// 300 of them, and 10,000 where tests may take long: KVM waits for others when it takes a VM down.
#[test]
fn copies_leak_nothing() {
    start("copies");
}

#[test]
fn new_sandboxes_leak_nothing() {
    start("builds");
}

#[test]
fn restores_and_snapshots_leak_nothing() {
    start("restores");
}

/// Runs `round` some times before measuring, for what is made once, and then `rounds` times.
fn measure(rounds: usize, mut round: impl FnMut(usize)) {
    (0..rounds / 10).for_each(&mut round);
    let before = Holdings::now();
    (0..rounds).for_each(&mut round);
    Holdings::now().check_against(&before);
}

fn copies() {
    let snapshot = build(MEMORY).snapshot().unwrap();
    measure(if soak::seconds().is_some() { 10_000 } else { 300 }, |round| {
        let mut sandbox = Sandbox::from_snapshot(&snapshot).unwrap();
        // One in ten does not end well.
        if round % 10 == 9 {
            sandbox.interrupt_handle().interrupt();
            assert!(matches!(sandbox.call::<_, ()>("spin", ()), Err(CallError::Interrupted)));
        } else {
            assert_eq!(sandbox.call::<_, i32>("count", ()).unwrap(), 1);
        }
    });
}

fn builds() {
    measure(100, |round| {
        let mut sandbox = build(MEMORY);
        assert_eq!(sandbox.call::<_, i32>("count", ()).unwrap(), 1);
        if round % 3 == 0 {
            let snapshot = sandbox.snapshot().unwrap();
            drop(sandbox);
            assert_eq!(Sandbox::from_snapshot(&snapshot).unwrap().call::<_, i32>("count", ()).unwrap(), 2);
        }
    });
}

fn restores() {
    let mut sandbox = build(MEMORY);
    let first = sandbox.snapshot().unwrap();
    measure(200, |round| {
        assert_eq!(sandbox.call::<_, i32>("count", ()).unwrap(), 1);
        match round % 4 {
            0 => {
                let taken = sandbox.snapshot().unwrap();
                assert_eq!(sandbox.call::<_, i32>("count", ()).unwrap(), 2);
                sandbox.restore(&taken).unwrap();
                assert_eq!(sandbox.call::<_, i32>("count", ()).unwrap(), 2);
            }
            1 => assert!(sandbox.call::<_, ()>("trap", ()).is_err()),
            2 => assert_eq!(sandbox.call::<_, i32>("grow", 64).unwrap(), 1),
            _ => assert!(sandbox.instantiate(b"(module (memory 2))").is_ok()),
        }
        sandbox.restore(&first).unwrap();
    });
}
