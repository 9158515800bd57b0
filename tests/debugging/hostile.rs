//! What no debugger says: the run may end for it, but not `mote`.

use super::client::Session;

/// Ends by itself: the other end may have given up already.
#[track_caller]
fn survives(mut session: Session, bytes: &[u8]) {
    session.send(bytes);
    // Whoever still listens is told to let go.
    session.send(b"$k#6b");
    let outcome = session.hang_up().finish();
    assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
    assert!(matches!(outcome.status, Some(0 | 137)), "{outcome:?} after {:?}", bytes.escape_ascii().to_string());
}

fn packet(body: &[u8]) -> Vec<u8> {
    let sum = body.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    [b"$", body, format!("#{sum:02x}").as_bytes()].concat()
}

#[test]
fn garbage_ends_the_run_at_most() {
    let noise: Vec<u8> = (0u32..100_000).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let http = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for bytes in [&noise[..], http, b"$", b"$#", b"#00", &[0xff; 5000], &[b'$'; 5000], b"$g#00$g#00$g#00-----", &[3; 1000]] {
        let Some(session) = Session::start(&[], "hello.wat") else { return };
        survives(session, bytes);
    }
}

#[test]
fn packets_that_make_no_sense_end_the_run_at_most() {
    let long = [b"m".as_slice(), &b"f".repeat(3000)].concat();
    let bodies: [&[u8]; 34] = [
        b"",
        b"m",
        b"m,",
        b"m0",
        b"m,1",
        b"mffffffffffffffffff,1",
        b"m200000,",
        b"m0,ffffffffffffffff",
        b"M0",
        b"M800000,1",
        b"M800000,1:zz",
        b"M800000,ffffffff:00",
        b"X800000,2:}",
        b"X800000,0:",
        b"G",
        b"G00",
        b"Gzz",
        b"P10",
        b"p99",
        b"Z0",
        b"Z0,",
        b"Z9,200000,1",
        b"Z2,ffffffffffffffff,8",
        b"z0,0,0",
        b"vCont",
        b"vCont;",
        b"vCont;x",
        b"vCont;s:p0.0;s",
        b"vCont;C",
        b"vCont;r1",
        b"Hg-9",
        b"qXfer:features:read:target.xml:ffffffffffffffff,ffffffffffffffff",
        b"vKill;zz",
        &long,
    ];
    for body in bodies {
        let Some(session) = Session::start(&[], "hello.wat") else { return };
        survives(session, &packet(body));
    }
}

/// More than a debugger could take.
#[test]
fn a_reader_of_all_memory_that_takes_nothing_is_ended_by_a_signal() {
    let Some(mut session) = Session::start(&[], "hello.wat") else { return };
    // Four megabytes are mapped in a row, and are asked for fifty times.
    for _ in 0..50 {
        session.tell("m10000000000,1f0000");
    }
    std::thread::sleep(std::time::Duration::from_millis(100));
    crate::support::command::kill(session.process(), rustix::process::Signal::TERM);
    session.finish().complains(137, "stopped: interrupted by a signal");
}

/// There is always something to be read, and somebody who reads: nothing waits.
#[test]
fn a_debugger_that_never_stops_talking_is_ended_by_a_signal() {
    for (running, flood) in [(false, &b"+"[..]), (false, b"$g#67"), (false, b"$m10000000000,1f0000#01"), (true, b"+")] {
        let Some(mut session) = Session::start(&[], "spin.wat") else { return };
        session.step();
        if running {
            session.tell("vCont;c");
        }
        let threads = session.flood(flood);
        std::thread::sleep(std::time::Duration::from_millis(200));
        crate::support::command::kill(session.process(), rustix::process::Signal::TERM);
        session.finish().complains(137, "stopped: interrupted by a signal");
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// The clock stands still only while the guest does.
#[test]
fn a_debugger_that_talks_to_a_running_guest_does_not_stop_the_clock() {
    let Some(mut session) = Session::start(&["--timeout", "500ms"], "spin.wat") else { return };
    session.tell("vCont;c");
    let threads = session.flood(b"+");
    session.finish().complains(124, "");
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// A guest that runs takes no packets but an interrupt; what comes is looked at, and it goes on.
#[test]
fn packets_while_the_guest_runs_do_no_harm() {
    let Some(mut session) = Session::start(&[], "spin.wat") else { return };
    session.tell("vCont;c");
    std::thread::sleep(std::time::Duration::from_millis(50));
    session.send(b"+++");
    std::thread::sleep(std::time::Duration::from_millis(50));
    session.interrupt();
    session.tell("k");
    session.finish().complains(137, "killed by the debugger");
}
