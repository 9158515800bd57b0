//! What the mailbox says: every number with any contents.

use std::ops::RangeInclusive;

use iced_x86::code_asm::{CodeAssembler, dword_ptr};
use mote_abi::{
    hypercall::{
        DRAIN_OUTPUT, EXIT, ExitArgs, FILE_OPEN, FOREVER_NS, READ_CLOCK, READ_STDIN, ReadStdinArgs, SOCKET_SHUTDOWN, WAIT,
        WaitArgs, exit_kind,
        files::{Interest, MAX_INTERESTS, STDIN, interest},
        trap,
    },
    layout::{MAILBOX, MAILBOX_DATA},
    mailbox::{ARGUMENT_BYTES, DATA_BYTES, Request},
};
use mote_vmm::{Config, Ending, GuestFault, Input, Rejection};
use proptest::prelude::*;
use zerocopy::IntoBytes;

use crate::support::{
    guest::{Assembled, CONSTANTS, call, config, config_with_deadline, copy, exit, exit_request, ring, run, run_with, spin},
    kvm,
    verdict::Verdict,
};

const DATA_LIMIT: u32 = DATA_BYTES as u32;
/// Bytes of random data behind the requests.
const NOISE_BYTES: usize = 4096;
const MOST_INTERESTS: u32 = MAX_INTERESTS as u32;
/// Numbers that have a file of tests of their own.
const ABOUT_FILES: RangeInclusive<u32> = FILE_OPEN..=SOCKET_SHUTDOWN;
/// Longer than any deadline here.
const LONG_NS: u64 = 1 << 40;

/// Contents as a random, careless or malicious guest would choose them.
fn word() -> impl Strategy<Value = u32> {
    prop_oneof![0u32..16, DATA_LIMIT - 1..DATA_LIMIT + 2, Just(u32::MAX), any::<u32>()]
}

fn arguments() -> impl Strategy<Value = [u8; ARGUMENT_BYTES]> {
    prop::collection::vec(word(), ARGUMENT_BYTES / 4).prop_map(|words| words.as_bytes().try_into().unwrap())
}

/// Waits are either over at once or longer than the deadline, so that it is certain how they end.
fn wait() -> impl Strategy<Value = Request> {
    let timeout = prop_oneof![9 => 0u64..100_000, 1 => LONG_NS..];
    let interests = prop_oneof![Just(0), 1..8u32, MOST_INTERESTS..MOST_INTERESTS + 2, any::<u32>()];
    (timeout, interests, any::<u32>())
        .prop_map(|(timeout_ns, interests, reserved)| Request::new(WAIT, &WaitArgs { timeout_ns, interests, reserved }, 0))
}

fn request() -> impl Strategy<Value = Request> {
    let number = prop_oneof![
        1 => Just(EXIT),
        2 => Just(DRAIN_OUTPUT),
        2 => Just(READ_STDIN),
        2 => Just(READ_CLOCK),
        1 => any::<u32>().prop_filter("a wait, or about files", |number| *number != WAIT && !ABOUT_FILES.contains(number)),
    ];
    let any_other =
        (number, any::<u32>(), arguments()).prop_map(|(number, data_bytes, arguments)| Request { number, data_bytes, arguments });
    let small_read =
        (0..=DATA_LIMIT).prop_map(|max_bytes| Request::new(READ_STDIN, &ReadStdinArgs { max_bytes, reserved: 0 }, 0));
    prop_oneof![2 => any_other, 1 => small_read, 1 => wait()]
}

/// What the contract says about a request: the verdict, or `None` if it is answered.
fn verdict(request: &Request) -> Option<Verdict> {
    match request.number {
        EXIT => Some(end(&request.arguments().unwrap())),
        DRAIN_OUTPUT | READ_CLOCK => None,
        READ_STDIN => (request.arguments::<ReadStdinArgs>().unwrap().max_bytes > DATA_LIMIT).then_some(Verdict::BadRequest),
        WAIT => {
            let WaitArgs { timeout_ns, interests, .. } = request.arguments().unwrap();
            match interests {
                0 => (timeout_ns >= LONG_NS).then_some(Verdict::DeadlineExceeded),
                // There is neither input nor anything open, which is known at once.
                1..=MOST_INTERESTS => None,
                _ => Some(Verdict::BadRequest),
            }
        }
        _ => Some(Verdict::BadRequest),
    }
}

fn end(arguments: &ExitArgs) -> Verdict {
    let texts = [arguments.message_bytes, arguments.export_bytes, arguments.last_call_bytes, arguments.backtrace_bytes];
    let fits = texts.into_iter().map(u64::from).sum::<u64>() <= DATA_BYTES as u64;
    match arguments.kind {
        _ if !fits => Verdict::BadRequest,
        exit_kind::EXITED => Verdict::Exited(arguments.code),
        exit_kind::TRAPPED if (trap::UNREACHABLE..=trap::OTHER).contains(&arguments.code) => Verdict::Other("Trapped".into()),
        exit_kind::INVALID_MODULE | exit_kind::CANNOT_RUN => Verdict::Other("Rejected".into()),
        exit_kind::PANIC => Verdict::Other("Panic".into()),
        exit_kind::OUT_OF_MEMORY => Verdict::OutOfMemory,
        _ => Verdict::BadRequest,
    }
}

/// The texts that an ending took from the guest.
fn texts(ending: &Ending) -> Vec<&str> {
    match ending {
        Ending::Trapped(trap) => vec![&trap.message, &trap.export, &trap.last_call],
        Ending::Rejected(Rejection::Invalid(message) | Rejection::CannotRun(message)) => vec![message],
        Ending::GuestFault(fault) => match fault.as_ref() {
            GuestFault::Panic(message) | GuestFault::OutOfMemory(message) | GuestFault::BadRequest(message) => vec![message],
            _ => vec![],
        },
        _ => vec![],
    }
}

/// Puts each request into the mailbox as it lies in the constants, and rings.
fn send_all(a: &mut CodeAssembler, count: usize) -> Assembled {
    let bytes = size_of::<Request>() as u64;
    copy(a, CONSTANTS + count as u64 * bytes, MAILBOX_DATA.start, NOISE_BYTES as u64)?;
    for index in 0..count as u64 {
        copy(a, CONSTANTS + index * bytes, MAILBOX.start, bytes)?;
        ring(a)?;
    }
    exit(a, 99)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn any_requests_are_answered_or_refused(
        requests in prop::collection::vec(request(), 1..8),
        noise in prop::collection::vec(any::<u8>(), NOISE_BYTES),
    ) {
        if kvm::usable() {
            let constants: Vec<u8> = requests.iter().flat_map(|request| request.as_bytes()).chain(&noise).copied().collect();
            let report = run_with(config_with_deadline(300), &constants, |a| send_all(a, requests.len()));
            let expected = requests.iter().find_map(verdict).unwrap_or(Verdict::Exited(99));
            match (Verdict::of(&report.ending), expected) {
                (Verdict::Other(found), Verdict::Other(expected)) => prop_assert!(found.contains(&expected), "{found}, not {expected}"),
                (found, expected) => prop_assert_eq!(found, expected),
            }
            for text in texts(&report.ending) {
                prop_assert!(!text.contains(char::is_control), "{text:?}");
            }
        }
    }
}

#[test]
fn texts_of_an_end_lie_in_the_mailbox_or_it_is_refused() {
    if !kvm::usable() {
        return;
    }
    for (lengths, accepted) in [
        ([0, 0, 0, 0], true),
        ([DATA_LIMIT, 0, 0, 0], true),
        ([0, 0, 0, DATA_LIMIT], true),
        ([1, 1, 1, DATA_LIMIT - 3], true),
        ([DATA_LIMIT + 1, 0, 0, 0], false),
        ([DATA_LIMIT, 1, 0, 0], false),
        ([0, DATA_LIMIT, 1, 0], false),
        ([0, 0, DATA_LIMIT, 1], false),
        ([0, 0, 0, u32::MAX], false),
        ([u32::MAX, u32::MAX, u32::MAX, u32::MAX], false),
        ([u32::MAX, 1, 0, 0], false),
    ] {
        let [message_bytes, export_bytes, last_call_bytes, backtrace_bytes] = lengths;
        let arguments = ExitArgs {
            kind: exit_kind::EXITED,
            code: 7,
            message_bytes,
            export_bytes,
            last_call_bytes,
            backtrace_bytes,
            ..ExitArgs::default()
        };
        let expected = if accepted { Verdict::Exited(7) } else { Verdict::BadRequest };
        assert_eq!(run(|a| call(a, &Request::new(EXIT, &arguments, u32::MAX))), expected, "{lengths:?}");
    }
}

/// Counters that run backwards or overflow give odd statistics, and nothing else.
#[test]
fn times_of_an_end_may_be_anything() {
    if !kvm::usable() {
        return;
    }
    for tsc in [[u64::MAX; 4], [u64::MAX, 0, u64::MAX, 0], [0, u64::MAX, 0, u64::MAX], [0, 0, 0, u64::MAX]] {
        let arguments = ExitArgs { fuel_used: u64::MAX, tsc, ..ExitArgs::default() };
        let report = run_with(config(), &[], |a| call(a, &Request::new(EXIT, &arguments, 0)));
        assert_eq!(Verdict::of(&report.ending), Verdict::Exited(0));
        let phases = report.stats.phases;
        for phase in [phases.enter, phases.parse, phases.instantiate, phases.run] {
            assert!(phase < config().limits.deadline.unwrap(), "{phases:?}");
        }
    }
}

#[test]
fn a_read_of_all_that_fits_is_the_largest() {
    if !kvm::usable() {
        return;
    }
    for (max_bytes, accepted) in [(0, true), (DATA_LIMIT, true), (DATA_LIMIT + 1, false), (u32::MAX, false)] {
        let config = Config { stdin: Input::Bytes(vec![b'x'; 2 * DATA_BYTES]), ..config() };
        let report = run_with(config, &[], |a| {
            call(a, &Request::new(READ_STDIN, &ReadStdinArgs { max_bytes, reserved: u32::MAX }, 0))?;
            exit(a, 7)
        });
        let expected = if accepted { Verdict::Exited(7) } else { Verdict::BadRequest };
        assert_eq!(Verdict::of(&report.ending), expected, "{max_bytes}");
    }
}

#[test]
fn waiting_for_ever_meets_the_deadline() {
    if !kvm::usable() {
        return;
    }
    let read = Request::new(READ_STDIN, &ReadStdinArgs { max_bytes: 1, reserved: 0 }, 0);
    let wait = |timeout_ns, interests| Request::new(WAIT, &WaitArgs { timeout_ns, interests, reserved: 0 }, 0);
    let stdin = Interest { handle: STDIN, events: interest::READ, ..Interest::default() };
    for request in [read, wait(FOREVER_NS, 0), wait(FOREVER_NS, 1), wait(FOREVER_NS - 1, 0), wait(1 << 63, 1)] {
        let (reader, _writer) = std::io::pipe().unwrap();
        let config = Config { stdin: Input::Fd(reader.into()), ..config_with_deadline(100) };
        let report = run_with(config, stdin.as_bytes(), |a| {
            copy(a, CONSTANTS, MAILBOX_DATA.start, size_of::<Interest>() as u64)?;
            call(a, &request)?;
            exit(a, 7)
        });
        assert_eq!(Verdict::of(&report.ending), Verdict::DeadlineExceeded, "{request:?}");
    }
}

/// Input that cannot be read is the guest's business: it gets an error number, and goes on.
#[test]
fn a_stream_that_cannot_be_read_does_not_end_the_run() {
    if !kvm::usable() {
        return;
    }
    let directory = std::fs::File::open("/").unwrap();
    let report = run_with(Config { stdin: Input::Fd(directory.into()), ..config() }, &[], |a| {
        call(a, &Request::new(READ_STDIN, &ReadStdinArgs { max_bytes: 1, reserved: 0 }, 0))?;
        exit(a, 7)
    });
    assert_eq!(Verdict::of(&report.ending), Verdict::Exited(7));
}

/// There is one vCPU, so the guest cannot write while the host reads; what it writes afterwards counts for nothing.
#[test]
fn a_request_counts_as_it_was_when_it_rang() {
    if !kvm::usable() {
        return;
    }
    let report = run_with(config_with_deadline(200), &[], |a| {
        call(a, &Request::new(READ_CLOCK, &0u32, 0))?;
        a.mov(dword_ptr(MAILBOX.start), -1)?;
        crate::support::guest::post(a, &exit_request(7))?;
        spin(a)
    });
    assert_eq!(Verdict::of(&report.ending), Verdict::DeadlineExceeded);
    assert_eq!(report.stats.exits.read_clock, 1);
}
