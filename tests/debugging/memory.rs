//! Memory as a debugger sees it.

use mote_abi::layout::{DOORBELL, FAULT_DOORBELL, HEAP, IMAGE, LARGE, LINEAR, MODULE, RAMDISK, STACK, STUBS, SYSTEM_VIEW};

use super::client::Session;
use crate::support::engine::by_engine;

#[test]
fn all_that_is_mapped_can_be_read() {
    let Some(mut session) = Session::start(&[], "hello-c.wasm") else { return };
    // What came from the user, or what became of it.
    assert_eq!(session.read(MODULE.start, 4), by_engine(b"\0asm", b"\x7fELF"));
    for address in [IMAGE.start, STACK.start, SYSTEM_VIEW.start, STUBS.start, HEAP.start] {
        session.read(address, 64);
    }
    // Across pages, and as much as a debugger asks for at most.
    session.read(IMAGE.start + 4096 - 100, 1900);
    session.expect("vCont;c", "W00");
    session.finish().expect_output("Hello from C in a micro VM!\n");
}

#[test]
fn what_is_not_there_is_an_error() {
    let Some(mut session) = Session::start(&[], "hello.wat") else { return };
    let nowhere = [0, DOORBELL.start, FAULT_DOORBELL.start, STACK.end, STACK.start - 8, RAMDISK.start, LINEAR.start, LARGE.start];
    for address in nowhere.into_iter().chain([1 << 47, u64::MAX / 2, u64::MAX - 7, u64::MAX, HEAP.end]) {
        session.expect(&format!("m{address:x},8"), "E0e");
        session.expect(&format!("M{address:x},1:00"), "E0e");
    }
    // What is there to its end.
    assert_eq!(session.ask(&format!("m{:x},10", STACK.end - 8)).len(), 16);
    session.expect("vCont;c", "W00");
    session.finish().expect_output("Hello from a micro VM!\n");
}

#[test]
fn only_what_ring_3_may_write_and_code_is_written() {
    let Some(mut session) = Session::start(&[], "hello.wat") else { return };
    for address in [MODULE.start, SYSTEM_VIEW.start, STUBS.start] {
        let before = session.read(address, 8);
        session.expect(&format!("M{address:x},2:ffff"), "E0e");
        assert_eq!(session.read(address, 8), before);
    }
    // All or nothing.
    session.expect(&format!("M{:x},2:ffff", STACK.end - 1), "E0e");
    assert_eq!(session.read(STACK.end - 1, 1), [0]);
    session.expect(&format!("M{:x},2:abcd", STACK.end - 2), "OK");
    assert_eq!(session.read(STACK.end - 2, 2), [0xab, 0xcd]);
    session.expect("vCont;c", "W00");
    session.finish().expect_output("Hello from a micro VM!\n");
}

/// Also below a breakpoint.
#[test]
fn code_can_be_changed() {
    let Some(mut session) = Session::start(&[], "spin.wat") else { return };
    let code = session.read(IMAGE.start, 4);
    session.expect(&format!("Z0,{:x},1", IMAGE.start + 1), "OK");
    // nop, nop, ud2
    session.expect(&format!("M{:x},4:90900f0b", IMAGE.start), "OK");
    assert_eq!(session.read(IMAGE.start, 4), [0x90, 0x90, 0x0f, 0x0b]);
    assert_eq!(session.run_to_breakpoint(), IMAGE.start + 1);
    session.expect(&format!("z0,{:x},1", IMAGE.start + 1), "OK");
    assert_eq!(session.read(IMAGE.start, 4), [0x90, 0x90, 0x0f, 0x0b]);
    assert_eq!(session.step(), IMAGE.start + 2);
    assert!(session.ask("vCont;s").contains("04"), "SIGILL");
    assert_ne!(code, [0x90, 0x90, 0x0f, 0x0b]);
    session.tell("k");
    session.finish().expect(137);
}
