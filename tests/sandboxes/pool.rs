//! Pools.

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use mote_vmm::{
    CallError, Caller, Checkout, Input, InterruptHandle, Output, Pool, PoolError, PoolOptions, Sandbox, SandboxState,
    SharedBuffer, Snapshot, Value,
};

use super::guests::{ECHO, MEMORY, build, builder};
use crate::support::kvm;

fn options(max_sandboxes: usize, prewarmed: usize) -> PoolOptions {
    PoolOptions { max_sandboxes, prewarmed }
}

fn snapshot() -> Snapshot {
    build(MEMORY).snapshot().unwrap()
}

#[test]
fn a_pool_is_bounded_and_counts_what_happens() {
    if !kvm::usable() {
        return;
    }
    let pool = Pool::new(&snapshot(), options(2, 1)).unwrap();
    assert_eq!((pool.stats().idle, pool.stats().created, pool.stats().checkouts), (1, 1, 0));
    let mut first = pool.checkout(Checkout::Fail).unwrap();
    let second = pool.checkout(Checkout::Fail).unwrap();
    assert_eq!((pool.stats().idle, pool.stats().in_use, pool.stats().created), (0, 2, 2));
    assert!(matches!(pool.checkout(Checkout::Fail), Err(PoolError::Exhausted(2))));
    let started = Instant::now();
    assert!(matches!(pool.checkout(Checkout::WaitFor(Duration::from_millis(30))), Err(PoolError::Exhausted(2))));
    assert!(started.elapsed() >= Duration::from_millis(30));
    assert_eq!(first.call::<_, i32>("count", ()).unwrap(), 1);
    drop(first);
    let stats = pool.stats();
    assert_eq!((stats.idle, stats.in_use, stats.restored, stats.replaced), (1, 1, 1, 0));
    assert_eq!((stats.checkouts, stats.exhausted, stats.waits), (2, 2, 1));
    drop(second);
    for _ in 0..5 {
        pool.checkout(Checkout::Wait).unwrap();
    }
    assert_eq!((pool.stats().created, pool.stats().idle, pool.stats().checkouts), (2, 2, 7));
    // None at a time would be no pool.
    let least = Pool::new(&snapshot(), options(0, 9)).unwrap();
    assert_eq!(least.stats().created, 1);
    let _only = least.checkout(Checkout::Fail).unwrap();
    assert!(matches!(least.checkout(Checkout::Fail), Err(PoolError::Exhausted(1))));
}

#[test]
fn who_waits_gets_the_one_that_comes_back() {
    if !kvm::usable() {
        return;
    }
    let pool = Pool::new(&snapshot(), options(1, 1)).unwrap();
    let pool = &pool;
    let held = pool.checkout(Checkout::Fail).unwrap();
    thread::scope(|scope| {
        let waiters: Vec<_> = [Checkout::Wait, Checkout::WaitFor(Duration::from_secs(30)), Checkout::Wait]
            .into_iter()
            .map(|how| scope.spawn(move || pool.checkout(how).unwrap().call::<_, i32>("count", ()).unwrap()))
            .collect();
        while pool.stats().waits < 3 {
            thread::yield_now();
        }
        drop(held);
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), 1);
        }
    });
    assert_eq!((pool.stats().created, pool.stats().restored, pool.stats().exhausted), (1, 4, 0));
}

#[test]
fn there_are_never_more_than_allowed() {
    if !kvm::usable() {
        return;
    }
    let pool = Pool::new(&snapshot(), options(3, 0)).unwrap();
    let (now, most, start) = (AtomicUsize::new(0), AtomicUsize::new(0), Barrier::new(8));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                start.wait();
                for _ in 0..25 {
                    let mut sandbox = pool.checkout(Checkout::Wait).unwrap();
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    assert_eq!(sandbox.call::<_, i32>("count", ()).unwrap(), 1);
                    now.fetch_sub(1, Ordering::SeqCst);
                }
            });
        }
    });
    let stats = pool.stats();
    assert!(most.into_inner() <= 3 && stats.created <= 3, "{stats:?}");
    assert_eq!((stats.in_use, stats.checkouts, stats.restored), (0, 200, 200));
    assert_eq!(stats.idle as u64, stats.created);
}

/// Whatever was done with the one that was lent out before.
#[test]
fn every_checkout_is_clean() {
    if !kvm::usable() {
        return;
    }
    let pool = Pool::new(&snapshot(), options(1, 1)).unwrap();
    let misuse: [fn(&mut Sandbox); 9] = [
        |sandbox| sandbox.write_memory(0, &[0xff; 65536]).unwrap(),
        |sandbox| sandbox.set_global("g", Value::I32(99)).unwrap(),
        |sandbox| assert_eq!(sandbox.call::<_, i32>("grow", 500).unwrap(), 1),
        |sandbox| assert!(sandbox.call::<_, ()>("trap", ()).is_err()),
        |sandbox| assert!(sandbox.call::<_, ()>("overflow", ()).is_err()),
        |sandbox| assert!(sandbox.instantiate(MEMORY.as_bytes()).is_ok()),
        |sandbox| {
            sandbox.set_deadline(Some(Duration::from_millis(3)));
            assert!(matches!(sandbox.call::<_, ()>("spin", ()), Err(CallError::DeadlineExceeded)));
        },
        |sandbox| {
            sandbox.interrupt_handle().interrupt();
            assert!(matches!(sandbox.call::<_, ()>("spin", ()), Err(CallError::Interrupted)));
        },
        |sandbox| {
            // It belongs to a snapshot of its own from then on.
            sandbox.call::<_, i32>("count", ()).unwrap();
            sandbox.snapshot().unwrap();
        },
    ];
    for (number, misuse) in misuse.into_iter().enumerate() {
        misuse(&mut pool.checkout(Checkout::Fail).unwrap());
        let mut sandbox = pool.checkout(Checkout::Fail).unwrap();
        assert_eq!(sandbox.state(), SandboxState::Ready, "{number}");
        assert_eq!(sandbox.call::<_, i32>("count", ()).unwrap(), 1, "{number}");
        assert_eq!((sandbox.memory_bytes().unwrap(), sandbox.global("g").unwrap()), (65536, Value::I32(7)), "{number}");
        assert_eq!(sandbox.call::<_, i32>("load", 65535).unwrap(), 0, "{number}");
    }
    assert_eq!((pool.stats().created, pool.stats().replaced), (1, 0));
}

/// Nor is anything left of what is the host's.
#[test]
fn streams_limits_data_and_handles_of_one_user_are_not_those_of_the_next() {
    if !kvm::usable() {
        return;
    }
    let text = r#"(module
        (import "env" "data" (func $data (result i32)))
        (func (export "data") (result i32) (call $data))
        (func (export "loop") (param $n i32) (loop (br_if 0 (local.tee $n (i32.sub (local.get $n) (i32.const 1))))))
        (func (export "nothing")))"#;
    let data = |mut caller: Caller<'_>| caller.data::<i32>().copied().unwrap_or(-1);
    let snapshot = builder(text).func("env", "data", data).fuel(100_000).build().unwrap().snapshot().unwrap();
    for configured in [None, Some(5)] {
        let pool = Pool::with(&snapshot, options(1, 1), move |copy| match configured {
            Some(number) => copy.data(number),
            None => copy,
        });
        let pool = pool.unwrap();
        let expected = configured.unwrap_or(-1);
        let mut sandbox = pool.checkout(Checkout::Fail).unwrap();
        assert_eq!(sandbox.call::<_, i32>("data", ()).unwrap(), expected);
        sandbox.set_data(77);
        sandbox.set_deadline(Some(Duration::ZERO));
        sandbox.set_fuel(1);
        let handle = sandbox.interrupt_handle();
        let used = sandbox.interrupt_handle();
        used.interrupt();
        drop(sandbox);
        let mut sandbox = pool.checkout(Checkout::Fail).unwrap();
        assert!(!handle.interrupt(), "it was for a call of somebody else");
        assert_eq!(sandbox.call::<_, i32>("data", ()).unwrap(), expected);
        sandbox.call::<_, ()>("loop", 1_000).unwrap();
    }
}

/// Whoever kept a handle cannot end what somebody else runs later in the same sandbox.
#[test]
fn a_handle_of_one_user_does_nothing_to_the_next() {
    if !kvm::usable() {
        return;
    }
    let pool = Pool::new(&snapshot(), options(1, 1)).unwrap();
    let by_call: fn(&InterruptHandle) -> bool = InterruptHandle::interrupt;
    for interrupt in [by_call, InterruptHandle::interrupt_any] {
        // One of a call that never began, one of a call that ended, and one that was used.
        let mut user = pool.checkout(Checkout::Fail).unwrap();
        let ended = user.interrupt_handle();
        user.call::<_, i32>("count", ()).unwrap();
        let used = user.interrupt_handle();
        used.interrupt();
        assert!(matches!(user.call::<_, ()>("spin", ()), Err(CallError::Interrupted)));
        let handles = [ended, used, user.interrupt_handle()];
        drop(user);

        let mut next = pool.checkout(Checkout::Fail).unwrap();
        assert_eq!(handles.each_ref().map(interrupt), [false; 3], "before the next user calls anything");
        assert_eq!(next.call::<_, i32>("count", ()).unwrap(), 1);
        next.set_deadline(Some(Duration::from_millis(300)));
        let (done, stop) = (AtomicBool::new(false), &AtomicBool::new(false));
        thread::scope(|scope| {
            let storm = scope.spawn(|| {
                let mut hits = 0;
                while !stop.load(Ordering::Relaxed) {
                    hits += handles.iter().filter(|handle| interrupt(handle)).count();
                    done.store(true, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(1));
                }
                hits
            });
            while !done.load(Ordering::Relaxed) {
                thread::yield_now();
            }
            let result = next.call::<_, ()>("spin", ());
            stop.store(true, Ordering::Relaxed);
            assert!(matches!(result, Err(CallError::DeadlineExceeded)), "{result:?}");
            assert_eq!(storm.join().unwrap(), 0);
        });
    }
    assert_eq!((pool.stats().created, pool.stats().replaced), (1, 0), "it is the same sandbox");
}

#[test]
fn each_checkout_has_the_streams_that_were_configured() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = builder(ECHO).build().unwrap();
    sandbox.start_until_input().unwrap();
    let snapshot = sandbox.snapshot().unwrap();
    let stdout = SharedBuffer::new(1 << 10);
    let (buffer, number) = (stdout.clone(), AtomicUsize::new(0));
    let pool = Pool::with(&snapshot, options(1, 1), move |copy| {
        let text = format!("input {}\n", number.fetch_add(1, Ordering::Relaxed));
        copy.stdin(Input::Bytes(text.into())).stdout(Output::Buffer(buffer.clone()))
    });
    let pool = pool.unwrap();
    for _ in 0..3 {
        let mut sandbox = pool.checkout(Checkout::Fail).unwrap();
        assert_eq!(sandbox.state(), SandboxState::AtInput);
        assert_eq!(sandbox.resume().unwrap(), 3);
        sandbox.set_stdout(Output::Null);
    }
    assert_eq!(String::from_utf8(stdout.contents()).unwrap(), "input 0\ninput 1\ninput 2\n");
}

#[test]
fn a_stream_that_one_user_broke_is_whole_for_the_next() {
    if !kvm::usable() {
        return;
    }
    const PIPE: i32 = 64;
    let broken = || Output::callback(|_| Err(std::io::ErrorKind::BrokenPipe.into()));
    let outputs: [fn() -> Output; 2] = [broken, || Output::Buffer(SharedBuffer::new(1))];
    let snapshot = builder(super::streams::FLOOD).build().unwrap().snapshot().unwrap();
    let pool = Pool::new(&snapshot, options(1, 1)).unwrap();
    for output in outputs {
        let mut sandbox = pool.checkout(Checkout::Fail).unwrap();
        sandbox.set_stdout(output());
        assert_eq!(sandbox.call::<_, i32>("flood", ()).unwrap(), PIPE);
        drop(sandbox);
        let mut sandbox = pool.checkout(Checkout::Fail).unwrap();
        let buffer = SharedBuffer::new(100);
        sandbox.set_stdout(Output::Buffer(buffer.clone()));
        assert_eq!(sandbox.call::<_, i32>("print", ()).unwrap(), 0);
        assert_eq!(buffer.contents(), b"hello");
    }
    assert_eq!((pool.stats().created, pool.stats().replaced), (1, 0), "it is the same sandbox");
}

#[test]
fn one_that_cannot_be_cleaned_is_replaced() {
    if !kvm::usable() {
        return;
    }
    let pool = Pool::new(&snapshot(), options(1, 1)).unwrap();
    for replaced in 1..=3 {
        // Somebody puts another sandbox in its place, with other RAM.
        let mut lent = pool.checkout(Checkout::Fail).unwrap();
        let own = std::mem::replace(&mut *lent, builder(MEMORY).ram_bytes(32 << 20).build().unwrap());
        drop((lent, own));
        assert_eq!((pool.stats().replaced, pool.stats().idle, pool.stats().in_use), (replaced, 0, 0));
        let mut new = pool.checkout(Checkout::Fail).unwrap();
        assert_eq!(new.call::<_, i32>("count", ()).unwrap(), 1);
        assert_eq!(pool.stats().created, replaced + 1);
    }
}

#[test]
fn a_pool_that_cannot_make_any_says_so() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = builder(MEMORY).func("env", "f", |_: Caller<'_>| {}).build().unwrap();
    let snapshot = sandbox.snapshot().unwrap();
    let wrong = |copy: mote_vmm::CopyBuilder| copy.func("env", "g", |_: Caller<'_>| {});
    assert!(Pool::with(&snapshot, options(2, 1), wrong).is_err());
    let pool = Pool::with(&snapshot, options(2, 0), wrong).unwrap();
    for _ in 0..3 {
        assert!(matches!(pool.checkout(Checkout::Wait), Err(PoolError::Build(_))));
    }
    assert_eq!((pool.stats().in_use, pool.stats().created, pool.stats().checkouts), (0, 0, 0));
}

/// A user that panics gives its sandbox back like any other.
#[test]
fn a_panic_gives_the_sandbox_back() {
    if !kvm::usable() {
        return;
    }
    let pool = Arc::new(Pool::new(&snapshot(), options(1, 1)).unwrap());
    let user = Arc::clone(&pool);
    let panicked = thread::spawn(move || {
        let mut sandbox = user.checkout(Checkout::Fail).unwrap();
        sandbox.call::<_, i32>("count", ()).unwrap();
        std::panic::resume_unwind(Box::new(()));
    });
    assert!(panicked.join().is_err());
    assert_eq!(pool.checkout(Checkout::Fail).unwrap().call::<_, i32>("count", ()).unwrap(), 1);
}
