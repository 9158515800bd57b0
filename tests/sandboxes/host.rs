//! Functions of the host.

use std::{
    error::Error,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use mote_vmm::{
    AccessError, BuildError, CallError, Caller, FuncType, HostError, Output, Poison, Sandbox, SandboxState, TrapKind, Value,
    ValueType,
};

use super::guests::{MEMORY, builder};
use crate::support::kvm;

/// An error that only these tests have.
#[derive(Debug, PartialEq)]
struct Own(i32);

impl fmt::Display for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "own error {}", self.0)
    }
}

impl Error for Own {}

/// Calls `env::f`, from a frame a few calls deep.
const CALLER: &str = r#"(module
    (import "env" "f" (func $f (param i32) (result i32)))
    (memory (export "memory") 1)
    (global $depth (mut i32) (i32.const 0)) (export "depth" (global $depth))
    (func $deep (param i32 i32) (result i32)
        (if (result i32) (local.get 1)
            (then (i32.add (call $deep (local.get 0) (i32.sub (local.get 1) (i32.const 1))) (i32.const 0)))
            (else (call $f (local.get 0)))))
    (func (export "call") (param i32) (result i32) (call $deep (local.get 0) (i32.const 10)))
    (func (export "spin") (loop (br 0))))"#;

#[test]
fn closures_have_the_types_of_their_arguments_and_results() {
    if !kvm::usable() {
        return;
    }
    let text = r#"(module
        (import "env" "all" (func $all (param i32 i64 f32 f64 v128 i32) (result i32 v128 f64 f32 i64)))
        (import "env" "twelve" (func $twelve (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (import "env" "none" (func $none))
        (import "env" "result" (func $result (param i64) (result i64 i64)))
        (func (export "all") (param i32 i64 f32 f64 v128 i32) (result i32 v128 f64 f32 i64)
            (call $all (local.get 0) (local.get 1) (local.get 2) (local.get 3) (local.get 4) (local.get 5)))
        (func (export "twelve") (result i32)
            (call $twelve (i32.const 1) (i32.const 2) (i32.const 3) (i32.const 4) (i32.const 5) (i32.const 6)
                (i32.const 7) (i32.const 8) (i32.const 9) (i32.const 10) (i32.const 11) (i32.const 12)))
        (func (export "none") (call $none))
        (func (export "result") (param i64) (result i64 i64) (call $result (local.get 0))))"#;
    let mut sandbox = builder(text)
        .func("env", "all", |_: Caller<'_>, a: i32, b: i64, c: f32, d: f64, e: u128, f: u32| {
            (a + f as i32, e + 1, d * 2.0, c * 2.0, -b)
        })
        .func(
            "env",
            "twelve",
            #[allow(clippy::too_many_arguments, reason = "as many as there can be")]
            |_: Caller<'_>, a: i32, b: i32, c: i32, d: i32, e: i32, f: i32, g: i32, h: i32, i: i32, j: i32, k: i32, l: i32| {
                [a, b, c, d, e, f, g, h, i, j, k, l].iter().fold(0, |sum, value| sum * 2 + value)
            },
        )
        .func("env", "none", |_: Caller<'_>| {})
        .func("env", "result", |_: Caller<'_>, a: u64| -> Result<(u64, i64), Own> { Ok((a, 7)) })
        .build()
        .unwrap();
    let all: (i32, u128, f64, f32, i64) = sandbox.call("all", (1, 2i64, 3f32, 4f64, u128::MAX - 1, 5)).unwrap();
    assert_eq!(all, (6, u128::MAX, 8.0, 6.0, -2));
    assert_eq!(sandbox.call::<_, i32>("twelve", ()).unwrap(), (1..=12).fold(0, |sum, value| sum * 2 + value));
    sandbox.call::<_, ()>("none", ()).unwrap();
    assert_eq!(sandbox.call::<_, (u64, i64)>("result", u64::MAX).unwrap(), (u64::MAX, 7));
    assert_eq!(sandbox.counters().host_calls, 4);
}

#[test]
fn functions_may_have_types_that_are_known_at_run_time() {
    if !kvm::usable() {
        return;
    }
    let text = r#"(module
        (import "env" "swap" (func $swap (param externref i64) (result i64 externref)))
        (func (export "swap") (param externref i64) (result i64 externref) (call $swap (local.get 0) (local.get 1))))"#;
    let ty =
        || FuncType { params: vec![ValueType::ExternRef, ValueType::I64], results: vec![ValueType::I64, ValueType::ExternRef] };
    let mut sandbox = builder(text)
        .func_dynamic("env", "swap", ty(), |_, values| match values {
            [Value::ExternRef(Some(13)), _] => Ok(vec![Value::I32(0), Value::ExternRef(None)]),
            [Value::ExternRef(Some(14)), _] => Ok(Vec::new()),
            [Value::ExternRef(Some(15)), _] => Err(Own(15)),
            [reference, Value::I64(number)] => Ok(vec![Value::I64(number + 1), *reference]),
            _ => Err(Own(0)),
        })
        .build()
        .unwrap();
    for reference in [Some(1), None, Some(u32::MAX)] {
        let returned = sandbox.call_dynamic("swap", &[Value::ExternRef(reference), Value::I64(1)]).unwrap();
        assert_eq!(returned, [Value::I64(2), Value::ExternRef(reference)]);
    }
    // Values that are not of its type reach nobody.
    for wrong in [13, 14] {
        let error = sandbox.call_dynamic("swap", &[Value::ExternRef(Some(wrong)), Value::I64(1)]).unwrap_err();
        assert!(matches!(&error, CallError::Host { source, .. } if source.to_string().contains("other values")), "{error}");
        sandbox.clear_poison().unwrap();
    }
    let error = sandbox.call_dynamic("swap", &[Value::ExternRef(Some(15)), Value::I64(1)]).unwrap_err();
    assert_eq!(error.host_error::<Own>(), Some(&Own(15)));
}

#[test]
fn what_the_module_imports_must_be_there_with_its_type() {
    if !kvm::usable() {
        return;
    }
    let rejected = |result: Result<Sandbox, BuildError>, about: &str| match result {
        Err(BuildError::Instantiate(CallError::Rejected(why))) => assert!(why.to_string().contains(about), "{why}"),
        other => panic!("{other:?}"),
    };
    rejected(builder(CALLER).build(), "env::f");
    rejected(builder(CALLER).func("env", "f", |_: Caller<'_>| {}).build(), "function env::f with another type");
    rejected(builder(CALLER).func("env", "f", |_: Caller<'_>, a: i64| a).build(), "function env::f with another type");
    rejected(builder(CALLER).func("env", "g", |_: Caller<'_>, a: i32| a).build(), "env::f");
    let twice = builder(CALLER).func("env", "f", |_: Caller<'_>, a: i32| a).func("env", "f", |_: Caller<'_>| {}).build();
    assert!(matches!(twice, Err(BuildError::SameFunction(name)) if name == "env::f"));
    // More functions than are imported are no harm, whatever their names; they come before WASI's.
    let text = r#"(module (import "wasi_snapshot_preview1" "sched_yield" (func $f (result i32))) (func (export "f") (result i32) (call $f)))"#;
    let mut sandbox = builder(text)
        .func("", "", |_: Caller<'_>| {})
        .func("wasi_snapshot_preview1", "sched_yield", |_: Caller<'_>| 55i32)
        .build()
        .unwrap();
    assert_eq!(sandbox.call::<_, i32>("f", ()).unwrap(), 55);
}

/// A function has at most 1,000 parameters and 1,000 results, as in WebAssembly's engines everywhere.
#[test]
fn functions_with_too_many_parameters_or_results_are_refused() {
    if !kvm::usable() {
        return;
    }
    const MOST: usize = 1_000;
    let build = |params: usize, results: usize| {
        let ty = FuncType { params: vec![ValueType::I32; params], results: vec![ValueType::I64; results] };
        builder(MEMORY).func_dynamic("env", "many", ty, |_, _| Err::<Vec<Value>, _>(Own(0))).build()
    };
    for (params, results) in [(MOST + 1, 0), (0, MOST + 1), (MOST + 1, MOST + 1), (100_000, 0)] {
        match build(params, results) {
            Err(error @ BuildError::FunctionType { .. }) => assert!(error.to_string().contains("env::many"), "{error}"),
            other => panic!("{params} parameters, {results} results: {other:?}"),
        }
    }
    build(MOST, MOST).unwrap();
    // Copies know the type already, and take no other.
    let snapshot = builder(MEMORY).build().unwrap().snapshot().unwrap();
    let ty = FuncType { params: vec![ValueType::I32; MOST + 1], results: Vec::new() };
    let copy = snapshot.sandbox().func_dynamic("env", "many", ty, |_, _| Err::<Vec<Value>, _>(Own(0))).build();
    assert!(matches!(copy, Err(BuildError::FunctionType { .. })), "{copy:?}");
}

#[test]
fn an_error_reaches_the_caller_as_its_own_type() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = builder(CALLER)
        .func("env", "f", |_: Caller<'_>, a: i32| -> Result<i32, HostError> {
            match a {
                0 => Err(Own(1).into()),
                1 => Err(std::io::Error::other("of another type").into()),
                2 => Err("only a text".into()),
                a => Ok(a),
            }
        })
        .build()
        .unwrap();
    let error = sandbox.call::<_, i32>("call", 0).unwrap_err();
    assert_eq!(error.host_error::<Own>(), Some(&Own(1)));
    assert!(error.host_error::<std::io::Error>().is_none() && error.trap().is_none());
    assert_eq!(error.to_string(), "the host function env::f failed: own error 1");
    assert_eq!(error.source().unwrap().to_string(), "own error 1");
    assert_eq!(sandbox.state(), SandboxState::Poisoned(Poison::HostError));
    sandbox.clear_poison().unwrap();
    let error = sandbox.call::<_, i32>("call", 1).unwrap_err();
    assert!(error.host_error::<Own>().is_none() && error.host_error::<std::io::Error>().is_some());
    sandbox.clear_poison().unwrap();
    assert!(sandbox.call::<_, i32>("call", 2).unwrap_err().to_string().ends_with("only a text"));
    sandbox.clear_poison().unwrap();
    assert_eq!(sandbox.call::<_, i32>("call", 3).unwrap(), 3);
    assert_eq!((sandbox.counters().host_errors, sandbox.counters().traps), (3, 0));
}

/// The guest is unwound and what it had is freed, each time.
#[test]
fn errors_without_number_leak_nothing() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = builder(CALLER).func("env", "f", |_: Caller<'_>, a: i32| Err::<i32, _>(Own(a))).build().unwrap();
    let call = sandbox.func::<i32, i32>("call").unwrap();
    let mut fail = |number: i32| {
        let error = sandbox.call_func(call, number).unwrap_err();
        assert_eq!(error.host_error::<Own>(), Some(&Own(number)));
        sandbox.clear_poison().unwrap();
        sandbox.stats().touched_bytes
    };
    let before = (0..100).map(&mut fail).last().unwrap();
    let after = (0..10_000).map(&mut fail).last().unwrap();
    assert_eq!(before, after);
}

#[test]
fn pointers_of_the_guest_are_checked() {
    if !kvm::usable() {
        return;
    }
    let text = r#"(module
        (import "env" "copy" (func $copy (param i32 i32 i32)))
        (memory (export "memory") 2)
        (func (export "copy") (param i32 i32 i32) (call $copy (local.get 0) (local.get 1) (local.get 2)))
        (func (export "load") (param i32) (result i32) (i32.load8_u (local.get 0))))"#;
    let mut sandbox = builder(text)
        .func("env", "copy", |mut caller: Caller<'_>, to: u32, from: u32, bytes: u32| -> Result<(), AccessError> {
            assert_eq!(caller.memory_bytes(), 131_072);
            let data = caller.read_memory_to_vec(from.into(), bytes.into())?;
            caller.write_memory(to.into(), &data)
        })
        .build()
        .unwrap();
    sandbox.write_memory(100, b"some text").unwrap();
    sandbox.call::<_, ()>("copy", (131_072 - 9, 100, 9)).unwrap();
    assert_eq!(sandbox.call::<_, i32>("load", 131_071).unwrap(), i32::from(b't'));
    sandbox.call::<_, ()>("copy", (131_072, 131_072, 0)).unwrap();
    for (to, from, bytes) in [(131_072 - 8, 100, 9), (0, 131_064, 9), (0, u32::MAX, 1), (0, 1, u32::MAX), (u32::MAX, 0, 1)] {
        let error = sandbox.call::<_, ()>("copy", (to, from, bytes)).unwrap_err();
        assert!(matches!(error.host_error(), Some(AccessError::OutOfBounds { .. })), "{error}");
        sandbox.clear_poison().unwrap();
    }
    // A module that exports no memory has none for functions of the host.
    let text = r#"(module (import "env" "size" (func $f (result i64))) (memory 1) (func (export "f") (result i64) (call $f)))"#;
    let size = |caller: Caller<'_>| {
        assert!(caller.read_memory(0, &mut [0]).is_err());
        caller.memory_bytes()
    };
    assert_eq!(builder(text).func("env", "size", size).build().unwrap().call::<_, i64>("f", ()).unwrap(), 0);
}

/// The memory may have moved since the call began.
#[test]
fn memory_that_grew_in_the_call_is_seen() {
    if !kvm::usable() {
        return;
    }
    let text = r#"(module
        (import "env" "look" (func $look (param i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "f") (param $pages i32) (result i32) (local $end i32)
            (drop (memory.grow (local.get $pages)))
            (local.set $end (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 4)))
            (i32.store (local.get $end) (i32.const 77))
            (drop (call $look (local.get $end)))
            (i32.load (local.get $end))))"#;
    let look = |mut caller: Caller<'_>, at: u32| -> Result<i32, AccessError> {
        let mut word = [0; 4];
        caller.read_memory(at.into(), &mut word)?;
        caller.write_memory(at.into(), &(i32::from_le_bytes(word) + 1).to_le_bytes())?;
        Ok(0)
    };
    let mut sandbox = builder(text).func("env", "look", look).build().unwrap();
    for pages in [0, 1, 40, 100, 1] {
        assert_eq!(sandbox.call::<_, i32>("f", pages).unwrap(), 78);
    }
}

#[test]
fn a_panic_poisons_the_sandbox_until_it_is_restored() {
    if !kvm::usable() {
        return;
    }
    let panics = |_: Caller<'_>, a: i32| if a < 0 { std::panic::resume_unwind(Box::new("as asked for")) } else { a };
    let mut sandbox = builder(CALLER).func("env", "f", panics).build().unwrap();
    let snapshot = sandbox.snapshot().unwrap();
    for _ in 0..3 {
        let payload = catch_unwind(AssertUnwindSafe(|| sandbox.call::<_, i32>("call", -1))).unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&"as asked for"));
        assert_eq!(sandbox.state(), SandboxState::Poisoned(Poison::Fault));
        assert!(matches!(sandbox.call::<_, i32>("call", 1), Err(CallError::Poisoned(Poison::Fault))));
        assert!(sandbox.clear_poison().is_err() && sandbox.snapshot().is_err());
        assert!(!sandbox.interrupt_handle().interrupt_any(), "no call runs any more");
        sandbox.restore(&snapshot).unwrap();
        assert_eq!(sandbox.call::<_, i32>("call", 1).unwrap(), 1);
    }
}

#[test]
fn fuel_is_read_and_refilled() {
    if !kvm::usable() {
        return;
    }
    let text = r#"(module
        (import "env" "f" (func $f (param i64) (result i64)))
        (func (export "call") (param i64) (result i64) (call $f (local.get 0)))
        (func (export "loop") (param i64) (param $n i32)
            (loop (drop (call $f (local.get 0)))
                (br_if 0 (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))))"#;
    let f = |mut caller: Caller<'_>, refill: i64| {
        let Some(left) = caller.fuel() else { return -1 };
        if refill >= 0 {
            caller.set_fuel(refill.cast_unsigned());
            assert_eq!(caller.fuel(), Some(refill.cast_unsigned()));
        }
        left.cast_signed()
    };
    let mut sandbox = builder(text).func("env", "f", f).fuel(10_000).build().unwrap();
    // The first call of a function also pays for its translation.
    sandbox.call::<_, i64>("call", -1i64).unwrap();
    let left: i64 = sandbox.call("call", -1i64).unwrap();
    assert!((9_900..10_000).contains(&left), "{left}");
    let plain = sandbox.fuel_consumed();
    assert!((10_000 - left.cast_unsigned()..100).contains(&plain), "{plain}");
    // What is given on the way is not counted as consumed, nor what is taken away.
    for refill in [1_000_000i64, 10_000, 500] {
        assert_eq!(sandbox.call::<_, i64>("call", refill).unwrap(), left, "each call begins with as much");
        assert_eq!(sandbox.fuel_consumed(), plain);
    }
    let error = sandbox.call::<_, ()>("loop", (0i64, 2)).unwrap_err();
    assert_eq!(error.trap().map(|trap| trap.kind), Some(TrapKind::OutOfFuel));
    sandbox.clear_poison().unwrap();
    // Far more than it was given at first.
    let error = sandbox.call::<_, ()>("loop", (-1i64, 100_000)).unwrap_err();
    assert_eq!(error.trap().map(|trap| trap.kind), Some(TrapKind::OutOfFuel));
    sandbox.clear_poison().unwrap();
    sandbox.call::<_, ()>("loop", (10_000i64, 2_000)).unwrap();
    assert!(sandbox.fuel_consumed() > 10_000, "{}", sandbox.fuel_consumed());
    // The largest number is an amount like others.
    sandbox.call::<_, i64>("call", i64::MAX).unwrap();

    let mut uncounted = builder(text).func("env", "f", f).build().unwrap();
    assert_eq!(uncounted.call::<_, i64>("call", 5i64).unwrap(), -1);
    assert_eq!(uncounted.fuel_consumed(), 0);
}

#[test]
fn data_is_found_by_its_type() {
    if !kvm::usable() {
        return;
    }
    let f = |mut caller: Caller<'_>, a: i32| -> Result<i32, Own> {
        assert!(caller.data::<u8>().is_none());
        let sum = caller.data::<Vec<i32>>().ok_or(Own(a))?;
        sum.push(a);
        Ok(sum.iter().sum())
    };
    let mut sandbox = builder(CALLER).func("env", "f", f).data(vec![100]).build().unwrap();
    assert_eq!(sandbox.call::<_, i32>("call", 1).unwrap(), 101);
    assert_eq!(sandbox.call::<_, i32>("call", 2).unwrap(), 103);
    assert_eq!(sandbox.take_data::<String>(), None);
    assert_eq!(sandbox.take_data::<Vec<i32>>(), Some(vec![100, 1, 2]));
    assert_eq!(sandbox.take_data::<Vec<i32>>(), None);
    assert!(sandbox.call::<_, i32>("call", 3).unwrap_err().host_error::<Own>().is_some());
    sandbox.clear_poison().unwrap();
    sandbox.set_data(vec![5]);
    assert_eq!(sandbox.call::<_, i32>("call", 1).unwrap(), 6);
}

#[test]
fn a_function_that_polls_ends_with_the_deadline() {
    if !kvm::usable() {
        return;
    }
    let polls = |caller: Caller<'_>, how: i32| match how {
        0 => {
            while !caller.is_interrupted() {
                thread::yield_now();
            }
            assert_eq!(caller.remaining(), Some(Duration::ZERO));
            Ok(0)
        }
        1 => {
            assert!(caller.sleep(Duration::from_millis(1)));
            assert!(!caller.sleep(Duration::from_secs(3600)));
            Err(Own(1))
        }
        // It does not look, but the guest does not go on.
        _ => {
            thread::sleep(caller.remaining().unwrap() + Duration::from_millis(1));
            Ok(0)
        }
    };
    let mut sandbox = builder(CALLER).func("env", "f", polls).build().unwrap();
    let snapshot = sandbox.snapshot().unwrap();
    sandbox.set_deadline(Some(Duration::from_millis(50)));
    for how in 0..3 {
        let started = Instant::now();
        let error = sandbox.call::<_, i32>("call", how).unwrap_err();
        assert!(matches!(error, CallError::DeadlineExceeded), "{how}: {error}");
        assert!((Duration::from_millis(50)..Duration::from_secs(20)).contains(&started.elapsed()), "{how}");
        assert_eq!(sandbox.state(), SandboxState::Poisoned(Poison::DeadlineExceeded));
        sandbox.restore(&snapshot).unwrap();
    }
    assert_eq!(sandbox.counters().deadlines, 3);
}

#[test]
fn an_interrupt_ends_a_function_that_polls() {
    if !kvm::usable() {
        return;
    }
    let (entered, wait) = mpsc::channel();
    let wait = Mutex::new(wait);
    let polls = move |caller: Caller<'_>, how: i32| {
        assert!(!caller.is_interrupted());
        entered.send(()).unwrap();
        if how == 0 {
            while !caller.is_interrupted() {
                thread::yield_now();
            }
        } else {
            assert!(!caller.sleep(Duration::from_secs(3600)));
        }
        how
    };
    let mut sandbox = builder(CALLER).func("env", "f", polls).without_deadline().build().unwrap();
    let snapshot = sandbox.snapshot().unwrap();
    for how in [0, 1] {
        let handle = sandbox.interrupt_handle();
        let error = thread::scope(|scope| {
            scope.spawn(|| {
                wait.lock().unwrap().recv().unwrap();
                assert!(handle.interrupt());
            });
            sandbox.call::<_, i32>("call", how).unwrap_err()
        });
        assert!(matches!(error, CallError::Interrupted), "{error}");
        sandbox.restore(&snapshot).unwrap();
    }
}

/// `nested` calls the host, which calls another sandbox, prints, and never ends.
const NESTING: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "env" "inner" (func $inner (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "\20\00\00\00\02\00\00\00") (data (i32.const 32) "hi")
    (func (export "nested")
        (drop (call $inner))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
        (loop (br 0))))"#;

/// A sandbox that calls another one in a function of the host.
fn nesting(stdout: Output) -> Sandbox {
    let inner = Mutex::new(builder(MEMORY).build().unwrap());
    let call_inner = move |_: Caller<'_>| -> Result<i32, CallError> { inner.lock().unwrap().call("count", ()) };
    builder(NESTING).func("env", "inner", call_inner).stdout(stdout).without_deadline().build().unwrap()
}

/// Longer than anything takes here that works.
const LONG: Duration = Duration::from_secs(10);

#[test]
fn the_deadline_holds_after_a_call_of_another_sandbox() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = nesting(Output::Null);
    sandbox.set_deadline(Some(Duration::from_millis(300)));
    let handle = sandbox.interrupt_handle();
    let (ended, end) = mpsc::channel();
    let started = Instant::now();
    let error = thread::scope(|scope| {
        // So that a failure does not last for ever.
        scope.spawn(move || end.recv_timeout(LONG).is_err() && handle.interrupt());
        let error = sandbox.call::<_, ()>("nested", ()).unwrap_err();
        ended.send(()).unwrap_or(());
        error
    });
    assert!(matches!(error, CallError::DeadlineExceeded), "{error} after {:?}", started.elapsed());
    assert_eq!(sandbox.counters().host_calls, 1);
}

#[test]
fn output_is_seen_after_a_call_of_another_sandbox() {
    if !kvm::usable() {
        return;
    }
    let (printed, output) = mpsc::channel();
    let stdout = Output::callback(move |bytes| {
        printed.send(bytes.to_vec()).unwrap_or(());
        Ok(())
    });
    let mut sandbox = nesting(stdout);
    let handle = sandbox.interrupt_handle();
    let seen = thread::scope(|scope| {
        let supervisor = scope.spawn(move || {
            let seen = output.recv_timeout(LONG);
            assert!(handle.interrupt());
            seen
        });
        let error = sandbox.call::<_, ()>("nested", ()).unwrap_err();
        assert!(matches!(error, CallError::Interrupted), "{error}");
        supervisor.join().unwrap()
    });
    assert_eq!(seen.as_deref(), Ok(&b"hi"[..]), "what it printed before it was interrupted");
}

#[test]
fn output_and_calls_keep_their_order() {
    if !kvm::usable() {
        return;
    }
    let text = r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (import "env" "f" (func $f (param i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "\20\00\00\00\01\00\00\00") (data (i32.const 32) "A")
        (func (export "call") (param $n i32)
            (loop
                (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
                (drop (call $f (i32.const 0)))
                (i32.store8 (i32.const 32) (i32.add (i32.load8_u (i32.const 32)) (i32.const 1)))
                (br_if 0 (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))))"#;
    let events = Arc::new(Mutex::new(String::new()));
    let [printed, called] = [Arc::clone(&events), Arc::clone(&events)];
    let stdout = Output::callback(move |bytes| {
        printed.lock().unwrap().push_str(std::str::from_utf8(bytes).unwrap());
        Ok(())
    });
    let f = move |_: Caller<'_>, a: i32| {
        called.lock().unwrap().push('-');
        a
    };
    let mut sandbox = builder(text).stdout(stdout).func("env", "f", f).build().unwrap();
    sandbox.call::<_, ()>("call", 20).unwrap();
    let expected: String = (b'A'..b'A' + 20).flat_map(|letter| [char::from(letter), '-']).collect();
    assert_eq!(*events.lock().unwrap(), expected);
}

#[test]
fn a_copy_has_the_functions_of_the_snapshot_or_new_ones_of_the_same_types() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = builder(CALLER).func("env", "f", |_: Caller<'_>, a: i32| a + 1).build().unwrap();
    let snapshot = sandbox.snapshot().unwrap();
    assert_eq!(Sandbox::from_snapshot(&snapshot).unwrap().call::<_, i32>("call", 1).unwrap(), 2);
    let mut other = snapshot
        .sandbox()
        .func("env", "unused", |_: Caller<'_>| {})
        .func("env", "f", |_: Caller<'_>, a: i32| a + 10)
        .build()
        .unwrap();
    assert_eq!(other.call::<_, i32>("call", 1).unwrap(), 11);
    for (name, error) in [
        ("another name", snapshot.sandbox().func("env", "g", |_: Caller<'_>, a: i32| a).build()),
        ("another type", snapshot.sandbox().func("env", "f", |_: Caller<'_>, a: i64| a).build()),
    ] {
        assert!(matches!(&error, Err(BuildError::MissingFunction { name, .. }) if name == "env::f"), "{name}: {error:?}");
    }
}
