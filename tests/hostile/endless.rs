//! Guests that do not end by themselves: deadline and interrupt reach them wherever they are.

use std::{
    thread,
    time::{Duration, Instant},
};

use iced_x86::code_asm::*;
use mote_abi::{
    hypercall::{FOREVER_NS, WAIT, WaitArgs},
    layout::{MAILBOX, RING_DATA},
    mailbox::Request,
};
use mote_vmm::{Config, ExitCounts};

use crate::support::{
    guest::{Assembled, DATA, call, config, config_with_deadline, exit, finish, ring, run_with, spin, vm},
    kvm,
    verdict::Verdict,
};

/// A name and the code.
type Guest = (&'static str, fn(&mut CodeAssembler) -> Assembled);

/// Ways of not ending.
const ENDLESS: [Guest; 5] = [
    ("spin", spin),
    ("fill", |a| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.mov(rdi, RING_DATA.start)?;
        a.mov(rcx, RING_DATA.bytes())?;
        a.rep().stosb()?;
        a.jmp(again)
    }),
    ("wait", |a| call(a, &Request::new(WAIT, &WaitArgs { timeout_ns: FOREVER_NS, interests: 0, reserved: 0 }, 0))),
    ("scribble over the mailbox", |a| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.inc(rax)?;
        a.mov(rdi, MAILBOX.start)?;
        a.mov(rcx, MAILBOX.bytes() / 8)?;
        a.rep().stosq()?;
        a.jmp(again)
    }),
    ("ask for the clock", |a| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.mov(dword_ptr(MAILBOX.start), mote_abi::hypercall::READ_CLOCK)?;
        ring(a)?;
        a.jmp(again)
    }),
];

/// Far more than an end takes, on a machine that has other things to do.
const SOON: Duration = Duration::from_secs(3);

#[test]
fn the_deadline_ends_them() {
    if !kvm::usable() {
        return;
    }
    for (name, code) in ENDLESS {
        let started = Instant::now();
        let report = run_with(config_with_deadline(100), &[], code);
        assert_eq!(Verdict::of(&report.ending), Verdict::DeadlineExceeded, "{name}");
        assert!((Duration::from_millis(100)..SOON).contains(&started.elapsed()), "{name}: {:?}", started.elapsed());
    }
}

#[test]
fn an_interrupt_ends_them() {
    if !kvm::usable() {
        return;
    }
    for (name, code) in ENDLESS {
        for after in [0, 1, 10, 50] {
            let vm = vm(config(), &[], code);
            let handle = vm.interrupt_handle();
            let interrupter = thread::spawn(move || {
                thread::sleep(Duration::from_millis(after));
                handle.interrupt();
                handle.interrupt();
            });
            let started = Instant::now();
            assert_eq!(Verdict::of(&finish(vm).ending), Verdict::Interrupted, "{name} after {after} ms");
            assert!(started.elapsed() < SOON, "{name}: {:?}", started.elapsed());
            interrupter.join().unwrap();
        }
    }
}

#[test]
fn a_descriptor_ends_them() {
    if !kvm::usable() {
        return;
    }
    for (name, code) in ENDLESS {
        let (reader, writer) = std::io::pipe().unwrap();
        let vm = vm(Config { interrupt_on: Some(reader.into()), ..config() }, &[], code);
        let interrupter = thread::spawn(move || {
            thread::sleep(Duration::from_millis(30));
            drop(writer);
        });
        assert_eq!(Verdict::of(&finish(vm).ending), Verdict::Interrupted, "{name}");
        interrupter.join().unwrap();
    }
}

#[test]
fn an_interrupt_before_the_run_counts_and_one_after_it_does_not() {
    if !kvm::usable() {
        return;
    }
    let early = vm(config(), &[], |a| exit(a, 7));
    early.interrupt_handle().interrupt();
    assert_eq!(Verdict::of(&finish(early).ending), Verdict::Interrupted);

    let late = vm(config(), &[], |a| exit(a, 7));
    let handle = late.interrupt_handle();
    assert_eq!(Verdict::of(&finish(late).ending), Verdict::Exited(7));
    handle.interrupt();
}

#[test]
fn a_deadline_of_nothing_is_one() {
    if !kvm::usable() {
        return;
    }
    let report = run_with(config_with_deadline(0), &[], spin);
    assert_eq!(Verdict::of(&report.ending), Verdict::DeadlineExceeded);
}

/// No guest can make exceptions without end: what no mapping mends is the end.
#[test]
fn a_second_fault_at_one_place_is_not_waited_for() {
    if !kvm::usable() {
        return;
    }
    let report = run_with(config(), &[], |a| {
        a.mov(rax, DATA)?;
        a.jmp(rax)
    });
    // Ticks come however short the run is, where a machine is slow.
    assert_eq!(ExitCounts { signal: 0, ..report.stats.exits }, ExitCounts::default());
    assert!(matches!(Verdict::of(&report.ending), Verdict::PageFault { address: DATA, .. }));
}
