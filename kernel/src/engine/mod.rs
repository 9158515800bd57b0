//! The engine: loads the module, links it, calls it, or does with it what the host says.

#[cfg_attr(feature = "compiled", path = "compiled/mod.rs")]
#[cfg_attr(not(feature = "compiled"), path = "interpreter.rs")]
pub(crate) mod backend;
mod host;
mod instances;
mod invoke;
mod limiter;
mod link;
mod serve;
mod values;

use alloc::{format, string::String};

use backend::{Engine, Instance, Module, Store};
pub(crate) use host::HostFailed;
use host::HostFunctions;
use instances::Instances;
pub(crate) use limiter::Limiter;
use serve::Server;

use crate::{clock, guest::BootInfo, report::Ending, wasi::Wasi};

/// Runs the module to its end, or serves the host with it.
pub(crate) fn run(boot: BootInfo, entered_tsc: u64) -> Ending {
    let engine = match backend::engine(boot) {
        Ok(engine) => engine,
        Err(ending) => return ending,
    };
    let module = match backend::load(&engine, boot.module()) {
        Ok(module) => module,
        Err(ending) => return ending,
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
    ending.last_call = store.data().last_call.describe().into();
    ending.fuel_used = boot.fuel().map_or(0, |given| given.saturating_sub(store.get_fuel().unwrap_or(0)));
    ending
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
        export: export.into(),
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
            return at_end(backend::ending(&error), "_initialize", instantiated_tsc);
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
    backend::instantiate(&linker, store, module)
}
