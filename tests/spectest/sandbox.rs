//! Sandboxes as engines: one for each script, all copies of a snapshot.

use mote_vmm::{BuildError, CallError, Caller, Instance, Rejection, Sandbox, Snapshot, Value};

use super::{
    engine::{Engine, Failure, HOST_MODULE, SPECTEST},
    value::Bits,
};

const RAM_BYTES: u64 = 256 << 20;

/// Some scripts are a sequence of thousands of modules.
const INSTANCES: u32 = 10_000;

pub(crate) struct InSandbox(Sandbox);

/// A sandbox with `spectest` in it, at rest.
pub(crate) fn base() -> Result<Snapshot, BuildError> {
    let mut sandbox = Sandbox::builder()
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
            CallError::Trap(trap) => Failure::Trap(trap.kind.name().map_or(trap.message, str::to_owned)),
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
        let result = self.0.call_dynamic_of(instance, name, arguments);
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
