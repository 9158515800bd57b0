//! The interpreter: what the rest of the engine needs of `wasmi`, under names that the other engine has as well.

use alloc::{collections::BTreeMap, format};
use core::fmt;

use mote_abi::{
    hypercall::{exit_kind, trap},
    value::{NULL, RawValue, ValueType},
};
pub(crate) use wasmi::{
    AsContext, AsContextMut, Caller, Error, Extern, ExternType, Func, FuncType, GlobalType, ImportType, Instance, Linker, Memory,
    Module, Store, TableType, Val, ValType,
};
use wasmi::{
    CompilationMode, Config, ExternRef, F32, F64, Nullable, ResourceLimiter, TrapCode, V128,
    errors::{ErrorKind, HostError, InstantiationError, MemoryError},
};
use wasmi_core::LimiterError;

use super::{HostFailed, limiter::Limiter};
use crate::{guest::BootInfo, report::Ending, wasi::Wasi};

pub(crate) use wasmi::Engine;

/// Values of the host to which modules have references, by their numbers.
pub(crate) type References = BTreeMap<u32, ExternRef>;

/// Whether memories below 2 MiB lie side by side.
pub(super) const SMALL_MEMORIES_SHARE_CHUNKS: bool = true;
/// Memories of more bytes are moved when they grow: none is.
pub(super) const MOVES_BEYOND_BYTES: Option<u64> = None;
/// Bytes of a table element.
pub(super) const TABLE_ELEMENT_BYTES: u64 = 8;

/// The engine as the host wants it. Features are wasmi's defaults, which are all stable proposals that it has.
pub(super) fn engine(boot: BootInfo) -> Result<Engine, Ending> {
    let mut config = Config::default();
    config
        .consume_fuel(boot.fuel().is_some())
        .ignore_custom_sections(true)
        .compilation_mode(if boot.is_eager() { CompilationMode::Eager } else { CompilationMode::LazyTranslation })
        .set_max_stack_height(boot.max_wasm_stack_bytes().max(64 << 10))
        .set_max_recursion_depth(boot.max_wasm_frames());
    Ok(Engine::new(&config))
}

/// The module in these bytes.
pub(super) fn load(engine: &Engine, bytes: &[u8]) -> Result<Module, Ending> {
    Module::new(engine, bytes).map_err(|error| invalid(&error))
}

/// The module in bytes that the host brought in parts.
pub(super) fn load_copy(engine: &Engine, bytes: &[u8]) -> Result<Module, Ending> {
    load(engine, bytes)
}

pub(super) fn instantiate(linker: &Linker<Wasi>, store: &mut Store<Wasi>, module: &Module) -> Result<Instance, Ending> {
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
        _ => ending(error),
    }
}

/// The engine refused the module.
fn invalid(error: &Error) -> Ending {
    Ending { kind: exit_kind::INVALID_MODULE, message: format!("{error}"), ..Ending::default() }
}

/// What an error of a running module means.
pub(crate) fn ending(error: &Error) -> Ending {
    if let Some(status) = error.i32_exit_status() {
        return Ending::exited(status.cast_unsigned());
    }
    if let ErrorKind::Wasm(_) | ErrorKind::Translation(_) | ErrorKind::ImplementationLimits(_) = error.kind() {
        return invalid(error);
    }
    let code = error.as_trap_code().map_or(trap::OTHER, trap_code);
    let host_failed = error.downcast_ref::<HostFailed>().is_some();
    Ending { kind: exit_kind::TRAPPED, code, message: format!("{error}"), host_failed, ..Ending::default() }
}

fn trap_code(code: TrapCode) -> u32 {
    match code {
        TrapCode::UnreachableCodeReached => trap::UNREACHABLE,
        TrapCode::MemoryOutOfBounds => trap::MEMORY_OUT_OF_BOUNDS,
        TrapCode::TableOutOfBounds => trap::TABLE_OUT_OF_BOUNDS,
        TrapCode::IndirectCallToNull => trap::INDIRECT_CALL_TO_NULL,
        TrapCode::IntegerDivisionByZero => trap::INTEGER_DIVIDE_BY_ZERO,
        TrapCode::IntegerOverflow => trap::INTEGER_OVERFLOW,
        TrapCode::BadConversionToInteger => trap::INVALID_CONVERSION_TO_INTEGER,
        TrapCode::StackOverflow => trap::STACK_OVERFLOW,
        TrapCode::BadSignature => trap::BAD_SIGNATURE,
        TrapCode::OutOfFuel => trap::OUT_OF_FUEL,
        TrapCode::GrowthOperationLimited => trap::GROWTH_LIMITED,
        TrapCode::OutOfSystemMemory => trap::OUT_OF_SYSTEM_MEMORY,
    }
}

/// An error that ends the call with this message.
pub(crate) fn error(message: &'static str) -> Error {
    Error::new(message)
}

/// The error of a function of the host.
pub(super) fn host_failed() -> Error {
    Error::host(HostFailed)
}

/// The end of the program by itself.
pub(crate) fn exit(status: i32) -> Error {
    Error::i32_exit(status)
}

impl HostError for HostFailed {}

pub(super) fn func_type(_: &Engine, parameters: &[ValueType], results: &[ValueType]) -> FuncType {
    let types = |types: &[ValueType]| types.iter().map(|ty| val_type(*ty)).collect::<alloc::vec::Vec<_>>();
    FuncType::new(types(parameters), types(results))
}

pub(super) fn parameters(ty: &FuncType) -> impl ExactSizeIterator<Item = ValType> {
    ty.params().iter().copied()
}

pub(super) fn results(ty: &FuncType) -> impl ExactSizeIterator<Item = ValType> {
    ty.results().iter().copied()
}

/// A place for a result of this type.
pub(super) fn place(ty: &ValType) -> Val {
    Val::default_for_ty(*ty)
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
        ValueType::ExternRef | ValueType::OtherRef => ValType::ExternRef,
    }
}

/// The contract's type for one of the engine.
pub(super) fn value_type(ty: &ValType) -> ValueType {
    match ty {
        ValType::I32 => ValueType::I32,
        ValType::I64 => ValueType::I64,
        ValType::F32 => ValueType::F32,
        ValType::F64 => ValueType::F64,
        ValType::V128 => ValueType::V128,
        ValType::FuncRef => ValueType::FuncRef,
        ValType::ExternRef => ValueType::ExternRef,
    }
}

/// The value with this type and these bits; `None` for a reference to a function, which cannot come from outside.
pub(super) fn decode(ty: &ValType, raw: RawValue, context: impl AsContextMut<Data = Wasi>) -> Option<Val> {
    Some(match ty {
        ValType::I32 => Val::I32((raw.low as u32).cast_signed()),
        ValType::I64 => Val::I64(raw.low.cast_signed()),
        ValType::F32 => Val::F32(F32::from_bits(raw.low as u32)),
        ValType::F64 => Val::F64(F64::from_bits(raw.low)),
        ValType::V128 => Val::V128(V128::from(u128::from(raw.low) | u128::from(raw.high) << 64)),
        ValType::FuncRef if raw.low == NULL => Val::FuncRef(Nullable::Null),
        ValType::ExternRef if raw.low == NULL => Val::ExternRef(Nullable::Null),
        ValType::ExternRef => Val::from(reference(raw.low as u32, context)),
        ValType::FuncRef => return None,
    })
}

/// What the host means by `number`.
fn reference(number: u32, mut context: impl AsContextMut<Data = Wasi>) -> ExternRef {
    if let Some(known) = context.as_context().data().references.get(&number) {
        return *known;
    }
    let new = ExternRef::new(&mut context, number);
    context.as_context_mut().data_mut().references.insert(number, new);
    new
}

/// The bits of a value.
pub(super) fn encode(value: &Val, context: impl AsContext) -> RawValue {
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
        Val::ExternRef(Nullable::Val(reference)) => {
            u64::from(reference.data(&context).downcast_ref::<u32>().copied().unwrap_or(0))
        }
    };
    RawValue { low, high: 0 }
}

/// Whether a function of type `found` is what an import of type `wanted` asks for.
pub(super) fn matches(found: &FuncType, wanted: &FuncType) -> bool {
    found == wanted
}

/// Lets `linker` give `found` for `import`.
pub(super) fn define(linker: &mut Linker<Wasi>, _: &Store<Wasi>, import: &ImportType<'_>, found: Extern) {
    // The same import may be there twice; it is the same thing then.
    let _defined_already = linker.define(import.module(), import.name(), found);
}

/// Whether a global can be changed.
pub(super) fn is_mutable(ty: &GlobalType) -> bool {
    ty.mutability().is_mut()
}

/// The type of what a global holds.
pub(super) fn content(ty: &GlobalType) -> ValType {
    ty.content()
}

/// The type of what a table holds.
pub(super) fn element(ty: &TableType) -> ValType {
    ty.element().into()
}

/// A result as `wasmtime run --invoke` shows it.
pub(super) struct Shown<'a>(pub(super) &'a Val);

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

/// For the references that a call from outside brings: here they live as long as the store.
pub(super) fn scope(store: &mut Store<Wasi>) -> &mut Store<Wasi> {
    store
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> Result<bool, LimiterError> {
        Ok(self.grow_memory(current, desired))
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> Result<bool, LimiterError> {
        Ok(self.grow_table(current, desired))
    }

    fn memory_grow_failed(&mut self, error: &MemoryError) -> Result<(), LimiterError> {
        self.take_memory_back(error);
        Ok(())
    }

    fn instances(&self) -> usize {
        self.max_instances()
    }

    fn tables(&self) -> usize {
        usize::MAX
    }

    fn memories(&self) -> usize {
        usize::MAX
    }
}
