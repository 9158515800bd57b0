//! Interrupts: they end the call that they are meant for, at any moment, and no other.

use std::{
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use mote_vmm::{CallError, InterruptHandle, Poison, SandboxState};
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use super::guests::{MEMORY, Random, builder};
use crate::support::kvm;

#[test]
fn a_handle_ends_the_call_that_runs() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = builder(MEMORY).without_deadline().build().unwrap();
    let snapshot = sandbox.snapshot().unwrap();
    for _ in 0..5 {
        let handle = sandbox.interrupt_handle();
        let error = thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(5));
                assert!(handle.interrupt());
            });
            sandbox.call::<_, ()>("spin", ()).unwrap_err()
        });
        assert!(matches!(error, CallError::Interrupted), "{error}");
        assert_eq!(sandbox.state(), SandboxState::Poisoned(Poison::Interrupted));
        assert!(!handle.interrupt(), "its call is over");
        sandbox.restore(&snapshot).unwrap();
        assert_eq!(sandbox.call::<_, i32>("count", ()).unwrap(), 1);
        sandbox.restore(&snapshot).unwrap();
    }
    assert_eq!(sandbox.counters().interrupts, 5);
}

#[test]
fn a_handle_that_was_used_early_ends_the_next_call_only() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = builder(MEMORY).build().unwrap();
    let snapshot = sandbox.snapshot().unwrap();
    let handle = sandbox.interrupt_handle();
    assert!(handle.interrupt() && handle.clone().interrupt());
    assert!(!handle.interrupt_any(), "no call runs");
    assert!(matches!(sandbox.call::<_, i32>("count", ()), Err(CallError::Interrupted)));
    sandbox.restore(&snapshot).unwrap();
    assert!(!handle.interrupt());
    for expected in 1..=5 {
        assert_eq!(sandbox.call::<_, i32>("count", ()).unwrap(), expected);
        assert!(!handle.interrupt() && !handle.interrupt_any());
    }
    // A restore is no call: what was meant for the next call still is.
    let handle = sandbox.interrupt_handle();
    handle.interrupt();
    sandbox.restore(&snapshot).unwrap();
    assert!(matches!(sandbox.call::<_, i32>("count", ()), Err(CallError::Interrupted)));
    // Handles of one sandbox mean nothing to its copies, and outlive it.
    let mut copy = mote_vmm::Sandbox::from_snapshot(&snapshot).unwrap();
    let handle = sandbox.interrupt_handle();
    handle.interrupt();
    assert_eq!(copy.call::<_, i32>("count", ()).unwrap(), 1);
    drop(sandbox);
    let _nobody_there = (handle.interrupt(), handle.interrupt_any());
}

#[test]
fn a_supervisor_ends_whatever_runs() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = builder(MEMORY).without_deadline().build().unwrap();
    let snapshot = sandbox.snapshot().unwrap();
    let handle = sandbox.interrupt_handle();
    sandbox.call::<_, i32>("count", ()).unwrap();
    for _ in 0..5 {
        // The handle's own call is long over.
        thread::scope(|scope| {
            scope.spawn(|| {
                while !handle.interrupt_any() {
                    thread::yield_now();
                }
            });
            assert!(matches!(sandbox.call::<_, ()>("spin", ()), Err(CallError::Interrupted)));
        });
        sandbox.restore(&snapshot).unwrap();
        assert_eq!(sandbox.call::<_, i32>("add", (1, 2)).unwrap(), 3);
    }
}

/// A thread interrupts calls at random moments about their ends; those that come after them must never notice.
#[test]
fn a_late_interrupt_never_ends_a_later_call() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = builder(MEMORY).build().unwrap();
    let snapshot = sandbox.snapshot().unwrap();
    let count = sandbox.func::<(), i32>("count").unwrap();
    let (to_racer, handles) = mpsc::channel::<(InterruptHandle, Duration)>();
    let (told, outcomes) = mpsc::channel();
    let racer = thread::spawn(move || {
        for (handle, after) in handles {
            let started = Instant::now();
            while started.elapsed() < after {
                std::hint::spin_loop();
            }
            told.send(handle.interrupt()).unwrap();
        }
    });
    let mut random = Random::new(7);
    let mut expected = 0;
    for trial in 0..1_000 {
        let after = Duration::from_nanos(random.below(120_000));
        to_racer.send((sandbox.interrupt_handle(), after)).unwrap();
        let was_interrupted = match sandbox.call_func(count, ()) {
            Ok(found) => {
                expected += 1;
                assert_eq!(found, expected, "trial {trial}");
                false
            }
            Err(CallError::Interrupted) => {
                sandbox.restore(&snapshot).unwrap();
                expected = 0;
                true
            }
            Err(error) => panic!("trial {trial}: {error}"),
        };
        // These race with the interrupt, which is not meant for them.
        for later in 0..3 {
            expected += 1;
            let found = sandbox.call_func(count, ()).unwrap_or_else(|error| panic!("trial {trial}, later call {later}: {error}"));
            assert_eq!(found, expected, "trial {trial}");
        }
        let came_in_time = outcomes.recv().unwrap();
        assert!(came_in_time || !was_interrupted, "trial {trial}: it did nothing, and the call was interrupted");
    }
    drop(to_racer);
    racer.join().unwrap();
}

/// Interrupts without pause while a sandbox works: each call ends right, or by an interrupt.
#[test]
fn a_storm_of_interrupts_changes_no_result() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = builder(MEMORY).build().unwrap();
    let snapshot = sandbox.snapshot().unwrap();
    let handle = sandbox.interrupt_handle();
    sandbox.call::<_, ()>("nothing", ()).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random::new(9);
            while !stop.load(Ordering::Relaxed) {
                handle.interrupt_any();
                thread::sleep(Duration::from_micros(random.below(300)));
            }
        });
        let mut expected = 0;
        for _ in 0..1_000 {
            match sandbox.call::<_, i32>("count", ()) {
                Ok(found) => {
                    expected += 1;
                    assert_eq!(found, expected);
                }
                Err(CallError::Interrupted) => {
                    sandbox.restore(&snapshot).unwrap();
                    expected = 0;
                }
                Err(error) => panic!("{error}"),
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(sandbox.counters().faults, 0);
}

/// Signals of the host's own, whose handlers do nothing.
#[test]
fn signals_disturb_neither_the_making_of_a_sandbox_nor_a_call() {
    extern "C" fn ignore(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    if !kvm::usable() {
        return;
    }
    register_signal_handler(SIGRTMIN(), ignore).unwrap();
    let user = thread::spawn(|| {
        for _ in 0..40 {
            let mut sandbox = builder(MEMORY).build().unwrap();
            let snapshot = sandbox.snapshot().unwrap();
            assert_eq!(sandbox.call::<_, i32>("count", ()).unwrap(), 1);
            sandbox.restore(&snapshot).unwrap();
            let mut copy = mote_vmm::Sandbox::from_snapshot(&snapshot).unwrap();
            assert_eq!(copy.call::<_, i32>("count", ()).unwrap(), 1);
        }
    });
    while !user.is_finished() {
        user.kill(SIGRTMIN()).unwrap();
        thread::sleep(Duration::from_micros(100));
    }
    user.join().unwrap();
}
