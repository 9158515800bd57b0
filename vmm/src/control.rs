//! Ending a call from outside, at any moment and out of any loop: interrupts, deadlines, and the ticks at which a thread that
//! runs a guest looks after its output.
//!
//! A vCPU thread blocks one real-time signal for as long as it runs the VM, and KVM_SET_SIGNAL_MASK unblocks it inside
//! KVM_RUN. So a kick needs no handler: sent inside KVM_RUN it ends that call with EINTR, sent outside it stays pending
//! and ends the next one. It is taken off the thread's queue before the old mask comes back, so nobody else ever sees it;
//! nor would anybody see a signal of this number that the embedder sent to the thread for purposes of its own.
//! Deadlines and ticks are the same signal, from a timer of the thread. Services that wait do so in poll(2) on an event that a
//! stop makes readable, and no longer than to the deadline.

mod signal;
mod ticker;

use std::{
    cell::Cell,
    io,
    os::fd::{AsFd, OwnedFd},
    ptr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kvm_ioctls::VcpuFd;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use signal::{block_kick_signal, clear_kick_signal, kick_signal, unblock_kick_signal_in_run};
use ticker::Ticker;

/// How often a thread that runs a guest takes its output at least.
const TICK: Duration = Duration::from_millis(20);
/// The same while a call is young, so that output which comes soon is seen soon. Not shorter: a timer that is the next one of its
/// processor makes the kernel set the hardware, which took 10 µs of each call with 1 ms.
const YOUNG_TICK: Duration = Duration::from_millis(4);
/// How many ticks a call is young.
const YOUNG_TICKS: u32 = 10;

/// Why a call was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopReason {
    Interrupted,
    DeadlineExceeded,
}

/// A call that was told to stop while it waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stopped;

/// Shared between the thread that runs a VM and those that may stop it.
#[derive(Debug)]
pub(crate) struct Control {
    state: Mutex<State>,
    /// Readable while the call is told to stop.
    event: OwnedFd,
    /// Interrupts the call when it becomes readable.
    interrupt_on: Option<OwnedFd>,
}

#[derive(Debug, Default)]
struct State {
    /// Number of the call that runs, or of the next one.
    call: u64,
    /// How often the sandbox was handed over to somebody else, for whom older handles mean nothing.
    owner: u64,
    /// Parts of the call that go on, one in the other.
    depth: u32,
    reason: Option<StopReason>,
    deadline: Option<Instant>,
    /// Services stop waiting when it becomes readable; the call goes on.
    pause_on: Option<Arc<OwnedFd>>,
    /// The thread that is in [`Control::attach`], as pthread_kill wants it.
    thread: Option<libc::pthread_t>,
}

/// Ends one call from any thread, at any moment.
///
/// It belongs to the call that runs when it is made, or else to the next one. Later calls are never meant by it: once its
/// call is over, it does nothing.
#[derive(Debug, Clone)]
pub struct InterruptHandle {
    control: Arc<Control>,
    call: u64,
    owner: u64,
}

impl InterruptHandle {
    /// Ends the call that this handle belongs to, or lets it end as soon as it begins. `false` if it is over already.
    pub fn interrupt(&self) -> bool {
        self.control.stop(StopReason::Interrupted, self.call)
    }

    /// Ends whatever call runs at this moment, if one does: for a supervisor that ends everything. `false` if none runs, or if a
    /// pool has lent the sandbox to somebody else since the handle was made.
    pub fn interrupt_any(&self) -> bool {
        let state = self.control.lock();
        let call = state.call;
        state.depth > 0 && state.owner == self.owner && self.control.stop_locked(state, StopReason::Interrupted, call)
    }
}

impl Control {
    pub(crate) fn new(interrupt_on: Option<OwnedFd>) -> io::Result<Arc<Self>> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Arc::new(Self { state: Mutex::default(), event, interrupt_on }))
    }

    /// A handle for the call that runs, or for the next one.
    pub(crate) fn handle(self: &Arc<Self>) -> InterruptHandle {
        let State { call, owner, .. } = *self.lock();
        InterruptHandle { control: Arc::clone(self), call, owner }
    }

    /// Lets handles that were made until now mean nothing any more. No call goes on.
    pub(crate) fn hand_over(&self) {
        self.end();
        self.lock().owner += 1;
    }

    /// Begins a call, or a part of the one that goes on: that has the deadline of the whole.
    pub(crate) fn begin(&self, deadline: Option<Instant>) {
        let mut state = self.lock();
        if state.depth == 0 {
            state.deadline = deadline;
        }
        state.depth += 1;
    }

    /// Ends what was begun last. Once the call is over, what was meant for it means nothing any more.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.depth = state.depth.saturating_sub(1);
        if state.depth > 0 {
            return;
        }
        let was_stopped = state.reason.take().is_some();
        state.deadline = None;
        state.call += 1;
        if was_stopped {
            // Under the lock, so that no stop of a later call is taken away.
            let mut count = [0; 8];
            let _not_readable_if_writing_failed = rustix::io::read(&self.event, &mut count);
        }
    }

    fn stop(&self, reason: StopReason, call: u64) -> bool {
        self.stop_locked(self.lock(), reason, call)
    }

    /// The first reason counts.
    fn stop_locked(&self, mut state: MutexGuard<'_, State>, reason: StopReason, call: u64) -> bool {
        if state.call != call {
            return false;
        }
        if state.reason.is_some() {
            return true;
        }
        state.reason = Some(reason);
        // An eventfd takes this write once in each call.
        let written = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        debug_assert!(written.is_ok());
        if let Some(thread) = state.thread {
            // SAFETY: the thread is inside `attach`, which clears this field under the same lock before it returns, so
            // the thread exists and has the signal blocked.
            let result = unsafe { libc::pthread_kill(thread, kick_signal()) };
            debug_assert_eq!(result, 0);
        }
        true
    }

    /// Why to stop, if so, as far as somebody asked for it.
    pub(crate) fn stop_reason(&self) -> Option<StopReason> {
        self.lock().reason
    }

    /// The same, after a look at the clock and at the descriptor that interrupts.
    pub(crate) fn look(&self) -> Option<StopReason> {
        let (call, deadline) = {
            let state = self.lock();
            (state.call, state.deadline)
        };
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            self.stop(StopReason::DeadlineExceeded, call);
        }
        if let Some(fd) = &self.interrupt_on {
            let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)];
            if poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0) {
                self.stop(StopReason::Interrupted, call);
            }
        }
        self.stop_reason()
    }

    /// When the call has to be over.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.lock().deadline
    }

    /// Lets services stop waiting when `fd` becomes readable, although the call is not to stop.
    #[cfg(feature = "gdb")]
    pub(crate) fn pause_on(&self, fd: Option<Arc<OwnedFd>>) {
        self.lock().pause_on = fd;
    }

    /// Stops the clock: there is no deadline until [`Control::resume_deadline`] is given what this returns.
    #[cfg(feature = "gdb")]
    pub(crate) fn suspend_deadline(&self) -> Option<Duration> {
        self.lock().deadline.take().map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// See [`Control::suspend_deadline`].
    #[cfg(feature = "gdb")]
    pub(crate) fn resume_deadline(&self, left: Option<Duration>) {
        self.lock().deadline = left.and_then(|left| Instant::now().checked_add(left));
    }

    /// poll(2) until one of `fds` is ready, `timeout` passed or the call is to stop; what was found for each.
    pub(crate) fn poll(&self, fds: &[PollFd<'_>], timeout: Option<Duration>) -> io::Result<Result<Vec<PollFlags>, Stopped>> {
        let pause_on = self.lock().pause_on.clone();
        let mut all = vec![PollFd::new(&self.event, PollFlags::IN)];
        all.extend(self.interrupt_on.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
        let stops = all.len();
        all.extend(pause_on.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
        let own = all.len();
        all.extend(fds.iter().cloned());
        let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let deadline = self.deadline();
            let until = [end, deadline].into_iter().flatten().min();
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            // Longer than can be told is for ever.
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            let ready = match poll(&mut all, left.as_ref()) {
                Err(rustix::io::Errno::INTR) => continue,
                result => result?,
            };
            let stopping = all.iter().take(stops).any(|fd| !fd.revents().is_empty());
            let pausing = all.iter().take(own).skip(stops).any(|fd| !fd.revents().is_empty());
            let late = deadline.is_some_and(|deadline| deadline <= Instant::now());
            if pausing || (stopping || late) && self.look().is_some() {
                return Ok(Err(Stopped));
            }
            if ready > 0 || end.is_some_and(|end| end <= Instant::now()) {
                return Ok(Ok(all.iter().skip(own).map(PollFd::revents).collect()));
            }
        }
    }

    /// Makes the calling thread the one that is kicked, until the returned value is dropped, and begins its ticks.
    pub(crate) fn attach(self: &Arc<Self>, vcpu: &VcpuFd) -> io::Result<Attached> {
        let before = block_kick_signal()?;
        Ticker::enter();
        let attached = Attached { control: Arc::clone(self), before, ticks: Cell::new(0) };
        unblock_kick_signal_in_run(vcpu, &attached.before)?;
        // SAFETY: no precondition.
        self.lock().thread = Some(unsafe { libc::pthread_self() });
        attached.arm()?;
        Ok(attached)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Control::attach`].
pub(crate) struct Attached {
    control: Arc<Control>,
    /// The signal mask of the thread as it was.
    before: libc::sigset_t,
    /// Ticks so far.
    ticks: Cell<u32>,
}

impl Attached {
    /// Takes a kick off the queue, so that the next KVM_RUN does not end for it, and lets the next tick come in time.
    pub(crate) fn take_kick(&self) {
        clear_kick_signal();
        if let Err(error) = self.arm() {
            tracing::warn!(%error, "the next tick does not come");
        }
    }

    /// The next kick comes with the tick, or with the deadline if that is earlier.
    fn arm(&self) -> io::Result<()> {
        let left = self.control.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let ticks = self.ticks.get();
        self.ticks.set(ticks.saturating_add(1));
        let tick = if ticks < YOUNG_TICKS { YOUNG_TICK } else { TICK };
        Ticker::set(left.map_or(tick, |left| left.min(tick)))
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.control.lock().thread = None;
        let is_outermost = Ticker::stop();
        clear_kick_signal();
        if !is_outermost {
            // A function of the host called this guest for another one, whose ticks begin again when that is entered.
            let kicked = Ticker::set(Duration::ZERO);
            debug_assert!(kicked.is_ok());
        }
        // SAFETY: the mask is one that the kernel gave.
        let result = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut()) };
        debug_assert_eq!(result, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_readable(control: &Control) -> bool {
        let mut fds = [PollFd::new(&control.event, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).unwrap() == 1
    }

    #[test]
    fn the_first_reason_counts_until_the_call_is_over() {
        let control = Control::new(None).unwrap();
        assert_eq!(control.stop_reason(), None);
        control.begin(Some(Instant::now()));
        assert_eq!(control.look(), Some(StopReason::DeadlineExceeded));
        assert!(control.handle().interrupt());
        assert_eq!(control.stop_reason(), Some(StopReason::DeadlineExceeded));
        assert!(is_readable(&control));
        control.end();
        assert_eq!(control.stop_reason(), None);
        assert!(!is_readable(&control));
    }

    #[test]
    fn a_handle_means_one_call_only() {
        let control = Control::new(None).unwrap();
        let first = control.handle();
        assert!(!first.interrupt_any(), "no call runs");
        control.begin(None);
        control.end();
        assert!(!first.interrupt(), "its call is over");
        control.begin(None);
        assert_eq!(control.stop_reason(), None);
        assert!(first.interrupt_any());
        assert_eq!(control.stop_reason(), Some(StopReason::Interrupted));
        control.end();
        assert!(control.handle().interrupt(), "one for the next call");
        control.begin(None);
        assert_eq!(control.stop_reason(), Some(StopReason::Interrupted));
        control.end();
        let (next, any) = (control.handle(), control.handle());
        control.hand_over();
        control.begin(None);
        assert!(!next.interrupt() && !any.interrupt_any(), "they are of another owner");
    }

    #[test]
    fn a_call_of_several_parts_is_one_call() {
        let control = Control::new(None).unwrap();
        let handle = control.handle();
        let deadline = Instant::now().checked_add(Duration::from_secs(3600));
        control.begin(deadline);
        for _ in 0..2 {
            control.begin(None);
            assert_eq!(control.deadline(), deadline);
            control.end();
        }
        assert!(handle.interrupt(), "the call still runs");
        control.begin(None);
        assert_eq!(control.stop_reason(), Some(StopReason::Interrupted), "it is told to later parts");
        control.end();
        control.end();
        assert_eq!((control.stop_reason(), control.deadline()), (None, None));
        assert!(!handle.interrupt(), "the call is over");
    }

    #[test]
    fn waiting_ends_with_the_deadline_the_timeout_or_an_interrupt() {
        let (reader, writer) = std::io::pipe().unwrap();
        let control = Control::new(Some(reader.into())).unwrap();
        control.begin(None);
        assert_eq!(control.poll(&[], Some(Duration::from_millis(1))).unwrap(), Ok(Vec::new()));
        control.end();
        control.begin(Some(Instant::now() + Duration::from_millis(1)));
        assert_eq!(control.poll(&[], None).unwrap(), Err(Stopped));
        control.end();
        control.begin(None);
        drop(writer);
        assert_eq!(control.poll(&[], None).unwrap(), Err(Stopped));
        assert_eq!(control.stop_reason(), Some(StopReason::Interrupted));
    }
}
