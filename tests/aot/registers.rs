//! Vector registers of compiled code: whatever interrupts it, they hold what it put there.

use std::{fmt::Write, thread, time::Duration};

use mote_vmm::{CallError, Sandbox, Value};

use super::guests::{build, builder};
use crate::support::kvm;

/// More values than there are registers with AVX-512, so that all are in use.
const VALUES: usize = 40;

/// Values of 128 bits that are alive at once and turned into each other, for a number of rounds; then one number of all.
fn mixer() -> String {
    let mut text = String::from(r#"(module (func $mix (export "mix") (param $seed i64) (param $rounds i64) (result i64)"#);
    for index in 0..VALUES {
        write!(text, "(local $v{index} v128)").unwrap();
    }
    for index in 0..VALUES {
        write!(text, "(local.set $v{index} (i64x2.splat (i64.mul (local.get $seed) (i64.const {}))))", 2 * index + 1).unwrap();
    }
    text.push_str("(loop $again");
    for index in 0..VALUES {
        let next = (index + 1) % VALUES;
        write!(
            text,
            "(local.set $v{index} (i64x2.add (v128.xor (local.get $v{index}) (local.get $v{next})) (i64x2.shl (local.get $v{index}) (i32.const 7))))"
        )
        .unwrap();
    }
    text.push_str("(br_if $again (i64.ne (local.tee $rounds (i64.sub (local.get $rounds) (i64.const 1))) (i64.const 0))))");
    for index in 1..VALUES {
        write!(text, "(local.set $v0 (v128.xor (local.get $v0) (i64x2.shl (local.get $v{index}) (i32.const {}))))", index % 64)
            .unwrap();
    }
    text.push_str(
        "(i64.xor (i64x2.extract_lane 0 (local.get $v0)) (i64.mul (i64.const 3) (i64x2.extract_lane 1 (local.get $v0))))))",
    );
    text
}

/// The same here.
fn mixed(seed: i64, rounds: i64) -> i64 {
    let mut values: Vec<i64> = (0..VALUES as i64).map(|index| seed.wrapping_mul(2 * index + 1)).collect();
    for _ in 0..rounds {
        for index in 0..VALUES {
            values[index] = (values[index] ^ values[(index + 1) % VALUES]).wrapping_add(values[index] << 7);
        }
    }
    let all = (1..VALUES).fold(values[0], |all, index| all ^ values[index] << (index % 64));
    all ^ all.wrapping_mul(3)
}

/// So many rounds that a call takes some tenths of a second, in which it is kicked and preempted often.
const ROUNDS: i64 = 1_000_000;

#[test]
fn vector_registers_survive_kicks_and_other_sandboxes() {
    if !kvm::usable() {
        return;
    }
    let expected: Vec<i64> = (1..9).map(|seed| mixed(seed, ROUNDS)).collect();
    // More threads than processors.
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let expected = expected.clone();
            thread::spawn(move || {
                let mut sandboxes = [build(&mixer()), build(&mixer())];
                for round in 0..4 {
                    for (index, sandbox) in sandboxes.iter_mut().enumerate() {
                        let seed = (thread * 3 + round + index) % 8;
                        let result: i64 = sandbox.call("mix", (seed as i64 + 1, ROUNDS)).unwrap();
                        assert_eq!(result, expected[seed], "thread {thread}, round {round}");
                    }
                }
                assert!(sandboxes[0].stats().exits.signal > 0);
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

/// A call that is cut off with all registers in use; what comes after a restore is as it was.
#[test]
fn a_call_that_was_cut_off_leaves_nothing_in_registers() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = build(&mixer());
    let snapshot = sandbox.snapshot().unwrap();
    for milliseconds in 1..20 {
        sandbox.set_deadline(Some(Duration::from_millis(milliseconds)));
        assert!(matches!(sandbox.call::<_, i64>("mix", (1i64, i64::MAX)), Err(CallError::DeadlineExceeded)));
        sandbox.set_deadline(Some(Duration::from_secs(30)));
        sandbox.restore(&snapshot).unwrap();
        assert_eq!(sandbox.call::<_, i64>("mix", (3i64, 1000i64)).unwrap(), mixed(3, 1000));
    }
}

/// Host functions and output, in the middle of work on vectors.
#[test]
fn vector_registers_survive_calls_of_the_host() {
    if !kvm::usable() {
        return;
    }
    let mut locals = String::new();
    let (mut sets, mut uses) = (String::new(), String::new());
    for index in 0..VALUES {
        write!(locals, "(local $v{index} v128)").unwrap();
        write!(sets, "(local.set $v{index} (i64x2.splat (i64.add (local.get $seed) (i64.const {index}))))").unwrap();
        write!(uses, "(local.set $sum (i64.add (local.get $sum) (i64x2.extract_lane 1 (local.get $v{index}))))").unwrap();
    }
    let text = format!(
        r#"(module (import "env" "f" (func $f (param i64) (result i64)))
            (func (export "sum") (param $seed i64) (result i64) (local $sum i64) {locals} {sets}
                (local.set $sum (call $f (local.get $seed))) {uses} (local.get $sum)))"#
    );
    let other = std::sync::Mutex::new(build(&mixer()));
    let mut sandbox: Sandbox = builder(&text)
        .func("env", "f", move |_: mote_vmm::Caller<'_>, seed: i64| {
            // Another sandbox runs in the middle of this one, on the same thread.
            let result: i64 = other.lock().unwrap().call("mix", (seed, 100i64)).unwrap();
            assert_eq!(result, mixed(seed, 100));
            -seed
        })
        .build()
        .unwrap();
    for seed in 0..50i64 {
        let count = VALUES as i64;
        let expected = -seed + seed * count + count * (count - 1) / 2;
        assert_eq!(sandbox.call_dynamic("sum", &[Value::I64(seed)]).unwrap(), [Value::I64(expected)]);
    }
}
