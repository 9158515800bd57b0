//! The run loop: exit → request → service → answer, until an end.

use std::{
    os::fd::OwnedFd,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use kvm_ioctls::{VcpuFd, VmFd};
use mote_abi::{
    hypercall::{WaitResult, status},
    layout::MAILBOX_DATA,
    mailbox::{RESPONSE, Response},
};
use vm_memory::{Bytes, GuestAddress};
use zerocopy::IntoBytes;

use crate::{
    confinement::{Confinement, ConfinementError, Permissions, Role},
    control::{Attached, Control},
    ending::{Ending, Exception, GuestFault, HostFailure},
    exit::Exit,
    housekeeping::{Housekeeping, Watch, end_of, replace_success, stopped},
    image::KernelImage,
    module::Module,
    ramdisk::Ramdisk,
    request::{ExitReport, FileRequest, Request},
    service::{
        clock::ClockService,
        demand::{DemandService, Resolution},
        files::{FileService, Refusal},
        stdin::Stdin,
        wait,
    },
    stats::Stats,
    vcpu,
    vm::Report,
};

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

/// The housekeeping thread, which says once whether it is confined.
struct Keeper {
    thread: JoinHandle<()>,
    confined: mpsc::Receiver<Result<(), ConfinementError>>,
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

impl From<GuestFault> for Ending {
    fn from(fault: GuestFault) -> Self {
        Self::GuestFault(Box::new(fault))
    }
}
