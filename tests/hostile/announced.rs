//! What a kernel announces without being asked: memory that it would like to have, and a handler of exceptions. Whatever it
//! says, it gets memory that can be read and written, in its own address space for that, and no more than there is; and what
//! handles exceptions is ring 3.

use std::time::{Duration, Instant};

use iced_x86::code_asm::{CodeAssembler, byte_ptr, ptr, qword_ptr, rax, rbx, rcx, rdx};
use mote_abi::{
    announce::{HANDLER, committed_at},
    layout::{
        ANNOUNCED, BASE, CHUNK_BYTES, DOORBELL, FAULT_DOORBELL, HEAP, IMAGE, LINEAR, LINEAR_SLOT_BYTES, LINEAR_SLOTS, MODULE,
        PAGE_BYTES, PAGE_TABLES, POOL_FAR, POOL_NEAR, RAMDISK, RING0_STACK, STUBS, SYSTEM, SYSTEM_VIEW,
    },
};
use mote_vmm::{Config, Limits};

use crate::support::{
    guest::{Assembled, DATA, TEXT, config, config_with_deadline, exit, run, run_with},
    kvm,
    verdict::{FETCH, PRESENT, Row, USER, Verdict, WRITE, check},
};

/// A slot in the middle.
const SLOT: u64 = LINEAR.start + 7 * LINEAR_SLOT_BYTES;

/// Announces a range for the slot with `address`. Uses `rax`, `rbx`.
fn announce(a: &mut CodeAssembler, address: u64, start: u64, end: u64) -> Assembled {
    a.mov(rbx, committed_at(address).unwrap())?;
    a.mov(rax, start)?;
    a.mov(qword_ptr(rbx), rax)?;
    a.mov(rax, end)?;
    a.mov(qword_ptr(rbx + 8), rax)
}

/// Reads and writes a word. Uses `rax`.
fn touch(a: &mut CodeAssembler, address: u64) -> Assembled {
    a.mov(rax, address)?;
    a.cmp(qword_ptr(rax), 0)?;
    a.mov(qword_ptr(rax), 1)
}

fn page_fault(address: u64, error_code: u64) -> Verdict {
    Verdict::PageFault { address, error_code: error_code | USER }
}

/// What was announced of a slot, where it is touched, and whether that is good.
#[test]
fn memory_is_where_it_was_announced_and_nowhere_else() {
    if !kvm::usable() {
        return;
    }
    let slot_end = SLOT + LINEAR_SLOT_BYTES;
    let page = SLOT + 5 * PAGE_BYTES;
    let cases = [
        ("nothing", 0, 0, SLOT, false),
        ("a page", page, page + PAGE_BYTES, page, true),
        ("its end", page, page + PAGE_BYTES, page + PAGE_BYTES - 8, true),
        ("behind it", page, page + PAGE_BYTES, page + PAGE_BYTES, false),
        ("before it", page, page + PAGE_BYTES, page - 8, false),
        ("all of it, first", SLOT, slot_end, SLOT, true),
        ("all of it, last", SLOT, slot_end, slot_end - 8, true),
        ("the last page", slot_end - PAGE_BYTES, slot_end, slot_end - 8, true),
        ("before the last page", slot_end - PAGE_BYTES, slot_end, slot_end - PAGE_BYTES - 8, false),
        ("a start that is not aligned", page + 8, page + PAGE_BYTES, page + 8, false),
        ("an end that is not aligned", page, page + PAGE_BYTES + 8, page, false),
        ("the end before the start", page + PAGE_BYTES, page, page, false),
        ("the end at the start", page, page, page, false),
        ("everything", 0, u64::MAX, page, false),
        ("everything aligned", 0, u64::MAX - PAGE_BYTES + 1, page, false),
        ("all below the end", 0, slot_end, page, false),
        ("all behind the start", SLOT, LINEAR.end, page, false),
        ("a page more", SLOT, slot_end + PAGE_BYTES, page, false),
        ("a page before", SLOT - PAGE_BYTES, slot_end, page, false),
        ("around the end of all", u64::MAX - PAGE_BYTES + 1, page + PAGE_BYTES, page, false),
        ("another slot", SLOT + LINEAR_SLOT_BYTES, slot_end + LINEAR_SLOT_BYTES, page, false),
        ("another slot, touched there", slot_end, slot_end + LINEAR_SLOT_BYTES, slot_end, false),
        ("the image", IMAGE.start, IMAGE.end, page, false),
        ("base", BASE.start, BASE.end, page, false),
        ("the system area", SYSTEM.start, SYSTEM.end, page, false),
        ("its view", SYSTEM_VIEW.start, SYSTEM_VIEW.end, page, false),
        ("the module", MODULE.start, MODULE.end, page, false),
        ("the pool", POOL_NEAR.start, POOL_NEAR.end, page, false),
        ("the heap", HEAP.start, HEAP.end, page, false),
        ("not canonical", 1 << 47, (1 << 47) + PAGE_BYTES, page, false),
    ];
    let mut wrong = Vec::new();
    for (name, start, end, address, is_good) in cases {
        let verdict = run(|a| {
            announce(a, SLOT, start, end)?;
            touch(a, address)?;
            exit(a, 7)
        });
        let expected = if is_good { Verdict::Exited(7) } else { page_fault(address, 0) };
        if verdict != expected {
            wrong.push((name, verdict, expected));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#x?}");
}

/// All of the table says the same: everything. No part of the address space is the guest's that was not.
#[test]
fn a_table_that_claims_everything_gives_nothing() {
    if !kvm::usable() {
        return;
    }
    let claims = [(0, u64::MAX - PAGE_BYTES + 1), (0, 1 << 47), (IMAGE.start, POOL_FAR.end), (LINEAR.start, LINEAR.end)];
    let far_file = [MODULE.start + CHUNK_BYTES, RAMDISK.start, POOL_NEAR.start, POOL_FAR.start, LINEAR.end, (1 << 47) - 8, 8];
    let present = [(IMAGE.start, WRITE | PRESENT), (MODULE.start, WRITE | PRESENT), (SYSTEM_VIEW.start, WRITE | PRESENT)];
    let closed = [(FAULT_DOORBELL.start, WRITE | PRESENT), (PAGE_TABLES.start, WRITE), (STUBS.start, WRITE | PRESENT)];
    let absent = far_file.into_iter().map(|address| (address, WRITE));
    let mut wrong = Vec::new();
    for (start, end) in claims {
        for (address, error_code) in absent.clone().chain(present).chain(closed) {
            let verdict = run(|a| {
                // Its words alternate, which is what the whole table is.
                a.mov(rax, start)?;
                a.mov(rdx, end)?;
                a.mov(rbx, ANNOUNCED.start + PAGE_BYTES)?;
                a.mov(rcx, LINEAR_SLOTS)?;
                let mut again = a.create_label();
                a.set_label(&mut again)?;
                a.mov(qword_ptr(rbx), rax)?;
                a.mov(qword_ptr(rbx + 8), rdx)?;
                a.add(rbx, 16)?;
                a.dec(rcx)?;
                a.jne(again)?;
                a.mov(rax, address)?;
                a.mov(byte_ptr(rax), 1)?;
                exit(a, 7)
            });
            if verdict != page_fault(address, error_code) {
                wrong.push((start, end, address, verdict));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#x?}");
}

#[test]
fn announced_memory_is_never_executed() {
    if !kvm::usable() {
        return;
    }
    let rows: [Row<'_>; 4] = [
        (
            "a page, untouched",
            |a| announce(a, SLOT, SLOT, SLOT + PAGE_BYTES).and_then(|()| a.mov(rax, SLOT)).and_then(|()| a.jmp(rax)),
            &[page_fault(SLOT, FETCH)],
        ),
        (
            "a page with code",
            |a| {
                announce(a, SLOT, SLOT, SLOT + PAGE_BYTES)?;
                a.mov(rax, SLOT)?;
                a.mov(qword_ptr(rax), 0x0b0f)?;
                a.jmp(rax)
            },
            &[page_fault(SLOT, FETCH | PRESENT)],
        ),
        (
            "a chunk with code",
            |a| {
                announce(a, SLOT, SLOT, SLOT + CHUNK_BYTES)?;
                a.mov(rax, SLOT)?;
                a.mov(qword_ptr(rax), 0x0b0f)?;
                a.jmp(rax)
            },
            &[page_fault(SLOT, FETCH | PRESENT)],
        ),
        (
            "the heap with code",
            |a| {
                a.mov(rax, HEAP.start)?;
                a.mov(qword_ptr(rax), 0x0b0f)?;
                a.jmp(rax)
            },
            &[page_fault(HEAP.start, FETCH | PRESENT)],
        ),
    ];
    check(&rows);
}

/// A range that grows, shrinks and moves: pages come where they are announced when they are touched, and stay.
#[test]
fn a_range_that_changes_leaves_what_was_mapped() {
    if !kvm::usable() {
        return;
    }
    let report = run_with(config(), &[], |a| {
        announce(a, SLOT, SLOT + PAGE_BYTES, SLOT + 2 * PAGE_BYTES)?;
        touch(a, SLOT + PAGE_BYTES)?;
        // The whole chunk: what is missing of it comes with the next fault.
        announce(a, SLOT, SLOT, SLOT + CHUNK_BYTES)?;
        touch(a, SLOT)?;
        touch(a, SLOT + CHUNK_BYTES - 8)?;
        announce(a, SLOT, SLOT + CHUNK_BYTES, SLOT + 2 * CHUNK_BYTES)?;
        touch(a, SLOT + CHUNK_BYTES)?;
        // What was there is there, and what was written.
        announce(a, SLOT, 0, 0)?;
        for address in [SLOT, SLOT + PAGE_BYTES, SLOT + CHUNK_BYTES - 8, SLOT + CHUNK_BYTES] {
            let mut good = a.create_label();
            a.mov(rax, address)?;
            a.cmp(qword_ptr(rax), 1)?;
            a.je(good)?;
            a.ud2()?;
            a.set_label(&mut good)?;
            a.nop()?;
        }
        exit(a, 7)
    });
    assert_eq!(Verdict::of(&report.ending), Verdict::Exited(7));
    assert_eq!(report.stats.exits.demand, 3);
}

/// Touches a byte every `stride` bytes of [`LINEAR`], which is announced as a whole, or in single pages, until something ends.
fn touch_all(ram_bytes: u64, bytes: u64, stride: u64) -> (Verdict, mote_vmm::Stats) {
    let limits = Limits { ram_bytes, deadline: Some(Duration::from_secs(60)), ..config().limits };
    let report = run_with(Config { limits, ..config() }, &[], |a| {
        a.mov(rbx, ANNOUNCED.start + PAGE_BYTES)?;
        a.mov(rax, LINEAR.start)?;
        a.mov(rcx, LINEAR_SLOTS)?;
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.mov(rdx, bytes)?;
        a.mov(qword_ptr(rbx), rax)?;
        a.add(rdx, rax)?;
        a.mov(qword_ptr(rbx + 8), rdx)?;
        a.add(rbx, 16)?;
        a.mov(rdx, LINEAR_SLOT_BYTES)?;
        a.add(rax, rdx)?;
        a.dec(rcx)?;
        a.jne(again)?;
        a.mov(rbx, LINEAR.start)?;
        a.mov(rcx, LINEAR.bytes() / stride)?;
        a.mov(rax, stride)?;
        let mut touch = a.create_label();
        a.set_label(&mut touch)?;
        a.mov(byte_ptr(rbx), 1)?;
        a.add(rbx, rax)?;
        a.dec(rcx)?;
        a.jne(touch)?;
        exit(a, 7)
    });
    (Verdict::of(&report.ending), report.stats)
}

/// Pages, chunks and slots far apart: first RAM is used up, or first the room for page tables, and either is the guest's fault.
#[test]
fn touches_spread_over_linear_memories_end_when_something_is_used_up() {
    if !kvm::usable() {
        return;
    }
    for (ram_bytes, bytes, stride) in [
        (64 << 20, LINEAR_SLOT_BYTES, CHUNK_BYTES),
        (64 << 20, PAGE_BYTES, LINEAR_SLOT_BYTES),
        (64 << 20, LINEAR_SLOT_BYTES, 1 << 30),
        (2 << 30, LINEAR_SLOT_BYTES, 1 << 30),
        (2 << 30, LINEAR_SLOT_BYTES, LINEAR_SLOT_BYTES),
        (2 << 30, PAGE_BYTES, LINEAR_SLOT_BYTES),
        (2 << 30, LINEAR_SLOT_BYTES, 1 << 39),
    ] {
        let (verdict, stats) = touch_all(ram_bytes, bytes, stride);
        // The last stride has fewer places than there is RAM and are tables.
        let expected = if stride == 1 << 39 { Verdict::Exited(7) } else { Verdict::OutOfMemory };
        assert_eq!(verdict, expected, "{bytes:#x} every {stride:#x}");
        assert!(stats.exits.demand <= ram_bytes / CHUNK_BYTES, "{} faults", stats.exits.demand);
        assert!(stats.exits.demand < PAGE_TABLES.bytes() / PAGE_BYTES || stride == CHUNK_BYTES);
        assert!(stats.touched_bytes <= ram_bytes + SYSTEM.bytes());
    }
}

/// Sets the handler. Uses `rax`, `rbx`.
fn handle_at(a: &mut CodeAssembler, handler: u64) -> Assembled {
    a.mov(rbx, HANDLER)?;
    a.mov(rax, handler)?;
    a.mov(qword_ptr(rbx), rax)
}

/// The module cannot be executed here, as nothing is compiled: jumping there is an exception that a handler may have.
fn fault_in_module(a: &mut CodeAssembler) -> Assembled {
    a.mov(rax, MODULE.start)?;
    a.jmp(rax)
}

#[test]
fn a_handler_in_the_text_is_called() {
    if !kvm::usable() {
        return;
    }
    let report = run_with(config(), &[], |a| {
        let mut handler = a.create_label();
        a.lea(rax, ptr(handler))?;
        a.mov(rbx, HANDLER)?;
        a.mov(qword_ptr(rbx), rax)?;
        fault_in_module(a)?;
        a.set_label(&mut handler)?;
        exit(a, 7)
    });
    assert_eq!(Verdict::of(&report.ending), Verdict::Exited(7));
    assert_eq!(report.stats.exits.exceptions, 1);
}

#[test]
fn a_handler_elsewhere_is_where_the_fault_is_then() {
    if !kvm::usable() {
        return;
    }
    let in_module = [page_fault(MODULE.start, FETCH | PRESENT)];
    let cases: [(&str, u64, &[Verdict]); 12] = [
        ("none", 0, &in_module),
        ("not canonical", 1 << 47, &in_module),
        ("the last that is not canonical", 0xffff_7fff_ffff_ffff, &in_module),
        ("the upper half", 0xffff_8000_0000_0000, &in_module),
        ("the last of all", u64::MAX, &in_module),
        ("stubs", STUBS.start, &[page_fault(STUBS.start, FETCH | PRESENT)]),
        ("ring-0 stack", RING0_STACK.start, &[page_fault(RING0_STACK.start, FETCH | PRESENT)]),
        ("unmapped", PAGE_BYTES, &[page_fault(PAGE_BYTES, FETCH)]),
        ("data", DATA, &[page_fault(DATA, FETCH | PRESENT)]),
        ("the doorbell", DOORBELL.start, &[page_fault(DOORBELL.start, FETCH | PRESENT)]),
        ("the last that is canonical", (1 << 47) - 1, &[page_fault((1 << 47) - 1, FETCH)]),
        ("linear", LINEAR.start, &[page_fault(LINEAR.start, FETCH)]),
    ];
    let mut wrong = Vec::new();
    for (name, handler, expected) in cases {
        let verdict = run(|a| handle_at(a, handler).and_then(|()| fault_in_module(a)));
        if !expected.contains(&verdict) {
            wrong.push((name, verdict));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#x?}");
}

/// Exceptions elsewhere than in the module are no business of the handler.
#[test]
fn only_exceptions_in_the_module_are_handled() {
    if !kvm::usable() {
        return;
    }
    let rows: [Row<'_>; 3] = [
        ("ud2 in the text", |a| handle_at(a, TEXT).and_then(|()| a.ud2()), &[Verdict::Exception { vector: 6, error_code: 0 }]),
        (
            "a write of the module, from the text",
            |a| handle_at(a, TEXT).and_then(|()| a.mov(rax, MODULE.start)).and_then(|()| a.mov(byte_ptr(rax), 1)),
            &[page_fault(MODULE.start, WRITE | PRESENT)],
        ),
        (
            "the null page, from the text",
            |a| handle_at(a, TEXT).and_then(|()| a.mov(rax, 8u64)).and_then(|()| a.mov(byte_ptr(rax), 1)),
            &[page_fault(8, WRITE)],
        ),
    ];
    check(&rows);
}

/// A handler whose exception it handles itself, and one that brings about the next: only the deadline ends that.
#[test]
fn a_storm_of_exceptions_ends_at_the_deadline() {
    if !kvm::usable() {
        return;
    }
    let storms: [fn(&mut CodeAssembler) -> Assembled; 2] = [
        |a| handle_at(a, MODULE.start).and_then(|()| fault_in_module(a)),
        |a| {
            let mut handler = a.create_label();
            a.lea(rax, ptr(handler))?;
            a.mov(rbx, HANDLER)?;
            a.mov(qword_ptr(rbx), rax)?;
            a.set_label(&mut handler)?;
            fault_in_module(a)
        },
    ];
    for storm in storms {
        let started = Instant::now();
        let report = run_with(config_with_deadline(400), &[], storm);
        assert_eq!(Verdict::of(&report.ending), Verdict::DeadlineExceeded);
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        assert!(report.stats.exits.exceptions > 100, "{}", report.stats.exits.exceptions);
        // Nothing but what every guest has.
        let idle = run_with(config(), &[], |a| exit(a, 7)).stats.touched_bytes;
        assert!(report.stats.touched_bytes <= idle + CHUNK_BYTES, "{} bytes", report.stats.touched_bytes);
    }
}
