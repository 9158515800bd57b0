//! Ending a run from outside: interrupts and deadlines, at any moment, out of any loop.
//!
//! A vCPU thread blocks one real-time signal for as long as it runs the VM, and KVM_SET_SIGNAL_MASK unblocks it inside
//! KVM_RUN. So a kick needs no handler: sent inside KVM_RUN it ends that call with EINTR, sent outside it stays pending
//! and ends the next one. It is taken off the thread's queue before the old mask comes back, so nobody else ever sees it;
//! nor would anybody see a signal of this number that the embedder sent to the thread for purposes of its own.
//! Services that wait do so in poll(2) on an event that a stop makes readable.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kvm_ioctls::VcpuFd;
use rustix::event::{EventfdFlags, eventfd};
use vmm_sys_util::signal;

/// Why a run was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopReason {
    Interrupted,
    DeadlineExceeded,
    /// The housekeeping thread could not go on; it kept the reason.
    OutputFailed,
}

/// Shared between the thread that runs a VM and those that may stop it.
#[derive(Debug)]
pub(crate) struct Control {
    state: Mutex<State>,
    /// Readable once a stop was asked for.
    event: OwnedFd,
}

#[derive(Debug, Default)]
struct State {
    reason: Option<StopReason>,
    /// The thread that is in [`Control::attach`], as pthread_kill wants it.
    thread: Option<libc::pthread_t>,
}

/// Ends a run from any thread, at any moment.
#[derive(Debug, Clone)]
pub struct InterruptHandle(Arc<Control>);

impl InterruptHandle {
    pub(crate) fn new(control: Arc<Control>) -> Self {
        Self(control)
    }

    /// Ends the run that this handle belongs to with [`crate::Ending::Interrupted`]. Does nothing if it ended already.
    pub fn interrupt(&self) {
        self.0.stop(StopReason::Interrupted);
    }
}

impl Control {
    pub(crate) fn new() -> io::Result<Arc<Self>> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Arc::new(Self { state: Mutex::default(), event }))
    }

    /// Asks the run to stop; the first reason counts.
    pub(crate) fn stop(&self, reason: StopReason) {
        let mut state = self.lock();
        if state.reason.is_some() {
            return;
        }
        state.reason = Some(reason);
        // An eventfd that never was read takes this write.
        let written = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        debug_assert!(written.is_ok());
        if let Some(thread) = state.thread {
            // SAFETY: the thread is inside `attach`, which clears this field under the same lock before it returns, so
            // the thread exists and has the signal blocked.
            let result = unsafe { libc::pthread_kill(thread, kick_signal()) };
            debug_assert_eq!(result, 0);
        }
    }

    /// Why to stop, if so.
    pub(crate) fn stop_reason(&self) -> Option<StopReason> {
        self.lock().reason
    }

    /// Becomes readable when a stop is asked for, and stays so.
    pub(crate) fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// Makes the calling thread the one that is kicked, until the returned value is dropped.
    pub(crate) fn attach<'a>(&'a self, vcpu: &VcpuFd) -> io::Result<Attached<'a>> {
        let was_blocked = block_kick_signal()?;
        let attached = Attached { control: self, was_blocked };
        unblock_kick_signal_in_run(vcpu)?;
        // SAFETY: no precondition.
        self.lock().thread = Some(unsafe { libc::pthread_self() });
        Ok(attached)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Control::attach`].
#[derive(Debug)]
pub(crate) struct Attached<'a> {
    control: &'a Control,
    was_blocked: bool,
}

impl Attached<'_> {
    /// Takes a kick off the queue, so that the next KVM_RUN does not end for it.
    pub(crate) fn take_kick(&self) {
        if let Err(error) = signal::clear_signal(kick_signal()) {
            tracing::warn!(?error, "the kick signal cannot be taken off the queue");
        }
    }
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        self.control.lock().thread = None;
        self.take_kick();
        if !self.was_blocked
            && let Err(error) = signal::unblock_signal(kick_signal())
        {
            tracing::warn!(?error, "the kick signal stays blocked in this thread");
        }
    }
}

/// The one signal that this crate uses: the last real-time one, which others take last.
fn kick_signal() -> libc::c_int {
    signal::SIGRTMAX()
}

/// Whether it was blocked before.
fn block_kick_signal() -> io::Result<bool> {
    match signal::block_signal(kick_signal()) {
        Ok(()) => Ok(false),
        Err(signal::Error::SignalAlreadyBlocked(_)) => Ok(true),
        Err(error) => Err(io::Error::other(format!("cannot block the kick signal: {error:?}"))),
    }
}

/// struct kvm_signal_mask of the KVM API with the kernel's signal set of 64 bits.
#[repr(C)]
struct SignalMask {
    bytes: u32,
    // Not u64: the kernel's structure has no padding here.
    set: [u32; 2],
}

/// Inside KVM_RUN all signals that the thread blocks stay blocked, but for the kick.
fn unblock_kick_signal_in_run(vcpu: &VcpuFd) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    vmm_sys_util::ioctl_iow_nr!(KVM_SET_SIGNAL_MASK, kvm_bindings::KVMIO, 0x8b, u32);

    let blocked =
        signal::get_blocked_signals().map_err(|error| io::Error::other(format!("cannot read the signal mask: {error:?}")))?;
    let bit = |number: libc::c_int| u32::try_from(number - 1).map_or(0, |shift| 1u64.checked_shl(shift).unwrap_or(0));
    let set = blocked.into_iter().map(bit).fold(0, |set, bit| set | bit) & !bit(kick_signal());
    let [low, high] = [set & 0xffff_ffff, set >> 32].map(|half| u32::try_from(half).unwrap_or(0));
    let mask = SignalMask { bytes: 8, set: [low, high] };
    // SAFETY: the argument is a kvm_signal_mask of the size that it says, and lives through the call.
    let result = unsafe { vmm_sys_util::ioctl::ioctl_with_ref(&vcpu.as_raw_fd(), KVM_SET_SIGNAL_MASK(), &mask) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};

    #[test]
    fn the_first_reason_counts_and_the_event_stays() {
        let control = Control::new().unwrap();
        assert_eq!(control.stop_reason(), None);
        control.stop(StopReason::DeadlineExceeded);
        InterruptHandle::new(Arc::clone(&control)).interrupt();
        assert_eq!(control.stop_reason(), Some(StopReason::DeadlineExceeded));
        let event = control.event();
        let mut fds = [PollFd::new(&event, PollFlags::IN)];
        assert_eq!(poll(&mut fds, None).unwrap(), 1);
    }
}
