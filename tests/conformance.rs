//! WASI preview 1, function by function: programs that try what there is to try, in mote and in two other runtimes.
//!
//! The programs lie in `tests/programs/wasi/`, one for each function, and print a line for each check. They run in
//! wasmtime, whose preview 1 is made over preview 2, in the last wasmtime with the first implementation (`wasi-common`),
//! and in mote, each time in a fresh directory. Where the first two agree mote must, in its lines, its exit status and what
//! it leaves behind; all else is in a table with reasons. A property test does the same with random operations.
//!
//! `scripts/fetch-programs` brings wasmtimes and programs; without them the tests are skipped, or fail where
//! `MOTE_REQUIRE_PROGRAMS` is set.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod preview1 {
    pub(crate) mod answers;
    pub(crate) mod fixture;
    mod known;
    pub(crate) mod runtime;
    pub(crate) mod sequence;
    pub(crate) mod sockets;
}
mod support {
    pub(crate) mod command;
    pub(crate) mod engine;
    pub(crate) mod kvm;
}

use preview1::{
    answers::{Answers, Contest},
    fixture::Fixture,
    runtime::{Runtime, available, skip},
    sequence, sockets,
};

/// One test for each program of that name.
macro_rules! tests {
    ($check:path: $($program:ident)*) => {
        $(
            #[test]
            fn $program() {
                $check(stringify!($program));
            }
        )*
    };
}

tests! { check:
    fd_advise fd_allocate fd_close fd_datasync fd_fdstat_get fd_fdstat_set_flags fd_fdstat_set_rights fd_filestat_get
    fd_filestat_set_size fd_filestat_set_times fd_pread fd_prestat_dir_name fd_prestat_get fd_pwrite fd_read fd_readdir
    fd_renumber fd_seek fd_sync fd_tell fd_write fifo path_create_directory path_filestat_get path_filestat_set_times path_link
    path_open path_readlink path_remove_directory path_rename path_symlink path_unlink_file poll_oneoff sock_none
}

#[test]
fn wrong_pointers() {
    check_case_by_case("wrong_pointers", "fault(21)");
}

#[test]
fn wrong_values() {
    check_case_by_case("wrong_values", "inval(28)");
}

tests! { sockets::check: sock_accept sock_recv sock_send sock_shutdown }

#[test]
fn random_operations() {
    sequence::check();
}

#[test]
fn permissions() {
    if Fixture::with_modes().refuses() {
        check_in("permissions", Fixture::with_modes, Fixture::lift_modes);
    } else {
        skip("permissions: nothing is refused to this user");
    }
}

/// Runs a program in all runtimes and compares.
fn check(program: &str) {
    check_in(program, Fixture::new, |_| ());
}

/// The same in another fixture, which `lift` makes readable again.
fn check_in(program: &str, fixture: fn() -> Fixture, lift: fn(&Fixture)) {
    if !available(program) {
        return;
    }
    let [wasmtime, preview1, mote] = [Runtime::Wasmtime, Runtime::Preview1, Runtime::Mote].map(|runtime| {
        let fixture = fixture();
        let outcome = runtime.run(&fixture, program, &[]);
        lift(&fixture);
        // Shown if the test fails.
        eprintln!("{runtime:?} said on standard error: {}", outcome.stderr);
        Answers::of(&outcome, &fixture)
    });
    assert_eq!(wasmtime.get("exit status"), "0", "{program} does not get to its end");
    Contest { program, wasmtime: &wasmtime, preview1: &preview1, mote: &mote }.judge();
}

/// Programs that wasmtime ends at most of their cases: it runs each by itself. Mote answers them with an errno, and a case
/// has no effect.
fn check_case_by_case(program: &str, errno: &str) {
    if !available(program) {
        return;
    }
    let fixture = Fixture::new();
    let before = fixture.tree();
    let mut mote = Answers::default();
    mote.add_lines(Runtime::Mote.run(&fixture, program, &[]).expect(0).text());
    assert_eq!(fixture.tree(), before);
    let [wasmtime, preview1] = [Runtime::Wasmtime, Runtime::Preview1].map(|runtime| each_case(runtime, program, errno));
    Contest { program, wasmtime: &wasmtime, preview1: &preview1, mote: &mote }.judge();
}

/// One run after the other, until there is no further case. If it ends the program, that stands for `errno`.
fn each_case(runtime: Runtime, program: &str, errno: &str) -> Answers {
    let fixture = Fixture::new();
    let mut answers = Answers::default();
    for case in 0.. {
        let outcome = runtime.run(&fixture, program, &[&case.to_string()]);
        let ended = if outcome.status == Some(0) { "" } else { errno };
        answers.add_lines(&format!("{}{ended}", outcome.text()));
        // What it says behind its last case, and then alone.
        if outcome.text().starts_with("cases: ") {
            break;
        }
    }
    answers
}
