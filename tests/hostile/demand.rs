//! Demand memory: it comes where the layout says, as much as there is, and no more.

use iced_x86::code_asm::{CodeAssembler, byte_ptr, qword_ptr, rax, rbx, rcx};
use mote_abi::layout::{
    BASE, CHUNK_BYTES, HEAP, LARGE, LARGE_SLOT_BYTES, MEDIUM, MIN_RAM_BYTES, PAGE_BYTES, PAGE_TABLES, Region, SYSTEM,
};
use mote_vmm::{Config, Limits, Stats};

use crate::support::{
    guest::{Assembled, config, exit, run, run_with},
    kvm,
    verdict::Verdict,
};

/// Chunks that are mapped from the beginning: the first of the heap and of medium.
const FIRST_CHUNKS: u64 = 2;
/// Chunks of a VM with least RAM that are not.
const FREE_CHUNKS: u64 = (MIN_RAM_BYTES - BASE.bytes()) / CHUNK_BYTES - FIRST_CHUNKS;

/// Touches a byte every `stride` bytes, `count` times.
fn touch_many(a: &mut CodeAssembler, start: u64, stride: u64, count: u64) -> Assembled {
    a.mov(rbx, start)?;
    a.mov(rcx, count)?;
    a.mov(rax, stride)?;
    let mut again = a.create_label();
    a.set_label(&mut again)?;
    a.mov(byte_ptr(rbx), 1)?;
    a.add(rbx, rax)?;
    a.dec(rcx)?;
    a.jne(again)
}

#[test]
fn the_regions_give_memory_at_both_ends() {
    if !kvm::usable() {
        return;
    }
    for region in [HEAP, MEDIUM, LARGE] {
        for address in [region.start, region.end - 8] {
            let verdict = run(|a| {
                a.mov(rbx, address)?;
                a.cmp(qword_ptr(rbx), 0)?;
                a.mov(qword_ptr(rbx), 1)?;
                exit(a, 7)
            });
            assert_eq!(verdict, Verdict::Exited(7), "{address:#x}");
        }
    }
}

#[test]
fn an_access_across_two_chunks_gets_both() {
    if !kvm::usable() {
        return;
    }
    let report = run_with(config(), &[], |a| {
        a.mov(rbx, LARGE.start + CHUNK_BYTES - 4)?;
        a.mov(qword_ptr(rbx), -1)?;
        exit(a, 7)
    });
    assert_eq!(Verdict::of(&report.ending), Verdict::Exited(7));
    assert_eq!(report.stats.exits.demand, 2);
}

#[test]
fn ram_ends_exactly_where_it_ends() {
    if !kvm::usable() {
        return;
    }
    let all = run(|a| touch_many(a, LARGE.start, CHUNK_BYTES, FREE_CHUNKS).and_then(|()| exit(a, 7)));
    assert_eq!(all, Verdict::Exited(7));
    let one_more = run(|a| touch_many(a, LARGE.start, CHUNK_BYTES, FREE_CHUNKS + 1).and_then(|()| exit(a, 7)));
    assert_eq!(one_more, Verdict::OutOfMemory);
}

/// Strides that need few page tables and many: a directory for each gigabyte, a pointer table for each half terabyte.
#[test]
fn spread_touches_end_when_ram_does() {
    if !kvm::usable() {
        return;
    }
    let ram_bytes = 128 << 20;
    let chunks = (ram_bytes - BASE.bytes()) / CHUNK_BYTES;
    for (region, stride) in [
        (LARGE, PAGE_BYTES),
        (LARGE, CHUNK_BYTES),
        (LARGE, 1 << 30),
        (LARGE, LARGE_SLOT_BYTES),
        (LARGE, 1 << 39),
        (HEAP, 1 << 30),
        (MEDIUM, CHUNK_BYTES),
    ] {
        let (verdict, stats) = touch_to_the_end(ram_bytes, region, stride);
        assert_eq!(verdict, Verdict::OutOfMemory, "stride {stride:#x} in {region:x?}");
        assert!(
            stats.touched_bytes <= ram_bytes + SYSTEM.bytes(),
            "stride {stride:#x}: {} bytes of {ram_bytes}",
            stats.touched_bytes
        );
        assert_eq!(stats.exits.demand, chunks - FIRST_CHUNKS, "stride {stride:#x}");
    }
}

/// More RAM than there is room for page tables, if each chunk needs one of its own: the guest has used up what there is.
#[test]
fn touches_that_use_up_the_page_tables_are_the_guests_fault() {
    if !kvm::usable() {
        return;
    }
    let ram_bytes = 2 << 30;
    let (verdict, stats) = touch_to_the_end(ram_bytes, LARGE, 1 << 30);
    assert_eq!(verdict, Verdict::OutOfMemory);
    assert!(stats.exits.demand < PAGE_TABLES.bytes() / PAGE_BYTES);
    assert!(stats.touched_bytes <= ram_bytes + SYSTEM.bytes());
}

fn touch_to_the_end(ram_bytes: u64, region: Region, stride: u64) -> (Verdict, Stats) {
    let limits = Limits { ram_bytes, ..config().limits };
    let report = run_with(Config { limits, ..config() }, &[], |a| {
        touch_many(a, region.start, stride, region.bytes() / stride)?;
        exit(a, 7)
    });
    (Verdict::of(&report.ending), report.stats)
}
