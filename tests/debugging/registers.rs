//! Registers that a debugger changes, in both places where a guest can be stopped: in ring 3, and in the stub of an exception.

use iced_x86::code_asm::*;
use mote_vmm::{Departure, Module};

use super::{
    client::{Client, RIP},
    machine_code::Debugged,
};
use crate::support::{
    guest::{self, DATA, TEXT, exit},
    kvm,
    verdict::Verdict,
};

/// Places in the text of all registers, as GDB has them: in bytes (`gdb/features/i386/64bit-core.xml` and `64bit-sse.xml`).
const FLAGS: usize = 0x88;
const CS: usize = 0x8c;
const ST0: usize = 0xa4;
const XMM0: usize = 0x114;
const MXCSR: usize = 0x214;

fn put(all: &mut String, at: usize, bytes: &[u8]) {
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    all.replace_range(2 * at..2 * at + text.len(), &text);
}

/// Sets some of each kind, and sees that they are kept and that nothing else changed.
#[track_caller]
fn change(client: &mut Client, seed: u8) {
    let mut all = client.ask("g");
    for register in [0, 1, 3, 8, 15] {
        put(&mut all, 8 * register, &[seed, 2, 3, 4, 5, 6, 7, register as u8]);
    }
    put(&mut all, ST0, &[seed; 8]);
    put(&mut all, XMM0, &[seed, 0xee, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
    put(&mut all, XMM0 + 15 * 16, &[0xdd; 16]);
    put(&mut all, MXCSR, &[0x80, 0x1f]);
    client.expect(&format!("G{all}"), "OK");
    assert_eq!(client.ask("g"), all);
}

#[test]
fn what_is_set_is_what_the_guest_has() {
    if !kvm::usable() {
        return;
    }
    let kernel = guest::kernel(&[], |a| {
        a.nop()?;
        a.nop()?;
        // What came of it, for the debugger to read.
        a.mov(qword_ptr(DATA), rax)?;
        a.mov(qword_ptr(DATA + 8), rbx)?;
        a.mov(qword_ptr(DATA + 16), r15)?;
        a.movups(xmmword_ptr(DATA + 32), xmm0)?;
        a.movups(xmmword_ptr(DATA + 48), xmm15)?;
        a.nop()?;
        exit(a, 7)
    });
    let module = Module::from_bytes("empty".as_ref(), b"\0asm\x01\0\0\0".to_vec()).unwrap();
    let mut guest = Debugged::start(&kernel, &module, guest::config());
    let client = &mut guest.client;
    change(client, 0x11);
    client.step();
    change(client, 0x22);
    for _ in 0..6 {
        client.step();
    }
    assert_eq!(client.read(DATA, 8), [0x22, 2, 3, 4, 5, 6, 7, 0], "rax");
    assert_eq!(client.read(DATA + 8, 8), [0x22, 2, 3, 4, 5, 6, 7, 1], "rbx");
    assert_eq!(client.read(DATA + 16, 8), [0x22, 2, 3, 4, 5, 6, 7, 15], "r15");
    assert_eq!(client.read(DATA + 32, 4), [0x22, 0xee, 3, 4], "xmm0");
    assert_eq!(client.read(DATA + 48, 16), [0xdd; 16], "xmm15");
    client.expect("vCont;c", "W07");
    assert_eq!(guest.finish(), (Verdict::Exited(7), Departure::Ended));
}

/// No debugger gets a guest into a state that ring 3 cannot have.
#[test]
fn what_ring_3_cannot_have_is_refused_or_left_out() {
    if !kvm::usable() {
        return;
    }
    let kernel = guest::kernel(&[], |a| {
        a.nop()?;
        a.nop()?;
        exit(a, 7)
    });
    let module = Module::from_bytes("empty".as_ref(), b"\0asm\x01\0\0\0".to_vec()).unwrap();
    let mut guest = Debugged::start(&kernel, &module, guest::config());
    let client = &mut guest.client;
    for _ in 0..2 {
        let before = client.ask("g");
        for (at, bytes) in [
            (CS, &[8, 0, 0, 0][..]),
            (CS + 4, &[16]),
            (8 * RIP, &[0, 0, 0, 0, 0, 0, 1, 0]),
            (8 * RIP, &[0xff; 8]),
            (MXCSR, &[0xff; 4]),
        ] {
            let mut all = before.clone();
            put(&mut all, at, bytes);
            client.expect(&format!("G{all}"), "E16");
            assert_eq!(client.ask("g"), before);
        }
        // Interrupts, privilege of I/O, nested task, virtual 8086 mode, trap.
        let mut all = before.clone();
        put(&mut all, FLAGS, &[0xff; 4]);
        client.expect(&format!("G{all}"), "OK");
        let after = client.ask("g");
        let flags = u32::from_str_radix(&after[2 * FLAGS..2 * FLAGS + 8], 16).unwrap().swap_bytes();
        let before = u32::from_str_radix(&before[2 * FLAGS..2 * FLAGS + 8], 16).unwrap().swap_bytes();
        assert_eq!(flags & !0x24_0cd5, before & !0x24_0cd5, "{flags:#x}");
        put(&mut all, FLAGS, &[2, 0, 0, 0]);
        client.expect(&format!("G{all}"), "OK");
        client.step();
    }
    assert_eq!(client.rip(), TEXT + 2);
    client.expect("vCont;c", "W07");
    assert_eq!(guest.finish(), (Verdict::Exited(7), Departure::Ended));
}
