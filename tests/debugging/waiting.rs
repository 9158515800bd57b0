//! A guest that waits for the host is stopped as quickly as one that computes, and goes on waiting.

use std::{
    io::Write,
    thread,
    time::{Duration, Instant},
};

use mote_abi::layout::{DOORBELL, IMAGE};

use super::client::{RIP, Session};
use crate::support::command::LIMIT;

/// Lets the guest go on and interrupts it until it is where it was before, behind a store to the doorbell (`ring_doorbell` of the
/// kernel, which has its address in rax): where.
#[track_caller]
fn run_until_it_waits(session: &mut Session) -> u64 {
    let (started, mut before) = (Instant::now(), None);
    loop {
        session.tell("vCont;c");
        thread::sleep(Duration::from_millis(50));
        session.interrupt();
        let registers = session.registers();
        let place = Some(registers[RIP]).filter(|_| registers[0] == DOORBELL.start);
        if let Some(rip) = place.filter(|_| place == before) {
            return rip;
        }
        assert!(started.elapsed() < LIMIT, "it is at {:#x}", registers[RIP]);
        before = place;
    }
}

#[test]
fn waiting_for_input_is_interrupted_and_goes_on() {
    let Some(mut session) = Session::start(&[], "cat.wat") else { return };
    let mut stdin = session.process().stdin.take().unwrap();
    for _ in 0..3 {
        let rip = run_until_it_waits(&mut session);
        assert!(IMAGE.contains(rip), "{rip:#x}");
    }
    stdin.write_all(b"what was typed\n").unwrap();
    drop(stdin);
    session.expect("vCont;c", "W00");
    session.finish().expect_output("what was typed\n");
}

#[test]
fn a_guest_in_the_middle_of_waiting_can_be_stepped_and_left() {
    let Some(mut session) = Session::start(&[], "cat.wat") else { return };
    let mut stdin = session.process().stdin.take().unwrap();
    let waiting_at = run_until_it_waits(&mut session);
    // The request is answered first.
    stdin.write_all(b"one").unwrap();
    assert_ne!(session.step(), waiting_at);
    run_until_it_waits(&mut session);
    session.expect("D", "OK");
    stdin.write_all(b" two\n").unwrap();
    drop(stdin);
    session.finish().expect_output("one two\n");
}

#[test]
fn a_sleep_that_was_interrupted_is_slept() {
    let Some(mut session) = Session::start(&[], "stdin-poll.wat") else { return };
    session.tell("vCont;c");
    thread::sleep(Duration::from_millis(200));
    session.interrupt();
    session.expect("vCont;c", "W00");
    session.finish().expect_output("clock\n");
}
