//! Answers the kernel's requests with devices: the same numbers that a VMM answers, of which those about files, sockets and functions
//! of a host find nothing.

use mote_abi::{
    boot::BootInfo,
    errno::Errno,
    hypercall::{
        self, CopyModuleArgs, ExitArgs, FOREVER_NS, ReadStdinArgs, WaitArgs, WaitResult,
        files::{Interest, MAX_INTERESTS, STDIN, interest, ready},
        status,
    },
    layout::{BOOT_INFO, MAILBOX_DATA, PAGE_BYTES},
    mailbox::{DATA_BYTES, REQUEST, RESPONSE, Request, Response},
};

use super::{Monitor, clock::timestamp, console::Input, machine::Copied, memory::View, ring};

/// Does what the request in the mailbox asks for, and leaves the answer there.
pub(super) fn answer(monitor: &mut Monitor) {
    let request: Request = View::load(REQUEST);
    View::store(REQUEST, 0u32);
    if !matches!(request.number, hypercall::READ_CLOCK | hypercall::COPY_MODULE)
        && let Err(ring::Corrupted(what)) = ring::drain(monitor)
    {
        monitor.fail(format_args!("the guest kernel corrupted its output ring: {what}"));
    }
    let done = Response::new(status::OK, &0u32, 0);
    let response = match request.number {
        hypercall::EXIT => match request.arguments::<ExitArgs>() {
            Some(arguments) => monitor.end(&arguments),
            None => bad(monitor, "an end without arguments"),
        },
        hypercall::DRAIN_OUTPUT => done,
        hypercall::READ_STDIN => match request.arguments() {
            Some(ReadStdinArgs { max_bytes, .. }) if max_bytes as usize <= DATA_BYTES => read_input(monitor, max_bytes as usize),
            _ => bad(monitor, "a read of more than the mailbox holds"),
        },
        hypercall::WAIT => match request.arguments() {
            Some(WaitArgs { timeout_ns, interests, .. }) if interests as usize <= MAX_INTERESTS => {
                wait(monitor, timeout_ns, interests as usize)
            }
            _ => bad(monitor, "a wait for too many events"),
        },
        hypercall::READ_CLOCK => {
            View::store(BOOT_INFO.start + core::mem::offset_of!(BootInfo, clock) as u64, monitor.timer.now());
            done
        }
        hypercall::COPY_MODULE => match request.arguments::<CopyModuleArgs>().map(|arguments| monitor.copy_module(&arguments)) {
            Some(Copied::Whole) => done,
            Some(Copied::InPart) => refused(Errno::Nomem),
            _ => bad(monitor, "a copy out of no module, or into no memory"),
        },
        // Nothing was opened, so no handle is one.
        hypercall::FILE_OPEN..=hypercall::SOCKET_SHUTDOWN => refused(Errno::Badf),
        number => monitor.fail(format_args!("the guest kernel sent a bad request: unknown number {number:#x}")),
    };
    View::store(RESPONSE, response);
}

fn refused(errno: Errno) -> Response {
    Response::new(u32::from(errno.code()), &0u32, 0)
}

fn bad(monitor: &mut Monitor, what: &str) -> ! {
    monitor.fail(format_args!("the guest kernel sent a bad request: {what}"))
}

/// Waits for input, and hands over what is there.
fn read_input(monitor: &mut Monitor, max_bytes: usize) -> Response {
    // What the monitor writes is on the page that is always there: another one would be made zero when it is touched.
    const PIECE_BYTES: usize = PAGE_BYTES as usize;
    while look(monitor) == Input::Nothing {
        monitor.watchdog.feed();
        core::hint::spin_loop();
    }
    let mut piece = [0; PIECE_BYTES];
    let room = piece.len().min(max_bytes);
    let bytes = monitor.console.take(piece.get_mut(..room).unwrap_or(&mut []));
    let taken = piece.get(..bytes).unwrap_or(&[]);
    View::write(MAILBOX_DATA.start, taken);
    Response::new(status::OK, &0u32, taken.len() as u32)
}

/// What a reader finds, after a look at the channel on which the end of input is told.
fn look(monitor: &mut Monitor) -> Input {
    if monitor.console.total.is_none() {
        monitor.console.total = monitor.record.input_end();
    }
    monitor.console.poll()
}

/// Waits until one of the interests is ready, or time is up.
fn wait(monitor: &mut Monitor, timeout_ns: u64, count: usize) -> Response {
    let end = if timeout_ns == FOREVER_NS { u64::MAX } else { monitor.timer.after_ns(timeout_ns) };
    loop {
        let input = look(monitor);
        let mut found = 0;
        for index in 0..count {
            let at = MAILBOX_DATA.start + (index * size_of::<Interest>()) as u64;
            let mut interest: Interest = View::load(at);
            (interest.ready, interest.readable_bytes) = match (interest.handle, interest.events, input) {
                (STDIN, interest::READ, Input::Ready) => (ready::READY, 1),
                (STDIN, interest::READ, Input::Ended) => (ready::READY | ready::HANGUP, 0),
                (STDIN, interest::READ, Input::Nothing) => (0, 0),
                _ => (ready::READY | ready::BAD_HANDLE, 0),
            };
            found += u32::from(interest.ready != 0);
            View::store(at, interest);
        }
        if found > 0 || timestamp() >= end {
            let bytes = (count * size_of::<Interest>()) as u32;
            return Response::new(status::OK, &WaitResult { ready: found, reserved: 0 }, bytes);
        }
        monitor.watchdog.feed();
        core::hint::spin_loop();
    }
}

const _: () = assert!(MAX_INTERESTS * size_of::<Interest>() <= DATA_BYTES);
