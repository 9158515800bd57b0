//! Hostile kernels: machine code made at test time, run in a VM that must end in time.
//!
//! A guest has [`TEXT`], [`CONSTANTS`], [`DATA`] and an empty module. The functions that emit code say which registers
//! they use.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use iced_x86::{
    IcedError,
    code_asm::{CodeAssembler, dword_ptr, qword_ptr, rax, rbx, rcx, rdi, rsi},
};
use mote_abi::{
    hypercall::{self, ExitArgs, exit_kind},
    layout::{CHUNK_BYTES, DOORBELL, IMAGE, KERNEL_DATA, MAILBOX, MIN_RAM_BYTES, PAGE_BYTES},
    mailbox::Request,
    note::engine,
};
use mote_vmm::{Config, Confinement, KernelImage, Limits, Module, Report, Vm};
use zerocopy::IntoBytes;

use super::{
    image::{self, Image, Segment},
    verdict::Verdict,
};

pub(crate) type Assembled = Result<(), IcedError>;

/// Where the guest's code is.
pub(crate) const TEXT: u64 = IMAGE.start;
/// Where its constants are.
pub(crate) const CONSTANTS: u64 = IMAGE.start + CHUNK_BYTES;
/// Where its writable data is: [`DATA_BYTES`], all zero.
pub(crate) const DATA: u64 = KERNEL_DATA.start;
pub(crate) const DATA_BYTES: u64 = 16 * PAGE_BYTES;

/// Most time that a run may take: longer than any deadline here and the grace for readers of output together.
const WATCHDOG: Duration = Duration::from_secs(90);
/// The deadline of a guest that should not need it.
const DEADLINE: Duration = Duration::from_secs(30);

/// Little RAM, a deadline, nothing to read, output thrown away; confined, as a hostile guest should be.
pub(crate) fn config() -> Config {
    let limits = Limits { ram_bytes: MIN_RAM_BYTES, deadline: Some(DEADLINE), ..Limits::default() };
    Config { limits, confinement: Confinement::BestEffort, ..Config::default() }
}

/// As [`config`], with a deadline that will be met.
pub(crate) fn config_with_deadline(milliseconds: u64) -> Config {
    let mut config = config();
    config.limits.deadline = Some(Duration::from_millis(milliseconds));
    config
}

/// Assembles a kernel and runs it.
pub(crate) fn run(code: impl FnOnce(&mut CodeAssembler) -> Assembled) -> Verdict {
    Verdict::of(&run_with(config(), &[], code).ending)
}

/// As [`run`], with a configuration and constants at [`CONSTANTS`].
pub(crate) fn run_with(config: Config, constants: &[u8], code: impl FnOnce(&mut CodeAssembler) -> Assembled) -> Report {
    finish(vm(config, constants, code))
}

/// Assembles a kernel and makes a VM of it.
pub(crate) fn vm(config: Config, constants: &[u8], code: impl FnOnce(&mut CodeAssembler) -> Assembled) -> Vm {
    let module = Module::from_reader("hostile".as_ref(), b"\0asm\x01\0\0\0".as_slice()).unwrap();
    Vm::new(&kernel(constants, code), &module, config).unwrap()
}

/// Assembles a kernel.
pub(crate) fn kernel(constants: &[u8], code: impl FnOnce(&mut CodeAssembler) -> Assembled) -> Arc<KernelImage> {
    kernel_of(engine::INTERPRETER, constants, code)
}

/// Assembles a kernel that says that it has this engine.
pub(crate) fn kernel_of(engine: u32, constants: &[u8], code: impl FnOnce(&mut CodeAssembler) -> Assembled) -> Arc<KernelImage> {
    let mut assembler = CodeAssembler::new(64).unwrap();
    code(&mut assembler).unwrap();
    let mut image = Image { engine, ..Image::new(&assembler.assemble(TEXT).unwrap()) };
    image.segments.push(Segment::new(image::R, CONSTANTS, if constants.is_empty() { &[0] } else { constants }));
    image.segments.push(Segment { memory_bytes: DATA_BYTES, ..Segment::new(image::RW, DATA, &[]) });
    Arc::new(KernelImage::from_bytes(&image.build()).unwrap())
}

/// Runs a VM to its end.
///
/// # Panics
///
/// If the host panics, or takes far longer than it may.
pub(crate) fn finish(vm: Vm) -> Report {
    let (sender, receiver) = mpsc::channel();
    let runner = thread::spawn(move || drop(sender.send(vm.run())));
    match receiver.recv_timeout(WATCHDOG) {
        Ok(report) => report,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the host hangs: no end after {WATCHDOG:?}"),
        Err(mpsc::RecvTimeoutError::Disconnected) => panic!("the host panicked: {:?}", runner.join()),
    }
}

/// A hypercall: a store of four bytes.
pub(crate) fn ring(a: &mut CodeAssembler) -> Assembled {
    a.mov(dword_ptr(DOORBELL.start), 1u32)
}

/// Writes the request into the mailbox, word by word. Uses `rax`, `rbx`.
pub(crate) fn post(a: &mut CodeAssembler, request: &Request) -> Assembled {
    a.mov(rbx, MAILBOX.start)?;
    for (index, word) in request.as_bytes().chunks_exact(8).enumerate() {
        a.mov(rax, u64::from_le_bytes(word.try_into().unwrap()))?;
        a.mov(qword_ptr(rbx + 8 * index as i32), rax)?;
    }
    Ok(())
}

/// Posts the request and rings.
pub(crate) fn call(a: &mut CodeAssembler, request: &Request) -> Assembled {
    post(a, request)?;
    ring(a)
}

/// The request to end with this status.
pub(crate) fn exit_request(code: u32) -> Request {
    Request::new(hypercall::EXIT, &ExitArgs { kind: exit_kind::EXITED, code, ..ExitArgs::default() }, 0)
}

/// Ends with this status.
pub(crate) fn exit(a: &mut CodeAssembler, code: u32) -> Assembled {
    call(a, &exit_request(code))
}

/// Copies `bytes` bytes. Uses `rcx`, `rsi`, `rdi`.
pub(crate) fn copy(a: &mut CodeAssembler, from: u64, to: u64, bytes: u64) -> Assembled {
    a.mov(rsi, from)?;
    a.mov(rdi, to)?;
    a.mov(rcx, bytes)?;
    a.rep().movsb()
}

/// Spins for ever.
pub(crate) fn spin(a: &mut CodeAssembler) -> Assembled {
    let mut again = a.create_label();
    a.set_label(&mut again)?;
    a.jmp(again)
}
