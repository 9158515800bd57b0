//! A kernel that serves: it exports a function and a memory, and does what a test says when the function is called with
//! anything but 0.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use iced_x86::code_asm::{CodeAssembler, dword_ptr, eax, qword_ptr};
use mote_abi::{
    boot::{BootInfo, flags},
    command::{self, ExportHeader, export_kind},
    hypercall::{LinearMemory, NO_FUEL, RETURN, ReturnArgs, return_kind},
    layout::{BOOT_INFO, HEAP, MAILBOX_DATA, MIN_RAM_BYTES},
    mailbox::{RESPONSE, Request},
    note::engine,
    value::RawValue,
};
use mote_vmm::{CallError, Caller, GuestFault, KernelImage, Poison, Sandbox, SandboxBuilder, SandboxState, Snapshot};
use zerocopy::IntoBytes;

use crate::support::{
    engine::{by_engine, sandbox_builder},
    guest::{self, Assembled, CONSTANTS, copy, post, ring},
};

/// What the function returns when it behaves.
pub(crate) const ANSWER: i32 = 42;
/// The argument that makes it misbehave.
pub(crate) const MISBEHAVE: i32 = 1;
/// Where it says that its memory is, when it behaves.
pub(crate) const MEMORY: LinearMemory = LinearMemory { address: HEAP.start, bytes: 65536 };
/// Longer than everything that one guest does here, however busy the machine is.
const WATCHDOG: Duration = Duration::from_secs(120);
/// The deadline of calls that should not need it.
const DEADLINE: Duration = Duration::from_secs(30);

/// An export as it stands in a list.
pub(crate) fn export(kind: u32, name: &[u8], ty: &[u8]) -> Vec<u8> {
    let header = ExportHeader { name_bytes: name.len() as u32, type_bytes: ty.len() as u32, kind, ..ExportHeader::default() };
    [header.as_bytes(), name, ty].concat()
}

/// What a good kernel of this test exports.
pub(crate) fn exports() -> Vec<u8> {
    let parts = [
        export(export_kind::FUNCTION, b"f", b"i:i"),
        export(export_kind::MEMORY, b"memory", b""),
        export(export_kind::GLOBAL, b"g", b"i"),
    ];
    parts.concat()
}

/// Arguments of a return from a command that was done.
pub(crate) fn done() -> ReturnArgs {
    ReturnArgs { kind: return_kind::DONE, fuel_left: NO_FUEL, memory: MEMORY, ..ReturnArgs::default() }
}

/// Returns from a command. Uses `rax`, `rbx`.
pub(crate) fn give_back(a: &mut CodeAssembler, arguments: &ReturnArgs) -> Assembled {
    post(a, &Request::new(RETURN, arguments, 0))?;
    ring(a)
}

/// Returns from a call with [`ANSWER`]. Uses `rax`, `rbx`.
pub(crate) fn answer(a: &mut CodeAssembler) -> Assembled {
    a.mov(qword_ptr(MAILBOX_DATA.start), ANSWER)?;
    give_back(a, &ReturnArgs { payload_bytes: size_of::<RawValue>() as u32, ..done() })
}

/// Assembles a kernel that says that it has the engine under test.
pub(crate) fn kernel_of_engine(constants: &[u8], code: impl FnOnce(&mut CodeAssembler) -> Assembled) -> Arc<KernelImage> {
    guest::kernel_of(by_engine(engine::INTERPRETER, engine::COMPILED), constants, code)
}

/// A kernel whose first words are those of a good one, and that does `misbehave` when it is told to. That goes on with the
/// next command, if it comes to its end.
pub(crate) fn kernel(misbehave: impl FnOnce(&mut CodeAssembler) -> Assembled) -> Arc<KernelImage> {
    let list = exports();
    kernel_of_engine(&list, |a| {
        let (mut obey, mut bad, mut other) = (a.create_label(), a.create_label(), a.create_label());
        jump_if_resumed(a, obey)?;
        copy(a, CONSTANTS, MAILBOX_DATA.start, list.len() as u64)?;
        give_back(a, &ReturnArgs { code: 3, payload_bytes: list.len() as u32, ..done() })?;
        a.set_label(&mut obey)?;
        a.cmp(dword_ptr(RESPONSE), command::CALL as i32)?;
        a.jne(other)?;
        a.mov(eax, dword_ptr(MAILBOX_DATA.start))?;
        a.test(eax, eax)?;
        a.jnz(bad)?;
        answer(a)?;
        a.jmp(obey)?;
        a.set_label(&mut other)?;
        give_back(a, &done())?;
        a.jmp(obey)?;
        a.set_label(&mut bad)?;
        // What follows may begin with a label of its own.
        a.nop()?;
        misbehave(a)?;
        a.jmp(obey)
    })
}

/// Goes to `label` if the kernel goes on from a snapshot. Changes no register but the flags.
pub(crate) fn jump_if_resumed(a: &mut CodeAssembler, label: iced_x86::code_asm::CodeLabel) -> Assembled {
    a.test(dword_ptr(BOOT_INFO.start + std::mem::offset_of!(BootInfo, flags) as u64), flags::RESUME as i32)?;
    a.jnz(label)
}

/// A builder with this kernel and a function of the host that takes two numbers and returns their sum, unless the first one is
/// negative.
pub(crate) fn builder(kernel: &Arc<KernelImage>) -> SandboxBuilder {
    let sum = |_: Caller<'_>, a: i64, b: i64| match a {
        0.. => Ok(a.wrapping_add(b)),
        _ => Err(std::io::Error::other("negative")),
    };
    bare_builder(kernel).func("env", "sum", sum)
}

/// The same without the function.
pub(crate) fn bare_builder(kernel: &Arc<KernelImage>) -> SandboxBuilder {
    let module = b"\0asm\x01\0\0\0";
    sandbox_builder().kernel(kernel).module_bytes(*module).ram_bytes(MIN_RAM_BYTES).deadline(DEADLINE)
}

/// Runs it in a thread of its own.
///
/// # Panics
///
/// If it does, or takes far longer than it may.
pub(crate) fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    let runner = thread::spawn(move || drop(sender.send(work())));
    match receiver.recv_timeout(WATCHDOG) {
        Ok(done) => done,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the host hangs: no end after {WATCHDOG:?}"),
        Err(mpsc::RecvTimeoutError::Disconnected) => std::panic::resume_unwind(runner.join().unwrap_err()),
    }
}

/// A sandbox that behaved so far, and a snapshot of it.
pub(crate) struct Guest {
    pub(crate) sandbox: Sandbox,
    pub(crate) snapshot: Snapshot,
}

impl Guest {
    /// Of a kernel that misbehaves like this.
    pub(crate) fn new(misbehave: impl FnOnce(&mut CodeAssembler) -> Assembled) -> Self {
        Self::of(builder(&kernel(misbehave)))
    }

    pub(crate) fn of(builder: SandboxBuilder) -> Self {
        let mut sandbox = builder.build().unwrap();
        assert_eq!(sandbox.call::<_, i32>("f", 0).unwrap(), ANSWER);
        let snapshot = sandbox.snapshot().unwrap();
        Self { sandbox, snapshot }
    }

    /// Lets it misbehave.
    pub(crate) fn misbehave(&mut self) -> Result<i32, CallError> {
        self.sandbox.call("f", MISBEHAVE)
    }

    /// Checks that a restore brings it back, and that copies of its snapshot know nothing of what it did.
    #[track_caller]
    pub(crate) fn assert_comes_back(&mut self) {
        self.sandbox.restore(&self.snapshot).unwrap();
        assert_eq!(self.sandbox.call::<_, i32>("f", 0).unwrap(), ANSWER);
        let mut copy = Sandbox::from_snapshot(&self.snapshot).unwrap();
        assert_eq!(copy.call::<_, i32>("f", 0).unwrap(), ANSWER);
    }
}

/// What is wrong with a request, if an error tells of that.
pub(crate) fn bad_request(error: &CallError) -> Option<&str> {
    match error {
        CallError::Guest(fault) => match fault.as_ref() {
            GuestFault::BadRequest(what) => Some(what),
            _ => None,
        },
        _ => None,
    }
}

/// Lets a guest misbehave: the call must end with a complaint about this. Only a restore brings it back then.
#[track_caller]
pub(crate) fn assert_bad_request(name: &str, misbehave: impl FnOnce(&mut CodeAssembler) -> Assembled, about: &str) {
    let mut guest = Guest::new(misbehave);
    let error = guest.misbehave().map_or_else(|error| error, |value| panic!("{name}: it returned {value}"));
    let told = bad_request(&error).unwrap_or_else(|| panic!("{name}: {error:?}"));
    assert!(told.contains(about), "{name}: {about:?} is not in {told:?}");
    assert_needs_restore(name, &mut guest);
}

/// Checks that it is poisoned for good, and then that a restore helps.
#[track_caller]
pub(crate) fn assert_needs_restore(name: &str, guest: &mut Guest) {
    let sandbox = &mut guest.sandbox;
    assert_eq!(sandbox.state(), SandboxState::Poisoned(Poison::Fault), "{name}");
    assert!(matches!(sandbox.clear_poison(), Err(CallError::Poisoned(Poison::Fault))), "{name}");
    assert!(matches!(sandbox.call::<_, i32>("f", 0), Err(CallError::Poisoned(Poison::Fault))), "{name}");
    assert!(sandbox.snapshot().is_err() && sandbox.read_memory(0, &mut [0]).is_err(), "{name}");
    guest.assert_comes_back();
}
