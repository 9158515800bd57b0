//! Addresses that are not the guest's, or not for what it does with them.

use iced_x86::code_asm::{byte_ptr, qword_ptr, rax, rsp};
use mote_abi::layout::{
    BOOT_INFO, CHUNK_BYTES, CONFIG, DOORBELL, FAULT_DOORBELL, GDT, HEAP, HOST_STATUS, IDT, IMAGE, KERNEL_DATA, LARGE, MAILBOX,
    MEDIUM, MODULE, PAGE_BYTES, PAGE_TABLES, POOL_FAR, POOL_NEAR, RAMDISK, READ_AHEAD, RING_DATA, RING0_STACK, STACK, STUBS,
    SYSTEM, SYSTEM_VIEW, TSS,
};

use crate::support::{
    guest::{CONSTANTS, DATA, DATA_BYTES, TEXT, exit, run},
    kvm,
    verdict::{FETCH, PRESENT, RESERVED, Row, USER, Verdict, WRITE, check},
};

/// First address that is not canonical.
const NOT_CANONICAL: u64 = 1 << 47;

/// Which accesses of a byte are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Touch {
    Read,
    Write,
    Execute,
}

impl Touch {
    fn error_code(self) -> u64 {
        match self {
            Self::Read => USER,
            Self::Write => USER | WRITE,
            Self::Execute => USER | FETCH,
        }
    }
}

fn touch(how: Touch, address: u64) -> Verdict {
    run(|a| {
        a.mov(rax, address)?;
        match how {
            Touch::Read => a.cmp(byte_ptr(rax), 0)?,
            Touch::Write => a.mov(byte_ptr(rax), 1)?,
            Touch::Execute => a.jmp(rax)?,
        }
        exit(a, 7)
    })
}

/// Touches each address in each way; tells all verdicts that are other than a page fault there with `bits`.
fn expect_faults(addresses: &[(&str, u64)], ways: &[Touch], bits: u64) {
    let mut wrong = Vec::new();
    for (name, address) in addresses {
        for how in ways {
            let verdict = touch(*how, *address);
            if verdict != (Verdict::PageFault { address: *address, error_code: how.error_code() | bits }) {
                wrong.push((name, how, verdict));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#x?}");
}

#[test]
fn the_system_area_is_closed() {
    if !kvm::usable() {
        return;
    }
    let closed = [
        ("GDT", GDT.start),
        ("IDT", IDT.start),
        ("TSS", TSS.start),
        ("stubs", STUBS.start),
        ("a stub's tail", STUBS.start + 32 * 16),
        ("ring-0 stack", RING0_STACK.end - 8),
        ("fault doorbell", FAULT_DOORBELL.start),
    ];
    expect_faults(&closed, &[Touch::Read, Touch::Write, Touch::Execute], PRESENT);
}

#[test]
fn between_the_regions_is_nothing() {
    if !kvm::usable() {
        return;
    }
    let nothing = [
        ("null", 0),
        ("before the image", IMAGE.start - 1),
        ("in the image, where no segment is", IMAGE.end - 1),
        ("after the kernel's data", DATA + DATA_BYTES),
        ("before the boot information", BOOT_INFO.start - 1),
        ("after the host status", HOST_STATUS.end),
        ("after the mailbox", MAILBOX.end),
        ("after the ring", RING_DATA.end),
        ("configuration, if there is none", CONFIG.start),
        ("before the windows of files", READ_AHEAD.start - 1),
        ("before the doorbell", DOORBELL.start - 1),
        ("after the fault doorbell", FAULT_DOORBELL.end),
        ("page tables", PAGE_TABLES.start),
        ("last page table", PAGE_TABLES.end - 1),
        ("after the module", MODULE.start + PAGE_BYTES),
        ("end of the module region", MODULE.end - 1),
        ("ramdisk, if there is none", RAMDISK.start),
        ("pool", POOL_NEAR.start),
        ("second part of the pool", POOL_FAR.start),
        ("before the heap", HEAP.start - 1),
        ("after the heap", HEAP.end),
        ("before medium", MEDIUM.start - 1),
        ("after medium", MEDIUM.end),
        ("before the stack", STACK.start - 1),
        ("after the stack", STACK.end),
        ("before the view of the system area", SYSTEM_VIEW.start - 1),
        ("after it", SYSTEM_VIEW.end),
        ("before large", LARGE.start - 1),
        ("after large", LARGE.end),
        ("last canonical", NOT_CANONICAL - 1),
        ("last of all", u64::MAX),
    ];
    expect_faults(&nothing, &[Touch::Read, Touch::Write], 0);
}

#[test]
fn what_is_to_be_read_cannot_be_written() {
    if !kvm::usable() {
        return;
    }
    let read_only = [
        ("text", TEXT),
        ("constants", CONSTANTS),
        ("boot information", BOOT_INFO.start),
        ("host status", HOST_STATUS.start),
        ("module", MODULE.start),
        ("view of the page tables", SYSTEM_VIEW.start + (PAGE_TABLES.start - SYSTEM.start)),
        ("view of the stubs", SYSTEM_VIEW.start + (STUBS.start - SYSTEM.start)),
    ];
    expect_faults(&read_only, &[Touch::Write], PRESENT);
    for (name, address) in read_only {
        assert_eq!(touch(Touch::Read, address), Verdict::Exited(7), "{name}");
    }
}

#[test]
fn what_can_be_written_cannot_be_executed() {
    if !kvm::usable() {
        return;
    }
    let data = [
        ("kernel's data", KERNEL_DATA.start),
        ("constants", CONSTANTS),
        ("boot information", BOOT_INFO.start),
        ("host status", HOST_STATUS.start),
        ("mailbox", MAILBOX.start),
        ("ring", RING_DATA.start),
        ("window of a file", READ_AHEAD.start),
        ("doorbell", DOORBELL.start),
        ("module", MODULE.start),
        ("view of the stubs", SYSTEM_VIEW.start + (STUBS.start - SYSTEM.start)),
        ("heap", HEAP.start),
        ("stack", STACK.start),
    ];
    expect_faults(&data, &[Touch::Execute], PRESENT);
    let not_there = [("null", 0), ("fresh heap", HEAP.start + 2 * CHUNK_BYTES), ("fresh large", LARGE.start)];
    expect_faults(&not_there, &[Touch::Execute], 0);
}

#[test]
fn touched_demand_memory_cannot_be_executed() {
    if !kvm::usable() {
        return;
    }
    let verdict = run(|a| {
        a.mov(rax, LARGE.start)?;
        a.mov(byte_ptr(rax), 0xc3u32 as i32 - 0x100)?;
        a.call(rax)
    });
    assert_eq!(verdict, Verdict::PageFault { address: LARGE.start, error_code: USER | FETCH | PRESENT });
}

/// The upper half is empty; PVM's host keeps something there that its entries mark by reserved bits.
#[test]
fn the_upper_half_is_nobodys() {
    if !kvm::usable() {
        return;
    }
    for address in [0xffff_8000_0000_0000, 0xffff_ffff_8100_0000, 0xffff_ffff_ff60_0000] {
        for how in [Touch::Read, Touch::Write, Touch::Execute] {
            let codes = [0, PRESENT | RESERVED].map(|bits| Verdict::PageFault { address, error_code: how.error_code() | bits });
            let verdict = touch(how, address);
            assert!(codes.contains(&verdict), "{how:?} of {address:#x}: {verdict:x?}");
        }
    }
    for address in [NOT_CANONICAL, 1 << 63] {
        for how in [Touch::Read, Touch::Write, Touch::Execute] {
            assert_eq!(touch(how, address), Verdict::Exception { vector: 13, error_code: 0 }, "{how:?} of {address:#x}");
        }
    }
}

#[test]
fn the_stubs_need_no_stack_of_the_guest() {
    if !kvm::usable() {
        return;
    }
    let rows: &[Row<'_>] = &[
        (
            "push where nothing is",
            |a| {
                a.mov(rsp, PAGE_BYTES)?;
                a.push(rax)
            },
            &[Verdict::PageFault { address: PAGE_BYTES - 8, error_code: USER | WRITE }],
        ),
        (
            "push at the top of all",
            |a| {
                a.mov(rsp, 0u64)?;
                a.push(rax)
            },
            &[Verdict::PageFault { address: 0u64.wrapping_sub(8), error_code: USER | WRITE }],
        ),
        (
            "push onto text",
            |a| {
                a.mov(rsp, TEXT + 64)?;
                a.push(rax)
            },
            &[Verdict::PageFault { address: TEXT + 56, error_code: USER | WRITE | PRESENT }],
        ),
        (
            "push to an address that is not canonical",
            |a| {
                a.mov(rsp, NOT_CANONICAL + 64)?;
                a.push(rax)
            },
            &[Verdict::Exception { vector: 12, error_code: 0 }],
        ),
        (
            "fault with a null stack",
            |a| {
                a.mov(rsp, 0u64)?;
                a.ud2()
            },
            &[Verdict::Exception { vector: 6, error_code: 0 }],
        ),
        (
            "fault with a stack that is not canonical",
            |a| {
                a.mov(rsp, NOT_CANONICAL)?;
                a.ud2()
            },
            &[Verdict::Exception { vector: 6, error_code: 0 }],
        ),
        (
            "fault on the stack of ring 0",
            |a| {
                a.mov(rsp, RING0_STACK.end)?;
                a.ud2()
            },
            &[Verdict::Exception { vector: 6, error_code: 0 }],
        ),
        (
            "demand with a null stack",
            |a| {
                a.mov(rsp, 0u64)?;
                a.mov(rax, LARGE.start)?;
                a.mov(byte_ptr(rax), 1)?;
                exit(a, 7)
            },
            &[Verdict::Exited(7)],
        ),
        (
            "the stack's last word",
            |a| {
                a.mov(rsp, STACK.start + 8)?;
                a.push(rax)?;
                exit(a, 7)
            },
            &[Verdict::Exited(7)],
        ),
        (
            "below it",
            |a| {
                a.mov(rsp, STACK.start)?;
                a.push(rax)
            },
            &[Verdict::PageFault { address: STACK.start - 8, error_code: USER | WRITE }],
        ),
        (
            "across its end",
            |a| {
                a.mov(rax, STACK.end - 4)?;
                a.mov(qword_ptr(rax), 1)
            },
            &[Verdict::PageFault { address: STACK.end, error_code: USER | WRITE }],
        ),
    ];
    check(rows);
}
