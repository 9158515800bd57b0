//! Files, directories and sockets that a program is given, where the host can tell more than the program: what reaches the
//! disk and when, what others do to files meanwhile, and what nothing may get out of.
//!
//! The programs are a few lines in text format. What a program can see by itself is in `conformance.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support {
    pub(crate) mod command;
    pub(crate) mod engine;
    pub(crate) mod kvm;
}

use std::{
    ffi::OsString,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::symlink,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use support::{
    command::{Outcome, finish, kill, module_file, mote, run, run_with_input},
    engine, kvm,
};
use tempfile::TempDir;

/// Imports, and helpers that trap when what they do fails. Descriptor 3 is the directory. Strings lie where they are used.
const CONTEXT: &str = r#"
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $fd_close (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_fdstat_set_flags" (func $fd_fdstat_set_flags (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_sync" (func $fd_sync (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_seek" (func $fd_seek (param i32 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open" (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_unlink_file" (func $path_unlink_file (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "sock_accept" (func $sock_accept (param i32 i32 i32) (result i32)))
  (memory (export "memory") 8)
  ;; Opens the name at 1024 for reading (2), writing (64) or both; the errno, or else the descriptor times -1.
  (func $open (param $bytes i32) (param $oflags i32) (param $rights i64) (param $flags i32) (result i32)
    (local $errno i32)
    (local.set $errno (call $path_open (i32.const 3) (i32.const 1) (i32.const 1024) (local.get $bytes)
      (local.get $oflags) (local.get $rights) (i64.const 0) (local.get $flags) (i32.const 0)))
    (if (result i32) (local.get $errno)
      (then (local.get $errno)) (else (i32.sub (i32.const 0) (i32.load (i32.const 0))))))
  (func $opened (param $bytes i32) (param $oflags i32) (param $rights i64) (result i32)
    (local $result i32)
    (local.set $result (call $open (local.get $bytes) (local.get $oflags) (local.get $rights) (i32.const 0)))
    (if (i32.gt_s (local.get $result) (i32.const 0)) (then (call $proc_exit (local.get $result))))
    (i32.sub (i32.const 0) (local.get $result)))
  ;; Writes bytes from 2048 on; the errno.
  (func $write (param $fd i32) (param $bytes i32) (result i32)
    (i32.store (i32.const 8) (i32.const 2048))
    (i32.store (i32.const 12) (local.get $bytes))
    (call $fd_write (local.get $fd) (i32.const 8) (i32.const 1) (i32.const 16)))
  ;; Reads to 4096 on; the errno. How much came is at 16.
  (func $read (param $fd i32) (param $bytes i32) (result i32)
    (i32.store (i32.const 8) (i32.const 4096))
    (i32.store (i32.const 12) (local.get $bytes))
    (call $fd_read (local.get $fd) (i32.const 8) (i32.const 1) (i32.const 16)))
  ;; Prints what was read.
  (func $print
    (i32.store (i32.const 8) (i32.const 4096))
    (i32.store (i32.const 12) (i32.load (i32.const 16)))
    (drop (call $fd_write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 20))))
"#;

/// A program that works on the file `name`, with `text` at hand to be written.
fn program(name: &str, text: &str, instructions: &str) -> String {
    format!(
        r#"(module {CONTEXT} (data (i32.const 1024) "{name}") (data (i32.const 2048) "{text}")
          (func (export "_start") (local $fd i32) (local $other i32) (local $third i32) {instructions}))"#
    )
}

/// `mote run OPTIONS --dir DIRECTORY::/ MODULE`.
fn command(options: &[&str], directory: &Path, module: &Path) -> Command {
    let mut arguments: Vec<OsString> = vec!["run".into()];
    arguments.extend(options.iter().map(OsString::from));
    let mut names = directory.as_os_str().to_owned();
    names.push("::/");
    arguments.extend(["--dir".into(), names, module.into()]);
    mote(arguments)
}

fn run_in(options: &[&str], directory: &TempDir, program: &str) -> Outcome {
    let module = module_file(program);
    finish(command(options, directory.path(), module.path()).spawn().unwrap())
}

/// Opens the file for writing into `$fd`, creating it.
const CREATE: &str = "(local.set $fd (call $opened (i32.const 1) (i32.const 1) (i64.const 64)))";
/// Opens it for reading.
const OPEN: &str = "(local.set $fd (call $opened (i32.const 1) (i32.const 0) (i64.const 2)))";
/// Writes five bytes.
const WRITE: &str = "(if (call $write (local.get $fd) (i32.const 5)) (then unreachable))";

#[test]
fn nothing_written_is_lost_however_the_run_ends() {
    if !kvm::usable() {
        return;
    }
    for (how, end, status) in [
        ("returns", "", 0),
        ("exits", "(call $proc_exit (i32.const 7))", 7),
        ("traps", "unreachable", 134),
        ("spins until its deadline", "(loop $again (br $again))", 124),
        ("runs out of fuel", "(loop $again (br $again))", 134),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let options: &[&str] = match how {
            "spins until its deadline" => &["--timeout", "3s"],
            "runs out of fuel" => &["--fuel", "100000"],
            _ => &[],
        };
        let program = program("f", "12345", &format!("{CREATE} {WRITE} {WRITE} {end}"));
        run_in(options, &directory, &program).expect(status);
        assert_eq!(fs::read(directory.path().join("f")).unwrap(), b"1234512345", "a program that {how}");
    }
}

/// Output that nobody takes lies in front of what was written.
#[test]
fn what_was_written_behind_blocked_output_is_kept() {
    if !kvm::usable() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let print = "(loop $again (drop (call $write (i32.const 1) (i32.const 50000)))
      (br_if $again (i32.lt_u (local.tee $other (i32.add (local.get $other) (i32.const 1))) (i32.const 3))))";
    let module = module_file(program("f", "12345", &format!("{CREATE} {print} {WRITE} (loop $again (br $again))")));
    let mut child = command(&["--timeout", "5s"], directory.path(), module.path()).spawn().unwrap();
    let stdout = child.stdout.take();
    finish(child).expect(124);
    drop(stdout);
    assert_eq!(fs::read(directory.path().join("f")).unwrap(), b"12345");
}

/// Standard output is a file of the directory that the program reads.
#[test]
fn output_into_the_directory_is_seen_there() {
    if !kvm::usable() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let output = fs::File::create(directory.path().join("f")).unwrap();
    let read = "(if (call $read (local.get $fd) (i32.const 9)) (then unreachable))";
    let size = "(i32.load (i32.const 16))";
    // Reads the end, prints five bytes, and must then read these.
    let instructions = format!(
        "{OPEN} {read} (if {size} (then unreachable))
         (if (call $write (i32.const 1) (i32.const 5)) (then unreachable)) {read} (call $proc_exit {size})"
    );
    let module = module_file(program("f", "12345", &instructions));
    let mut command = command(&[], directory.path(), module.path());
    finish(command.stdout(output).spawn().unwrap()).expect(5);
}

/// Another process changes one file and then says so in another, which the program looks at again and again.
#[test]
fn a_flag_in_one_file_tells_of_another() {
    if !kvm::usable() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let [data, flag] = ["f", "g"].map(|name| directory.path().join(name));
    let at_start = "(if (call $fd_seek (local.get $fd) (i64.const 0) (i32.const 0) (i32.const 24)) (then unreachable))
      (if (call $read (local.get $fd) (i32.const 3)) (then unreachable))";
    let swap = "(local.set $third (local.get $fd)) (local.set $fd (local.get $other)) (local.set $other (local.get $third))";
    // Reads the data, then the flag until it is a `1`, then the data again.
    let instructions = format!(
        "{OPEN} (i32.store8 (i32.const 1024) (i32.const 103)) {swap} {OPEN} {swap} {at_start} (call $print) {swap}
         (loop $again {at_start} (br_if $again (i32.ne (i32.load8_u (i32.const 4096)) (i32.const 49))))
         {swap} {at_start} (call $print)"
    );
    let module = module_file(program("f", "", &instructions));
    for _ in 0..5 {
        fs::write(&data, "old").unwrap();
        fs::write(&flag, "0").unwrap();
        let mut child = command(&[], directory.path(), module.path()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut text = [0; 3];
        stdout.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"old");
        fs::write(&data, "new").unwrap();
        fs::write(&flag, "1").unwrap();
        stdout.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"new");
        finish(child).expect(0);
    }
}

/// The disk is full, is emptied, and is as large as before.
#[test]
fn a_full_ramdisk_that_is_emptied_takes_as_much_again() {
    if !kvm::usable() {
        return;
    }
    const NOSPC: i32 = 51;
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("empty.tar");
    tar::Builder::new(fs::File::create(&archive).unwrap()).into_inner().unwrap().set_len(1024).unwrap();
    // Fills a file until a write fails; the errno goes to $other, the number of whole writes to 28.
    let fill = format!(
        "{CREATE} (i32.store (i32.const 28) (i32.const 0))
         (loop $again
           (local.set $other (call $write (local.get $fd) (i32.const 65536)))
           (if (i32.eqz (local.get $other)) (then
             (i32.store (i32.const 28) (i32.add (i32.load (i32.const 28)) (i32.const 1))) (br $again))))
         (if (i32.ne (local.get $other) (i32.const {NOSPC})) (then (call $proc_exit (local.get $other))))
         (if (call $fd_close (local.get $fd)) (then unreachable))
         (if (call $path_unlink_file (i32.const 3) (i32.const 1024) (i32.const 1)) (then unreachable))"
    );
    let instructions = format!(
        "{fill} (i32.store (i32.const 32) (i32.load (i32.const 28))) {fill}
         (if (i32.lt_u (i32.load (i32.const 32)) (i32.const 100)) (then (call $proc_exit (i32.const 98))))
         (if (i32.lt_u (i32.load (i32.const 28)) (i32.load (i32.const 32))) (then (call $proc_exit (i32.const 99))))"
    );
    let module = module_file(program("f", "12345", &instructions));
    for memory in ["24MiB", "96MiB"] {
        let arguments = ["run", "--memory", memory, "--ramdisk"].map(OsString::from);
        run(arguments.into_iter().chain([archive.clone().into(), module.path().into()])).expect(0);
    }
}

#[test]
fn an_interrupted_run_keeps_what_it_wrote() {
    if !kvm::usable() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let module = module_file(program("f", "12345", &format!("{CREATE} {WRITE} (loop $again (br $again))")));
    let child = command(&[], directory.path(), module.path()).spawn().unwrap();
    // Without an end either: others see it soon.
    wait_for("the bytes on the disk", || fs::read(directory.path().join("f")).is_ok_and(|bytes| bytes == b"12345"));
    kill(&child, rustix::process::Signal::INT);
    finish(child).expect(137);
    assert_eq!(fs::read(directory.path().join("f")).unwrap(), b"12345");
}

fn wait_for(what: &str, mut happened: impl FnMut() -> bool) {
    let started = Instant::now();
    while !happened() {
        assert!(started.elapsed() < Duration::from_secs(20), "{what}: it does not come");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The program prints what it reads, waits for a line of input, and reads the same place again.
#[test]
fn a_change_from_outside_is_seen_when_the_program_is_told() {
    if !kvm::usable() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("f"), "old").unwrap();
    let again = "(if (call $fd_seek (local.get $fd) (i64.const 0) (i32.const 0) (i32.const 24)) (then unreachable))
      (if (call $read (local.get $fd) (i32.const 9)) (then unreachable)) (call $print)";
    let wait = "(if (call $read (i32.const 0) (i32.const 1)) (then unreachable))";
    let module = module_file(program("f", "", &format!("{OPEN} {again} {wait} {again}")));
    let mut child = command(&[], directory.path(), module.path()).stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut bytes = [0; 3];
    stdout.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"old");
    fs::write(directory.path().join("f"), "new").unwrap();
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    stdout.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"new");
    finish(child).expect(0);
}

#[test]
fn a_file_that_goes_on_growing_is_read_on() {
    if !kvm::usable() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("f"), "a").unwrap();
    // Reads without a pause until it met a `z`.
    let follow = "(loop $again
      (if (call $read (local.get $fd) (i32.const 1)) (then unreachable))
      (br_if $again (i32.or (i32.eqz (i32.load (i32.const 16))) (i32.ne (i32.load8_u (i32.const 4096)) (i32.const 122)))))";
    let module = module_file(program("f", "", &format!("{OPEN} {follow} (call $print)")));
    let child = command(&[], directory.path(), module.path()).spawn().unwrap();
    thread::sleep(Duration::from_millis(150));
    fs::OpenOptions::new().append(true).open(directory.path().join("f")).unwrap().write_all(b"bz").unwrap();
    finish(child).expect_output("z");
}

#[test]
fn a_full_disk_is_told_by_the_next_call_that_can() {
    if !kvm::usable() {
        return;
    }
    // A limit on the size of files fails writes as a full disk does, but with another number.
    const FBIG: i32 = 22;
    let limited = |directory: &TempDir, program: &str| {
        let module = module_file(program);
        // The limit is for files of the compiler, too.
        engine::prepare(module.path());
        let mut shell = Command::new("sh");
        let engine = engine::under_test().options().join(" ");
        let line = format!("ulimit -f 8 && exec \"$0\" run {engine} --dir \"$1\"::/ \"$2\"");
        shell
            .env("XDG_CACHE_HOME", engine::cache_home())
            .args(["-c", &line, env!("CARGO_BIN_EXE_mote")])
            .arg(directory.path())
            .arg(module.path());
        let piped = std::process::Stdio::piped;
        finish(shell.stdin(std::process::Stdio::null()).stdout(piped()).stderr(piped()).spawn().unwrap())
    };
    // `ulimit -f` counts in 512 or 1024 bytes; either way this does not fit.
    let large = "(if (call $write (local.get $fd) (i32.const 10000)) (then unreachable))";
    for (asked, told) in [
        ("sync", "(call $proc_exit (call $fd_sync (local.get $fd)))"),
        ("close", "(call $proc_exit (call $fd_close (local.get $fd)))"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let outcome = limited(&directory, &program("f", "x", &format!("{CREATE} {large} {told}")));
        assert_eq!(outcome.status, Some(FBIG), "{asked}: {outcome:?}");
    }
    // Whoever writes on meets it while writing.
    let directory = tempfile::tempdir().unwrap();
    let on = "(loop $again (if (local.tee $other (call $write (local.get $fd) (i32.const 6000)))
      (then (call $proc_exit (local.get $other)))) (br $again))";
    assert_eq!(limited(&directory, &program("f", "x", &format!("{CREATE} {on}"))).status, Some(FBIG));
    // Whoever does not ask ends with a failure, not with success.
    let directory = tempfile::tempdir().unwrap();
    limited(&directory, &program("f", "x", &format!("{CREATE} {large}"))).complains(125, "are lost");
}

#[test]
fn a_file_removed_under_the_program_stays_readable() {
    if !kvm::usable() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("f"), "x".repeat(100_000) + "end").unwrap();
    let wait =
        "(drop (call $write (i32.const 1) (i32.const 1))) (if (call $read (i32.const 0) (i32.const 1)) (then unreachable))";
    let end = "(if (call $fd_seek (local.get $fd) (i64.const 100000) (i32.const 0) (i32.const 24)) (then unreachable))
      (if (call $read (local.get $fd) (i32.const 9)) (then unreachable)) (call $print)";
    let module = module_file(program("f", ">", &format!("{OPEN} {wait} {end}")));
    let mut child = command(&[], directory.path(), module.path()).stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0]).unwrap();
    fs::remove_file(directory.path().join("f")).unwrap();
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let mut text = String::new();
    stdout.read_to_string(&mut text).unwrap();
    assert_eq!(text, "end");
    finish(child).expect(0);
}

#[test]
fn a_read_only_directory_stays_as_it_is() {
    if !kvm::usable() {
        return;
    }
    const PERM: i32 = 63;
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("f"), "as it is").unwrap();
    let names = format!("{}::/", directory.path().display());
    let run = |program: &str| {
        let module = module_file(program);
        run([OsString::from("run"), "--dir-ro".into(), names.clone().into(), module.path().into()])
    };
    for (what, oflags, rights) in [("create", 1, 64), ("truncate", 8, 2), ("write", 0, 64)] {
        let open =
            format!("(call $proc_exit (call $open (i32.const 1) (i32.const {oflags}) (i64.const {rights}) (i32.const 0)))");
        assert_eq!(run(&program("f", "", &open)).status, Some(PERM), "{what}");
    }
    let unlink = "(call $proc_exit (call $path_unlink_file (i32.const 3) (i32.const 1024) (i32.const 1)))";
    assert_eq!(run(&program("f", "", unlink)).status, Some(PERM));
    let read = format!("{OPEN} (if (call $read (local.get $fd) (i32.const 99)) (then unreachable)) (call $print)");
    run(&program("f", "", &read)).expect_output("as it is");
    assert_eq!(fs::read(directory.path().join("f")).unwrap(), b"as it is");
}

/// Links that change all the time between a file inside and one outside: no read ever brings what is outside.
#[test]
fn no_race_leads_out() {
    if !kvm::usable() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let given = root.path().join("given");
    fs::create_dir_all(given.join("d")).unwrap();
    fs::write(given.join("d/f"), "inside").unwrap();
    fs::write(root.path().join("f"), "SECRET").unwrap();
    // Follows `l/f` a few thousand times and prints what it finds, if that is not an `i`.
    let look = r#"(local.set $other (i32.const 4000))
      (loop $again
        (local.set $fd (call $open (i32.const 3) (i32.const 0) (i64.const 2) (i32.const 0)))
        (if (i32.lt_s (local.get $fd) (i32.const 0)) (then
          (local.set $fd (i32.sub (i32.const 0) (local.get $fd)))
          (if (call $read (local.get $fd) (i32.const 6)) (then unreachable))
          (if (i32.ne (i32.load8_u (i32.const 4096)) (i32.const 105)) (then (call $print)))
          (drop (call $fd_close (local.get $fd)))))
        (br_if $again (local.tee $other (i32.sub (local.get $other) (i32.const 1)))))"#;
    let module = module_file(program("l/f", "", look));
    let child = command(&[], &given, module.path()).spawn().unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let outcome = thread::scope(|scope| {
        scope.spawn(|| {
            let (link, next) = (given.join("l"), given.join("next"));
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                for target in ["d", "..", "d/..", root.path().to_str().unwrap()] {
                    symlink(target, &next).unwrap();
                    fs::rename(&next, &link).unwrap();
                }
            }
        });
        let outcome = finish(child);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        outcome
    });
    outcome.expect_output("");
}

/// A pipe without another end: opening it does not wait, and reading it ends with the run's deadline.
#[test]
fn a_pipe_in_the_directory_blocks_nobody_for_ever() {
    if !kvm::usable() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("p");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
    const NXIO: i32 = 60;
    let write = "(call $proc_exit (call $open (i32.const 1) (i32.const 0) (i64.const 64) (i32.const 0)))";
    assert_eq!(run_in(&[], &directory, &program("p", "", write)).status, Some(NXIO));

    let read = format!("{OPEN} (if (call $read (local.get $fd) (i32.const 9)) (then unreachable)) (call $print)");
    // Nobody writes: that is the end of the stream, as for any reader of a pipe.
    run_in(&[], &directory, &program("p", "", &read)).expect_output("");
    // Somebody could write, and does not.
    let _writer = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let started = Instant::now();
    run_in(&["--timeout", "300ms"], &directory, &program("p", "", &read)).expect(124);
    assert!(started.elapsed() < Duration::from_secs(20));
}

/// Reading line by line does not exit for each line, and small files cost an exit each.
#[test]
fn reading_bytes_one_by_one_costs_few_exits() {
    if !kvm::usable() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("f"), vec![b'x'; 1 << 20]).unwrap();
    let read = "(loop $again
      (if (call $read (local.get $fd) (i32.const 64)) (then unreachable))
      (br_if $again (i32.load (i32.const 16))))";
    let outcome = run_in(&["--stats=json"], &directory, &program("f", "", &format!("{OPEN} {read}"))).expect(0);
    let exits = outcome.stats()["exits"]["files"].as_u64().unwrap();
    assert!(exits <= 20, "{exits} exits for 16384 reads");
    let write = format!(
        "{CREATE} (local.set $other (i32.const 16384)) (loop $again {WRITE}
      (br_if $again (local.tee $other (i32.sub (local.get $other) (i32.const 1)))))"
    );
    let outcome = run_in(&["--stats=json"], &directory, &program("g", "12345", &write)).expect(0);
    let exits = &outcome.stats()["exits"];
    let exits = exits["files"].as_u64().unwrap() + exits["drain_output"].as_u64().unwrap();
    assert!(exits <= 10, "{exits} exits for 16384 writes");
    assert_eq!(fs::metadata(directory.path().join("g")).unwrap().len(), 5 * 16384);
}

/// A listener of a program that nobody connects to ends with the deadline; one that is served says what came.
#[test]
fn a_listener_waits_and_serves() {
    if !kvm::usable() {
        return;
    }
    const AGAIN: i32 = 6;
    let accept = "(call $sock_accept (i32.const 3) (i32.const 0) (i32.const 0))";
    let serve = format!(
        "(if (call $fd_fdstat_set_flags (i32.const 3) (i32.const 0)) (then unreachable))
         (if {accept} (then unreachable))
         (local.set $fd (i32.load (i32.const 0)))
         (if (call $read (local.get $fd) (i32.const 99)) (then unreachable)) (call $print)
         (if (call $write (local.get $fd) (i32.const 4)) (then unreachable))"
    );
    let line = |timeout: &str, address: SocketAddr, module: &tempfile::NamedTempFile| {
        let arguments = ["run", "--timeout", timeout, "--tcplisten", &address.to_string()].map(OsString::from);
        arguments.into_iter().chain([module.path().into()]).collect::<Vec<_>>()
    };
    let address = free_address();
    // It does not wait unless it is told to.
    let module = module_file(program("", "", &format!("(call $proc_exit {accept})")));
    run(line("30s", address, &module)).expect(AGAIN);
    let module = module_file(program("", "pong", &serve));
    run(line("300ms", address, &module)).expect(124);
    let child = mote(line("30s", address, &module)).spawn().unwrap();
    let mut stream = None;
    wait_for("a connection", || {
        stream = TcpStream::connect(address).ok();
        stream.is_some()
    });
    let mut stream = stream.unwrap();
    stream.write_all(b"ping").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "pong");
    finish(child).expect_output("ping");
}

/// Files of procfs are the memory and the descriptors of the process that runs the VM.
#[test]
fn the_vmm_is_not_reached_through_proc() {
    if !kvm::usable() || !Path::new("/proc/self/mem").exists() {
        return;
    }
    const ACCES: i32 = 2;
    let module = module_file(program(
        "self/mem",
        "",
        "(call $proc_exit (call $open (i32.const 8) (i32.const 0) (i64.const 2) (i32.const 0)))",
    ));
    assert_eq!(finish(command(&[], Path::new("/proc"), module.path()).spawn().unwrap()).status, Some(ACCES));
    let module = module_file(program(
        "proc/self/mem",
        "",
        "(call $proc_exit (call $open (i32.const 13) (i32.const 0) (i64.const 2) (i32.const 0)))",
    ));
    assert_eq!(finish(command(&[], Path::new("/"), module.path()).spawn().unwrap()).status, Some(ACCES));
}

/// More subscriptions to one stream than a process may have descriptors.
#[test]
fn waiting_for_a_stream_many_times_ends_with_the_deadline() {
    if !kvm::usable() {
        return;
    }
    let module = module_file(
        r#"(module (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 8)
        (func (export "_start") (local $at i32)
          (loop $again
            (i32.store8 offset=8 (local.get $at) (i32.const 1))
            (br_if $again (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 48))) (i32.const 192000))))
          (if (call $poll (i32.const 0) (i32.const 200000) (i32.const 4000) (i32.const 500000)) (then unreachable))))"#,
    );
    let mut child = mote([OsString::from("run"), "--timeout".into(), "500ms".into(), module.path().into()]);
    let mut child = child.stdin(std::process::Stdio::piped()).spawn().unwrap();
    // Kept open without a byte.
    let _stdin = child.stdin.take();
    finish(child).expect(124);
}

/// An address that nobody uses now.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn what_cannot_be_given_is_named() {
    if !kvm::usable() {
        return;
    }
    let module = module_file("(module (func (export \"_start\")))");
    let run = |options: &[&str]| {
        let options = options.iter().map(OsString::from);
        run([OsString::from("run")].into_iter().chain(options).chain([module.path().into()]))
    };
    run(&["--dir", "/nowhere"]).complains(125, "cannot open the directory /nowhere: No such file");
    let file = module.path().to_str().unwrap();
    run(&["--dir", file]).complains(125, &format!("cannot open the directory {file}: Not a directory"));
    run(&["--ramdisk", "/nowhere.tar"]).complains(125, "cannot read the ramdisk /nowhere.tar: No such file");
    run(&["--ramdisk", file]).complains(126, "its ramdisk: ");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    run(&["--tcplisten", &address]).complains(125, &format!("cannot listen at {address}"));
    run(&["--dir", "/tmp::/d", "--dir-ro", "/::/d"]).complains(2, "two directories as \"/d\"");
    for wrong in [&["--dir", ""][..], &["--dir", "::x"], &["--dir-ro", "x::"], &["--tcplisten", "80"]] {
        assert_eq!(run(wrong).status, Some(2), "{wrong:?}");
    }
}

/// Input is not lost between a directory's services and standard input's.
#[test]
fn standard_input_and_files_mix() {
    if !kvm::usable() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("f"), "file").unwrap();
    let both = format!(
        "{OPEN} (if (call $read (i32.const 0) (i32.const 5)) (then unreachable)) (call $print)
         (if (call $read (local.get $fd) (i32.const 9)) (then unreachable)) (call $print)
         (if (call $read (i32.const 0) (i32.const 9)) (then unreachable)) (call $print)"
    );
    let module = module_file(program("f", "", &both));
    run_with_input(&mut command(&[], directory.path(), module.path()), b"12345678").expect_output("12345file678");
}
