//! Code of the processor that no compiler made.

use iced_x86::{IcedError, code_asm::*};
use mote_abi::{
    announce,
    layout::{
        ANNOUNCED, BOOT_INFO, CONFIG, DOORBELL, FAULT_DOORBELL, GDT, HOST_STATUS, IMAGE, LINEAR, LINEAR_SLOT_BYTES, LINEAR_SLOTS,
        MAILBOX, MODULE, PAGE_BYTES, PAGE_TABLES, STUBS, SYSTEM_VIEW,
    },
};
use mote_vmm::{CallError, GuestFault, Sandbox, Value};

use super::files::{DEADLINE, Witness, artifact, section};
use crate::support::kvm;

type Assembled = Result<(), IcedError>;

/// How its call has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// A fault of the guest.
    Fault,
    Deadline,
    OutOfMemory,
    /// As it likes: but not by a failure of the host.
    Any,
}

/// Nothing of it is executed before its function is called.
const MODULE_OF_ONE: &str = r#"(module (memory (export "memory") 1)
    (func (export "f") (param i32) (result i32) (i32.load (local.get 0))))"#;

/// A good artifact whose code is all this code: wherever it is entered, it comes there.
fn with_code(code: impl FnOnce(&mut CodeAssembler, u64) -> Assembled) -> Vec<u8> {
    let mut artifact = artifact(MODULE_OF_ONE);
    let text = section(&artifact, ".text");
    let mut assembler = CodeAssembler::new(64).unwrap();
    const ROOM: usize = 512;
    let at = MODULE.start + (text.end - ROOM) as u64;
    code(&mut assembler, at).unwrap();
    let code = assembler.assemble(at).unwrap();
    assert!(code.len() <= ROOM);
    artifact[text.clone()].fill(0x90);
    artifact[text.end - ROOM..][..code.len()].copy_from_slice(&code);
    artifact
}

fn store(a: &mut CodeAssembler, address: u64) -> Assembled {
    a.mov(rax, address)?;
    a.mov(byte_ptr(rax), 1)
}

fn jump(a: &mut CodeAssembler, address: u64) -> Assembled {
    a.mov(rax, address)?;
    a.jmp(rax)
}

fn set_flags(a: &mut CodeAssembler, flags: i32) -> Assembled {
    a.pushfq()?;
    a.or(qword_ptr(rsp), flags)?;
    a.popfq()
}

type Code = fn(&mut CodeAssembler, u64) -> Assembled;

const CODES: [(&str, Code, End); 40] = [
    ("loop", |a, at| jump(a, at), End::Deadline),
    ("ud2", |a, _| a.ud2(), End::Fault),
    ("hlt", |a, _| a.hlt(), End::Fault),
    ("in", |a, _| a.in_(al, dx), End::Fault),
    ("out", |a, _| a.out(0x80, al), End::Fault),
    ("cli", |a, _| a.cli(), End::Fault),
    ("int3", |a, _| a.int3(), End::Fault),
    ("int 0x80", |a, _| a.int(0x80).and_then(|()| a.ud2()), End::Fault),
    ("syscall", |a, _| a.syscall().and_then(|()| a.ud2()), End::Any),
    ("rdmsr", |a, _| a.rdmsr(), End::Fault),
    ("write of control registers", |a, _| a.mov(cr3, rax), End::Fault),
    ("own text", |a, at| store(a, at), End::Fault),
    ("the module", |a, _| store(a, MODULE.start), End::Fault),
    ("behind the module", |a, _| store(a, MODULE.end - 1), End::Fault),
    ("the image", |a, _| store(a, IMAGE.start), End::Fault),
    ("boot information", |a, _| store(a, BOOT_INFO.start), End::Fault),
    ("host status", |a, _| store(a, HOST_STATUS.start), End::Fault),
    ("configuration", |a, _| store(a, CONFIG.start), End::Fault),
    ("descriptors", |a, _| store(a, GDT.start), End::Fault),
    ("page tables", |a, _| store(a, PAGE_TABLES.start), End::Fault),
    ("page tables in the view", |a, _| store(a, SYSTEM_VIEW.start + PAGE_TABLES.start - GDT.start), End::Fault),
    ("fault doorbell", |a, _| store(a, FAULT_DOORBELL.start), End::Fault),
    ("address that is not canonical", |a, _| store(a, 1 << 63), End::Fault),
    ("jump to the kernel's entry", |a, _| jump(a, IMAGE.start), End::Any),
    ("jump into the kernel", |a, _| jump(a, IMAGE.start + 0x12345), End::Any),
    ("jump to the stubs", |a, _| jump(a, STUBS.start), End::Fault),
    ("jump to nowhere", |a, _| jump(a, 8), End::Fault),
    ("jump out of all addresses", |a, _| jump(a, 1 << 47), End::Fault),
    ("jump to the mailbox", |a, _| jump(a, MAILBOX.start), End::Fault),
    (
        "code in linear memory",
        |a, _| {
            // The guard before it, then the memory.
            a.mov(rax, LINEAR.start + (32 << 20))?;
            a.mov(qword_ptr(rax), 0x0b0f)?;
            a.jmp(rax)
        },
        End::Fault,
    ),
    (
        "reads of the mailbox",
        |a, _| {
            a.mov(rsi, MAILBOX.start)?;
            a.mov(rcx, MAILBOX.bytes() / 8)?;
            a.rep().lodsq()?;
            a.ret()
        },
        End::Any,
    ),
    (
        "garbage at the doorbell",
        |a, _| {
            a.mov(rdi, MAILBOX.start)?;
            a.mov(rcx, MAILBOX.bytes())?;
            a.mov(al, 0xa5)?;
            a.rep().stosb()?;
            a.mov(rax, DOORBELL.start)?;
            a.mov(dword_ptr(rax), 1)
        },
        End::Fault,
    ),
    (
        "the doorbell, again and again",
        |a, at| {
            a.mov(rax, MAILBOX.start)?;
            a.mov(dword_ptr(rax), mote_abi::hypercall::READ_CLOCK)?;
            a.mov(rax, DOORBELL.start)?;
            a.mov(dword_ptr(rax), 1)?;
            jump(a, at)
        },
        End::Deadline,
    ),
    (
        "itself as the handler",
        |a, at| {
            a.mov(rax, announce::HANDLER)?;
            a.mov(rbx, at)?;
            a.mov(qword_ptr(rax), rbx)?;
            a.ud2()
        },
        End::Deadline,
    ),
    (
        "everything is announced and touched",
        |a, _| {
            a.mov(rbx, ANNOUNCED.start + PAGE_BYTES)?;
            a.mov(rax, LINEAR.start)?;
            a.mov(rdx, LINEAR_SLOT_BYTES)?;
            a.mov(rcx, LINEAR_SLOTS)?;
            let mut again = a.create_label();
            a.set_label(&mut again)?;
            a.mov(qword_ptr(rbx), rax)?;
            a.add(rax, rdx)?;
            a.mov(qword_ptr(rbx + 8), rax)?;
            a.add(rbx, 16)?;
            a.dec(rcx)?;
            a.jne(again)?;
            let mut touch = a.create_label();
            a.set_label(&mut touch)?;
            a.sub(rax, 4096)?;
            a.mov(byte_ptr(rax), 1)?;
            a.jmp(touch)
        },
        End::OutOfMemory,
    ),
    ("no stack", |a, _| a.xor(esp, esp).and_then(|()| a.ud2()), End::Fault),
    ("no stack that is canonical", |a, _| a.mov(rsp, 1u64 << 63).and_then(|()| a.ud2()), End::Fault),
    ("trap flag", |a, _| set_flags(a, 1 << 8).and_then(|()| a.nop()).and_then(|()| a.nop()), End::Fault),
    (
        "alignment check",
        |a, _| set_flags(a, 1 << 18).and_then(|()| a.mov(rax, qword_ptr(rsp + 1))).and_then(|()| a.ud2()),
        End::Fault,
    ),
    (
        "frames of nonsense",
        |a, _| {
            a.mov(rbp, 0x4141_4141_4141u64)?;
            a.ud2()
        },
        End::Fault,
    ),
];

fn end(result: Result<Vec<Value>, CallError>) -> Result<End, String> {
    match result {
        Err(CallError::DeadlineExceeded) => Ok(End::Deadline),
        Err(CallError::Guest(fault)) => match *fault {
            GuestFault::OutOfMemory(_) => Ok(End::OutOfMemory),
            _ => Ok(End::Fault),
        },
        Err(CallError::HostFailure(failure)) => Err(format!("the host failed: {failure}")),
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn hostile_code_ends_its_own_vm_and_nothing_else() {
    if !kvm::usable() {
        return;
    }
    let mut witness = Witness::new();
    let mut wrong = Vec::new();
    for (name, code, expected) in CODES {
        let artifact = with_code(code);
        let mut sandbox = Sandbox::builder().module_bytes(artifact).ram_bytes(32 << 20).deadline(DEADLINE).build().unwrap();
        let snapshot = sandbox.snapshot().unwrap();
        for round in 0..2 {
            let result = sandbox.call_dynamic("f", &[Value::I32(0)]);
            let is_good = match end(result) {
                Ok(found) if found == expected || expected == End::Any => Ok(()),
                Err(other) if expected == End::Any && !other.contains("the host failed") => Ok(()),
                other => Err(other),
            };
            if let Err(other) = is_good {
                wrong.push((name, round, expected, other));
            }
            witness.check();
            sandbox.restore(&snapshot).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
