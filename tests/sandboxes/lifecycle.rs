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
        // Not /proc/self/status, which is off by what each processor has not added up yet.
        let rollup = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
        let resident = rollup.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
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

    /// Checks that next to nothing was added in this many rounds: no descriptor, no thread, no mapping, no page in each of them.
    #[track_caller]
    fn check_against(&self, before: &Self, rounds: usize) {
        let both = format!("{before:?}, {rounds} rounds later {self:?}");
        assert!(self.descriptors <= before.descriptors, "descriptors: {both}");
        assert!(self.threads <= before.threads, "threads: {both}");
        assert!(self.mappings <= before.mappings + MORE_MAPPINGS, "mappings: {both}");
        let more_kib = MORE_KIB_IN_100_ROUNDS * rounds as u64 / 100;
        assert!(self.resident_kib <= before.resident_kib + more_kib, "memory: {both}");
    }
}

/// What allocators may keep for themselves: far less than a page a round, and two mappings in all.
const MORE_KIB_IN_100_ROUNDS: u64 = 64;
const MORE_MAPPINGS: usize = 2;

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

/// How often: 10,000 times where tests may take long. KVM waits for others when it takes a VM down.
fn rounds(usual: usize) -> usize {
    if soak::seconds().is_some() { 10_000 } else { usual }
}

/// Runs `round` so often, and measures what the second half adds: in the first one, all is made that is made once, and what
/// allocators keep becomes as large as it gets.
fn measure(rounds: usize, mut round: impl FnMut(usize)) {
    let half = rounds / 2;
    (0..half).for_each(&mut round);
    let before = Holdings::now();
    (half..rounds).for_each(&mut round);
    Holdings::now().check_against(&before, half);
}

fn copies() {
    let snapshot = build(MEMORY).snapshot().unwrap();
    measure(rounds(600), |round| {
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
    measure(rounds(400), |round| {
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
    measure(rounds(400), |round| {
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
