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
struct Tested<'a> {
    sandbox: Sandbox,
    sum: u64,
    target: &'a Target,
}

/// What interrupts aim at: the latest call of a sandbox, which may be over already.
#[derive(Default)]
struct Target(Mutex<Option<Aim>>);

struct Aim {
    handle: InterruptHandle,
    /// Whether the handle was used while its call was not over.
    fired: bool,
    over: bool,
}

impl Target {
    /// Aims at the call that comes next in this sandbox, and at no other any more.
    fn set(&self, sandbox: &Sandbox) {
        *self.0.lock().unwrap() = Some(Aim { handle: sandbox.interrupt_handle(), fired: false, over: false });
    }

    /// The call is over. Whether it was told to stop before.
    fn close(&self) -> bool {
        let mut aim = self.0.lock().unwrap();
        let aim = aim.as_mut().unwrap();
        aim.over = true;
        aim.fired
    }

    fn fire(&self) {
        if let Some(aim) = &mut *self.0.lock().unwrap() {
            let hit = aim.handle.interrupt();
            assert!(!(hit && aim.over), "a handle is good for a call after its own");
            aim.fired |= hit;
        }
    }
}

impl Tested<'_> {
    /// Calls something, which may be interrupted from now on: only then may it end so.
    fn call<T>(&mut self, call: impl FnOnce(&mut Sandbox) -> Result<T, CallError>) -> Result<T, CallError> {
        self.target.set(&self.sandbox);
        let result = call(&mut self.sandbox);
        let fired = self.target.close();
        assert!(fired || !matches!(result, Err(CallError::Interrupted)), "an interrupt ended a call that it was not made for");
        result
    }
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
fn step(tested: &mut Tested<'_>, snapshot: &Snapshot, seen: &Seen, random: &mut Random) {
    let trapped = |kind| move |error: &CallError| error.trap().is_some_and(|trap| trap.kind == kind);
    match random.below(16) {
        0..=5 => {
            let (seed, rounds) = (random.next(), random.below(3000) as u32 + 1);
            tested.sum = tested.sum.wrapping_add(work(seed, rounds));
            seen.check(tested.call(|sandbox| sandbox.call::<_, u64>("work", (seed, rounds))), &tested.sum);
        }
        6..=9 => match random.next() {
            value if value.is_multiple_of(7) => {
                let own = |error: &CallError| {
                    error.host_error::<std::io::Error>().is_some_and(|own| own.to_string() == value.to_string())
                };
                seen.check_end(tested.call(|sandbox| sandbox.call::<_, u64>("host", value)).map(drop), own, &seen.traps);
            }
            value => {
                tested.sum = tested.sum.wrapping_add(value.rotate_left(9));
                seen.check(tested.call(|sandbox| sandbox.call::<_, u64>("host", value)), &tested.sum);
            }
        },
        10 => {
            // This is a call, too, if the host does not know it: nobody aims at that.
            let pages = (tested.sandbox.memory_bytes().unwrap() / 65536) as i32;
            if pages < 100 {
                let more = random.below(9) as i32;
                seen.check(tested.call(|sandbox| sandbox.call::<_, i32>("grow", more)), &pages);
            }
        }
        11 => {
            seen.check_end(tested.call(|sandbox| sandbox.call::<_, ()>("trap", ())), trapped(TrapKind::Unreachable), &seen.traps)
        }
        12 => seen.check_end(
            tested.call(|sandbox| sandbox.call::<_, ()>("overflow", ())),
            trapped(TrapKind::StackOverflow),
            &seen.traps,
        ),
        13 => {
            tested.sandbox.set_deadline(Some(Duration::from_micros(random.below(3000))));
            let late = |error: &CallError| matches!(error, CallError::DeadlineExceeded);
            seen.check_end(tested.call(|sandbox| sandbox.call::<_, ()>("spin", ())), late, &seen.deadlines);
            tested.sandbox.set_deadline(None);
        }
        14 => {
            tested.sandbox = Sandbox::from_snapshot(snapshot).unwrap();
            tested.sum = 0;
        }
        _ => {
            tested.sandbox.restore(snapshot).unwrap();
            tested.sum = 0;
        }
    }
    if tested.sandbox.state() != SandboxState::Ready {
        tested.sandbox.restore(snapshot).unwrap();
        tested.sum = 0;
    }
}

/// The same on a sandbox out of a pool, which is clean. `left` is what others left behind: handles for calls that never came, and
/// that must not hit those of the next user.
fn pooled(pool: &Pool, seen: &Seen, random: &mut Random, left: &Mutex<Option<InterruptHandle>>) {
    let mut sandbox = pool.checkout(Checkout::Wait).unwrap();
    let mut sum = 0u64;
    for _ in 0..random.below(4) {
        let (seed, rounds) = (random.next(), random.below(500) as u32 + 1);
        sum = sum.wrapping_add(work(seed, rounds));
        assert_eq!(sandbox.call::<_, u64>("work", (seed, rounds)).unwrap(), sum);
        Seen::count(&seen.results);
    }
    if random.below(4) == 0 {
        assert!(sandbox.call::<_, ()>("trap", ()).unwrap_err().trap().is_some());
    }
    *left.lock().unwrap() = Some(sandbox.interrupt_handle());
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
    let targets: Vec<_> = std::iter::repeat_with(Target::default).take(SANDBOXES).collect();
    let left = Mutex::new(None);
    let make = |target| Mutex::new(Tested { sandbox: Sandbox::from_snapshot(&snapshot).unwrap(), sum: 0, target });
    let all: Vec<_> = targets.iter().map(make).collect();
    let stop = AtomicBool::new(false);
    let failed = AtomicBool::new(false);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (all, left, pool, seen, snapshot, failed) = (&all, &left, &pool, &seen, &snapshot, &failed);
                scope.spawn(move || {
                    let mut random = Random::new(thread as u64 + 1);
                    while Instant::now() < end && !failed.load(Ordering::Relaxed) {
                        let number = random.below(SANDBOXES as u64) as usize;
                        // One that panicked has told why.
                        let Ok(mut tested) = all[number].try_lock() else { continue };
                        step(&mut tested, snapshot, seen, &mut random);
                        drop(tested);
                        if random.below(8) == 0 {
                            pooled(pool, seen, &mut random, left);
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            let mut random = Random::new(99);
            while !stop.load(Ordering::Relaxed) {
                targets[random.below(SANDBOXES as u64) as usize].fire();
                if let Some(handle) = &*left.lock().unwrap() {
                    if random.below(2) == 0 {
                        handle.interrupt()
                    } else {
                        handle.interrupt_any()
                    };
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
        let Tested { mut sandbox, sum, .. } = one.into_inner().unwrap();
        assert_eq!(sandbox.counters().faults, 0);
        assert_eq!(sandbox.call::<_, u64>("work", (1u64, 1)).unwrap(), sum.wrapping_add(work(1, 1)));
    }
    assert_eq!((pool.stats().in_use, pool.stats().replaced), (0, 0));
}
