//! A session with a debugger, from the guest's first instruction to its end: bytes to `gdbstub`, stops of the guest back.

use std::convert::Infallible;

use gdbstub::{
    common::Signal,
    conn::Connection as _,
    stub::{
        DisconnectReason, GdbStub, GdbStubError, SingleThreadStopReason,
        state_machine::{GdbStubStateMachine, GdbStubStateMachineInner, state::Running},
    },
};

use super::{
    DebugReport, Departure,
    connection::{Connection, Lost},
    execution::{Guest, Stop},
};
use crate::{ending::Ending, run::stopped};

type RunningSession = GdbStubStateMachineInner<'static, Running, Guest, Connection>;
type SessionError = GdbStubError<Infallible, Lost>;

/// How a session comes to an end.
struct End {
    ending: Ending,
    departure: Departure,
    /// The debugger that is to be told.
    waiting: Option<RunningSession>,
}

/// Runs the guest to its end, as the debugger says. `status` is what that is told of the end.
pub(super) fn run(mut guest: Guest, connection: Connection, status: impl FnOnce(&Ending) -> u8) -> DebugReport {
    let End { ending, departure, waiting } = serve(&mut guest, connection).unwrap_or_else(|ending| ending.into());
    guest.detach_thread();
    let report = guest.vm.conclude(ending);
    if let Some(session) = waiting {
        let told = session.report_stop(&mut guest, SingleThreadStopReason::Exited(status(&report.ending)));
        if told.is_err() {
            tracing::debug!("the debugger was not there to be told of the end");
        }
    }
    DebugReport { report, departure }
}

fn serve(guest: &mut Guest, connection: Connection) -> Result<End, Ending> {
    guest.prepare()?;
    let session = match GdbStub::new(connection).run_state_machine(guest) {
        Ok(session) => session,
        Err(error) => return Ok(failed(guest, error)),
    };
    let mut session = session;
    loop {
        let next = match session {
            GdbStubStateMachine::Idle(mut idle) => {
                // The clock stands still while the guest does.
                let left = guest.vm.machine.control.suspend_deadline();
                let byte = idle.borrow_conn().receive();
                guest.vm.machine.control.resume_deadline(left);
                match byte {
                    Ok(byte) => idle.incoming_data(guest, byte),
                    Err(lost) => return Ok(gone(guest, &lost)),
                }
            }
            GdbStubStateMachine::Running(mut running) => match running.borrow_conn().received() {
                Some(byte) => running.incoming_data(guest, byte),
                None => match guest.go(running.borrow_conn()) {
                    Ok(Stop::Called) => match running.borrow_conn().receive() {
                        Ok(byte) => running.incoming_data(guest, byte),
                        Err(lost) => return Ok(gone(guest, &lost)),
                    },
                    Ok(stop) => running.report_stop(guest, reason(&stop)),
                    Err(ending) => return Ok(End { ending, departure: Departure::Ended, waiting: Some(running) }),
                },
            },
            GdbStubStateMachine::CtrlCInterrupt(interrupt) => {
                interrupt.interrupt_handled(guest, Some(SingleThreadStopReason::Signal(Signal::SIGINT)))
            }
            GdbStubStateMachine::Disconnected(mut disconnected) => {
                return Ok(match disconnected.get_reason() {
                    DisconnectReason::Disconnect => {
                        // It is to see that it is free.
                        drop(disconnected);
                        End { ending: guest.leave(), departure: Departure::Detached, waiting: None }
                    }
                    _ => {
                        confirm(disconnected.borrow_conn());
                        End { ending: Ending::Interrupted, departure: Departure::Killed, waiting: None }
                    }
                });
            }
        };
        session = match next {
            Ok(session) => session,
            Err(error) => return Ok(failed(guest, error)),
        };
    }
}

/// Answers a kill, which `gdbstub` does not, and for which GDB waits.
fn confirm(connection: &mut Connection) {
    const OK: &[u8] = b"$OK#9a";
    if connection.write_all(OK).and_then(|()| connection.flush()).is_err() {
        tracing::debug!("the debugger did not wait for an answer");
    }
}

fn reason(stop: &Stop) -> SingleThreadStopReason<u64> {
    match stop {
        Stop::Breakpoint => SingleThreadStopReason::SwBreak(()),
        Stop::Step => SingleThreadStopReason::DoneStep,
        Stop::Watchpoint(hit) => SingleThreadStopReason::Watch { tid: (), kind: hit.kind, addr: hit.address },
        Stop::Exception(signal) => SingleThreadStopReason::Signal(*signal),
        Stop::Called => SingleThreadStopReason::Signal(Signal::SIGINT),
    }
}

/// The end of a session that cannot go on: the connection failed, or what came is none of the protocol.
fn failed(guest: &Guest, error: SessionError) -> End {
    let lost = |why| End { ending: Ending::Interrupted, departure: Departure::Lost(why), waiting: None };
    if !error.is_connection_error() {
        return lost(error.to_string());
    }
    match error.into_connection_error() {
        Some((why, _)) => gone(guest, &why),
        None => lost("the connection failed".into()),
    }
}

/// The end of a guest whose debugger is not there any more, unless another end was the reason.
fn gone(guest: &Guest, lost: &Lost) -> End {
    match guest.vm.machine.control.stop_reason() {
        Some(reason) => End::from(stopped(reason)),
        None => End { ending: Ending::Interrupted, departure: Departure::Lost(lost.to_string()), waiting: None },
    }
}

impl From<Ending> for End {
    fn from(ending: Ending) -> Self {
        Self { ending, departure: Departure::Ended, waiting: None }
    }
}
