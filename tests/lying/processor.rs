//! Processor state that a guest leaves behind: none of it is there when the sandbox was restored. The kernel here notes the
//! state in which it is entered, before it does anything, and a function returns it.

use iced_x86::code_asm::*;
use mote_abi::{
    boot::{BootInfo, flags},
    command::export_kind,
    hypercall::ReturnArgs,
    layout::{BOOT_INFO, MAILBOX_DATA, STACK},
};
use mote_vmm::{CallError, Sandbox, Value};

use super::server::{bare_builder, done, export, give_back, kernel_of_engine};
use crate::support::{
    guest::{Assembled, CONSTANTS, DATA, copy, spin},
    kvm,
};

/// What is noted: general registers, flags, segments, control words, a word by way of FS and of GS, then vector registers.
const NAMES: [&str; 28] = [
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rflags", "cs",
    "ds", "es", "fs", "gs", "ss", "mxcsr", "fcw", "fsw", "fs:", "gs:",
];
const VECTORS: usize = 16;
const RECORD_BYTES: u64 = 16;
/// What lies where FS and GS are tried, if their bases are zero.
const PATTERN: u64 = 0x0123_4567_89ab_cdef;

/// The flag that is always set, which is all that is set, but for that of interrupts: under PVM ring 3 sees the host's.
const FLAGS: u64 = 1 << 1;
const INTERRUPT: u128 = 1 << 9;
const TRAP: i32 = 1 << 8;
const DIRECTION: i32 = 1 << 10;
const NESTED: i32 = 1 << 14;
const ALIGNMENT: i32 = 1 << 18;
const IDENTIFICATION: i32 = 1 << 21;
/// Carry, parity, adjust, zero, sign, overflow.
const ARITHMETIC: i32 = 1 << 0 | 1 << 2 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 11;

fn record(index: usize) -> u64 {
    DATA + index as u64 * RECORD_BYTES
}

/// Notes everything. The flags come first, as nothing before that may change them; for that a register is needed, which is
/// noted before.
fn note(a: &mut CodeAssembler) -> Assembled {
    a.mov(qword_ptr(record(0)), rax)?;
    a.mov(qword_ptr(record(7)), rsp)?;
    a.pushfq()?;
    a.pop(rax)?;
    a.mov(qword_ptr(record(16)), rax)?;
    let registers = [rbx, rcx, rdx, rsi, rdi, rbp];
    for (index, register) in (1..).zip(registers).chain((8..).zip([r8, r9, r10, r11, r12, r13, r14, r15])) {
        a.mov(qword_ptr(record(index)), register)?;
    }
    for (index, segment) in (17..).zip([cs, ds, es, fs, gs, ss]) {
        a.mov(eax, segment)?;
        a.mov(qword_ptr(record(index)), rax)?;
    }
    a.stmxcsr(dword_ptr(record(23)))?;
    a.fnstcw(word_ptr(record(24)))?;
    a.fnstsw(word_ptr(record(25)))?;
    a.mov(ebx, CONSTANTS as u32)?;
    a.mov(rax, qword_ptr(rbx).fs())?;
    a.mov(qword_ptr(record(26)), rax)?;
    a.mov(rax, qword_ptr(rbx).gs())?;
    a.mov(qword_ptr(record(27)), rax)?;
    let vectors = [xmm0, xmm1, xmm2, xmm3, xmm4, xmm5, xmm6, xmm7, xmm8, xmm9, xmm10, xmm11, xmm12, xmm13, xmm14, xmm15];
    for (index, vector) in (NAMES.len()..).zip(vectors) {
        a.movups(xmmword_ptr(record(index)), vector)?;
    }
    Ok(())
}

/// A sandbox whose function `dirty` does this, and whose function `state` returns what was noted.
fn sandbox(dirty: fn(&mut CodeAssembler) -> Assembled) -> Sandbox {
    let results: String = std::iter::repeat_n('I', NAMES.len()).chain(std::iter::repeat_n('v', VECTORS)).collect();
    let list = [
        export(export_kind::FUNCTION, b"state", format!(":{results}").as_bytes()),
        export(export_kind::FUNCTION, b"dirty", b":"),
    ]
    .concat();
    let constants = [&PATTERN.to_le_bytes()[..], &[0; 8], &list].concat();
    let bytes = (NAMES.len() + VECTORS) as u64 * RECORD_BYTES;
    let kernel = kernel_of_engine(&constants, |a| {
        let (mut obey, mut bad) = (a.create_label(), a.create_label());
        note(a)?;
        let flags_at = BOOT_INFO.start + std::mem::offset_of!(BootInfo, flags) as u64;
        a.test(dword_ptr(flags_at), flags::RESUME as i32)?;
        a.jnz(obey)?;
        copy(a, CONSTANTS + 16, MAILBOX_DATA.start, list.len() as u64)?;
        give_back(a, &ReturnArgs { code: 2, payload_bytes: list.len() as u32, ..done() })?;
        a.set_label(&mut obey)?;
        // The number of the export (see `CallArgs`).
        a.cmp(dword_ptr(mote_abi::mailbox::RESPONSE + 12), 0)?;
        a.jne(bad)?;
        copy(a, DATA, MAILBOX_DATA.start, bytes)?;
        give_back(a, &ReturnArgs { payload_bytes: bytes as u32, ..done() })?;
        a.jmp(obey)?;
        a.set_label(&mut bad)?;
        dirty(a)?;
        give_back(a, &done())?;
        a.jmp(obey)
    });
    bare_builder(&kernel).build().unwrap()
}

fn state(sandbox: &mut Sandbox) -> Vec<(&'static str, u128)> {
    let values = sandbox.call_dynamic("state", &[]).unwrap();
    let names = NAMES.into_iter().chain(std::iter::repeat_n("xmm", VECTORS));
    let number = |value| match value {
        Value::I64(number) => u128::from(number as u64),
        Value::V128(number) => number,
        other => panic!("{other:?}"),
    };
    names.zip(values.into_iter().map(number)).collect()
}

/// What the contract says about it.
#[track_caller]
fn assert_is_entry_state(name: &str, found: &[(&str, u128)]) {
    for (register, value) in found {
        let value = if *register == "rflags" { value & !INTERRUPT } else { *value };
        let expected = match *register {
            "rdi" => BOOT_INFO.start,
            "rsp" => STACK.end,
            "rflags" => FLAGS,
            "mxcsr" => 0x1f80,
            "fs:" | "gs:" => PATTERN,
            // As KVM makes them: the contract leaves them open, and selectors are those of the tables.
            "fcw" | "fsw" | "cs" | "ds" | "es" | "fs" | "gs" | "ss" => continue,
            _ => 0,
        };
        assert_eq!(value, u128::from(expected), "{name}: {register} is {value:#x}");
    }
}

fn set_flags(a: &mut CodeAssembler, flags: i32) -> Assembled {
    a.pushfq()?;
    a.or(qword_ptr(rsp), flags)?;
    a.popfq()
}

fn fill_vectors(a: &mut CodeAssembler) -> Assembled {
    for vector in [xmm0, xmm1, xmm2, xmm3, xmm4, xmm5, xmm6, xmm7, xmm8, xmm9, xmm10, xmm11, xmm12, xmm13, xmm14, xmm15] {
        a.pcmpeqd(vector, vector)?;
    }
    Ok(())
}

fn fill_registers(a: &mut CodeAssembler) -> Assembled {
    for register in [rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15] {
        a.mov(register, -2i64)?;
    }
    Ok(())
}

/// Sets a 32-bit word behind what is noted, and gives its address.
fn word(a: &mut CodeAssembler, value: u32) -> Result<AsmMemoryOperand, iced_x86::IcedError> {
    let place = record(NAMES.len() + VECTORS + 1);
    a.mov(dword_ptr(place), value)?;
    Ok(dword_ptr(place))
}

type Dirty = (&'static str, fn(&mut CodeAssembler) -> Assembled);

/// What makes the processor dirty and leaves a guest that can go on, or not: either way the state is gone afterwards.
const DIRTY: [Dirty; 20] = [
    ("nothing", |_| Ok(())),
    ("direction flag", |a| a.std()),
    ("arithmetic flags", |a| set_flags(a, ARITHMETIC)),
    ("all flags, spinning", |a| {
        set_flags(a, ARITHMETIC | DIRECTION | NESTED | ALIGNMENT | IDENTIFICATION).and_then(|()| spin(a))
    }),
    ("trap flag", |a| set_flags(a, TRAP)),
    ("alignment check", |a| set_flags(a, ALIGNMENT).and_then(|()| a.mov(eax, dword_ptr(DATA + 1)))),
    ("general registers, spinning", |a| fill_registers(a).and_then(|()| spin(a))),
    ("general registers, faulting", |a| fill_registers(a).and_then(|()| a.ud2())),
    ("vector registers", fill_vectors),
    ("vector registers, spinning", |a| fill_vectors(a).and_then(|()| spin(a))),
    ("vector registers, faulting", |a| fill_vectors(a).and_then(|()| a.ud2())),
    ("exceptions of SSE", |a| {
        let control = word(a, 0x6000)?;
        a.ldmxcsr(control)?;
        spin(a)
    }),
    ("control word of x87", |a| {
        let control = word(a, 0x0000)?;
        a.fldcw(control)?;
        a.fld1()?;
        a.fldz()?;
        spin(a)
    }),
    ("full stack of x87", |a| (0..8).try_for_each(|_| a.fldpi()).and_then(|()| a.ud2())),
    ("null in segments", |a| {
        a.xor(eax, eax)?;
        a.mov(ds, eax)?;
        a.mov(es, eax)?;
        a.mov(fs, eax)?;
        a.mov(gs, eax)?;
        spin(a)
    }),
    ("wrong segment", |a| a.mov(eax, 0x1233u32).and_then(|()| a.mov(ds, eax))),
    ("base of FS", |a| {
        a.mov(rax, 0x0100_0000_0000u64)?;
        a.wrfsbase(rax)?;
        spin(a)
    }),
    ("base of GS", |a| {
        a.mov(rax, 0x0100_0000_0000u64)?;
        a.wrgsbase(rax)?;
        spin(a)
    }),
    ("protection keys", |a| {
        a.xor(ecx, ecx)?;
        a.xor(edx, edx)?;
        a.mov(eax, 0x5555_5554u32)?;
        a.wrpkru()?;
        spin(a)
    }),
    ("in the middle of a string", |a| {
        a.mov(rdi, DATA + 0x8000)?;
        a.mov(rcx, -1i64)?;
        a.rep().stosb()
    }),
];

#[test]
fn a_kernel_is_entered_as_the_contract_says() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = sandbox(|_| Ok(()));
    let first = state(&mut sandbox);
    assert_is_entry_state("at first", &first);
    let snapshot = sandbox.snapshot().unwrap();
    let mut copy = Sandbox::from_snapshot(&snapshot).unwrap();
    assert_eq!(state(&mut copy), first, "in a copy");
}

#[test]
fn nothing_that_a_guest_did_to_its_processor_outlives_a_restore() {
    if !kvm::usable() {
        return;
    }
    for (name, dirty) in DIRTY {
        let mut sandbox = sandbox(dirty);
        let first = state(&mut sandbox);
        let snapshot = sandbox.snapshot().unwrap();
        for _ in 0..2 {
            sandbox.set_deadline(Some(std::time::Duration::from_millis(50)));
            let ended = sandbox.call::<_, ()>("dirty", ());
            assert!(matches!(ended, Ok(()) | Err(CallError::DeadlineExceeded | CallError::Guest(_))), "{name}: {ended:?}");
            sandbox.set_deadline(Some(std::time::Duration::from_secs(30)));
            sandbox.restore(&snapshot).unwrap();
            let found = state(&mut sandbox);
            assert_is_entry_state(name, &found);
            assert_eq!(found, first, "{name}");
        }
    }
}

/// Also where the guest was stopped from outside, at any instruction.
#[test]
fn nor_does_anything_of_an_interrupted_guest() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = sandbox(|a| {
        let mut again = a.create_label();
        set_flags(a, ARITHMETIC | DIRECTION)?;
        fill_vectors(a)?;
        a.set_label(&mut again)?;
        a.lea(rax, qword_ptr(rax + 3))?;
        a.bswap(rbx)?;
        a.not(rdx)?;
        a.jmp(again)
    });
    let first = state(&mut sandbox);
    let snapshot = sandbox.snapshot().unwrap();
    for round in 0..20 {
        let handle = sandbox.interrupt_handle();
        let interrupter = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_micros(500 * round));
            handle.interrupt()
        });
        assert!(matches!(sandbox.call::<_, ()>("dirty", ()), Err(CallError::Interrupted)));
        assert!(interrupter.join().unwrap());
        sandbox.restore(&snapshot).unwrap();
        assert_eq!(state(&mut sandbox), first);
    }
}
