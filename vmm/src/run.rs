//! The run loop: exit → request → service → answer, until an end or until something is for the caller to decide.

use std::time::{Duration, Instant};

use mote_abi::{
    announce,
    boot::{self, status_offset},
    errno::Errno,
    hypercall::{WaitResult, files::STDIN, status},
    layout::{HOST_STATUS, MAILBOX_DATA, MODULE},
    mailbox::{REQUEST, RESPONSE, Response},
};
use mote_machine::stub::Frame;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};
use zerocopy::IntoBytes;

use crate::{
    control::{Attached, Control, StopReason},
    ending::{Ending, Exception, GuestFault, HostFailure},
    exit::Exit,
    machine::{Copied, Machine},
    request::{ExitReport, FileRequest, HostCall, Request, Returned},
    service::{
        demand::Resolution,
        files::Refusal,
        output::{self, DrainError, Patience},
        wait,
    },
    vcpu,
};

/// What the caller has to decide about before the guest goes on.
#[derive(Debug)]
pub(crate) enum Event {
    /// The guest is done with a command, and waits for the next.
    Returned(Box<Returned>),
    /// It calls a function of the host.
    HostCall(HostCall),
    /// It waits for standard input. The request is still in the mailbox.
    Input,
}

/// Bits of a code segment selector that tell the ring; all set in ring 3.
pub(crate) const RING: u64 = 3;

/// What an exit leads to.
pub(crate) enum Next {
    Enter,
    Event(Event),
}

impl Machine {
    /// Makes the calling thread the one that runs this machine.
    pub(crate) fn attach(&self) -> Result<Attached, HostFailure> {
        let attached = self.control.attach(&self.vcpu);
        attached.map_err(|error| HostFailure::Machine(format!("the signal or the timer that stops a guest: {error}")))
    }

    /// Enters the guest until something is for the caller to decide, or until an end. With `stops_at_input` that is also where
    /// the guest first waits for standard input.
    pub(crate) fn run(&mut self, attached: &Attached, stops_at_input: bool) -> Result<Event, Ending> {
        let started = Instant::now();
        loop {
            if let Some(reason) = self.control.stop_reason() {
                return Err(stopped(reason));
            }
            self.is_parked = false;
            let exit = match self.vcpu.run() {
                Ok(exit) => Exit::from(exit),
                Err(error) => {
                    self.run_error(error, attached)?;
                    continue;
                }
            };
            if let Next::Event(event) = self.handle(exit, started, stops_at_input)? {
                return Ok(event);
            }
        }
    }

    /// Does what an exit asks for.
    pub(crate) fn handle(&mut self, exit: Exit, started: Instant, stops_at_input: bool) -> Result<Next, Ending> {
        match exit {
            Exit::Doorbell => {
                self.is_parked = true;
                self.answer(started, stops_at_input)
            }
            Exit::Fault { address } => self.fault(address),
            Exit::StrayAccess { address } => Err(GuestFault::StrayAccess { address }.into()),
            Exit::Stopped(how) => Err(GuestFault::Stopped(how).into()),
            Exit::EntryFailed { reason } => Err(HostFailure::Entry { reason }.into()),
        }
    }

    /// As [`Machine::run`], for a guest that stopped where it waits for standard input: does first what it asked for.
    pub(crate) fn run_on(&mut self, attached: &Attached) -> Result<Event, Ending> {
        match self.answer(Instant::now(), false)? {
            Next::Enter => self.run(attached, false),
            Next::Event(event) => Ok(event),
        }
    }

    /// An entry that ended without an exit of the guest: a kick, or a failure.
    pub(crate) fn run_error(&mut self, error: kvm_ioctls::Error, attached: &Attached) -> Result<(), Ending> {
        match error.errno() {
            libc::EINTR | libc::EAGAIN => {
                self.stats.exits.signal += 1;
                attached.take_kick();
                self.tick()
            }
            // KVM could not reach the memory behind a slot.
            libc::EFAULT => Err(HostFailure::MemoryGone.into()),
            errno => Err(HostFailure::Run(std::io::Error::from_raw_os_error(errno)).into()),
        }
    }

    /// What has to be done now and then while the guest runs: look at the clock, and at what interrupts; take output, as far as
    /// that can be written without waiting.
    pub(crate) fn tick(&mut self) -> Result<(), Ending> {
        if let Some(reason) = self.control.look() {
            return Err(stopped(reason));
        }
        match self.drain_as(Patience::None) {
            Ok(()) | Err(DrainError::Stopped) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// An exception: a demand for memory, or the end.
    fn fault(&mut self, address: u64) -> Result<Next, Ending> {
        let frame = vcpu::exception_frame(self.ram.memory()).map_err(|error| HostFailure::Machine(error.to_string()))?;
        match self.demand.resolve(&self.vm, &self.ram, &frame, address)? {
            Resolution::Mapped => {
                self.stats.exits.demand += 1;
                Ok(Next::Enter)
            }
            Resolution::Exhausted => Err(GuestFault::OutOfMemory("no page is left for its memory".into()).into()),
            Resolution::NotDemand if self.redirect(&frame, address)? => {
                self.stats.exits.exceptions += 1;
                Ok(Next::Enter)
            }
            Resolution::NotDemand => {
                let registers = vcpu::registers(&self.vcpu, &frame);
                Err(GuestFault::Exception(Exception::new(&frame, address, registers)).into())
            }
        }
    }

    /// Leaves an exception in compiled code to the handler of the kernel, if it has one.
    fn redirect(&mut self, frame: &Frame, address: u64) -> Result<bool, HostFailure> {
        let machine = |error: GuestMemoryError| HostFailure::Machine(error.to_string());
        if !MODULE.contains(frame.rip) || frame.cs & RING != RING {
            return Ok(false);
        }
        let handler: u64 = self.ram.memory().read_obj(GuestAddress(announce::HANDLER)).map_err(machine)?;
        // `iretq` faults in ring 0 on an address that is not canonical.
        if handler == 0 || handler >= 1 << 47 {
            return Ok(false);
        }
        let exception = boot::Exception { vector: frame.vector, rip: frame.rip, address };
        let at = HOST_STATUS.start + status_offset::EXCEPTION;
        self.ram.memory().write_slice(exception.as_bytes(), GuestAddress(at)).map_err(machine)?;
        vcpu::redirect(self.ram.memory(), handler).map_err(machine)?;
        Ok(true)
    }

    /// A hypercall.
    fn answer(&mut self, started: Instant, stops_at_input: bool) -> Result<Next, Ending> {
        let request = Request::take(self.ram.memory())?;
        if stops_at_input && let Some(number) = wants_input(&request) {
            self.drain()?;
            self.write(REQUEST, &number.to_le_bytes())?;
            return Ok(Next::Event(Event::Input));
        }
        let response = match request {
            Request::Exit(report) => {
                self.stats.exits.end += 1;
                return Err(self.end(*report, started));
            }
            Request::Return(returned) => {
                self.stats.exits.returns += 1;
                self.drain()?;
                return Ok(Next::Event(Event::Returned(returned)));
            }
            Request::HostCall(call) => {
                self.stats.exits.host_calls += 1;
                self.drain()?;
                return Ok(Next::Event(Event::HostCall(call)));
            }
            Request::DrainOutput => {
                self.stats.exits.drain_output += 1;
                self.drain()?;
                Response::new(status::OK, &0u32, 0)
            }
            Request::ReadStdin { max_bytes } => self.read_stdin(max_bytes)?,
            Request::Wait { timeout, interests } => self.wait(timeout, interests)?,
            Request::File(request) => self.file(request)?,
            Request::CopyModule(arguments) => {
                self.stats.exits.copy_module += 1;
                match self.copy_module(&arguments)? {
                    Copied::Whole => Response::new(status::OK, &0u32, 0),
                    Copied::InPart => Response::new(u32::from(Errno::Nomem.code()), &0u32, 0),
                    Copied::Impossible => {
                        return Err(GuestFault::BadRequest("a copy out of no module, or into no memory".into()).into());
                    }
                }
            }
            Request::ReadClock => {
                self.stats.exits.read_clock += 1;
                self.renew_clock()?;
                Response::new(status::OK, &0u32, 0)
            }
        };
        self.respond(&response)?;
        Ok(Next::Enter)
    }

    fn read_stdin(&mut self, max_bytes: usize) -> Result<Response, Ending> {
        self.stats.exits.read_stdin += 1;
        self.drain()?;
        match self.stdin.read(max_bytes, &self.control) {
            Ok(bytes) => {
                let length = u32::try_from(bytes.len()).unwrap_or(0);
                self.write(MAILBOX_DATA.start, &bytes)?;
                Ok(Response::new(status::OK, &0u32, length))
            }
            Err(refusal) => refused(refusal, &self.control),
        }
    }

    fn wait(
        &mut self,
        timeout: Option<Duration>,
        mut interests: Vec<mote_abi::hypercall::files::Interest>,
    ) -> Result<Response, Ending> {
        self.stats.exits.wait += 1;
        self.drain()?;
        match wait::wait(&mut interests, timeout, &self.stdin, &self.files, &self.control) {
            Ok(ready) => {
                let bytes = interests.as_bytes();
                self.write(MAILBOX_DATA.start, bytes)?;
                let result = WaitResult { ready, reserved: 0 };
                Ok(Response::new(status::OK, &result, u32::try_from(bytes.len()).unwrap_or(0)))
            }
            Err(refusal) => refused(refusal, &self.control),
        }
    }

    fn file(&mut self, request: FileRequest) -> Result<Response, Ending> {
        match &request {
            FileRequest::Accept { .. } | FileRequest::Receive(_) | FileRequest::Send(_) | FileRequest::Shutdown { .. } => {
                self.stats.exits.sockets += 1;
            }
            _ => self.stats.exits.files += 1,
        }
        // What was posted comes before what is asked.
        self.drain()?;
        match self.files.answer(request, self.ram.memory(), &self.control) {
            Ok(response) => Ok(response),
            Err(refusal) => refused(refusal, &self.control),
        }
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

    /// Writes the clock bases of this moment to where the guest reads them.
    pub(crate) fn renew_clock(&self) -> Result<(), HostFailure> {
        self.clock.renew(self.ram.memory())
    }

    /// Empties the ring on behalf of the guest.
    fn drain(&mut self) -> Result<(), Ending> {
        let control = std::sync::Arc::clone(&self.control);
        self.drain_as(Patience::UntilStopped(&control)).map_err(|error| match error {
            DrainError::Stopped => end_of(&control),
            error => error.into(),
        })
    }

    fn drain_as(&mut self, patience: Patience<'_>) -> Result<(), DrainError> {
        if self.output.is_empty(self.ram.memory()) {
            return Ok(());
        }
        let drained = self.output.drain(self.ram.memory(), patience);
        for (level, line) in self.output.take_log() {
            output::log(level, &line);
        }
        drained
    }

    /// Writes out what is left. A program that ended by itself waits for its readers, as any process does, until the deadline
    /// or an interrupt; one that was stopped waits for `grace`.
    pub(crate) fn finish(&mut self, ending: Ending, grace: Duration) -> Ending {
        if let Ending::Interrupted | Ending::DeadlineExceeded = ending {
            return self.flush_stopped(ending, grace);
        }
        let control = std::sync::Arc::clone(&self.control);
        match self.drain_as(Patience::UntilStopped(&control)) {
            Ok(()) => ending,
            Err(DrainError::Stopped) => self.flush_stopped(replace_success(ending, end_of(&control)), grace),
            Err(error) => replace_success(ending, error.into()),
        }
    }

    fn flush_stopped(&mut self, ending: Ending, grace: Duration) -> Ending {
        if let Err(error) = self.drain_as(Patience::UntilTime(Instant::now() + grace)) {
            tracing::warn!(?error, "the rest of the output is lost");
            // Not so the files that the program wrote.
            if let Err(error) = self.output.abandon_streams(self.ram.memory()) {
                tracing::warn!(?error, "writes to files may be lost");
            }
        }
        ending
    }

    pub(crate) fn respond(&self, response: &Response) -> Result<(), HostFailure> {
        self.write(RESPONSE, response.as_bytes())
    }

    pub(crate) fn write(&self, at: u64, bytes: &[u8]) -> Result<(), HostFailure> {
        let written = self.ram.memory().write_slice(bytes, GuestAddress(at));
        written.map_err(|error| HostFailure::Machine(error.to_string()))
    }
}

/// The number of a request that waits for standard input.
fn wants_input(request: &Request) -> Option<u32> {
    match request {
        Request::ReadStdin { .. } => Some(mote_abi::hypercall::READ_STDIN),
        Request::Wait { interests, timeout } if *timeout != Some(Duration::ZERO) => {
            interests.iter().any(|interest| interest.handle == STDIN).then_some(mote_abi::hypercall::WAIT)
        }
        _ => None,
    }
}

/// The answer to a request that was not done, unless the run is to end.
fn refused(refusal: Refusal, control: &Control) -> Result<Response, Ending> {
    match refusal {
        Refusal::Errno(errno) => Ok(Response::new(u32::from(errno.code()), &0u32, 0)),
        Refusal::Stopped => Err(end_of(control)),
    }
}

/// An end that the program chose is not the truth if its output was not written.
pub(crate) fn replace_success(ending: Ending, failure: Ending) -> Ending {
    match ending {
        Ending::Exited(_) => failure,
        other => other,
    }
}

/// The end that a stop comes to.
pub(crate) fn stopped(reason: StopReason) -> Ending {
    match reason {
        StopReason::Interrupted => Ending::Interrupted,
        StopReason::DeadlineExceeded => Ending::DeadlineExceeded,
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
