//! Pools: sandboxes made ahead of time from one snapshot, lent out clean.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use thiserror::Error;

use super::{BuildError, CopyBuilder, Sandbox, Snapshot};

/// How large a pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolOptions {
    /// Most sandboxes at a time, lent out or not. At least one.
    pub max_sandboxes: usize,
    /// How many are made at once, before the first is asked for.
    pub prewarmed: usize,
}

impl Default for PoolOptions {
    /// As many as the machine has processors, one of them made at once.
    fn default() -> Self {
        Self { max_sandboxes: thread::available_parallelism().map_or(1, usize::from), prewarmed: 1 }
    }
}

/// What to do when all sandboxes are lent out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checkout {
    /// Wait until one comes back.
    Wait,
    /// Wait for at most this long.
    WaitFor(Duration),
    /// Fail at once.
    Fail,
}

/// Why no sandbox was lent out.
#[derive(Debug, Error)]
pub enum PoolError {
    /// All are lent out.
    #[error("all {0} sandboxes of the pool are in use")]
    Exhausted(usize),
    /// A new one could not be made.
    #[error(transparent)]
    Build(#[from] BuildError),
}

/// What happened in a pool so far, and how it is now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Sandboxes that wait to be lent out.
    pub idle: usize,
    /// Sandboxes that are lent out.
    pub in_use: usize,
    /// Times that one was lent out.
    pub checkouts: u64,
    /// Times that somebody had to wait for one.
    pub waits: u64,
    /// Times that there was none.
    pub exhausted: u64,
    /// Sandboxes that were made.
    pub created: u64,
    /// Sandboxes that came back and were cleaned.
    pub restored: u64,
    /// Sandboxes that could not be cleaned, and were dropped.
    pub replaced: u64,
}

type Configure = dyn Fn(CopyBuilder) -> CopyBuilder + Send + Sync;

/// Sandboxes made from one snapshot. Each that is lent out is as the snapshot was, whatever was done with it before.
///
/// ```
/// use mote_vmm::{Checkout, Pool, PoolOptions, Sandbox};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # if let Err(error) = mote_vmm::open_kvm() {
/// #     println!("skipped: {error}");
/// #     return Ok(());
/// # }
/// let module = r#"(module (func (export "answer") (result i32) i32.const 42))"#;
/// let snapshot = Sandbox::builder().module_bytes(module).build()?.snapshot()?;
/// let pool = Pool::new(&snapshot, PoolOptions { max_sandboxes: 64, prewarmed: 2 })?;
/// let answer: i32 = pool.checkout(Checkout::Wait)?.call("answer", ())?;
/// assert_eq!(answer, 42);
/// # Ok(())
/// # }
/// ```
///
/// Closures of host functions keep what they hold: nothing of that is renewed when a sandbox comes back. Data of the sandbox
/// ([`Caller::data`](crate::Caller::data)) is.
///
/// Clones are the same pool.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

struct Shared {
    snapshot: Snapshot,
    configure: Box<Configure>,
    max_sandboxes: usize,
    state: Mutex<State>,
    /// One came back, or may be made.
    returned: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<Idle>,
    stats: PoolStats,
}

struct Idle {
    sandbox: Sandbox,
    /// Which thread ran it last: KVM takes longer to run it on another.
    thread: Option<ThreadId>,
}

impl Pool {
    /// A pool of plain copies.
    pub fn new(snapshot: &Snapshot, options: PoolOptions) -> Result<Self, BuildError> {
        Self::with(snapshot, options, |builder| builder)
    }

    /// A pool of copies that `configure` gives streams, host functions and so on. It is also asked whenever one comes back, for
    /// streams, limits of calls and data: what somebody set on one that was lent out is gone then.
    pub fn with(
        snapshot: &Snapshot,
        options: PoolOptions,
        configure: impl Fn(CopyBuilder) -> CopyBuilder + Send + Sync + 'static,
    ) -> Result<Self, BuildError> {
        let max_sandboxes = options.max_sandboxes.max(1);
        let pool = Shared {
            snapshot: snapshot.clone(),
            configure: Box::new(configure),
            max_sandboxes,
            state: Mutex::default(),
            returned: Condvar::new(),
        };
        for _ in 0..options.prewarmed.min(max_sandboxes) {
            let sandbox = pool.make()?;
            let mut state = pool.lock();
            state.stats.created += 1;
            state.idle.push(Idle { sandbox, thread: None });
        }
        Ok(Self(Arc::new(pool)))
    }

    /// Lends a sandbox out. It comes back when what is returned is dropped.
    pub fn checkout(&self, how: Checkout) -> Result<Pooled, PoolError> {
        let end = match how {
            Checkout::WaitFor(time) => Instant::now().checked_add(time),
            Checkout::Wait | Checkout::Fail => None,
        };
        let pool = &self.0;
        let mut state = pool.lock();
        let mut waited = false;
        loop {
            if let Some(idle) = state.take_idle() {
                state.stats.in_use += 1;
                state.stats.checkouts += 1;
                return Ok(Pooled { pool: Arc::clone(pool), sandbox: Some(idle.sandbox) });
            }
            if state.stats.in_use < pool.max_sandboxes {
                // Counted before it is made, so that no other thread makes one too many.
                state.stats.in_use += 1;
                drop(state);
                return self.checkout_new();
            }
            if !waited && how != Checkout::Fail {
                state.stats.waits += 1;
                waited = true;
            }
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            state = match (how, left) {
                (Checkout::Fail, _) | (_, Some(Duration::ZERO)) => {
                    state.stats.exhausted += 1;
                    return Err(PoolError::Exhausted(pool.max_sandboxes));
                }
                (_, Some(left)) => pool.returned.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                (_, None) => pool.returned.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn checkout_new(&self) -> Result<Pooled, PoolError> {
        // A place that was counted is given back, also if making the sandbox panics in what the user configures.
        let place = Place(&self.0);
        let sandbox = self.0.make()?;
        std::mem::forget(place);
        let mut state = self.0.lock();
        state.stats.created += 1;
        state.stats.checkouts += 1;
        Ok(Pooled { pool: Arc::clone(&self.0), sandbox: Some(sandbox) })
    }

    /// What happened so far, and how it is now.
    pub fn stats(&self) -> PoolStats {
        let state = self.0.lock();
        PoolStats { idle: state.idle.len(), ..state.stats }
    }
}

/// A sandbox that is counted as lent out, until this is dropped.
struct Place<'a>(&'a Shared);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.stats.in_use = state.stats.in_use.saturating_sub(1);
        drop(state);
        self.0.returned.notify_one();
    }
}

impl Shared {
    fn make(&self) -> Result<Sandbox, BuildError> {
        (self.configure)(self.snapshot.sandbox()).build()
    }

    /// Cleans a sandbox and puts it back.
    fn give_back(&self, mut sandbox: Sandbox) {
        // Last of all, whatever happens: who waits then finds the sandbox, or room for another.
        let _place = Place(self);
        match sandbox.restore(&self.snapshot) {
            Ok(()) => {
                (self.configure)(self.snapshot.sandbox()).renew(&mut sandbox);
                let mut state = self.lock();
                state.stats.restored += 1;
                state.idle.push(Idle { sandbox, thread: Some(thread::current().id()) });
            }
            Err(error) => {
                self.lock().stats.replaced += 1;
                tracing::warn!(%error, "a sandbox of a pool could not be cleaned and is dropped");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// One that this thread ran last, or none did, or any; the one that came back last, whose memory is warm.
    fn take_idle(&mut self) -> Option<Idle> {
        let current = Some(thread::current().id());
        let of = |wanted: Option<ThreadId>| self.idle.iter().rposition(|idle| idle.thread == wanted);
        match of(current).or_else(|| of(None)) {
            Some(index) => Some(self.idle.swap_remove(index)),
            None => self.idle.pop(),
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("max_sandboxes", &self.0.max_sandboxes).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// A sandbox that is lent out by a [`Pool`]. Dropping it cleans it and gives it back.
pub struct Pooled {
    pool: Arc<Shared>,
    /// There until it is dropped.
    sandbox: Option<Sandbox>,
}

impl Deref for Pooled {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        #[expect(clippy::expect_used, reason = "it is taken out by `drop` alone")]
        self.sandbox.as_ref().expect("it is there until it is dropped")
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut Sandbox {
        #[expect(clippy::expect_used, reason = "it is taken out by `drop` alone")]
        self.sandbox.as_mut().expect("it is there until it is dropped")
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        if let Some(sandbox) = self.sandbox.take() {
            self.pool.give_back(sandbox);
        }
    }
}

impl fmt::Debug for Pooled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pooled").field("sandbox", &self.sandbox).finish_non_exhaustive()
    }
}
