//! Returns from commands.

use iced_x86::code_asm::{CodeAssembler, dword_ptr, qword_ptr};
use mote_abi::{
    hypercall::{EXIT, ExitArgs, LinearMemory, NO_FUEL, ReturnArgs, exit_kind, return_kind, trap},
    layout::{
        BASE, CHUNK_BYTES, DOORBELL, HEAP, IMAGE, LARGE, MAILBOX_DATA, MEDIUM, MODULE, POOL_FAR, POOL_NEAR, SYSTEM, SYSTEM_VIEW,
    },
    mailbox::{DATA_BYTES, Request},
};
use mote_vmm::{AccessError, CallError, GuestFault, Poison, SandboxState, TrapKind, Value};

use super::server::{
    ANSWER, Guest, assert_bad_request, assert_needs_restore, bad_request, builder, done, give_back, in_time, kernel,
};
use crate::support::{
    guest::{Assembled, call, spin},
    kvm,
};

const LIMIT: u32 = DATA_BYTES as u32;
/// Where demand regions begin.
const DEMAND: [u64; 3] = [HEAP.start, MEDIUM.start, LARGE.start];

#[test]
fn returns_that_cannot_be_are_faults() {
    if !kvm::usable() {
        return;
    }
    let rows: &[(&str, ReturnArgs, &str)] = &[
        ("no kind", ReturnArgs { kind: 6, ..done() }, "unknown outcome"),
        ("no kind at all", ReturnArgs { kind: u32::MAX, ..done() }, "unknown outcome"),
        ("no trap", ReturnArgs { kind: return_kind::TRAPPED, code: 0, ..done() }, "unknown trap"),
        ("no trap any more", ReturnArgs { kind: return_kind::TRAPPED, code: trap::OTHER + 1, ..done() }, "unknown trap"),
        ("payload too long", ReturnArgs { payload_bytes: LIMIT + 1, ..done() }, "longer than the mailbox"),
        ("payload longest", ReturnArgs { payload_bytes: u32::MAX, ..done() }, "longer than the mailbox"),
        ("text too long", ReturnArgs { payload_bytes: LIMIT, message_bytes: 1, ..done() }, "texts longer"),
        ("text longest", ReturnArgs { message_bytes: u32::MAX, ..done() }, "texts longer"),
        ("second text", ReturnArgs { message_bytes: LIMIT, last_call_bytes: u32::MAX, ..done() }, "texts longer"),
        ("no result", done(), "another number of results"),
        ("half a result", ReturnArgs { payload_bytes: 15, ..done() }, "another number of results"),
        ("two results", ReturnArgs { payload_bytes: 32, ..done() }, "another number of results"),
        ("all results", ReturnArgs { payload_bytes: LIMIT, ..done() }, "another number of results"),
        ("nobody failed", ReturnArgs { kind: return_kind::HOST_ERROR, ..done() }, "does not fit what the host did"),
    ];
    for (name, arguments, about) in rows {
        assert_bad_request(name, |a| give_back(a, arguments), about);
    }
}

#[test]
fn ends_in_the_place_of_returns_are_faults() {
    if !kvm::usable() {
        return;
    }
    for kind in [exit_kind::EXITED, exit_kind::TRAPPED, exit_kind::INVALID_MODULE, exit_kind::CANNOT_RUN] {
        let arguments = ExitArgs { kind, code: trap::UNREACHABLE, ..ExitArgs::default() };
        assert_bad_request(
            &format!("end {kind}"),
            |a| call(a, &Request::new(EXIT, &arguments, 0)),
            "ended in the middle of a command",
        );
    }
    let arguments = ExitArgs { kind: exit_kind::PANIC, ..ExitArgs::default() };
    let mut guest = Guest::new(|a| call(a, &Request::new(EXIT, &arguments, 0)));
    let error = guest.misbehave().unwrap_err();
    assert!(matches!(&error, CallError::Guest(fault) if matches!(**fault, GuestFault::Panic(_))), "{error}");
    assert_needs_restore("panic", &mut guest);
}

#[test]
fn requests_that_are_none_are_faults() {
    if !kvm::usable() {
        return;
    }
    let number = |number| move |a: &mut CodeAssembler| call(a, &Request { number, data_bytes: 0, arguments: [0xff; 96] });
    assert_bad_request("none", |a| a.mov(dword_ptr(DOORBELL.start), 1), "without one");
    assert_bad_request("no copy", number(8), "a copy out of no module");
    assert_bad_request("unknown", number(9), "unknown number");
    assert_bad_request("largest", number(u32::MAX), "unknown number");
}

/// What a good kernel may say as well leaves the sandbox as it would be.
#[test]
fn outcomes_are_told_as_they_are() {
    if !kvm::usable() {
        return;
    }
    let outcome = |arguments: ReturnArgs| {
        let mut guest = Guest::new(move |a| {
            for (index, byte) in (0..8).zip(b"\x1b[31m\n\0x") {
                a.mov(iced_x86::code_asm::byte_ptr(MAILBOX_DATA.start + index), i32::from(*byte))?;
            }
            give_back(a, &arguments)
        });
        let error = guest.misbehave().unwrap_err();
        let state = guest.sandbox.state();
        guest.assert_comes_back();
        (error, state)
    };
    let message = ReturnArgs { message_bytes: 8, ..done() };
    let (error, state) = outcome(ReturnArgs { kind: return_kind::TRAPPED, code: trap::OTHER, ..message });
    assert_eq!(state, SandboxState::Poisoned(Poison::Trapped));
    assert_eq!(error.trap().map(|trap| (trap.kind, trap.export.as_str())), Some((TrapKind::Other, "f")));
    assert!(!error.to_string().contains(char::is_control), "{error}");
    let (error, state) = outcome(ReturnArgs { kind: return_kind::EXITED, code: u32::MAX, ..message });
    assert!(matches!(error, CallError::Exit(u32::MAX)), "{error}");
    assert_eq!(state, SandboxState::Poisoned(Poison::Exited));
    for kind in [return_kind::INVALID, return_kind::REFUSED] {
        let (error, state) = outcome(ReturnArgs { kind, ..message });
        assert!(matches!(error, CallError::Rejected(_)) && !error.to_string().contains(char::is_control), "{error}");
        assert_eq!(state, SandboxState::Ready, "nothing was done");
    }
}

#[test]
fn fuel_and_times_may_be_anything() {
    if !kvm::usable() {
        return;
    }
    for (fuel_left, consumed) in [(0, 1000), (999, 1), (1001, 0), (u64::MAX - 1, 0), (NO_FUEL, 0)] {
        let tsc = [u64::MAX, 0, u64::MAX];
        let odd = ReturnArgs { payload_bytes: 16, fuel_left, tsc, ..done() };
        let mut guest = Guest::of(
            builder(&kernel(move |a| {
                a.mov(qword_ptr(MAILBOX_DATA.start), 5)?;
                give_back(a, &odd)
            }))
            .fuel(1000),
        );
        assert_eq!(guest.misbehave().unwrap(), 5);
        assert_eq!(guest.sandbox.fuel_consumed(), consumed, "{fuel_left}");
        guest.assert_comes_back();
    }
}

/// Values of an `i32` with more bits than it has.
#[test]
fn values_are_cut_to_their_types() {
    if !kvm::usable() {
        return;
    }
    let mut guest = Guest::new(|a| {
        a.mov(dword_ptr(MAILBOX_DATA.start), -2)?;
        a.mov(dword_ptr(MAILBOX_DATA.start + 4), -1)?;
        give_back(a, &ReturnArgs { payload_bytes: 16, ..done() })
    });
    assert_eq!(guest.misbehave().unwrap(), -2);
    assert_eq!(guest.sandbox.call_dynamic("f", &[Value::I32(1)]).unwrap(), [Value::I32(-2)]);
    guest.assert_comes_back();
}

/// A memory that is said to be where none is, or somebody else's.
#[test]
fn memories_are_where_the_host_mapped_some_or_nowhere() {
    if !kvm::usable() {
        return;
    }
    let memory = |address, bytes| LinearMemory { address, bytes };
    let nowhere = [
        memory(0, u64::MAX),
        memory(1, u64::MAX),
        memory(u64::MAX, 1),
        memory(u64::MAX - 15, u64::MAX),
        memory(DOORBELL.start, 4096),
        memory(IMAGE.start, 4096),
        memory(BASE.start, 4096),
        memory(SYSTEM.start, CHUNK_BYTES),
        memory(SYSTEM_VIEW.start, CHUNK_BYTES),
        memory(POOL_NEAR.start, CHUNK_BYTES),
        memory(POOL_FAR.start, CHUNK_BYTES),
        memory(MODULE.start, 4096),
        memory(HEAP.end, u64::MAX),
        memory(HEAP.end - 8, 4096),
        memory(LARGE.end - 8, u64::MAX),
        memory(1 << 63, 1 << 63),
    ];
    for memory in nowhere {
        in_time(move || {
            let mut guest = saying(memory);
            let mut bytes = [0x55; 16];
            for result in [guest.sandbox.read_memory(0, &mut bytes), guest.sandbox.write_memory(0, &bytes)] {
                let expected = matches!(result, Err(AccessError::Unreachable(_) | AccessError::OutOfBounds { .. }));
                assert!(expected, "{memory:#x?}: {result:?}");
            }
            for offset in [memory.bytes, memory.bytes - 1, u64::MAX] {
                let result = guest.sandbox.read_memory(offset, &mut bytes);
                assert!(matches!(result, Err(AccessError::OutOfBounds { .. })), "{memory:#x?}: {result:?}");
            }
            guest.assert_comes_back();
        });
    }
}

/// All that it can reach is RAM of its own, as much as it has.
#[test]
fn memories_in_demand_regions_are_the_guests_own() {
    if !kvm::usable() {
        return;
    }
    for address in DEMAND {
        in_time(move || {
            let mut guest = saying(LinearMemory { address, bytes: u64::MAX - address });
            let mut bytes = [0x55; 16];
            // Beyond all that is mapped there is nothing but zeros.
            guest.sandbox.read_memory(10 * CHUNK_BYTES - 8, &mut bytes).unwrap();
            assert_eq!(bytes, [0; 16]);
            let mut written = 0;
            let error = loop {
                match guest.sandbox.write_memory(written * CHUNK_BYTES + 8, b"written") {
                    Ok(()) => written += 1,
                    Err(error) => break error,
                }
            };
            assert!(matches!(error, AccessError::Unreachable(_)), "{error:?}");
            assert!((1..10).contains(&written), "16 MiB have {written} chunks");
            guest.assert_comes_back();
            let mut bytes = [0x55; 7];
            guest.sandbox.read_memory(8, &mut bytes).unwrap();
            assert_eq!(bytes, [0; 7]);
        });
    }
}

/// A guest whose memory is known to be there, by its own words.
fn saying(memory: LinearMemory) -> Guest {
    let mut guest = Guest::new(move |a| {
        a.mov(qword_ptr(MAILBOX_DATA.start), ANSWER)?;
        give_back(a, &ReturnArgs { payload_bytes: 16, memory, ..done() })
    });
    assert_eq!(guest.misbehave().unwrap(), ANSWER);
    assert_eq!(guest.sandbox.memory_bytes().unwrap(), memory.bytes);
    guest
}

#[test]
fn other_commands_are_not_believed_either() {
    if !kvm::usable() {
        return;
    }
    // A good kernel of these tests answers them without a payload.
    let mut guest = Guest::new(spin);
    let error = guest.sandbox.global("g").unwrap_err();
    assert_eq!(bad_request(&error), Some("a global without a value"));
    assert_needs_restore("global", &mut guest);
    let error = guest.sandbox.instantiate(b"\0asm\x01\0\0\0").unwrap_err();
    assert_eq!(bad_request(&error), Some("an instance out of order"));
    assert_needs_restore("instance", &mut guest);
    guest.sandbox.set_global("g", Value::I32(1)).unwrap_err();
    guest.assert_comes_back();
}

fn ends_by(misbehave: impl FnOnce(&mut CodeAssembler) -> Assembled) -> Guest {
    let mut guest = Guest::new(misbehave);
    guest.sandbox.set_deadline(Some(std::time::Duration::from_millis(50)));
    let error = guest.misbehave().unwrap_err();
    assert!(matches!(error, CallError::DeadlineExceeded), "{error}");
    assert_eq!(guest.sandbox.state(), SandboxState::Poisoned(Poison::DeadlineExceeded));
    guest.sandbox.set_deadline(Some(std::time::Duration::from_secs(30)));
    guest.assert_comes_back();
    guest
}

#[test]
fn what_does_not_return_ends_by_its_deadline_or_an_interrupt() {
    if !kvm::usable() {
        return;
    }
    let drain = |a: &mut CodeAssembler| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        call(a, &Request::new(mote_abi::hypercall::DRAIN_OUTPUT, &0u32, 0))?;
        a.jmp(again)
    };
    ends_by(drain);
    let mut guest = ends_by(spin);
    let handle = guest.sandbox.interrupt_handle();
    let interrupter = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(handle.interrupt());
    });
    let error = guest.misbehave().unwrap_err();
    interrupter.join().unwrap();
    assert!(matches!(error, CallError::Interrupted), "{error}");
    guest.assert_comes_back();
}
