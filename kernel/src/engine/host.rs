//! Functions of the host as imports of modules.

use alloc::{collections::BTreeMap, string::String};
use core::fmt;

use mote_abi::{
    hypercall::{HostCallArgs, LinearMemory, NO_FUEL},
    value::MAX_VALUES,
};

use super::{
    backend::{self, Caller, Extern, Func, FuncType, Store},
    values,
};
use crate::{guest::BootInfo, hypercall, wasi::Wasi};

/// What a call ends with when a function of the host failed: the host has the reason.
#[derive(Debug)]
pub(crate) struct HostFailed;

impl fmt::Display for HostFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a function of the host failed")
    }
}

impl core::error::Error for HostFailed {}

/// The functions that the host offers, by the names of module and function.
pub(crate) struct HostFunctions(BTreeMap<(&'static [u8], &'static [u8]), Func>);

impl HostFunctions {
    pub(super) fn new(boot: BootInfo, store: &mut Store<Wasi>) -> Result<Self, String> {
        let mut functions = BTreeMap::new();
        let mut strings = boot.host_functions().iter();
        while let (Some(module), Some(name), Some(ty)) = (strings.next(), strings.next(), strings.next()) {
            let ty = values::func_type(store.engine(), ty)?;
            let index = functions.len() as u32;
            functions.insert((module, name), function(index, ty, store));
        }
        Ok(Self(functions))
    }

    pub(super) fn get(&self, module: &str, name: &str) -> Option<Func> {
        self.0.get(&(module.as_bytes(), name.as_bytes())).copied()
    }
}

/// A function that asks the host for what number `index` returns.
fn function(index: u32, ty: FuncType, store: &mut Store<Wasi>) -> Func {
    Func::new(store, ty.clone(), move |mut caller: Caller<'_, Wasi>, parameters, results| {
        if parameters.len().max(results.len()) > MAX_VALUES {
            return Err(backend::error("a function of the host with too many arguments or results"));
        }
        for (at, value) in parameters.iter().enumerate() {
            hypercall::write_value(at, backend::encode(value, &caller));
        }
        let arguments = HostCallArgs {
            function: index,
            count: parameters.len() as u32,
            fuel_left: caller.get_fuel().unwrap_or(NO_FUEL),
            memory: caller.get_export("memory").and_then(Extern::into_memory).map_or_else(LinearMemory::default, |memory| {
                LinearMemory { address: memory.data_ptr(&caller) as u64, bytes: memory.data_size(&caller) as u64 }
            }),
        };
        let answer = hypercall::host_call(&arguments).ok_or_else(backend::host_failed)?;
        if answer.fuel != NO_FUEL {
            // Without fuel there is nothing to refill.
            let _refilled = caller.set_fuel(answer.fuel);
        }
        for (at, (result, ty)) in results.iter_mut().zip(backend::results(&ty)).enumerate() {
            let decoded = backend::decode(&ty, hypercall::read_value(at), &mut caller);
            *result = decoded.ok_or_else(|| backend::error("a function of the host returned a reference that it cannot have"))?;
        }
        Ok(())
    })
}
