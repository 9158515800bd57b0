//! Functions of the host as imports of modules.

use alloc::{collections::BTreeMap, string::String};
use core::fmt;

use mote_abi::{
    hypercall::{HostCallArgs, LinearMemory, NO_FUEL},
    value::MAX_VALUES,
};
use wasmi::{Caller, Error, Extern, ExternRef, Func, FuncType, Store, Val, errors::HostError};

use super::values;
use crate::{guest::BootInfo, hypercall, wasi::Wasi};

/// What a call ends with when a function of the host failed: the host has the reason.
#[derive(Debug)]
pub(crate) struct HostFailed;

impl fmt::Display for HostFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a function of the host failed")
    }
}

impl HostError for HostFailed {}

/// The functions that the host offers, by the names of module and function.
pub(crate) struct HostFunctions(BTreeMap<(&'static [u8], &'static [u8]), Func>);

impl HostFunctions {
    pub(super) fn new(boot: BootInfo, store: &mut Store<Wasi>) -> Result<Self, String> {
        let mut functions = BTreeMap::new();
        let mut strings = boot.host_functions().iter();
        while let (Some(module), Some(name), Some(ty)) = (strings.next(), strings.next(), strings.next()) {
            let ty = values::func_type(ty)?;
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
    Func::new(store, ty, move |mut caller: Caller<'_, Wasi>, parameters, results| {
        if parameters.len().max(results.len()) > MAX_VALUES {
            return Err(Error::new("a function of the host with too many arguments or results"));
        }
        for (at, value) in parameters.iter().enumerate() {
            hypercall::write_value(at, values::encode(value, |reference| number(reference, &caller)));
        }
        let arguments = HostCallArgs {
            function: index,
            count: parameters.len() as u32,
            fuel_left: caller.get_fuel().unwrap_or(NO_FUEL),
            memory: caller.get_export("memory").and_then(Extern::into_memory).map_or_else(LinearMemory::default, |memory| {
                LinearMemory { address: memory.data_ptr(&caller) as u64, bytes: memory.data_size(&caller) as u64 }
            }),
        };
        let answer = hypercall::host_call(&arguments).ok_or_else(|| Error::host(HostFailed))?;
        if answer.fuel != NO_FUEL {
            // Without fuel there is nothing to refill.
            let _refilled = caller.set_fuel(answer.fuel);
        }
        for (at, result) in results.iter_mut().enumerate() {
            let raw = hypercall::read_value(at);
            *result = match values::decode_plain(result.ty(), raw) {
                Some(value) => value,
                None => reference(raw.low as u32, result, &mut caller)?,
            };
        }
        Ok(())
    })
}

/// What the host means by a reference that is not null.
fn reference(number: u32, place: &Val, caller: &mut Caller<'_, Wasi>) -> Result<Val, Error> {
    if !matches!(place, Val::ExternRef(_)) {
        return Err(Error::new("a function of the host returned a reference to a function, which it cannot have"));
    }
    let known = caller.data().extern_refs.get(&number).copied();
    let reference = match known {
        Some(known) => known,
        None => {
            let new = ExternRef::new(&mut *caller, number);
            caller.data_mut().extern_refs.insert(number, new);
            new
        }
    };
    Ok(Val::from(reference))
}

fn number(reference: ExternRef, caller: &Caller<'_, Wasi>) -> u32 {
    reference.data(caller).downcast_ref().copied().unwrap_or(0)
}
