//! Snapshot files: looked at, damaged, of another kernel.

use std::{fs, io::Write as _, os::unix::fs::FileExt};

use mote_abi::note;

use crate::{
    COUNTER, Folder, run_snapshot,
    support::{
        command::{Outcome, finish, mote, payload, run, run_with_input},
        engine::{self, Engine, by_engine},
        image::Image,
    },
};

fn verify(file: &str) -> Outcome {
    run(["snapshot", "verify", file])
}

#[test]
fn verification_shows_what_is_in_it() {
    let Some(folder) = Folder::new() else { return };
    let directory = format!("{}::/d", folder.0.path().display());
    let file = folder.take("a.snap", &["--memory", "64MiB", "--dir-ro", &directory], COUNTER, &[]);
    let outcome = verify(&file).expect(0);
    let lines: Vec<_> = outcome.text().lines().collect();
    assert!(lines[0].starts_with("kernel: ") && lines[0].ends_with(", the built-in one"), "{lines:?}");
    for line in [
        "RAM: 64.0 MiB",
        "at standard input: no: mote run --invoke FUNCTION FILE",
        "functions: 7",
        "  add (i32) -> (i32)",
        "  swap (i64, f64) -> (f64, i64)",
        "host functions that it needs: none",
        "directories that it needs: 1",
        "  /d",
        "the snapshot is whole",
    ] {
        assert!(lines.contains(&line), "{line}: {lines:?}");
    }
    let file = folder.take_payload("b.snap", &["--at-stdin"], "cat.wat");
    assert!(verify(&file).expect(0).text().contains("at standard input: yes: mote run FILE\n"));
    // A snapshot of this name is none of the subcommand.
    fs::write(folder.path("verify"), "").unwrap();
    verify(&folder.text("verify")).complains(126, "is no snapshot");
    verify("/nowhere.snap").complains(126, "/nowhere.snap");
    verify(payload("hello.wat").to_str().unwrap()).complains(126, "is no snapshot");
}

#[test]
fn a_damaged_file_is_found_out() {
    let Some(folder) = Folder::new() else { return };
    let file = folder.take("a.snap", &[], COUNTER, &[]);
    let whole = fs::read(&file).unwrap();
    let call = ["--invoke", "get"];
    let damaged = |bytes: &[u8], about: &str| {
        fs::write(&file, bytes).unwrap();
        verify(&file).complains(126, about);
        run_snapshot(&[&["--verify"], &call[..]].concat(), &file, &[]).complains(126, about);
        run([&["bench", "--verify", "--count", "1"], &call[..], &[&file]].concat()).complains(126, about);
    };
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    damaged(&flipped(whole.len() - 1), "data from byte");
    // What is checked in any case.
    for (bytes, about) in [
        (flipped(20), "its header"),
        (flipped(130), "its metadata"),
        (whole[..100].to_vec(), "it ends in its header"),
        (whole[..whole.len() - 1].to_vec(), "another size than it says"),
        (whole[..9].to_vec(), "it ends in its header"),
    ] {
        damaged(&bytes, about);
        run_snapshot(&call, &file, &[]).complains(126, about);
    }
    let mut version = whole.clone();
    version[8] = 77;
    damaged(&version, "format version 77");
    fs::write(&file, &whole).unwrap();
    run_snapshot(&[&["--verify"], &call[..]].concat(), &file, &[]).expect_output("0\n");
}

#[test]
fn it_only_goes_on_with_its_kernel() {
    let Some(folder) = Folder::new() else { return };
    let file = folder.take("a.snap", &[], COUNTER, &[]);
    let other = folder.text("kernel");
    let of_engine = by_engine(note::engine::INTERPRETER, note::engine::COMPILED);
    fs::write(&other, Image { engine: of_engine, ..Image::new(&[0xf4]) }.build()).unwrap();
    run_snapshot(&["--invoke", "get", "--kernel", &other], &file, &[]).complains(126, "another kernel image");
    run_snapshot(&["--invoke", "get", "--kernel", "/nowhere"], &file, &[]).complains(125, "/nowhere");
}

#[test]
fn a_snapshot_is_no_module_and_must_be_a_file() {
    let Some(folder) = Folder::new() else { return };
    let file = folder.take("a.snap", &[], COUNTER, &[]);
    let bytes = fs::read(&file).unwrap();
    for arguments in [&["run", "--invoke", "get", "-"][..], &["bench", "--invoke", "get", "-"]] {
        run_with_input(&mut mote(arguments), &bytes).complains(126, "only as a regular file");
    }
    run(["snapshot", "-o", &folder.text("b.snap"), &file]).complains(126, "is a snapshot and no module");
    let outcome = run(["inspect", &file]).expect(126);
    assert!(outcome.stderr.contains("is a snapshot and no module"), "{outcome:?}");
    assert!(!folder.path("b.snap").exists());
}

/// RAM of a running snapshot is that of its file: cut short, it is a failure that is told, and no crash.
#[test]
fn a_file_that_is_cut_short_in_use_is_an_error() {
    let Some(folder) = Folder::new() else { return };
    // Reads all of a memory that the snapshot has filled, when it is told to go on.
    let reader = r#"(module
      (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 256)
      (func (export "_start") (local $at i32) (local $sum i32)
        (memory.fill (i32.const 65536) (i32.const 7) (i32.const 16711680))
        (i32.store (i32.const 0) (i32.const 16)) (i32.store (i32.const 4) (i32.const 1))
        (loop $again
          (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
          (br_if $again (i32.eq (i32.load8_u (i32.const 16)) (i32.const 97))))
        (local.set $at (i32.const 65536))
        (loop $sum
          (local.set $sum (i32.add (local.get $sum) (i32.load8_u (local.get $at))))
          (br_if $sum (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 4096))) (i32.const 16777216))))
        (if (i32.ne (local.get $sum) (i32.const 28560)) (then unreachable))))"#;
    let file = folder.take("a.snap", &["--at-stdin"], reader, &[]);
    let mut whole = mote(["run", &file]);
    run_with_input(&mut whole, b"aaz").expect_output("");
    let mut child = mote(["run", &file]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    // It has been read when the pipe is empty: the guest runs.
    input.write_all(b"a").unwrap();
    while rustix::io::ioctl_fionread(&input).unwrap() > 0 {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let cut = fs::File::options().write(true).open(&file).unwrap();
    cut.set_len(4096).unwrap();
    // For whoever caches the end of the file.
    cut.write_all_at(b"x", 0).unwrap();
    let written = input.write_all(b"z");
    // Compiled code lies in the file, too, so the end may have come already.
    assert!(written.is_ok() || engine::under_test() == Engine::Aot);
    drop(input);
    finish(child).complains(125, "memory of the guest is not there any more");
}
