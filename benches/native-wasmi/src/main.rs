//! Runs a WASI preview 1 program in wasmi as an ordinary process: what a VM of mote is compared with.
//!
//! The interpreter is the kernel's: same version, features, lock file, profile and engine configuration. What differs is
//! what a VM adds or takes away: page tables, host calls, clocks, memory. It is no runtime to be used: it has as much of
//! WASI as the benchmarks call, and it protects its host from nothing.
//!
//! ```text
//! native-wasmi [--fuel N] [--stats] MODULE ARGS...
//! ```
//!
//! `--stats` prints the time of each phase to standard error, under the names that `mote run --stats=json` uses.

mod linear;
mod wasi;

use std::{
    env,
    error::Error,
    fs,
    process::ExitCode,
    time::{Duration, Instant},
};

use wasmi::{Config, Engine, Linker, Module, Store};

use wasi::Wasi;

/// As `mote_vmm::Limits::default` has it.
const WASM_STACK_BYTES: usize = 8 << 20;
const WASM_FRAMES: usize = 50_000;

/// What the command line says.
struct Arguments {
    fuel: Option<u64>,
    stats: bool,
    module: String,
    /// The module's name first.
    program: Vec<String>,
}

#[derive(Default)]
struct Phases {
    read: Duration,
    parse: Duration,
    instantiate: Duration,
    run: Duration,
}

fn main() -> ExitCode {
    let Some(arguments) = arguments() else {
        eprintln!("usage: native-wasmi [--fuel N] [--stats] MODULE ARGS...");
        return ExitCode::from(2);
    };
    let stats = arguments.stats;
    let mut phases = Phases::default();
    let result = run(arguments, &mut phases);
    if stats {
        let us = |phase: Duration| phase.as_secs_f64() * 1e6;
        let Phases { read, parse, instantiate, run } = phases;
        eprintln!(
            r#"{{"phases_us":{{"load_module":{},"parse":{},"instantiate":{},"run":{}}}}}"#,
            us(read),
            us(parse),
            us(instantiate),
            us(run)
        );
    }
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("native-wasmi: {error}");
            ExitCode::from(134)
        }
    }
}

fn arguments() -> Option<Arguments> {
    let mut words = env::args().skip(1);
    let (mut fuel, mut stats) = (None, false);
    loop {
        let word = words.next()?;
        match word.as_str() {
            "--fuel" => fuel = Some(words.next()?.parse().ok()?),
            "--stats" => stats = true,
            _ => {
                let program = [word.clone()].into_iter().chain(words).collect();
                return Some(Arguments { fuel, stats, module: word, program });
            }
        }
    }
}

/// As `kernel/src/engine/mod.rs` has it.
fn config(fuel: Option<u64>) -> Config {
    let mut config = Config::default();
    config
        .consume_fuel(fuel.is_some())
        .ignore_custom_sections(true)
        .set_max_stack_height(WASM_STACK_BYTES)
        .set_max_recursion_depth(WASM_FRAMES);
    config
}

/// Runs the program and returns its exit status. A trap is an error.
fn run(arguments: Arguments, phases: &mut Phases) -> Result<u8, Box<dyn Error>> {
    let started = Instant::now();
    let bytes = fs::read(&arguments.module)?;
    phases.read = started.elapsed();

    let started = Instant::now();
    let engine = Engine::new(&config(arguments.fuel));
    let module = Module::new(&engine, &bytes)?;
    phases.parse = started.elapsed();

    let started = Instant::now();
    let mut store = Store::new(&engine, Wasi::new(arguments.program)?);
    if let Some(fuel) = arguments.fuel {
        store.set_fuel(fuel)?;
    }
    let mut linker = Linker::new(&engine);
    wasi::link(&mut linker, &mut store, &module)?;
    let instance = linker.instantiate_and_start(&mut store, &module)?;
    let memory = instance.get_memory(&store, "memory");
    store.data_mut().memory = memory;
    let start = instance.get_typed_func::<(), ()>(&store, "_start")?;
    phases.instantiate = started.elapsed();

    let started = Instant::now();
    let ended = start.call(&mut store, ());
    phases.run = started.elapsed();
    match ended {
        Ok(()) => Ok(0),
        // As `exit(3)`: the low eight bits.
        Err(error) => error.i32_exit_status().map(|status| status.to_le_bytes()[0]).ok_or_else(|| error.into()),
    }
}
