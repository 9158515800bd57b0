//! How mote configures `wasmtime`: once, for the compiler on the host and for the runtime in the guest.
//!
//! An artifact says how it was compiled, and the runtime refuses one that was compiled otherwise, so what both sides do must
//! come from one place. What only one side can know is not here: the processor, limits, where memory comes from.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;

use wasmtime::{Collector, Config, Inlining, ModuleVersionStrategy, WasmFeatures};

/// The proposals that modules may use: all that this version of wasmtime has on by default (WebAssembly 3.0), but for threads,
/// which its runtime has only with the standard library.
pub const FEATURES: WasmFeatures = WasmFeatures::WASM3.difference(WasmFeatures::THREADS);

/// Version of wasmtime on both sides.
pub const WASMTIME_VERSION: &str = "48.0.8";

/// Address space of a linear memory in bytes: what 32-bit addresses can reach, so that they need no check.
pub const MEMORY_RESERVATION_BYTES: u64 = 4 << 30;

/// Address space in bytes before and after it that is never mapped, for constant offsets.
pub const MEMORY_GUARD_BYTES: u64 = 32 << 20;

/// What a user can choose, and an artifact is only good for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Options {
    /// Whether the code counts fuel.
    pub fuel: bool,
}

/// The configuration with which modules are compiled, and run.
pub fn config(options: Options) -> Config {
    let mut config = Config::new();
    config
        .wasm_features(WasmFeatures::all(), false)
        .wasm_features(FEATURES, true)
        .collector(Collector::Copying)
        .consume_fuel(options.fuel)
        // Traps are exceptions of the processor, which the kernel turns into those of WebAssembly.
        .signals_based_traps(true)
        .memory_reservation(MEMORY_RESERVATION_BYTES)
        .memory_guard_size(MEMORY_GUARD_BYTES)
        .guard_before_linear_memory(true)
        .memory_init_cow(true)
        .compiler_inlining(Inlining::No)
        .concurrency_support(false);
    // By itself wasmtime tells only major versions apart. The version is short enough, the one thing that can fail here.
    let _set = config.module_version(ModuleVersionStrategy::Custom(String::from(WASMTIME_VERSION)));
    config
}
