//! `mote snapshot`, `mote run` of snapshots and `mote bench`, as commands.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]
#![allow(clippy::cast_possible_truncation, reason = "kernel images of tests are small")]

mod snapshots {
    mod bench;
    mod confined;
    mod files;
    mod help;
    mod interpreters;
    mod running;
    mod taking;
}
mod support {
    pub(crate) mod command;
    pub(crate) mod engine;
    #[allow(dead_code, reason = "shared with other tests")]
    pub(crate) mod image;
    pub(crate) mod kvm;
}

use std::{
    fs,
    path::{Path, PathBuf},
};

use support::{
    command::{Outcome, module_file, payload, run},
    kvm,
};
use tempfile::TempDir;

/// A folder for snapshots, gone at the end.
struct Folder(TempDir);

impl Folder {
    /// `None`, with the reason on standard error, where there is no KVM.
    fn new() -> Option<Self> {
        kvm::usable().then(|| Self(tempfile::tempdir().expect("no temporary directory")))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Takes a snapshot of a module in either format, which must work and say nothing.
    #[track_caller]
    fn take(&self, name: &str, options: &[&str], module: impl AsRef<[u8]>, arguments: &[&str]) -> String {
        let outcome = self.try_take(name, options, module, arguments).expect(0);
        assert_eq!(outcome.stderr, "");
        self.text(name)
    }

    fn try_take(&self, name: &str, options: &[&str], module: impl AsRef<[u8]>, arguments: &[&str]) -> Outcome {
        let (module, file) = (module_file(module), self.text(name));
        let module = module.path().display().to_string();
        run([&["snapshot", "-o", &file], options, &[&module], arguments].concat())
    }

    /// The same of a file of `wasm-payloads/`.
    #[track_caller]
    fn take_payload(&self, name: &str, options: &[&str], file: &str) -> String {
        self.take(name, options, fs::read(payload(file)).unwrap(), &[])
    }

    /// What lies there.
    fn names(&self) -> Vec<String> {
        fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

/// Runs `mote run [OPTIONS] SNAPSHOT [ARGS]`.
#[track_caller]
fn run_snapshot(options: &[&str], snapshot: &str, arguments: &[&str]) -> Outcome {
    run([&["run"], options, &[snapshot], arguments].concat())
}

fn exists(path: impl AsRef<Path>) -> bool {
    path.as_ref().exists()
}

/// Counts: a global, a memory that holds a copy of it, and a start function that adds a hundred.
const COUNTER: &str = r#"(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (global $count (export "count") (mut i32) (i32.const 0))
  (func $add (param i32) (result i32)
    (global.set $count (i32.add (global.get $count) (local.get 0)))
    (i32.store (i32.const 64) (global.get $count))
    (i32.load (i32.const 64)))
  (func (export "_start") (drop (call $add (i32.const 100))))
  (func (export "add") (param i32) (result i32) (call $add (local.get 0)))
  (func (export "get") (result i32) (global.get $count))
  (func (export "exit") (param i32) (call $exit (local.get 0)))
  (func (export "trap") unreachable)
  (func (export "spin") (loop (br 0)))
  (func (export "swap") (param i64 f64) (result f64 i64) (local.get 1) (local.get 0)))"#;
