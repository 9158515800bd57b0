//! Calls: of functions that are known at compile time or at run time, and of whole programs.

use std::marker::PhantomData;

use mote_abi::{
    command::{self, CallArgs},
    hypercall::NO_FUEL,
    value::{MAX_VALUES, RawValue},
};
use zerocopy::IntoBytes;

use super::{
    CallError, Instance, Sandbox, SandboxState, Value, WasmValues,
    session::{About, Step, done},
    value::type_names,
};
use crate::{ending::HostFailure, request::values};

/// An exported function, looked up once. It is good for the sandbox that it comes from, and for all copies and restores of it.
#[derive(Debug)]
pub struct Func<P, R> {
    instance: u32,
    export: u32,
    types: PhantomData<fn(P) -> R>,
}

impl<P, R> Clone for Func<P, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P, R> Copy for Func<P, R> {}

/// How far a program came that was started with [`Sandbox::start_until_input`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It waits for standard input: take a snapshot, or [`Sandbox::resume`] it.
    AtInput,
    /// Its start function returned without having asked for input.
    Finished,
}

impl Sandbox {
    /// Calls the exported function `name` of the first module. The types of arguments and results are checked against its type
    /// first.
    pub fn call<P: WasmValues, R: WasmValues>(&mut self, name: &str, params: P) -> Result<R, CallError> {
        let func = self.func(name)?;
        self.call_func(func, params)
    }

    /// Looks an exported function of the first module up, so that calls need not.
    pub fn func<P: WasmValues, R: WasmValues>(&self, name: &str) -> Result<Func<P, R>, CallError> {
        self.func_of(Instance(0), name)
    }

    /// The same for a function of any instance.
    pub fn func_of<P: WasmValues, R: WasmValues>(&self, instance: Instance, name: &str) -> Result<Func<P, R>, CallError> {
        let (export, ty) = self.find_function(instance, name)?;
        if ty.params != P::TYPES || ty.results != R::TYPES {
            let wanted = format!("{} -> {}", type_names(P::TYPES), type_names(R::TYPES));
            return Err(CallError::Mismatch(format!("`{name}` is a function {ty}, not {wanted}").into()));
        }
        Ok(Func { instance: instance.0, export, types: PhantomData })
    }

    /// Calls a function that was looked up.
    pub fn call_func<P: WasmValues, R: WasmValues>(&mut self, func: Func<P, R>, params: P) -> Result<R, CallError> {
        // A handle of another sandbox names something else here, or nothing.
        let ty = self.instance(Instance(func.instance)).ok().and_then(|instance| instance.exports.function(func.export));
        if ty.is_none_or(|ty| ty.params != P::TYPES || ty.results != R::TYPES) {
            return Err(CallError::Mismatch("this function was looked up in another sandbox".into()));
        }
        let mut raw = Vec::with_capacity(P::TYPES.len());
        params.push(&mut raw);
        let results = self.call_raw(func.instance, func.export, &raw, R::TYPES.len())?;
        Ok(R::take(&results))
    }

    /// Calls the exported function `name` of the first module with values whose types are known at run time.
    pub fn call_dynamic(&mut self, name: &str, params: &[Value]) -> Result<Vec<Value>, CallError> {
        self.call_dynamic_of(Instance(0), name, params)
    }

    /// The same for a function of any instance.
    pub fn call_dynamic_of(&mut self, instance: Instance, name: &str, params: &[Value]) -> Result<Vec<Value>, CallError> {
        let (export, ty) = self.find_function(instance, name)?;
        let given: Vec<_> = params.iter().map(Value::ty).collect();
        if given != ty.params {
            let message = format!("`{name}` is a function {ty}; arguments {} were given", type_names(&given));
            return Err(CallError::Mismatch(message.into()));
        }
        if params.iter().any(|value| matches!(value, Value::FuncRef(Some(_)))) {
            return Err(CallError::Mismatch("a reference to a function cannot be given from outside".into()));
        }
        let results = ty.results.clone();
        let raw: Vec<_> = params.iter().map(|value| value.to_raw()).collect();
        let returned = self.call_raw(instance.0, export, &raw, results.len())?;
        Ok(results.iter().zip(returned).map(|(ty, raw)| Value::from_raw(*ty, raw)).collect())
    }

    pub(super) fn call_raw(
        &mut self,
        instance: u32,
        export: u32,
        raw: &[RawValue],
        results: usize,
    ) -> Result<Vec<RawValue>, CallError> {
        if raw.len().max(results) > MAX_VALUES {
            return Err(CallError::Mismatch(format!("more than {MAX_VALUES} arguments or results").into()));
        }
        let _span = tracing::trace_span!("call", instance, export).entered();
        let count = u32::try_from(raw.len()).unwrap_or(0);
        let arguments = CallArgs { instance, export, count, reserved: 0, fuel: self.fuel() };
        let (_, payload) =
            done(self.command(command::CALL, About { instance, export: Some(export) }, &arguments, raw.as_bytes(), false)?)?;
        let returned = values(&payload);
        if returned.len() != results {
            return Err(self.fault("another number of results than the function has"));
        }
        Ok(returned)
    }

    /// Fuel of a call, as the guest is told.
    pub(super) fn fuel(&self) -> u64 {
        self.limits.fuel.map_or(NO_FUEL, |fuel| fuel.min(NO_FUEL - 1))
    }

    /// Calls `_start`, as a WASI command has it: 0 if it returns, else the status with which it ended itself.
    pub fn start(&mut self) -> Result<u32, CallError> {
        let result = self.call("_start", ());
        self.status_of(result)
    }

    /// Calls `_start`, and stops where the program first waits for standard input: an interpreter is warmed up then, and has
    /// seen nothing of what it is going to work on.
    pub fn start_until_input(&mut self) -> Result<Progress, CallError> {
        let Func { instance, export, .. } = self.func::<(), ()>("_start")?;
        let arguments = CallArgs { instance, export, count: 0, reserved: 0, fuel: self.fuel() };
        match self.command(command::CALL, About { instance, export: Some(export) }, &arguments, &[], true)? {
            Step::AtInput => Ok(Progress::AtInput),
            Step::Done { .. } => Ok(Progress::Finished),
        }
    }

    /// Goes on with a program that waits for standard input: 0 if its start function returns, else the status with which it
    /// ended itself.
    pub fn resume(&mut self) -> Result<u32, CallError> {
        match self.state {
            SandboxState::AtInput => {}
            SandboxState::Poisoned(poison) => return Err(CallError::Poisoned(poison)),
            SandboxState::Ready => return Err(CallError::Mismatch("the sandbox is not in the middle of a call".into())),
        }
        let result = self.enter(About::default(), false, |machine, session| machine.run_on(&session.attached));
        self.status_of(result.map(drop))
    }

    /// The status with which a program ended.
    pub(super) fn status_of(&self, result: Result<(), CallError>) -> Result<u32, CallError> {
        let status = match result {
            Ok(()) => 0,
            Err(CallError::Exit(status)) => status,
            Err(error) => return Err(error),
        };
        if self.machine.files.has_lost_writes() { Err(HostFailure::LostWrites.into()) } else { Ok(status) }
    }
}
