//! Values and types between the engine's form and that of the contract.

use alloc::{string::String, vec::Vec};

use mote_abi::value::{MAX_VALUES, NULL, RawValue, ValueType, signature};
use wasmi::{ExternRef, F32, F64, FuncType, Nullable, Store, V128, Val, ValType};

use crate::wasi::Wasi;

/// The value with this type and these bits; `None` for a reference to a function, which cannot come from outside.
pub(super) fn decode(ty: ValType, raw: RawValue, store: &mut Store<Wasi>) -> Option<Val> {
    if let (ValType::ExternRef, false) = (ty, raw.low == NULL) {
        let number = raw.low as u32;
        if let Some(known) = store.data().extern_refs.get(&number) {
            return Some(Val::ExternRef(Nullable::Val(*known)));
        }
        let new = ExternRef::new(&mut *store, number);
        store.data_mut().extern_refs.insert(number, new);
        return Some(Val::ExternRef(Nullable::Val(new)));
    }
    decode_plain(ty, raw)
}

/// As [`decode`], for anything but references that are not null.
pub(super) fn decode_plain(ty: ValType, raw: RawValue) -> Option<Val> {
    Some(match ty {
        ValType::I32 => Val::I32((raw.low as u32).cast_signed()),
        ValType::I64 => Val::I64(raw.low.cast_signed()),
        ValType::F32 => Val::F32(F32::from_bits(raw.low as u32)),
        ValType::F64 => Val::F64(F64::from_bits(raw.low)),
        ValType::V128 => Val::V128(V128::from(u128::from(raw.low) | u128::from(raw.high) << 64)),
        ValType::FuncRef if raw.low == NULL => Val::FuncRef(Nullable::Null),
        ValType::ExternRef if raw.low == NULL => Val::ExternRef(Nullable::Null),
        ValType::FuncRef | ValType::ExternRef => return None,
    })
}

/// The bits of a value. `number` tells what a reference to something of the host stands for.
pub(super) fn encode(value: &Val, number: impl Fn(ExternRef) -> u32) -> RawValue {
    let low = match value {
        Val::I32(value) => u64::from(value.cast_unsigned()),
        Val::I64(value) => value.cast_unsigned(),
        Val::F32(value) => u64::from(value.to_bits()),
        Val::F64(value) => value.to_bits(),
        Val::V128(value) => {
            let value = value.as_u128();
            return RawValue { low: value as u64, high: (value >> 64) as u64 };
        }
        Val::FuncRef(Nullable::Null) | Val::ExternRef(Nullable::Null) => NULL,
        Val::FuncRef(Nullable::Val(_)) => 0,
        Val::ExternRef(Nullable::Val(reference)) => u64::from(number(*reference)),
    };
    RawValue { low, high: 0 }
}

/// The engine's type for one of the contract.
fn val_type(ty: ValueType) -> ValType {
    match ty {
        ValueType::I32 => ValType::I32,
        ValueType::I64 => ValType::I64,
        ValueType::F32 => ValType::F32,
        ValueType::F64 => ValType::F64,
        ValueType::V128 => ValType::V128,
        ValueType::FuncRef => ValType::FuncRef,
        ValueType::ExternRef => ValType::ExternRef,
    }
}

/// The letter of a type.
pub(super) fn letter(ty: ValType) -> u8 {
    let ty = match ty {
        ValType::I32 => ValueType::I32,
        ValType::I64 => ValueType::I64,
        ValType::F32 => ValueType::F32,
        ValType::F64 => ValueType::F64,
        ValType::V128 => ValueType::V128,
        ValType::FuncRef => ValueType::FuncRef,
        ValType::ExternRef => ValueType::ExternRef,
    };
    ty.letter()
}

/// A type of functions as the contract writes it.
pub(super) fn signature(ty: &FuncType) -> Vec<u8> {
    let letters = |types: &[ValType]| types.iter().map(|ty| letter(*ty)).collect::<Vec<_>>();
    [letters(ty.params()), alloc::vec![signature::SEPARATOR], letters(ty.results())].concat()
}

/// The type of functions that the contract writes like this.
pub(super) fn func_type(text: &[u8]) -> Result<FuncType, String> {
    let (parameters, results) = signature::decode(text).ok_or_else(|| String::from("a function of the host has no type"))?;
    let (parameters, results): (Vec<_>, Vec<_>) = (parameters.map(val_type).collect(), results.map(val_type).collect());
    if parameters.len().max(results.len()) > MAX_VALUES {
        return Err(String::from("a function of the host has too many parameters or results"));
    }
    Ok(FuncType::new(parameters, results))
}
