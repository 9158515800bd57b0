//! Limits: what a guest may use, and that it can go on after it was refused more.

use std::time::{Duration, Instant};

use mote_vmm::{BuildError, CallError, Poison, Rejection, Sandbox, SandboxState, TrapKind};

use super::guests::{MEMORY, build, builder};
use crate::support::{engine::by_engine, kvm};

fn trap_kind(error: &CallError) -> TrapKind {
    error.trap().unwrap_or_else(|| panic!("{error:?}")).kind
}

/// Growing fails as WebAssembly says it, with all that was granted usable.
#[test]
fn ram_bounds_linear_memory() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = builder(MEMORY).ram_bytes(32 << 20).build().unwrap();
    let mut pages = 1;
    while sandbox.call::<_, i32>("grow", 8).unwrap() == pages {
        pages += 8;
        sandbox.call::<_, ()>("fill", (0, 0xff, pages << 16)).unwrap();
    }
    assert!((64..512).contains(&pages), "{pages}");
    assert_eq!(sandbox.call::<_, i32>("grow", 0).unwrap(), pages);
    assert_eq!(sandbox.call::<_, i32>("grow", 60_000).unwrap(), -1);
    assert_eq!(sandbox.call::<_, i32>("load", (pages << 16) - 1).unwrap(), 255);
    assert_eq!(sandbox.state(), SandboxState::Ready);
    assert!(builder(MEMORY).ram_bytes(1 << 20).build().is_err());
}

#[test]
fn linear_memories_together_have_a_bound() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = builder(MEMORY).linear_memory_bytes(1 << 20).build().unwrap();
    let second = sandbox.instantiate(MEMORY.as_bytes()).unwrap();
    let grow = sandbox.func_of::<i32, i32>(second, "grow").unwrap();
    assert_eq!(sandbox.call::<_, i32>("grow", 10).unwrap(), 1);
    assert_eq!(sandbox.call_func(grow, 5).unwrap(), -1);
    assert_eq!(sandbox.call_func(grow, 4).unwrap(), 1);
    assert_eq!(sandbox.call::<_, i32>("grow", 1).unwrap(), -1);
    assert!(matches!(sandbox.instantiate(MEMORY.as_bytes()), Err(CallError::Rejected(_))));
    assert_eq!(sandbox.call::<_, i32>("grow", 0).unwrap(), 11);
    let error = builder(MEMORY).linear_memory_bytes(65_535).build().unwrap_err();
    assert!(matches!(&error, BuildError::Instantiate(CallError::Rejected(why)) if why.to_string().contains("65536")), "{error}");
}

#[test]
fn tables_together_have_a_bound() {
    if !kvm::usable() {
        return;
    }
    let text = r#"(module (table $a 10 funcref) (table $b 10 externref)
        (func (export "a") (param i32) (result i32) (table.grow $a (ref.null func) (local.get 0)))
        (func (export "b") (param i32) (result i32) (table.grow $b (ref.null extern) (local.get 0))))"#;
    let mut sandbox = builder(text).table_elements(100).build().unwrap();
    assert_eq!(sandbox.call::<_, i32>("a", 40).unwrap(), 10);
    assert_eq!(sandbox.call::<_, i32>("b", 41).unwrap(), -1);
    assert_eq!(sandbox.call::<_, i32>("b", 40).unwrap(), 10);
    assert_eq!(sandbox.call::<_, i32>("a", 1).unwrap(), -1);
    assert_eq!(sandbox.call::<_, i32>("a", 0).unwrap(), 50);
    let error = builder(text).table_elements(19).build().unwrap_err();
    assert!(
        matches!(&error, BuildError::Instantiate(CallError::Rejected(why)) if matches!(**why, Rejection::CannotRun(_))),
        "{error}"
    );
}

#[test]
fn each_call_has_its_fuel() {
    if !kvm::usable() {
        return;
    }
    let text = r#"(module (global (export "g") i32 (i32.const 0)) (memory (export "memory") 1)
        (func (export "loop") (param $n i32) (loop (br_if 0 (local.tee $n (i32.sub (local.get $n) (i32.const 1))))))
        (func (export "spin") (loop (br 0))))"#;
    let mut sandbox = builder(text).fuel(50_000).without_deadline().build().unwrap();
    // The first call of a function also pays for its translation.
    sandbox.call::<_, ()>("loop", 100).unwrap();
    sandbox.call::<_, ()>("loop", 100).unwrap();
    let hundred = sandbox.fuel_consumed();
    assert!((100..1_000).contains(&hundred), "{hundred}");
    sandbox.call::<_, ()>("loop", 1_000).unwrap();
    let thousand = sandbox.fuel_consumed();
    assert!((5 * hundred..20 * hundred).contains(&thousand), "{thousand}");
    // What else is asked of a sandbox is no call.
    sandbox.global("g").unwrap();
    sandbox.read_memory(0, &mut [0]).unwrap();
    assert_eq!(sandbox.fuel_consumed(), thousand);
    // Many calls, each of which has the whole.
    for _ in 0..100 {
        sandbox.call::<_, ()>("loop", 1_000).unwrap();
        assert_eq!(sandbox.fuel_consumed(), thousand);
    }
    let error = sandbox.call::<_, ()>("spin", ()).unwrap_err();
    assert_eq!(trap_kind(&error), TrapKind::OutOfFuel);
    assert!((49_000..=50_000).contains(&sandbox.fuel_consumed()), "{}", sandbox.fuel_consumed());
    assert_eq!(sandbox.state(), SandboxState::Poisoned(Poison::Trapped));
    sandbox.clear_poison().unwrap();
    sandbox.set_fuel(thousand);
    sandbox.call::<_, ()>("loop", 1_000).unwrap();
    // Compiled code looks at what is left only where a loop begins anew.
    let too_little = thousand - by_engine(1, 20);
    sandbox.set_fuel(too_little);
    assert_eq!(trap_kind(&sandbox.call::<_, ()>("loop", 1_000).unwrap_err()), TrapKind::OutOfFuel);
    sandbox.clear_poison().unwrap();
    for fuel in [0, 1] {
        sandbox.set_fuel(fuel);
        assert_eq!(trap_kind(&sandbox.call::<_, ()>("loop", 1_000).unwrap_err()), TrapKind::OutOfFuel);
        sandbox.clear_poison().unwrap();
    }
    for fuel in [u64::MAX, u64::MAX - 1, i64::MAX.cast_unsigned()] {
        sandbox.set_fuel(fuel);
        sandbox.call::<_, ()>("loop", 1_000).unwrap();
        assert_eq!(sandbox.fuel_consumed(), thousand, "of {fuel}");
    }
    // A copy has the fuel of the snapshot, or another amount.
    sandbox.set_fuel(thousand);
    let snapshot = sandbox.snapshot().unwrap();
    Sandbox::from_snapshot(&snapshot).unwrap().call::<_, ()>("loop", 1_000).unwrap();
    let mut copy = snapshot.sandbox().fuel(too_little).build().unwrap();
    assert_eq!(trap_kind(&copy.call::<_, ()>("loop", 1_000).unwrap_err()), TrapKind::OutOfFuel);
}

/// Also a module that is instantiated after a call that left none.
#[test]
fn start_functions_have_fuel_of_their_own() {
    if !kvm::usable() {
        return;
    }
    let text = r#"(module (func (export "spin") (loop (br 0))))"#;
    let start = br#"(module (func $f (local $n i32) (local.set $n (i32.const 100))
        (loop (br_if 0 (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))) (start $f))"#;
    let mut sandbox = builder(text).fuel(50_000).build().unwrap();
    assert_eq!(trap_kind(&sandbox.call::<_, ()>("spin", ()).unwrap_err()), TrapKind::OutOfFuel);
    sandbox.clear_poison().unwrap();
    sandbox.instantiate(start).unwrap();
    // Nor can they take more than that.
    let spin = b"(module (func $f (loop (br 0))) (start $f))";
    assert_eq!(trap_kind(&sandbox.instantiate(spin).unwrap_err()), TrapKind::OutOfFuel);
    let error = builder("(module (func $f (loop (br 0))) (start $f))").fuel(1_000).build().unwrap_err();
    assert!(matches!(&error, BuildError::Instantiate(error) if trap_kind(error) == TrapKind::OutOfFuel), "{error}");
}

const RECURSION: &str = r#"(module
    (func $f (export "depth") (param i32) (result i32)
        (if (result i32) (local.get 0)
            (then (i32.add (call $f (i32.sub (local.get 0) (i32.const 1))) (i32.const 1)))
            (else (i32.const 0))))
    (func $wide (export "wide") (param i32) (result i32) (local i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64)
        (if (result i32) (local.get 0)
            (then (i32.add (call $wide (i32.sub (local.get 0) (i32.const 1))) (i32.const 1)))
            (else (i32.const 0)))))"#;

#[test]
fn the_stack_has_a_bound_and_is_whole_again_after_it() {
    if !kvm::usable() {
        return;
    }
    // Compiled code does not count calls, but each takes at least 16 bytes; and it has no more than 896 KiB.
    let (stack_bytes, too_deep) = by_engine((8 << 20, 1_100), (64 << 10, 64 << 10 >> 4));
    let mut sandbox = builder(RECURSION).stack(stack_bytes, 1_000).build().unwrap();
    for _ in 0..50 {
        assert_eq!(sandbox.call::<_, i32>("depth", 900).unwrap(), 900);
        assert_eq!(trap_kind(&sandbox.call::<_, i32>("depth", too_deep).unwrap_err()), TrapKind::StackOverflow);
        sandbox.clear_poison().unwrap();
    }
    let mut small = builder(RECURSION).stack(128 << 10, 1_000_000).build().unwrap();
    assert_eq!(small.call::<_, i32>("wide", 100).unwrap(), 100);
    assert_eq!(trap_kind(&small.call::<_, i32>("wide", 100_000).unwrap_err()), TrapKind::StackOverflow);
    let mut usual = build(RECURSION);
    let deep = by_engine(40_000, 20_000);
    assert_eq!(usual.call::<_, i32>("depth", deep).unwrap(), deep);
    assert_eq!(trap_kind(&usual.call::<_, i32>("depth", 60_000).unwrap_err()), TrapKind::StackOverflow);
}

#[test]
fn a_deadline_ends_a_loop_and_nothing_after_it() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = builder(MEMORY).deadline(Duration::from_secs(60)).build().unwrap();
    let snapshot = sandbox.snapshot().unwrap();
    for after in [0, 1, 30, 100] {
        let after = Duration::from_millis(after);
        sandbox.set_deadline(Some(after));
        let started = Instant::now();
        let error = sandbox.call::<_, ()>("spin", ()).unwrap_err();
        assert!(matches!(error, CallError::DeadlineExceeded), "{error}");
        assert!((after..Duration::from_secs(20)).contains(&started.elapsed()), "{after:?}: {:?}", started.elapsed());
        assert_eq!(sandbox.state(), SandboxState::Poisoned(Poison::DeadlineExceeded));
        sandbox.set_deadline(None);
        sandbox.restore(&snapshot).unwrap();
        for expected in 1..=20 {
            assert_eq!(sandbox.call::<_, i32>("count", ()).unwrap(), expected);
        }
        sandbox.restore(&snapshot).unwrap();
    }
    assert_eq!(sandbox.counters().deadlines, 4);
    // One that is far away does not begin anew with each call, nor count time between calls.
    sandbox.set_deadline(Some(Duration::from_secs(20)));
    sandbox.call::<_, i32>("count", ()).unwrap();
    sandbox.set_deadline(Some(Duration::MAX));
    sandbox.call::<_, i32>("count", ()).unwrap();
}

#[test]
fn making_a_sandbox_has_a_deadline_too() {
    if !kvm::usable() {
        return;
    }
    let text = "(module (func $f (loop (br 0))) (start $f))";
    let error = builder(text).deadline(Duration::from_millis(30)).build().unwrap_err();
    assert!(matches!(error, BuildError::Instantiate(CallError::DeadlineExceeded)), "{error}");
    let mut sandbox = build(MEMORY);
    sandbox.set_deadline(Some(Duration::from_millis(30)));
    assert!(matches!(sandbox.instantiate(text.as_bytes()), Err(CallError::DeadlineExceeded)));
    // A copy has the deadline of the sandbox.
    let mut sandbox = builder(MEMORY).deadline(Duration::from_millis(30)).build().unwrap();
    let snapshot = sandbox.snapshot().unwrap();
    let mut copy = Sandbox::from_snapshot(&snapshot).unwrap();
    assert!(matches!(copy.call::<_, ()>("spin", ()), Err(CallError::DeadlineExceeded)));
}

/// What the guest asks of the host while it waits ends as well.
#[test]
fn a_deadline_ends_a_sleep() {
    if !kvm::usable() {
        return;
    }
    let text = r#"(module
        (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "sleep")
            (i32.store (i32.const 16) (i32.const 1))
            (i64.store (i32.const 24) (i64.const 3600000000000))
            (drop (call $poll (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 200)))))"#;
    let mut sandbox = builder(text).deadline(Duration::from_millis(50)).build().unwrap();
    let started = Instant::now();
    assert!(matches!(sandbox.call::<_, ()>("sleep", ()), Err(CallError::DeadlineExceeded)));
    assert!((Duration::from_millis(50)..Duration::from_secs(20)).contains(&started.elapsed()));
}
