//! Many sandboxes on a few threads, under everything that can end a call, for a while: every result is right.

use std::{
    env,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use mote_vmm::{CallError, Caller, Checkout, InterruptHandle, Pool, PoolOptions, Sandbox, SandboxState, Snapshot, TrapKind};

use super::guests::{Random, builder};
use crate::support::kvm;

/// How long it goes on, in seconds; ten without it.
const SECONDS: &str = "MOTE_SOAK_SECONDS";
const DEFAULT_SECONDS: u64 = 10;
const SANDBOXES: usize = 64;
const THREADS: usize = 8;

const MODULE: &str = r#"(module
    (import "env" "mix" (func $mix (param i64) (result i64)))
    (memory (export "memory") 1)
    (global $sum (mut i64) (i64.const 0))
    (func (export "work") (param $seed i64) (param $rounds i32) (result i64)
        (loop $again
            (i64.store (i32.and (i32.wrap_i64 (local.get $seed)) (i32.const 0xfff8)) (local.get $seed))
            (local.set $seed (i64.add (i64.mul (local.get $seed) (i64.const 6364136223846793005)) (i64.const 1442695040888963407)))
            (br_if $again (local.tee $rounds (i32.sub (local.get $rounds) (i32.const 1)))))
        (global.set $sum (i64.add (global.get $sum) (local.get $seed)))
        (global.get $sum))
    (func (export "host") (param i64) (result i64)
        (global.set $sum (i64.add (global.get $sum) (call $mix (local.get 0))))
        (global.get $sum))
    (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
    (func (export "trap") unreachable)
    (func $overflow (export "overflow") (call $overflow))
    (func (export "spin") (loop (br 0))))"#;

fn mix(caller: Caller<'_>, value: u64) -> Result<u64, std::io::Error> {
    if caller.is_interrupted() {
        return Ok(0);
    }
    if value.is_multiple_of(7) { Err(std::io::Error::other(value.to_string())) } else { Ok(value.rotate_left(9)) }
}

/// What was asked for; none where tests are to be quick.
pub(crate) fn seconds() -> Option<u64> {
    env::var(SECONDS).ok().map(|seconds| seconds.parse().expect("a number of seconds"))
}

/// A sandbox, and what must be in it.
struct Tested {
    sandbox: Sandbox,
    sum: u64,
}

fn work(mut seed: u64, rounds: u32) -> u64 {
    for _ in 0..rounds {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    }
    seed
}

/// What happened, so that the test can tell that it did.
#[derive(Default)]
struct Seen {
    results: AtomicU64,
    traps: AtomicU64,
    deadlines: AtomicU64,
    interrupts: AtomicU64,
}

impl Seen {
    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Checks the end of a call, which interrupts may end at any time.
    fn check<T: PartialEq + std::fmt::Debug>(&self, result: Result<T, CallError>, expected: &T) {
        match result {
            Ok(found) => {
                assert_eq!(found, *expected);
                Self::count(&self.results);
            }
            Err(CallError::Interrupted) => Self::count(&self.interrupts),
            Err(error) => panic!("{error}"),
        }
    }

    fn check_end(&self, result: Result<(), CallError>, expected: impl Fn(&CallError) -> bool, counter: &AtomicU64) {
        match result {
            Err(CallError::Interrupted) => Self::count(&self.interrupts),
            Err(error) if expected(&error) => Self::count(counter),
            other => panic!("{other:?}"),
        }
    }
}

/// Something to a sandbox at random, and the check that it did what it should.
fn step(tested: &mut Tested, snapshot: &Snapshot, seen: &Seen, random: &mut Random) {
    let Tested { sandbox, sum } = tested;
    let trapped = |kind| move |error: &CallError| error.trap().is_some_and(|trap| trap.kind == kind);
    match random.below(16) {
        0..=5 => {
            let (seed, rounds) = (random.next(), random.below(3000) as u32 + 1);
            *sum = sum.wrapping_add(work(seed, rounds));
            seen.check(sandbox.call::<_, u64>("work", (seed, rounds)), sum);
        }
        6..=9 => match random.next() {
            value if value.is_multiple_of(7) => {
                let own = |error: &CallError| {
                    error.host_error::<std::io::Error>().is_some_and(|own| own.to_string() == value.to_string())
                };
                seen.check_end(sandbox.call::<_, u64>("host", value).map(drop), own, &seen.traps);
            }
            value => {
                *sum = sum.wrapping_add(value.rotate_left(9));
                seen.check(sandbox.call::<_, u64>("host", value), sum);
            }
        },
        10 => {
            let pages = sandbox.memory_bytes().map_or(0, |bytes| bytes / 65536) as i32;
            if pages > 0 && pages < 100 {
                seen.check(sandbox.call::<_, i32>("grow", random.below(9) as i32), &pages);
            }
        }
        11 => seen.check_end(sandbox.call::<_, ()>("trap", ()), trapped(TrapKind::Unreachable), &seen.traps),
        12 => seen.check_end(sandbox.call::<_, ()>("overflow", ()), trapped(TrapKind::StackOverflow), &seen.traps),
        13 => {
            sandbox.set_deadline(Some(Duration::from_micros(random.below(3000))));
            let late = |error: &CallError| matches!(error, CallError::DeadlineExceeded);
            seen.check_end(sandbox.call::<_, ()>("spin", ()), late, &seen.deadlines);
            sandbox.set_deadline(None);
        }
        14 => {
            *sandbox = Sandbox::from_snapshot(snapshot).unwrap();
            *sum = 0;
        }
        _ => {
            sandbox.restore(snapshot).unwrap();
            *sum = 0;
        }
    }
    if sandbox.state() != SandboxState::Ready {
        sandbox.restore(snapshot).unwrap();
        *sum = 0;
    }
}

/// The same on a sandbox out of a pool, which is clean.
fn pooled(pool: &Pool, seen: &Seen, random: &mut Random) {
    let mut sandbox = pool.checkout(Checkout::Wait).unwrap();
    let mut sum = 0u64;
    for _ in 0..random.below(4) {
        let (seed, rounds) = (random.next(), random.below(500) as u32 + 1);
        sum = sum.wrapping_add(work(seed, rounds));
        seen.check(sandbox.call::<_, u64>("work", (seed, rounds)), &sum);
    }
    if random.below(4) == 0 {
        assert!(sandbox.call::<_, ()>("trap", ()).is_err());
    }
}

#[test]
fn every_result_is_right() {
    if !kvm::usable() {
        return;
    }
    let end = Instant::now() + Duration::from_secs(seconds().unwrap_or(DEFAULT_SECONDS));
    let mut first = builder(MODULE).func("env", "mix", mix).without_deadline().build().unwrap();
    let snapshot = first.snapshot().unwrap();
    let pool = Pool::new(&snapshot, PoolOptions { max_sandboxes: 4, prewarmed: 2 }).unwrap();
    let seen = Seen::default();
    // Whoever has a number works on the sandbox; interrupts come without.
    let make = |_| Mutex::new(Tested { sandbox: Sandbox::from_snapshot(&snapshot).unwrap(), sum: 0 });
    let all: Vec<_> = (0..SANDBOXES).map(make).collect();
    let handles: Vec<Mutex<InterruptHandle>> =
        all.iter().map(|one| Mutex::new(one.lock().unwrap().sandbox.interrupt_handle())).collect();
    let stop = AtomicBool::new(false);
    let failed = AtomicBool::new(false);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (all, handles, pool, seen, snapshot, failed) = (&all, &handles, &pool, &seen, &snapshot, &failed);
                scope.spawn(move || {
                    let mut random = Random::new(thread as u64 + 1);
                    while Instant::now() < end && !failed.load(Ordering::Relaxed) {
                        let number = random.below(SANDBOXES as u64) as usize;
                        // One that panicked has told why.
                        let Ok(mut tested) = all[number].try_lock() else { continue };
                        step(&mut tested, snapshot, seen, &mut random);
                        *handles[number].lock().unwrap() = tested.sandbox.interrupt_handle();
                        drop(tested);
                        if random.below(8) == 0 {
                            pooled(pool, seen, &mut random);
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            let mut random = Random::new(99);
            while !stop.load(Ordering::Relaxed) {
                let handle = handles[random.below(SANDBOXES as u64) as usize].lock().unwrap().clone();
                if random.below(2) == 0 {
                    handle.interrupt();
                } else {
                    handle.interrupt_any();
                }
                thread::sleep(Duration::from_micros(random.below(2000)));
            }
        });
        let results: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        stop.store(true, Ordering::Relaxed);
        assert!(results.iter().all(Result::is_ok), "a thread panicked");
    });
    let Seen { results, traps, deadlines, interrupts } = seen;
    for (what, count) in [("results", results), ("traps", traps), ("deadlines", deadlines), ("interrupts", interrupts)] {
        assert!(count.into_inner() > 20, "hardly any {what}");
    }
    for one in all {
        let Tested { mut sandbox, sum } = one.into_inner().unwrap();
        assert_eq!(sandbox.counters().faults, 0);
        // An interrupt may be there already for the next call.
        match sandbox.call::<_, u64>("work", (1u64, 1)) {
            Ok(found) => assert_eq!(found, sum.wrapping_add(work(1, 1))),
            Err(error) => assert!(matches!(error, CallError::Interrupted), "{error}"),
        }
    }
    assert_eq!((pool.stats().in_use, pool.stats().replaced), (0, 0));
}
