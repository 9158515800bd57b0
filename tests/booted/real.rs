//! Real programs, and files in memory: what comes of them is what comes of them under the VMM.

use std::{fs, path::PathBuf};

use crate::support::{
    command::{self, Outcome, module_file},
    kvm,
    programs::{all_there, programs},
    qemu,
};

/// A file of `target/programs/`; `None`, with the reason on standard error, if there is none, or no QEMU.
fn fetched(name: &str) -> Option<PathBuf> {
    let module = programs().join(name);
    (all_there(name, &[&module]) && qemu::usable() && kvm::usable()).then_some(module)
}

/// Both ways; they have to be the same.
#[track_caller]
fn same(options: &[&str], name: &str, arguments: &[&str]) -> Option<Outcome> {
    let module = fetched(name)?;
    let [expected, outcome] = ["run", "qemu"].map(|subcommand| {
        let line = match subcommand {
            // Everything behind the module is the program's.
            "run" => [&["run"], options, &[module.to_str().unwrap()], arguments].concat().iter().map(Into::into).collect(),
            _ => qemu::line("qemu", options, &module, arguments),
        };
        command::run(line)
    });
    assert_eq!(outcome.status, expected.status, "{outcome:?}");
    // The console has both streams.
    assert_eq!(outcome.text(), [expected.text(), &expected.stderr].concat(), "{outcome:?}");
    Some(outcome)
}

#[test]
fn a_c_program() {
    if let Some(outcome) = same(&[], "c-hello.wasm", &["one", "two"]) {
        assert!(outcome.status == Some(0) && !outcome.stdout.is_empty(), "{outcome:?}");
    }
}

#[test]
fn quickjs_ends_with_each_status() {
    let square = "console.log([1,2,3].map(x=>x*x).join(), 2n**100n)";
    if let Some(outcome) = same(&[], "quickjs.wasm", &["-e", square]) {
        outcome.expect_output("1,4,9 1267650600228229401496703205376\n");
    }
    for status in ["0", "1", "127", "134", "137", "255"] {
        let script = format!("import('qjs:std').then(std => std.exit({status}))");
        if let Some(outcome) = same(&[], "quickjs.wasm", &["-e", &script]) {
            assert_eq!(outcome.status, status.parse().ok());
        }
    }
    if let Some(outcome) = same(&[], "quickjs.wasm", &["-e", "throw new Error('told')"]) {
        assert!(outcome.status == Some(1) && outcome.text().contains("Error: told"), "{outcome:?}");
    }
}

#[test]
fn compiled_cpython() {
    if cfg!(feature = "compiled")
        && let Some(module) = fetched("cpython.wasm")
    {
        let script = ["-c", "print(sum(range(10**6)), 'ä€')"];
        command::run(qemu::line("qemu", &["--engine", "aot"], &module, &script)).expect_output("499999500000 ä€\n");
    }
}

/// Writes a file, reads it and one of the archive, and prints both.
const FILES: &str = r#"(module
    (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_seek" (func $seek (param i32 i64 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 1024) "new.txt")
    (data (i32.const 1040) "given.txt")
    (data (i32.const 2048) "written in memory\n")
    (func $check (param i32) (if (local.get 0) (then (unreachable))))
    (func $print (param $fd i32)
        (i32.store (i32.const 0) (i32.const 4096))
        (i32.store (i32.const 4) (i32.const 1000))
        (call $check (call $read (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 4)))
        (call $check (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
    (func (export "_start")
        (call $check (call $open (i32.const 3) (i32.const 0) (i32.const 1024) (i32.const 7) (i32.const 1) (i64.const 70)
            (i64.const 0) (i32.const 0) (i32.const 16)))
        (i32.store (i32.const 0) (i32.const 2048))
        (i32.store (i32.const 4) (i32.const 18))
        (call $check (call $write (i32.load (i32.const 16)) (i32.const 0) (i32.const 1) (i32.const 8)))
        (call $check (call $seek (i32.load (i32.const 16)) (i64.const 0) (i32.const 0) (i32.const 24)))
        (call $print (i32.load (i32.const 16)))
        (call $check (call $open (i32.const 3) (i32.const 0) (i32.const 1040) (i32.const 9) (i32.const 0) (i64.const 2)
            (i64.const 0) (i32.const 0) (i32.const 16)))
        (call $print (i32.load (i32.const 16)))))"#;

#[test]
fn a_ramdisk_is_read_and_written() {
    if !qemu::usable() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (given, archive) = (directory.path().join("given.txt"), directory.path().join("root.tar"));
    fs::write(&given, "from the archive\n").unwrap();
    let mut builder = tar::Builder::new(fs::File::create(&archive).unwrap());
    builder.append_path_with_name(&given, "given.txt").unwrap();
    builder.finish().unwrap();
    let before = fs::read(&archive).unwrap();
    let module = module_file(FILES);
    let options = ["--ramdisk", archive.to_str().unwrap(), "--memory", "64MiB"];
    command::run(qemu::line("qemu", &options, module.path(), &[])).expect_output("written in memory\nfrom the archive\n");
    assert!(fs::read(&archive).unwrap() == before, "the archive was written to");
}

/// Counted, not timed: QEMU lets time go on by one for each instruction.
#[test]
fn little_is_executed_before_the_kernel() {
    if !qemu::usable() {
        return;
    }
    let instructions = |memory: &str| {
        let counting = ["--qemu-arg=-icount", "--qemu-arg=shift=0,sleep=off", "--stats=json", "--memory", memory];
        let stats = qemu::run_payload(&counting, "hello-c.wasm", &[]).expect(0).stats();
        let phase = |name: &str| stats["phases_ticks"][name].as_u64().unwrap();
        ["long_mode", "load", "tables", "enter_kernel"].map(phase).iter().sum::<u64>()
    };
    let (small, large) = (instructions("64MiB"), instructions("6GiB"));
    // Somewhat more than an empty stub takes, so that it is known that something was counted.
    assert!((10_000..=300_000).contains(&small), "{small} instructions with 64 MiB");
    assert!(large <= 2 * small, "{large} instructions with 6 GiB, {small} with 64 MiB");
}
