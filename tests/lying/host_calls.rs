//! Calls of functions of the host.

use std::sync::{Arc, Mutex};

use iced_x86::code_asm::{CodeAssembler, qword_ptr, rax};
use mote_abi::{
    hypercall::{HOST_CALL, HostCallArgs, LinearMemory, NO_FUEL, ReturnArgs, return_kind},
    layout::{BASE, CHUNK_BYTES, HEAP, IMAGE, LARGE, MAILBOX_DATA, SYSTEM_VIEW},
    mailbox::Request,
    value::MAX_VALUES,
};
use mote_vmm::{AccessError, CallError, Caller, Poison, SandboxState};

use super::server::{
    Guest, MEMORY, assert_bad_request, assert_needs_restore, bad_request, bare_builder, builder, done, give_back, in_time, kernel,
};
use crate::support::{
    guest::{Assembled, call},
    kvm,
};

fn good() -> HostCallArgs {
    HostCallArgs { function: 0, count: 2, fuel_left: NO_FUEL, memory: MEMORY }
}

/// Calls the host with the numbers `a` and 2. Uses `rax`, `rbx`.
fn call_host(a: &mut CodeAssembler, number: i32, arguments: &HostCallArgs) -> Assembled {
    a.mov(qword_ptr(MAILBOX_DATA.start), number)?;
    a.mov(qword_ptr(MAILBOX_DATA.start + 16), 2)?;
    call(a, &Request::new(HOST_CALL, arguments, u32::MAX))
}

/// Returns what lies in the mailbox as the result.
fn give_result_back(a: &mut CodeAssembler) -> Assembled {
    give_back(a, &ReturnArgs { payload_bytes: 16, ..done() })
}

#[test]
fn a_good_call_is_answered() {
    if !kvm::usable() {
        return;
    }
    let mut guest = Guest::new(|a| {
        call_host(a, 40, &good())?;
        give_result_back(a)
    });
    assert_eq!(guest.misbehave().unwrap(), 42);
    assert_eq!(guest.sandbox.counters().host_calls, 1);
    guest.assert_comes_back();
}

#[test]
fn calls_that_cannot_be_are_faults() {
    if !kvm::usable() {
        return;
    }
    let most = MAX_VALUES as u32;
    let rows: &[(&str, HostCallArgs, &str)] = &[
        ("no such function", HostCallArgs { function: 1, ..good() }, "that there is not"),
        ("last function", HostCallArgs { function: u32::MAX, ..good() }, "that there is not"),
        ("no argument", HostCallArgs { count: 0, ..good() }, "another number of arguments"),
        ("one argument", HostCallArgs { count: 1, ..good() }, "another number of arguments"),
        ("most arguments", HostCallArgs { count: most, ..good() }, "another number of arguments"),
        ("more arguments", HostCallArgs { count: most + 1, ..good() }, "a call of the host with 1001 arguments"),
        ("all arguments", HostCallArgs { count: u32::MAX, ..good() }, "a call of the host with 4294967295 arguments"),
    ];
    for (name, arguments, about) in rows {
        assert_bad_request(name, |a| call_host(a, 1, arguments), about);
    }
}

#[test]
fn after_a_failure_there_is_only_one_way_to_go_on() {
    if !kvm::usable() {
        return;
    }
    let failing = |a: &mut CodeAssembler| call_host(a, -1, &good());
    let then = |kind| {
        move |a: &mut CodeAssembler| {
            failing(a).and_then(|()| give_back(a, &ReturnArgs { kind, payload_bytes: 16, code: 1, ..done() }))
        }
    };
    assert_bad_request(
        "another call",
        |a| failing(a).and_then(|()| call_host(a, 1, &good())),
        "went on after a host function failed",
    );
    assert_bad_request("a result", then(return_kind::DONE), "does not fit what the host did");
    assert_bad_request("a trap", then(return_kind::TRAPPED), "does not fit what the host did");
    assert_bad_request("an exit", then(return_kind::EXITED), "does not fit what the host did");
    assert_bad_request("a refusal", then(return_kind::REFUSED), "does not fit what the host did");
    let mut guest = Guest::new(then(return_kind::HOST_ERROR));
    let error = guest.misbehave().unwrap_err();
    assert_eq!(error.host_error::<std::io::Error>().map(ToString::to_string), Some("negative".into()), "{error:?}");
    assert_eq!(guest.sandbox.state(), SandboxState::Poisoned(Poison::HostError));
    guest.assert_comes_back();
}

/// Each call may claim to have as much fuel as it likes; sums of that overflow nothing.
#[test]
fn fuel_of_calls_may_be_anything() {
    if !kvm::usable() {
        return;
    }
    for fuel_left in [0, 1, u64::MAX - 1, NO_FUEL] {
        let arguments = HostCallArgs { fuel_left, ..good() };
        let kernel = kernel(|a| {
            for _ in 0..20 {
                call_host(a, 40, &arguments)?;
            }
            give_back(a, &ReturnArgs { payload_bytes: 16, fuel_left, ..done() })
        });
        let refilling = |mut caller: Caller<'_>, a: i64, b: i64| {
            caller.set_fuel(u64::MAX);
            a + b
        };
        let mut guest = Guest::of(bare_builder(&kernel).func("env", "sum", refilling).fuel(1000));
        assert_eq!(guest.misbehave().unwrap(), 42);
        guest.assert_comes_back();
    }
}

/// What a function of the host was told of the memory.
type Told = Vec<Result<usize, AccessError>>;

/// What comes of reading and writing a memory that the guest says it has.
fn accesses(memory: LinearMemory) -> Told {
    in_time(move || {
        let kernel = kernel(|a| {
            call_host(a, 40, &HostCallArgs { memory, ..good() })?;
            give_result_back(a)
        });
        let told = Arc::new(Mutex::new(Told::new()));
        let note = Arc::clone(&told);
        let look = move |mut caller: Caller<'_>, a: i64, b: i64| {
            let mut bytes = [0x55; 16];
            let all = caller.memory_bytes();
            *note.lock().unwrap() = vec![
                caller.read_memory(0, &mut bytes).map(|()| bytes.iter().filter(|byte| **byte != 0).count()),
                caller.write_memory(0, &bytes).map(|()| bytes.len()),
                caller.read_memory_to_vec(0, 16).map(|bytes| bytes.len()),
                caller.read_memory_to_vec(0, all).map(|bytes| bytes.len()),
                caller.read_memory_to_vec(all, 1).map(|bytes| bytes.len()),
                caller.read_memory_to_vec(u64::MAX, u64::MAX).map(|bytes| bytes.len()),
                caller.read_memory_to_vec(1, u64::MAX - 1).map(|bytes| bytes.len()),
            ];
            a + b
        };
        let mut guest = Guest::of(bare_builder(&kernel).func("env", "sum", look));
        assert_eq!(guest.misbehave().unwrap(), 42, "the guest goes on");
        guest.assert_comes_back();
        std::mem::take(&mut *told.lock().unwrap())
    })
}

#[test]
fn memories_are_read_where_there_is_one_and_no_room_is_made_for_others() {
    if !kvm::usable() {
        return;
    }
    let memory = |address, bytes| LinearMemory { address, bytes };
    for nowhere in [
        memory(0, u64::MAX),
        memory(u64::MAX, u64::MAX),
        memory(u64::MAX - 15, 16),
        memory(BASE.start, CHUNK_BYTES),
        memory(IMAGE.start, CHUNK_BYTES),
        memory(SYSTEM_VIEW.start, CHUNK_BYTES),
        memory(LARGE.end, u64::MAX),
        memory(HEAP.end - 8, 1 << 63),
    ] {
        let told = accesses(nowhere);
        assert!(told.iter().all(Result::is_err), "{nowhere:#x?}: {told:?}");
    }
    // Its own, and far more than it has.
    let told = accesses(memory(HEAP.start, u64::MAX));
    assert!(matches!(told[..3], [Ok(_), Ok(16), Ok(16)]) && told[3..].iter().all(Result::is_err), "{told:?}");
    let told = accesses(memory(LARGE.start, CHUNK_BYTES));
    assert!(matches!(told[..4], [Ok(0), Ok(16), Ok(16), Ok(2097152)]) && told[4..].iter().all(Result::is_err), "{told:?}");
    assert!(accesses(memory(0, 0)).iter().take(3).all(Result::is_err));
}

/// A function that panics poisons the sandbox of which it was called, and no other.
#[test]
fn a_function_that_panics_leaves_its_sandbox_to_be_restored() {
    if !kvm::usable() {
        return;
    }
    let kernel = kernel(|a| {
        call_host(a, 40, &good())?;
        give_result_back(a)
    });
    let panicking = |_: Caller<'_>, _: i64, _: i64| -> i64 { std::panic::panic_any("on purpose") };
    let mut guest = Guest::of(bare_builder(&kernel).func("env", "sum", panicking));
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| guest.misbehave().is_ok()));
    assert!(unwound.is_err());
    assert_needs_restore("panic", &mut guest);
    let mut other = Guest::of(builder(&kernel));
    assert_eq!(other.misbehave().unwrap(), 42);
}

/// Calls without end end with the deadline, however often the host is called.
#[test]
fn calls_without_end_meet_the_deadline() {
    if !kvm::usable() {
        return;
    }
    let mut guest = Guest::new(|a| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        call_host(a, 1, &good())?;
        a.xor(rax, rax)?;
        a.jmp(again)
    });
    guest.sandbox.set_deadline(Some(std::time::Duration::from_millis(50)));
    let error = guest.misbehave().unwrap_err();
    assert!(matches!(error, CallError::DeadlineExceeded) && bad_request(&error).is_none(), "{error}");
    guest.sandbox.set_deadline(Some(std::time::Duration::from_secs(30)));
    guest.assert_comes_back();
}
