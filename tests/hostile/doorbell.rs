//! The doorbell: stores of all kinds, and everything else that can be done to a page without memory.

use iced_x86::code_asm::*;
use mote_abi::{
    hypercall::DRAIN_OUTPUT,
    layout::{DOORBELL, FAULT_DOORBELL},
    mailbox::Request,
};

use crate::support::{
    guest::{Assembled, DATA, config_with_deadline, exit, exit_request, post, ring, run, run_with},
    kvm,
    verdict::{PRESENT, Row, USER, Verdict, WRITE, check},
};

const BELL: u64 = DOORBELL.start;
const LAST: u64 = DOORBELL.end - 1;

fn post_exit(a: &mut CodeAssembler) -> Assembled {
    post(a, &exit_request(7))
}

fn post_drain(a: &mut CodeAssembler) -> Assembled {
    post(a, &Request::new(DRAIN_OUTPUT, &0u32, 0))
}

#[test]
fn a_store_of_four_bytes_rings() {
    if !kvm::usable() {
        return;
    }
    let exited: &[Verdict] = &[Verdict::Exited(7)];
    let rows: &[Row<'_>] = &[
        ("aligned", |a| post_exit(a).and_then(|()| a.mov(dword_ptr(BELL), eax)), exited),
        ("not aligned", |a| post_exit(a).and_then(|()| a.mov(dword_ptr(BELL + 3), eax)), exited),
        ("last bytes", |a| post_exit(a).and_then(|()| a.mov(dword_ptr(DOORBELL.end - 4), eax)), exited),
        (
            "string",
            |a| {
                post_exit(a)?;
                a.mov(rdi, BELL)?;
                a.mov(rsi, DATA)?;
                a.movsd()
            },
            exited,
        ),
        ("non-temporal", |a| post_exit(a).and_then(|()| a.movnti(dword_ptr(BELL), eax)), exited),
    ];
    check(rows);
}

/// KVM tells some of them in parts, the second of which would come whenever the guest is entered next.
#[test]
fn a_store_of_another_size_is_a_stray_access() {
    if !kvm::usable() {
        return;
    }
    let stray: &[Verdict] = &[Verdict::StrayAccess(BELL)];
    let rows: &[Row<'_>] = &[
        ("1 byte", |a| post_exit(a).and_then(|()| a.mov(byte_ptr(BELL), al)), stray),
        ("last byte", |a| post_exit(a).and_then(|()| a.mov(byte_ptr(LAST), al)), &[Verdict::StrayAccess(LAST)]),
        ("2 bytes", |a| post_exit(a).and_then(|()| a.mov(word_ptr(BELL), ax)), stray),
        ("8 bytes", |a| post_exit(a).and_then(|()| a.mov(qword_ptr(BELL), rax)), stray),
        ("16 bytes", |a| post_exit(a).and_then(|()| a.movaps(xmmword_ptr(BELL), xmm0)), stray),
        (
            "string of bytes",
            |a| {
                post_exit(a)?;
                a.mov(rdi, BELL)?;
                a.mov(rsi, DATA)?;
                a.movsb()
            },
            stray,
        ),
        (
            "push",
            |a| {
                post_exit(a)?;
                a.mov(rsp, BELL + 8)?;
                a.push(rax)
            },
            stray,
        ),
        (
            "call",
            |a| {
                post_exit(a)?;
                a.mov(rsp, BELL + 8)?;
                a.call(rax)
            },
            stray,
        ),
    ];
    check(rows);
}

#[test]
fn what_crosses_its_edges_faults_before_it_rings() {
    if !kvm::usable() {
        return;
    }
    let end = Verdict::PageFault { address: FAULT_DOORBELL.start, error_code: USER | WRITE | PRESENT };
    let start = Verdict::PageFault { address: BELL - 4, error_code: USER | WRITE };
    check(&[
        ("end", |a| post_exit(a).and_then(|()| a.mov(qword_ptr(DOORBELL.end - 4), rax)), &[end]),
        ("start", |a| post_exit(a).and_then(|()| a.mov(qword_ptr(BELL - 4), rax)), &[start]),
    ]);
}

#[test]
fn one_request_is_taken_once() {
    if !kvm::usable() {
        return;
    }
    let rows: &[Row<'_>] = &[
        ("none", ring, &[Verdict::BadRequest]),
        (
            "twice",
            |a| {
                post_drain(a)?;
                ring(a)?;
                ring(a)
            },
            &[Verdict::BadRequest],
        ),
    ];
    check(rows);
}

#[test]
fn reading_it_is_a_stray_access() {
    if !kvm::usable() {
        return;
    }
    let stray: &[Verdict] = &[Verdict::StrayAccess(BELL)];
    let rows: &[Row<'_>] = &[
        ("load", |a| a.mov(al, byte_ptr(BELL)), stray),
        ("load of 16 bytes", |a| a.movaps(xmm0, xmmword_ptr(BELL)), stray),
        ("exchange", |a| a.xchg(dword_ptr(BELL), eax), stray),
        ("locked increment", |a| a.lock().inc(dword_ptr(BELL)), stray),
        ("pop", |a| a.mov(rsp, BELL).and_then(|()| a.pop(rax)), stray),
        ("return", |a| a.mov(rsp, BELL).and_then(|()| a.ret()), stray),
    ];
    check(rows);
}

/// Stores that KVM may not know how to emulate. Then it says so, or gives the guest #UD; if it does know, it rings.
#[test]
fn stores_that_kvm_cannot_emulate_end_the_run() {
    if !kvm::usable() {
        return;
    }
    let ends: &[Verdict] = &[Verdict::Stopped, Verdict::Exception { vector: 6, error_code: 0 }, Verdict::Exited(7)];
    let rows: &[Row<'_>] = &[
        ("AVX", |a| post_exit(a).and_then(|()| a.vmovdqu(ymmword_ptr(BELL), ymm0)), ends),
        ("x87", |a| post_exit(a).and_then(|()| a.fstp(qword_ptr(BELL))), ends),
        ("x87 state", |a| post_exit(a).and_then(|()| a.fnsave(ptr(BELL))), ends),
        ("SSE state", |a| post_exit(a).and_then(|()| a.fxsave(ptr(BELL))), ends),
    ];
    check(rows);
}

/// PVM gets nowhere with this one, for ever.
#[test]
fn a_store_that_never_succeeds_meets_the_deadline() {
    if !kvm::usable() {
        return;
    }
    let report = run_with(config_with_deadline(200), &[], |a| {
        post_exit(a)?;
        a.sgdt(ptr(BELL))?;
        exit(a, 8)
    });
    let verdict = Verdict::of(&report.ending);
    assert!([Verdict::DeadlineExceeded, Verdict::Exited(7)].contains(&verdict), "{verdict:?}");
}

/// Many exits of one instruction. Each part is a hypercall; only the first finds a request.
#[test]
fn filling_it_ends_at_the_second_part() {
    if !kvm::usable() {
        return;
    }
    let verdict = run(|a| {
        post_drain(a)?;
        a.mov(rdi, BELL)?;
        a.mov(rcx, DOORBELL.bytes() / 4)?;
        a.rep().stosd()
    });
    assert_eq!(verdict, Verdict::BadRequest);
}

#[test]
fn ringing_for_ever_meets_the_deadline() {
    if !kvm::usable() {
        return;
    }
    let report = run_with(config_with_deadline(200), &[], |a| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        post_drain(a)?;
        ring(a)?;
        a.jmp(again)
    });
    assert_eq!(Verdict::of(&report.ending), Verdict::DeadlineExceeded);
    assert!(report.stats.exits.drain_output > 1);
}
