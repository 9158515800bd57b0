//! Breakpoints, steps and interrupts of the kernels that are built in.

use std::{io::Read, thread, time::Duration};

use mote_abi::layout::{IMAGE, MODULE, STACK};

use super::client::{RIP, RSP, Session};
use crate::support::engine::by_engine;

#[test]
fn a_guest_begins_before_its_first_instruction() {
    let Some(mut session) = Session::start(&[], "exit.wat") else { return };
    assert!(session.ask("qSupported:multiprocess+;swbreak+").contains("PacketSize="));
    assert!(session.ask("?").contains("05"));
    assert!(session.ask("qXfer:features:read:target.xml:0,fff").contains("i386:x86-64"));
    let registers = session.registers();
    assert_eq!((registers[RIP], registers[RSP]), (IMAGE.start, STACK.end));
    session.expect("vCont;c", "W2a");
    session.finish().expect(42);
}

#[test]
fn breakpoints_stop_and_are_not_seen() {
    let Some(mut session) = Session::start(&[], "hello.wat") else { return };
    let code = session.read(IMAGE.start, 16);
    let second = session.step();
    assert!(second > IMAGE.start && second < IMAGE.start + 16, "{second:#x}");
    let third = session.read(second, 16);
    for _ in 0..2 {
        session.expect(&format!("Z0,{second:x},1"), "OK");
    }
    assert_eq!((session.read(IMAGE.start, 16), session.read(second, 16)), (code, third));
    // Again the first one.
    let mut registers = session.ask("g");
    registers.replace_range(16 * RIP..16 * (RIP + 1), &format!("{:016x}", IMAGE.start.swap_bytes()));
    session.expect(&format!("G{registers}"), "OK");
    assert_eq!(session.run_to_breakpoint(), second);
    session.expect(&format!("z0,{second:x},1"), "OK");
    session.expect(&format!("z0,{second:x},1"), "E16");
    assert!(session.step() > second);
    session.expect("vCont;c", "W00");
    session.finish().expect_output("Hello from a micro VM!\n");
}

#[test]
fn thousands_of_steps_change_nothing() {
    let Some(mut session) = Session::start(&[], "hello.wat") else { return };
    let mut places = std::collections::BTreeSet::new();
    for _ in 0..2000 {
        places.insert(session.step());
    }
    assert!(places.len() > 100 && places.iter().all(|place| IMAGE.contains(*place)), "{places:x?}");
    session.expect("vCont;c", "W00");
    session.finish().expect_output("Hello from a micro VM!\n");
}

/// The code of an endless loop is that of the engine, or of the compiled module.
#[test]
fn a_loop_is_interrupted_and_has_breakpoints() {
    let Some(mut session) = Session::start(&[], "print-then-spin.wat") else { return };
    let code = by_engine(IMAGE, MODULE);
    session.tell("vCont;c");
    // Then it is in the loop, or nearly.
    let mut line = [0; 16];
    session.process().stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    thread::sleep(Duration::from_millis(100));
    session.interrupt();
    for _ in 0..3 {
        let rip = session.run_into(code);
        session.expect(&format!("Z0,{rip:x},1"), "OK");
        let before = session.step();
        assert!(code.contains(before), "{before:#x}");
        assert_eq!(session.run_to_breakpoint(), rip);
        session.expect(&format!("z0,{rip:x},1"), "OK");
    }
    session.tell("k");
    session.finish().complains(137, "killed by the debugger");
}

#[test]
fn breakpoints_are_only_in_code() {
    let Some(mut session) = Session::start(&[], "hello.wat") else { return };
    for address in [0, MODULE.start, STACK.end - 8, IMAGE.end, u64::MAX, 1 << 47] {
        session.expect(&format!("Z0,{address:x},1"), "E16");
    }
    session.expect("vCont;c", "W00");
    session.finish().expect_output("Hello from a micro VM!\n");
}

/// Where the processor has watchpoints for guests one stops the guest; elsewhere it is refused, and `mote` said so.
#[test]
fn watchpoints_fire_or_are_refused() {
    let Some(mut session) = Session::start(&[], "hello.wat") else { return };
    let address = STACK.end - 16;
    match session.ask(&format!("Z2,{address:x},8")).as_str() {
        "E16" => {
            session.expect("vCont;c", "W00");
            let all = session.finish_with_all();
            assert!(all.stderr.contains("no hardware watchpoints"), "{all:?}");
        }
        "OK" => {
            // The processor knows four, of aligned addresses, and none for reads alone.
            for refused in ["Z2,800001,2", "Z2,800000,3", "Z3,800000,4"] {
                session.expect(refused, "E16");
            }
            let stop = session.ask("vCont;c");
            assert!(stop.starts_with("T05") && stop.contains(&format!("watch:{address:x};")), "{stop}");
            session.expect(&format!("z2,{address:x},8"), "OK");
            session.expect(&format!("z2,{address:x},8"), "E16");
            session.expect("vCont;c", "W00");
            let all = session.finish_with_all();
            assert!(!all.stderr.contains("watchpoints"), "{all:?}");
        }
        other => panic!("{other}"),
    }
}
