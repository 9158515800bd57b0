//! One command of the guest, from the entry to what came of it: functions of the host are called on the way, and the state in
//! which the sandbox is left is decided here.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mote_abi::{command, hypercall::LinearMemory, layout::MAILBOX_DATA, mailbox::Response};
use zerocopy::{Immutable, IntoBytes};

use super::{CallError, HostError, Poison, Sandbox, SandboxState, builder::CallLimits, host::Answered};
use crate::{
    control::{Attached, Control},
    ending::{Ending, GuestFault},
    machine::Machine,
    request::{Outcome, Returned},
    run::Event,
};

/// A call that goes on, of one command or of several: for [`Control`] it ends with this, whatever happens.
pub(super) struct Ongoing(Arc<Control>);

impl Ongoing {
    pub(super) fn begin(machine: &Machine, limits: CallLimits) -> Self {
        machine.control.begin(limits.deadline.and_then(|after| Instant::now().checked_add(after)));
        Self(Arc::clone(&machine.control))
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A command that goes on, in this thread.
pub(super) struct Session {
    _call: Ongoing,
    pub(super) attached: Attached,
}

impl Session {
    pub(super) fn begin(machine: &Machine, limits: CallLimits) -> Result<Self, CallError> {
        let call = Ongoing::begin(machine, limits);
        Ok(Self { attached: machine.attach()?, _call: call })
    }
}

/// What a command is about: an instance, and the function of it that is called.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct About {
    pub(super) instance: u32,
    pub(super) export: Option<u32>,
}

impl About {
    pub(super) fn instance(instance: u32) -> Self {
        Self { instance, export: None }
    }
}

/// What a command brings, beside what the sandbox keeps.
pub(super) enum Step {
    Done { code: u32, payload: Vec<u8> },
    AtInput,
}

impl Sandbox {
    pub(super) fn command(
        &mut self,
        number: u32,
        about: About,
        arguments: &(impl IntoBytes + Immutable),
        data: &[u8],
        stops_at_input: bool,
    ) -> Result<Step, CallError> {
        self.command_with_memory(number, about, arguments, data, stops_at_input).map(|(step, _)| step)
    }

    /// Gives the guest a command and lets it do that. Also tells where the memory is that it was about.
    pub(super) fn command_with_memory(
        &mut self,
        number: u32,
        about: About,
        arguments: &(impl IntoBytes + Immutable),
        data: &[u8],
        stops_at_input: bool,
    ) -> Result<(Step, LinearMemory), CallError> {
        // A sandbox whose call was unwound cannot be called, but looked at.
        let looks = matches!(number, command::MEMORY | command::GLOBAL_GET | command::EXPORTS);
        let state_before = self.state;
        match state_before {
            SandboxState::Ready => {}
            SandboxState::Poisoned(poison) if looks && poison.is_unwound() => {}
            SandboxState::AtInput => return Err(CallError::AtInput),
            SandboxState::Poisoned(poison) => return Err(CallError::Poisoned(poison)),
        }
        let command = Response::new(number, arguments, u32::try_from(data.len()).unwrap_or(0));
        let memory_before = self.instances.first().and_then(|instance| instance.memory);
        let step = self.enter(about, stops_at_input, |machine, session| {
            machine.write(MAILBOX_DATA.start, data)?;
            machine.respond(&command)?;
            machine.renew_clock()?;
            machine.run(&session.attached, stops_at_input)
        })?;
        if looks {
            self.state = state_before;
        }
        let index = usize::try_from(about.instance).unwrap_or(usize::MAX);
        let memory = self.instances.get(index).and_then(|instance| instance.memory).unwrap_or_default();
        if number != command::CALL
            && let Some(instance) = self.instances.get_mut(index)
        {
            // Only calls tell of the memory that is kept. This may have been about another one, or about none.
            instance.memory = if number == command::MEMORY { memory_before } else { None };
        }
        Ok((step, memory))
    }

    /// Enters the guest by `first`, answers its calls of host functions, and keeps what it says at the end.
    pub(super) fn enter(
        &mut self,
        about: About,
        stops_at_input: bool,
        first: impl FnOnce(&mut Machine, &Session) -> Result<Event, Ending>,
    ) -> Result<Step, CallError> {
        let session = Session::begin(&self.machine, self.limits)?;
        // Until the end is known; also if a function of the host panics.
        self.state = SandboxState::Poisoned(Poison::Fault);
        self.counters.calls += 1;
        if about.export.is_some() {
            self.fuel_consumed = 0;
        }
        let result = self.go_on(about, stops_at_input, &session, first);
        let result = result.map_err(|error| self.ended(error));
        drop(session);
        // Only where there can be another copy that profits from it.
        if let (1, Some(base)) = (self.counters.calls, &self.base)
            && Arc::strong_count(base) > 1
            && let Ok(page_map) = self.hypervisor.page_map()
        {
            self.machine.note_working_set(page_map, base);
        }
        self.state = match &result {
            Ok(Step::AtInput) => SandboxState::AtInput,
            Ok(Step::Done { .. }) => SandboxState::Ready,
            Err(error) => error.poison().map_or(SandboxState::Ready, SandboxState::Poisoned),
        };
        if let Ok(Step::AtInput) = &result {
            // It is in the middle of a call, which may have moved them.
            for instance in &mut self.instances {
                instance.memory = None;
            }
        }
        if let Err(error) = &result {
            self.counters.count(error);
            tracing::debug!(%error, "a call did not return");
        }
        result
    }

    pub(super) fn go_on(
        &mut self,
        about: About,
        stops_at_input: bool,
        session: &Session,
        first: impl FnOnce(&mut Machine, &Session) -> Result<Event, Ending>,
    ) -> Result<Step, CallError> {
        let mut failed = None;
        let mut given_fuel = self.limits.fuel.map(|_| i128::from(self.fuel()));
        let mut event = first(&mut self.machine, session).map_err(|ending| self.without_return(ending))?;
        loop {
            match event {
                Event::HostCall(call) => {
                    if failed.is_some() {
                        return Err(GuestFault::BadRequest("it went on after a host function failed".into()).into());
                    }
                    self.counters.host_calls += 1;
                    match self.functions.answer(&mut self.machine, &call, &mut self.data)? {
                        Answered::Returned { refilled } => given_fuel = given_fuel.map(|given| given + refilled),
                        Answered::Failed(function, error) => failed = Some((function, error)),
                    }
                }
                Event::Input => return Ok(Step::AtInput),
                Event::Returned(returned) => {
                    // Looking at a global, say, is no call and tells nothing about fuel.
                    if let (Some(given), Some(left)) = (given_fuel, returned.fuel_left) {
                        self.fuel_consumed = u64::try_from(given - i128::from(left)).unwrap_or(0);
                    }
                    return self.returned(about, *returned, failed);
                }
            }
            event = self.machine.run(&session.attached, stops_at_input).map_err(|ending| self.without_return(ending))?;
        }
    }

    /// The end of a command that the guest did not return from. One that serves tells no end of a program in another way: it
    /// is not there any more to go on.
    pub(super) fn without_return(&self, ending: Ending) -> CallError {
        match ending {
            Ending::Exited(_) | Ending::Trapped(_) | Ending::Rejected(_) if !self.instances.is_empty() => {
                GuestFault::BadRequest("it ended in the middle of a command".into()).into()
            }
            other => other.into(),
        }
    }

    /// What a command came to.
    pub(super) fn returned(
        &mut self,
        About { instance, export }: About,
        returned: Returned,
        failed: Option<(String, HostError)>,
    ) -> Result<Step, CallError> {
        let index = usize::try_from(instance).unwrap_or(usize::MAX);
        if self.instances.is_empty() {
            let [entered, parsed, instantiated] = returned.tsc;
            let between = |from: u64, to: u64| self.machine.clock.duration(to.saturating_sub(from));
            let phases = &mut self.machine.stats.phases;
            (phases.parse, phases.instantiate) = (between(entered, parsed), between(parsed, instantiated));
        }
        match (returned.outcome, failed) {
            (Outcome::Done { code, payload }, None) => {
                if let Some(instance) = self.instances.get_mut(index) {
                    instance.memory = Some(returned.memory);
                }
                // Whatever one instance does may have moved the memory of another.
                for other in self.instances.iter_mut().enumerate().filter(|(other, _)| *other != index) {
                    other.1.memory = None;
                }
                Ok(Step::Done { code, payload })
            }
            (outcome, failed) => {
                let exports = self.instances.get(index).map(|instance| &instance.exports);
                let function = export.and_then(|export| exports?.name(export)).map(str::to_owned);
                for instance in &mut self.instances {
                    instance.memory = None;
                }
                Err(match (outcome, failed) {
                    (Outcome::HostError, Some((function, source))) => CallError::Host { function: function.into(), source },
                    (Outcome::Trapped(mut trap), None) => {
                        trap.export = function.unwrap_or_default();
                        CallError::Trap(trap)
                    }
                    (Outcome::Exited(status), None) => CallError::Exit(status),
                    (Outcome::Rejected(rejection), None) => CallError::Rejected(Box::new(rejection)),
                    _ => GuestFault::BadRequest("an outcome that does not fit what the host did".into()).into(),
                })
            }
        }
    }

    /// Writes out what is left of a call that did not return.
    pub(super) fn ended(&mut self, error: CallError) -> CallError {
        let stopped = match error {
            CallError::DeadlineExceeded => Ending::DeadlineExceeded,
            CallError::Interrupted => Ending::Interrupted,
            CallError::Guest(_) | CallError::HostFailure(_) => Ending::Interrupted,
            _ => return error,
        };
        // Who called waits no longer than the deadline said.
        self.machine.finish(stopped, Duration::ZERO);
        error
    }

    /// The guest said what cannot be.
    pub(super) fn fault(&mut self, what: &str) -> CallError {
        self.state = SandboxState::Poisoned(Poison::Fault);
        GuestFault::BadRequest(what.into()).into()
    }
}

/// A command that was done, and did not stop at input.
pub(super) fn done(step: Step) -> Result<(u32, Vec<u8>), CallError> {
    match step {
        Step::Done { code, payload } => Ok((code, payload)),
        Step::AtInput => Err(CallError::AtInput),
    }
}
