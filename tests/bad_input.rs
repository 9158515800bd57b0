//! Modules, files and command lines that are wrong: each ends soon, with its status and one line that says why.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod wrong {
    mod extremes;
    mod hosts;
}
mod support {
    pub(crate) mod command;
    pub(crate) mod engine;
    pub(crate) mod kvm;
    pub(crate) mod wasm;
}

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt, path::Path};

use support::{
    command::{payload, run, run_module},
    engine::{self, Engine, by_engine},
    kvm,
    wasm::{self, body, code, exports, function_type, functions, module, section, sized, start, types},
};

const REJECTED: i32 = 126;
const TRAP: i32 = 134;

#[test]
fn what_is_no_module_is_refused() {
    if !kvm::usable() {
        return;
    }
    let cases: [(&[u8], &str); 9] = [
        (b"", "is empty"),
        (b"hello", "is not a WebAssembly module: it begins with \"hello\""),
        (b"\x7fELF\x02\x01\x01\0\0\0", "it begins with \"\\x7fELF"),
        (b"\xff\xfe\xfd", "is not a WebAssembly module"),
        (b"\0asm", "the module is not valid"),
        (b"\0asm\x02\0\0\0", "unknown binary version"),
        (b"\0asm\x0d\0\x01\0", "is a WebAssembly component; only core modules can be run"),
        (b"(module", "is not valid WebAssembly text: expected `)` (at 1:8)"),
        (b"(module\n  (func (call $x)))", "unknown func: failed to find name `$x` (at 2:15)"),
    ];
    for (bytes, message) in cases {
        run_module(&[], bytes).complains(REJECTED, message);
    }
}

#[test]
fn files_that_cannot_be_read_are_named() {
    if !kvm::usable() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    run([OsStr::new("run"), directory.path().as_os_str()]).complains(REJECTED, "is a directory");
    run(["run", "/nowhere/at-all.wasm"]).complains(REJECTED, "cannot read /nowhere/at-all.wasm: No such file");
    run(["run", "/dev/null"]).complains(REJECTED, "/dev/null is empty");
    // Names of files are not trusted to be one line, or UTF-8.
    run(["run", "/nowhere/a\nb\x1b[31m.wasm"]).complains(REJECTED, "No such file");
    run([OsStr::new("run"), OsStr::from_bytes(b"/nowhere/\xff.wasm")]).complains(REJECTED, "No such file");
    let odd = directory.path().join("odd\nname.wasm");
    fs::write(&odd, "(module)").unwrap();
    run([OsStr::new("run"), odd.as_os_str()]).complains(REJECTED, "it exports no function `_start`");
}

#[test]
fn a_module_cut_anywhere_is_refused_unless_it_is_valid() {
    if !kvm::usable() {
        return;
    }
    let whole = wat::parse_file(payload("hello.wat")).unwrap();
    for length in 0..whole.len() {
        let cut = &whole[..length];
        let outcome = run_module(&["--timeout", "20s"], cut);
        // Cut between sections it is still valid, and runs if only its data or names are missing.
        if outcome.status == Some(0) {
            assert!(wasmparser::validate(cut).is_ok(), "{length} bytes ran");
            assert!(matches!(outcome.text(), "" | "Hello from a micro VM!\n") && outcome.stderr.is_empty(), "{outcome:?}");
        } else {
            outcome.expect(REJECTED).complaint();
        }
    }
}

#[test]
fn what_the_specification_forbids_is_refused() {
    if !kvm::usable() {
        return;
    }
    let nothing = || types(&[function_type(&[], &[])]);
    let cases: [(&str, Vec<u8>, &str); 17] = [
        ("type mismatch", start(&[], &[0x41, 0x00]), "values remaining on stack"),
        ("missing operand", start(&[], &[0x6a, 0x1a]), "type mismatch"),
        ("unknown local", start(&[], &[0x20, 0x05, 0x1a]), "unknown local"),
        ("unknown global", start(&[], &[0x23, 0x00, 0x1a]), "unknown global"),
        ("unknown function", start(&[], &[0x10, 0x09]), "unknown function"),
        ("unknown label", start(&[], &[0x0c, 0x09]), "unknown label"),
        ("load without memory", start(&[], &[0x41, 0x00, 0x28, 0x02, 0x00, 0x1a]), "unknown memory"),
        ("illegal opcode", start(&[], &[0xff]), "illegal opcode"),
        ("too many locals", start(&[(u64::from(u32::MAX), wasm::I32)], &[]), "too many locals"),
        ("section order", module(&[nothing(), exports(&[]), functions(&[])]), "out of order"),
        ("section twice", module(&[nothing(), nothing()]), "out of order"),
        ("unknown section", module(&[section(99, &[])]), "section"),
        ("unknown type", module(&[nothing(), functions(&[7]), code(&[body(&[], &[])])]), "unknown type"),
        (
            "function without code",
            module(&[nothing(), functions(&[0])]),
            by_engine("inconsistent lengths", "code section is absent"),
        ),
        (
            "same export twice",
            module(&[nothing(), functions(&[0]), exports(&[("_start", 0), ("_start", 0)]), code(&[body(&[], &[])])]),
            "duplicate export",
        ),
        ("number too long", module(&[[vec![1], vec![0xff; 9]].concat()]), "invalid"),
        ("name not UTF-8", module(&[section(7, &[&[1][..], &sized(b"\xff\xfe"), &[0, 0]].concat())]), "UTF-8"),
    ];
    for (name, bytes, message) in cases {
        let outcome = run_module(&[], &bytes);
        assert_eq!(outcome.status, Some(REJECTED), "{name}: {outcome:?}");
        assert!(outcome.complaint().contains(message), "{name}: {outcome:?}");
        outcome.complains(REJECTED, "the module is not valid: ");
    }
}

#[test]
fn proposals_that_the_engine_lacks_are_named() {
    if !kvm::usable() {
        return;
    }
    let lacking_in_both =
        [(r#"(memory 1 1 shared)"#, "threads"), (r#"(memory 1) (func (drop (i32.atomic.load (i32.const 0))))"#, "threads")];
    let lacking_in_the_interpreter = [
        (r#"(type (struct (field i32)))"#, "gc"),
        (r#"(type (array i8))"#, "gc"),
        (r#"(tag)"#, "exceptions"),
        (r#"(func (try_table))"#, "exceptions"),
        (r#"(type $f (func)) (func (param (ref $f)) (call_ref $f (local.get 0)))"#, "function references"),
    ];
    let run = |fields: &str| run_module(&[], format!(r#"(module {fields} (func (export "_start")))"#));
    for (fields, proposal) in lacking_in_both {
        run(fields).complains(REJECTED, "the module is not valid").complains(REJECTED, proposal);
    }
    for (fields, proposal) in lacking_in_the_interpreter {
        match engine::under_test() {
            Engine::Interp => drop(run(fields).complains(REJECTED, "the module is not valid").complains(REJECTED, proposal)),
            Engine::Aot => run(fields).expect_output(""),
        }
    }
}

#[test]
fn imports_that_are_not_there_are_all_named() {
    if !kvm::usable() {
        return;
    }
    let many: String = (0..50).map(|index| format!(r#"(import "env" "f{index}" (func))"#)).collect();
    let rejected = |fields: &str| run_module(&[], format!(r#"(module {fields} (func (export "_start")))"#));
    let outcome = rejected(
        r#"(import "env" "m" (memory 1)) (import "a" "t" (table 1 funcref)) (import "b" "g" (global i32)) (import "c" "f" (func))"#,
    );
    let outcome = outcome.complains(REJECTED, "memory env::m").complains(REJECTED, "table a::t");
    outcome.complains(REJECTED, "global b::g").complains(REJECTED, "function c::f");
    rejected(&many).complains(REJECTED, "env::f0, ").complains(REJECTED, " more");
    rejected(r#"(import "wasi_snapshot_preview1" "sched_yield" (func (param i32)))"#)
        .complains(REJECTED, "wasi_snapshot_preview1::sched_yield with another type");
    rejected(r#"(import "wasi_snapshot_preview1" "fd_write" (memory 1))"#).complains(REJECTED, "fd_write");
    rejected(r#"(import "wasi_unstable" "fd_write" (func))"#).complains(REJECTED, "wasi_unstable::fd_write");
    // `complains` refuses control characters.
    rejected(r#"(import "e\1b[31mvil" "two\nlines\r\00\7f\c2\9b" (func))"#).complains(REJECTED, "[31mvil");
    rejected(&format!(r#"(import "long" "{}" (func))"#, "n".repeat(90_000))).complains(REJECTED, "long::nnn");
}

#[test]
fn entries_that_cannot_be_called_are_refused() {
    if !kvm::usable() {
        return;
    }
    let rejected = |options: &[&str], fields: &str, message: &str| {
        run_module(options, format!("(module {fields})")).complains(REJECTED, message);
    };
    rejected(&[], "", "it exports no function `_start`; name the function to call with --invoke");
    rejected(&[], r#"(func (export "_start") (param i32))"#, "its `_start` takes arguments or returns values");
    rejected(&[], r#"(func (export "_start") (result i32) (i32.const 1))"#, "its `_start` takes arguments or returns values");
    rejected(&[], r#"(memory (export "_start") 1)"#, "it exports no function `_start`");
    rejected(&["--invoke", "evil\x1b[31m\nname"], "", "it exports no function `evil");
}

/// What happens before `_start` can trap too. It is a trap, with nothing of the engine's insides in its message.
#[test]
fn initialisation_can_trap() {
    if !kvm::usable() {
        return;
    }
    let cases = [
        (r#"(func $t unreachable) (start $t)"#, "unreachable"),
        (r#"(memory 1) (data (i32.const 0x7ffffff0) "abc")"#, "out of bounds memory access"),
        (r#"(memory 1) (data (i32.const 65534) "abc")"#, "out of bounds memory access"),
        (r#"(memory 0) (data (i32.const 1) "")"#, "out of bounds memory access"),
        (r#"(table 1 funcref) (func $f) (elem (i32.const 1) $f)"#, "out of bounds table access"),
        (r#"(table 1 funcref) (func $f) (elem (i32.const -1) $f)"#, "out of bounds table access"),
    ];
    for (fields, message) in cases {
        let outcome = run_module(&[], format!(r#"(module {fields} (func (export "_start")))"#));
        outcome.complains(TRAP, &format!("wasm trap: {message}"));
    }
}

#[test]
fn a_denied_growth_does_not_hide_the_end_of_a_start_function() {
    if !kvm::usable() {
        return;
    }
    let exits = r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32))) (memory (export "memory") 1)
        (func $t (drop (memory.grow (i32.const 60000))) (call $exit (i32.const 7))) (start $t) (func (export "_start")))"#;
    run_module(&[], exits).expect(7);
    let traps =
        r#"(module (memory 1) (func $t (drop (memory.grow (i32.const 60000))) unreachable) (start $t) (func (export "_start")))"#;
    run_module(&[], traps).complains(TRAP, "unreachable");
}

#[test]
fn many_memories_are_counted_as_they_take_ram() {
    if !kvm::usable() {
        return;
    }
    // 20 memories of 33 pages are 41 MiB, but use 80 MiB when the ends of each are touched.
    let memories = "(memory 0)".repeat(20);
    let touch: String = (0..20)
        .map(|index| {
            format!(
                "(if (i32.ne (memory.grow {index} (i32.const 33)) (i32.const -1)) (then
                    (i32.store8 {index} (i32.const 0) (i32.const 1)) (i32.store8 {index} (i32.const 2162687) (i32.const 1))))"
            )
        })
        .collect();
    run_module(&["--memory", "64MiB"], format!(r#"(module {memories} (func (export "_start") {touch}))"#)).expect(0);
}

#[test]
fn a_poll_for_more_than_ram_holds_is_an_errno() {
    if !kvm::usable() {
        return;
    }
    let module = r#"(module (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32))) (memory (export "memory") 640)
        (func (export "_start") (call $exit (call $poll (i32.const 0) (i32.const 0) (i32.const 870000) (i32.const 41900000)))))"#;
    const NOMEM: i32 = 48;
    run_module(&["--memory", "64MiB"], module).expect(NOMEM);
}

#[test]
fn every_trap_has_the_name_of_the_specification() {
    if !kvm::usable() {
        return;
    }
    let context = r#"(memory 1) (data $d "abc") (table $t 2 funcref) (elem $e func $f) (elem declare func $f) (type $nothing (func))
        (func $f (param i32)) (func $deep (call $deep)) (func $deeper (param i64 i64 i64 i64) (local i64 i64 i64 i64)
        (call $deeper (local.get 0) (local.get 1) (local.get 2) (local.get 3)))"#;
    let cases = [
        ("unreachable", "unreachable"),
        ("(drop (i32.load (i32.const 65533)))", "out of bounds memory access"),
        ("(drop (i64.load offset=0xffffffff (i32.const -1)))", "out of bounds memory access"),
        ("(i32.store8 (i32.const 65536) (i32.const 0))", "out of bounds memory access"),
        ("(memory.fill (i32.const 65535) (i32.const 0) (i32.const 2))", "out of bounds memory access"),
        ("(memory.copy (i32.const 0) (i32.const 65535) (i32.const 2))", "out of bounds memory access"),
        ("(memory.copy (i32.const 0) (i32.const 0) (i32.const -1))", "out of bounds memory access"),
        ("(memory.init $d (i32.const 0) (i32.const 2) (i32.const 2))", "out of bounds memory access"),
        ("(drop (table.get $t (i32.const 2)))", "out of bounds table access"),
        ("(table.set $t (i32.const -1) (ref.null func))", "out of bounds table access"),
        ("(table.fill $t (i32.const 1) (ref.null func) (i32.const 2))", "out of bounds table access"),
        ("(table.init $t $e (i32.const 2) (i32.const 0) (i32.const 1))", "out of bounds table access"),
        ("(table.copy (i32.const 0) (i32.const 1) (i32.const 2))", "out of bounds table access"),
        ("(call_indirect $t (type $nothing) (i32.const 0))", "uninitialized element"),
        (
            "(table.set $t (i32.const 0) (ref.func $f)) (call_indirect $t (type $nothing) (i32.const 0))",
            "indirect call type mismatch",
        ),
        ("(drop (i32.div_s (i32.const 1) (i32.const 0)))", "integer divide by zero"),
        ("(drop (i64.rem_u (i64.const 1) (i64.const 0)))", "integer divide by zero"),
        ("(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))", "integer overflow"),
        ("(drop (i32.trunc_f64_s (f64.const 1e30)))", "integer overflow"),
        ("(drop (i64.trunc_f32_u (f32.const -1)))", "integer overflow"),
        ("(drop (i32.trunc_f64_s (f64.const nan)))", "invalid conversion to integer"),
        ("(call $deep)", "call stack exhausted"),
        ("(call $deeper (i64.const 0) (i64.const 0) (i64.const 0) (i64.const 0))", "call stack exhausted"),
    ];
    for (instructions, name) in cases {
        let outcome = run_module(&[], format!(r#"(module {context} (func (export "_start") {instructions}))"#));
        outcome.complains(TRAP, &format!("wasm trap: {name}, in a call of `_start`"));
    }
    // `i32::MIN % -1` is 0.
    run_module(&[], r#"(module (func (export "_start") (drop (i32.rem_s (i32.const 0x80000000) (i32.const -1)))))"#).expect(0);
}

#[test]
fn calling_wasi_without_a_memory_is_explained() {
    if !kvm::usable() {
        return;
    }
    let module = r#"(module (import "wasi_snapshot_preview1" "sched_yield" (func $y (result i32))) (func (export "_start") (drop (call $y))))"#;
    run_module(&[], module).complains(TRAP, "a module that calls WASI must export its memory as `memory`");
}

#[test]
fn inspecting_what_is_wrong_fails_as_running_does() {
    let missing = run([Path::new("inspect"), Path::new("/nowhere.wasm")]).complains(REJECTED, "No such file");
    assert_eq!(missing.text(), "");
    let file = support::command::module_file(b"no module");
    run([Path::new("inspect"), file.path()]).complains(REJECTED, "is not a WebAssembly module");
}
