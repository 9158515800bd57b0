//! Compiled code: what the rest of the engine needs of `wasmtime`, under names that the interpreter has as well.
//!
//! A module is an artifact that the host compiled. It is used where the host mapped it: its text can be executed and read, the
//! rest read. Linear memories have their place in address space that is reserved for them, and what they access outside of their
//! bounds is an exception, which becomes a trap.

mod exceptions;
mod reserved;

use alloc::{format, string::String, sync::Arc, vec::Vec};
use core::{
    fmt::{self, Write},
    ptr::NonNull,
};

use mote_abi::{
    cpu,
    hypercall::{exit_kind, trap},
    layout::{MODULE, PAGE_BYTES, STACK},
    value::{NULL, RawValue, ValueType},
};
use mote_wasmtime_config::Options;
pub(crate) use wasmtime::{
    AsContext, AsContextMut, Caller, Engine, Error, Extern, ExternType, Func, FuncType, ImportType, Instance, Linker, Memory,
    Module, Store, Val, ValType,
};
use wasmtime::{
    CustomCodeMemory, ExternRef, GlobalType, HeapType, Mutability, RefType, ResourceLimiter, RootScope, TableType, Trap, V128,
    WasmBacktrace,
};

use super::{HostFailed, limiter::Limiter};
use crate::{guest::BootInfo, report::Ending, wasi::Wasi};

/// Each memory has chunks of its own.
pub(super) const SMALL_MEMORIES_SHARE_CHUNKS: bool = false;
/// Memories of more bytes are moved when they grow.
pub(super) const MOVES_BEYOND_BYTES: Option<u64> = Some(mote_wasmtime_config::MEMORY_RESERVATION_BYTES);
/// Bytes of a table element.
pub(super) const TABLE_ELEMENT_BYTES: u64 = 8;
/// What the kernel's stack has beyond that of modules: for functions that they call.
const OWN_STACK_BYTES: u64 = 256 << 10;

/// The engine as the host wants it.
pub(super) fn engine(boot: BootInfo) -> Result<Engine, Ending> {
    let mut config = mote_wasmtime_config::config(Options { fuel: boot.fuel().is_some() });
    let stack_bytes = (boot.max_wasm_stack_bytes() as u64).clamp(64 << 10, STACK.bytes() - OWN_STACK_BYTES);
    config.max_wasm_stack(stack_bytes as usize).with_custom_code_memory(Some(Arc::new(InPlace)));
    // SAFETY: the boot information has the features of the processor that this VM runs on.
    unsafe { config.detect_host_feature(|name| Some(BootInfo::read().cpu_features() & cpu::bit(name) != 0)) };
    Engine::new(&config).map_err(|error| Ending::cannot_run(format!("{error:?}")))
}

/// Code that can be executed where it is, and never be written: the host mapped it so.
struct InPlace;

impl CustomCodeMemory for InPlace {
    fn required_alignment(&self) -> usize {
        PAGE_BYTES as usize
    }

    fn publish_executable(&self, code: *const u8, bytes: usize) -> wasmtime::Result<()> {
        if MODULE.contains_range(code as u64, bytes as u64) { Ok(()) } else { Err(error("code outside of an artifact")) }
    }

    fn unpublish_executable(&self, _: *const u8, _: usize) -> wasmtime::Result<()> {
        Ok(())
    }
}

/// The module in this artifact.
pub(super) fn load(engine: &Engine, artifact: &'static [u8]) -> Result<Module, Ending> {
    // SAFETY: the artifact is mapped for ever, and what is in it can harm this VM only, in which nothing but it runs.
    let module = unsafe { Module::deserialize_raw(engine, NonNull::from(artifact)) };
    module.map_err(|error| Ending { kind: exit_kind::INVALID_MODULE, message: format!("{error:?}"), ..Ending::default() })
}

/// The host maps artifacts, and brings none in parts.
pub(super) fn load_copy(_: &Engine, _: &[u8]) -> Result<Module, Ending> {
    Err(Ending::cannot_run(String::from("compiled code has to be mapped by the host")))
}

pub(super) fn instantiate(linker: &Linker<Wasi>, store: &mut Store<Wasi>, module: &Module) -> Result<Instance, Ending> {
    linker.instantiate(&mut *store, module).map_err(|error| {
        let denied = store.data().limiter.denied();
        match ending(&error) {
            ending if ending.code == trap::OTHER && !ending.host_failed && ending.backtrace.is_empty() => {
                // With its causes: the first one names the import that does not fit.
                Ending::cannot_run(denied.unwrap_or_else(|| format!("{error:#}")))
            }
            ending => ending,
        }
    })
}

/// What an error of a running module means.
pub(crate) fn ending(error: &Error) -> Ending {
    if let Some(Exit(status)) = error.downcast_ref() {
        return Ending::exited(status.cast_unsigned());
    }
    let code = error.downcast_ref::<Trap>().map_or(trap::OTHER, |code| trap_code(*code));
    let host_failed = error.downcast_ref::<HostFailed>().is_some();
    let message = format!("{}", error.root_cause());
    let backtrace = error.downcast_ref::<WasmBacktrace>().map(backtrace).unwrap_or_default().into();
    Ending { kind: exit_kind::TRAPPED, code, message, backtrace, host_failed, ..Ending::default() }
}

/// A backtrace as the contract has it.
fn backtrace(backtrace: &WasmBacktrace) -> String {
    let mut text = String::new();
    for frame in backtrace.frames() {
        let (index, name) = (frame.func_index(), frame.func_name().unwrap_or(""));
        // Writing to a string does not fail. A name can have any character, and the host shows none that controls.
        let _written = match frame.module_offset() {
            Some(offset) => write!(text, "{index} {offset} {}\0", name.replace('\0', "")),
            None => write!(text, "{index} - {}\0", name.replace('\0', "")),
        };
    }
    text
}

fn trap_code(code: Trap) -> u32 {
    match code {
        Trap::StackOverflow => trap::STACK_OVERFLOW,
        Trap::MemoryOutOfBounds => trap::MEMORY_OUT_OF_BOUNDS,
        Trap::TableOutOfBounds => trap::TABLE_OUT_OF_BOUNDS,
        Trap::IndirectCallToNull => trap::INDIRECT_CALL_TO_NULL,
        Trap::BadSignature => trap::BAD_SIGNATURE,
        Trap::IntegerOverflow => trap::INTEGER_OVERFLOW,
        Trap::IntegerDivisionByZero => trap::INTEGER_DIVIDE_BY_ZERO,
        Trap::BadConversionToInteger => trap::INVALID_CONVERSION_TO_INTEGER,
        Trap::UnreachableCodeReached => trap::UNREACHABLE,
        Trap::OutOfFuel => trap::OUT_OF_FUEL,
        _ => trap::OTHER,
    }
}

/// The end of a program by itself.
#[derive(Debug)]
struct Exit(i32);

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the program ended with status {}", self.0)
    }
}

impl core::error::Error for Exit {}

/// An error that ends the call with this message.
pub(crate) fn error(message: &'static str) -> Error {
    Error::msg(message)
}

/// The error of a function of the host.
pub(super) fn host_failed() -> Error {
    Error::new(HostFailed)
}

/// The end of the program by itself.
pub(crate) fn exit(status: i32) -> Error {
    Error::new(Exit(status))
}

pub(super) fn func_type(engine: &Engine, parameters: &[ValueType], results: &[ValueType]) -> FuncType {
    let types = |types: &[ValueType]| types.iter().map(|ty| val_type(*ty)).collect::<Vec<_>>();
    FuncType::new(engine, types(parameters), types(results))
}

pub(super) fn parameters(ty: &FuncType) -> impl ExactSizeIterator<Item = ValType> {
    ty.params()
}

pub(super) fn results(ty: &FuncType) -> impl ExactSizeIterator<Item = ValType> {
    ty.results()
}

/// A place for a result of this type: the engine puts another value there.
pub(super) fn place(ty: &ValType) -> Val {
    ty.default_value().unwrap_or(Val::I32(0))
}

/// The engine's type for one of the contract.
fn val_type(ty: ValueType) -> ValType {
    match ty {
        ValueType::I32 => ValType::I32,
        ValueType::I64 => ValType::I64,
        ValueType::F32 => ValType::F32,
        ValueType::F64 => ValType::F64,
        ValueType::V128 => ValType::V128,
        ValueType::FuncRef => ValType::Ref(RefType::FUNCREF),
        ValueType::ExternRef => ValType::Ref(RefType::EXTERNREF),
        ValueType::OtherRef => ValType::Ref(RefType::ANYREF),
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
        ValType::Ref(ty) if ty.matches(&RefType::EXTERNREF) => ValueType::ExternRef,
        ValType::Ref(ty) if RefType::eq(ty, &RefType::FUNCREF) => ValueType::FuncRef,
        ValType::Ref(_) => ValueType::OtherRef,
    }
}

/// The value with this type and these bits; `None` for a reference that cannot come from outside.
pub(super) fn decode(ty: &ValType, raw: RawValue, context: impl AsContextMut<Data = Wasi>) -> Option<Val> {
    Some(match ty {
        ValType::I32 => Val::I32((raw.low as u32).cast_signed()),
        ValType::I64 => Val::I64(raw.low.cast_signed()),
        ValType::F32 => Val::F32(raw.low as u32),
        ValType::F64 => Val::F64(raw.low),
        ValType::V128 => Val::V128(V128::from(u128::from(raw.low) | u128::from(raw.high) << 64)),
        ValType::Ref(ty) if raw.low == NULL => return ty.is_nullable().then(|| Val::null_ref(ty.heap_type())),
        ValType::Ref(ty) if matches!(ty.heap_type(), HeapType::Extern) => {
            // Without room for it there is nothing to be given.
            Val::ExternRef(Some(ExternRef::new(context, raw.low as u32).ok()?))
        }
        ValType::Ref(_) => return None,
    })
}

/// The bits of a value.
pub(super) fn encode(value: &Val, context: impl AsContext) -> RawValue {
    let low = match value {
        Val::I32(value) => u64::from(value.cast_unsigned()),
        Val::I64(value) => value.cast_unsigned(),
        Val::F32(bits) => u64::from(*bits),
        Val::F64(bits) => *bits,
        Val::V128(value) => {
            let value = value.as_u128();
            return RawValue { low: value as u64, high: (value >> 64) as u64 };
        }
        Val::ExternRef(Some(reference)) => match reference.data(&context) {
            Ok(Some(data)) => u64::from(data.downcast_ref::<u32>().copied().unwrap_or(0)),
            _ => 0,
        },
        Val::FuncRef(None) | Val::ExternRef(None) | Val::AnyRef(None) | Val::ExnRef(None) | Val::ContRef(None) => NULL,
        Val::FuncRef(Some(_)) | Val::AnyRef(Some(_)) | Val::ExnRef(Some(_)) | Val::ContRef(Some(_)) => 0,
    };
    RawValue { low, high: 0 }
}

/// Whether a function of type `found` is what an import of type `wanted` asks for.
pub(super) fn matches(found: &FuncType, wanted: &FuncType) -> bool {
    found.matches(wanted)
}

/// Lets `linker` give `found` for `import`.
pub(super) fn define(linker: &mut Linker<Wasi>, store: &Store<Wasi>, import: &ImportType<'_>, found: Extern) {
    // The same import may be there twice; it is the same thing then.
    let _defined_already = linker.define(store, import.module(), import.name(), found);
}

/// Whether a global can be changed.
pub(super) fn is_mutable(ty: &GlobalType) -> bool {
    ty.mutability() == Mutability::Var
}

/// The type of what a global holds.
pub(super) fn content(ty: &GlobalType) -> ValType {
    ty.content().clone()
}

/// The type of what a table holds.
pub(super) fn element(ty: &TableType) -> ValType {
    ValType::Ref(ty.element().clone())
}

/// A result as `wasmtime run --invoke` shows it.
pub(super) struct Shown<'a>(pub(super) &'a Val);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Val::I32(value) => write!(f, "{value}"),
            Val::I64(value) => write!(f, "{value}"),
            Val::F32(bits) => write!(f, "{}", f32::from_bits(*bits)),
            Val::F64(bits) => write!(f, "{}", f64::from_bits(*bits)),
            Val::V128(value) => write!(f, "{}", value.as_u128()),
            Val::FuncRef(None) | Val::ExternRef(None) | Val::AnyRef(None) | Val::ExnRef(None) | Val::ContRef(None) => {
                write!(f, "<null>")
            }
            Val::FuncRef(_) => write!(f, "<funcref>"),
            Val::ExternRef(_) => write!(f, "<externref>"),
            Val::AnyRef(_) => write!(f, "<anyref>"),
            Val::ExnRef(_) => write!(f, "<exnref>"),
            Val::ContRef(_) => write!(f, "<contref>"),
        }
    }
}

/// For the references that a call from outside brings: they end with it.
pub(super) fn scope(store: &mut Store<Wasi>) -> RootScope<&mut Store<Wasi>> {
    RootScope::new(store)
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grow_memory(current, desired))
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grow_table(current, desired))
    }

    fn memory_grow_failed(&mut self, error: Error) -> wasmtime::Result<()> {
        self.take_memory_back(&error);
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
