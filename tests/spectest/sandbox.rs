//! Sandboxes as engines: one for each script, all copies of a snapshot.

use std::iter;

use mote_vmm::{BuildError, CallError, Caller, ExportType, Instance, Rejection, Sandbox, Snapshot, Value, ValueType};

use super::{
    engine::{Engine, Failure, HOST_MODULE, SPECTEST},
    value::Bits,
};
use crate::support::engine::sandbox_builder;

const RAM_BYTES: u64 = 256 << 20;

/// Some scripts are a sequence of thousands of modules.
const INSTANCES: u32 = 10_000;

pub(crate) struct InSandbox(Sandbox);

/// A sandbox with `spectest` in it, at rest.
pub(crate) fn base() -> Result<Snapshot, BuildError> {
    let mut sandbox = sandbox_builder()
        .module_bytes(*b"(module)")
        .ram_bytes(RAM_BYTES)
        .instances(INSTANCES)
        .func(HOST_MODULE, "print", |caller: Caller<'_>| print(caller, String::new()))
        .func(HOST_MODULE, "print_i32", |caller: Caller<'_>, a: i32| print(caller, format!("{a}")))
        .func(HOST_MODULE, "print_i64", |caller: Caller<'_>, a: i64| print(caller, format!("{a}")))
        .func(HOST_MODULE, "print_f32", |caller: Caller<'_>, a: f32| print(caller, format!("{a}")))
        .func(HOST_MODULE, "print_f64", |caller: Caller<'_>, a: f64| print(caller, format!("{a}")))
        .func(HOST_MODULE, "print_i32_f32", |caller: Caller<'_>, a: i32, b: f32| print(caller, format!("{a} {b}")))
        .func(HOST_MODULE, "print_f64_f64", |caller: Caller<'_>, a: f64, b: f64| print(caller, format!("{a} {b}")))
        .build()?;
    let spectest = sandbox.instantiate(SPECTEST.as_bytes())?;
    sandbox.register("spectest", spectest)?;
    Ok(sandbox.snapshot().expect("a sandbox that is ready"))
}

fn print(mut caller: Caller<'_>, line: String) {
    caller.data::<Vec<String>>().expect("each sandbox is given a list of lines").push(line);
}

impl InSandbox {
    pub(crate) fn new(base: &Snapshot) -> Result<Self, BuildError> {
        base.sandbox().data(Vec::<String>::new()).build().map(Self)
    }

    /// Arguments with null references of the types that the function has: a script may name a type below.
    fn nulls_as_wanted(&self, instance: Instance, name: &str, arguments: &[Value]) -> Vec<Value> {
        let exports = self.0.exports_of(instance);
        let wanted = exports.iter().find_map(|export| match &export.ty {
            ExportType::Func(ty) if export.name == name => Some(ty.params.as_slice()),
            _ => None,
        });
        let wanted = wanted.unwrap_or_default().iter().map(Some).chain(iter::repeat(None));
        let as_wanted = |(argument, wanted): (&Value, Option<&ValueType>)| match (argument, wanted) {
            (Value::FuncRef(None) | Value::OtherRef(None), Some(ValueType::FuncRef | ValueType::OtherRef)) => {
                wanted.map_or(*argument, |ty| Value::default_of(*ty))
            }
            _ => *argument,
        };
        arguments.iter().zip(wanted).map(as_wanted).collect()
    }

    /// After a trap the engine is sound, and scripts go on with the same instances.
    fn outcome<T>(&mut self, result: Result<T, CallError>) -> Result<T, Failure> {
        let error = match result {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if error.trap().is_some()
            && let Err(error) = self.0.clear_poison()
        {
            return Err(Failure::Other(error.to_string()));
        }
        Err(match error {
            CallError::Trap(trap) => Failure::Trap(match trap.kind.name() {
                Some(name) => name.into(),
                // Those of newer proposals, in the engine's words.
                None => trap.message.strip_prefix("wasm trap: ").unwrap_or(&trap.message).into(),
            }),
            CallError::Rejected(rejection) => match *rejection {
                Rejection::Invalid(message) => Failure::Invalid(message),
                Rejection::CannotRun(message) => Failure::Unlinkable(message),
            },
            other => Failure::Other(other.to_string()),
        })
    }
}

impl Engine for InSandbox {
    type Instance = Instance;

    fn instantiate(&mut self, bytes: &[u8]) -> Result<Instance, Failure> {
        let result = self.0.instantiate(bytes);
        self.outcome(result)
    }

    fn register(&mut self, name: &str, instance: Instance) -> Result<(), Failure> {
        let result = self.0.register(name, instance);
        self.outcome(result)
    }

    fn invoke(&mut self, instance: Instance, name: &str, arguments: &[Value]) -> Result<Vec<Bits>, Failure> {
        let arguments = self.nulls_as_wanted(instance, name, arguments);
        let result = self.0.call_dynamic_of(instance, name, &arguments);
        self.outcome(result).map(|values| values.into_iter().map(Bits::from).collect())
    }

    fn global(&mut self, instance: Instance, name: &str) -> Result<Bits, Failure> {
        let result = self.0.global_of(instance, name);
        self.outcome(result).map(Bits::from)
    }

    fn printed(&mut self) -> Vec<String> {
        self.0.take_data().expect("each sandbox is given a list of lines")
    }
}
