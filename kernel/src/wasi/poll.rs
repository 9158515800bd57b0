//! `poll_oneoff` on any mix of clocks, standard streams, files and sockets.

use alloc::vec::Vec;

use mote_abi::{
    errno::Errno,
    hypercall::{
        FOREVER_NS,
        files::{self, Interest as HostInterest, MAX_INTERESTS, ready},
    },
};
use mote_kernel_logic::{
    fd::rights,
    poll::{EVENT_BYTES, Event, Interest, SUBSCRIPTION_BYTES, Subscription},
};

use super::{Wasi, clocks::ClockId, descriptor::Object, linear::Linear, stdin::Stdin};
use crate::{clock, hypercall};

/// What a subscription comes to.
enum State {
    /// Happens at this time of this clock.
    At(ClockId, u64),
    /// Happens when the host says so.
    Host(HostInterest),
    /// Has happened already.
    Done { errno: Option<Errno>, available_bytes: u64, hangup: bool },
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

    wait(&mut pending)?;

    let mut written = 0u32;
    for (subscription, state) in &pending {
        if let Some(event) = event(subscription, state) {
            let at = events.checked_add(written * EVENT_BYTES as u32).ok_or(Errno::Fault)?;
            memory.write(at, &event.encode())?;
            written += 1;
        }
    }
    memory.write_u32(happened, written)
}

/// Whether a read of standard input would not block.
pub(super) fn stdin_is_ready(stdin: &Stdin) -> bool {
    let mut interest = [host_interest(files::STDIN, files::interest::READ)];
    stdin.buffered_bytes() > 0 || hypercall::wait(0, &mut interest).is_ok_and(|ready| ready > 0)
}

fn state(wasi: &mut Wasi, interest: Interest) -> Result<State, Errno> {
    let done = |errno| State::Done { errno, available_bytes: 0, hangup: false };
    let (fd, events) = match interest {
        Interest::Clock { id, timeout_ns, absolute } => {
            return Ok(match ClockId::decode(id) {
                Ok(clock) if absolute => State::At(clock, timeout_ns),
                // A relative timeout counts on a clock that nobody sets.
                Ok(_) => State::At(ClockId::Monotonic, ClockId::Monotonic.now_ns().saturating_add(timeout_ns)),
                Err(errno) => done(Some(errno)),
            });
        }
        Interest::Read(fd) => (fd, files::interest::READ),
        Interest::Write(fd) => (fd, files::interest::WRITE),
    };
    let Ok(descriptor) = wasi.fds.get_mut(fd) else { return Ok(done(Some(Errno::Badf))) };
    if descriptor.rights & rights::POLL_FD_READWRITE == 0 {
        return Ok(done(Some(Errno::Notcapable)));
    }
    let reading = events == files::interest::READ;
    Ok(match &mut descriptor.object {
        Object::Stdin if reading => match wasi.stdin.buffered_bytes() {
            0 => State::Host(host_interest(files::STDIN, events)),
            bytes => State::Done { errno: None, available_bytes: bytes as u64, hangup: false },
        },
        // The ring always takes a page at least, if only after the host has emptied it.
        Object::Stdout | Object::Stderr if !reading => {
            State::Done { errno: None, available_bytes: mote_abi::layout::PAGE_BYTES, hangup: false }
        }
        Object::File(file) if reading && !file.readable || !reading && !file.writable => done(Some(Errno::Badf)),
        Object::RamFile(file) if reading && !file.readable || !reading && !file.writable => done(Some(Errno::Badf)),
        Object::File(file) if file.is_regular() => {
            let position = file.position()?;
            let left = file.stat(&wasi.files)?.bytes.saturating_sub(position);
            file_event(reading, left)
        }
        Object::RamFile(file) => {
            let stat = wasi.ram.as_ref().ok_or(Errno::Badf)?.stat(file.node)?;
            file_event(reading, stat.bytes.saturating_sub(file.position))
        }
        Object::File(file) => State::Host(host_interest(file.handle, events)),
        Object::Listener { handle } | Object::Connection { handle } => State::Host(host_interest(*handle, events)),
        Object::Stdin | Object::Stdout | Object::Stderr | Object::Directory(_) => done(Some(Errno::Badf)),
    })
}

/// A regular file never blocks, not even at its end.
fn file_event(reading: bool, left: u64) -> State {
    match reading {
        true => State::Done { errno: None, available_bytes: left, hangup: false },
        false => State::Done { errno: None, available_bytes: mote_abi::layout::PAGE_BYTES, hangup: false },
    }
}

fn host_interest(handle: u32, events: u32) -> HostInterest {
    HostInterest { handle, events, ..HostInterest::default() }
}

/// Waits until something has happened.
fn wait(pending: &mut [(Subscription, State)]) -> Result<(), Errno> {
    let mut interests: Vec<HostInterest> = pending.iter().filter_map(|(_, state)| host_part(state)).collect();
    if interests.len() > MAX_INTERESTS {
        return Err(Errno::Inval);
    }
    loop {
        let timeout_ns = pending.iter().map(|(_, state)| timeout_ns(state)).min().unwrap_or(FOREVER_NS);
        let mut ready = 0;
        // Where time does not pass, nobody has to wait for it.
        let sleeps = timeout_ns > 0 && !(clock::is_fixed() && interests.is_empty() && timeout_ns != FOREVER_NS);
        if sleeps || !interests.is_empty() {
            ready = hypercall::wait(timeout_ns, &mut interests)?;
        }
        if ready == 0 {
            clock::advance(timeout_ns);
        }
        // A host that wakes early, or a clock that was set back, must not make a sleep too short.
        if ready > 0 || pending.iter().any(|(_, state)| self::timeout_ns(state) == 0) {
            break;
        }
    }
    let states = pending.iter_mut().filter_map(|(_, state)| match state {
        State::Host(interest) => Some(interest),
        _ => None,
    });
    for (to, from) in states.zip(interests) {
        *to = from;
    }
    Ok(())
}

fn host_part(state: &State) -> Option<HostInterest> {
    match state {
        State::Host(interest) => Some(*interest),
        _ => None,
    }
}

/// Nanoseconds until `state` happens by itself.
fn timeout_ns(state: &State) -> u64 {
    match state {
        State::At(clock, time_ns) => time_ns.saturating_sub(clock.now_ns()),
        State::Host(_) => FOREVER_NS,
        State::Done { .. } => 0,
    }
}

fn event(subscription: &Subscription, state: &State) -> Option<Event> {
    let kind = match subscription.interest {
        Interest::Clock { .. } => 0,
        Interest::Read(_) => 1,
        Interest::Write(_) => 2,
    };
    let event = Event { userdata: subscription.userdata, errno: 0, kind, available_bytes: 0, hangup: false };
    match *state {
        State::At(..) => (timeout_ns(state) == 0).then_some(event),
        State::Host(interest) => (interest.ready != 0).then_some(Event {
            errno: if interest.ready & ready::BAD_HANDLE != 0 { Errno::Badf.code() } else { 0 },
            available_bytes: interest.readable_bytes,
            hangup: interest.ready & ready::HANGUP != 0,
            ..event
        }),
        State::Done { errno, available_bytes, hangup } => {
            Some(Event { errno: errno.map_or(0, Errno::code), available_bytes, hangup, ..event })
        }
    }
}
