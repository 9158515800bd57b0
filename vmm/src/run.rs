//! The run loop: exit → request → service → answer, until an end; and the housekeeping thread beside it.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use kvm_ioctls::{VcpuFd, VmFd};
use mote_abi::{
    hypercall::{WaitResult, status},
    layout::MAILBOX_DATA,
    mailbox::{RESPONSE, Response},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vm_memory::{Bytes, GuestAddress};
use zerocopy::IntoBytes;

use crate::{
    confinement::{Confinement, ConfinementError, Permissions, Role},
    control::{Attached, Control, StopReason},
    ending::{Ending, Exception, GuestFault, HostFailure},
    exit::Exit,
    image::KernelImage,
    memory::GuestRam,
    module::Module,
    ramdisk::Ramdisk,
    request::{ExitReport, FileRequest, Request},
    service::{
        clock::ClockService,
        demand::{DemandService, Resolution},
        files::{FileService, Refusal},
        output::{self, DrainError, OutputService, Patience},
        stdin::Stdin,
        wait,
    },
    stats::Stats,
    vcpu,
    vm::Report,
};

/// How long a stopped run waits for readers of its output.
const GRACE: Duration = Duration::from_secs(2);
/// How often output is taken at least.
const DRAIN_INTERVAL: Duration = Duration::from_millis(20);

/// Everything that a run needs. Fields that refer to guest memory come before those that own it.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) vcpu: VcpuFd,
    pub(crate) vm: VmFd,
    pub(crate) demand: DemandService,
    pub(crate) clock: ClockService,
    pub(crate) stdin: Stdin,
    pub(crate) files: Arc<FileService>,
    pub(crate) housekeeping: Housekeeping,
    pub(crate) deadline: Option<Duration>,
    pub(crate) interrupt_on: Option<OwnedFd>,
    pub(crate) confinement: Confinement,
    pub(crate) permissions: Permissions,
    pub(crate) stats: Stats,
    pub(crate) _kernel: Arc<KernelImage>,
    pub(crate) _module: Arc<Module>,
    pub(crate) _ramdisk: Option<Arc<Ramdisk>>,
}

/// What an exit leads to.
enum Next {
    Enter,
    End(Ending),
}

impl Runner {
    /// Runs to the end. Whatever that is, all output is written out.
    pub(crate) fn run(mut self) -> Report {
        let started = Instant::now();
        let keeper = self.start_housekeeping(started);
        let (keeper, ending) = match keeper {
            Ok(keeper) => (Some(keeper.thread), self.enter_until_end(started, &keeper.confined)),
            Err(failure) => (None, failure.into()),
        };
        let flushing = Instant::now();
        let mut ending = self.housekeeping.finish(ending);
        if self.files.has_lost_writes() {
            ending = replace_success(ending, HostFailure::LostWrites.into());
        }
        if let Some(keeper) = keeper {
            // It saw the end and returns at once. A panic in it would be a mistake of ours, and is already reported.
            let _joined = keeper.join();
        }
        self.stats.phases.flush = flushing.elapsed();
        self.stats.touched_bytes = self.housekeeping.ram.resident_bytes();
        Report { ending, stats: self.stats }
    }

    /// Confines this thread to its files, which the housekeeping thread inherits, and starts that.
    fn start_housekeeping(&mut self, started: Instant) -> Result<Keeper, HostFailure> {
        let confinement = self.confinement;
        confinement.restrict_files(&self.permissions)?;
        let shared = self.housekeeping.clone();
        let watch = Watch {
            deadline: self.deadline.and_then(|after| started.checked_add(after)),
            interrupt_on: self.interrupt_on.take(),
        };
        let role = Role::housekeeping(&self.permissions);
        let (sender, confined) = mpsc::sync_channel(1);
        let keep = move || {
            // The receiver is there until the run is over.
            let _sent = sender.send(confinement.restrict_calls(role));
            shared.keep(&watch);
        };
        let thread = thread::Builder::new().name("mote-housekeeping".into()).spawn(keep);
        let thread = thread.map_err(|error| HostFailure::Machine(format!("no thread for housekeeping: {error}")))?;
        Ok(Keeper { thread, confined })
    }

    /// Confines this thread to its system calls, and sees that the housekeeping thread has done so.
    fn restrict_calls(&self, keeper: &mpsc::Receiver<Result<(), ConfinementError>>) -> Result<(), ConfinementError> {
        if self.confinement == Confinement::Off {
            return Ok(());
        }
        self.confinement.restrict_calls(Role::vcpu(&self.permissions))?;
        keeper.recv().map_err(|_| ConfinementError::HousekeepingGone)?
    }

    fn enter_until_end(&mut self, started: Instant, keeper: &mpsc::Receiver<Result<(), ConfinementError>>) -> Ending {
        let control = self.housekeeping.control();
        let attached = match control.attach(&self.vcpu) {
            Ok(attached) => attached,
            Err(error) => return Ending::HostFailure(HostFailure::Machine(format!("the kick signal: {error}"))),
        };
        if let Err(error) = self.restrict_calls(keeper) {
            return HostFailure::from(error).into();
        }
        // The time that making the VM took must not make its clocks late.
        if let Err(failure) = self.clock.renew(&self.vcpu, self.housekeeping.ram.memory()) {
            return failure.into();
        }
        loop {
            match self.step(&control, &attached, started) {
                Next::Enter => {}
                Next::End(ending) => return ending,
            }
        }
    }

    /// One entry and its exit.
    fn step(&mut self, control: &Control, attached: &Attached<'_>, started: Instant) -> Next {
        if let Some(reason) = control.stop_reason() {
            return Next::End(stopped(reason));
        }
        let exit = match self.vcpu.run() {
            Ok(exit) => Exit::from(exit),
            Err(error) => return self.run_error(error, attached),
        };
        let result = match exit {
            Exit::Doorbell => self.answer(control, started),
            Exit::Fault { address } => self.fault(address),
            Exit::StrayAccess { address } => Err(GuestFault::StrayAccess { address }.into()),
            Exit::Stopped(how) => Err(GuestFault::Stopped(how).into()),
            Exit::EntryFailed { reason } => Err(HostFailure::Entry { reason }.into()),
        };
        result.unwrap_or_else(Next::End)
    }

    fn run_error(&mut self, error: kvm_ioctls::Error, attached: &Attached<'_>) -> Next {
        match error.errno() {
            libc::EINTR | libc::EAGAIN => {
                self.stats.exits.signal += 1;
                attached.take_kick();
                Next::Enter
            }
            // KVM could not reach the memory behind a slot.
            libc::EFAULT => Next::End(HostFailure::MemoryGone.into()),
            errno => Next::End(HostFailure::Run(std::io::Error::from_raw_os_error(errno)).into()),
        }
    }

    /// An exception: a demand for memory, or the end.
    fn fault(&mut self, address: u64) -> Result<Next, Ending> {
        let ram = &self.housekeeping.ram;
        let frame = vcpu::exception_frame(ram.memory()).map_err(|error| HostFailure::Machine(error.to_string()))?;
        match self.demand.resolve(&self.vm, ram, &frame, address)? {
            Resolution::Mapped => {
                self.stats.exits.demand += 1;
                Ok(Next::Enter)
            }
            Resolution::Exhausted => Err(GuestFault::OutOfMemory("no page is left for its memory".into()).into()),
            Resolution::NotDemand => {
                let registers = vcpu::registers(&self.vcpu, &frame);
                Err(GuestFault::Exception(Exception::new(&frame, address, registers)).into())
            }
        }
    }

    /// A hypercall.
    fn answer(&mut self, control: &Control, started: Instant) -> Result<Next, Ending> {
        let request = Request::take(self.housekeeping.ram.memory())?;
        let exits = &mut self.stats.exits;
        match request {
            Request::Exit(report) => {
                exits.end += 1;
                return Ok(Next::End(self.end(*report, started)));
            }
            Request::DrainOutput => {
                exits.drain_output += 1;
                self.housekeeping.drain()?;
                self.respond(&Response::new(status::OK, &0u32, 0))?;
            }
            Request::ReadStdin { max_bytes } => {
                exits.read_stdin += 1;
                self.housekeeping.drain()?;
                let response = match self.stdin.read(max_bytes, control) {
                    Ok(bytes) => {
                        let length = u32::try_from(bytes.len()).unwrap_or(0);
                        self.write(MAILBOX_DATA.start, &bytes)?;
                        Response::new(status::OK, &0u32, length)
                    }
                    Err(refusal) => refused(refusal, control)?,
                };
                self.respond(&response)?;
            }
            Request::Wait { timeout, mut interests } => {
                exits.wait += 1;
                self.housekeeping.drain()?;
                let response = match wait::wait(&mut interests, timeout, &self.stdin, &self.files, control) {
                    Ok(ready) => {
                        let bytes = interests.as_bytes();
                        self.write(MAILBOX_DATA.start, bytes)?;
                        let result = WaitResult { ready, reserved: 0 };
                        Response::new(status::OK, &result, u32::try_from(bytes.len()).unwrap_or(0))
                    }
                    Err(refusal) => refused(refusal, control)?,
                };
                self.respond(&response)?;
            }
            Request::File(request) => {
                match &request {
                    FileRequest::Accept { .. }
                    | FileRequest::Receive(_)
                    | FileRequest::Send(_)
                    | FileRequest::Shutdown { .. } => exits.sockets += 1,
                    _ => exits.files += 1,
                }
                // What was posted comes before what is asked.
                self.housekeeping.drain()?;
                let response = match self.files.answer(request, self.housekeeping.ram.memory(), control) {
                    Ok(response) => response,
                    Err(refusal) => refused(refusal, control)?,
                };
                self.respond(&response)?;
            }
            Request::ReadClock => {
                exits.read_clock += 1;
                self.clock.renew(&self.vcpu, self.housekeeping.ram.memory())?;
                self.respond(&Response::new(status::OK, &0u32, 0))?;
            }
        }
        Ok(Next::Enter)
    }

    fn end(&mut self, report: ExitReport, started: Instant) -> Ending {
        let [entered, parsed, instantiated, ended] = report.tsc;
        let whole = started.elapsed();
        let between = |from: u64, to: u64| self.clock.duration(to.saturating_sub(from)).min(whole);
        let phases = &mut self.stats.phases;
        phases.parse = between(entered, parsed);
        phases.instantiate = between(parsed, instantiated);
        phases.run = between(instantiated, ended);
        phases.enter = whole.saturating_sub(between(entered, ended));
        self.stats.fuel_used = report.fuel_used;
        report.ending
    }

    fn respond(&self, response: &Response) -> Result<(), HostFailure> {
        self.write(RESPONSE, response.as_bytes())
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), HostFailure> {
        let written = self.housekeeping.ram.memory().write_slice(bytes, GuestAddress(at));
        written.map_err(|error| HostFailure::Machine(error.to_string()))
    }
}

/// The answer to a request that was not done, unless the run is to end.
fn refused(refusal: Refusal, control: &Control) -> Result<Response, Ending> {
    match refusal {
        Refusal::Errno(errno) => Ok(Response::new(u32::from(errno.code()), &0u32, 0)),
        Refusal::Stopped => Err(end_of(control)),
    }
}

fn stopped(reason: StopReason) -> Ending {
    match reason {
        StopReason::Interrupted => Ending::Interrupted,
        StopReason::DeadlineExceeded => Ending::DeadlineExceeded,
        StopReason::OutputFailed => Ending::HostFailure(HostFailure::OutputFailed),
    }
}

/// The end of a run whose service was stopped.
fn end_of(control: &Control) -> Ending {
    control.stop_reason().map_or(Ending::Interrupted, stopped)
}

impl From<GuestFault> for Ending {
    fn from(fault: GuestFault) -> Self {
        Self::GuestFault(Box::new(fault))
    }
}

/// What the vCPU's thread shares with the thread that drains output and watches the clock.
#[derive(Debug, Clone)]
pub(crate) struct Housekeeping {
    control: Arc<Control>,
    ram: Arc<GuestRam>,
    output: Arc<Mutex<OutputService>>,
    /// Set when the run is over.
    done: Arc<Done>,
}

/// The housekeeping thread, which says once whether it is confined.
struct Keeper {
    thread: JoinHandle<()>,
    confined: mpsc::Receiver<Result<(), ConfinementError>>,
}

/// Tells the housekeeping thread to end.
#[derive(Debug)]
struct Done(OwnedFd);

/// What the housekeeping thread watches for.
#[derive(Debug)]
struct Watch {
    deadline: Option<Instant>,
    interrupt_on: Option<OwnedFd>,
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
    fn keep(&self, watch: &Watch) {
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
    fn drain(&self) -> Result<(), Ending> {
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
    fn finish(&self, ending: Ending) -> Ending {
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
fn replace_success(ending: Ending, failure: Ending) -> Ending {
    match ending {
        Ending::Exited(_) | Ending::HostFailure(HostFailure::OutputFailed) => failure,
        other => other,
    }
}
