//! Isolation: of copies from each other, and of a call from the one before it.

use std::{fs, path::Path};

use mote_vmm::{CallError, Caller, Input, Output, Sandbox, SharedBuffer, Snapshot};

use super::guests::{MEMORY, Random, builder};
use crate::support::kvm;

const PAGE: usize = 65536;

#[test]
fn copies_never_see_what_others_write() {
    if !kvm::usable() {
        return;
    }
    const COPIES: usize = 3;
    let mut sandbox = builder(MEMORY).build().unwrap();
    sandbox.call::<_, i32>("grow", 99).unwrap();
    let mut random = Random::new(11);
    let mut first = vec![0; 100 * PAGE];
    for _ in 0..100 {
        let at = random.below(first.len() as u64 - 100) as usize;
        let data = random.bytes(100);
        sandbox.write_memory(at as u64, &data).unwrap();
        first[at..at + 100].copy_from_slice(&data);
    }
    let snapshot = sandbox.snapshot().unwrap();
    let mut copies: Vec<_> = (0..COPIES).map(|_| (Sandbox::from_snapshot(&snapshot).unwrap(), first.clone())).collect();
    copies.push((sandbox, first.clone()));
    for step in 0..600 {
        let (sandbox, mirror) = &mut copies[random.below(COPIES as u64 + 1) as usize];
        let at = random.below(mirror.len() as u64 - 3000) as usize;
        match random.below(20) {
            0 => {
                sandbox.restore(&snapshot).unwrap();
                mirror.copy_from_slice(&first);
            }
            1..=6 => {
                let bytes = random.below(3000) as usize;
                let data = random.bytes(bytes);
                sandbox.write_memory(at as u64, &data).unwrap();
                mirror[at..at + data.len()].copy_from_slice(&data);
            }
            7..=12 => {
                let byte = random.below(256) as u8;
                sandbox.call::<_, ()>("fill", (at as i32, i32::from(byte), 300)).unwrap();
                mirror[at..at + 300].fill(byte);
            }
            _ => {
                let mut found = vec![0; 3000];
                sandbox.read_memory(at as u64, &mut found).unwrap();
                assert!(found == mirror[at..at + 3000], "step {step}, at {at:#x}");
            }
        }
    }
    copies.push((Sandbox::from_snapshot(&snapshot).unwrap(), first));
    for (number, (sandbox, mirror)) in copies.iter_mut().enumerate() {
        let mut found = vec![0; mirror.len()];
        sandbox.read_memory(0, &mut found).unwrap();
        assert!(found == *mirror, "sandbox {number}");
    }
}

/// Takes the pattern in as many ways as there are, and leaves it in as many places.
const SPREADER: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "env" "echo" (func $echo (param v128) (result v128)))
    (memory (export "memory") 1)
    (global $g (mut v128) (v128.const i64x2 0 0))
    (table $t 4 funcref)
    (func $deep (param $value v128) (param $depth i32) (result v128)
        (if (result v128) (local.get $depth)
            (then (v128.or (local.get $value) (call $deep (local.get $value) (i32.sub (local.get $depth) (i32.const 1)))))
            (else (call $echo (local.get $value)))))
    (func (export "spread") (param $value v128) (result v128) (local $at i32)
        (drop (memory.grow (i32.const 80)))
        (global.set $g (local.get $value))
        (loop
            (v128.store (local.get $at) (local.get $value))
            (br_if 0 (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 16))) (i32.const 5308416))))
        (i32.store (i32.const 16) (i32.const 1024)) (i32.store (i32.const 20) (i32.const 4096))
        (drop (call $read (i32.const 0) (i32.const 16) (i32.const 1) (i32.const 32)))
        (drop (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 32)))
        (drop (call $write (i32.const 2) (i32.const 16) (i32.const 1) (i32.const 32)))
        (call $deep (local.get $value) (i32.const 100)))
    (func (export "trap") (param $value v128) (drop (call $deep (local.get $value) (i32.const 5))) unreachable)
    (func (export "spin") (param $value v128) (drop (call $deep (local.get $value) (i32.const 5))) (loop (br 0)))
    (func (export "fail") (param v128) (result v128) (call $deep (v128.const i64x2 0 0) (i32.const 5)))
)"#;

/// Sixteen bytes of which no four are anywhere by chance.
const PATTERN: [u8; 16] = *b"\xa7S3cr3t!p4tt3rn\xd5";

const NOWHERE: [usize; 0] = [];

fn echo(_: Caller<'_>, value: u128) -> Result<u128, std::io::Error> {
    if value == 0 { Err(std::io::Error::other(String::from_utf8_lossy(&PATTERN).into_owned())) } else { Ok(value) }
}

/// Where in a file some bytes are.
fn find(path: &Path, wanted: &[u8]) -> Vec<usize> {
    let bytes = fs::read(path).unwrap();
    bytes.windows(wanted.len()).enumerate().filter(|(_, window)| *window == wanted).map(|(at, _)| at).collect()
}

/// A snapshot of a sandbox in a file holds all RAM that was ever used, but for tables of the processor.
fn places(sandbox: &mut Sandbox, path: &Path) -> Vec<usize> {
    let snapshot: Snapshot = sandbox.snapshot().unwrap();
    snapshot.save(path).unwrap();
    // Half of the pattern is enough.
    [find(path, &PATTERN[..8]), find(path, &PATTERN[8..])].concat()
}

#[test]
fn nothing_of_a_call_is_left_after_a_restore() {
    if !kvm::usable() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ram");
    let stdout = SharedBuffer::new(1 << 20);
    let mut sandbox = builder(SPREADER)
        .stdout(Output::Buffer(stdout.clone()))
        .stderr(Output::Buffer(stdout.clone()))
        .func("env", "echo", echo)
        .build()
        .unwrap();
    let clean = sandbox.snapshot().unwrap();
    assert_eq!(places(&mut sandbox, &path), NOWHERE);
    let value = u128::from_le_bytes(PATTERN);
    let spread = |sandbox: &mut Sandbox| {
        sandbox.set_stdin(Input::Bytes(PATTERN.repeat(1000)));
        assert_eq!(sandbox.call::<_, u128>("spread", value).unwrap(), value);
    };

    // The search finds what there is to be found.
    spread(&mut sandbox);
    assert!(stdout.contents().starts_with(&PATTERN));
    let found = places(&mut sandbox, &path).len();
    assert!(found > 600_000, "{found} places");

    // From snapshot to snapshot, and back to the one that was shared.
    sandbox.restore(&clean).unwrap();
    assert_eq!(places(&mut sandbox, &path), NOWHERE);
    for round in 0..4 {
        sandbox.restore(&clean).unwrap();
        spread(&mut sandbox);
        // The same base as before: only what was written is put back.
        sandbox.restore(&clean).unwrap();
        sandbox.call::<_, ()>("trap", value).unwrap_err();
        sandbox.restore(&clean).unwrap();
        assert!(matches!(sandbox.call::<_, u128>("fail", value), Err(CallError::Host { .. })));
        sandbox.restore(&clean).unwrap();
        sandbox.set_deadline(Some(std::time::Duration::from_millis(10)));
        assert!(matches!(sandbox.call::<_, ()>("spin", value), Err(CallError::DeadlineExceeded)));
        sandbox.set_deadline(None);
        sandbox.restore(&clean).unwrap();
        assert_eq!(places(&mut sandbox, &path), NOWHERE, "round {round}");
    }
}

/// The guest looks for itself, in memory that it gets anew.
#[test]
fn memory_that_grows_again_is_empty() {
    if !kvm::usable() {
        return;
    }
    let text = r#"(module
        (memory (export "memory") 1)
        (func (export "fill") (drop (memory.grow (i32.const 200))) (memory.fill (i32.const 0) (i32.const 0xa5) (i32.const 13172736)))
        (func (export "look") (result i32) (local $at i32)
            (drop (memory.grow (i32.const 200)))
            (loop
                (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then (return (local.get $at))))
                (br_if 0 (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 512))) (i32.const 13172736))))
            (i32.const -1)))"#;
    let mut sandbox = builder(text).build().unwrap();
    let snapshot = sandbox.snapshot().unwrap();
    for round in 0..8 {
        sandbox.call::<_, ()>("fill", ()).unwrap();
        sandbox.restore(&snapshot).unwrap();
        assert_eq!(sandbox.call::<_, i32>("look", ()).unwrap(), -1, "round {round}");
        sandbox.restore(&snapshot).unwrap();
    }
    assert_eq!(Sandbox::from_snapshot(&snapshot).unwrap().call::<_, i32>("look", ()).unwrap(), -1);
}
