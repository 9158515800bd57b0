//! Types of functions between the engine's form and that of the contract.

use alloc::{string::String, vec::Vec};

use mote_abi::value::{MAX_VALUES, signature};

use super::backend::{self, Engine, FuncType, ValType};

/// The letter of a type.
pub(super) fn letter(ty: &ValType) -> u8 {
    backend::value_type(ty).letter()
}

/// A type of functions as the contract writes it.
pub(super) fn signature(ty: &FuncType) -> Vec<u8> {
    let parameters = backend::parameters(ty).map(|ty| letter(&ty));
    let results = backend::results(ty).map(|ty| letter(&ty));
    parameters.chain([signature::SEPARATOR]).chain(results).collect()
}

/// The type of functions that the contract writes like this.
pub(super) fn func_type(engine: &Engine, text: &[u8]) -> Result<FuncType, String> {
    let (parameters, results) = signature::decode(text).ok_or_else(|| String::from("a function of the host has no type"))?;
    let (parameters, results): (Vec<_>, Vec<_>) = (parameters.collect(), results.collect());
    if parameters.len().max(results.len()) > MAX_VALUES {
        return Err(String::from("a function of the host has too many parameters or results"));
    }
    Ok(backend::func_type(engine, &parameters, &results))
}
