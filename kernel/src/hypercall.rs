//! Hypercalls, typed: one function for each number of [`mote_abi::hypercall`].

use core::{
    ptr,
    sync::atomic::{AtomicU64, Ordering},
};

use mote_abi::{
    errno::Errno,
    hypercall::{
        self as abi, ExitArgs, HostCallArgs, HostReturn, ReadStdinArgs, ReturnArgs, WaitArgs, WaitResult,
        files::{Interest, MAILBOX_BUFFER, MAX_INTERESTS, buffer},
        status,
    },
    layout::MAILBOX_DATA,
    mailbox::{DATA_BYTES, REQUEST, RESPONSE, Request, Response},
    value::RawValue,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

#[cfg(feature = "compiled")]
use abi::CopyModuleArgs;

use crate::entry;

/// Ends the run. `texts` are cut to what the mailbox holds, the first ones first.
pub(crate) fn exit(mut arguments: ExitArgs, texts: [&[u8]; 4]) -> ! {
    let mut room = DATA_BYTES;
    let mut at = 0;
    let ExitArgs { message_bytes, export_bytes, last_call_bytes, backtrace_bytes, .. } = &mut arguments;
    for (text, bytes) in texts.into_iter().zip([message_bytes, export_bytes, last_call_bytes, backtrace_bytes]) {
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

/// Tells what came of the last command, with `payload_bytes` of it in the mailbox already, and waits for the next one.
pub(crate) fn next_command(mut outcome: ReturnArgs, texts: [&[u8]; 3]) -> Response {
    let mut at = outcome.payload_bytes as usize;
    let ReturnArgs { message_bytes, last_call_bytes, backtrace_bytes, .. } = &mut outcome;
    for (text, bytes) in texts.into_iter().zip([message_bytes, last_call_bytes, backtrace_bytes]) {
        let text = text.get(..text.len().min(DATA_BYTES.saturating_sub(at))).unwrap_or(&[]);
        write_data(at, text);
        *bytes = text.len() as u32;
        at += text.len();
    }
    call(abi::RETURN, &outcome)
}

/// Copies a part of a module into a linear memory; whether the host could.
#[cfg(feature = "compiled")]
pub(crate) fn copy_module(arguments: &CopyModuleArgs) -> bool {
    call(abi::COPY_MODULE, arguments).status == status::OK
}

/// Calls a function of the host, with its arguments in the mailbox already; `None` if it failed. Its results are in the
/// mailbox.
pub(crate) fn host_call(arguments: &HostCallArgs) -> Option<HostReturn> {
    let response = call(abi::HOST_CALL, arguments);
    if response.status == status::OK { response.results() } else { None }
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
pub(crate) fn read_stdin(buffer: &mut [u8]) -> Result<usize, Errno> {
    let max_bytes = buffer.len().min(DATA_BYTES) as u32;
    let response = answered(call(abi::READ_STDIN, &ReadStdinArgs { max_bytes, reserved: 0 }))?;
    let bytes = (response.data_bytes as usize).min(max_bytes as usize);
    copy_out(MAILBOX_BUFFER, 0, buffer.get_mut(..bytes).unwrap_or(&mut []));
    Ok(bytes)
}

/// Sleeps until one of `interests` is ready or `timeout_ns` passed, and fills in which. At most [`MAX_INTERESTS`].
pub(crate) fn wait(timeout_ns: u64, interests: &mut [Interest]) -> Result<u32, Errno> {
    let interests = {
        let count = interests.len().min(MAX_INTERESTS);
        interests.get_mut(..count).unwrap_or(&mut [])
    };
    write_data(0, interests.as_bytes());
    let arguments = WaitArgs { timeout_ns, interests: interests.len() as u32, reserved: 0 };
    let response = answered(call(abi::WAIT, &arguments))?;
    copy_out(MAILBOX_BUFFER, 0, interests.as_mut_bytes());
    response.results().map(|WaitResult { ready, .. }| ready).ok_or(Errno::Io)
}

/// A request about files or sockets, with `data` in the mailbox, and its result.
pub(crate) fn file<A: IntoBytes + Immutable, R: FromBytes>(number: u32, arguments: &A, data: &[&[u8]]) -> Result<R, Errno> {
    request(number, arguments, data)?.results().ok_or(Errno::Io)
}

/// As [`file`], for an answer that is in the mailbox: how many bytes it has.
pub(crate) fn file_data<A: IntoBytes + Immutable>(number: u32, arguments: &A, data: &[&[u8]]) -> Result<usize, Errno> {
    Ok((request(number, arguments, data)?.data_bytes as usize).min(DATA_BYTES))
}

fn request<A: IntoBytes + Immutable>(number: u32, arguments: &A, data: &[&[u8]]) -> Result<Response, Errno> {
    let mut at = 0;
    for part in data {
        write_data(at, part);
        at += part.len();
    }
    answered(call(number, arguments))
}

/// Copies out of buffer `number` from `offset` on what `to` takes; nothing if that is not in the buffer.
pub(crate) fn copy_out(number: u32, offset: usize, to: &mut [u8]) {
    let Some(region) = buffer(number) else { return };
    let start = region.start + offset as u64;
    if region.contains_range(start, to.len() as u64) {
        // SAFETY: the range was just checked to lie in a buffer, all of which is mapped, and the host writes it only while
        // this vCPU waits for an answer.
        unsafe { ptr::copy_nonoverlapping(start as *const u8, to.as_mut_ptr(), to.len()) };
    }
}

/// As [`copy_out`], from the start of the mailbox's data area.
pub(crate) fn copy_out_of_mailbox(to: &mut [u8]) {
    copy_out(MAILBOX_BUFFER, 0, to);
}

/// What an element of the mailbox's data area holds.
pub(crate) fn read_value(index: usize) -> RawValue {
    let mut value = RawValue::default();
    copy_out(MAILBOX_BUFFER, index * size_of::<RawValue>(), value.as_mut_bytes());
    value
}

/// Sets an element of the mailbox's data area.
pub(crate) fn write_value(index: usize, value: RawValue) {
    write_data(index * size_of::<RawValue>(), value.as_bytes());
}

/// Copies into the mailbox's data area from `offset` on; nothing if that is not in it.
pub(crate) fn write_data(offset: usize, bytes: &[u8]) {
    let start = MAILBOX_DATA.start + offset as u64;
    if MAILBOX_DATA.contains_range(start, bytes.len() as u64) {
        // SAFETY: the range was just checked to lie within the data area, which is mapped and used by nobody else.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), start as *mut u8, bytes.len()) };
    }
}

fn answered(response: Response) -> Result<Response, Errno> {
    match response.status {
        status::OK => Ok(response),
        code => Err(u16::try_from(code).ok().and_then(Errno::from_code).unwrap_or(Errno::Io)),
    }
}

/// How many answers came that may have told the module something of the world outside. Writing regular files and reading on
/// in them do not count: a program that goes through two files at once would lose all that was read ahead.
pub(crate) fn tidings() -> u64 {
    TIDINGS.load(Ordering::Relaxed)
}

/// One more such answer.
pub(crate) fn note_tidings() {
    TIDINGS.fetch_add(1, Ordering::Relaxed);
}

static TIDINGS: AtomicU64 = AtomicU64::new(0);

fn call<T: IntoBytes + Immutable>(number: u32, arguments: &T) -> Response {
    if !matches!(
        number,
        abi::DRAIN_OUTPUT | abi::READ_CLOCK | abi::COPY_MODULE | abi::FILE_READ | abi::FILE_WRITE | abi::FILE_CLOSE
    ) {
        note_tidings();
    }
    ring(&Request::new(number, arguments, 0));
    // SAFETY: RESPONSE is in the mapped mailbox page and aligned, and every bit pattern is a Response. The host wrote
    // it before it let this vCPU go on.
    unsafe { ptr::read_volatile(RESPONSE as *const Response) }
}

/// Leaves the request in the mailbox and stores to the doorbell: the vCPU exits and comes back with the answer.
fn ring(request: &Request) {
    const { assert!(align_of::<Request>() <= 8) }
    // SAFETY: REQUEST is in the mapped mailbox page and aligned; one vCPU means one writer.
    unsafe { ptr::write_volatile(REQUEST as *mut Request, *request) };
    // A call of a function that the compiler knows nothing of: the request is there before, and the answer is read after.
    entry::ring_doorbell();
}
