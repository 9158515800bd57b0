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
mod housekeeping;
mod image;
pub mod inspect;
mod kvm;
mod memory;
mod module;
mod ramdisk;
mod request;
mod run;
mod service;
mod slots;
mod stats;
mod tables;
mod vcpu;
mod vm;

pub use config::{Config, ConfigError, Entry, Input, Limits, LogLevel, Output, SharedBuffer};
pub use confinement::{Confinement, ConfinementError, ConfinementSupport, Layer};
pub use control::InterruptHandle;
pub use directory::{Access, Directory, DirectoryError};
pub use ending::{Ending, Exception, GuestFault, HostFailure, Rejection, Trap, TrapKind};
pub use image::{ImageError, KernelImage};
pub use kvm::{KvmError, open as open_kvm};
pub use memory::MemoryError;
pub use module::{Module, ModuleError};
pub use ramdisk::{Ramdisk, RamdiskError};
pub use stats::{ExitCounts, Phases, Stats};
pub use vm::{Report, Vm, VmError};
