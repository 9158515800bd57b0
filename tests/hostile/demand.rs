//! Demand memory: it comes where the layout says, as much as there is, and no more.

use iced_x86::code_asm::{CodeAssembler, byte_ptr, qword_ptr, rax, rbx, rcx};
use mote_abi::layout::{BASE, CHUNK_BYTES, HEAP, LARGE, LARGE_SLOT_BYTES, MEDIUM, MIN_RAM_BYTES, PAGE_BYTES, STACK};
use mote_vmm::{Config, Limits};

use crate::support::{
    guest::{Assembled, config, exit, run, run_with},
    kvm,
    verdict::Verdict,
};

/// Chunks of a VM with least RAM that are not mapped from the beginning.
const FREE_CHUNKS: u64 = (MIN_RAM_BYTES - BASE.bytes()) / CHUNK_BYTES - 2;

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
    for region in [HEAP, MEDIUM, STACK, LARGE] {
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

/// Strides that need the most page tables: a chunk in each gigabyte, in each half terabyte, in each slot.
#[test]
fn spread_touches_run_out_of_ram_and_not_of_page_tables() {
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
        (STACK, CHUNK_BYTES),
    ] {
        let limits = Limits { ram_bytes, ..config().limits };
        let count = region.bytes() / stride;
        let report = run_with(Config { limits, ..config() }, &[], |a| touch_many(a, region.start, stride, count).and_then(|()| exit(a, 7)));
        let exhausted = count.min(region.bytes() / stride.max(CHUNK_BYTES)) > chunks;
        let expected = if exhausted { Verdict::OutOfMemory } else { Verdict::Exited(7) };
        assert_eq!(Verdict::of(&report.ending), expected, "stride {stride:#x} in {region:x?}");
        // Two tables for each chunk, and a few that every VM has.
        let tables = (2 * chunks + 64) * PAGE_BYTES;
        let touched = report.stats.touched_bytes;
        assert!(touched <= ram_bytes + tables, "stride {stride:#x}: {touched} bytes of {ram_bytes}");
        assert!(report.stats.exits.demand <= chunks);
    }
}
