//! Accesses of linear memory of every width, around its exact end.

use std::fmt::Write;

use mote_vmm::{Sandbox, TrapKind, Value};

use super::guests::{build, builder, traps};
use crate::support::kvm;

/// Instructions, how many bytes they access, and what they take beside the address: of a load nothing.
struct Access {
    name: &'static str,
    bytes: u64,
    operand: &'static str,
    lane: &'static str,
}

const fn load(name: &'static str, bytes: u64) -> Access {
    Access { name, bytes, operand: "", lane: "" }
}

const fn store(name: &'static str, bytes: u64, operand: &'static str) -> Access {
    Access { name, bytes, operand, lane: "" }
}

const fn lane(name: &'static str, bytes: u64) -> Access {
    Access { name, bytes, operand: V, lane: "0" }
}

const I: &str = "(i32.const -1)";
const L: &str = "(i64.const -1)";
const F: &str = "(f32.const 1)";
const D: &str = "(f64.const 1)";
const V: &str = "(v128.const i64x2 -1 -1)";

const ACCESSES: [Access; 46] = [
    load("i32.load8_u", 1),
    load("i32.load8_s", 1),
    load("i32.load16_u", 2),
    load("i32.load16_s", 2),
    load("i32.load", 4),
    load("i64.load8_u", 1),
    load("i64.load8_s", 1),
    load("i64.load16_u", 2),
    load("i64.load16_s", 2),
    load("i64.load32_u", 4),
    load("i64.load32_s", 4),
    load("i64.load", 8),
    load("f32.load", 4),
    load("f64.load", 8),
    load("v128.load", 16),
    load("v128.load8x8_s", 8),
    load("v128.load8x8_u", 8),
    load("v128.load16x4_s", 8),
    load("v128.load16x4_u", 8),
    load("v128.load32x2_s", 8),
    load("v128.load32x2_u", 8),
    load("v128.load8_splat", 1),
    load("v128.load16_splat", 2),
    load("v128.load32_splat", 4),
    load("v128.load64_splat", 8),
    load("v128.load32_zero", 4),
    load("v128.load64_zero", 8),
    lane("v128.load8_lane", 1),
    lane("v128.load16_lane", 2),
    lane("v128.load32_lane", 4),
    lane("v128.load64_lane", 8),
    lane("v128.store8_lane", 1),
    lane("v128.store16_lane", 2),
    lane("v128.store32_lane", 4),
    lane("v128.store64_lane", 8),
    store("i32.store8", 1, I),
    store("i32.store16", 2, I),
    store("i32.store", 4, I),
    store("i64.store8", 1, L),
    store("i64.store16", 2, L),
    store("i64.store32", 4, L),
    store("i64.store", 8, L),
    store("f32.store", 4, F),
    store("f64.store", 8, D),
    store("v128.store", 16, V),
    load("i32.load offset=0", 4),
];

/// Constant offsets: none, small, around a page, the size of the guards, half of all and all that an offset can be.
const OFFSETS: [u64; 9] = [0, 1, 65535, 65536, (32 << 20) - 8, 32 << 20, 1 << 31, (1 << 32) - 8, (1 << 32) - 1];

fn function_name(access: &Access, memory: usize, offset: u64) -> String {
    format!("{} {memory} {offset}", access.name)
}

/// A function for each access with each offset in each memory; `ty` is that of addresses.
fn functions(ty: &str, memories: usize, offsets: &[u64]) -> String {
    let mut text = String::new();
    for memory in 0..memories {
        for access in &ACCESSES {
            for offset in offsets {
                let name = function_name(access, memory, *offset);
                let Access { name: instruction, operand, lane, .. } = access;
                let instruction = instruction.split(' ').next().unwrap();
                let drops = if instruction.contains("store") { "" } else { "drop" };
                writeln!(
                    text,
                    "(func $\"{name}\" (export \"{name}\") (param {ty}) local.get 0 {operand} {instruction} {memory} offset={offset} align=1 {lane} {drops})",
                )
                .unwrap();
            }
        }
    }
    text
}

/// Tries all accesses of a memory of so many bytes, in its last bytes and from there on. Addresses are what `value` makes of
/// numbers, which wrap at `limit`.
fn check(sandbox: &mut Sandbox, memory: usize, memory_bytes: u64, offsets: &[u64], limit: u64, value: fn(u64) -> Value) {
    for access in &ACCESSES {
        for offset in offsets {
            let name = function_name(access, memory, *offset);
            // The last address that is good, if there is one.
            let last = memory_bytes.checked_sub(access.bytes).and_then(|last| last.checked_sub(*offset));
            let bad = match last {
                Some(last) => {
                    sandbox.call_dynamic(&name, &[value(last)]).unwrap_or_else(|error| panic!("{name} of {last:#x}: {error:?}"));
                    vec![last + 1, last + access.bytes, last + 4096, limit]
                }
                None => vec![0, 1, limit / 2, limit],
            };
            for address in bad {
                traps(sandbox, &name, &[value(address)], TrapKind::MemoryOutOfBounds);
            }
        }
    }
}

fn word(address: u64) -> Value {
    Value::I32(address as u32 as i32)
}

fn long(address: u64) -> Value {
    Value::I64(address as i64)
}

#[test]
fn every_access_traps_at_the_exact_end_and_again_after_growth() {
    if !kvm::usable() {
        return;
    }
    let text = format!(
        r#"(module (memory 1) (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0))) {})"#,
        functions("i32", 1, &OFFSETS)
    );
    let mut sandbox = build(&text);
    let mut pages = 1;
    // Inside of a chunk, to its end, and over it.
    for more in [0, 3, 28, 1, 40] {
        assert_eq!(sandbox.call::<_, i32>("grow", more).unwrap(), pages);
        pages += more;
        check(&mut sandbox, 0, pages as u64 * 65536, &OFFSETS, u64::from(u32::MAX), word);
    }
}

#[test]
fn a_memory_of_nothing_has_no_byte() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = build(&format!("(module (memory 0) {})", functions("i32", 1, &[0, 1])));
    check(&mut sandbox, 0, 0, &[0, 1], u64::from(u32::MAX), word);
}

#[test]
fn memories_do_not_reach_into_each_other() {
    if !kvm::usable() {
        return;
    }
    let offsets = [0, 65536, 32 << 20, (1 << 32) - 1];
    let text = format!("(module (memory 1) (memory 2 2) (memory 33) {})", functions("i32", 3, &offsets));
    let mut sandbox = build(&text);
    for (memory, pages) in [(0, 1), (1, 2), (2, 33)] {
        check(&mut sandbox, memory, pages * 65536, &offsets, u64::from(u32::MAX), word);
    }
}

#[test]
fn memories_of_64_bits_end_where_they_end() {
    if !kvm::usable() {
        return;
    }
    let offsets = [0, 1, 65535, 65536, 32 << 20, 1 << 32, 1 << 33, 1 << 47, 1 << 63, u64::MAX];
    let text = format!(
        r#"(module (memory i64 1) (func (export "grow") (param i64) (result i64) (memory.grow (local.get 0))) {})"#,
        functions("i64", 1, &offsets)
    );
    let mut sandbox = build(&text);
    let mut pages = 1;
    for more in [0, 31, 32] {
        assert_eq!(sandbox.call::<_, i64>("grow", more).unwrap(), pages);
        pages += more;
        check(&mut sandbox, 0, pages as u64 * 65536, &offsets, u64::MAX, long);
    }
}

/// Larger than the address space that is reserved for a memory at first, and over more than one slot.
#[test]
fn a_memory_of_more_than_four_gibibytes_is_whole() {
    if !kvm::usable() {
        return;
    }
    let text = r#"(module (memory i64 196608)
        (func $load (export "load") (param i64) (result i64) (i64.load (local.get 0)))
        (func $store (export "store") (param i64 i64) (i64.store (local.get 0) (local.get 1))))"#;
    // 12 GiB of them, of which little is touched.
    let mut sandbox = builder(text).ram_bytes(14 << 30).build().unwrap();
    let end: u64 = 12 << 30;
    let addresses = [0, (4 << 30) - 4, (4 << 30) + 8, (8 << 30) - (32 << 20) - 4, (8 << 30) - 4, (8 << 30) + 9, end - 8];
    for address in addresses {
        assert_eq!(sandbox.call::<_, i64>("load", address as i64).unwrap(), 0, "{address:#x}");
        sandbox.call::<_, ()>("store", (address as i64, !address as i64)).unwrap();
    }
    for address in addresses {
        assert_eq!(sandbox.call::<_, i64>("load", address as i64).unwrap(), !address as i64, "{address:#x}");
    }
    for address in [end - 7, end, end + (16 << 20), end + (4 << 30), 1 << 46, u64::MAX] {
        traps(&mut sandbox, "load", &[long(address)], TrapKind::MemoryOutOfBounds);
        traps(&mut sandbox, "store", &[long(address), long(1)], TrapKind::MemoryOutOfBounds);
    }
}

/// A store that does not lie in the memory as a whole writes nothing.
#[test]
fn a_store_over_the_end_writes_no_byte() {
    if !kvm::usable() {
        return;
    }
    let text = r#"(module (memory (export "memory") 1)
        (func $v (export "v") (param i32) (v128.store (local.get 0) (v128.const i64x2 -1 -1)))
        (func $l (export "l") (param i32) (i64.store (local.get 0) (i64.const -1)))
        (func $fill (export "fill") (param i32) (memory.fill (local.get 0) (i32.const 255) (i32.const 100)))
        (func $copy (export "copy") (param i32) (memory.copy (local.get 0) (i32.const 0) (i32.const 100)))
        (func $init (export "init") (param i32) (memory.init $d (local.get 0) (i32.const 0) (i32.const 3)))
        (data $d "abc")
        (data (i32.const 0) "abc"))"#;
    let mut sandbox = build(text);
    for name in ["v", "l", "fill", "copy", "init"] {
        for distance in [1, 2] {
            traps(&mut sandbox, name, &[Value::I32(65536 - distance)], TrapKind::MemoryOutOfBounds);
            let mut end = [1; 16];
            sandbox.read_memory(65536 - 16, &mut end).unwrap();
            assert_eq!(end, [0; 16], "{name}");
        }
    }
}
