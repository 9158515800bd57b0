//! The stack: its end is a trap wherever it is met, and what the kernel does near its end has room.

use std::fmt::Write;

use mote_vmm::{Caller, Sandbox, TrapKind, Value};

use super::guests::{builder, traps};
use crate::support::kvm;

/// More stack than there is: all that modules can have.
fn with_most_stack(text: &str) -> mote_vmm::SandboxBuilder {
    builder(text).stack(1 << 40, u64::MAX)
}

#[test]
fn recursion_of_every_kind_ends_in_a_trap() {
    if !kvm::usable() {
        return;
    }
    let locals = "i64 ".repeat(3000);
    let vectors = "v128 ".repeat(1000);
    let sets: String = (1..1001).fold(String::new(), |mut text, index| {
        write!(text, "(local.set {index} (i32x4.splat (local.get 0)))").unwrap();
        text
    });
    let adds: String = (1..1001).fold(String::new(), |mut text, index| {
        write!(text, "(local.set 1 (i32x4.add (local.get 1) (local.get {index})))").unwrap();
        text
    });
    let parameters = "i64 ".repeat(500);
    let gets: String = (0..500).map(|index| format!("(local.get {index})")).collect();
    let zeros = "(i64.const 0)".repeat(500);
    let text = format!(
        r#"(module (type $v (func)) (table 4 funcref) (elem (i32.const 0) func $self $indirect $ping) (memory 1)
            (func $self (export "self") (call $self))
            (func $ping (export "ping") (call $pong)) (func $pong (call $ping))
            (func $indirect (export "indirect") (call_indirect (type $v) (i32.const 1)))
            (func $ref (export "ref") (call_ref $v (ref.func $ref)))
            (func $locals (export "locals") (local {locals}) (call $locals))
            (func $vectors (export "vectors") (param i32) (local {vectors}) {sets} (call $vectors (i32.add (local.get 0) (i32.const 1))) {adds}
                (v128.store (i32.const 0) (local.get 1)))
            (func $many (param {parameters}) (call $many {gets}))
            (func $parameters (export "parameters") (call $many {zeros}))
            (func $grow (export "grow") (drop (memory.grow (i32.const 0))) (call $grow) (drop (memory.grow (i32.const 0))))
            (elem declare func $ref))"#
    );
    for builder in [builder(&text), with_most_stack(&text), builder(&text).stack(1, 1), builder(&text).stack(64 << 10, 100)] {
        let mut sandbox = builder.build().unwrap();
        for _ in 0..2 {
            for name in ["self", "indirect", "ref", "locals", "grow"] {
                let trap = traps(&mut sandbox, name, &[], TrapKind::StackOverflow);
                assert!(trap.backtrace.len() >= 10, "{name}: {trap}");
            }
            traps(&mut sandbox, "vectors", &[Value::I32(1)], TrapKind::StackOverflow);
            for name in ["ping", "parameters"] {
                let error = sandbox.call::<_, ()>(name, ()).unwrap_err();
                assert_eq!(error.trap().unwrap_or_else(|| panic!("{name}: {error:?}")).kind, TrapKind::StackOverflow);
                sandbox.clear_poison().unwrap();
            }
        }
    }
}

/// Functions that take a number for how deep to go, and then do something.
fn deep(name: &str, frame: &str, action: &str) -> String {
    format!(
        r#"(func $"{name}" (export "{name}") (param $depth i32) {frame}
            (if (local.get $depth)
                (then (call $"{name}" (i32.sub (local.get $depth) (i32.const 1))))
                (else {action})))"#
    )
}

/// How deep a function can go: it does what it does at that depth, and overflows one deeper.
fn deepest(sandbox: &mut Sandbox, name: &str) -> i32 {
    let (mut good, mut bad) = (0, 1 << 20);
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        match sandbox.call::<_, ()>(name, middle) {
            Ok(()) => good = middle,
            Err(error) => {
                assert_eq!(
                    error.trap().unwrap_or_else(|| panic!("{name} {middle}: {error:?}")).kind,
                    TrapKind::StackOverflow,
                    "{name} {middle}"
                );
                sandbox.clear_poison().unwrap();
                bad = middle;
            }
        }
    }
    good
}

/// Every function of WASI with few or many, small or huge, good or bad arguments, called where modules have no stack left: the
/// kernel has what it needs, and answers as it does elsewhere.
#[test]
fn wasi_works_at_the_end_of_the_stack() {
    if !kvm::usable() {
        return;
    }
    // Name, parameters, arguments. Vectors of 1,024 buffers of 16 KiB lie from 1024 on, subscriptions from 32768 on.
    let calls: [(&str, &str, &str); 46] = [
        ("args_get", "i32 i32", "512 700"),
        ("args_sizes_get", "i32 i32", "0 4"),
        ("environ_get", "i32 i32", "512 700"),
        ("environ_sizes_get", "i32 i32", "0 4"),
        ("clock_res_get", "i32 i32", "0 0"),
        ("clock_time_get", "i32 i64 i32", "1 0 0"),
        ("fd_advise", "i32 i64 i64 i32", "1 0 0 0"),
        ("fd_allocate", "i32 i64 i64", "1 0 0"),
        ("fd_close", "i32", "77"),
        ("fd_datasync", "i32", "1"),
        ("fd_fdstat_get", "i32 i32", "1 0"),
        ("fd_fdstat_set_flags", "i32 i32", "1 0"),
        ("fd_fdstat_set_rights", "i32 i64 i64", "1 0 0"),
        ("fd_filestat_get", "i32 i32", "1 0"),
        ("fd_filestat_set_size", "i32 i64", "1 0"),
        ("fd_filestat_set_times", "i32 i64 i64 i32", "1 0 0 0"),
        ("fd_pread", "i32 i32 i32 i64 i32", "3 1024 1024 0 0"),
        ("fd_prestat_get", "i32 i32", "3 0"),
        ("fd_prestat_dir_name", "i32 i32 i32", "3 512 100"),
        ("fd_pwrite", "i32 i32 i32 i64 i32", "3 1024 1024 0 0"),
        ("fd_read", "i32 i32 i32 i32", "0 1024 1024 0"),
        ("fd_readdir", "i32 i32 i32 i64 i32", "3 65536 65536 0 0"),
        ("fd_renumber", "i32 i32", "77 78"),
        ("fd_seek", "i32 i64 i32 i32", "1 0 0 0"),
        ("fd_sync", "i32", "1"),
        ("fd_tell", "i32 i32", "1 0"),
        ("fd_write", "i32 i32 i32 i32", "1 1024 1024 0"),
        ("fd_write", "i32 i32 i32 i32", "2 1024 1024 0"),
        ("fd_write", "i32 i32 i32 i32", "1 -8 1024 0"),
        ("path_create_directory", "i32 i32 i32", "3 131072 4000"),
        ("path_filestat_get", "i32 i32 i32 i32 i32", "3 1 131072 4000 0"),
        ("path_filestat_set_times", "i32 i32 i32 i32 i64 i64 i32", "3 1 131072 4000 0 0 0"),
        ("path_link", "i32 i32 i32 i32 i32 i32 i32", "3 0 131072 4000 3 131072 4000"),
        ("path_open", "i32 i32 i32 i32 i32 i64 i64 i32 i32", "3 1 131072 4000 1 -1 -1 0 0"),
        ("path_open", "i32 i32 i32 i32 i32 i64 i64 i32 i32", "3 1 131072 65536 1 -1 -1 0 0"),
        ("path_readlink", "i32 i32 i32 i32 i32 i32", "3 131072 4000 65536 65536 0"),
        ("path_remove_directory", "i32 i32 i32", "3 131072 4000"),
        ("path_rename", "i32 i32 i32 i32 i32 i32", "3 131072 4000 3 131072 4000"),
        ("path_symlink", "i32 i32 i32 i32 i32", "131072 4000 3 131072 4000"),
        ("path_unlink_file", "i32 i32 i32", "3 131072 4000"),
        ("poll_oneoff", "i32 i32 i32 i32", "32768 600 65536 0"),
        ("random_get", "i32 i32", "65536 1000000"),
        ("sched_yield", "", ""),
        ("sock_recv", "i32 i32 i32 i32 i32 i32", "0 1024 1024 0 0 4"),
        ("sock_send", "i32 i32 i32 i32 i32", "1 1024 1024 0 0"),
        ("sock_shutdown", "i32 i32", "1 0"),
    ];
    // Frames of other sizes end at other places before the end of the stack.
    let frames = ["", "(local i64)", "(local i64 i64 i64 i64 i64)"];
    let (mut imports, mut functions) = (String::new(), String::new());
    for (index, (name, parameters, arguments)) in calls.iter().enumerate() {
        let result = if *name == "proc_exit" { "" } else { "(result i32)" };
        write!(imports, r#"(import "wasi_snapshot_preview1" "{name}" (func $i{index} (param {parameters}) {result}))"#).unwrap();
        let values: String = parameters
            .split_whitespace()
            .zip(arguments.split_whitespace())
            .map(|(ty, value)| format!("({ty}.const {value})"))
            .collect();
        for (frame_index, frame) in frames.iter().enumerate() {
            let action = format!("(global.set $errno (call $i{index} {values}))");
            functions.push_str(&deep(&format!("{index} {frame_index}"), frame, &action));
        }
    }
    let text = format!(
        r#"(module {imports} (memory (export "memory") 32) (global $errno (export "errno") (mut i32) (i32.const -1)) {functions}
            (func (export "prepare") (local $i i32)
                (memory.fill (i32.const 131072) (i32.const 0x61) (i32.const 65536))
                (loop $next
                    (i32.store offset=1024 (i32.mul (local.get $i) (i32.const 8)) (i32.const 262144))
                    (i32.store offset=1028 (i32.mul (local.get $i) (i32.const 8)) (i32.const 16384))
                    (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 1024))))))"#
    );
    let directory = tempfile::tempdir().unwrap();
    let mut sandbox = with_most_stack(&text)
        .ram_bytes(128 << 20)
        .args(["a"; 50])
        .directory(mote_vmm::Directory::open(directory.path(), "/d", mote_vmm::Access::ReadWrite).unwrap())
        .build()
        .unwrap();
    sandbox.call::<_, ()>("prepare", ()).unwrap();
    for (index, (name, ..)) in calls.iter().enumerate() {
        for frame_index in 0..frames.len() {
            let function = format!("{index} {frame_index}");
            let flat = sandbox.call::<_, ()>(&function, 0);
            flat.unwrap_or_else(|error| panic!("{name}: {error:?}"));
            let flat = sandbox.global("errno").unwrap();
            sandbox.call::<_, ()>("prepare", ()).unwrap();
            let depth = deepest(&mut sandbox, &function);
            assert!(depth > 1000, "{name}: {depth}");
            sandbox.call::<_, ()>("prepare", ()).unwrap();
            sandbox.call::<_, ()>(&function, depth).unwrap();
            let at_the_end = sandbox.global("errno").unwrap();
            // What a call did to files can make the next one fail in another way.
            if !name.starts_with("path_") && !name.starts_with("fd_p") {
                assert_eq!(at_the_end, flat, "{name}");
            }
        }
    }
}

/// Functions of the host, and those of the engine that modules call as instructions.
#[test]
fn host_functions_and_the_engine_work_at_the_end_of_the_stack() {
    if !kvm::usable() {
        return;
    }
    let parameters = "i64 ".repeat(200);
    let values = "(i64.const 7)".repeat(200);
    let actions = [
        ("host", format!("(drop (call $many {values}))")),
        ("memory.grow", "(drop (memory.grow (i32.const 0)))".into()),
        ("memory.grow too far", "(drop (memory.grow (i32.const 60000)))".into()),
        ("memory.fill", "(memory.fill (i32.const 0) (i32.const 1) (i32.const 65536))".into()),
        ("memory.copy", "(memory.copy (i32.const 0) (i32.const 1) (i32.const 65535))".into()),
        ("memory.init", "(memory.init $d (i32.const 0) (i32.const 0) (i32.const 3))".into()),
        ("table.grow", "(drop (table.grow $t (ref.null func) (i32.const 1)))".into()),
        ("table.fill", "(table.fill $t (i32.const 0) (ref.func $f) (i32.const 3))".into()),
        ("table.init", "(table.init $t $e (i32.const 0) (i32.const 0) (i32.const 1))".into()),
        ("gc", "(loop $l (local.set $n (i32.add (local.get $n) (i32.const 1))) (global.set $g (array.new $a (i32.const 1) (i32.const 1000))) (br_if $l (i32.lt_u (local.get $n) (i32.const 300))))".into()),
        ("gc list", "(local.set $n (i32.const 0)) (global.set $head (ref.null $s)) (loop $l (local.set $n (i32.add (local.get $n) (i32.const 1))) (global.set $head (struct.new $s (global.get $head))) (br_if $l (i32.lt_u (local.get $n) (i32.const 10000))))".into()),
        ("trap", "(drop (i32.load (i32.const -1)))".into()),
        ("host error", "(call $fails)".into()),
    ];
    let functions: String = actions.iter().map(|(name, action)| deep(name, "(local $n i32)", action)).collect();
    let text = format!(
        r#"(module (type $a (array (mut i32))) (type $s (struct (field (ref null $s))))
            (import "env" "many" (func $many (param {parameters}) (result i64))) (import "env" "fails" (func $fails))
            (memory 1) (table $t 3 funcref) (data $d "abc") (elem $e func $f) (func $f)
            (global $g (mut (ref null $a)) (ref.null $a)) (global $head (mut (ref null $s)) (ref.null $s)) {functions})"#
    );
    let ty = mote_vmm::FuncType { params: vec![mote_vmm::ValueType::I64; 200], results: vec![mote_vmm::ValueType::I64] };
    let mut sandbox = with_most_stack(&text)
        .func_dynamic("env", "many", ty, |_: Caller<'_>, values: &[Value]| Ok::<_, std::io::Error>(vec![values[199]]))
        .func("env", "fails", |_: Caller<'_>| -> Result<(), std::io::Error> { Err(std::io::Error::other("no")) })
        .build()
        .unwrap();
    for (name, _) in &actions {
        if matches!(*name, "trap" | "host error") {
            continue;
        }
        let depth = deepest(&mut sandbox, name);
        assert!(depth > 500, "{name}: {depth}");
    }
    let depth = deepest(&mut sandbox, "memory.grow");
    for depth in depth.saturating_sub(200)..depth {
        let trap = traps(&mut sandbox, "trap", &[Value::I32(depth)], TrapKind::MemoryOutOfBounds);
        assert!(trap.backtrace.len() >= 10, "{trap}");
        let error = sandbox.call::<_, ()>("host error", depth).unwrap_err();
        assert_eq!(error.host_error::<std::io::Error>().unwrap().to_string(), "no");
        sandbox.clear_poison().unwrap();
    }
}
