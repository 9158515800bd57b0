//! Runs WebAssembly modules, each in its own micro VM.
//!
//! A [`Sandbox`] is a module, instantiated in a VM that stays: it is called as often as one likes, and calls functions of the host.
//! A [`Snapshot`] is a sandbox at rest: one goes back to it, makes copies of it, keeps it in a file. A [`Pool`] lends out clean
//! copies of one. A [`Vm`] runs a program once, from beginning to end, as `mote run` does.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # if let Err(error) = mote_vmm::open_kvm() {
//! #     println!("skipped: {error}");
//! #     return Ok(());
//! # }
//! use std::time::Duration;
//!
//! use mote_vmm::{AccessError, Caller, Checkout, Pool, PoolOptions, Sandbox};
//!
//! let plugin = r#"(module
//!     (import "env" "log" (func $log (param i32 i32)))
//!     (memory (export "memory") 1)
//!     (data (i32.const 0) "adding")
//!     (func (export "add") (param i32 i32) (result i32)
//!       (call $log (i32.const 0) (i32.const 6))
//!       (i32.add (local.get 0) (local.get 1))))"#;
//!
//! let mut sandbox = Sandbox::builder()
//!     .module_bytes(plugin)                // or `module_file`; binary or text format
//!     .fuel(10_000_000)                    // for each call; not counted without this
//!     .deadline(Duration::from_secs(10))   // for each call; 30 s without this
//!     .func("env", "log", |caller: Caller<'_>, pointer: u32, bytes: u32| -> Result<(), AccessError> {
//!         let text = caller.read_memory_to_vec(pointer.into(), bytes.into())?;
//!         println!("{}", String::from_utf8_lossy(&text));
//!         Ok(())
//!     })
//!     .build()?;
//!
//! let sum: i32 = sandbox.call("add", (2, 3))?;         // typed by tuples
//! assert_eq!(sum, 5);
//!
//! let snapshot = sandbox.snapshot()?;
//! sandbox.restore(&snapshot)?;                         // costs what was written since
//! let mut copy = Sandbox::from_snapshot(&snapshot)?;   // shares every page that it does not write
//! let sum: i32 = copy.call("add", (3, 4))?;
//! assert_eq!(sum, 7);
//!
//! let pool = Pool::new(&snapshot, PoolOptions { max_sandboxes: 64, prewarmed: 2 })?;
//! let sum: i32 = pool.checkout(Checkout::Wait)?.call("add", (4, 5))?;
//! assert_eq!(sum, 9);
//! # Ok(())
//! # }
//! ```
//!
//! Making a VM takes a millisecond or less, and dropping one about as long, as it waits for KVM; a call, with the restore that
//! cleans up behind it, takes tens of microseconds. So keep sandboxes and restore them, or let a pool do that.
//!
//! # Calls and functions of the host
//!
//! Calls are typed by tuples of numbers ([`WasmType`]), and checked against the type of the export before they begin. Types that are
//! known only at run time have [`Sandbox::call_dynamic`]. A function of the host may have an error type of its own, and its caller's
//! caller gets that back:
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # if let Err(error) = mote_vmm::open_kvm() {
//! #     println!("skipped: {error}");
//! #     return Ok(());
//! # }
//! use mote_vmm::{Caller, Sandbox};
//!
//! #[derive(Debug, PartialEq)]
//! struct NoSuchUser(u32);
//!
//! impl std::fmt::Display for NoSuchUser {
//!     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
//!         write!(f, "there is no user {}", self.0)
//!     }
//! }
//!
//! impl std::error::Error for NoSuchUser {}
//!
//! let mut sandbox = Sandbox::builder()
//!     .module_bytes(
//!         r#"(module
//!             (import "env" "age" (func $age (param i32) (result i32)))
//!             (func (export "twice_the_age") (param i32) (result i32)
//!               (i32.mul (i32.const 2) (call $age (local.get 0)))))"#,
//!     )
//!     .func("env", "age", |_: Caller<'_>, user: u32| if user == 7 { Ok(30_u32) } else { Err(NoSuchUser(user)) })
//!     .build()?;
//!
//! assert_eq!(sandbox.call::<_, u32>("twice_the_age", 7_u32)?, 60);
//!
//! let error = sandbox.call::<_, u32>("twice_the_age", 8_u32).unwrap_err();
//! assert_eq!(error.host_error::<NoSuchUser>(), Some(&NoSuchUser(8)));
//! # Ok(())
//! # }
//! ```
//!
//! A closure keeps what it captured: a restore, or the renewal of a pool's sandbox, brings back the guest, not the closure. State
//! that belongs to one use of a sandbox is better in its data ([`Sandbox::set_data`], [`Caller::data`]): a pool renews that.
//!
//! # Limits
//!
//! A call ends by lack of fuel, at its deadline, or by an [`InterruptHandle`] from any thread. What it was doing is half done then,
//! so the sandbox is [poisoned](SandboxState::Poisoned) and refuses calls until it is restored.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # if let Err(error) = mote_vmm::open_kvm() {
//! #     println!("skipped: {error}");
//! #     return Ok(());
//! # }
//! use std::{thread, time::Duration};
//!
//! use mote_vmm::{CallError, Poison, Sandbox, SandboxState, TrapKind};
//!
//! let mut sandbox = Sandbox::builder()
//!     .module_bytes(r#"(module (func (export "spin") (loop (br 0))))"#)
//!     .fuel(100_000)
//!     .build()?;
//! let snapshot = sandbox.snapshot()?;
//!
//! let error = sandbox.call::<_, ()>("spin", ()).unwrap_err();
//! assert_eq!(error.trap().map(|trap| trap.kind), Some(TrapKind::OutOfFuel));
//!
//! sandbox.restore(&snapshot)?;
//! sandbox.set_fuel(u64::MAX);
//! sandbox.set_deadline(Some(Duration::from_millis(50)));
//! let error = sandbox.call::<_, ()>("spin", ()).unwrap_err();
//! assert!(matches!(error, CallError::DeadlineExceeded));
//!
//! sandbox.restore(&snapshot)?;
//! sandbox.set_deadline(None);
//! let handle = sandbox.interrupt_handle();   // for the next call, and no later one
//! let other = thread::spawn(move || handle.interrupt());
//! let error = sandbox.call::<_, ()>("spin", ()).unwrap_err();
//! assert!(matches!(error, CallError::Interrupted));
//! assert!(other.join().is_ok_and(|in_time| in_time));
//! assert_eq!(sandbox.state(), SandboxState::Poisoned(Poison::Interrupted));
//! # Ok(())
//! # }
//! ```
//!
//! The interpreter translates a function when it is first called, and that takes fuel, too. With [`Translation::Eager`] all are
//! translated when the module is loaded. Choose it for what a snapshot is taken of: otherwise each restored or copied sandbox
//! translates again whatever was not called before the snapshot.
//!
//! # Snapshots and copies
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # if let Err(error) = mote_vmm::open_kvm() {
//! #     println!("skipped: {error}");
//! #     return Ok(());
//! # }
//! use mote_vmm::{Sandbox, Translation};
//!
//! let mut sandbox = Sandbox::builder()
//!     .module_bytes(
//!         r#"(module
//!             (global $count (mut i32) (i32.const 0))
//!             (func (export "count") (result i32)
//!               (global.set $count (i32.add (global.get $count) (i32.const 1)))
//!               (global.get $count)))"#,
//!     )
//!     .translation(Translation::Eager)
//!     .build()?;
//! let count = sandbox.func::<(), i32>("count")?;   // looked up once, good for all copies
//! assert_eq!(sandbox.call_func(count, ())?, 1);
//!
//! let snapshot = sandbox.snapshot()?;
//! let (mut one, mut other) = (Sandbox::from_snapshot(&snapshot)?, Sandbox::from_snapshot(&snapshot)?);
//! assert_eq!((one.call_func(count, ())?, one.call_func(count, ())?), (2, 3));
//! assert_eq!(other.call_func(count, ())?, 2);
//!
//! one.restore(&snapshot)?;
//! assert_eq!(one.call_func(count, ())?, 2);
//! # Ok(())
//! # }
//! ```
//!
//! A file holds a snapshot for another process. Functions of the host are not in it, so copies are given them; fuel and deadline are,
//! so give copies of a file that you do not trust your own.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # if let Err(error) = mote_vmm::open_kvm() {
//! #     println!("skipped: {error}");
//! #     return Ok(());
//! # }
//! use std::time::Duration;
//!
//! use mote_vmm::{Caller, Sandbox, Snapshot};
//!
//! let mut sandbox = Sandbox::builder()
//!     .module_bytes(
//!         r#"(module
//!             (import "env" "twice" (func $twice (param i32) (result i32)))
//!             (func (export "four_times") (param i32) (result i32) (call $twice (call $twice (local.get 0)))))"#,
//!     )
//!     .func("env", "twice", |_: Caller<'_>, number: i32| 2 * number)
//!     .build()?;
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path();
//! let file = folder.join("plugin.snap");
//! sandbox.snapshot()?.save(&file)?;
//!
//! let snapshot = Snapshot::load(&file)?;   // maps it; pages are read when they are needed
//! let mut copy = snapshot
//!     .sandbox()
//!     .deadline(Duration::from_secs(10))
//!     .func("env", "twice", |_: Caller<'_>, number: i32| 2 * number)
//!     .build()?;
//! assert_eq!(copy.call::<_, i32>("four_times", 3)?, 12);
//! # Ok(())
//! # }
//! ```
//!
//! # Pools
//!
//! Each thread takes a sandbox out, and dropping it cleans it and gives it back.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! # if let Err(error) = mote_vmm::open_kvm() {
//! #     println!("skipped: {error}");
//! #     return Ok(());
//! # }
//! use std::{error::Error, thread};
//!
//! use mote_vmm::{Checkout, Pool, PoolOptions, Sandbox};
//!
//! fn serve(pool: &Pool, request: i32) -> Result<i32, Box<dyn Error + Send + Sync>> {
//!     let mut sandbox = pool.checkout(Checkout::Wait)?;
//!     Ok(sandbox.call("add", request)?)
//! }
//!
//! let snapshot = Sandbox::builder()
//!     .module_bytes(
//!         r#"(module
//!             (global $sum (mut i32) (i32.const 0))
//!             (func (export "add") (param i32) (result i32)
//!               (global.set $sum (i32.add (global.get $sum) (local.get 0)))
//!               (global.get $sum)))"#,
//!     )
//!     .build()?
//!     .snapshot()?;
//! let pool = Pool::new(&snapshot, PoolOptions { max_sandboxes: 2, prewarmed: 1 })?;
//!
//! let sums = thread::scope(|scope| {
//!     let threads: Vec<_> = (0..4).map(|request| scope.spawn({ let pool = &pool; move || serve(pool, request) })).collect();
//!     threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Result<Vec<_>, _>>()
//! })?;
//! assert_eq!(sums, [0, 1, 2, 3]);   // none of them found the sum of another
//! assert_eq!(pool.stats().checkouts, 4);
//! # Ok(())
//! # }
//! ```
//!
//! # Programs
//!
//! A sandbox of a WASI command is given arguments, environment, streams and directories, and started.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # if let Err(error) = mote_vmm::open_kvm() {
//! #     println!("skipped: {error}");
//! #     return Ok(());
//! # }
//! use std::sync::mpsc;
//!
//! use mote_vmm::{Output, Sandbox};
//!
//! let (sender, output) = mpsc::channel();
//! let mut sandbox = Sandbox::builder()
//!     .module_bytes(
//!         r#"(module
//!             (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
//!             (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
//!             (memory (export "memory") 1)
//!             (func (export "_start")
//!               ;; Pointers to the arguments from 16 on, the arguments themselves from 64 on.
//!               (drop (call $args_get (i32.const 16) (i32.const 64)))
//!               ;; Five bytes of the second one, to standard output.
//!               (i32.store (i32.const 0) (i32.load (i32.const 20)))
//!               (i32.store (i32.const 4) (i32.const 5))
//!               (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#,
//!     )
//!     .args(["greet", "hello"])
//!     .stdout(Output::callback(move |bytes| sender.send(bytes.to_vec()).map_err(std::io::Error::other)))
//!     .build()?;
//!
//! assert_eq!(sandbox.start()?, 0);
//! assert_eq!(output.try_iter().collect::<Vec<_>>().concat(), b"hello");
//! # Ok(())
//! # }
//! ```
//!
//! A program that runs once needs no sandbox:
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # if let Err(error) = mote_vmm::open_kvm() {
//! #     println!("skipped: {error}");
//! #     return Ok(());
//! # }
//! use mote_vmm::{Config, Ending, KernelImage, Module, Vm};
//!
//! # let bytes = r#"(module
//! #     (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
//! #     (memory (export "memory") 1)
//! #     (func (export "_start") (call $exit (i32.const 3))))"#;
//! let kernel = KernelImage::embedded()?;
//! let module = Module::from_bytes("app".as_ref(), bytes.into())?;   // both are shared by any number of VMs
//! let config = Config { arguments: vec!["app".into()], ..Config::default() };
//! let report = Vm::new(&kernel, &module, config)?.run();
//! assert!(matches!(report.ending, Ending::Exited(3)));
//! # Ok(())
//! # }
//! ```
//!
//! # Memory
//!
//! The memory that a module exports as `memory` is read and written from outside, between calls, and by functions of the host
//! ([`Caller::read_memory`], [`Caller::write_memory`]) in the middle of one. Each range is checked.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # if let Err(error) = mote_vmm::open_kvm() {
//! #     println!("skipped: {error}");
//! #     return Ok(());
//! # }
//! use mote_vmm::{AccessError, Sandbox, Value};
//!
//! let mut sandbox = Sandbox::builder()
//!     .module_bytes(
//!         r#"(module
//!             (memory (export "memory") 1)
//!             (global (export "calls") (mut i32) (i32.const 0))
//!             (func (export "double") (param i32)
//!               (global.set 0 (i32.add (global.get 0) (i32.const 1)))
//!               (i32.store (local.get 0) (i32.mul (i32.const 2) (i32.load (local.get 0))))))"#,
//!     )
//!     .build()?;
//!
//! sandbox.write_memory(1000, &21_i32.to_le_bytes())?;
//! sandbox.call::<_, ()>("double", 1000)?;
//! let mut number = [0; 4];
//! sandbox.read_memory(1000, &mut number)?;
//! assert_eq!(i32::from_le_bytes(number), 42);
//! assert_eq!(sandbox.global("calls")?, Value::I32(1));
//!
//! let outside = sandbox.read_memory(65_533, &mut number);
//! assert!(matches!(outside, Err(AccessError::OutOfBounds { .. })));
//! # Ok(())
//! # }
//! ```
//!
//! # The way of a call through this crate
//!
//! [`Module`] and [`KernelImage`] (loader) → [`Sandbox`] or [`Vm`] (memory, tables, vCPU) → run loop → exit → request → one service
//! each for output, standard input, files, sockets, waiting and clocks, or a function of the host. What the guest says is an
//! allegation everywhere: it is copied in, checked, and answered or refused, and no value of it can make this crate panic.

#[cfg(feature = "compiled")]
mod compile;
mod config;
mod confinement;
mod control;
mod cpu;
#[cfg(feature = "gdb")]
mod debug;
mod directory;
mod ending;
mod engine;
mod exit;
mod guest_io;
mod guest_ram;
mod image;
pub mod inspect;
mod kvm;
mod machine;
mod memory;
mod module;
mod pagemap;
mod ram_image;
mod ramdisk;
mod record;
mod request;
mod run;
mod sandbox;
mod service;
mod slots;
mod stats;
mod tables;
mod vcpu;
mod vm;

#[cfg(feature = "compiled")]
pub use compile::{
    Artifact, ArtifactCache, ArtifactError, CacheEntry, CacheError, CacheKey, CompileError, CompileLimits, CompileOptions,
    CompileProgress, CpuFeatures, TargetCpu, UnknownTargetCpu, WASMTIME_VERSION, compile,
};
pub use config::{
    ClockSource, Config, ConfigError, Entry, Input, InputCallback, Limits, LogLevel, Output, OutputCallback, SharedBuffer,
    Translation,
};
pub use confinement::{Confinement, ConfinementError, ConfinementSupport, Layer};
pub use control::InterruptHandle;
#[cfg(feature = "gdb")]
pub use debug::{DebugReport, Debuggee, Departure};
pub use directory::{Access, Directory, DirectoryError};
pub use ending::{Ending, Exception, Frame, GuestFault, HostFailure, Rejection, Trap, TrapKind};
#[cfg(feature = "compiled")]
pub use engine::CompiledOptions;
pub use engine::{Engine, EngineError};
pub use image::{ImageError, KernelImage};
pub use kvm::{KvmError, open as open_kvm};
pub use memory::MemoryError;
pub use module::{Module, ModuleError};
pub use mote_abi::value::ValueType;
pub use ramdisk::{Ramdisk, RamdiskError};
pub use record::{EndRecord, Record, RecordReader};
pub use sandbox::{
    AccessError, BuildError, CallError, Caller, Checkout, CopyBuilder, Export, ExportType, Func, FuncRef, FuncType, HostClosure,
    HostError, HostReturned, Instance, LoadError, LoadOptions, OtherRef, Poison, Pool, PoolError, PoolOptions, PoolStats, Pooled,
    Progress, Sandbox, SandboxBuilder, SandboxState, Snapshot, SnapshotError, SnapshotInfo, Value, WasmType, WasmValues,
};
pub use stats::{Counters, ExitCounts, Phases, Stats};
pub use vm::{Report, Vm, VmError};

#[cfg(test)]
mod tests {
    /// The lines of the first example of `text`, as people see them.
    fn first_example<'a>(text: &'a str, begin: &str, prefix: &str) -> Vec<&'a str> {
        let lines = text.lines().map(|line| line.strip_prefix(prefix).unwrap_or(line).trim_end_matches("//!"));
        let example = lines.skip_while(|line| *line != begin).skip(1).take_while(|line| *line != "```");
        example.filter(|line| !line.starts_with("# ")).collect()
    }

    /// So that the README's is compiled and run, too: by rustdoc, as that of this crate's front page.
    #[test]
    fn the_example_of_the_readme_is_that_of_the_front_page() {
        let readme = first_example(include_str!("../../README.md"), "```rust", "");
        let front_page = first_example(include_str!("lib.rs"), "```", "//! ");
        assert!(!readme.is_empty());
        assert_eq!(readme, front_page);
    }
}
