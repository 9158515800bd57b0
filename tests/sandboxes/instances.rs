//! More modules in one sandbox.

use std::error::Error;

use mote_vmm::{BuildError, CallError, Output, Poison, Rejection, Sandbox, SandboxState, SharedBuffer, TrapKind, Value};

use super::guests::{MEMORY, build, builder};
use crate::support::kvm;

fn rejected<T: std::fmt::Debug>(result: Result<T, CallError>) -> Rejection {
    match result {
        Err(CallError::Rejected(rejection)) => *rejection,
        other => panic!("{other:?}"),
    }
}

#[test]
fn instances_share_what_they_import() {
    if !kvm::usable() {
        return;
    }
    let main = r#"(module
        (memory (export "memory") 1) (global (export "g") (mut i32) (i32.const 1)) (table (export "table") 2 funcref)
        (func (export "double") (param i32) (result i32) (i32.mul (local.get 0) (i32.const 2)))
        (func (export "call") (param i32) (result i32) (call_indirect (result i32) (local.get 0))))"#;
    let mut sandbox = build(main);
    sandbox.register("main", sandbox.main_instance()).unwrap();
    let second = br#"(module
        (import "main" "memory" (memory 1)) (import "main" "g" (global $g (mut i32))) (import "main" "table" (table 1 funcref))
        (import "main" "double" (func $double (param i32) (result i32)))
        (export "memory" (memory 0))
        (func $seven (result i32) (i32.const 7))
        (elem (i32.const 1) $seven)
        (data (i32.const 10) "from the second")
        (func (export "work") (param i32) (result i32)
            (global.set $g (i32.const 42))
            (drop (memory.grow (i32.const 2)))
            (i32.store (i32.const 65536) (call $double (local.get 0)))
            (call $double (local.get 0))))"#;
    let instance = sandbox.instantiate(second).unwrap();
    let mut text = [0; 15];
    sandbox.read_memory(10, &mut text).unwrap();
    assert_eq!(&text, b"from the second");
    let work = sandbox.func_of::<i32, i32>(instance, "work").unwrap();
    assert_eq!(sandbox.call_func(work, 21).unwrap(), 42);
    // The other instance moved and grew the memory of this one.
    assert_eq!(sandbox.memory_bytes().unwrap(), 3 * 65536);
    let mut word = [0; 4];
    sandbox.read_memory(65536, &mut word).unwrap();
    assert_eq!(i32::from_le_bytes(word), 42);
    assert_eq!(sandbox.global("g").unwrap(), Value::I32(42));
    assert_eq!(sandbox.call::<_, i32>("call", 1).unwrap(), 7);
    assert_eq!(sandbox.exports_of(instance).len(), 2);
    assert!(matches!(sandbox.call::<_, i32>("work", 1), Err(CallError::Mismatch(_))), "it is no export of the first");
}

#[test]
fn a_name_means_the_instance_that_had_it_last() {
    if !kvm::usable() {
        return;
    }
    let constant = |number: i32| format!(r#"(module (func (export "f") (result i32) (i32.const {number})))"#);
    let user = br#"(module (import "lib" "f" (func $f (result i32))) (func (export "f") (result i32) (call $f)))"#;
    let mut sandbox = build(&constant(1));
    assert!(rejected(sandbox.instantiate(user)).to_string().contains("lib::f"));
    sandbox.register("lib", sandbox.main_instance()).unwrap();
    let first = sandbox.instantiate(user).unwrap();
    let other = sandbox.instantiate(constant(2).as_bytes()).unwrap();
    sandbox.register("lib", other).unwrap();
    let second = sandbox.instantiate(user).unwrap();
    for (instance, expected) in [(sandbox.main_instance(), 1), (first, 1), (other, 2), (second, 2)] {
        assert_eq!(sandbox.call_dynamic_of(instance, "f", &[]).unwrap(), [Value::I32(expected)]);
    }
    // Copies know them all.
    let snapshot = sandbox.snapshot().unwrap();
    let mut copy = Sandbox::from_snapshot(&snapshot).unwrap();
    assert_eq!(copy.call_dynamic_of(second, "f", &[]).unwrap(), [Value::I32(2)]);
    let third = copy.instantiate(user).unwrap();
    assert_eq!(copy.call_dynamic_of(third, "f", &[]).unwrap(), [Value::I32(2)]);
    // And those that came later mean nothing elsewhere.
    assert!(matches!(sandbox.call_dynamic_of(third, "f", &[]), Err(CallError::Mismatch(_))));
    copy.restore(&snapshot).unwrap();
    assert!(matches!(copy.call_dynamic_of(third, "f", &[]), Err(CallError::Mismatch(_))));
    assert!(matches!(copy.register("x", third), Err(CallError::Mismatch(_))));
    assert!(matches!(copy.register(&"x".repeat(1 << 20), second), Err(CallError::Mismatch(_))));
    assert!(copy.exports_of(third).is_empty());
}

#[test]
fn a_module_that_cannot_run_leaves_the_sandbox_as_it_was() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = build(MEMORY);
    let bad: [(&[u8], &str); 6] = [
        (b"", ""),
        (b"garbage", ""),
        (b"\0asm\x01\0\0\0\x01", ""),
        (b"(module (func (result i32)))", ""),
        (br#"(module (import "nowhere" "f" (func)))"#, "nowhere::f"),
        (br#"(module (import "wasi_snapshot_preview1" "fd_write" (func)))"#, "with another type"),
    ];
    for (bytes, about) in bad {
        let rejection = rejected(sandbox.instantiate(bytes)).to_string();
        assert!(rejection.contains(about), "{rejection}");
        assert_eq!(sandbox.state(), SandboxState::Ready, "{rejection}");
        assert_eq!(sandbox.call::<_, i32>("add", (1, 2)).unwrap(), 3);
    }
    sandbox.instantiate(MEMORY.as_bytes()).unwrap();
}

#[test]
fn what_traps_while_it_is_instantiated_is_no_instance() {
    if !kvm::usable() {
        return;
    }
    let start: &[u8] = b"(module (func $f unreachable) (start $f))";
    let initialize: &[u8] = br#"(module (func (export "_initialize") unreachable))"#;
    let segment: &[u8] = br#"(module (memory 1) (data (i32.const 65535) "too long"))"#;
    for bytes in [start, initialize, segment] {
        let text = String::from_utf8_lossy(bytes);
        let error = builder(&text).build().unwrap_err();
        assert!(matches!(error, BuildError::Instantiate(CallError::Trap(_))), "{text}: {error}");

        let mut sandbox = build(MEMORY);
        let error = sandbox.instantiate(bytes).unwrap_err();
        assert!(error.trap().is_some(), "{text}: {error}");
        assert_eq!(sandbox.state(), SandboxState::Poisoned(Poison::Trapped), "{text}");
        sandbox.clear_poison().unwrap();
        let next = sandbox.instantiate(br#"(module (func (export "f") (result i32) (i32.const 5)))"#);
        let next = next.unwrap_or_else(|error| panic!("{text}: the next one: {error}"));
        assert_eq!(sandbox.call_dynamic_of(next, "f", &[]).unwrap(), [Value::I32(5)], "{text}");
        assert_eq!(sandbox.call::<_, i32>("add", (1, 2)).unwrap(), 3, "{text}");
    }
}

#[test]
fn initialize_is_called_once_and_may_call_the_host() {
    if !kvm::usable() {
        return;
    }
    let text = r#"(module (import "env" "note" (func $note)) (global $n (mut i32) (i32.const 0)) (export "n" (global $n))
        (func (export "_initialize") (call $note) (global.set $n (i32.add (global.get $n) (i32.const 1)))))"#;
    let called = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = std::sync::Arc::clone(&called);
    let mut sandbox = builder(text)
        .func("env", "note", move |_: mote_vmm::Caller<'_>| {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        })
        .build()
        .unwrap();
    assert_eq!(sandbox.global("n").unwrap(), Value::I32(1));
    let second = sandbox.instantiate(text.as_bytes()).unwrap();
    assert_eq!(sandbox.global_of(second, "n").unwrap(), Value::I32(1));
    assert_eq!(sandbox.global("n").unwrap(), Value::I32(1));
    assert_eq!(called.load(std::sync::atomic::Ordering::Relaxed), 2);
}

/// WASI functions work on the memory of the module that calls them.
#[test]
fn each_instance_prints_from_its_own_memory() {
    if !kvm::usable() {
        return;
    }
    let printer = |text: &str, start: &str| {
        format!(
            r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "\10\00\00\00\05\00\00\00")
            (data (i32.const 16) "{text}")
            (func $print (export "print") (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
            {start})"#
        )
    };
    let stdout = SharedBuffer::new(1 << 10);
    let mut sandbox = builder(&printer("first", "")).stdout(Output::Buffer(stdout.clone())).build().unwrap();
    sandbox.call::<_, ()>("print", ()).unwrap();
    let second = sandbox.instantiate(printer("secnd", "").as_bytes()).unwrap();
    sandbox.call_dynamic_of(second, "print", &[]).unwrap();
    sandbox.call::<_, ()>("print", ()).unwrap();
    assert_eq!(stdout.contents(), b"firstsecndfirst");
    // Also before they are instances: in their start function.
    for (text, how) in [("start", "(start $print)"), ("initi", r#"(export "_initialize" (func $print))"#)] {
        let stdout = SharedBuffer::new(1 << 10);
        let mut sandbox = builder(&printer("first", "")).stdout(Output::Buffer(stdout.clone())).build().unwrap();
        sandbox.instantiate(printer(text, how).as_bytes()).unwrap();
        assert_eq!(String::from_utf8_lossy(&stdout.contents()), text);
    }
}

#[test]
fn there_are_as_many_instances_as_allowed() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = builder(MEMORY).instances(3).build().unwrap();
    let module = br#"(module (func (export "f") (result i32) (i32.const 5)))"#;
    let mut last = sandbox.main_instance();
    for _ in 1..3 {
        last = sandbox.instantiate(module).unwrap();
    }
    for _ in 0..3 {
        let rejection = rejected(sandbox.instantiate(module));
        assert!(matches!(rejection, Rejection::CannotRun(_)), "{rejection}");
    }
    assert_eq!(sandbox.state(), SandboxState::Ready);
    assert_eq!(sandbox.call_dynamic_of(last, "f", &[]).unwrap(), [Value::I32(5)]);
    let error = builder(MEMORY).instances(0).build().unwrap_err();
    assert!(matches!(error, BuildError::Instantiate(CallError::Rejected(_))), "{error}: {:?}", error.source());
}

/// It goes through the mailbox in parts.
#[test]
fn a_module_may_be_larger_than_the_mailbox() {
    if !kvm::usable() {
        return;
    }
    let bytes = super::guests::Random::new(5).bytes(1_200_000);
    let data: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
    let text = format!(
        r#"(module (memory (export "memory") 32) (data (i32.const 7) "{data}")
            (func (export "load") (param i32) (result i32) (i32.load8_u (local.get 0))))"#
    );
    let mut sandbox = build(MEMORY);
    let instance = sandbox.instantiate(text.as_bytes()).unwrap();
    for at in (0..bytes.len()).step_by(65_521).chain([bytes.len() - 1]) {
        let found = sandbox.call_dynamic_of(instance, "load", &[Value::I32(at as i32 + 7)]).unwrap();
        assert_eq!(found, [Value::I32(bytes[at].into())], "at {at}");
    }
    assert_eq!(sandbox.call::<_, i32>("load", 7).unwrap(), 0, "the first memory is another");
}

#[test]
fn a_trap_in_another_instance_tells_its_kind() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = build(MEMORY);
    let second = sandbox
        .instantiate(br#"(module (func (export "divide") (param i32) (result i32) (i32.div_u (i32.const 1) (local.get 0))))"#)
        .unwrap();
    let error = sandbox.call_dynamic_of(second, "divide", &[Value::I32(0)]).unwrap_err();
    let trap = error.trap().unwrap();
    assert_eq!((trap.kind, trap.export.as_str()), (TrapKind::IntegerDivideByZero, "divide"));
}
