//! Memories that grew after a snapshot and went back to it: what was mapped for them is gone, page by page, however the
//! sandbox went back; and what is mapped there later is new.

use mote_vmm::{LoadOptions, Sandbox, Snapshot, TrapKind, Value};

use super::guests::{build, builder, trap, traps};
use crate::support::kvm;

const PAGE: u64 = 4096;
const WASM_PAGE: u64 = 65536;

const GROWING: &str = r#"(module (memory (export "memory") PAGES)
    (func $grow (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
    (func $load (export "load") (param i32) (result i32) (i32.load8_u (local.get 0)))
    (func $store (export "store") (param i32 i32) (i32.store8 (local.get 0) (local.get 1)))
    (func $fill (export "fill") (param i32 i32 i32)
        (memory.fill (local.get 0) (local.get 1) (i32.sub (local.get 2) (local.get 0))))
    ;; The first address in a range whose byte is another, or the end.
    (func $other (export "other") (param $at i32) (param $byte i32) (param $end i32) (result i32)
        (block $done (loop $next
            (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
            (br_if $done (i32.ne (i32.load8_u (local.get $at)) (local.get $byte)))
            (local.set $at (i32.add (local.get $at) (i32.const 1)))
            (br $next)))
        (local.get $at)))"#;

fn growing(pages: u64) -> Sandbox {
    builder(&GROWING.replace("PAGES", &pages.to_string())).ram_bytes(96 << 20).build().unwrap()
}

fn grow(sandbox: &mut Sandbox, from: u64, more: u64) {
    assert_eq!(sandbox.call::<_, i32>("grow", more as i32).unwrap(), from as i32);
}

fn fill(sandbox: &mut Sandbox, start: u64, end: u64, byte: u8) {
    sandbox.call::<_, ()>("fill", (start as i32, i32::from(byte), end as i32)).unwrap();
}

#[track_caller]
fn holds(sandbox: &mut Sandbox, start: u64, end: u64, byte: u8) {
    let other: i32 = sandbox.call("other", (start as i32, i32::from(byte), end as i32)).unwrap();
    assert_eq!(other as u64, end, "{byte} from {start:#x} to {end:#x}");
}

/// Every page from the end of the memory up to another end traps, when read and when written.
#[track_caller]
fn is_closed(sandbox: &mut Sandbox, end: u64, up_to: u64) {
    for address in (end..up_to).step_by(PAGE as usize).chain([end + 1, up_to - 1]) {
        traps(sandbox, "load", &[Value::I32(address as i32)], TrapKind::MemoryOutOfBounds);
        traps(sandbox, "store", &[Value::I32(address as i32), Value::I32(9)], TrapKind::MemoryOutOfBounds);
    }
}

/// A sandbox that is at the snapshot, made in one of the ways from one that was not.
fn back(how: &str, sandbox: Sandbox, snapshot: &Snapshot) -> Sandbox {
    let mut sandbox = sandbox;
    match how {
        "in place" => sandbox.restore(snapshot).unwrap(),
        "twice" => {
            sandbox.restore(snapshot).unwrap();
            sandbox.restore(snapshot).unwrap();
        }
        "in a copy" => sandbox = Sandbox::from_snapshot(snapshot).unwrap(),
        "in a copy, in place" => {
            sandbox = Sandbox::from_snapshot(snapshot).unwrap();
            sandbox.call::<_, i32>("grow", 3).unwrap();
            let end = sandbox.memory_bytes().unwrap();
            fill(&mut sandbox, 0, end, 0x33);
            sandbox.restore(snapshot).unwrap();
        }
        "from a file" | "from a file, in place" => {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("a.snap");
            snapshot.save(&path).unwrap();
            let loaded = Snapshot::load_with(&path, &LoadOptions { verify: true, ..LoadOptions::default() }).unwrap();
            sandbox = Sandbox::from_snapshot(&loaded).unwrap();
            if how == "from a file, in place" {
                sandbox.call::<_, i32>("grow", 5).unwrap();
                let end = sandbox.memory_bytes().unwrap();
                fill(&mut sandbox, 0, end, 0x55);
                sandbox.restore(&loaded).unwrap();
            }
        }
        other => panic!("{other}"),
    }
    sandbox
}

const WAYS: [&str; 6] = ["in place", "twice", "in a copy", "in a copy, in place", "from a file", "from a file, in place"];

/// How many pages of 64 KiB there are, how many more there come to be: in one chunk of 2 MiB, up to its end, from its end, over
/// it, over several.
const GROWTHS: [(u64, u64); 8] = [(1, 1), (1, 30), (1, 31), (5, 40), (32, 1), (31, 2), (33, 100), (0, 1)];

#[test]
fn a_memory_that_grew_ends_where_it_ended() {
    if !kvm::usable() {
        return;
    }
    for (pages, more) in GROWTHS {
        for how in WAYS {
            let what = format!("{pages} pages and {more} more, {how}");
            println!("{what}");
            let (old_end, new_end) = (pages * WASM_PAGE, (pages + more) * WASM_PAGE);
            let mut sandbox = growing(pages);
            fill(&mut sandbox, 0, old_end, 0x11);
            let snapshot = sandbox.snapshot().unwrap();
            for round in 0..3 {
                grow(&mut sandbox, pages, more);
                holds(&mut sandbox, 0, old_end, 0x11);
                holds(&mut sandbox, old_end, new_end, 0);
                fill(&mut sandbox, 0, new_end, 0x22 + round);
                sandbox = back(how, sandbox, &snapshot);
                assert_eq!(sandbox.memory_bytes().unwrap(), old_end, "{what}");
                is_closed(&mut sandbox, old_end, new_end);
                holds(&mut sandbox, 0, old_end, 0x11);
            }
        }
    }
}

/// It grows by less than before: what is behind that stays closed.
#[test]
fn a_memory_that_grows_by_less_than_before_ends_there() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = growing(1);
    fill(&mut sandbox, 0, WASM_PAGE, 0x11);
    let snapshot = sandbox.snapshot().unwrap();
    for (first, second) in [(20, 3), (70, 3), (70, 35), (3, 20), (40, 31), (31, 30)] {
        grow(&mut sandbox, 1, first);
        fill(&mut sandbox, 0, (1 + first) * WASM_PAGE, 0x22);
        sandbox.restore(&snapshot).unwrap();
        grow(&mut sandbox, 1, second);
        let end = (1 + second) * WASM_PAGE;
        holds(&mut sandbox, WASM_PAGE, end, 0);
        fill(&mut sandbox, WASM_PAGE, end, 0x77);
        is_closed(&mut sandbox, end, end.max((1 + first) * WASM_PAGE) + WASM_PAGE);
        sandbox.restore(&snapshot).unwrap();
    }
}

/// Between snapshots of a memory in all sizes, in any order: as many growths lead to each, so numbers alone do not tell them
/// apart.
#[test]
fn snapshots_of_many_sizes_are_told_apart() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = growing(1);
    let first = sandbox.snapshot().unwrap();
    let mut snapshots = Vec::new();
    for pages in [2, 9, 17, 31, 32, 33, 50, 65] {
        sandbox.restore(&first).unwrap();
        grow(&mut sandbox, 1, pages - 1);
        fill(&mut sandbox, 0, pages * WASM_PAGE, pages as u8);
        snapshots.push((pages, sandbox.snapshot().unwrap()));
    }
    let mut random: u64 = 7;
    for _ in 0..60 {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let (pages, snapshot) = &snapshots[(random >> 33) as usize % snapshots.len()];
        sandbox.restore(snapshot).unwrap();
        let end = pages * WASM_PAGE;
        assert_eq!(sandbox.memory_bytes().unwrap(), end);
        for address in
            [end, end + WASM_PAGE / 2, end + WASM_PAGE, 64 * WASM_PAGE, 66 * WASM_PAGE].into_iter().filter(|at| *at >= end)
        {
            traps(&mut sandbox, "load", &[Value::I32(address as i32)], TrapKind::MemoryOutOfBounds);
        }
        holds(&mut sandbox, 0, end, *pages as u8);
        if random >> 40 & 1 == 0 {
            grow(&mut sandbox, *pages, 5);
            holds(&mut sandbox, end, end + 5 * WASM_PAGE, 0);
            fill(&mut sandbox, 0, end + 5 * WASM_PAGE, 0xee);
        }
    }
}

/// What was granted and never touched before the snapshot is touched after it.
#[test]
fn memory_that_was_never_touched_is_there_after_a_restore() {
    if !kvm::usable() {
        return;
    }
    for how in WAYS {
        let mut sandbox = growing(100);
        let snapshot = sandbox.snapshot().unwrap();
        fill(&mut sandbox, 0, 100 * WASM_PAGE, 1);
        let mut sandbox = back(how, sandbox, &snapshot);
        holds(&mut sandbox, 0, 100 * WASM_PAGE, 0);
        is_closed(&mut sandbox, 100 * WASM_PAGE, 104 * WASM_PAGE);
        fill(&mut sandbox, 0, 100 * WASM_PAGE, 2);
        sandbox.restore(&snapshot).unwrap_or_else(|error| assert!(how.contains("file"), "{how}: {error}"));
    }
}

/// Memories that a module brought that was instantiated later: their address space is used again after a restore.
#[test]
fn address_space_that_is_used_again_is_empty() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = build(r#"(module (memory (export "memory") 1))"#);
    let snapshot = sandbox.snapshot().unwrap();
    let large = GROWING.replace("PAGES", "40");
    let small = GROWING.replace("PAGES", "2");
    for _ in 0..3 {
        for (text, pages) in [(&large, 40), (&small, 2)] {
            let instance = sandbox.instantiate(text.as_bytes()).unwrap();
            let end = pages * WASM_PAGE;
            let arguments = |start: u64, byte, end: u64| [Value::I32(start as i32), Value::I32(byte), Value::I32(end as i32)];
            let other = sandbox.call_dynamic_of(instance, "other", &arguments(0, 0, end)).unwrap();
            assert_eq!(other, [Value::I32(end as i32)]);
            sandbox.call_dynamic_of(instance, "fill", &arguments(0, 0x44, end)).unwrap();
            for address in [end, end + PAGE, 39 * WASM_PAGE, 40 * WASM_PAGE].into_iter().filter(|at| *at >= end) {
                let result = sandbox.call_dynamic_of(instance, "load", &[Value::I32(address as i32)]);
                assert_eq!(trap(&mut sandbox, "load", result).kind, TrapKind::MemoryOutOfBounds, "{address:#x} of {pages}");
            }
            sandbox.restore(&snapshot).unwrap();
        }
    }
}
