//! The registers of AVX and AVX-512, which kernels of compiled code have: as others in `processor.rs`, nothing of them outlives a
//! restore, or comes from another sandbox.

use std::{ops::ControlFlow, time::Duration};

use iced_x86::code_asm::*;
use mote_abi::{
    command::export_kind,
    hypercall::ReturnArgs,
    layout::{MAILBOX_DATA, MIN_RAM_BYTES},
    note::engine,
};
use mote_vmm::{CallError, CompileOptions, CpuFeatures, Sandbox, Value, compile};

use super::server::{done, export, give_back, jump_if_resumed};
use crate::support::{
    guest::{self, Assembled, CONSTANTS, DATA, copy, spin},
    kvm,
};

const YMM: [AsmRegisterYmm; 16] =
    [ymm0, ymm1, ymm2, ymm3, ymm4, ymm5, ymm6, ymm7, ymm8, ymm9, ymm10, ymm11, ymm12, ymm13, ymm14, ymm15];
const ZMM: [AsmRegisterZmm; 32] = [
    zmm0, zmm1, zmm2, zmm3, zmm4, zmm5, zmm6, zmm7, zmm8, zmm9, zmm10, zmm11, zmm12, zmm13, zmm14, zmm15, zmm16, zmm17, zmm18,
    zmm19, zmm20, zmm21, zmm22, zmm23, zmm24, zmm25, zmm26, zmm27, zmm28, zmm29, zmm30, zmm31,
];
const MASKS: [AsmRegisterK; 8] = [k0, k1, k2, k3, k4, k5, k6, k7];

/// Bytes of a register of AVX-512, and of what is noted: masks in the places behind.
const BYTES: u64 = 64;
const NOTED: u64 = (ZMM.len() as u64 + 2) * BYTES;

/// Which registers there are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Registers {
    Avx,
    Avx512,
}

fn note(a: &mut CodeAssembler, registers: Registers) -> Assembled {
    let place = |index: usize| DATA + index as u64 * BYTES;
    match registers {
        Registers::Avx => {
            YMM.into_iter().enumerate().try_for_each(|(index, register)| a.vmovups(ymmword_ptr(place(index)), register))
        }
        Registers::Avx512 => {
            for (index, register) in ZMM.into_iter().enumerate() {
                a.vmovups(zmmword_ptr(place(index)), register)?;
            }
            for (index, mask) in MASKS.into_iter().enumerate() {
                a.kmovw(word_ptr(place(ZMM.len()) + 8 * index as u64), mask)?;
            }
            Ok(())
        }
    }
}

fn fill(a: &mut CodeAssembler, registers: Registers) -> Assembled {
    match registers {
        Registers::Avx => {
            a.vpcmpeqd(xmm0, xmm0, xmm0)?;
            a.vinsertf128(ymm0, ymm0, xmm0, 1)?;
            YMM.into_iter().skip(1).try_for_each(|register| a.vmovaps(register, ymm0))
        }
        Registers::Avx512 => {
            ZMM.into_iter().try_for_each(|register| a.vpternlogd(register, register, register, 0xff))?;
            MASKS.into_iter().try_for_each(|mask| a.kxnorw(mask, mask, mask))
        }
    }
}

/// What a guest does when its registers are full.
type After = fn(&mut CodeAssembler) -> Assembled;

fn sandbox(registers: Registers, after: After) -> Sandbox {
    let values = (NOTED / 16) as usize;
    let list = [
        export(export_kind::FUNCTION, b"state", format!(":{}", "v".repeat(values)).as_bytes()),
        export(export_kind::FUNCTION, b"dirty", b":"),
    ]
    .concat();
    let kernel = guest::kernel_of(engine::COMPILED, &list, |a| {
        let (mut obey, mut bad) = (a.create_label(), a.create_label());
        note(a, registers)?;
        jump_if_resumed(a, obey)?;
        copy(a, CONSTANTS, MAILBOX_DATA.start, list.len() as u64)?;
        give_back(a, &ReturnArgs { code: 2, payload_bytes: list.len() as u32, ..done() })?;
        a.set_label(&mut obey)?;
        // The number of the export (see `CallArgs`).
        a.cmp(dword_ptr(mote_abi::mailbox::RESPONSE + 12), 0)?;
        a.jne(bad)?;
        copy(a, DATA, MAILBOX_DATA.start, NOTED)?;
        give_back(a, &ReturnArgs { payload_bytes: NOTED as u32, ..done() })?;
        a.jmp(obey)?;
        a.set_label(&mut bad)?;
        fill(a, registers)?;
        after(a)?;
        give_back(a, &done())?;
        a.jmp(obey)
    });
    let mut artifact = Vec::new();
    let options = CompileOptions::default();
    compile(b"(module)", &options, |_| ControlFlow::Continue(())).unwrap().write_to(&mut artifact).unwrap();
    let builder = Sandbox::builder().kernel(&kernel).module_bytes(artifact).ram_bytes(MIN_RAM_BYTES);
    builder.deadline(Duration::from_secs(30)).build().unwrap()
}

#[track_caller]
fn assert_clean(what: &str, sandbox: &mut Sandbox) {
    let values = sandbox.call_dynamic("state", &[]).unwrap();
    let dirty: Vec<_> = values.iter().enumerate().filter(|(_, value)| **value != Value::V128(0)).collect();
    assert!(dirty.is_empty(), "{what}: {dirty:x?}");
}

#[test]
fn vector_registers_are_empty_at_entry_and_after_a_restore() {
    if !kvm::usable() {
        return;
    }
    let features = CpuFeatures::of_guests();
    let has = |name| features.contains(CpuFeatures::from_names([name]));
    let all = [(Registers::Avx, has("has_avx")), (Registers::Avx512, has("has_avx512f"))];
    let afterwards: [(&str, After); 3] = [("returning", |_| Ok(())), ("spinning", spin), ("faulting", |a| a.ud2())];
    for (registers, _) in all.into_iter().filter(|(_, is_here)| *is_here) {
        for (name, after) in afterwards {
            let mut first = sandbox(registers, after);
            assert_clean("at first", &mut first);
            let snapshot = first.snapshot().unwrap();
            for _ in 0..3 {
                first.set_deadline(Some(Duration::from_millis(30)));
                let ended = first.call::<_, ()>("dirty", ());
                assert!(matches!(ended, Ok(()) | Err(CallError::DeadlineExceeded | CallError::Guest(_))), "{name}: {ended:?}");
                // What runs next on this thread, and is entered anew.
                assert_clean("another", &mut sandbox(registers, after));
                assert_clean("a copy", &mut Sandbox::from_snapshot(&snapshot).unwrap());
                first.set_deadline(Some(Duration::from_secs(30)));
                first.restore(&snapshot).unwrap();
                assert_clean(name, &mut first);
            }
        }
    }
}
