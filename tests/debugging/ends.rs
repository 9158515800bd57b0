//! How runs under a debugger end: the same status for the debugger, for who waits for the process, and for `mote run`.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use rustix::process::Signal;

use super::client::{Session, Waiting};
use crate::support::{
    command::{finish, kill, module_file, mote, payload, run, run_payload},
    kvm,
};

#[test]
fn statuses_and_messages_are_those_of_a_run() {
    for (options, payload, status) in [
        (&[][..], "hello.wat", "W00"),
        (&[], "exit.wat", "W2a"),
        (&[], "unreachable.wat", "W86"),
        (&[], "unknown-import.wat", "W7e"),
        (&["--fuel", "100000"], "spin.wat", "W86"),
        (&["--timeout", "200ms"], "spin.wat", "W7c"),
        (&["--confinement", "required"], "trap-after-print.wat", "W86"),
        (&["--confinement", "off"], "exit.wat", "W2a"),
    ] {
        let Some(mut session) = Session::start(options, payload) else { return };
        session.expect("vCont;c", status);
        let (debugged, run) = (session.finish(), run_payload(options, payload, &[]));
        assert_eq!((debugged.status, &debugged.stdout, &debugged.stderr), (run.status, &run.stdout, &run.stderr), "{payload}");
    }
}

/// Also those that mean something else when they are `mote`'s own.
#[test]
fn a_programs_own_status_is_told_as_it_is() {
    for status in [0, 1, 127, 137, 255] {
        let module = module_file(format!(
            r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32))) (memory (export "memory") 1)
                (func (export "_start") (call $exit (i32.const {status}))))"#
        ));
        let module = module.path().to_str().unwrap();
        let Some(mut session) = Session::start(&[], module) else { return };
        session.expect("vCont;c", &format!("W{status:02x}"));
        session.finish().expect(status);
        run_payload(&[], module, &[]).expect(status);
    }
}

#[test]
fn help_says_what_ends_a_run() {
    let help = run(["gdb", "--help"]).expect(0);
    for expected in ["137  interrupted by SIGINT, SIGTERM or SIGHUP; or the debugger killed the guest, or was lost", "SIGSYS"] {
        assert!(help.text().contains(expected), "{help:?}");
    }
}

#[test]
fn a_guest_that_is_left_alone_goes_on() {
    let Some(mut session) = Session::start(&[], "hello.wat") else { return };
    let second = session.step();
    // Nobody takes it away.
    session.expect(&format!("Z0,{:x},1", second + 16), "OK");
    session.expect("D", "OK");
    assert_eq!(session.try_answer(), None);
    session.finish().expect_output("Hello from a micro VM!\n");
}

#[test]
fn a_debugger_can_kill() {
    for packet in ["k", "vKill;1"] {
        let Some(mut session) = Session::start(&[], "spin.wat") else { return };
        session.tell("vCont;c");
        session.interrupt();
        session.tell(packet);
        while session.try_answer().is_some() {}
        session.finish().complains(137, "stopped: killed by the debugger");
    }
}

/// One with a guest that is stopped, or that runs for ever.
fn session_with_guest(running: bool) -> Option<Session> {
    let mut session = Session::start(&[], "spin.wat")?;
    session.step();
    if running {
        session.tell("vCont;c");
        thread::sleep(Duration::from_millis(50));
    }
    Some(session)
}

#[test]
fn a_debugger_that_goes_away_ends_the_run() {
    for running in [false, true] {
        let Some(session) = session_with_guest(running) else { return };
        session.hang_up().finish().complains(137, "lost its debugger: it closed the connection");
    }
}

#[test]
fn signals_end_a_run_that_is_stopped_or_goes_on_or_waits() {
    for running in [false, true] {
        let Some(mut session) = session_with_guest(running) else { return };
        kill(session.process(), Signal::TERM);
        if running {
            assert_eq!(session.answer(), "W89");
        }
        session.finish().complains(137, "stopped: interrupted by a signal");
    }
    let Some(waiting) = Waiting::start(&[], "spin.wat") else { return };
    thread::sleep(Duration::from_millis(200));
    kill(&waiting.process, Signal::INT);
    let outcome = finish(waiting.process).expect(137);
    assert!(outcome.stderr.contains("before a debugger came"), "{outcome:?}");
    assert!(!waiting.socket.exists());
}

/// The clock of `--timeout` stands still while the guest does.
#[test]
fn a_deadline_waits_for_the_debugger() {
    let Some(mut session) = Session::start(&["--timeout", "3s"], "hello.wat") else { return };
    session.step();
    thread::sleep(Duration::from_millis(3500));
    session.step();
    session.expect("vCont;c", "W00");
    session.finish().expect_output("Hello from a micro VM!\n");
}

#[test]
fn one_debugger_connects_by_tcp() {
    if !kvm::usable() {
        return;
    }
    let module = payload("exit.wat").display().to_string();
    let mut process = mote(["gdb", "--listen", "127.0.0.1:0", &module]).spawn().unwrap();
    let mut stderr = BufReader::new(process.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    let address =
        line.split_once("target remote ").and_then(|(_, rest)| rest.split_once('\'')).expect("it says how to connect").0;
    let mut first = TcpStream::connect(address).unwrap();
    // The socket is closed when the first has come.
    while TcpStream::connect(address).is_ok() {
        thread::sleep(Duration::from_millis(5));
    }
    first.write_all(b"$vCont;c#a8").unwrap();
    finish(process).expect(42);
}

#[test]
fn what_is_no_place_is_refused() {
    let module = payload("exit.wat").display().to_string();
    run(["gdb", "--listen", "nowhere", &module]).expect(2);
    run(["gdb", "--listen", "/tmp/a:b", &module]).expect(2);
    run(["gdb", "--verify", &module].as_slice()).complains(2, "--verify is for snapshots");
    if kvm::usable() {
        run(["gdb", "--listen", "/nowhere/at/all", &module]).complains(125, "cannot listen at /nowhere/at/all");
    }
}

/// Also one that nobody listens at any more: to find out would be to connect.
#[test]
fn what_is_there_already_is_left_alone() {
    let Some(waiting) = Waiting::start(&[], "exit.wat") else { return };
    let (listen, module) = (waiting.socket.display().to_string(), payload("exit.wat").display().to_string());
    run(["gdb", "--listen", &listen, &module]).complains(125, "cannot listen");
    let mut session = waiting.connect();
    session.expect("vCont;c", "W2a");
    session.finish().expect(42);
}
