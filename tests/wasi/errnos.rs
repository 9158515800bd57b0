//! Wrong arguments one by one, with the errno that each must give.

use crate::support::{
    command::{Outcome, finish, module_file, mote, run_module, run_with_input},
    kvm,
};

const BADF: i32 = 8;
const FAULT: i32 = 21;
const INVAL: i32 = 28;
const NOTDIR: i32 = 54;
const NOTSOCK: i32 = 57;
const NOTSUP: i32 = 58;
const SPIPE: i32 = 70;

/// What the tests call, and `$print`, which writes `bytes` from `pointer` to `fd` and wants no errno.
const CONTEXT: &str = r#"
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $environ_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock_time_get (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_res_get" (func $clock_res_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_raise" (func $proc_raise (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $fd_close (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_renumber" (func $fd_renumber (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_seek" (func $fd_seek (param i32 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_tell" (func $fd_tell (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_fdstat_get" (func $fd_fdstat_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_filestat_get" (func $fd_filestat_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_get" (func $fd_prestat_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open" (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "sock_recv" (func $sock_recv (param i32 i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1 1)
  (func $vector (param $at i32) (param $pointer i32) (param $bytes i32)
    (i32.store (local.get $at) (local.get $pointer))
    (i32.store offset=4 (local.get $at) (local.get $bytes)))
  (func $print (param $fd i32) (param $pointer i32) (param $bytes i32)
    (call $vector (i32.const 32) (local.get $pointer) (local.get $bytes))
    (if (call $fd_write (local.get $fd) (i32.const 32) (i32.const 1) (i32.const 40)) (then unreachable)))
"#;

/// A module that carries out `instructions` and exits with the number that they leave.
fn exiting_with(instructions: &str) -> String {
    format!(r#"(module {CONTEXT} (data (i32.const 256) "hello\n") (func (export "_start") {instructions} (call $proc_exit)))"#)
}

fn exit(instructions: &str) -> Outcome {
    run_module(&["--timeout", "10s"], exiting_with(instructions))
}

#[test]
fn wrong_arguments_give_the_right_errno() {
    if !kvm::usable() {
        return;
    }
    let cases = [
        // An array of vectors behind the memory, at its end, around the end of the address space, too long.
        ("(call $fd_write (i32.const 1) (i32.const 65536) (i32.const 1) (i32.const 8))", FAULT),
        ("(call $fd_write (i32.const 1) (i32.const 65532) (i32.const 1) (i32.const 8))", FAULT),
        ("(call $fd_write (i32.const 1) (i32.const -8) (i32.const 2) (i32.const 8))", FAULT),
        ("(call $fd_write (i32.const 1) (i32.const 0) (i32.const 8193) (i32.const 8))", FAULT),
        ("(call $fd_write (i32.const 1) (i32.const 0) (i32.const 0x20000000) (i32.const 8))", FAULT),
        ("(call $fd_write (i32.const 1) (i32.const 0) (i32.const -1) (i32.const 8))", FAULT),
        // A vector that points behind the memory.
        (
            "(call $vector (i32.const 0) (i32.const 65530) (i32.const 7)) (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))",
            FAULT,
        ),
        (
            "(call $vector (i32.const 0) (i32.const -1) (i32.const 2)) (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))",
            FAULT,
        ),
        (
            "(call $vector (i32.const 0) (i32.const 1) (i32.const -1)) (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))",
            FAULT,
        ),
        (
            "(call $vector (i32.const 0) (i32.const 65536) (i32.const 0)) (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))",
            0,
        ),
        ("(call $fd_write (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 8))", 0),
        ("(call $fd_write (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 65533))", FAULT),
        ("(call $fd_write (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 8))", BADF),
        ("(call $fd_write (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 8))", BADF),
        ("(call $fd_read (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 8))", BADF),
        ("(call $fd_read (i32.const -1) (i32.const 0) (i32.const 0) (i32.const 8))", BADF),
        ("(call $random_get (i32.const 65530) (i32.const 7))", FAULT),
        ("(call $random_get (i32.const -1) (i32.const -1))", FAULT),
        ("(call $random_get (i32.const 65536) (i32.const 0))", 0),
        ("(call $args_get (i32.const 65533) (i32.const 0))", FAULT),
        ("(call $args_get (i32.const 0) (i32.const 65535))", FAULT),
        ("(call $args_sizes_get (i32.const 0) (i32.const 65533))", FAULT),
        ("(call $environ_get (i32.const 0) (i32.const 0))", 0),
        ("(call $clock_time_get (i32.const 99) (i64.const 0) (i32.const 0))", INVAL),
        ("(call $clock_time_get (i32.const 0) (i64.const -1) (i32.const 65529))", FAULT),
        ("(call $clock_res_get (i32.const -1) (i32.const 0))", INVAL),
        ("(drop (call $fd_close (i32.const 1))) (call $fd_close (i32.const 1))", BADF),
        ("(drop (call $fd_close (i32.const 0))) (call $fd_read (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 8))", BADF),
        ("(call $fd_close (i32.const 3))", BADF),
        ("(call $fd_close (i32.const -1))", BADF),
        ("(call $fd_renumber (i32.const 5) (i32.const 1))", BADF),
        ("(call $fd_renumber (i32.const 1) (i32.const 0x7fffffff))", BADF),
        ("(call $fd_seek (i32.const 1) (i64.const 0) (i32.const 0) (i32.const 0))", SPIPE),
        ("(call $fd_seek (i32.const 9) (i64.const 0) (i32.const 0) (i32.const 0))", BADF),
        ("(call $fd_tell (i32.const 0) (i32.const 0))", SPIPE),
        ("(call $fd_fdstat_get (i32.const 0) (i32.const 65513))", FAULT),
        ("(call $fd_filestat_get (i32.const 0) (i32.const 65473))", FAULT),
        ("(call $fd_fdstat_get (i32.const 3) (i32.const 0))", BADF),
        ("(call $fd_prestat_get (i32.const 3) (i32.const 0))", BADF),
        (
            "(call $path_open (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 0))",
            NOTDIR,
        ),
        (
            "(call $path_open (i32.const 9) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 0))",
            BADF,
        ),
        ("(call $sock_recv (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))", NOTSOCK),
        ("(call $sock_recv (i32.const 9) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))", BADF),
        ("(call $proc_raise (i32.const 9))", NOTSUP),
        ("(call $poll_oneoff (i32.const 0) (i32.const 512) (i32.const 0) (i32.const 8))", INVAL),
        ("(call $poll_oneoff (i32.const 65500) (i32.const 512) (i32.const 1) (i32.const 8))", FAULT),
        ("(call $poll_oneoff (i32.const 0) (i32.const 65520) (i32.const 1) (i32.const 8))", FAULT),
        ("(call $poll_oneoff (i32.const 0) (i32.const 512) (i32.const 1) (i32.const 65533))", FAULT),
        ("(call $poll_oneoff (i32.const 0) (i32.const 512) (i32.const 0x10000000) (i32.const 8))", FAULT),
        // A subscription to something that there is not.
        (
            "(i32.store8 (i32.const 8) (i32.const 3)) (call $poll_oneoff (i32.const 0) (i32.const 512) (i32.const 1) (i32.const 8))",
            INVAL,
        ),
    ];
    for (instructions, errno) in cases {
        let outcome = exit(instructions);
        assert_eq!((outcome.status, outcome.stderr.as_str()), (Some(errno), ""), "{instructions}");
        assert!(outcome.stdout.is_empty(), "{instructions}: {outcome:?}");
    }
}

#[test]
fn an_exit_status_has_eight_bits() {
    if !kvm::usable() {
        return;
    }
    for (status, seen) in [("0", 0), ("1", 1), ("125", 125), ("255", 255), ("300", 44), ("-1", 255)] {
        exit(&format!("(i32.const {status})")).expect(seen);
    }
}

#[test]
fn vectors_may_overlap_and_repeat() {
    if !kvm::usable() {
        return;
    }
    let three =
        "(call $vector (i32.const 0) (i32.const 256) (i32.const 6)) (call $vector (i32.const 8) (i32.const 258) (i32.const 0))
        (call $vector (i32.const 16) (i32.const 256) (i32.const 6)) (call $vector (i32.const 24) (i32.const 260) (i32.const 2))
        (call $fd_write (i32.const 1) (i32.const 0) (i32.const 4) (i32.const 48)) (i32.load (i32.const 48)) (i32.add)";
    let outcome = exit(three).expect(14);
    assert_eq!(outcome.text(), "hello\nhello\no\n");
}

#[test]
fn a_failed_read_takes_nothing_from_the_stream() {
    if !kvm::usable() {
        return;
    }
    // `nread`, then a vector, then the array lies behind the memory; then all is right.
    let program = exiting_with(
        "(call $vector (i32.const 0) (i32.const 512) (i32.const 100))
        (if (i32.ne (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 65533)) (i32.const 21)) (then unreachable))
        (call $vector (i32.const 8) (i32.const 65530) (i32.const 7))
        (if (i32.ne (call $fd_read (i32.const 0) (i32.const 0) (i32.const 2) (i32.const 64)) (i32.const 21)) (then unreachable))
        (if (i32.ne (call $fd_read (i32.const 0) (i32.const 65532) (i32.const 1) (i32.const 64)) (i32.const 21)) (then unreachable))
        (if (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 64)) (then unreachable))
        (call $print (i32.const 1) (i32.const 512) (i32.load (i32.const 64))) (i32.const 0)",
    );
    let file = module_file(program);
    let mut command = mote(["run".as_ref(), file.path().as_os_str()]);
    run_with_input(&mut command, b"all of it").expect_output("all of it");
}

#[test]
fn a_renumbered_stream_is_the_other_one() {
    if !kvm::usable() {
        return;
    }
    let program = exiting_with(
        "(if (call $fd_renumber (i32.const 1) (i32.const 2)) (then unreachable))
        (call $print (i32.const 2) (i32.const 256) (i32.const 6))
        (call $fd_write (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 8))",
    );
    let file = module_file(program);
    let outcome = finish(mote(["run".as_ref(), file.path().as_os_str()]).spawn().unwrap()).expect(BADF);
    assert_eq!((outcome.text(), outcome.stderr.as_str()), ("hello\n", ""));
}

#[test]
fn polling_an_unknown_descriptor_is_an_event_with_an_errno() {
    if !kvm::usable() {
        return;
    }
    for (kind, fd, errno) in [(1, 9, BADF), (2, 9, BADF), (2, 0, BADF), (1, 1, BADF), (1, -1, BADF), (2, 1, 0)] {
        let outcome = exit(&format!(
            "(i64.store (i32.const 0) (i64.const 77)) (i32.store8 (i32.const 8) (i32.const {kind})) (i32.store (i32.const 16) (i32.const {fd}))
            (if (call $poll_oneoff (i32.const 0) (i32.const 512) (i32.const 1) (i32.const 600)) (then unreachable))
            (if (i32.ne (i32.load (i32.const 600)) (i32.const 1)) (then unreachable))
            (if (i64.ne (i64.load (i32.const 512)) (i64.const 77)) (then unreachable))
            (if (i32.ne (i32.load8_u (i32.const 522)) (i32.const {kind})) (then unreachable))
            (i32.load16_u (i32.const 520))"
        ));
        assert_eq!(outcome.status, Some(errno), "kind {kind}, descriptor {fd}: {outcome:?}");
    }
    // A clock that there is not: an event with an errno too.
    let outcome = exit(
        "(i32.store (i32.const 16) (i32.const 99))
        (if (call $poll_oneoff (i32.const 0) (i32.const 512) (i32.const 1) (i32.const 600)) (then unreachable))
        (i32.load16_u (i32.const 520))",
    );
    outcome.expect(INVAL);
}
