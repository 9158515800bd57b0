//! `mote run` of snapshots: they go on as if they had never stopped, with what this process has.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    process::Stdio,
};

use rustix::process::Signal;

use crate::{
    COUNTER, Folder, run_snapshot,
    support::command::{finish, kill, mote, payload, run, run_payload, run_with_input},
};

#[test]
fn results_are_printed_as_those_of_a_module() {
    let Some(folder) = Folder::new() else { return };
    let snapshot = folder.take_payload("a.snap", &[], "add.wat");
    let calls: [(&str, &[&str]); 9] = [
        ("add", &["2", "3"]),
        ("add", &["0xffffffff", "-1"]),
        ("add", &["4294967296", "1"]),
        ("add", &["2"]),
        ("add", &["2", "three"]),
        ("swap", &["9223372036854775807", "-1"]),
        ("swap", &["18446744073709551616", "0"]),
        ("nothing", &[]),
        ("swap", &["0x10", "1.5"]),
    ];
    for (function, arguments) in calls {
        let [module, snapshot] = [payload("add.wat").display().to_string(), snapshot.clone()].map(|file| {
            let outcome = run([&["run", "--invoke", function, &file], arguments].concat());
            (outcome.status, outcome.text().to_owned(), outcome.stderr.replace(&file, "FILE"))
        });
        assert_eq!(module, snapshot, "{function} {arguments:?}");
    }
    let snapshot = folder.take("b.snap", &[], COUNTER, &[]);
    run_snapshot(&["--invoke", "swap"], &snapshot, &["-7", "2.5e-1"]).expect_output("0.25\n-7\n");
}

#[test]
fn each_run_begins_anew() {
    let Some(folder) = Folder::new() else { return };
    let snapshot = folder.take("a.snap", &["--after-start"], COUNTER, &[]);
    for _ in 0..2 {
        run_snapshot(&["--invoke", "add"], &snapshot, &["1"]).expect_output("101\n");
    }
}

#[test]
fn each_end_has_its_status() {
    let Some(folder) = Folder::new() else { return };
    let snapshot = folder.take("a.snap", &[], COUNTER, &[]);
    for confinement in ["--confinement=best-effort", "--confinement=off"] {
        let call = |options: &[&str], function, arguments: &[&str]| {
            run_snapshot(&[&[confinement, "--invoke", function], options].concat(), &snapshot, arguments)
        };
        assert_eq!(call(&[], "exit", &["300"]).expect(44).stderr, "");
        assert_eq!(call(&[], "exit", &["0"]).expect(0).stderr, "");
        call(&[], "trap", &[]).complains(134, "unreachable, in a call of `trap`");
        call(&["--timeout", "200ms"], "spin", &[]).complains(124, "deadline of --timeout");
    }
    let stats = run_snapshot(&["--stats=json", "--invoke", "exit"], &snapshot, &["3"]).expect(3).stats();
    assert_eq!((&stats["exit_status"], &stats["exits"]["returns"]), (&3.into(), &1.into()));
    assert!(stats["phases_us"]["run"].as_f64().unwrap() > 0.0 && stats["pages_touched"].as_u64().unwrap() > 0);
    let debug = run_snapshot(&["--log", "debug", "--invoke", "trap"], &snapshot, &[]).expect(134);
    assert!(debug.stderr.contains("DEBUG") && debug.stderr.contains("a call did not return"), "{debug:?}");
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let child = mote(["run", "--invoke", "get", &snapshot]).stdout(full).spawn().unwrap();
    finish(child).complains(125, "No space left");
}

#[test]
fn fuel_is_for_snapshots_that_count_it() {
    let Some(folder) = Folder::new() else { return };
    let counting = folder.take("a.snap", &["--fuel", "100000"], COUNTER, &[]);
    run_snapshot(&["--invoke", "spin", "--fuel", "1000"], &counting, &[]).complains(134, "fuel");
    run_snapshot(&["--invoke", "spin"], &counting, &[]).complains(134, "fuel");
    let stats = run_snapshot(&["--invoke", "add", "--fuel", "1000", "--stats=json"], &counting, &["1"]).expect(0).stats();
    assert!((1..1000).contains(&stats["fuel_used"].as_u64().unwrap()), "{stats}");
    let plain = folder.take("b.snap", &[], COUNTER, &[]);
    run_snapshot(&["--invoke", "add", "--fuel", "1000"], &plain, &["1"]).complains(2, "--fuel");
}

#[test]
fn what_is_settled_cannot_be_given_again() {
    let Some(folder) = Folder::new() else { return };
    let called = folder.take("a.snap", &[], COUNTER, &[]);
    let waiting = folder.take_payload("b.snap", &["--at-stdin"], "cat.wat");
    let settled: [&[&str]; 6] = [
        &["--env", "A=1"],
        &["--ramdisk", "a.tar"],
        &["--memory", "1GiB"],
        &["--max-wasm-memory", "1MiB"],
        &["--argv0", "x"],
        &["--tcplisten", "127.0.0.1:0"],
    ];
    for option in settled {
        for (snapshot, invoke) in [(&called, &["--invoke", "get"][..]), (&waiting, &[])] {
            let about = format!("{} cannot be given with a snapshot: that was settled when it was taken", option[0]);
            assert_eq!(run_snapshot(&[option, invoke].concat(), snapshot, &[]).complains(2, &about).text(), "");
        }
    }
    run_snapshot(&[], &waiting, &["argument"]).complains(2, "arguments cannot be given");
    run_snapshot(&["--fuel", "9"], &waiting, &[]).complains(2, "--fuel cannot be given");
    run_snapshot(&["--invoke", "_start"], &waiting, &[]).complains(2, "--invoke cannot be given");
    run_snapshot(&[], &called, &[]).complains(2, "with --invoke");
    run_payload(&["--verify"], "hello.wat", &[]).complains(2, "--verify is for snapshots");
}

#[test]
fn a_program_at_its_input_goes_on_with_that_of_the_run() {
    let Some(folder) = Folder::new() else { return };
    for name in ["cat.wat", "stdin-poll.wat"] {
        let snapshot = folder.take_payload("a.snap", &["--at-stdin"], name);
        let module = payload(name).display().to_string();
        for input in [&b""[..], b"one\ntwo", &[7; 200_000]] {
            let [cold, warm] = [&module, &snapshot].map(|file| run_with_input(&mut mote(["run", file]), input));
            assert_eq!((cold.status, &cold.stdout, &cold.stderr), (warm.status, &warm.stdout, &warm.stderr), "{name}");
            if name == "cat.wat" {
                assert_eq!(warm.expect(0).stdout, input);
            }
        }
        assert_eq!(run_snapshot(&[], &snapshot, &[]).status, Some(0), "an empty input");
    }
}

/// Output that it wrote before, it wrote when the snapshot was taken.
#[test]
fn arguments_and_environment_are_those_of_the_snapshot() {
    let Some(folder) = Folder::new() else { return };
    let env = folder.take_payload("a.snap", &["--env", "A=1", "--env", "B=2"], "env.wat");
    run_snapshot(&["--invoke", "_start"], &env, &[]).expect_output("A=1\nB=2\n");
    let arguments = folder.take("b.snap", &["--argv0", "name"], fs::read(payload("args.wat")).unwrap(), &["a", "", "--", "-c"]);
    run_snapshot(&["--invoke", "_start"], &arguments, &[]).expect_output("name\na\n\n-c\n");
}

#[test]
fn signals_end_a_run_and_keep_its_output() {
    let Some(folder) = Folder::new() else { return };
    let spinning = folder.take_payload("a.snap", &[], "print-then-spin.wat");
    let waiting = folder.take_payload("b.snap", &["--at-stdin"], "cat.wat");
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut child = mote(["run", "--invoke", "_start", &spinning]).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "before the loop\n");
        kill(&child, signal);
        finish(child).complains(137, "interrupted by a signal");

        let mut child = mote(["run", &waiting]).stdin(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let mut output = child.stdout.take().unwrap();
        input.write_all(b"kept").unwrap();
        let mut kept = [0; 4];
        output.read_exact(&mut kept).unwrap();
        assert_eq!(&kept, b"kept");
        kill(&child, signal);
        finish(child).complains(137, "interrupted by a signal");
    }
}

/// The state of the whole process while the guest runs.
#[test]
fn a_run_is_confined_unless_that_is_not_wanted() {
    let Some(folder) = Folder::new() else { return };
    let snapshot = folder.take_payload("a.snap", &[], "print-then-spin.wat");
    let own = seccomp_of("self");
    for (option, expected) in [("--confinement=best-effort", "2"), ("--confinement=off", own.as_str())] {
        let mut child = mote(["run", option, "--invoke", "_start", &snapshot]).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut String::new()).unwrap();
        let found = seccomp_of(&child.id().to_string());
        kill(&child, Signal::TERM);
        finish(child).complains(137, "interrupted");
        assert_eq!(found, expected, "{option}");
    }
}

fn seccomp_of(process: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("Seccomp:\t")).unwrap().to_owned()
}

#[test]
fn directories_are_given_by_the_same_names() {
    let Some(folder) = Folder::new() else { return };
    // Writes its count into `file` of its directory; the result is the errno.
    let writer = r#"(module
      (import "wasi_snapshot_preview1" "path_open"
        (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
      (memory (export "memory") 1)
      (data (i32.const 0) "file") (data (i32.const 8) "written\0a") (data (i32.const 32) "\08\00\00\00\08\00\00\00")
      (func (export "write") (result i32) (local $errno i32)
        (local.set $errno (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 9) (i64.const 64)
          (i64.const 0) (i32.const 0) (i32.const 16)))
        (if (local.get $errno) (then (return (local.get $errno))))
        (drop (call $write (i32.load (i32.const 16)) (i32.const 32) (i32.const 1) (i32.const 24)))
        (call $close (i32.load (i32.const 16)))))"#;
    let [first, second] = ["first", "second"].map(|name| folder.path(name));
    [&first, &second].into_iter().for_each(|path| fs::create_dir(path).unwrap());
    let given = |path: &std::path::Path, name: &str| format!("{}::{name}", path.display());
    let snapshot = folder.take("a.snap", &["--dir", &given(&first, "/d")], writer, &[]);
    let call = |options: &[&str]| run_snapshot(&[options, &["--invoke", "write"]].concat(), &snapshot, &[]);
    for options in [&[][..], &["--dir", &given(&second, "/e")], &["--dir", &given(&second, "/d"), "--dir", &given(&first, "/e")]]
    {
        call(options).complains(2, "by the program's names: \"/d\"");
    }
    call(&["--dir", "/nowhere::/d"]).complains(125, "/nowhere");
    call(&["--dir", &given(&second, "/d")]).expect_output("0\n");
    assert_eq!(fs::read(second.join("file")).unwrap(), b"written\n");
    assert!(!first.join("file").exists());
    fs::remove_file(second.join("file")).unwrap();
    let outcome = call(&["--dir-ro", &given(&second, "/d")]).expect(0);
    assert!(outcome.text() != "0\n" && !second.join("file").exists(), "{outcome:?}");
}
