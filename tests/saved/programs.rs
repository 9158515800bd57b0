//! Modules and snapshots of them that these tests save.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use mote_vmm::{Caller, Sandbox, SandboxBuilder, Snapshot};
use tempfile::TempDir;

use crate::support::engine::sandbox_builder;

/// Least RAM that a guest can have.
pub(crate) const SMALL_RAM_BYTES: u64 = 16 << 20;
/// More than a call of these tests takes, however busy the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// What [`small`] has at this address of its memory.
pub(crate) const MARK: (i32, i32) = (1000, 77);

/// Memory that is read, written and grown, a global, and a loop without end.
pub(crate) const PLAIN: &str = r#"(module
    (memory (export "memory") 1)
    (global (export "counter") (mut i32) (i32.const 7))
    (func (export "add") (param i32 i32) (result i32) local.get 0 local.get 1 i32.add)
    (func (export "load") (param i32) (result i32) local.get 0 i32.load)
    (func (export "store") (param i32 i32) local.get 0 local.get 1 i32.store)
    (func (export "grow") (param i32) (result i32) local.get 0 memory.grow)
    (func (export "spin") (loop br 0)))"#;

/// The same with a function of the host that it calls.
pub(crate) const CALLS_HOST: &str = r#"(module
    (import "env" "twice" (func $twice (param i32) (result i32)))
    (import "env" "note" (func $note (param i64)))
    (func (export "twice") (param i32) (result i32) local.get 0 call $twice)
    (func (export "note") (param i64) local.get 0 call $note))"#;

/// `read` gives the first four bytes of the file `a` of the directory that is descriptor 3, or minus an error number.
pub(crate) const READS_FILE: &str = r#"(module
    (import "wasi_snapshot_preview1" "path_open"
        (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "a")
    (data (i32.const 16) "\40\00\00\00\04\00\00\00")
    (func (export "read") (result i32) (local $error i32)
        (local.set $error (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0)
            (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 32)))
        (if (local.get $error) (then (return (i32.sub (i32.const 0) (local.get $error)))))
        (local.set $error (call $read (i32.load (i32.const 32)) (i32.const 16) (i32.const 1) (i32.const 36)))
        (drop (call $close (i32.load (i32.const 32))))
        (if (local.get $error) (then (return (i32.sub (i32.const 0) (local.get $error)))))
        (i32.load (i32.const 0x40))))"#;

/// Clocks and random numbers.
pub(crate) const ASKS_CHANCE: &str = r#"(module
    (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "random") (result i64) (drop (call $random (i32.const 0) (i32.const 8))) (i64.load (i32.const 0)))
    (func (export "clock") (param i32) (result i64)
        (drop (call $clock (local.get 0) (i64.const 1) (i32.const 0))) (i64.load (i32.const 0))))"#;

/// Writes what it reads, up to 64 bytes.
pub(crate) const ECHO: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "\40\00\00\00\40\00\00\00")
    (func (export "_start")
        (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
        (i32.store (i32.const 4) (i32.load (i32.const 8)))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

pub(crate) fn builder(module: &str) -> SandboxBuilder {
    sandbox_builder().module_bytes(module).ram_bytes(SMALL_RAM_BYTES).deadline(PATIENCE)
}

pub(crate) fn with_functions(builder: SandboxBuilder) -> SandboxBuilder {
    builder.func("env", "twice", |_: Caller<'_>, value: i32| 2 * value).func("env", "note", |_: Caller<'_>, _: i64| ())
}

/// A snapshot of [`PLAIN`] with [`MARK`] in its memory.
pub(crate) fn small() -> Snapshot {
    let mut sandbox = builder(PLAIN).build().unwrap();
    sandbox.call::<_, ()>("store", MARK).unwrap();
    sandbox.snapshot().unwrap()
}

/// A place for files.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Saves it as a file of its own, whose path is returned.
    pub(crate) fn save(&self, snapshot: &Snapshot, name: &str) -> PathBuf {
        let path = self.file(name);
        snapshot.save(&path).unwrap();
        path
    }
}

/// A folder with a snapshot of [`small`] in a file: the snapshot as it was taken, the file, and what was loaded from it.
pub(crate) fn small_in_file() -> (Folder, Snapshot, PathBuf, Snapshot) {
    let (folder, taken) = (Folder::new(), small());
    let path = folder.save(&taken, "a");
    let loaded = Snapshot::load(&path).unwrap();
    (folder, taken, path, loaded)
}

/// Checks that a snapshot of [`small`] works: the host is sound.
#[track_caller]
pub(crate) fn assert_works(snapshot: &Snapshot) {
    let mut sandbox = Sandbox::from_snapshot(snapshot).unwrap();
    assert_eq!(sandbox.call::<_, i32>("load", MARK.0).unwrap(), MARK.1);
    assert_eq!(sandbox.call::<_, i32>("add", (20, 22)).unwrap(), 42);
    sandbox.restore(snapshot).unwrap();
    assert_eq!(sandbox.call::<_, i32>("load", MARK.0).unwrap(), MARK.1);
}
