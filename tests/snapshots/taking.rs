//! Taking snapshots: the points at which that is done, what comes out of it, and what goes wrong.

use std::{fs, os::unix::fs::MetadataExt};

use rustix::process::Signal;

use crate::{
    COUNTER, Folder, exists, run_snapshot,
    support::command::{finish, kill, module_file, mote, payload, run, run_with_input},
};

#[test]
fn it_is_taken_where_it_was_asked_for() {
    let Some(folder) = Folder::new() else { return };
    let points: [(&[&str], &[&str], &str, &str); 4] = [
        (&[], &[], "", "0\n"),
        (&["--after-start"], &[], "", "100\n"),
        (&["--invoke", "add"], &["-5"], "-5\n", "-5\n"),
        (&["--invoke", "get"], &[], "0\n", "0\n"),
    ];
    for (index, (options, arguments, printed, count)) in points.into_iter().enumerate() {
        let name = format!("{index}.snap");
        let outcome = folder.try_take(&name, options, COUNTER, arguments).expect(0);
        assert_eq!((outcome.text(), outcome.stderr.as_str()), (printed, ""), "{options:?}");
        run_snapshot(&["--invoke", "get"], &folder.text(&name), &[]).expect_output(count);
    }
}

/// As the options of both stand in the manual: those of `mote` may follow the module, and arguments with hyphens a `--`.
#[test]
fn options_can_follow_the_module() {
    let Some(folder) = Folder::new() else { return };
    let file = folder.text("a.snap");
    let module = module_file(COUNTER);
    let module = module.path().to_str().unwrap();
    run(["snapshot", module, "-o", &file, "--invoke", "add", "--", "7"]).expect_output("7\n");
    run(["snapshot", module, "--invoke", "add", "0x10", "-o", &file]).expect_output("16\n");
    run_snapshot(&["--invoke", "get"], &file, &[]).expect_output("16\n");
    let outcome = run(["snapshot", module, "-o", &file, "--nonsense"]).expect(2);
    assert!(outcome.stderr.contains("'-- --nonsense'"), "{outcome:?}");
}

#[test]
fn program_output_passes_through_and_input_is_empty() {
    let Some(folder) = Folder::new() else { return };
    let outcome = folder.try_take("a.snap", &["--after-start"], fs::read(payload("hello.wat")).unwrap(), &[]).expect(0);
    assert_eq!((outcome.text(), outcome.stderr.as_str()), ("Hello from a micro VM!\n", ""));
    // What is there for this process is not for the program.
    let file = folder.text("b.snap");
    let cat = payload("cat.wat");
    let mut command = mote(["snapshot", "--after-start", "-o", &file, cat.to_str().unwrap()]);
    run_with_input(&mut command, b"lost").expect_output("");
    let mut command = mote(["snapshot", "--after-start", "-o", &file, "-"]);
    run_with_input(&mut command, COUNTER.as_bytes()).expect_output("");
    run_snapshot(&["--invoke", "get"], &file, &[]).expect_output("100\n");
}

#[test]
fn a_program_that_ends_first_leaves_nothing() {
    let Some(folder) = Folder::new() else { return };
    let hello = fs::read(payload("hello.wat")).unwrap();
    let exit = fs::read(payload("exit.wat")).unwrap();
    let never = |options: &[&str], module: &[u8], arguments: &[&str], status, about: &str| {
        folder.try_take("a.snap", options, module, arguments).complains(status, about);
        assert_eq!(folder.names(), [""; 0], "{options:?}");
    };
    never(&["--at-stdin"], &hello, &[], 126, "ended, with status 0, before a snapshot could be taken");
    never(&["--at-stdin"], &exit, &[], 126, "ended, with status 42");
    never(&["--after-start"], &exit, &[], 126, "ended, with status 42");
    let counter = COUNTER.as_bytes();
    never(&["--invoke", "exit"], counter, &["0"], 126, "ended, with status 0");
    never(&["--invoke", "trap"], counter, &[], 134, "unreachable, in a call of `trap`");
    never(&["--invoke", "spin", "--timeout", "200ms"], counter, &[], 124, "deadline");
    never(&["--invoke", "spin", "--fuel", "10000"], counter, &[], 134, "fuel");
    never(&["--invoke", "nothing"], counter, &[], 126, "exports no function `nothing`");
    never(&["--invoke", "count"], counter, &[], 126, "exports no function `count`");
    never(&["--invoke", "add"], counter, &[], 126, "`add` takes 1 arguments (i32), 0 were given");
    never(&["--invoke", "add"], counter, &["x"], 126, "argument 1 of `add`: \"x\" is not a number of type (i32)");
    never(&["--after-start"], b"(module)", &[], 126, "`_start`");
    never(&[], &fs::read(payload("start-trap.wat")).unwrap(), &[], 134, "while the module was instantiated");
    never(&[], &fs::read(payload("unknown-import.wat")).unwrap(), &[], 126, "no_such_function");
    never(&[], b"\0asm\x01\0\0\0\x07", &[], 126, "not valid");
    never(&["--memory", "1MiB"], counter, &[], 2, "RAM");
    never(&["--kernel", "/nowhere"], counter, &[], 125, "/nowhere");
    run(["snapshot", "-o", &folder.text("a.snap"), "/nowhere.wasm"]).complains(126, "/nowhere.wasm");
}

#[test]
fn a_signal_ends_it_without_a_file() {
    let Some(folder) = Folder::new() else { return };
    let (spin, file) = (payload("print-then-spin.wat"), folder.text("a.snap"));
    let mut child = mote(["snapshot", "--after-start", "-o", &file, spin.to_str().unwrap()]).spawn().unwrap();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    assert_eq!(line, "before the loop\n");
    kill(&child, Signal::TERM);
    finish(child).complains(137, "interrupted by a signal");
    assert_eq!(folder.names(), [""; 0]);
}

#[test]
fn files_are_replaced_whole_and_nothing_else_is() {
    let Some(folder) = Folder::new() else { return };
    fs::write(folder.path("a.snap"), "something older").unwrap();
    let file = folder.take("a.snap", &["--after-start"], COUNTER, &[]);
    run_snapshot(&["--invoke", "get"], &file, &[]).expect_output("100\n");
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o077, 0, "others can read what the program has in memory");
    // A failure leaves what is there.
    folder.try_take("a.snap", &["--invoke", "trap"], COUNTER, &[]).complains(134, "unreachable");
    run_snapshot(&["--invoke", "get"], &file, &[]).expect_output("100\n");
    assert_eq!(folder.names(), ["a.snap"]);
    folder.try_take("nowhere/a.snap", &[], COUNTER, &[]).complains(125, "is no directory");
    fs::create_dir(folder.path("folder")).unwrap();
    folder.try_take("folder", &[], COUNTER, &[]).complains(125, "something else than a regular file");
    rustix::fs::mknodat(rustix::fs::CWD, folder.path("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    folder.try_take("pipe", &[], COUNTER, &[]).complains(125, "something else than a regular file");
    assert!(exists(folder.path("pipe")) && fs::read_dir(folder.path("folder")).unwrap().next().is_none());
}

#[test]
fn open_files_are_a_reason_not_to() {
    let Some(folder) = Folder::new() else { return };
    // Opens `.` of the directory that it is given, and leaves it open.
    let opener = r#"(module
      (import "wasi_snapshot_preview1" "path_open"
        (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
      (memory (export "memory") 1)
      (data (i32.const 0) "file")
      (func (export "open") (result i32)
        (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 1) (i64.const 66) (i64.const 0)
          (i32.const 0) (i32.const 16))))"#;
    let directory = format!("{}::/d", folder.0.path().display());
    folder.take("a.snap", &["--dir", &directory], opener, &[]);
    let outcome = folder.try_take("b.snap", &["--dir", &directory, "--invoke", "open"], opener, &[]).expect(126);
    assert_eq!(outcome.text(), "0\n", "the file was opened");
    assert!(outcome.complaint().contains("1 files, directories or sockets of the host open"), "{outcome:?}");
    assert!(!exists(folder.path("b.snap")));
}
