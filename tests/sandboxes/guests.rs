//! Modules that more than one test uses, and random numbers that are the same in each run.

use mote_vmm::{Sandbox, SandboxBuilder};

use crate::support::engine::sandbox_builder;

/// A memory of one page, and everything that one wants of it.
pub(crate) const MEMORY: &str = r#"(module
    (memory (export "memory") 1)
    (global (export "g") (mut i32) (i32.const 7))
    (func (export "nothing"))
    (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
    (func (export "load") (param i32) (result i32) (i32.load8_u (local.get 0)))
    (func (export "store") (param i32 i32) (i32.store8 (local.get 0) (local.get 1)))
    (func (export "fill") (param $at i32) (param $byte i32) (param $bytes i32)
        (memory.fill (local.get $at) (local.get $byte) (local.get $bytes)))
    (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
    (func (export "count") (result i32)
        (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
        (i32.load (i32.const 0)))
    (func (export "trap") unreachable)
    (func $overflow (export "overflow") (call $overflow))
    (func (export "spin") (loop (br 0)))
)"#;

/// Reads standard input in pieces of up to five bytes, and prints each, until the end; then ends with the status 3.
pub(crate) const ECHO: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (data (i32.const 100) "ready\n")
    (func $print (param $at i32) (param $bytes i32)
        (i32.store (i32.const 0) (local.get $at))
        (i32.store (i32.const 4) (local.get $bytes))
        (if (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)) (then unreachable)))
    (func (export "_start")
        (call $print (i32.const 100) (i32.const 6))
        (loop $again
            (i32.store (i32.const 0) (i32.const 200))
            (i32.store (i32.const 4) (i32.const 5))
            (if (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)) (then unreachable))
            (if (i32.eqz (i32.load (i32.const 8))) (then (call $exit (i32.const 3))))
            (call $print (i32.const 200) (i32.load (i32.const 8)))
            (br $again)))
)"#;

/// Begins to make a sandbox of a module in the text format, with less RAM than usual.
pub(crate) fn builder(text: &str) -> SandboxBuilder {
    sandbox_builder().module_bytes(text).ram_bytes(64 << 20)
}

#[track_caller]
pub(crate) fn build(text: &str) -> Sandbox {
    builder(text).build().unwrap()
}

/// Numbers that look random: Marsaglia's xorshift64.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| (self.next() >> 24) as u8).collect()
    }
}
