//! All other traps: their kinds, their backtraces, and the state after them.

use std::sync::{Arc, Mutex};

use mote_vmm::{BuildError, CallError, Caller, Poison, Sandbox, SandboxState, TrapKind, Value};

use super::guests::{build, builder, engine, trap, traps};
use crate::support::kvm;

#[test]
fn each_trap_has_its_kind_and_its_place() {
    if !kvm::usable() {
        return;
    }
    let functions = [
        ("unreachable", "unreachable", TrapKind::Unreachable),
        ("div32", "(drop (i32.div_s (i32.const 1) (global.get $zero)))", TrapKind::IntegerDivideByZero),
        ("divu32", "(drop (i32.div_u (i32.const 1) (global.get $zero)))", TrapKind::IntegerDivideByZero),
        ("rem32", "(drop (i32.rem_s (i32.const 1) (global.get $zero)))", TrapKind::IntegerDivideByZero),
        ("remu32", "(drop (i32.rem_u (i32.const 1) (global.get $zero)))", TrapKind::IntegerDivideByZero),
        ("div64", "(drop (i64.div_s (i64.const 1) (global.get $long)))", TrapKind::IntegerDivideByZero),
        ("divu64", "(drop (i64.div_u (i64.const 1) (global.get $long)))", TrapKind::IntegerDivideByZero),
        ("rem64", "(drop (i64.rem_s (i64.const 1) (global.get $long)))", TrapKind::IntegerDivideByZero),
        ("remu64", "(drop (i64.rem_u (i64.const 1) (global.get $long)))", TrapKind::IntegerDivideByZero),
        ("const", "(drop (i32.div_s (i32.const 1) (i32.const 0)))", TrapKind::IntegerDivideByZero),
        ("over32", "(drop (i32.div_s (i32.const 0x80000000) (global.get $minus)))", TrapKind::IntegerOverflow),
        (
            "over64",
            "(drop (i64.div_s (i64.const 0x8000000000000000) (i64.extend_i32_s (global.get $minus))))",
            TrapKind::IntegerOverflow,
        ),
        ("nan", "(drop (i32.trunc_f32_s (global.get $nan)))", TrapKind::InvalidConversionToInteger),
        ("nan64", "(drop (i64.trunc_f64_u (f64.promote_f32 (global.get $nan))))", TrapKind::InvalidConversionToInteger),
        ("large", "(drop (i32.trunc_f64_s (f64.const 2147483648)))", TrapKind::IntegerOverflow),
        ("large64", "(drop (i64.trunc_f32_u (f32.const 1e30)))", TrapKind::IntegerOverflow),
        ("small", "(drop (i32.trunc_f32_u (f32.const -1)))", TrapKind::IntegerOverflow),
        ("indirect", "(call_indirect $t (type $f) (i32.const 3))", TrapKind::TableOutOfBounds),
        ("indirect far", "(call_indirect $t (type $f) (i32.const -1))", TrapKind::TableOutOfBounds),
        ("null", "(call_indirect $t (type $f) (i32.const 0))", TrapKind::IndirectCallToNull),
        ("signature", "(call_indirect $t (type $g) (i32.const 1) (i32.const 1))", TrapKind::BadSignature),
        ("call_ref", "(call_ref $f (ref.null $f))", TrapKind::Other),
        ("as_non_null", "(drop (ref.as_non_null (table.get $t (i32.const 0))))", TrapKind::Other),
        ("get", "(drop (table.get $t (i32.const 3)))", TrapKind::TableOutOfBounds),
        ("set", "(table.set $t (i32.const 3) (ref.null func))", TrapKind::TableOutOfBounds),
        ("table fill", "(table.fill $t (i32.const 2) (ref.null func) (i32.const 2))", TrapKind::TableOutOfBounds),
        ("table copy", "(table.copy $t $t (i32.const 2) (i32.const 0) (i32.const 2))", TrapKind::TableOutOfBounds),
        ("table init", "(table.init $t $e (i32.const 0) (i32.const 0) (i32.const 9))", TrapKind::TableOutOfBounds),
        ("memory fill", "(memory.fill (i32.const 65535) (i32.const 0) (i32.const 2))", TrapKind::MemoryOutOfBounds),
        ("memory copy", "(memory.copy (i32.const -1) (i32.const 0) (i32.const 2))", TrapKind::MemoryOutOfBounds),
        ("memory init", "(memory.init $d (i32.const 0) (i32.const 2) (i32.const 2))", TrapKind::MemoryOutOfBounds),
        ("struct", "(drop (struct.get $s 0 (ref.null $s)))", TrapKind::Other),
        ("cast", "(drop (ref.cast (ref $s) (ref.i31 (i32.const 1))))", TrapKind::Other),
        ("array", "(drop (array.get $a (array.new $a (i32.const 1) (i32.const 3)) (i32.const 3)))", TrapKind::Other),
    ];
    let bodies: String =
        functions.iter().map(|(name, body, _)| format!("(func $\"{name}\" (export \"{name}\") {body})")).collect();
    let mut sandbox = build(&format!(
        r#"(module (type $f (func)) (type $g (func (param i32)))
            (type $s (struct (field i32))) (type $a (array (mut i32)))
            (memory 1) (table $t 3 3 funcref) (elem (table $t) (i32.const 1) func $good) (elem $e func $good $good)
            (data $d "abc")
            (global $zero (mut i32) (i32.const 0)) (global $long (mut i64) (i64.const 0)) (global $minus (mut i32) (i32.const -1))
            (global $nan (mut f32) (f32.const nan))
            (func $good (export "good") (result)) {bodies})"#
    ));
    for _ in 0..2 {
        for (name, _, kind) in functions {
            traps(&mut sandbox, name, &[], kind);
            sandbox.call::<_, ()>("good", ()).unwrap();
        }
    }
}

#[test]
fn a_backtrace_names_every_function_from_the_inside_out() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = build(
        r#"(module (memory 1)
            (func $inner (param i32) (result i32) (i32.load (local.get 0)))
            (func $middle (param i32) (result i32) (i32.add (call $inner (local.get 0)) (i32.const 1)))
            (func (export "outer") (param i32) (result i32) (i32.add (call $middle (local.get 0)) (i32.const 1))))"#,
    );
    assert_eq!(sandbox.call::<_, i32>("outer", 65532).unwrap(), 2);
    let result = sandbox.call::<_, i32>("outer", 65533);
    let trap = trap(&mut sandbox, "outer", result);
    let names: Vec<_> = trap.backtrace.iter().map(|frame| (frame.function, frame.name.as_deref())).collect();
    assert_eq!(names, [(0, Some("inner")), (1, Some("middle")), (2, None)]);
}

#[test]
fn a_trap_leaves_poison_that_can_be_forgiven() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = build(
        r#"(module (memory (export "memory") 1) (global (export "g") (mut i32) (i32.const 1))
            (func (export "half") (global.set 0 (i32.const 2)) (i32.store (i32.const 0) (i32.const 3)) (drop (i32.load (i32.const -1))))
            (func (export "g_is") (result i32) (global.get 0)))"#,
    );
    let snapshot = sandbox.snapshot().unwrap();
    for restored in [false, true] {
        assert_eq!(sandbox.call::<_, ()>("half", ()).unwrap_err().trap().unwrap().kind, TrapKind::MemoryOutOfBounds);
        assert_eq!(sandbox.state(), SandboxState::Poisoned(Poison::Trapped));
        assert!(matches!(sandbox.call::<_, i32>("g_is", ()), Err(CallError::Poisoned(Poison::Trapped))));
        if restored {
            sandbox.restore(&snapshot).unwrap();
            assert_eq!(sandbox.call::<_, i32>("g_is", ()).unwrap(), 1);
        } else {
            sandbox.clear_poison().unwrap();
            assert_eq!(sandbox.call::<_, i32>("g_is", ()).unwrap(), 2);
        }
    }
}

#[test]
fn traps_while_a_module_begins_are_told_as_such() {
    if !kvm::usable() {
        return;
    }
    let modules = [
        ("start", r#"(module (memory 1) (func $s (drop (i32.load (i32.const 65536)))) (start $s))"#, TrapKind::MemoryOutOfBounds),
        ("start 2", r#"(module (func $s (call $s)) (start $s))"#, TrapKind::StackOverflow),
        ("start 3", r#"(module (func $s unreachable) (start $s))"#, TrapKind::Unreachable),
        ("data", r#"(module (memory 1) (data (i32.const 65535) "ab"))"#, TrapKind::MemoryOutOfBounds),
        ("elements", r#"(module (func $f) (table 1 funcref) (elem (i32.const 1) func $f))"#, TrapKind::TableOutOfBounds),
        ("initialize", r#"(module (func (export "_initialize") unreachable))"#, TrapKind::Unreachable),
        ("initialize 2", r#"(module (func $s (export "_initialize") (call $s)))"#, TrapKind::StackOverflow),
    ];
    for (name, text, kind) in modules {
        match builder(text).build() {
            Err(BuildError::Instantiate(CallError::Trap(trap))) => {
                assert_eq!(trap.kind, kind, "{name}");
                let has_code = !matches!(name, "data" | "elements");
                assert_eq!(!trap.backtrace.is_empty(), has_code, "{name}: {trap}");
            }
            other => panic!("{name}: {:?}", other.err()),
        }
        // The same beside a module that is good: that one goes on.
        let mut sandbox = build(r#"(module (func (export "two") (result i32) (i32.const 2)))"#);
        let error = sandbox.instantiate(text.as_bytes()).unwrap_err();
        assert_eq!(error.trap().unwrap_or_else(|| panic!("{name}: {error:?}")).kind, kind, "{name}");
        assert_eq!(sandbox.state(), SandboxState::Poisoned(Poison::Trapped), "{name}");
        sandbox.clear_poison().unwrap();
        assert_eq!(sandbox.call::<_, i32>("two", ()).unwrap(), 2, "{name}");
    }
}

/// Host functions that fail in the middle of calls of compiled code, and calls that trap behind others.
#[test]
fn errors_of_host_functions_unwind_compiled_code() {
    if !kvm::usable() {
        return;
    }
    let calls = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&calls);
    let mut sandbox = builder(
        r#"(module (import "env" "f" (func $f (param i32) (result i32)))
            (func $inner (param i32) (result i32) (call $f (local.get 0)))
            (func (export "outer") (param i32) (result i32) (i32.div_u (i32.const 100) (call $inner (local.get 0))))
            (func (export "good") (result i32) (i32.const 5)))"#,
    )
    .func("env", "f", move |_: Caller<'_>, number: i32| -> Result<i32, std::io::Error> {
        *counted.lock().unwrap() += 1;
        if number < 0 { Err(std::io::Error::other("negative")) } else { Ok(number) }
    })
    .build()
    .unwrap();
    for _ in 0..100 {
        assert_eq!(sandbox.call::<_, i32>("outer", 5).unwrap(), 20);
        let result = sandbox.call::<_, i32>("outer", 0);
        assert_eq!(trap(&mut sandbox, "outer 0", result).kind, TrapKind::IntegerDivideByZero);
        let failed = sandbox.call::<_, i32>("outer", -1).unwrap_err();
        assert_eq!(failed.host_error::<std::io::Error>().unwrap().to_string(), "negative");
        assert_eq!(sandbox.state(), SandboxState::Poisoned(Poison::HostError));
        sandbox.clear_poison().unwrap();
        assert_eq!(sandbox.call::<_, i32>("good", ()).unwrap(), 5);
    }
    assert_eq!(*calls.lock().unwrap(), 300);
}

/// Many traps in one sandbox take no memory that is not given back.
#[test]
fn ten_thousand_traps_leave_nothing_behind() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = build(
        r#"(module (memory 1)
            (func $load (export "load") (param i32) (result i32) (i32.load (local.get 0)))
            (func $deep (export "deep") (param i32) (result i32)
                (if (result i32) (local.get 0)
                    (then (i32.add (i32.const 1) (call $deep (i32.sub (local.get 0) (i32.const 1)))))
                    (else (i32.load (i32.const -1))))))"#,
    );
    let mut touched = 0;
    for round in 0..5_000 {
        traps(&mut sandbox, "load", &[Value::I32(65536)], TrapKind::MemoryOutOfBounds);
        traps(&mut sandbox, "deep", &[Value::I32(100)], TrapKind::MemoryOutOfBounds);
        if round == 100 {
            touched = sandbox.stats().touched_bytes;
        }
    }
    assert_eq!(sandbox.stats().touched_bytes, touched);
}

/// With fuel the end of it is a trap as well, and others stay what they are.
#[test]
fn code_that_counts_fuel_traps_the_same() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = Sandbox::builder()
        .engine(engine())
        .module_bytes(
            r#"(module (memory 1)
                (func $spin (export "spin") (loop (br 0)))
                (func $load (export "load") (param i32) (result i32) (i32.load (local.get 0)))
                (func $overflow (export "overflow") (call $overflow)))"#,
        )
        .ram_bytes(64 << 20)
        .fuel(1_000_000)
        .build()
        .unwrap();
    for _ in 0..3 {
        traps(&mut sandbox, "spin", &[], TrapKind::OutOfFuel);
        traps(&mut sandbox, "load", &[Value::I32(65533)], TrapKind::MemoryOutOfBounds);
        traps(&mut sandbox, "overflow", &[], TrapKind::StackOverflow);
        assert_eq!(sandbox.call::<_, i32>("load", 65532).unwrap(), 0);
    }
}
