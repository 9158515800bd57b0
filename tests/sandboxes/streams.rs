//! What becomes of standard streams in snapshots and restores: input that was read ahead, and pipes that nobody reads.

use std::{io::Read, time::Duration};

use mote_vmm::{CallError, Input, Output, Sandbox, SharedBuffer};

use super::guests::builder;
use crate::support::kvm;

/// Reads one byte of standard input: a negative number at its end.
const ONE_BYTE: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "\40\00\00\00\01\00\00\00")
    (func (export "next") (result i32)
        (if (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)) (then unreachable))
        (select (i32.load8_u (i32.const 64)) (i32.const -1) (i32.load (i32.const 8)))))"#;

/// All that the program reads from now on.
fn rest(sandbox: &mut Sandbox) -> String {
    let mut next = || u8::try_from(sandbox.call::<_, i32>("next", ()).unwrap()).ok();
    let bytes: Vec<u8> = std::iter::from_fn(&mut next).take(100).collect();
    assert_eq!(next(), None, "an end stays an end");
    String::from_utf8(bytes).unwrap()
}

fn text(input: &str) -> Input {
    Input::Bytes(input.into())
}

/// What was read ahead for the program is no more its own than what was not read at all.
#[test]
fn input_that_was_read_ahead_is_no_part_of_a_snapshot() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = builder(ONE_BYTE).stdin(text("abc")).build().unwrap();
    let untouched = sandbox.snapshot().unwrap();
    assert_eq!(sandbox.call::<_, i32>("next", ()).unwrap(), i32::from(b'a'));
    let read_ahead = sandbox.snapshot().unwrap();
    for snapshot in [&untouched, &read_ahead] {
        assert_eq!(rest(&mut Sandbox::from_snapshot(snapshot).unwrap()), "", "a copy without input");
        let mut copy = snapshot.sandbox().stdin(text("xyz")).build().unwrap();
        assert_eq!(rest(&mut copy), "xyz", "a copy with its own");
        for again in ["1", "", "23"] {
            copy.restore(snapshot).unwrap();
            copy.set_stdin(text(again));
            assert_eq!(rest(&mut copy), again, "a restore");
        }
    }
    assert_eq!(rest(&mut sandbox), "bc", "a snapshot takes nothing from the sandbox itself");
}

#[test]
fn new_input_takes_the_place_of_what_was_read_ahead() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = builder(ONE_BYTE).stdin(text("abc")).build().unwrap();
    let snapshot = sandbox.snapshot().unwrap();
    for input in ["123", "45"] {
        assert_eq!(sandbox.call::<_, i32>("next", ()).unwrap(), i32::from(b'a'));
        sandbox.set_stdin(text(input));
        assert_eq!(rest(&mut sandbox), input);
        sandbox.set_stdin(text("more"));
        assert_eq!(rest(&mut sandbox), "more", "after an end");
        sandbox.set_stdin(text("abc"));
        assert_eq!(sandbox.call::<_, i32>("next", ()).unwrap(), i32::from(b'a'));
        // Also if the restore comes between.
        sandbox.restore(&snapshot).unwrap();
        sandbox.set_stdin(text(input));
        assert_eq!(rest(&mut sandbox), input);
        sandbox.set_stdin(text("abc"));
    }
}

/// `flood` prints without end, `print` prints five bytes; both return the errno of the first write that fails.
pub(super) const FLOOD: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 4)
    (data (i32.const 0) "\40\00\00\00\00\00\03\00") (data (i32.const 8) "\10\00\00\00\05\00\00\00") (data (i32.const 16) "hello")
    (func (export "flood") (result i32) (local $errno i32)
        (loop $again
            (br_if $again (i32.eqz (local.tee $errno (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 32))))))
        (local.get $errno))
    (func (export "print") (result i32) (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 32))))"#;

#[test]
fn a_pipe_that_was_full_is_written_again_after_a_restore() {
    if !kvm::usable() {
        return;
    }
    let print = |sandbox: &mut Sandbox| sandbox.call::<_, i32>("print", ());
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut sandbox = builder(FLOOD).stdout(Output::Fd(writer.into())).build().unwrap();
    let snapshot = sandbox.snapshot().unwrap();
    sandbox.set_deadline(Some(Duration::from_millis(100)));
    let flooded = sandbox.call::<_, i32>("flood", ());
    assert!(matches!(flooded, Err(CallError::DeadlineExceeded)), "{flooded:?}");
    sandbox.restore(&snapshot).unwrap();
    // Nobody reads yet, so it waits: the stream is slow, not gone.
    let printed = print(&mut sandbox);
    assert!(matches!(printed, Err(CallError::DeadlineExceeded)), "{printed:?}");
    sandbox.restore(&snapshot).unwrap();
    // All that is in the pipe.
    assert!(reader.read(&mut vec![0; 1 << 20]).unwrap() > 4096);
    sandbox.set_deadline(Some(Duration::from_secs(30)));
    assert_eq!(print(&mut sandbox).unwrap(), 0);
    // Nothing of the calls that were stopped comes late.
    drop(sandbox);
    let mut left = Vec::new();
    reader.read_to_end(&mut left).unwrap();
    assert_eq!(left, b"hello");
}

#[test]
fn a_pipe_without_a_reader_breaks_again_after_a_restore() {
    if !kvm::usable() {
        return;
    }
    const PIPE: i32 = 64;
    let (reader, writer) = std::io::pipe().unwrap();
    let mut sandbox = builder(FLOOD).stdout(Output::Fd(writer.into())).build().unwrap();
    let snapshot = sandbox.snapshot().unwrap();
    drop(reader);
    for round in 0..3 {
        assert_eq!(sandbox.call::<_, i32>("flood", ()).unwrap(), PIPE, "round {round}");
        assert_eq!(sandbox.call::<_, i32>("print", ()).unwrap(), PIPE, "round {round}");
        sandbox.restore(&snapshot).unwrap();
    }
}

#[test]
fn another_stream_in_the_place_of_a_broken_one_works() {
    if !kvm::usable() {
        return;
    }
    const PIPE: i32 = 64;
    let (_, writer) = std::io::pipe().unwrap();
    let mut sandbox = builder(FLOOD).stdout(Output::Fd(writer.into())).build().unwrap();
    assert_eq!(sandbox.call::<_, i32>("flood", ()).unwrap(), PIPE);
    let buffer = SharedBuffer::new(100);
    sandbox.set_stdout(Output::Buffer(buffer.clone()));
    assert_eq!(sandbox.call::<_, i32>("print", ()).unwrap(), 0);
    assert_eq!(buffer.contents(), b"hello");
}
