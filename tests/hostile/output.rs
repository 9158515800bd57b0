//! The output ring, full of what does not belong there, and streams that take nothing.

use std::{
    fs::File,
    time::{Duration, Instant},
};

use iced_x86::code_asm::*;
use mote_abi::{
    boot::status_offset,
    hypercall::DRAIN_OUTPUT,
    hypercall::files::PostedWrite,
    layout::{HOST_STATUS, RING_DATA, RING_HEAD},
    mailbox::Request,
    ring::{HEADER_BYTES, Header, MAX_PAYLOAD_BYTES, RING_BYTES, Stream, used_bytes},
};
use mote_vmm::{Config, Ending, HostFailure, Output, SharedBuffer};
use proptest::prelude::*;
use zerocopy::IntoBytes;

use crate::support::{
    guest::{Assembled, CONSTANTS, call, config, config_with_deadline, copy, exit, run_with, spin},
    kvm,
    verdict::Verdict,
};

const TAIL: u64 = HOST_STATUS.start + status_offset::RING_TAIL;
const OK: u32 = Header { stream: Stream::Stdout, payload_bytes: 2 }.encode();
const OK_TEXT: u32 = u32::from_le_bytes(*b"ok\0\0");

/// How the host comes to look at the ring.
#[derive(Debug, Clone, Copy)]
enum Then {
    Spin,
    Drain,
    Exit,
}

fn set_head(a: &mut CodeAssembler, head: u64) -> Assembled {
    a.mov(rax, head)?;
    a.mov(qword_ptr(RING_HEAD.start), rax)
}

fn drain(a: &mut CodeAssembler) -> Assembled {
    call(a, &Request::new(DRAIN_OUTPUT, &0u32, 0))
}

/// Words at the start of the ring, a head, and what follows.
fn publish(a: &mut CodeAssembler, words: u64, head: u64, then: Then) -> Assembled {
    copy(a, CONSTANTS, RING_DATA.start, 4 * words)?;
    set_head(a, head)?;
    match then {
        Then::Spin => spin(a),
        Then::Drain => drain(a).and_then(|()| exit(a, 7)),
        Then::Exit => exit(a, 7),
    }
}

/// A ring full of records of 252 bytes.
fn full_ring() -> Vec<u8> {
    let header = Header { stream: Stream::Stdout, payload_bytes: 252 }.encode();
    let record: Vec<u8> = header.to_le_bytes().into_iter().chain([b'x'; 252]).collect();
    record.repeat((RING_BYTES / 256) as usize)
}

/// Publishes a full ring as often as the host empties it, for ever.
fn flood(a: &mut CodeAssembler) -> Assembled {
    copy(a, CONSTANTS, RING_DATA.start, RING_BYTES)?;
    let mut again = a.create_label();
    a.set_label(&mut again)?;
    a.mov(rax, qword_ptr(TAIL))?;
    a.add(rax, RING_BYTES as i32)?;
    a.mov(qword_ptr(RING_HEAD.start), rax)?;
    a.jmp(again)
}

#[test]
fn what_is_no_record_ends_the_run() {
    if !kvm::usable() {
        return;
    }
    let too_long = Header { stream: Stream::Stdout, payload_bytes: 5 }.encode();
    let rows: [(&str, u64, &[u32]); 13] = [
        ("head one record beyond the ring", RING_BYTES + 4, &[1]),
        ("head far beyond the ring", 1 << 40, &[1]),
        ("head before the tail", 0u64.wrapping_sub(4), &[1]),
        ("head not on a word", 2, &[1]),
        ("head on the last byte", u64::MAX, &[1]),
        ("zeros", 4, &[0]),
        ("unknown stream", 8, &[4 << 8 | 3, 0]),
        ("log of level 0", 4, &[0x10]),
        ("log of level 6", 4, &[0x16]),
        ("longer than can be", RING_BYTES, &[(MAX_PAYLOAD_BYTES + 1) << 8 | 1]),
        ("longest that can be said", 4, &[u32::MAX]),
        ("longer than what was published", 8, &[too_long, 0]),
        ("good, then bad", 12, &[OK, OK_TEXT, 0]),
    ];
    for (name, head, words) in rows {
        for then in [Then::Spin, Then::Drain, Then::Exit] {
            let started = Instant::now();
            let stdout = SharedBuffer::new(1 << 20);
            let config = Config { stdout: Output::Buffer(stdout.clone()), ..config() };
            let report = run_with(config, words.as_bytes(), |a| publish(a, words.len() as u64, head, then));
            assert_eq!(Verdict::of(&report.ending), Verdict::BadOutput, "{name}, then {then:?}");
            assert!(started.elapsed() < Duration::from_secs(2), "{name}, then {then:?}: {:?}", started.elapsed());
            let before: &[u8] = if words[0] == OK { b"ok" } else { b"" };
            assert_eq!(stdout.contents(), before, "{name}, then {then:?}");
        }
    }
}

#[test]
fn a_head_that_goes_back_ends_the_run() {
    if !kvm::usable() {
        return;
    }
    let words = [OK, OK_TEXT];
    let report = run_with(config(), words.as_bytes(), |a| {
        copy(a, CONSTANTS, RING_DATA.start, 8)?;
        set_head(a, 8)?;
        let mut wait = a.create_label();
        a.set_label(&mut wait)?;
        a.cmp(qword_ptr(TAIL), 8)?;
        a.jne(wait)?;
        set_head(a, 0)?;
        spin(a)
    });
    assert_eq!(Verdict::of(&report.ending), Verdict::BadOutput);
}

/// What the host saw at a tick counts, even if the guest has mended it since.
#[test]
fn a_head_that_was_bad_for_a_moment_ends_the_run() {
    if !kvm::usable() {
        return;
    }
    for _ in 0..8 {
        let report = run_with(config(), &[], |a| {
            let mut again = a.create_label();
            a.set_label(&mut again)?;
            set_head(a, 2)?;
            set_head(a, 0)?;
            a.jmp(again)
        });
        assert_eq!(Verdict::of(&report.ending), Verdict::BadOutput);
    }
}

/// Records that change while they are taken: each is judged by what was read, once.
#[test]
fn a_ring_that_changes_while_it_is_read_is_harmless() {
    if !kvm::usable() {
        return;
    }
    let report = run_with(config_with_deadline(500), &full_ring(), |a| {
        copy(a, CONSTANTS, RING_DATA.start, RING_BYTES)?;
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.mov(rax, qword_ptr(TAIL))?;
        a.add(rax, RING_BYTES as i32)?;
        a.mov(qword_ptr(RING_HEAD.start), rax)?;
        a.inc(rbx)?;
        for record in 0..64 {
            a.mov(dword_ptr(RING_DATA.start + 256 * record), ebx)?;
        }
        a.jmp(again)
    });
    let verdict = Verdict::of(&report.ending);
    assert!([Verdict::BadOutput, Verdict::DeadlineExceeded].contains(&verdict), "{verdict:?}");
}

#[test]
fn a_flood_does_not_hold_up_deadline_or_interrupt() {
    if !kvm::usable() {
        return;
    }
    let file = tempfile::tempfile().unwrap();
    let written = file.try_clone().unwrap();
    for stdout in [Output::Null, Output::Buffer(SharedBuffer::new(1 << 20)), Output::Fd(file.into())] {
        let what = format!("{stdout:?}");
        let started = Instant::now();
        let report = run_with(Config { stdout, ..config_with_deadline(200) }, &full_ring(), flood);
        assert_eq!(Verdict::of(&report.ending), Verdict::DeadlineExceeded, "{what}");
        assert!(started.elapsed() < Duration::from_secs(3), "{what}: {:?}", started.elapsed());
    }
    assert!(written.metadata().unwrap().len() > 2 * RING_BYTES, "it was no flood");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(writer);
    let report = run_with(Config { interrupt_on: Some(reader.into()), ..config() }, &full_ring(), flood);
    assert_eq!(Verdict::of(&report.ending), Verdict::Interrupted);
}

/// Deadline and interrupt come through although nobody reads; the reader gets two seconds for what is left.
#[test]
fn a_reader_that_takes_nothing_does_not_hold_up_deadline_or_interrupt() {
    if !kvm::usable() {
        return;
    }
    let drains: fn(&mut CodeAssembler) -> Assembled = |a| {
        copy(a, CONSTANTS, RING_DATA.start, RING_BYTES)?;
        set_head(a, RING_BYTES)?;
        drain(a)?;
        exit(a, 7)
    };
    for code in [flood, drains] {
        let (_reader, writer) = std::io::pipe().unwrap();
        let started = Instant::now();
        let report = run_with(Config { stdout: Output::Fd(writer.into()), ..config_with_deadline(200) }, &full_ring(), code);
        assert_eq!(Verdict::of(&report.ending), Verdict::DeadlineExceeded);
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());

        let (_reader, writer) = std::io::pipe().unwrap();
        let (stop, stopper) = std::io::pipe().unwrap();
        let stopping = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(stopper);
        });
        let report = run_with(
            Config { stdout: Output::Fd(writer.into()), interrupt_on: Some(stop.into()), ..config() },
            &full_ring(),
            code,
        );
        assert_eq!(Verdict::of(&report.ending), Verdict::Interrupted);
        stopping.join().unwrap();
    }
}

/// Whoever finds it out, output that is lost is a failure of the host and no interrupt.
#[test]
fn a_stream_that_cannot_be_written_is_the_hosts_failure() {
    if !kvm::usable() {
        return;
    }
    for then in [Then::Spin, Then::Drain, Then::Exit] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let words = [OK, OK_TEXT];
        let report =
            run_with(Config { stdout: Output::Fd(full.into()), ..config() }, words.as_bytes(), |a| publish(a, 2, 8, then));
        let ending = report.ending;
        assert!(
            matches!(ending, Ending::HostFailure(HostFailure::Output { stream: "standard output", .. })),
            "{then:?}: {ending:?}"
        );
    }
}

/// The ring as the contract describes it: what goes to each stream, and whether all of it were records.
fn take_all(words: &[u32], head: u64) -> ([Vec<u8>; 2], bool) {
    let mut streams = [Vec::new(), Vec::new()];
    let Some(mut left) = used_bytes(head, 0) else { return (streams, false) };
    let mut at = 0;
    while left > 0 {
        let header = Header::decode(words.get(at).copied().unwrap_or(0)).filter(|header| header.record_bytes() <= left);
        let Some(header) = header else { return (streams, false) };
        let bytes = words.as_bytes().iter().copied().chain(std::iter::repeat(0));
        let payload = bytes.skip(4 * at + HEADER_BYTES as usize).take(header.payload_bytes as usize);
        match header.stream {
            Stream::Stdout => streams[0].extend(payload),
            Stream::Stderr => streams[1].extend(payload),
            Stream::Log(_) => {}
            // Without a header of its own a write is no record; a write to, or a close of, what is not open does nothing.
            Stream::Write if (header.payload_bytes as usize) < size_of::<PostedWrite>() => return (streams, false),
            Stream::Close if header.payload_bytes != 4 => return (streams, false),
            Stream::Write | Stream::Close => {}
        }
        at += header.record_bytes() as usize / 4;
        left -= header.record_bytes();
    }
    (streams, true)
}

fn ring_word() -> impl Strategy<Value = u32> {
    let code = prop::sample::select(vec![1u32, 2, 3, 4, 0x11, 0x13, 0x15]);
    let header = (code, 0u32..64).prop_map(|(code, bytes)| bytes << 8 | code);
    prop_oneof![20 => header, 1 => any::<u32>()]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn any_ring_is_taken_as_far_as_it_makes_sense(words in prop::collection::vec(ring_word(), 1..200), head in 0u64..200, stray in 0u64..20) {
        if kvm::usable() {
            let head = 4 * head + if stray == 0 { 1 } else { 0 };
            let [stdout, stderr] = [SharedBuffer::new(1 << 20), SharedBuffer::new(1 << 20)];
            let config = Config { stdout: Output::Buffer(stdout.clone()), stderr: Output::Buffer(stderr.clone()), ..config() };
            let report = run_with(config, words.as_bytes(), |a| publish(a, words.len() as u64, head, Then::Exit));
            let (expected, good) = take_all(&words, head);
            prop_assert_eq!(Verdict::of(&report.ending), if good { Verdict::Exited(7) } else { Verdict::BadOutput });
            prop_assert_eq!([stdout.contents(), stderr.contents()], expected);
        }
    }
}
