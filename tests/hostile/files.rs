//! Requests about files, with any contents: they are answered or refused, and nothing outside of what the guest was given
//! is touched.

use std::{fs, net::TcpListener};

use mote_abi::{
    hypercall::{
        FILE_CHANGE, FILE_CLOSE, FILE_OPEN, FILE_STAT, FILE_WRITE, PATH, SOCKET_ACCEPT, SOCKET_SHUTDOWN,
        files::{
            ChangeArgs, HandleArgs, OpenArgs, PathArgs, PostedWrite, SocketArgs, TransferArgs, access, change, path, transfer,
        },
    },
    layout::{MAILBOX, MAILBOX_DATA, RING_DATA, RING_HEAD},
    mailbox::{ARGUMENT_BYTES, Request},
    ring::{Header, Stream},
};
use mote_vmm::{Access, Config, Directory, Ending, HostFailure};
use proptest::prelude::*;
use zerocopy::IntoBytes;

use crate::support::{
    guest::{CONSTANTS, call, config, config_with_deadline, copy, exit, ring, run_with},
    kvm,
    verdict::Verdict,
};

/// What the guest must not reach, beside the directory that it has.
const SECRET: &str = "secret";

/// A guest that has a directory, as handle 0 or behind a listener as handle 1.
struct Fixture {
    root: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(SECRET), SECRET).unwrap();
        fs::create_dir_all(root.path().join("given/sub")).unwrap();
        fs::write(root.path().join("given/file"), "contents").unwrap();
        std::os::unix::fs::symlink("../secret", root.path().join("given/out")).unwrap();
        Self { root }
    }

    fn given(&self) -> std::path::PathBuf {
        self.root.path().join("given")
    }

    fn config(&self, access: Access, base: Config) -> Config {
        Config { directories: vec![Directory::open(&self.given(), "/", access).unwrap()], ..base }
    }

    fn check_outside(&self) {
        assert_eq!(fs::read_to_string(self.root.path().join(SECRET)).unwrap(), SECRET);
        let mut names: Vec<_> = fs::read_dir(self.root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["given", SECRET]);
    }
}

fn word() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 0u32..12, 1 => 250_000u32..270_000, 1 => Just(u32::MAX), 1 => any::<u32>()]
}

fn request() -> impl Strategy<Value = Request> {
    let arguments = prop::collection::vec(word(), ARGUMENT_BYTES / 4).prop_map(|words| words.as_bytes().try_into().unwrap());
    (FILE_OPEN..=SOCKET_SHUTDOWN, any::<u32>(), arguments).prop_map(|(number, data_bytes, arguments)| Request {
        number,
        data_bytes,
        arguments,
    })
}

/// Texts that paths are cut from.
fn texts() -> impl Strategy<Value = Vec<u8>> {
    let part = prop::sample::select(vec!["file", "sub", "out", "..", ".", "/", "new", "\0", "\u{ff}", "/etc/passwd"]);
    let texts = prop::collection::vec(part, 0..6).prop_map(|parts| parts.concat().into_bytes());
    prop_oneof![4 => texts, 1 => prop::collection::vec(any::<u8>(), 0..64)]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]

    #[test]
    fn any_requests_are_answered_or_refused(
        steps in prop::collection::vec((request(), texts()), 1..24),
        read_only: bool,
        listens: bool,
        has_directory: bool,
    ) {
        if kvm::usable() {
            let fixture = Fixture::new();
            let access = if read_only { Access::ReadOnly } else { Access::ReadWrite };
            let mut config = fixture.config(access, config_with_deadline(2000));
            if !has_directory {
                config.directories.clear();
            }
            if listens {
                config.listeners.push(TcpListener::bind("127.0.0.1:0").unwrap());
            }
            let bytes = size_of::<Request>() as u64;
            let mut constants = Vec::new();
            for (request, text) in &steps {
                constants.extend(request.as_bytes());
                constants.extend(text);
            }
            let report = run_with(config, &constants, |a| {
                let mut at = CONSTANTS;
                for (_, text) in &steps {
                    copy(a, at + bytes, MAILBOX_DATA.start, text.len() as u64)?;
                    copy(a, at, MAILBOX.start, bytes)?;
                    ring(a)?;
                    at += bytes + text.len() as u64;
                }
                exit(a, 99)
            });
            // Accepting a connection may wait for one for ever.
            let accepts = listens && steps.iter().any(|(request, _)| request.number == SOCKET_ACCEPT);
            let verdict = Verdict::of(&report.ending);
            let expected = matches!(verdict, Verdict::Exited(99) | Verdict::BadRequest);
            prop_assert!(expected || accepts && verdict == Verdict::DeadlineExceeded, "{verdict:?}");
            fixture.check_outside();
            if read_only {
                prop_assert_eq!(fs::read(fixture.given().join("file")).unwrap(), b"contents");
                prop_assert_eq!(fs::read_dir(fixture.given()).unwrap().count(), 3);
            }
        }
    }
}

/// Runs a guest that posts a record of any kind and ends.
fn post(config: Config, record: &[u8], published: u64) -> mote_vmm::Report {
    let constants: Vec<u8> = record.iter().copied().chain(published.to_le_bytes()).collect();
    run_with(config, &constants, |a| {
        copy(a, CONSTANTS, RING_DATA.start, record.len() as u64)?;
        copy(a, CONSTANTS + record.len() as u64, RING_HEAD.start, 8)?;
        exit(a, 7)
    })
}

fn record(stream: Stream, payload: &[u8]) -> Vec<u8> {
    let header = Header { stream, payload_bytes: payload.len() as u32 };
    let mut record = header.encode().to_le_bytes().to_vec();
    record.extend(payload);
    record.resize(header.record_bytes() as usize, 0);
    record
}

#[test]
fn posts_that_cannot_be_are_refused_or_do_nothing() {
    if !kvm::usable() {
        return;
    }
    let write = |handle, offset| PostedWrite { handle, flags: 0, offset }.as_bytes().to_vec();
    for (what, stream, payload, refused) in [
        ("a write without a header", Stream::Write, vec![0; 15], true),
        ("a close without a handle", Stream::Close, vec![0; 3], true),
        ("a close of too much", Stream::Close, vec![0; 8], true),
        ("a write of nothing to nothing", Stream::Write, write(77, 0), false),
        ("a write to a directory", Stream::Write, [write(0, 0), b"x".to_vec()].concat(), false),
        ("a write at the end of all", Stream::Write, [write(0, u64::MAX), b"xy".to_vec()].concat(), false),
        ("a close of nothing", Stream::Close, vec![0xff; 4], false),
    ] {
        let fixture = Fixture::new();
        let record = record(stream, &payload);
        let report = post(fixture.config(Access::ReadWrite, config()), &record, record.len() as u64);
        let refusal = Verdict::of(&report.ending) != Verdict::Exited(7);
        assert_eq!(refusal, refused, "{what}: {:?}", report.ending);
        fixture.check_outside();
    }
}

/// A kernel that is told of a write that it cannot be stored, and ends without a word about it: the run must not look good.
#[test]
fn lost_writes_are_not_a_success() {
    if !kvm::usable() {
        return;
    }
    let fixture = Fixture::new();
    let open = OpenArgs { path_bytes: 4, access: access::WRITE, ..OpenArgs::default() };
    let lost = record(Stream::Write, &[PostedWrite { handle: 1, flags: 0, offset: i64::MAX as u64 }.as_bytes(), b"x"].concat());
    let constants = [b"file", &lost[..], &(lost.len() as u64).to_le_bytes()].concat();
    let report = run_with(fixture.config(Access::ReadWrite, config()), &constants, |a| {
        copy(a, CONSTANTS, MAILBOX_DATA.start, 4)?;
        call(a, &Request::new(FILE_OPEN, &open, 4))?;
        copy(a, CONSTANTS + 4, RING_DATA.start, lost.len() as u64)?;
        copy(a, CONSTANTS + 4 + lost.len() as u64, RING_HEAD.start, 8)?;
        exit(a, 0)
    });
    assert!(matches!(report.ending, Ending::HostFailure(HostFailure::LostWrites)), "{:?}", report.ending);
}

/// A guest that opens all it can gets an error, not the host's last descriptor.
#[test]
fn handles_are_bounded() {
    if !kvm::usable() {
        return;
    }
    let fixture = Fixture::new();
    let mut config = fixture.config(Access::ReadOnly, config());
    config.limits.open_files = 3;
    let open = Request::new(FILE_OPEN, &OpenArgs { path_bytes: 4, access: access::READ, ..OpenArgs::default() }, 4);
    let opened = |last: u32, config: Config| {
        run_with(config, b"file", |a| {
            for _ in 0..last {
                copy(a, CONSTANTS, MAILBOX_DATA.start, 4)?;
                call(a, &open)?;
            }
            // The status of the last answer is the exit status.
            a.mov(iced_x86::code_asm::rax, mote_abi::mailbox::RESPONSE)?;
            a.mov(iced_x86::code_asm::ecx, iced_x86::code_asm::dword_ptr(iced_x86::code_asm::rax))?;
            a.push(iced_x86::code_asm::rcx)?;
            crate::support::guest::post(a, &crate::support::guest::exit_request(0))?;
            a.pop(iced_x86::code_asm::rcx)?;
            a.mov(iced_x86::code_asm::rax, MAILBOX.start + 8 + 4)?;
            a.mov(iced_x86::code_asm::dword_ptr(iced_x86::code_asm::rax), iced_x86::code_asm::ecx)?;
            ring(a)
        })
    };
    assert_eq!(Verdict::of(&opened(3, config).ending), Verdict::Exited(0));
    let mut config = fixture.config(Access::ReadOnly, self::config());
    config.limits.open_files = 3;
    assert_eq!(Verdict::of(&opened(4, config).ending), Verdict::Exited(u32::from(mote_abi::errno::Errno::Mfile.code())));
}

/// Each request about a handle that is not there is answered, whatever it is.
#[test]
fn handles_that_are_not_there_are_no_fault() {
    if !kvm::usable() {
        return;
    }
    let handle = 5;
    let requests = [
        Request::new(FILE_CLOSE, &HandleArgs { handle, reserved: 0 }, 0),
        Request::new(FILE_STAT, &HandleArgs { handle, reserved: 0 }, 0),
        Request::new(FILE_WRITE, &TransferArgs { handle, bytes: 1, flags: transfer::APPEND, ..TransferArgs::default() }, 0),
        Request::new(FILE_CHANGE, &ChangeArgs { handle, change: change::SYNC, ..ChangeArgs::default() }, 0),
        Request::new(PATH, &PathArgs { operation: path::STAT, directory: handle, ..PathArgs::default() }, 0),
        Request::new(SOCKET_SHUTDOWN, &SocketArgs { handle, flags: 3 }, 0),
    ];
    let report = run_with(config(), &[], |a| {
        for request in &requests {
            call(a, request)?;
        }
        exit(a, 7)
    });
    assert_eq!(Verdict::of(&report.ending), Verdict::Exited(7));
}
