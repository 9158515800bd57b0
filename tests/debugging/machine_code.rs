//! Guests of machine code, through the library: steps over what exits, exceptions that nobody handles, and instructions that are
//! hard to step.

use std::{os::unix::net::UnixStream, sync::Arc, thread};

use iced_x86::code_asm::*;
use mote_abi::layout::{DOORBELL, LARGE, STACK};
use mote_vmm::{Config, DebugReport, Debuggee, Departure, Ending, KernelImage, Module};

use super::client::{Client, RSP};
use crate::support::{
    guest::{self, Assembled, DATA, TEXT, exit, post, ring},
    kvm,
    verdict::Verdict,
};

/// A debuggee on a thread of its own, with a client at it.
pub(super) struct Debugged {
    pub(super) client: Client,
    thread: thread::JoinHandle<DebugReport>,
}

impl Debugged {
    pub(super) fn start(kernel: &Arc<KernelImage>, module: &Arc<Module>, config: Config) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let debuggee = Debuggee::new(kernel, module, config).unwrap();
        let status = |ending: &Ending| match ending {
            Ending::Exited(code) => *code as u8,
            _ => 99,
        };
        Self { client: Client::new(ours), thread: thread::spawn(move || debuggee.run(theirs.into(), status)) }
    }

    #[track_caller]
    pub(super) fn finish(self) -> (Verdict, Departure) {
        let DebugReport { report, departure } = self.thread.join().expect("the host panicked");
        (Verdict::of(&report.ending), departure)
    }
}

type Code = fn(&mut CodeAssembler) -> Assembled;

/// `None` where there is no KVM.
fn debug(code: impl FnOnce(&mut CodeAssembler) -> Assembled) -> Option<Debugged> {
    let module = Module::from_bytes("empty".as_ref(), b"\0asm\x01\0\0\0".to_vec()).unwrap();
    kvm::usable().then(|| Debugged::start(&guest::kernel(&[], code), &module, guest::config()))
}

#[test]
fn a_store_to_the_doorbell_is_one_step() {
    use mote_abi::{hypercall, mailbox::Request};

    let drain = Request::new(hypercall::DRAIN_OUTPUT, &0u32, 0);
    let guest = debug(|a| {
        for _ in 0..3 {
            post(a, &drain)?;
            ring(a)?;
            a.nop()?;
            a.nop()?;
        }
        exit(a, 7)
    });
    let Some(Debugged { mut client, thread }) = guest else { return };
    // mov dword [DOORBELL], 1
    let store = [&[0xc7, 0x04, 0x25][..], &(DOORBELL.start as u32).to_le_bytes(), &[1, 0, 0, 0]].concat();
    let mut rip = client.rip();
    let mut stores = 0;
    loop {
        let is_store = client.read(rip, store.len()) == store;
        stores += usize::from(is_store);
        if stores == 4 {
            break;
        }
        let next = client.step();
        assert!(next > rip && next <= rip + 15 && !(is_store && next != rip + store.len() as u64), "{rip:#x} {next:#x}");
        rip = next;
    }
    client.expect("vCont;s", "W07");
    assert_eq!(Debugged { client, thread }.finish(), (Verdict::Exited(7), Departure::Ended));
}

#[test]
fn memory_on_demand_is_one_step() {
    let guest = debug(|a| {
        a.mov(rax, LARGE.start)?;
        a.mov(dword_ptr(rax), 0x1234_5678)?;
        a.mov(ecx, dword_ptr(rax))?;
        exit(a, 7)
    });
    let Some(mut guest) = guest else { return };
    let client = &mut guest.client;
    client.expect(&format!("m{:x},4", LARGE.start), "E0e");
    let store = client.step();
    let load = client.step();
    assert!(load > store && load < store + 8, "{store:#x} {load:#x}");
    client.expect(&format!("m{:x},4", LARGE.start), "78563412");
    client.expect(&format!("M{:x},4:01000000", LARGE.start), "OK");
    client.step();
    assert_eq!(client.registers()[2], 1, "rcx");
    client.expect("vCont;c", "W07");
    assert_eq!(guest.finish(), (Verdict::Exited(7), Departure::Ended));
}

#[test]
fn exceptions_stop_the_guest_before_they_end_it() {
    let rows: [(&str, &str, Code, &[u64]); 5] = [
        ("ud2", "04", |a| a.ud2(), &[6]),
        ("division", "08", |a| a.xor(ecx, ecx).and_then(|()| a.div(ecx)), &[0]),
        ("null", "0b", |a| a.mov(eax, dword_ptr(0x10)), &[14]),
        ("hlt", "0b", |a| a.hlt(), &[13]),
        // By the flavour of KVM.
        ("int3", "05", |a| a.int3(), &[3, 13]),
    ];
    for (name, signal, code, vectors) in rows {
        let Some(mut guest) = debug(code) else { return };
        let stop = guest.client.ask("vCont;c");
        assert_eq!(stop.get(1..3), Some(signal), "{name}: {stop}");
        guest.client.expect(&format!("vCont;C{signal}"), "W63");
        let (verdict, departure) = guest.finish();
        let vector = match verdict {
            Verdict::Exception { vector, .. } => vector,
            Verdict::PageFault { .. } => 14,
            other => panic!("{name}: {other:?}"),
        };
        assert!(vectors.contains(&vector), "{name}: {vector}");
        assert_eq!(departure, Departure::Ended);
    }
}

/// A debugger mends what was wrong, and goes on without the signal.
#[test]
fn an_exception_can_be_mended() {
    let guest = debug(|a| {
        a.xor(eax, eax)?;
        a.mov(ecx, dword_ptr(rax))?;
        exit(a, 7)
    });
    let Some(mut guest) = guest else { return };
    let client = &mut guest.client;
    assert!(client.ask("vCont;c").contains("0b"));
    let all = client.ask("g");
    let address = format!("{:016x}", DATA.swap_bytes());
    client.expect(&format!("G{address}{}", &all[16..]), "OK");
    assert_eq!(client.registers()[0], DATA);
    client.expect("vCont;c", "W07");
    assert_eq!(guest.finish(), (Verdict::Exited(7), Departure::Ended));
}

/// It is told behind the instruction, whatever KVM does, and the guest can go on.
#[test]
fn a_breakpoint_of_the_guests_own_is_a_stop() {
    let guest = debug(|a| {
        a.nop()?;
        a.int3()?;
        exit(a, 7)
    });
    let Some(mut guest) = guest else { return };
    assert!(guest.client.ask("vCont;c").contains("05"));
    assert_eq!(guest.client.rip(), TEXT + 2);
    guest.client.expect("vCont;c", "W07");
    assert_eq!(guest.finish(), (Verdict::Exited(7), Departure::Ended));
}

#[test]
fn flags_that_are_pushed_in_a_step_do_not_have_it() {
    let guest = debug(|a| {
        a.pushfq()?;
        a.pushfq()?;
        a.popfq()?;
        a.nop()?;
        a.nop()?;
        exit(a, 7)
    });
    let Some(mut guest) = guest else { return };
    for _ in 0..2 {
        guest.client.step();
        let top = guest.client.registers()[RSP];
        let flags = guest.client.read(top, 8);
        assert_eq!(flags[1] & 1, 0, "the trap flag in {flags:x?}");
    }
    guest.client.step();
    guest.client.expect("vCont;c", "W07");
    assert_eq!(guest.finish(), (Verdict::Exited(7), Departure::Ended));
}

/// The stub runs on its own stack.
#[test]
fn a_guest_without_a_stack_is_debugged_as_well() {
    let guest = debug(|a| {
        a.xor(esp, esp)?;
        a.nop()?;
        a.nop()?;
        a.mov(rsp, STACK.end)?;
        exit(a, 7)
    });
    let Some(mut guest) = guest else { return };
    let client = &mut guest.client;
    client.step();
    let next = client.step();
    assert_eq!(client.registers()[RSP], 0);
    client.expect(&format!("Z0,{next:x},1"), "OK");
    client.expect(&format!("Z0,{:x},1", next + 1), "OK");
    client.expect(&format!("z0,{next:x},1"), "OK");
    assert_eq!(client.run_to_breakpoint(), next + 1);
    client.expect(&format!("z0,{:x},1", next + 1), "OK");
    client.expect("vCont;c", "W07");
    assert_eq!(guest.finish(), (Verdict::Exited(7), Departure::Ended));
}
