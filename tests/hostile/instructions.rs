//! Instructions and processor states that are not for ring 3.

use iced_x86::code_asm::*;
use mote_abi::layout::LARGE;

use crate::support::{
    guest::{Assembled, DATA, TEXT, exit},
    kvm,
    verdict::{FETCH, Row, USER, Verdict, check},
};

const DEBUG: Verdict = Verdict::Exception { vector: 1, error_code: 0 };
const INVALID_OPCODE: Verdict = Verdict::Exception { vector: 6, error_code: 0 };
const PROTECTION: Verdict = Verdict::Exception { vector: 13, error_code: 0 };
/// #GP that names a selector.
const fn selector(error_code: u64) -> Verdict {
    Verdict::Exception { vector: 13, error_code }
}

/// Flags (AMD64 Architecture Programmer's Manual, volume 1, section 3.1.4; volume 2, section 3.1.6).
const TRAP: i32 = 1 << 8;
const IO_PRIVILEGE: i32 = 3 << 12;
const NESTED_TASK: i32 = 1 << 14;
const VIRTUAL_8086: i32 = 1 << 17;
const ALIGNMENT_CHECK: i32 = 1 << 18;

fn set_flags(a: &mut CodeAssembler, flags: i32) -> Assembled {
    a.pushfq()?;
    a.or(qword_ptr(rsp), flags)?;
    a.popfq()
}

/// A jump to code of `selector`.
fn far_jump(a: &mut CodeAssembler, selector: u32) -> Assembled {
    a.mov(dword_ptr(DATA), TEXT as u32)?;
    a.mov(word_ptr(DATA + 4), selector)?;
    a.jmp(fword_ptr(DATA))
}

/// Touches memory that is not there yet.
fn demand(a: &mut CodeAssembler) -> Assembled {
    a.mov(rax, LARGE.start)?;
    a.mov(byte_ptr(rax), 1)
}

#[test]
fn privileged_instructions_fault() {
    if !kvm::usable() {
        return;
    }
    let protection: &[Verdict] = &[PROTECTION];
    // By vendor, and PVM runs on both.
    let refused: &[Verdict] = &[PROTECTION, INVALID_OPCODE];
    let rows: &[Row<'_>] = &[
        ("hlt", |a| a.hlt(), protection),
        ("cli", |a| a.cli(), protection),
        ("sti", |a| a.sti(), protection),
        ("read cr0", |a| a.mov(rax, cr0), protection),
        ("write cr3", |a| a.mov(cr3, rax), protection),
        ("write cr4", |a| a.mov(cr4, rax), protection),
        ("write dr7", |a| a.mov(dr7, rax), protection),
        ("rdmsr", |a| a.rdmsr(), protection),
        ("wrmsr", |a| a.wrmsr(), protection),
        ("lgdt", |a| a.lgdt(ptr(DATA)), protection),
        ("lidt", |a| a.lidt(ptr(DATA)), protection),
        ("lldt", |a| a.lldt(ax), protection),
        ("ltr", |a| a.ltr(ax), protection),
        ("in", |a| a.in_(al, dx), protection),
        ("out", |a| a.out(dx, al), protection),
        ("outsb", |a| a.outsb(), protection),
        ("swapgs", |a| a.swapgs(), protection),
        ("invlpg", |a| a.invlpg(byte_ptr(rax)), protection),
        ("invd", |a| a.invd(), protection),
        ("wbinvd", |a| a.wbinvd(), protection),
        ("clts", |a| a.clts(), protection),
        ("lmsw", |a| a.lmsw(ax), protection),
        ("rdpmc", |a| a.rdpmc(), protection),
        ("xsetbv", |a| a.xsetbv(), refused),
        ("sysretq", |a| a.sysretq(), refused),
        ("sysexit", |a| a.sysexit(), refused),
        ("sysenter", |a| a.sysenter(), refused),
        ("monitor", |a| a.monitor(), refused),
        ("mwait", |a| a.mwait(), refused),
        ("vmrun", |a| a.vmrun(), refused),
        ("stgi", |a| a.stgi(), refused),
        ("clgi", |a| a.clgi(), refused),
        ("stac", |a| a.stac(), refused),
        ("rsm", |a| a.rsm(), refused),
        ("encls", |a| a.encls(), refused),
        ("ud2", |a| a.ud2(), &[INVALID_OPCODE]),
    ];
    check(rows);
}

#[test]
fn ways_into_ring_0_lead_nowhere() {
    if !kvm::usable() {
        return;
    }
    // PVM tries to emulate what raised #GP, and turns what it does not know into #UD.
    let interrupt_14: &[Verdict] = &[selector(14 << 3 | 2), INVALID_OPCODE];
    let rows: &[Row<'_>] = &[
        // PVM delivers #BP although the gate is closed to ring 3.
        ("int3", |a| a.int3(), &[selector(3 << 3 | 2), Verdict::Exception { vector: 3, error_code: 0 }]),
        ("int1", |a| a.int1(), &[DEBUG]),
        ("int 14", |a| a.int(14), interrupt_14),
        ("int 0x20", |a| a.int(0x20), &[selector(0x20 << 3 | 2), INVALID_OPCODE]),
        ("int 0x80", |a| a.int(0x80), &[selector(0x80 << 3 | 2), INVALID_OPCODE]),
        // Under PVM it goes to LSTAR, which is 0, in ring 3.
        ("syscall", |a| a.syscall(), &[INVALID_OPCODE, Verdict::PageFault { address: 0, error_code: USER | FETCH }]),
        ("far jump to ring-0 code", |a| far_jump(a, 0x08), &[selector(0x08)]),
        ("far jump to the task", |a| far_jump(a, 0x28), &[selector(0x28), INVALID_OPCODE]),
        ("ring-0 data", |a| a.mov(eax, 0x10).and_then(|()| a.mov(ds, eax)), &[selector(0x10)]),
        ("ring-0 stack", |a| a.mov(eax, 0x10).and_then(|()| a.mov(ss, eax)), &[selector(0x10)]),
        ("no stack segment", |a| a.xor(eax, eax).and_then(|()| a.mov(ss, eax)), &[PROTECTION]),
        ("beyond the GDT", |a| a.mov(eax, 0xfffb).and_then(|()| a.mov(ds, eax)), &[selector(0xfff8)]),
        // There is no LDT: the processor looks for the descriptor at address 8.
        (
            "LDT",
            |a| a.mov(eax, 0xf).and_then(|()| a.mov(ds, eax)),
            &[selector(0xc), Verdict::PageFault { address: 8, error_code: 0 }],
        ),
        (
            "iretq to ring 0",
            |a| {
                a.push(0x10)?;
                a.push(rsp)?;
                a.pushfq()?;
                a.push(0x08)?;
                a.push(TEXT as i32)?;
                a.iretq()
            },
            &[selector(0x08)],
        ),
    ];
    check(rows);
}

/// The guest goes on, and `rax` says what came of it.
#[test]
fn kvm_takes_no_hypercalls_from_ring_3() {
    if !kvm::usable() {
        return;
    }
    const EPERM: i32 = 1;
    let vmmcall: Row<'_> = (
        "vmmcall",
        |a| {
            let mut refused = a.create_label();
            a.vmmcall()?;
            a.cmp(eax, -EPERM)?;
            a.je(refused)?;
            a.ud2()?;
            a.set_label(&mut refused)?;
            exit(a, 7)
        },
        &[Verdict::Exited(7)],
    );
    check(&[vmmcall]);
}

#[test]
fn hostile_flags_do_not_disturb_the_stubs() {
    if !kvm::usable() {
        return;
    }
    let rows: &[Row<'_>] = &[
        (
            "single step",
            |a| {
                set_flags(a, TRAP)?;
                a.nop()?;
                a.nop()
            },
            &[DEBUG],
        ),
        (
            "single step behind a load of ss",
            |a| {
                a.pushfq()?;
                a.or(qword_ptr(rsp), TRAP)?;
                a.mov(eax, ss)?;
                a.popfq()?;
                a.mov(ss, eax)?;
                a.ud2()
            },
            &[DEBUG, INVALID_OPCODE],
        ),
        (
            "alignment check",
            |a| {
                set_flags(a, ALIGNMENT_CHECK)?;
                a.mov(eax, dword_ptr(DATA + 1))
            },
            &[Verdict::Exception { vector: 17, error_code: 0 }],
        ),
        (
            "alignment check and demand",
            |a| {
                set_flags(a, ALIGNMENT_CHECK)?;
                demand(a)?;
                exit(a, 7)
            },
            &[Verdict::Exited(7)],
        ),
        (
            "nested task and demand",
            |a| {
                set_flags(a, NESTED_TASK)?;
                demand(a)?;
                exit(a, 7)
            },
            &[Verdict::Exited(7)],
        ),
        (
            "nested task and iretq",
            |a| {
                set_flags(a, NESTED_TASK)?;
                a.iretq()
            },
            &[PROTECTION],
        ),
        (
            "direction and demand",
            |a| {
                a.std()?;
                demand(a)?;
                exit(a, 7)
            },
            &[Verdict::Exited(7)],
        ),
        (
            "I/O privilege stays 0",
            |a| {
                set_flags(a, IO_PRIVILEGE)?;
                a.cli()
            },
            &[PROTECTION],
        ),
        (
            "virtual 8086 mode is not",
            |a| {
                set_flags(a, VIRTUAL_8086)?;
                exit(a, 7)
            },
            &[Verdict::Exited(7)],
        ),
    ];
    check(rows);
}

#[test]
fn arithmetic_exceptions_are_reported() {
    if !kvm::usable() {
        return;
    }
    let rows: &[Row<'_>] = &[
        (
            "division",
            |a| {
                a.xor(ecx, ecx)?;
                a.div(ecx)
            },
            &[Verdict::Exception { vector: 0, error_code: 0 }],
        ),
        (
            "x87",
            |a| {
                a.mov(word_ptr(DATA), 0)?;
                a.fldcw(word_ptr(DATA))?;
                a.fld1()?;
                a.fldz()?;
                a.fdivp(st1, st0)?;
                a.wait()
            },
            &[Verdict::Exception { vector: 16, error_code: 0 }],
        ),
        (
            "SSE",
            |a| {
                a.mov(dword_ptr(DATA), 0)?;
                a.ldmxcsr(dword_ptr(DATA))?;
                a.mov(eax, 1f32.to_bits())?;
                a.movd(xmm0, eax)?;
                a.xorps(xmm1, xmm1)?;
                a.divss(xmm0, xmm1)
            },
            &[Verdict::Exception { vector: 19, error_code: 0 }],
        ),
        (
            "reserved bits of MXCSR",
            |a| {
                a.mov(dword_ptr(DATA), -1)?;
                a.ldmxcsr(dword_ptr(DATA))
            },
            &[PROTECTION, INVALID_OPCODE],
        ),
    ];
    check(rows);
}

/// These tell where tables lie, or what the processor is; the guest may know.
#[test]
fn what_only_looks_is_allowed() {
    if !kvm::usable() {
        return;
    }
    let exited: &[Verdict] = &[Verdict::Exited(7)];
    let rows: &[Row<'_>] = &[
        ("cpuid", |a| a.cpuid().and_then(|()| exit(a, 7)), exited),
        ("rdtsc", |a| a.rdtsc().and_then(|()| exit(a, 7)), exited),
        ("sgdt", |a| a.sgdt(ptr(DATA)).and_then(|()| exit(a, 7)), exited),
        ("sidt", |a| a.sidt(ptr(DATA)).and_then(|()| exit(a, 7)), exited),
        ("str", |a| a.str(ax).and_then(|()| exit(a, 7)), exited),
        ("smsw", |a| a.smsw(ax).and_then(|()| exit(a, 7)), exited),
    ];
    check(rows);
}
