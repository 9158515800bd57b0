//! The engine: loads the module, links it, calls it, or does with it what the host says.

mod host;
mod instances;
mod invoke;
mod limiter;
mod link;
mod serve;
mod values;

use alloc::{format, string::String};

use mote_abi::hypercall::{exit_kind, trap};
use wasmi::{
    CompilationMode, Config, Engine, Error, Instance, Module, Store,
    errors::{ErrorKind, InstantiationError},
};

pub(crate) use host::HostFailed;
use host::HostFunctions;
use instances::Instances;
pub(crate) use limiter::Limiter;
use serve::Server;

use crate::{clock, guest::BootInfo, report::Ending, wasi::Wasi};

/// Runs the module to its end, or serves the host with it.
pub(crate) fn run(boot: BootInfo, entered_tsc: u64) -> Ending {
    let engine = Engine::new(&config(boot));
    let module = match Module::new(&engine, boot.module()) {
        Ok(module) => module,
        Err(error) => return Ending::invalid(&error),
    };
    let parsed_tsc = clock::timestamp();
    log::debug!("module parsed");

    let wasi = match Wasi::new(boot) {
        Ok(wasi) => wasi,
        Err(message) => return Ending::cannot_run(message),
    };
    let mut store = Store::new(&engine, wasi);
    store.limiter(|wasi| &mut wasi.limiter);
    let mut ending = run_module(boot, &engine, &module, &mut store, entered_tsc, parsed_tsc);
    ending.last_call = store.data().last_call.describe();
    ending.fuel_used = boot.fuel().map_or(0, |given| given.saturating_sub(store.get_fuel().unwrap_or(0)));
    ending
}

/// What the engine is told. Features are wasmi's defaults, which are all stable proposals that it has.
fn config(boot: BootInfo) -> Config {
    let mut config = Config::default();
    config
        .consume_fuel(boot.fuel().is_some())
        .ignore_custom_sections(true)
        .compilation_mode(if boot.is_eager() { CompilationMode::Eager } else { CompilationMode::LazyTranslation })
        .set_max_stack_height(boot.max_wasm_stack_bytes().max(64 << 10))
        .set_max_recursion_depth(boot.max_wasm_frames());
    config
}

fn run_module(
    boot: BootInfo,
    engine: &Engine,
    module: &Module,
    store: &mut Store<Wasi>,
    entered_tsc: u64,
    parsed_tsc: u64,
) -> Ending {
    let at_end = |ending: Ending, export: &str, instantiated_tsc: u64| Ending {
        export: String::from(export),
        tsc: [entered_tsc, parsed_tsc, instantiated_tsc],
        ..ending
    };
    if let Some(fuel) = boot.fuel()
        && let Err(error) = store.set_fuel(fuel)
    {
        return at_end(Ending::cannot_run(format!("{error}")), "", parsed_tsc);
    }
    let host = match HostFunctions::new(boot, store) {
        Ok(host) => host,
        Err(message) => return at_end(Ending::cannot_run(message), "", parsed_tsc),
    };
    let mut instances = Instances::default();
    let instance = match instantiate(module, store, &host, &instances) {
        Ok(instance) => instance,
        Err(ending) => return at_end(ending, "", parsed_tsc),
    };
    instances.add(module, instance, store);
    let instantiated_tsc = clock::timestamp();
    log::debug!("module instantiated");
    if boot.serves() {
        if let Err(error) = invoke::initialize(store, instance) {
            return at_end(Ending::from_call(&error), "_initialize", instantiated_tsc);
        }
        Server::new(engine, store, host, instances).serve([entered_tsc, parsed_tsc, instantiated_tsc])
    }
    let (ending, export) = match boot.entry() {
        None => (invoke::command(store, instance), "_start"),
        Some(name) => match core::str::from_utf8(name) {
            Ok(name) => (invoke::function(store, instance, name, boot.entry_arguments()), name),
            Err(_) => (Ending::cannot_run(String::from("the name of the function is not UTF-8")), ""),
        },
    };
    at_end(ending, export, instantiated_tsc)
}

fn instantiate(
    module: &Module,
    store: &mut Store<Wasi>,
    host: &HostFunctions,
    instances: &Instances,
) -> Result<Instance, Ending> {
    let linker = link::imports(module, store, host, instances)?;
    linker.instantiate_and_start(&mut *store, module).map_err(|error| instantiation_ending(&error, store))
}

/// Why instantiation failed: a memory or table that does not fit, a trap of the start function, or of a data segment.
fn instantiation_ending(error: &Error, store: &Store<Wasi>) -> Ending {
    match error.kind() {
        ErrorKind::Instantiation(InstantiationError::ElementSegmentDoesNotFit { .. }) => {
            Ending { kind: exit_kind::TRAPPED, code: trap::TABLE_OUT_OF_BOUNDS, ..Ending::default() }
        }
        ErrorKind::Memory(_) | ErrorKind::Table(_) | ErrorKind::Instantiation(_) | ErrorKind::Linker(_)
            if error.as_trap_code().is_none() =>
        {
            Ending::cannot_run(store.data().limiter.denied().unwrap_or_else(|| format!("{error}")))
        }
        _ => Ending::from_call(error),
    }
}
