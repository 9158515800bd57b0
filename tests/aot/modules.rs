//! Modules that are instantiated later, and what a restore does to them: the code that runs is that of the module that is there.

use mote_vmm::{CallError, Sandbox, Snapshot, Value};

use super::guests::{build, builder, engine};
use crate::support::kvm;

fn constant(number: i32) -> String {
    format!(r#"(module (func (export "f") (result i32) (i32.const {number})))"#)
}

/// A module whose code has so many functions before the one that counts: artifacts of other sizes.
fn long_constant(number: i32) -> String {
    let padding: String =
        (0..2000).map(|index| format!("(func (param i32) (result i32) (i32.mul (local.get 0) (i32.const {index})))")).collect();
    format!(r#"(module {padding} (func (export "f") (result i32) (i32.const {number})))"#)
}

fn f(sandbox: &mut Sandbox, instance: mote_vmm::Instance) -> Result<i32, CallError> {
    sandbox.call_dynamic_of(instance, "f", &[]).map(|values| match values[..] {
        [Value::I32(number)] => number,
        _ => panic!("{values:?}"),
    })
}

#[test]
fn a_module_that_came_after_a_snapshot_is_gone_and_another_takes_its_place() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = build(&constant(1));
    let snapshot = sandbox.snapshot().unwrap();
    let mut copy = Sandbox::from_snapshot(&snapshot).unwrap();
    for number in 0..40 {
        let text = if number % 3 == 0 { long_constant(number) } else { constant(number) };
        for sandbox in [&mut sandbox, &mut copy] {
            let instance = sandbox.instantiate(text.as_bytes()).unwrap();
            assert_eq!(f(sandbox, instance).unwrap(), number);
            assert_eq!(sandbox.call::<_, i32>("f", ()).unwrap(), 1);
            sandbox.restore(&snapshot).unwrap();
            assert!(matches!(f(sandbox, instance), Err(CallError::Mismatch(_))));
            assert_eq!(sandbox.call::<_, i32>("f", ()).unwrap(), 1);
        }
    }
}

#[test]
fn modules_of_a_snapshot_are_in_its_copies_and_files() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = build(&constant(1));
    let first = sandbox.snapshot().unwrap();
    let second = sandbox.instantiate(long_constant(2).as_bytes()).unwrap();
    let third = sandbox.instantiate(constant(3).as_bytes()).unwrap();
    let snapshot = sandbox.snapshot().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.snap");
    snapshot.save(&path).unwrap();
    let loaded = Snapshot::load(&path).unwrap();
    for of in [&snapshot, &loaded] {
        let mut copy = Sandbox::from_snapshot(of).unwrap();
        for round in 0..3 {
            assert_eq!((f(&mut copy, second).unwrap(), f(&mut copy, third).unwrap()), (2, 3));
            if round == 1 {
                let fourth = copy.instantiate(constant(4).as_bytes()).unwrap();
                assert_eq!(f(&mut copy, fourth).unwrap(), 4);
            }
            copy.restore(of).unwrap();
        }
    }
    // Back to where they were not, and forth again.
    for _ in 0..3 {
        sandbox.restore(&first).unwrap();
        assert!(f(&mut sandbox, second).is_err());
        let other = sandbox.instantiate(constant(9).as_bytes()).unwrap();
        assert_eq!(f(&mut sandbox, other).unwrap(), 9);
        sandbox.restore(&snapshot).unwrap();
        assert_eq!((f(&mut sandbox, second).unwrap(), f(&mut sandbox, third).unwrap()), (2, 3));
    }
}

/// A module that traps or is refused while it begins is mapped all the same: the next one is another.
#[test]
fn modules_that_failed_do_not_stand_in_for_others() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = build(&constant(1));
    let snapshot = sandbox.snapshot().unwrap();
    for round in 0..3 {
        assert!(sandbox.instantiate(b"(module (func $s unreachable) (start $s))").unwrap_err().trap().is_some());
        sandbox.clear_poison().unwrap();
        let missing = sandbox.instantiate(br#"(module (import "no" "such" (func)))"#).unwrap_err();
        assert!(matches!(missing, CallError::Rejected(_)), "{missing:?}");
        assert!(matches!(sandbox.instantiate(b"(module (func (result i32)))"), Err(CallError::Rejected(_))));
        let instance = sandbox.instantiate(constant(round).as_bytes()).unwrap();
        assert_eq!(f(&mut sandbox, instance).unwrap(), round);
        sandbox.restore(&snapshot).unwrap();
    }
}

/// Functions of one module are called by another, and trap there.
#[test]
fn traps_go_through_modules() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = build(
        r#"(module (memory (export "memory") 1)
            (func $load (export "load") (param i32) (result i32) (i32.load (local.get 0))))"#,
    );
    sandbox.register("first", sandbox.main_instance()).unwrap();
    let user = sandbox
        .instantiate(
            br#"(module (import "first" "load" (func $l (param i32) (result i32))) (import "first" "memory" (memory 1))
                (func $far (export "far") (param i32) (result i32) (i32.add (i32.const 1) (call $l (local.get 0))))
                (func $near (export "near") (param i32) (result i32) (i32.load (local.get 0))))"#,
        )
        .unwrap();
    for (name, frames) in [("far", vec!["load", "far"]), ("near", vec!["near"])] {
        for address in [65533, 65536, 1 << 20, -1] {
            let error = sandbox.call_dynamic_of(user, name, &[Value::I32(address)]).unwrap_err();
            let trap = error.trap().unwrap();
            assert_eq!(trap.kind, mote_vmm::TrapKind::MemoryOutOfBounds);
            let names: Vec<_> = trap.backtrace.iter().filter_map(|frame| frame.name.as_deref()).collect();
            assert_eq!(names, frames);
            sandbox.clear_poison().unwrap();
        }
        assert!(sandbox.call_dynamic_of(user, name, &[Value::I32(65532)]).is_ok());
    }
}

/// Sandboxes of one process with different modules, and of the same: each has its own.
#[test]
fn a_sandbox_cannot_go_back_to_another_module() {
    if !kvm::usable() {
        return;
    }
    let mut first = build(&constant(1));
    let mut second = builder(&constant(2)).engine(engine()).build().unwrap();
    let snapshot = first.snapshot().unwrap();
    match second.restore(&snapshot) {
        Ok(()) => assert_eq!(second.call::<_, i32>("f", ()).unwrap(), 1),
        Err(_) => assert_eq!(second.call::<_, i32>("f", ()).unwrap(), 2),
    }
}
