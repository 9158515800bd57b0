//! The timer of a thread that runs guests: it sends the kick signal to that thread.

use std::{
    cell::{Cell, RefCell},
    io, mem, ptr,
    time::Duration,
};

use super::signal::kick_signal;

/// A timer that sends the kick signal to the thread that made it.
pub(super) struct Ticker(libc::timer_t);

thread_local! {
    /// Made once in each thread that runs a guest.
    static TICKER: RefCell<Option<Ticker>> = const { RefCell::new(None) };
    /// How many guests the thread runs: one, or more where functions of the host call other sandboxes.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

impl Ticker {
    fn new() -> io::Result<Self> {
        // SAFETY: zeros are a value of this plain structure; no precondition for gettid.
        let (mut event, thread): (libc::sigevent, _) = unsafe { (mem::zeroed(), libc::gettid()) };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = kick_signal();
        event.sigev_notify_thread_id = thread;
        let mut timer = ptr::null_mut();
        // SAFETY: both pointers are to values that live through the call.
        let result = unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) };
        if result == 0 { Ok(Self(timer)) } else { Err(io::Error::last_os_error()) }
    }

    /// One guest more.
    pub(super) fn enter() {
        // A thread that is ending has no depth any more; it gets no ticks either.
        let _ending = DEPTH.try_with(|depth| depth.set(depth.get().saturating_add(1)));
    }

    /// Sends the signal once, after this time. The thread blocks it.
    pub(super) fn set(after: Duration) -> io::Result<()> {
        let set = TICKER.try_with(|ticker| {
            let mut ticker = ticker.try_borrow_mut().map_err(io::Error::other)?;
            let ticker = match &mut *ticker {
                Some(ticker) => ticker,
                none => none.insert(Self::new()?),
            };
            // Zero would stop it.
            ticker.set_time(after.max(Duration::from_nanos(1)))
        });
        set.map_err(io::Error::other)?
    }

    /// One guest less; whether that was the last.
    pub(super) fn stop() -> bool {
        let stopped = TICKER.try_with(|ticker| {
            ticker.try_borrow().ok().and_then(|ticker| ticker.as_ref().map(|ticker| ticker.set_time(Duration::ZERO)))
        });
        debug_assert!(stopped.is_ok_and(|result| result.is_none_or(|result| result.is_ok())));
        let left = DEPTH.try_with(|depth| {
            depth.set(depth.get().saturating_sub(1));
            depth.get()
        });
        left.unwrap_or(0) == 0
    }

    fn set_time(&self, after: Duration) -> io::Result<()> {
        let none = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let value = libc::timespec {
            tv_sec: libc::time_t::try_from(after.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::from(after.subsec_nanos().cast_signed()),
        };
        let time = libc::itimerspec { it_interval: none, it_value: value };
        // SAFETY: the timer exists as long as this value, and the pointer is to a value that lives through the call.
        let result = unsafe { libc::timer_settime(self.0, 0, &raw const time, ptr::null_mut()) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        // SAFETY: the timer exists until here.
        let result = unsafe { libc::timer_delete(self.0) };
        debug_assert_eq!(result, 0);
    }
}
