//! Functions of the host that modules import, and what they are given of the sandbox that calls them.

use std::{
    any::Any,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use mote_abi::{
    hypercall::{HostReturn, LinearMemory, NO_FUEL, status},
    layout::MAILBOX_DATA,
    mailbox::Response,
    value::{MAX_VALUES, RawValue, ValueType, signature},
};
use zerocopy::IntoBytes;

use super::{
    error::{AccessError, BuildError, CallError, HostError},
    export::FuncType,
    linear,
    value::{List, Scalar, Value},
};
use crate::{ending::GuestFault, machine::Machine, request::HostCall};

/// What a function of the host is given beside its arguments: the sandbox that calls it, as far as that is sound in the middle
/// of a call. It cannot call back into the sandbox.
pub struct Caller<'a> {
    machine: &'a mut Machine,
    memory: LinearMemory,
    fuel_left: Option<u64>,
    /// What the function gives the call to go on with.
    fuel: &'a mut Option<u64>,
    data: &'a mut Option<Box<dyn Any + Send>>,
}

impl Caller<'_> {
    /// Size of the linear memory that the calling module exports as `memory`, in bytes; 0 if it exports none.
    pub fn memory_bytes(&self) -> u64 {
        self.memory.bytes
    }

    /// Reads that memory from `offset` on.
    pub fn read_memory(&self, offset: u64, to: &mut [u8]) -> Result<(), AccessError> {
        linear::read(self.machine, self.memory, offset, to)
    }

    /// Reads `bytes` bytes of it into a new vector, for which memory is only taken once the range is known to be good.
    pub fn read_memory_to_vec(&self, offset: u64, bytes: u64) -> Result<Vec<u8>, AccessError> {
        read_to_vec(self.machine, self.memory, offset, bytes)
    }

    /// Writes to that memory from `offset` on.
    pub fn write_memory(&mut self, offset: u64, from: &[u8]) -> Result<(), AccessError> {
        linear::write(self.machine, self.memory, offset, from)
    }

    /// Fuel that the call has left; nothing where fuel is not counted.
    pub fn fuel(&self) -> Option<u64> {
        self.fuel.or(self.fuel_left)
    }

    /// Gives the call this much fuel to go on with. Without fuel being counted it does nothing.
    pub fn set_fuel(&mut self, fuel: u64) {
        // The largest number means that fuel is left as it is.
        *self.fuel = self.fuel_left.map(|_| fuel.min(NO_FUEL - 1));
    }

    /// Whether the call is to end, by an interrupt or because its deadline passed. A function that takes long asks now and
    /// then, and returns what it likes: its results are not looked at any more.
    pub fn is_interrupted(&self) -> bool {
        self.machine.control.look().is_some()
    }

    /// How long the call may still take; nothing if it has no deadline.
    pub fn remaining(&self) -> Option<Duration> {
        self.machine.control.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Sleeps, but not beyond an interrupt or the deadline; whether the whole time passed.
    pub fn sleep(&self, duration: Duration) -> bool {
        matches!(self.machine.control.poll(&[], Some(duration)), Ok(Ok(_)))
    }

    /// What was given to the sandbox by [`crate::Sandbox::set_data`], if it is of this type.
    pub fn data<T: Any>(&mut self) -> Option<&mut T> {
        self.data.as_mut()?.downcast_mut()
    }
}

impl fmt::Debug for Caller<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").field("memory", &self.memory).field("fuel", &self.fuel()).finish_non_exhaustive()
    }
}

pub(super) fn read_to_vec(machine: &Machine, memory: LinearMemory, offset: u64, bytes: u64) -> Result<Vec<u8>, AccessError> {
    // Bounds first: a guest's length is no size for a vector before it was checked.
    if offset.checked_add(bytes).is_none_or(|end| end > memory.bytes.min(machine.stats.ram_bytes)) {
        return Err(AccessError::OutOfBounds { offset, bytes, memory_bytes: memory.bytes });
    }
    let mut to = vec![0; usize::try_from(bytes).unwrap_or(0)];
    linear::read(machine, memory, offset, &mut to)?;
    Ok(to)
}

pub(crate) type Body = dyn Fn(Caller<'_>, &[RawValue], &mut Vec<RawValue>) -> Result<(), HostError> + Send + Sync;

/// A function with its names and its type.
#[derive(Clone)]
pub(crate) struct HostFunction {
    pub(crate) module: String,
    pub(crate) name: String,
    pub(crate) ty: FuncType,
    body: Arc<Body>,
}

impl HostFunction {
    /// A function of a type that is known at compile time.
    pub(crate) fn new<P, R>(module: &str, name: &str, closure: impl HostClosure<P, R>) -> Self {
        let (ty, body) = closure.into_body();
        Self { module: module.into(), name: name.into(), ty, body }
    }

    /// A function of a type that is known at run time.
    pub(crate) fn dynamic<E: Into<HostError>>(
        module: &str,
        name: &str,
        ty: FuncType,
        closure: impl Fn(Caller<'_>, &[Value]) -> Result<Vec<Value>, E> + Send + Sync + 'static,
    ) -> Self {
        let FuncType { params, results } = ty.clone();
        let body = move |caller: Caller<'_>, raw: &[RawValue], returned: &mut Vec<RawValue>| {
            let arguments: Vec<_> = params.iter().zip(raw).map(|(ty, raw)| Value::from_raw(*ty, *raw)).collect();
            let values = closure(caller, &arguments).map_err(Into::into)?;
            if !values.iter().map(Value::ty).eq(results.iter().copied()) {
                return Err("it returned other values than its type says".into());
            }
            returned.extend(values.into_iter().map(Value::to_raw));
            Ok(())
        };
        Self { module: module.into(), name: name.into(), ty, body: Arc::new(body) }
    }

    fn full_name(&self) -> String {
        format!("{}::{}", self.module, self.name)
    }

    /// Its type as the guest reads it.
    pub(crate) fn signature(&self) -> String {
        let letters = |types: &[ValueType]| types.iter().map(|ty| char::from(ty.letter())).collect::<String>();
        format!("{}{}{}", letters(&self.ty.params), char::from(signature::SEPARATOR), letters(&self.ty.results))
    }
}

impl fmt::Debug for HostFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.full_name(), self.ty)
    }
}

/// How a function of the host ended.
pub(super) enum Answered {
    Returned {
        /// How much more fuel the call has now, or less.
        refilled: i128,
    },
    /// Its name and its error.
    Failed(String, HostError),
}

/// All functions of the host that a sandbox has. The guest knows them by their order.
#[derive(Debug, Clone, Default)]
pub(crate) struct HostFunctions(Vec<HostFunction>);

impl HostFunctions {
    pub(crate) fn add(&mut self, function: HostFunction) {
        self.0.push(function);
    }

    pub(crate) fn as_slice(&self) -> &[HostFunction] {
        &self.0
    }

    /// Refuses two of one name, and those of types that no function can have.
    pub(crate) fn check(&self) -> Result<(), BuildError> {
        let is_too_long = |one: &&HostFunction| one.ty.params.len().max(one.ty.results.len()) > MAX_VALUES;
        if let Some(function) = self.0.iter().find(is_too_long) {
            return Err(BuildError::FunctionType(function.full_name()));
        }
        let same = |index: usize, one: &HostFunction| {
            self.0.iter().take(index).any(|other| (&other.module, &other.name) == (&one.module, &one.name))
        };
        match self.0.iter().enumerate().find(|(index, one)| same(*index, one)) {
            Some((_, function)) => Err(BuildError::SameFunction(function.full_name())),
            None => Ok(()),
        }
    }

    /// Module, name and signature of each.
    pub(crate) fn strings(&self) -> Vec<String> {
        self.0.iter().flat_map(|function| [function.module.clone(), function.name.clone(), function.signature()]).collect()
    }

    /// These functions in the order of a snapshot, which needs functions of these names and signatures.
    pub(crate) fn in_order_of(&self, needed: &[[String; 3]]) -> Result<Self, BuildError> {
        let find = |[module, name, ty]: &[String; 3]| {
            let found = self.0.iter().find(|one| one.module == *module && one.name == *name && one.signature() == *ty);
            let missing = || BuildError::MissingFunction { name: format!("{module}::{name}"), ty: ty.clone() };
            found.cloned().ok_or_else(missing)
        };
        needed.iter().map(find).collect::<Result<_, _>>().map(Self)
    }

    /// Calls the function that the guest wants, and answers it.
    pub(super) fn answer(
        &self,
        machine: &mut Machine,
        call: &HostCall,
        data: &mut Option<Box<dyn Any + Send>>,
    ) -> Result<Answered, CallError> {
        let bad = |what: &str| GuestFault::BadRequest(what.into());
        let function = self.0.get(call.function).ok_or_else(|| bad("a call of a host function that there is not"))?;
        if call.arguments.len() != function.ty.params.len() {
            return Err(bad("a call of a host function with another number of arguments than it has").into());
        }
        let mut fuel = None;
        let mut results = Vec::with_capacity(function.ty.results.len());
        let caller = Caller { machine: &mut *machine, memory: call.memory, fuel_left: call.fuel_left, fuel: &mut fuel, data };
        match (function.body)(caller, &call.arguments, &mut results) {
            Ok(()) => {
                machine.write(MAILBOX_DATA.start, results.as_bytes())?;
                let count = u32::try_from(results.len()).unwrap_or(0);
                let answer = HostReturn { count, reserved: 0, fuel: fuel.unwrap_or(NO_FUEL) };
                machine.respond(&Response::new(status::OK, &answer, 0))?;
                let refilled = fuel.map_or(0, |fuel| i128::from(fuel) - i128::from(call.fuel_left.unwrap_or(0)));
                Ok(Answered::Returned { refilled })
            }
            Err(error) => {
                machine.respond(&Response::new(status::HOST_ERROR, &0u32, 0))?;
                Ok(Answered::Failed(function.full_name(), error))
            }
        }
    }
}

mod sealed {
    use std::sync::Arc;

    use mote_abi::value::{RawValue, ValueType};

    use super::{Body, FuncType, HostError};

    /// What a closure returns.
    pub trait Returned {
        const TYPES: &'static [ValueType];
        fn push(self, raw: &mut Vec<RawValue>) -> Result<(), HostError>;
    }

    /// A closure with the types of its arguments and of what it returns.
    pub trait Closure<P, R> {
        fn into_body(self) -> (FuncType, Arc<Body>);
    }
}

use sealed::{Closure, Returned};

/// What a function of the host may return: [`crate::WasmValues`], or a `Result` of them with any error that becomes a [`HostError`].
pub trait HostReturned: Returned {}

impl<T: Returned> HostReturned for T {}

/// A closure that is a function of the host: it takes a [`Caller`] and up to twelve [`crate::WasmType`]s, and returns [`HostReturned`].
pub trait HostClosure<P, R>: Closure<P, R> {}

impl<P, R, T: Closure<P, R>> HostClosure<P, R> for T {}

impl<T: List> Returned for T {
    const TYPES: &'static [ValueType] = <T as List>::TYPES;

    fn push(self, raw: &mut Vec<RawValue>) -> Result<(), HostError> {
        List::push(self, raw);
        Ok(())
    }
}

impl<T: List, E: Into<HostError>> Returned for Result<T, E> {
    const TYPES: &'static [ValueType] = <T as List>::TYPES;

    fn push(self, raw: &mut Vec<RawValue>) -> Result<(), HostError> {
        self.map(|values| values.push(raw)).map_err(Into::into)
    }
}

macro_rules! closures {
    ($(($($name:ident)*))*) => {
        $(
            #[allow(non_snake_case, unused_mut, unused_variables)]
            impl<Function, Results, $($name),*> Closure<($($name,)*), Results> for Function
            where
                Function: Fn(Caller<'_>, $($name),*) -> Results + Send + Sync + 'static,
                Results: Returned,
                $($name: Scalar,)*
            {
                fn into_body(self) -> (FuncType, Arc<Body>) {
                    let ty = FuncType { params: vec![$($name::TYPE),*], results: Results::TYPES.to_vec() };
                    let body = move |caller: Caller<'_>, raw: &[RawValue], returned: &mut Vec<RawValue>| {
                        let mut values = raw.iter().copied();
                        $(let $name = $name::from_raw(values.next().unwrap_or_default());)*
                        self(caller, $($name),*).push(returned)
                    };
                    (ty, Arc::new(body))
                }
            }
        )*
    };
}

closures! {
    ()
    (A)
    (A B)
    (A B C)
    (A B C D)
    (A B C D E)
    (A B C D E F)
    (A B C D E F G)
    (A B C D E F G H)
    (A B C D E F G H I)
    (A B C D E F G H I J)
    (A B C D E F G H I J K)
    (A B C D E F G H I J K L)
}
