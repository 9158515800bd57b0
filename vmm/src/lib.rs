//! Runs WebAssembly modules, each in its own micro VM.
//!
//! A [`Module`] and a [`KernelImage`] are loaded once and shared by any number of VMs; a [`Vm`] is made from both and a
//! [`Config`], runs the module's start function or one of its exports, and says how that ended.
//!
//! ```no_run
//! use mote_vmm::{Config, Ending, KernelImage, Module, Vm};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let kernel = KernelImage::embedded()?;
//! let module = Module::from_file("app.wasm".as_ref())?;
//! let config = Config { arguments: vec!["app".into()], ..Config::default() };
//! let report = Vm::new(&kernel, &module, config)?.run();
//! assert!(matches!(report.ending, Ending::Exited(0)));
//! # Ok(())
//! # }
//! ```
//!
//! The way of a call through this crate: [`Module`] and [`KernelImage`] (loader) → [`Vm`] (memory, tables, vCPU) → run
//! loop → exit → request → one service each for output, standard input, files, sockets, waiting, clocks and memory. What the guest says is
//! an allegation everywhere: it is copied in, checked, and answered or refused, and no value of it can make this crate
//! panic.

mod config;
mod confinement;
mod control;
mod directory;
mod ending;
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
mod request;
mod run;
mod sandbox;
mod service;
mod slots;
mod stats;
mod tables;
mod vcpu;
mod vm;

pub use config::{
    ClockSource, Config, ConfigError, Entry, Input, InputCallback, Limits, LogLevel, Output, OutputCallback, SharedBuffer,
    Translation,
};
pub use confinement::{Confinement, ConfinementError, ConfinementSupport, Layer};
pub use control::InterruptHandle;
pub use directory::{Access, Directory, DirectoryError};
pub use ending::{Ending, Exception, GuestFault, HostFailure, Rejection, Trap, TrapKind};
pub use image::{ImageError, KernelImage};
pub use kvm::{KvmError, open as open_kvm};
pub use memory::MemoryError;
pub use module::{Module, ModuleError};
pub use mote_abi::value::ValueType;
pub use ramdisk::{Ramdisk, RamdiskError};
pub use sandbox::{
    AccessError, BuildError, CallError, Caller, Checkout, CopyBuilder, Export, ExportType, Func, FuncRef, FuncType, HostClosure,
    HostError, HostReturned, Instance, LoadError, Poison, Pool, PoolError, PoolOptions, PoolStats, Pooled, Progress, Sandbox,
    SandboxBuilder, SandboxState, Snapshot, SnapshotError, SnapshotInfo, Value, WasmType, WasmValues,
};
pub use stats::{Counters, ExitCounts, Phases, Stats};
pub use vm::{Report, Vm, VmError};
