//! Hypercalls, typed: one function for each number of [`mote_abi::hypercall`].

use core::ptr;

use mote_abi::{
    hypercall::{self as abi, ExitArgs, ReadStdinArgs, WaitArgs, WaitResult, status},
    layout::{DOORBELL, MAILBOX_DATA},
    mailbox::{DATA_BYTES, REQUEST, RESPONSE, Request, Response},
};
use zerocopy::{Immutable, IntoBytes};

/// The host could not do it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostError;

/// Ends the run. `texts` are cut to what the mailbox holds, the first ones first.
pub(crate) fn exit(mut arguments: ExitArgs, texts: [&[u8]; 3]) -> ! {
    let mut room = DATA_BYTES;
    let mut at = 0;
    for (text, bytes) in
        texts.into_iter().zip([&mut arguments.message_bytes, &mut arguments.export_bytes, &mut arguments.last_call_bytes])
    {
        let text = text.get(..text.len().min(room)).unwrap_or(&[]);
        write_data(at, text);
        *bytes = text.len() as u32;
        at += text.len();
        room -= text.len();
    }
    ring(&Request::new(abi::EXIT, &arguments, at as u32));
    // The host never lets a VM go on after this call.
    loop {
        core::hint::spin_loop();
    }
}

/// Returns when the output ring is empty.
pub(crate) fn drain_output() {
    call(abi::DRAIN_OUTPUT, &0u32);
}

/// Renews the clock bases in the boot information.
pub(crate) fn read_clock() {
    call(abi::READ_CLOCK, &0u32);
}

/// Reads standard input into `buffer` and returns how many bytes came; 0 at the end of the stream. Blocks.
pub(crate) fn read_stdin(buffer: &mut [u8]) -> Result<usize, HostError> {
    let max_bytes = buffer.len().min(DATA_BYTES) as u32;
    let response = call(abi::READ_STDIN, &ReadStdinArgs { max_bytes, reserved: 0 });
    if response.status != status::OK {
        return Err(HostError);
    }
    let bytes = (response.data_bytes as usize).min(max_bytes as usize);
    // SAFETY: the source lies in the mailbox, whose size bounds `bytes`; the buffer has at least as many.
    unsafe { ptr::copy_nonoverlapping(MAILBOX_DATA.start as *const u8, buffer.as_mut_ptr(), bytes) };
    Ok(bytes)
}

/// Sleeps until one of `interests` is ready or `timeout_ns` passed.
pub(crate) fn wait(timeout_ns: u64, interests: u32) -> WaitResult {
    let response = call(abi::WAIT, &WaitArgs { timeout_ns, interests, reserved: 0 });
    response.results().unwrap_or_default()
}

fn call<T: IntoBytes + Immutable>(number: u32, arguments: &T) -> Response {
    ring(&Request::new(number, arguments, 0));
    // SAFETY: RESPONSE is in the mapped mailbox page and aligned, and every bit pattern is a Response. The host wrote
    // it before it let this vCPU go on.
    unsafe { ptr::read_volatile(RESPONSE as *const Response) }
}

fn write_data(offset: usize, bytes: &[u8]) {
    debug_assert!(offset + bytes.len() <= DATA_BYTES);
    // SAFETY: callers keep offset + length within the data area, which is mapped and used by nobody else.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), (MAILBOX_DATA.start as *mut u8).add(offset), bytes.len()) };
}

/// Leaves the request in the mailbox and stores to the doorbell: the vCPU exits and comes back with the answer.
fn ring(request: &Request) {
    const { assert!(align_of::<Request>() <= 8) }
    // SAFETY: REQUEST is in the mapped mailbox page and aligned; one vCPU means one writer.
    unsafe { ptr::write_volatile(REQUEST as *mut Request, *request) };
    // SAFETY: the doorbell is mapped for stores and has no memory behind it. The assembly is taken to read and write
    // all memory, so that the request is there before and the answer is read after.
    unsafe { core::arch::asm!("mov dword ptr [{doorbell}], 1", doorbell = in(reg) DOORBELL.start, options(nostack)) };
}
