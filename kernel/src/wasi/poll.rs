//! `poll_oneoff` on clocks and standard streams.

use mote_abi::hypercall::{FOREVER_NS, WaitResult, interest};
use mote_kernel_logic::{
    fd::{Stream, rights},
    poll::{EVENT_BYTES, Event, Interest, SUBSCRIPTION_BYTES, Subscription},
};

use super::{Wasi, clocks::ClockId, errno::Errno, linear::Linear};
use crate::hypercall;

/// What a subscription comes to.
enum State {
    /// Happens at this time of this clock.
    At(ClockId, u64),
    /// Happens when standard input is ready.
    Stdin,
    /// Has happened already.
    Done { errno: Option<Errno>, available_bytes: u64 },
}

pub(super) fn oneoff(
    wasi: &mut Wasi,
    memory: &mut Linear<'_>,
    subscriptions: u32,
    events: u32,
    count: u32,
    happened: u32,
) -> Result<(), Errno> {
    if count == 0 {
        return Err(Errno::Inval);
    }
    let bytes = |each: usize| count.checked_mul(each as u32).ok_or(Errno::Fault);
    memory.check(events, bytes(EVENT_BYTES)?)?;
    memory.check(happened, 4)?;
    // Input and output may overlap, so the input is read whole first; its size is bounded by the memory it lies in.
    let source = memory.slice(subscriptions, bytes(SUBSCRIPTION_BYTES)?)?;
    let mut pending = super::room_for(count)?;
    for bytes in source.as_chunks().0 {
        let subscription = Subscription::decode(bytes).ok_or(Errno::Inval)?;
        pending.push((subscription, state(wasi, subscription.interest)?));
    }

    let stdin = wait(&pending);

    let mut written = 0u32;
    for (subscription, state) in &pending {
        if let Some(event) = event(subscription, state, stdin) {
            let at = events.checked_add(written * EVENT_BYTES as u32).ok_or(Errno::Fault)?;
            memory.write(at, &event.encode())?;
            written += 1;
        }
    }
    memory.write_u32(happened, written)
}

/// Whether a read of standard input would not block.
pub(super) fn stdin_is_ready(wasi: &Wasi) -> bool {
    wasi.stdin.buffered_bytes() > 0 || hypercall::wait(0, interest::STDIN).ready & interest::STDIN != 0
}

fn state(wasi: &Wasi, interest: Interest) -> Result<State, Errno> {
    let done = |errno, available_bytes| State::Done { errno, available_bytes };
    Ok(match interest {
        Interest::Clock { id, timeout_ns, absolute } => match ClockId::decode(id) {
            Ok(clock) if absolute => State::At(clock, timeout_ns),
            // A relative timeout counts on a clock that nobody sets.
            Ok(_) => State::At(ClockId::Monotonic, ClockId::Monotonic.now_ns().saturating_add(timeout_ns)),
            Err(errno) => done(Some(errno), 0),
        },
        Interest::Read(fd) => match wasi.fds.get(fd) {
            Ok(descriptor) if descriptor.rights & rights::POLL_FD_READWRITE == 0 => done(Some(Errno::Notcapable), 0),
            Ok(descriptor) if descriptor.stream == Stream::Stdin => match wasi.stdin.buffered_bytes() {
                0 => State::Stdin,
                bytes => done(None, bytes as u64),
            },
            _ => done(Some(Errno::Badf), 0),
        },
        Interest::Write(fd) => match wasi.fds.get(fd) {
            Ok(descriptor) if descriptor.rights & rights::POLL_FD_READWRITE == 0 => done(Some(Errno::Notcapable), 0),
            // The ring always takes a page at least, if only after the host has emptied it.
            Ok(descriptor) if descriptor.stream != Stream::Stdin => done(None, mote_abi::layout::PAGE_BYTES),
            _ => done(Some(Errno::Badf), 0),
        },
    })
}

/// Waits until something has happened; what is known of standard input then.
fn wait(pending: &[(Subscription, State)]) -> WaitResult {
    let wants_stdin = pending.iter().any(|(_, state)| matches!(state, State::Stdin));
    let interests = if wants_stdin { interest::STDIN } else { 0 };
    loop {
        let timeout_ns = pending.iter().map(|(_, state)| timeout_ns(state)).min().unwrap_or(FOREVER_NS);
        if timeout_ns == 0 && interests == 0 {
            return WaitResult::default();
        }
        let result = hypercall::wait(timeout_ns, interests);
        // A host that wakes early, or a clock that was set back, must not make a sleep too short.
        let expired = pending.iter().any(|(_, state)| self::timeout_ns(state) == 0);
        if expired || result.ready != 0 {
            return result;
        }
    }
}

/// Nanoseconds until `state` happens by itself.
fn timeout_ns(state: &State) -> u64 {
    match state {
        State::At(clock, time_ns) => time_ns.saturating_sub(clock.now_ns()),
        State::Stdin => FOREVER_NS,
        State::Done { .. } => 0,
    }
}

fn event(subscription: &Subscription, state: &State, stdin: WaitResult) -> Option<Event> {
    let kind = match subscription.interest {
        Interest::Clock { .. } => 0,
        Interest::Read(_) => 1,
        Interest::Write(_) => 2,
    };
    let event = Event { userdata: subscription.userdata, errno: 0, kind, available_bytes: 0, hangup: false };
    match *state {
        State::At(..) => (timeout_ns(state) == 0).then_some(event),
        State::Stdin => (stdin.ready & interest::STDIN != 0).then_some(Event {
            available_bytes: stdin.readable_bytes,
            hangup: stdin.hangup != 0,
            ..event
        }),
        State::Done { errno, available_bytes } => {
            Some(Event { errno: errno.map_or(0, |errno| errno as u16), available_bytes, ..event })
        }
    }
}
