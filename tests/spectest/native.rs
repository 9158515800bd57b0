//! The kernel's interpreter as an ordinary library: what sandboxes are compared with.

use std::collections::HashMap;

use mote_vmm::{TrapKind, Value, ValueType};
use wasmi::{
    Caller, Config, Engine as Wasmi, Error, Extern, ExternRef, F32, F64, Func, Instance, Linker, Module, Nullable, Store,
    TrapCode, V128, Val,
    errors::{ErrorKind, InstantiationError},
};

use super::{
    engine::{Engine, Failure, HOST_MODULE, SPECTEST},
    value::{Bits, NULL},
};

pub(crate) struct Native {
    engine: Wasmi,
    /// With what was printed.
    store: Store<Vec<String>>,
    host: HashMap<&'static str, Func>,
    registered: HashMap<String, Instance>,
    /// One for each number, as a host has it that gives references out.
    extern_refs: HashMap<u32, ExternRef>,
}

impl Native {
    /// With the configuration that a kernel has by default.
    pub(crate) fn new() -> Self {
        let mut config = Config::default();
        config.ignore_custom_sections(true).set_max_stack_height(8 << 20).set_max_recursion_depth(50_000);
        let engine = Wasmi::new(&config);
        let mut store = Store::new(&engine, Vec::new());
        let host = host(&mut store);
        let mut native = Self { engine, store, host, registered: HashMap::new(), extern_refs: HashMap::new() };
        let spectest = wat::parse_str(SPECTEST).expect("the module is correct");
        let instance = native.instantiate(&spectest).expect("the module imports what there is");
        native.registered.insert("spectest".into(), instance);
        native
    }

    fn import(&self, module: &str, name: &str) -> Option<Extern> {
        if module == HOST_MODULE {
            return self.host.get(name).copied().map(Extern::Func);
        }
        self.registered.get(module)?.get_export(&self.store, name)
    }

    fn argument(&mut self, value: &Value) -> Val {
        match *value {
            Value::I32(value) => Val::I32(value),
            Value::I64(value) => Val::I64(value),
            Value::F32(value) => Val::F32(F32::from_bits(value.to_bits())),
            Value::F64(value) => Val::F64(F64::from_bits(value.to_bits())),
            Value::V128(value) => Val::V128(V128::from(value)),
            Value::FuncRef(None) => Val::FuncRef(Nullable::Null),
            Value::FuncRef(Some(_)) => unreachable!("scripts have no such arguments"),
            Value::OtherRef(_) => unreachable!("the interpreter has no such types"),
            Value::ExternRef(None) => Val::ExternRef(Nullable::Null),
            Value::ExternRef(Some(number)) => {
                let new = || ExternRef::new(&mut self.store, number);
                Val::ExternRef(Nullable::Val(*self.extern_refs.entry(number).or_insert_with(new)))
            }
        }
    }

    fn result(&self, value: &Val) -> Bits {
        let (ty, bits) = match value {
            Val::I32(value) => (ValueType::I32, value.cast_unsigned().into()),
            Val::I64(value) => (ValueType::I64, value.cast_unsigned().into()),
            Val::F32(value) => (ValueType::F32, value.to_bits().into()),
            Val::F64(value) => (ValueType::F64, value.to_bits().into()),
            Val::V128(value) => (ValueType::V128, value.as_u128()),
            Val::FuncRef(Nullable::Null) => (ValueType::FuncRef, NULL),
            Val::FuncRef(Nullable::Val(_)) => (ValueType::FuncRef, 0),
            Val::ExternRef(Nullable::Null) => (ValueType::ExternRef, NULL),
            Val::ExternRef(Nullable::Val(reference)) => {
                let number: Option<&u32> = reference.data(&self.store).downcast_ref();
                (ValueType::ExternRef, (*number.expect("all that there are stand for numbers")).into())
            }
        };
        Bits { ty, bits }
    }
}

impl Engine for Native {
    type Instance = Instance;

    fn instantiate(&mut self, bytes: &[u8]) -> Result<Instance, Failure> {
        let module = Module::new(&self.engine, bytes).map_err(|error| failure(&error))?;
        let mut linker = Linker::new(&self.engine);
        for import in module.imports() {
            let (module, name) = (import.module(), import.name());
            let found = self.import(module, name);
            let found = found.ok_or_else(|| Failure::Unlinkable(format!("there is no {module}::{name}")))?;
            // The same import may be there twice; it is the same thing then.
            let _defined_already = linker.define(module, name, found);
        }
        linker.instantiate_and_start(&mut self.store, &module).map_err(|error| failure(&error))
    }

    fn register(&mut self, name: &str, instance: Instance) -> Result<(), Failure> {
        self.registered.insert(name.into(), instance);
        Ok(())
    }

    fn invoke(&mut self, instance: Instance, name: &str, arguments: &[Value]) -> Result<Vec<Bits>, Failure> {
        let missing = || Failure::Other(format!("there is no function `{name}`"));
        let function = instance.get_func(&self.store, name).ok_or_else(missing)?;
        let arguments: Vec<_> = arguments.iter().map(|argument| self.argument(argument)).collect();
        let ty = function.ty(&self.store);
        let mut results: Vec<_> = ty.results().iter().map(|ty| Val::default_for_ty(*ty)).collect();
        function.call(&mut self.store, &arguments, &mut results).map_err(|error| failure(&error))?;
        Ok(results.iter().map(|value| self.result(value)).collect())
    }

    fn global(&mut self, instance: Instance, name: &str) -> Result<Bits, Failure> {
        let missing = || Failure::Other(format!("there is no global `{name}`"));
        let value = instance.get_global(&self.store, name).ok_or_else(missing)?.get(&self.store);
        Ok(self.result(&value))
    }

    fn printed(&mut self) -> Vec<String> {
        std::mem::take(self.store.data_mut())
    }
}

fn host(store: &mut Store<Vec<String>>) -> HashMap<&'static str, Func> {
    type Host<'a> = Caller<'a, Vec<String>>;
    let print = |mut caller: Host<'_>, line: String| caller.data_mut().push(line);
    HashMap::from([
        ("print", Func::wrap(&mut *store, move |caller: Host<'_>| print(caller, String::new()))),
        ("print_i32", Func::wrap(&mut *store, move |caller: Host<'_>, a: i32| print(caller, format!("{a}")))),
        ("print_i64", Func::wrap(&mut *store, move |caller: Host<'_>, a: i64| print(caller, format!("{a}")))),
        ("print_f32", Func::wrap(&mut *store, move |caller: Host<'_>, a: f32| print(caller, format!("{a}")))),
        ("print_f64", Func::wrap(&mut *store, move |caller: Host<'_>, a: f64| print(caller, format!("{a}")))),
        ("print_i32_f32", Func::wrap(&mut *store, move |caller: Host<'_>, a: i32, b: f32| print(caller, format!("{a} {b}")))),
        ("print_f64_f64", Func::wrap(&mut *store, move |caller: Host<'_>, a: f64, b: f64| print(caller, format!("{a} {b}")))),
    ])
}

fn failure(error: &Error) -> Failure {
    if let Some(code) = error.as_trap_code() {
        return Failure::Trap(trap_name(code).into());
    }
    match error.kind() {
        ErrorKind::Instantiation(InstantiationError::ElementSegmentDoesNotFit { .. }) => {
            Failure::Trap(trap_name(TrapCode::TableOutOfBounds).into())
        }
        ErrorKind::Wasm(_) | ErrorKind::Translation(_) | ErrorKind::ImplementationLimits(_) | ErrorKind::Read(_) => {
            Failure::Invalid(error.to_string())
        }
        ErrorKind::Linker(_) | ErrorKind::Instantiation(_) | ErrorKind::Memory(_) | ErrorKind::Table(_) => {
            Failure::Unlinkable(error.to_string())
        }
        _ => Failure::Other(error.to_string()),
    }
}

/// The name that sandboxes have for a trap.
fn trap_name(code: TrapCode) -> &'static str {
    let kind = match code {
        TrapCode::UnreachableCodeReached => TrapKind::Unreachable,
        TrapCode::MemoryOutOfBounds => TrapKind::MemoryOutOfBounds,
        TrapCode::TableOutOfBounds => TrapKind::TableOutOfBounds,
        TrapCode::IndirectCallToNull => TrapKind::IndirectCallToNull,
        TrapCode::IntegerDivisionByZero => TrapKind::IntegerDivideByZero,
        TrapCode::IntegerOverflow => TrapKind::IntegerOverflow,
        TrapCode::BadConversionToInteger => TrapKind::InvalidConversionToInteger,
        TrapCode::StackOverflow => TrapKind::StackOverflow,
        TrapCode::BadSignature => TrapKind::BadSignature,
        TrapCode::OutOfFuel => TrapKind::OutOfFuel,
        TrapCode::GrowthOperationLimited => TrapKind::GrowthLimited,
        TrapCode::OutOfSystemMemory => TrapKind::OutOfSystemMemory,
    };
    kind.name().expect("only one kind has no name, and is not here")
}
