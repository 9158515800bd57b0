//! Stores to the doorbell that KVM tells in parts, or again and again: what is left of one when the sandbox goes back to a
//! snapshot must not ring afterwards.

use iced_x86::code_asm::*;
use mote_abi::{
    hypercall::{RETURN, ReturnArgs},
    layout::{DOORBELL, MAILBOX_DATA},
    mailbox::Request,
};
use mote_vmm::{CallError, GuestFault, Sandbox};

use super::server::{ANSWER, Guest, MISBEHAVE, assert_needs_restore, bad_request, done};
use crate::support::{
    guest::{Assembled, post},
    kvm,
};

const BELL: u64 = DOORBELL.start;

/// Answers, with `store` to ring.
fn answer_with(a: &mut CodeAssembler, store: fn(&mut CodeAssembler) -> Assembled) -> Assembled {
    a.mov(qword_ptr(MAILBOX_DATA.start), ANSWER)?;
    post(a, &Request::new(RETURN, &ReturnArgs { payload_bytes: 16, ..done() }, 0))?;
    store(a)
}

/// Four bytes at a time, all over the page.
fn store_string(a: &mut CodeAssembler) -> Assembled {
    a.mov(rdi, BELL)?;
    a.mov(rcx, DOORBELL.bytes() / 4)?;
    a.rep().stosd()
}

type Store = (&'static str, fn(&mut CodeAssembler) -> Assembled);

/// Four bytes at a time ring, whatever comes behind them.
const RINGING: [Store; 3] = [
    ("a string", store_string),
    ("not aligned", |a| a.mov(dword_ptr(BELL + 5), eax)),
    ("one after the other", |a| a.mov(dword_ptr(BELL), eax).and_then(|()| a.mov(dword_ptr(BELL), eax))),
];

/// Others do not, but may leave KVM with something to go on with.
const STRAY: [Store; 6] = [
    ("1 byte", |a| a.mov(byte_ptr(BELL), al)),
    ("8 bytes", |a| a.mov(qword_ptr(BELL), rax)),
    ("8 bytes that are not aligned", |a| a.mov(qword_ptr(BELL + 5), rax)),
    ("16 bytes", |a| a.movaps(xmmword_ptr(BELL), xmm0)),
    ("16 bytes that are not aligned", |a| a.movups(xmmword_ptr(BELL + 4), xmm0)),
    ("a string of bytes", |a| {
        a.mov(rdi, BELL)?;
        a.mov(rcx, DOORBELL.bytes())?;
        a.rep().stosb()
    }),
];

#[test]
fn nothing_of_a_store_that_rings_is_left_after_a_restore() {
    if !kvm::usable() {
        return;
    }
    for (name, store) in RINGING {
        let mut guest = Guest::new(|a| answer_with(a, store));
        for _ in 0..3 {
            assert_eq!(guest.misbehave().unwrap(), ANSWER, "{name}");
            guest.assert_comes_back();
        }
    }
}

#[test]
fn nothing_of_it_is_in_a_snapshot() {
    if !kvm::usable() {
        return;
    }
    for (name, store) in RINGING {
        let mut guest = Guest::new(|a| answer_with(a, store));
        assert_eq!(guest.misbehave().unwrap(), ANSWER, "{name}");
        let taken = guest.sandbox.snapshot().unwrap();
        let mut copy = Sandbox::from_snapshot(&taken).unwrap();
        for _ in 0..3 {
            for sandbox in [&mut copy, &mut guest.sandbox] {
                sandbox.restore(&taken).unwrap();
                assert_eq!(sandbox.call::<_, i32>("f", 0).unwrap(), ANSWER, "{name}");
                assert_eq!(sandbox.call::<_, i32>("f", MISBEHAVE).unwrap(), ANSWER, "{name}");
            }
        }
    }
}

#[test]
fn nothing_of_a_store_that_does_not_ring_is_left_after_a_restore() {
    if !kvm::usable() {
        return;
    }
    for (name, store) in STRAY {
        let mut guest = Guest::new(|a| answer_with(a, store));
        for _ in 0..3 {
            let error = guest.misbehave().unwrap_err();
            let stray = matches!(&error, CallError::Guest(fault) if matches!(**fault, GuestFault::StrayAccess { .. }));
            assert!(stray, "{name}: {error}");
            assert_needs_restore(name, &mut guest);
        }
    }
}

/// Without a restore the rest of the string rings when the guest is entered for the next command, which it then has not done.
#[test]
fn what_rings_twice_is_a_fault_of_the_next_call() {
    if !kvm::usable() {
        return;
    }
    let mut guest = Guest::new(|a| answer_with(a, store_string));
    assert_eq!(guest.misbehave().unwrap(), ANSWER);
    let error = guest.sandbox.call::<_, i32>("f", 0).unwrap_err();
    assert!(bad_request(&error).is_some_and(|what| what.contains("without one")), "{error}");
    assert_needs_restore("string", &mut guest);
}
