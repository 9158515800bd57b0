//! Random operations on files, in mote and in wasmtime: the same must come of them.
//!
//! `tests/programs/wasi/sequence.c` carries out a list of them in one run. The seed is fixed; `PROPTEST_RNG_SEED` sets
//! another one, `PROPTEST_CASES` the number of lists. What is known to differ ([`super::known`]) is not among them.

use std::{collections::BTreeMap, env, ops::Range};

use proptest::{
    collection::vec,
    prelude::*,
    sample::select,
    test_runner::{Config, RngSeed, TestError, TestRunner},
};

use super::{
    fixture::Fixture,
    runtime::{Runtime, available},
};

const PROGRAM: &str = "sequence";
const SEED: u64 = 20;
const LISTS: u32 = 60;
const OPERATIONS: Range<usize> = 150..200;

/// Runs many lists; of the first that differs, what makes the difference is told.
///
/// # Panics
///
/// If one differs.
pub(crate) fn check() {
    if !available(PROGRAM) {
        return;
    }
    // Lists are shortened here, which takes fewer runs.
    let mut config = Config { failure_persistence: None, max_shrink_iters: 0, ..Config::default() };
    if env::var_os("PROPTEST_RNG_SEED").is_none() {
        config.rng_seed = RngSeed::Fixed(SEED);
    }
    if env::var_os("PROPTEST_CASES").is_none() {
        config.cases = LISTS;
    }
    let judged = TestRunner::new(config).run(&vec(operation(), OPERATIONS), |operations| {
        if differ(&operations) {
            let operations = shortened(operations);
            let [wasmtime, mote] = both(&operations);
            prop_assert_eq!(wasmtime, mote, "wasmtime and mote on {:#?}", operations);
        }
        Ok(())
    });
    if let Err(TestError::Fail(reason, _)) = judged {
        panic!("{reason}");
    }
    judged.expect("nothing is rejected");
}

/// What the program printed, line by line, and what it left.
type Result = (Vec<String>, BTreeMap<String, String>);

fn both(operations: &[String]) -> [Result; 2] {
    [Runtime::Wasmtime, Runtime::Mote].map(|runtime| {
        let fixture = Fixture::new();
        let outcome = runtime.run_with_input(&fixture, PROGRAM, &[], operations.join("\n").as_bytes()).expect(0);
        (outcome.text().lines().map(String::from).collect(), fixture.tree())
    })
}

fn differ(operations: &[String]) -> bool {
    let [wasmtime, mote] = both(operations);
    wasmtime != mote
}

/// Leaves out what can be left out without the difference: halves, quarters, ..., single operations.
fn shortened(mut operations: Vec<String>) -> Vec<String> {
    let mut step = operations.len().div_ceil(2);
    while step > 0 {
        for start in (0..operations.len()).step_by(step).rev() {
            let mut fewer = operations.clone();
            fewer.drain(start..operations.len().min(start + step));
            if differ(&fewer) {
                operations = fewer;
            }
        }
        step /= 2;
    }
    operations
}

// --- Operations, as the program reads them ---------------------------------------------------------------------------

fn operation() -> impl Strategy<Value = String> {
    let bytes = || select(vec!["0", "1", "7", "40", "5000", "60000"]);
    let offset = || select(vec!["0", "1", "5", "13", "100", "5000", "70000"]);
    let text = || select(vec!["x", "hello", "0123456789", "some-more-text-than-that"]);
    prop_oneof![
        12 => (slot(), directory(), 0..2, path(), oflags(), without_rights(), fdflags()).prop_map(
            |(slot, directory, follow, path, oflags, without_rights, fdflags)| {
                // wasmtime lets who makes or cuts a file write to it.
                let without_rights = if oflags & (CREAT | TRUNC) == 0 { without_rights } else { without_rights & FD_READ };
                format!("open {slot} {directory} {follow} {path} {oflags} {without_rights} {fdflags}")
            }
        ),
        2 => slot().prop_map(|slot| format!("close {slot}")),
        2 => (slot(), slot()).prop_map(|(from, to)| format!("renumber {from} {to}")),
        3 => (slot(), bytes()).prop_map(|(slot, bytes)| format!("read {slot} {bytes}")),
        3 => (slot(), text()).prop_map(|(slot, text)| format!("write {slot} {text}")),
        2 => (slot(), select(vec![500, 5000, 70_000])).prop_map(|(slot, bytes)| format!("fill {slot} {bytes}")),
        2 => (slot(), bytes(), offset()).prop_map(|(slot, bytes, offset)| format!("pread {slot} {bytes} {offset}")),
        2 => (slot(), text(), offset()).prop_map(|(slot, text, offset)| format!("pwrite {slot} {text} {offset}")),
        // Not before the start: of a directory, that is one of two errors.
        2 => (slot(), 0..100).prop_map(|(slot, offset)| format!("seek {slot} {offset} 0")),
        2 => (slot(), -20..100, 1..3).prop_map(|(slot, offset, whence)| format!("seek {slot} {offset} {whence}")),
        1 => slot().prop_map(|slot| format!("tell {slot}")),
        2 => (slot(), offset()).prop_map(|(slot, bytes)| format!("resize {slot} {bytes}")),
        1 => (slot(), fdflags()).prop_map(|(slot, flags)| format!("flags {slot} {flags}")),
        2 => directory().prop_map(|slot| format!("fstat {slot}")),
        3 => (directory(), 0..2, path()).prop_map(|(directory, follow, path)| format!("stat {directory} {follow} {path}")),
        3 => (directory(), path()).prop_map(|(directory, path)| format!("mkdir {directory} {path}")),
        2 => (directory(), path()).prop_map(|(directory, path)| format!("rmdir {directory} {path}")),
        3 => (directory(), path()).prop_map(|(directory, path)| format!("unlink {directory} {path}")),
        4 => (directory(), path(), directory(), path()).prop_map(|(a, from, b, to)| format!("rename {a} {from} {b} {to}")),
        2 => (directory(), file(), directory(), path()).prop_map(|(a, from, b, to)| format!("link {a} {from} {b} {to}")),
        3 => (path(), directory(), path()).prop_map(|(target, directory, path)| format!("symlink {target} {directory} {path}")),
        2 => (directory(), path(), bytes()).prop_map(|(directory, path, bytes)| format!("readlink {directory} {path} {bytes}")),
        2 => (directory(), select(vec![24, 50, 80, 4000])).prop_map(|(directory, bytes)| format!("list {directory} {bytes}")),
    ]
}

/// A slot for what is opened.
fn slot() -> impl Strategy<Value = u32> {
    1u32..6
}

/// The first directory most of the time.
fn directory() -> impl Strategy<Value = u32> {
    prop_oneof![3 => Just(0), 1 => slot()]
}

/// Names that meet often, in files, directories and links to both. Nothing leads to the fifo, which would block.
fn path() -> impl Strategy<Value = String> {
    let name = || {
        select(vec![
            "a",
            "b",
            "c",
            "file",
            "empty",
            "directory",
            "empty_directory",
            "nested",
            "link",
            "directory_link",
            "dangling",
            "leaving",
            "leaving_directory",
            "loop",
            "up",
            "..",
            ".",
            "hard_link",
            "numbers",
        ])
    };
    prop_oneof![
        6 => name().prop_map(String::from),
        3 => (name(), name()).prop_map(|(first, second)| format!("{first}/{second}")),
        1 => (name(), name(), name()).prop_map(|(first, second, third)| format!("{first}/{second}/{third}")),
        1 => name().prop_map(|name| format!("{name}/")),
        1 => name().prop_map(|name| format!("/{name}")),
    ]
}

/// Nothing that leads to the first directory itself.
fn file() -> impl Strategy<Value = String> {
    path().prop_filter("a directory", |path| !path.trim_end_matches('/').ends_with('.'))
}

const CREAT: u32 = 1 << 0;
const TRUNC: u32 = 1 << 3;

fn oflags() -> impl Strategy<Value = u32> {
    prop_oneof![2 => Just(0), 2 => Just(1), 1 => 0u32..16]
}

const FD_READ: u32 = 1 << 1;
const FD_WRITE: u32 = 1 << 6;

/// At most one of them: wasmtime lets who asked for neither read. A directory can be opened without the latter.
fn without_rights() -> impl Strategy<Value = u32> {
    select(vec![0, FD_READ, FD_WRITE, FD_WRITE])
}

/// Appending and not blocking; wasmtime has no other flags.
fn fdflags() -> impl Strategy<Value = u32> {
    select(vec![0, 0, 0, 1, 1, 4, 5])
}
