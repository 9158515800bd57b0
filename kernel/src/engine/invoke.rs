//! Calling an export: the start function of a command, or any function with arguments given as text.

use alloc::{format, string::String, vec::Vec};
use core::fmt;

use mote_abi::ring::Stream;
use mote_kernel_logic::number::{NumberError, parse_i32, parse_i64, parse_u128};
use wasmi::{F32, F64, Func, Instance, Nullable, Store, V128, Val, ValType};

use crate::{console, guest::Strings, report::Ending, wasi::Wasi};

/// Calls `_start`, as a WASI command has it.
pub(crate) fn command(store: &mut Store<Wasi>, instance: Instance) -> Ending {
    let Some(start) = instance.get_func(&*store, "_start") else {
        return Ending::cannot_run(String::from("it exports no function `_start`; name the function to call with --invoke"));
    };
    match start.typed::<(), ()>(&*store) {
        Ok(start) => match start.call(&mut *store, ()) {
            Ok(()) => Ending::exited(0),
            Err(error) => Ending::from_call(&error),
        },
        Err(_) => Ending::cannot_run(String::from("its `_start` takes arguments or returns values")),
    }
}

/// Calls the export `name` and prints its results to standard output, one a line.
pub(crate) fn function(store: &mut Store<Wasi>, instance: Instance, name: &str, arguments: Strings) -> Ending {
    let Some(function) = instance.get_func(&*store, name) else {
        return Ending::cannot_run(format!("it exports no function `{name}`"));
    };
    let parameters = match parse_arguments(store, function, name, arguments) {
        Ok(parameters) => parameters,
        Err(message) => return Ending::cannot_run(message),
    };
    if name != "_initialize"
        && let Err(error) = initialize(store, instance)
    {
        return Ending::from_call(&error);
    }
    let mut results: Vec<Val> = function.ty(&*store).results().iter().map(|ty| Val::default_for_ty(*ty)).collect();
    match function.call(&mut *store, &parameters, &mut results) {
        Ok(()) => {
            for result in &results {
                console::write(Stream::Stdout, format!("{}\n", Shown(result)).as_bytes());
            }
            Ending::exited(0)
        }
        Err(error) => Ending::from_call(&error),
    }
}

/// A WASI reactor wants `_initialize` called before anything else.
pub(super) fn initialize(store: &mut Store<Wasi>, instance: Instance) -> Result<(), wasmi::Error> {
    match instance.get_func(&*store, "_initialize").map(|function| function.typed::<(), ()>(&*store)) {
        Some(Ok(initialize)) => initialize.call(&mut *store, ()),
        _ => Ok(()),
    }
}

fn parse_arguments(store: &Store<Wasi>, function: Func, name: &str, arguments: Strings) -> Result<Vec<Val>, String> {
    let ty = function.ty(store);
    let wanted = ty.params();
    if wanted.len() != arguments.count() as usize {
        let (wanted_count, given) = (wanted.len(), arguments.count());
        return Err(format!("`{name}` takes {wanted_count} arguments {}, {given} were given", Types(wanted)));
    }
    wanted
        .iter()
        .zip(arguments.iter())
        .enumerate()
        .map(|(index, (ty, text))| {
            let text = core::str::from_utf8(text).unwrap_or("\u{fffd}");
            parse(*ty, text).map_err(|reason| format!("argument {} of `{name}`: {text:?} {reason} {}", index + 1, Types(&[*ty])))
        })
        .collect()
}

fn parse(ty: ValType, text: &str) -> Result<Val, &'static str> {
    let reason = |error| match error {
        NumberError::Malformed => "is not a number of type",
        NumberError::OutOfRange => "is out of range for type",
    };
    match ty {
        ValType::I32 => parse_i32(text).map(Val::I32).map_err(reason),
        ValType::I64 => parse_i64(text).map(Val::I64).map_err(reason),
        ValType::F32 => text.parse().map(|value: f32| Val::F32(F32::from(value))).map_err(|_| reason(NumberError::Malformed)),
        ValType::F64 => text.parse().map(|value: f64| Val::F64(F64::from(value))).map_err(|_| reason(NumberError::Malformed)),
        ValType::V128 => parse_u128(text).map(|value| Val::V128(V128::from(value))).map_err(reason),
        ValType::FuncRef | ValType::ExternRef => Err("cannot be given on a command line as"),
    }
}

/// Types as in the text format.
struct Types<'a>(&'a [ValType]);

impl fmt::Display for Types<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |ty: &ValType| match ty {
            ValType::I32 => "i32",
            ValType::I64 => "i64",
            ValType::F32 => "f32",
            ValType::F64 => "f64",
            ValType::V128 => "v128",
            ValType::FuncRef => "funcref",
            ValType::ExternRef => "externref",
        };
        let names: Vec<_> = self.0.iter().map(name).collect();
        write!(f, "({})", names.join(", "))
    }
}

/// A result as `wasmtime run --invoke` shows it.
struct Shown<'a>(&'a Val);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Val::I32(value) => write!(f, "{value}"),
            Val::I64(value) => write!(f, "{value}"),
            Val::F32(value) => write!(f, "{}", f32::from_bits(value.to_bits())),
            Val::F64(value) => write!(f, "{}", f64::from_bits(value.to_bits())),
            Val::V128(value) => write!(f, "{}", value.as_u128()),
            Val::FuncRef(Nullable::Null) | Val::ExternRef(Nullable::Null) => write!(f, "<null>"),
            Val::FuncRef(_) => write!(f, "<funcref>"),
            Val::ExternRef(_) => write!(f, "<externref>"),
        }
    }
}
