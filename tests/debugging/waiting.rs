//! A guest that waits for the host is stopped as quickly as one that computes, and goes on waiting.

use std::{io::Write, thread, time::Duration};

use mote_abi::layout::IMAGE;

use super::client::Session;

#[test]
fn waiting_for_input_is_interrupted_and_goes_on() {
    let Some(mut session) = Session::start(&[], "cat.wat") else { return };
    let mut stdin = session.process().stdin.take().unwrap();
    for _ in 0..3 {
        session.tell("vCont;c");
        thread::sleep(Duration::from_millis(100));
        session.interrupt();
        let rip = session.rip();
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
    session.tell("vCont;c");
    thread::sleep(Duration::from_millis(100));
    session.interrupt();
    let waiting_at = session.rip();
    // The request is answered first.
    stdin.write_all(b"one").unwrap();
    assert_ne!(session.step(), waiting_at);
    session.tell("vCont;c");
    thread::sleep(Duration::from_millis(100));
    session.interrupt();
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
