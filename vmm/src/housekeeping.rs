//! The housekeeping thread: takes what the guest left in the ring, watches the clock, and hears of interrupts, while the
//! vCPU's thread runs the guest. What both share is here, and how a run's output ends.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    control::{Control, StopReason},
    ending::{Ending, HostFailure},
    memory::GuestRam,
    service::output::{self, DrainError, OutputService, Patience},
};

/// How long a stopped run waits for readers of its output.
const GRACE: Duration = Duration::from_secs(2);
/// How often output is taken at least.
const DRAIN_INTERVAL: Duration = Duration::from_millis(20);

/// What the vCPU's thread shares with the thread that drains output and watches the clock.
#[derive(Debug, Clone)]
pub(crate) struct Housekeeping {
    control: Arc<Control>,
    pub(crate) ram: Arc<GuestRam>,
    output: Arc<Mutex<OutputService>>,
    /// Set when the run is over.
    done: Arc<Done>,
}

/// Tells the housekeeping thread to end.
#[derive(Debug)]
struct Done(OwnedFd);

/// What the housekeeping thread watches for.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) deadline: Option<Instant>,
    pub(crate) interrupt_on: Option<OwnedFd>,
}

impl Housekeeping {
    pub(crate) fn new(control: Arc<Control>, ram: Arc<GuestRam>, output: OutputService) -> std::io::Result<Self> {
        let done = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
        Ok(Self { control, ram, output: Arc::new(Mutex::new(output)), done: Arc::new(Done(done)) })
    }

    pub(crate) fn control(&self) -> Arc<Control> {
        Arc::clone(&self.control)
    }

    /// Takes output at least every [`DRAIN_INTERVAL`], and stops the run when its time is over or an interrupt comes.
    pub(crate) fn keep(&self, watch: &Watch) {
        loop {
            if watch.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                self.control.stop(StopReason::DeadlineExceeded);
                return;
            }
            let left = watch.deadline.map_or(DRAIN_INTERVAL, |deadline| deadline.saturating_duration_since(Instant::now()));
            let timeout = Timespec::try_from(left.min(DRAIN_INTERVAL)).ok();
            let mut fds = vec![PollFd::from_borrowed_fd(self.done.0.as_fd(), PollFlags::IN)];
            fds.extend(watch.interrupt_on.as_ref().map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)));
            // An error here is an interrupted call: the loop looks again.
            let _polled = poll(&mut fds, timeout.as_ref());
            let ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
            if ready(0) {
                return;
            }
            if ready(1) {
                self.control.stop(StopReason::Interrupted);
                return;
            }
            // This thread watches the clock, so it never waits for a reader or for the lock: the vCPU's thread does that
            // when the ring is full.
            let Ok(mut output) = self.output.try_lock() else { continue };
            match output.drain(self.ram.memory(), Patience::None) {
                Ok(()) | Err(DrainError::Stopped) => {}
                Err(error) => {
                    output.fail(error);
                    self.control.stop(StopReason::OutputFailed);
                    return;
                }
            }
        }
    }

    /// Empties the ring on behalf of the guest.
    pub(crate) fn drain(&self) -> Result<(), Ending> {
        self.drain_as(Patience::UntilStopped(&self.control)).map_err(|error| match error {
            DrainError::Guest(fault) => fault.into(),
            DrainError::Host(failure) => failure.into(),
            DrainError::Stopped => end_of(&self.control),
        })
    }

    fn drain_as(&self, patience: Patience<'_>) -> Result<(), DrainError> {
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        let drained = output.drain(self.ram.memory(), patience);
        let (log, failure) = (output.take_log(), output.failure());
        drop(output);
        for (level, line) in log {
            output::log(level, &line);
        }
        failure.map_or(drained, Err)
    }

    /// Writes out what is left and ends the housekeeping thread. A program that ended by itself waits for its readers, as
    /// any process does, until the deadline or an interrupt; a run that was stopped waits for a short time.
    pub(crate) fn finish(&self, ending: Ending) -> Ending {
        let ending = match ending {
            Ending::Interrupted | Ending::DeadlineExceeded => self.flush_stopped(ending),
            ending => match self.drain_as(Patience::UntilStopped(&self.control)) {
                Ok(()) => ending,
                Err(DrainError::Guest(fault)) => replace_success(ending, fault.into()),
                Err(DrainError::Host(failure)) => replace_success(ending, failure.into()),
                Err(DrainError::Stopped) => self.flush_stopped(replace_success(ending, end_of(&self.control))),
            },
        };
        let written = rustix::io::write(&self.done.0, &1u64.to_ne_bytes());
        debug_assert!(written.is_ok());
        ending
    }

    fn flush_stopped(&self, ending: Ending) -> Ending {
        if let Err(error) = self.drain_as(Patience::UntilTime(Instant::now() + GRACE)) {
            tracing::warn!(?error, "the rest of the output is lost");
            // Not so the files that the program wrote.
            let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = output.abandon_streams(self.ram.memory()) {
                tracing::warn!(?error, "writes to files may be lost");
            }
        }
        ending
    }
}

/// An end that the program chose is not the truth if its output was not written.
pub(crate) fn replace_success(ending: Ending, failure: Ending) -> Ending {
    match ending {
        Ending::Exited(_) | Ending::HostFailure(HostFailure::OutputFailed) => failure,
        other => other,
    }
}

/// The end that a stop comes to.
pub(crate) fn stopped(reason: StopReason) -> Ending {
    match reason {
        StopReason::Interrupted => Ending::Interrupted,
        StopReason::DeadlineExceeded => Ending::DeadlineExceeded,
        StopReason::OutputFailed => Ending::HostFailure(HostFailure::OutputFailed),
    }
}

/// The end of a run whose service was stopped.
pub(crate) fn end_of(control: &Control) -> Ending {
    control.stop_reason().map_or(Ending::Interrupted, stopped)
}
