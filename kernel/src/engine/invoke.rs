//! Calling an export: the start function of a command, or any function with arguments given as text.

use alloc::{format, string::String, vec::Vec};
use core::fmt;

use mote_abi::{ring::Stream, value::ValueType};
use mote_kernel_logic::number::{NumberError, parse_i32, parse_i64, parse_u128};

use super::backend::{self, Error, Func, Instance, Store, Val, ValType};
use crate::{console, guest::Strings, report::Ending, wasi::Wasi};

/// Calls `_start`, as a WASI command has it.
pub(crate) fn command(store: &mut Store<Wasi>, instance: Instance) -> Ending {
    let Some(start) = instance.get_func(&mut *store, "_start") else {
        return Ending::cannot_run(String::from("it exports no function `_start`; name the function to call with --invoke"));
    };
    match start.typed::<(), ()>(&*store) {
        Ok(start) => match start.call(&mut *store, ()) {
            Ok(()) => Ending::exited(0),
            Err(error) => backend::ending(&error),
        },
        Err(_) => Ending::cannot_run(String::from("its `_start` takes arguments or returns values")),
    }
}

/// Calls the export `name` and prints its results to standard output, one a line.
pub(crate) fn function(store: &mut Store<Wasi>, instance: Instance, name: &str, arguments: Strings) -> Ending {
    let Some(function) = instance.get_func(&mut *store, name) else {
        return Ending::cannot_run(format!("it exports no function `{name}`"));
    };
    let parameters = match parse_arguments(store, function, name, arguments) {
        Ok(parameters) => parameters,
        Err(message) => return Ending::cannot_run(message),
    };
    if name != "_initialize"
        && let Err(error) = initialize(store, instance)
    {
        return backend::ending(&error);
    }
    let mut results: Vec<Val> = backend::results(&function.ty(&*store)).map(|ty| backend::place(&ty)).collect();
    match function.call(&mut *store, &parameters, &mut results) {
        Ok(()) => {
            for result in &results {
                console::write(Stream::Stdout, format!("{}\n", backend::Shown(result)).as_bytes());
            }
            Ending::exited(0)
        }
        Err(error) => backend::ending(&error),
    }
}

/// A WASI reactor wants `_initialize` called before anything else.
pub(super) fn initialize(store: &mut Store<Wasi>, instance: Instance) -> Result<(), Error> {
    match instance.get_func(&mut *store, "_initialize").map(|function| function.typed::<(), ()>(&*store)) {
        Some(Ok(initialize)) => initialize.call(&mut *store, ()),
        _ => Ok(()),
    }
}

fn parse_arguments(store: &Store<Wasi>, function: Func, name: &str, arguments: Strings) -> Result<Vec<Val>, String> {
    let ty = function.ty(store);
    let wanted: Vec<ValType> = backend::parameters(&ty).collect();
    if wanted.len() != arguments.count() as usize {
        let (wanted_count, given) = (wanted.len(), arguments.count());
        return Err(format!("`{name}` takes {wanted_count} arguments {}, {given} were given", Types(&wanted)));
    }
    wanted
        .iter()
        .zip(arguments.iter())
        .enumerate()
        .map(|(index, (ty, text))| {
            let text = core::str::from_utf8(text).unwrap_or("\u{fffd}");
            parse(ty, text).map_err(|reason| {
                let ty = Types(core::slice::from_ref(ty));
                format!("argument {} of `{name}`: {text:?} {reason} {ty}", index + 1)
            })
        })
        .collect()
}

fn parse(ty: &ValType, text: &str) -> Result<Val, &'static str> {
    let reason = |error| match error {
        NumberError::Malformed => "is not a number of type",
        NumberError::OutOfRange => "is out of range for type",
    };
    let malformed = |_| reason(NumberError::Malformed);
    match backend::value_type(ty) {
        ValueType::I32 => parse_i32(text).map(Val::I32).map_err(reason),
        ValueType::I64 => parse_i64(text).map(Val::I64).map_err(reason),
        ValueType::F32 => text.parse().map(|value: f32| Val::from(value)).map_err(malformed),
        ValueType::F64 => text.parse().map(|value: f64| Val::from(value)).map_err(malformed),
        ValueType::V128 => parse_u128(text).map(|value| Val::V128(value.into())).map_err(reason),
        ValueType::FuncRef | ValueType::ExternRef | ValueType::OtherRef => Err("cannot be given on a command line as"),
    }
}

/// Types as in the text format.
struct Types<'a>(&'a [ValType]);

impl fmt::Display for Types<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(|ty| backend::value_type(ty).name()).collect();
        write!(f, "({})", names.join(", "))
    }
}
