//! Loads from the doorbell page, and stores in parts: KVM stops in the middle of the instruction, and completes it when the vCPU
//! is entered the next time. What it then writes to RAM must not end up in a sandbox that was restored in between.

use iced_x86::code_asm::*;
use mote_abi::{
    command::export_kind,
    hypercall::ReturnArgs,
    layout::{DOORBELL, MAILBOX_DATA},
    mailbox::RESPONSE,
    value::RawValue,
};
use mote_vmm::{CallError, GuestFault, KernelImage, Sandbox};

use super::server::{bare_builder, done, export, give_back, jump_if_resumed, kernel_of_engine};
use crate::support::{
    guest::{Assembled, CONSTANTS, DATA, DATA_BYTES, copy},
    kvm,
};

const BELL: u64 = DOORBELL.start;
/// Where loads write to: in the middle of the kernel's data, which is full of [`PATTERN`] when the snapshot is taken.
const TARGET: u64 = DATA + DATA_BYTES / 2;
/// Neither what the doorbell reads as, nor zeros, nor what any of the instructions writes.
const PATTERN: u64 = 0x0123_4567_89ab_cdef;
const WORD_BYTES: u64 = 8;

/// A kernel with two functions. `changed` looks through the kernel's data and returns the first word that is not [`PATTERN`] and
/// where it is, or zeros. `stop` is an instruction on the doorbell page that never comes to its end.
fn kernel(stop: fn(&mut CodeAssembler) -> Assembled) -> std::sync::Arc<KernelImage> {
    let exports = [export(export_kind::FUNCTION, b"changed", b":II"), export(export_kind::FUNCTION, b"stop", b":")].concat();
    kernel_of_engine(&exports, |a| {
        let (mut obey, mut stops, mut same) = (a.create_label(), a.create_label(), a.create_label());
        jump_if_resumed(a, obey)?;
        a.mov(rax, PATTERN)?;
        a.mov(rdi, DATA)?;
        a.mov(rcx, DATA_BYTES / WORD_BYTES)?;
        a.rep().stosq()?;
        copy(a, CONSTANTS, MAILBOX_DATA.start, exports.len() as u64)?;
        give_back(a, &ReturnArgs { code: 2, payload_bytes: exports.len() as u32, ..done() })?;
        a.set_label(&mut obey)?;
        // The number of the export (see `CallArgs`).
        a.cmp(dword_ptr(RESPONSE + 12), 0)?;
        a.jne(stops)?;
        a.mov(rbx, MAILBOX_DATA.start)?;
        for word in 0..4 {
            a.mov(qword_ptr(rbx + 8 * word), 0)?;
        }
        a.mov(rax, PATTERN)?;
        a.mov(rdi, DATA)?;
        a.mov(rcx, DATA_BYTES / WORD_BYTES)?;
        a.repe().scasq()?;
        a.je(same)?;
        a.sub(rdi, WORD_BYTES as i32)?;
        a.mov(rax, qword_ptr(rdi))?;
        a.mov(qword_ptr(rbx), rax)?;
        a.mov(qword_ptr(rbx + 16), rdi)?;
        a.set_label(&mut same)?;
        give_back(a, &ReturnArgs { payload_bytes: 2 * size_of::<RawValue>() as u32, ..done() })?;
        a.jmp(obey)?;
        a.set_label(&mut stops)?;
        // What follows may begin with a label of its own.
        a.nop()?;
        stop(a)?;
        a.ud2()
    })
}

/// From the doorbell page to [`TARGET`].
fn load_string(a: &mut CodeAssembler, words: u64) -> Assembled {
    a.mov(rsi, BELL)?;
    a.mov(rdi, TARGET)?;
    a.mov(rcx, words)
}

type Stop = (&'static str, fn(&mut CodeAssembler) -> Assembled);

/// Each of them would write to the kernel's data, but for the loads into registers.
const LOADS: [Stop; 11] = [
    ("to a register", |a| a.mov(rax, qword_ptr(BELL))),
    ("16 bytes to a register", |a| a.movups(xmm0, xmmword_ptr(BELL))),
    ("one word to RAM", |a| load_string(a, 1).and_then(|()| a.movsq())),
    ("one byte to RAM", |a| load_string(a, 1).and_then(|()| a.movsb())),
    ("a string of one word", |a| load_string(a, 1).and_then(|()| a.rep().movsq())),
    ("a string of four words", |a| load_string(a, 4).and_then(|()| a.rep().movsq())),
    ("a string of the whole page", |a| load_string(a, DOORBELL.bytes() / WORD_BYTES).and_then(|()| a.rep().movsq())),
    ("a string of bytes", |a| load_string(a, 100).and_then(|()| a.rep().movsb())),
    ("a string, backwards", |a| {
        load_string(a, 4)?;
        a.add(rsi, 3 * 8)?;
        a.std()?;
        a.rep().movsq()
    }),
    ("to the stack", |a| {
        a.mov(rsp, TARGET + WORD_BYTES)?;
        a.push(qword_ptr(BELL))
    }),
    ("from the stack", |a| {
        a.mov(rbx, TARGET)?;
        a.mov(rsp, BELL)?;
        a.pop(qword_ptr(rbx))
    }),
];

const STORES: [Stop; 5] = [
    ("16 bytes", |a| a.movaps(xmmword_ptr(BELL), xmm0)),
    ("16 bytes that are not aligned", |a| a.movups(xmmword_ptr(BELL + 4), xmm0)),
    ("16 bytes at the end of the page", |a| a.movups(xmmword_ptr(DOORBELL.end - 16), xmm0)),
    ("a string of words", |a| {
        a.mov(rsi, TARGET)?;
        a.mov(rdi, BELL)?;
        a.mov(rcx, 4u64)?;
        a.rep().movsq()
    }),
    ("an exchange", |a| a.xchg(qword_ptr(BELL), rax)),
];

/// The first word of the kernel's data that is not as it was, and where; zeros if there is none.
fn changed(sandbox: &mut Sandbox) -> (u64, u64) {
    sandbox.call("changed", ()).unwrap()
}

/// Stops in each of the instructions, restores, and lets the kernel look.
fn nothing_changes(stops: &[Stop]) {
    let mut wrong = Vec::new();
    for (name, stop) in stops {
        let mut sandbox = bare_builder(&kernel(*stop)).build().unwrap();
        let snapshot = sandbox.snapshot().unwrap();
        assert_eq!(changed(&mut sandbox), (0, 0), "{name}: before");
        for round in 0..3 {
            let ended = sandbox.call::<_, ()>("stop", ()).unwrap_err();
            let is_stray = matches!(&ended, CallError::Guest(fault) if matches!(**fault, GuestFault::StrayAccess { .. }));
            assert!(is_stray, "{name}: {ended}");
            match sandbox.restore(&snapshot).map(|()| changed(&mut sandbox)) {
                Ok((0, 0)) => {}
                Ok((word, address)) => wrong.push(format!("{name}, round {round}: {word:#x} at {address:#x}")),
                Err(error) => {
                    wrong.push(format!("{name}, round {round}: {error}"));
                    break;
                }
            }
        }
        assert_eq!(changed(&mut Sandbox::from_snapshot(&snapshot).unwrap()), (0, 0), "{name}: a copy");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_load_that_was_not_completed_changes_nothing_after_a_restore() {
    if !kvm::usable() {
        return;
    }
    nothing_changes(&LOADS);
}

#[test]
fn nor_does_a_store_of_which_a_part_is_left() {
    if !kvm::usable() {
        return;
    }
    nothing_changes(&STORES);
}
