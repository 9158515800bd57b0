//! Linear memory, read and written from outside.

use mote_vmm::{AccessError, Poison, Sandbox, SandboxState, Value};

use super::guests::{MEMORY, Random, build, builder};
use crate::support::kvm;

const PAGE: u64 = 65536;
/// The guest's RAM is given in chunks of this size.
const CHUNK: u64 = 2 << 20;

fn out_of_bounds(result: Result<(), AccessError>, expected: (u64, u64, u64)) {
    match result {
        Err(AccessError::OutOfBounds { offset, bytes, memory_bytes }) => assert_eq!((offset, bytes, memory_bytes), expected),
        other => panic!("{other:?}"),
    }
}

#[test]
fn ranges_are_checked() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = build(MEMORY);
    assert_eq!(sandbox.memory_bytes().unwrap(), PAGE);
    sandbox.write_memory(PAGE - 4, b"abcd").unwrap();
    let mut four = [0; 4];
    sandbox.read_memory(PAGE - 4, &mut four).unwrap();
    assert_eq!(&four, b"abcd");
    sandbox.read_memory(PAGE, &mut []).unwrap();
    sandbox.write_memory(PAGE, &[]).unwrap();
    for offset in [PAGE - 3, PAGE, PAGE + 1, 1 << 32, u64::MAX - 3, u64::MAX] {
        out_of_bounds(sandbox.read_memory(offset, &mut four), (offset, 4, PAGE));
        out_of_bounds(sandbox.write_memory(offset, b"xxxx"), (offset, 4, PAGE));
    }
    out_of_bounds(sandbox.read_memory(PAGE + 1, &mut []), (PAGE + 1, 0, PAGE));
    out_of_bounds(sandbox.write_memory(0, &vec![1; PAGE as usize + 1]), (0, PAGE + 1, PAGE));
    // Refused accesses changed nothing.
    sandbox.read_memory(PAGE - 4, &mut four).unwrap();
    assert_eq!(&four, b"abcd");
    assert_eq!(sandbox.call::<_, i32>("load", 0).unwrap(), 0);
    assert_eq!(sandbox.state(), SandboxState::Ready);
}

/// Host and guest write at random, across chunks and while the memory grows; both see what a plain vector has.
#[test]
fn host_and_guest_see_the_same_bytes() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = build(MEMORY);
    let mut random = Random::new(1);
    let mut mirror = vec![0u8; PAGE as usize];
    let fill = sandbox.func::<(u32, u32, u32), ()>("fill").unwrap();
    for step in 0..400 {
        // Near the borders of chunks where there are some.
        let border = random.below(mirror.len() as u64 / CHUNK + 1) * CHUNK;
        let at = border.saturating_sub(3000).saturating_add(random.below(6000)).min(mirror.len() as u64);
        let bytes = random.below(mirror.len() as u64 - at + 1).min(5000);
        let range = at as usize..(at + bytes) as usize;
        match random.below(8) {
            0 if mirror.len() < 20 << 20 => {
                let pages = random.below(24);
                assert_eq!(sandbox.call::<_, u32>("grow", pages as u32).unwrap() as usize, mirror.len() >> 16);
                mirror.resize(mirror.len() + (pages * PAGE) as usize, 0);
                assert_eq!(sandbox.memory_bytes().unwrap(), mirror.len() as u64);
            }
            0..=3 => {
                let data = random.bytes(bytes as usize);
                sandbox.write_memory(at, &data).unwrap();
                mirror[range].copy_from_slice(&data);
            }
            4 | 5 => {
                let byte = random.below(256) as u8;
                sandbox.call_func(fill, (at as u32, byte.into(), bytes as u32)).unwrap();
                mirror[range].fill(byte);
            }
            _ => {
                let mut found = vec![0xaa; bytes as usize];
                sandbox.read_memory(at, &mut found).unwrap();
                assert!(found == mirror[range], "step {step}: {bytes} bytes at {at:#x}");
            }
        }
    }
    assert!(mirror.len() as u64 > 3 * CHUNK, "the memory did not grow");
    let mut all = vec![0xaa; mirror.len()];
    sandbox.read_memory(0, &mut all).unwrap();
    assert!(all == mirror);
}

#[test]
fn memory_that_nobody_touched_is_zeros_and_stays_untouched() {
    if !kvm::usable() {
        return;
    }
    let text = r#"(module (memory (export "memory") 512)
        (func (export "load") (param i32) (result i32) (i32.load8_u (local.get 0))))"#;
    let mut sandbox = build(text);
    let before = sandbox.stats().touched_bytes;
    let mut bytes = vec![0xaa; 32 << 20];
    sandbox.read_memory(0, &mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0));
    let after = sandbox.stats().touched_bytes;
    assert!(after < before + (4 << 20), "reading 32 MiB touched {} bytes", after - before);
    // Across a border of which neither side was touched.
    let at = 5 * CHUNK - 2;
    sandbox.write_memory(at, b"abcd").unwrap();
    let mut around = [0xaa; 8];
    sandbox.read_memory(at - 2, &mut around).unwrap();
    assert_eq!(&around, b"\0\0abcd\0\0");
    for (offset, byte) in [(0, b'a'), (1, b'b'), (2, b'c'), (3, b'd'), (4, 0)] {
        assert_eq!(sandbox.call::<_, i32>("load", at as i32 + offset).unwrap(), i32::from(byte));
    }
}

#[test]
fn a_memory_has_the_name_that_it_is_exported_by() {
    if !kvm::usable() {
        return;
    }
    let text = r#"(module
        (memory $one (export "memory") 1) (memory $two (export "other") 2) (func (export "f"))
        (data (memory $one) (i32.const 0) "first") (data (memory $two) (i32.const 0) "second"))"#;
    let mut sandbox = build(text);
    let mut five = [0; 5];
    for _ in 0..3 {
        sandbox.read_memory(0, &mut five).unwrap();
        assert_eq!(&five, b"first");
        sandbox.read_memory_of("other", 0, &mut five).unwrap();
        assert_eq!(&five, b"secon");
        assert_eq!(sandbox.memory_bytes().unwrap(), PAGE);
    }
    sandbox.write_memory_of("other", PAGE, b"beyond the first").unwrap();
    out_of_bounds(sandbox.read_memory(PAGE, &mut five), (PAGE, 5, PAGE));
    for name in ["f", "missing", ""] {
        assert_eq!(sandbox.read_memory_of(name, 0, &mut five), Err(AccessError::NoMemory(name.into())));
        assert_eq!(sandbox.write_memory_of(name, 0, &five), Err(AccessError::NoMemory(name.into())));
    }
    assert_eq!(sandbox.state(), SandboxState::Ready);
}

/// Whatever else was asked of the sandbox before.
#[test]
fn memory_is_found_after_each_kind_of_question() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = build(MEMORY);
    let check = |sandbox: &mut Sandbox, what: &str| {
        let mut byte = [0];
        sandbox.read_memory(PAGE - 1, &mut byte).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!((byte, sandbox.memory_bytes()), ([9], Ok(PAGE)), "{what}");
    };
    sandbox.write_memory(PAGE - 1, &[9]).unwrap();
    check(&mut sandbox, "a write");
    sandbox.global("g").unwrap();
    check(&mut sandbox, "a global");
    sandbox.set_global("g", Value::I32(1)).unwrap();
    check(&mut sandbox, "a global that was set");
    sandbox.register("m", sandbox.main_instance()).unwrap();
    check(&mut sandbox, "a registration");
    let second = sandbox.instantiate(br#"(module (memory (export "memory") 9) (func (export "f")))"#).unwrap();
    check(&mut sandbox, "another instance");
    sandbox.call_dynamic_of(second, "f", &[]).unwrap();
    check(&mut sandbox, "a call of another instance");
    sandbox.call::<_, ()>("nothing", ()).unwrap();
    sandbox.global("g").unwrap();
    check(&mut sandbox, "a call and a global");
    sandbox.instantiate(b"garbage").unwrap_err();
    check(&mut sandbox, "a module that is none");
    let snapshot = sandbox.snapshot().unwrap();
    check(&mut sandbox, "a snapshot");
    sandbox.restore(&snapshot).unwrap();
    check(&mut sandbox, "a restore");
    check(&mut Sandbox::from_snapshot(&snapshot).unwrap(), "a copy");
}

#[test]
fn a_module_without_a_memory_has_none() {
    if !kvm::usable() {
        return;
    }
    for text in ["(module)", r#"(module (func (export "memory")))"#, "(module (memory 1))"] {
        let mut sandbox = build(text);
        assert_eq!(sandbox.memory_bytes(), Err(AccessError::NoMemory("memory".into())), "{text}");
        assert_eq!(sandbox.read_memory(0, &mut []), Err(AccessError::NoMemory("memory".into())), "{text}");
    }
}

#[test]
fn the_memory_of_a_sandbox_that_trapped_can_be_read_and_not_written() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = build(MEMORY);
    sandbox.call::<_, ()>("store", (5, 77)).unwrap();
    sandbox.call::<_, ()>("trap", ()).unwrap_err();
    let mut byte = [0];
    sandbox.read_memory(5, &mut byte).unwrap();
    assert_eq!(byte, [77]);
    assert!(matches!(sandbox.write_memory(5, &[78]), Err(AccessError::Unavailable(why)) if why.contains("trapped")));
    assert_eq!(sandbox.state(), SandboxState::Poisoned(Poison::Trapped), "looking mends nothing");
    sandbox.clear_poison().unwrap();
    sandbox.read_memory(5, &mut byte).unwrap();
    assert_eq!(byte, [77]);
}

/// In the middle of a call the memory may have moved since the host last heard of it.
#[test]
fn the_memory_of_a_sandbox_at_its_input_can_be_had_only_when_its_call_is_over() {
    if !kvm::usable() {
        return;
    }
    let text = r#"(module
        (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (memory $second (export "second") 1)
        (func (export "store") (param i32) (i32.store (i32.const 100) (local.get 0)))
        (func (export "load") (result i32) (i32.load (i32.const 100)))
        (func (export "_start")
            (drop (memory.grow (i32.const 100)))
            (i32.store (i32.const 100) (i32.const 2))
            (i32.store (i32.const 16) (i32.const 64)) (i32.store (i32.const 20) (i32.const 5))
            (drop (call $read (i32.const 0) (i32.const 16) (i32.const 1) (i32.const 32)))
            (i32.store (i32.const 100) (i32.add (i32.load (i32.const 100)) (i32.const 1)))))"#;
    let mut sandbox = build(text);
    sandbox.call::<_, ()>("store", 1).unwrap();
    let mut word = [0; 4];
    // The host knows where it is from here on.
    sandbox.read_memory(100, &mut word).unwrap();
    assert_eq!(word, [1, 0, 0, 0]);
    let snapshot = sandbox.snapshot().unwrap();
    let copy = Sandbox::from_snapshot(&snapshot).unwrap();
    for mut sandbox in [sandbox, copy] {
        sandbox.start_until_input().unwrap();
        assert_eq!(sandbox.state(), SandboxState::AtInput);
        let at_input = sandbox.snapshot().unwrap();
        let mut copy = Sandbox::from_snapshot(&at_input).unwrap();
        for sandbox in [&mut copy, &mut sandbox] {
            let is_refused = |result: Result<(), AccessError>| {
                assert!(matches!(&result, Err(AccessError::Unavailable(why)) if why.contains("input")), "{result:?}");
            };
            is_refused(sandbox.read_memory(100, &mut word));
            is_refused(sandbox.write_memory(100, &[9; 4]));
            is_refused(sandbox.memory_bytes().map(drop));
            is_refused(sandbox.read_memory_of("second", 100, &mut word));
            is_refused(sandbox.write_memory_of("second", 100, &[9; 4]));
            assert_eq!(sandbox.state(), SandboxState::AtInput);
            assert_eq!(sandbox.resume().unwrap(), 0);
            assert_eq!(sandbox.memory_bytes(), Ok(101 * PAGE));
            sandbox.read_memory(100, &mut word).unwrap();
            assert_eq!(word, [3, 0, 0, 0]);
            sandbox.write_memory(100, &[7, 0, 0, 0]).unwrap();
            assert_eq!(sandbox.call::<_, i32>("load", ()).unwrap(), 7);
            // Back to the input, from a state in which the memory is known.
            sandbox.restore(&at_input).unwrap();
            is_refused(sandbox.read_memory(100, &mut word));
            is_refused(sandbox.write_memory(100, &[9; 4]));
        }
    }
}

/// Writing what the guest has no RAM for is an error, and no end.
#[test]
fn the_host_cannot_write_more_than_there_is_ram() {
    if !kvm::usable() {
        return;
    }
    let text = r#"(module (memory (export "memory") 1 65536) (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0))))"#;
    let mut sandbox = builder(text).ram_bytes(32 << 20).build().unwrap();
    let mut pages = 1;
    while sandbox.call::<_, i32>("grow", 16).unwrap() >= 0 {
        pages += 16;
    }
    assert!((16..512).contains(&pages), "{pages} pages of 64 KiB in 32 MiB");
    let data = vec![7; (pages * PAGE) as usize];
    sandbox.write_memory(0, &data).unwrap();
    let mut found = vec![0; data.len()];
    sandbox.read_memory(0, &mut found).unwrap();
    assert!(found == data);
    assert_eq!(sandbox.call::<_, i32>("grow", 0).unwrap(), pages as i32);
}
