//! The modules of a sandbox: what they export, their globals, and how others come to be instantiated beside the first.

use std::sync::Arc;

use mote_abi::{
    command::{self, ExportArgs, ExportsArgs, InstantiateArgs, RegisterArgs, StageArgs},
    mailbox::DATA_BYTES,
    value::{RawValue, ValueType},
};
use zerocopy::{FromBytes, IntoBytes};

use super::{
    CallError, Export, ExportType, FuncType, Instance, InstanceState, Poison, Sandbox, SandboxState, Value,
    export::{self, Exports},
    session::{About, Ongoing, done},
};
use crate::{
    ending::Rejection,
    module::{ModuleError, read_module},
};

/// Most bytes of a list of exports: they are the host's memory. Functions of many parameters make long lists of short modules.
const MAX_EXPORTS_BYTES: usize = 16 << 20;

impl Sandbox {
    /// Instantiates another module in this sandbox. Its imports are functions of the host, exports of instances that were
    /// [registered](Sandbox::register), and WASI.
    pub fn instantiate(&mut self, bytes: &[u8]) -> Result<Instance, CallError> {
        let _call = Ongoing::begin(&self.machine, self.limits);
        let mapped = if self.machine.runs_compiled() { self.map_compiled(bytes)? } else { self.stage(bytes)? };
        let arguments = InstantiateArgs { fuel: self.fuel(), ..mapped };
        let (number, _) = done(self.command(command::INSTANTIATE, About::instance(0), &arguments, &[], false)?)?;
        if usize::try_from(number).ok() != Some(self.instances.len()) {
            return Err(self.fault("an instance out of order"));
        }
        let arguments = ExportsArgs { instance: number, from: 0 };
        let (code, payload) = done(self.command(command::EXPORTS, About::instance(number), &arguments, &[], false)?)?;
        let exports = self.exports_from(number, code, payload)?;
        self.keep_exports(exports);
        Ok(Instance(number))
    }

    /// Brings a module that is interpreted into the guest.
    fn stage(&mut self, bytes: &[u8]) -> Result<InstantiateArgs, CallError> {
        let module = read_module("the module".as_ref(), bytes.to_vec()).map_err(|error| refused(&error))?;
        let whole_bytes = module.len() as u64;
        for (index, part) in module.chunks(DATA_BYTES).enumerate() {
            let bytes = u32::try_from(part.len()).unwrap_or(0);
            let arguments = StageArgs { bytes, first: u32::from(index == 0), whole_bytes };
            self.command(command::STAGE, About::instance(0), &arguments, part, false)?;
        }
        Ok(InstantiateArgs::default())
    }

    /// Compiles a module, and maps what comes of it.
    fn map_compiled(&mut self, bytes: &[u8]) -> Result<InstantiateArgs, CallError> {
        if self.is_confined {
            let message = "a confined thread can compile no module; instantiate it before";
            return Err(CallError::Rejected(Box::new(Rejection::CannotRun(message.into()))));
        }
        let fuel = self.machine.counts_fuel();
        let module = self.engine.load_bytes("the module".as_ref(), bytes.to_vec(), fuel);
        let module = module.map_err(|error| CallError::Rejected(Box::new(error.rejection())))?;
        let address = self.machine.add_module(&module);
        let address = address.map_err(|error| CallError::Rejected(Box::new(Rejection::CannotRun(error.to_string()))))?;
        Ok(InstantiateArgs { fuel: 0, address, bytes: module.bytes() })
    }

    /// Offers the exports of an instance, under this name, to the imports of modules that are instantiated after it.
    pub fn register(&mut self, name: &str, instance: Instance) -> Result<(), CallError> {
        let name_bytes = u32::try_from(name.len()).ok().filter(|_| name.len() <= DATA_BYTES);
        let name_bytes = name_bytes.ok_or_else(|| CallError::Mismatch("the name is too long".into()))?;
        self.instance(instance)?;
        let arguments = RegisterArgs { instance: instance.0, name_bytes };
        self.command(command::REGISTER, About::instance(instance.0), &arguments, name.as_bytes(), false).map(drop)
    }

    /// The module that the sandbox was made with.
    pub fn main_instance(&self) -> Instance {
        Instance(0)
    }

    /// What the first module exports, in an order that stays the same.
    pub fn exports(&self) -> &[Export] {
        self.exports_of(Instance(0))
    }

    /// What an instance exports, in an order that stays the same.
    pub fn exports_of(&self, instance: Instance) -> &[Export] {
        self.instance(instance).map_or(&[], |instance| instance.exports.as_slice())
    }

    /// The value of an exported global of the first module.
    pub fn global(&mut self, name: &str) -> Result<Value, CallError> {
        self.global_of(Instance(0), name)
    }

    /// The same for any instance.
    pub fn global_of(&mut self, instance: Instance, name: &str) -> Result<Value, CallError> {
        let (export, ty, _) = self.find_global(instance, name)?;
        let arguments = ExportArgs { instance: instance.0, export };
        let (_, payload) = done(self.command(command::GLOBAL_GET, About::instance(instance.0), &arguments, &[], false)?)?;
        match RawValue::read_from_bytes(&payload) {
            Ok(raw) => Ok(Value::from_raw(ty, raw)),
            Err(_) => Err(self.fault("a global without a value")),
        }
    }

    /// Sets an exported global of the first module that is mutable.
    pub fn set_global(&mut self, name: &str, value: Value) -> Result<(), CallError> {
        self.set_global_of(Instance(0), name, value)
    }

    /// The same for any instance.
    pub fn set_global_of(&mut self, instance: Instance, name: &str, value: Value) -> Result<(), CallError> {
        let (export, ty, mutable) = self.find_global(instance, name)?;
        if !mutable || value.ty() != ty {
            let kind = if mutable { "mutable" } else { "immutable" };
            let message = format!("`{name}` is {kind} and of type {}; {} was given", ty.name(), value.ty().name());
            return Err(CallError::Mismatch(message.into()));
        }
        let arguments = ExportArgs { instance: instance.0, export };
        self.command(command::GLOBAL_SET, About::instance(instance.0), &arguments, value.to_raw().as_bytes(), false).map(drop)
    }

    /// All exports of an instance, of which `payload` has the first and `count` says how many there are.
    pub(super) fn exports_from(&mut self, instance: u32, count: u32, payload: Vec<u8>) -> Result<Exports, CallError> {
        let mut bytes = payload.len();
        let mut all = export::decode(&payload)?;
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        while all.len() < count {
            let from = u32::try_from(all.len()).unwrap_or(u32::MAX);
            let arguments = ExportsArgs { instance, from };
            let (_, payload) = done(self.command(command::EXPORTS, About::instance(instance), &arguments, &[], false)?)?;
            let more = export::decode(&payload)?;
            if more.is_empty() {
                return Err(self.fault("fewer exports than it said"));
            }
            bytes += payload.len();
            if bytes > MAX_EXPORTS_BYTES {
                self.state = SandboxState::Poisoned(Poison::Fault);
                let message = format!("its exports take more than {MAX_EXPORTS_BYTES} bytes to be described");
                return Err(CallError::Rejected(Box::new(Rejection::CannotRun(message))));
            }
            all.extend(more);
        }
        Ok(Exports::new(all))
    }

    pub(super) fn keep_exports(&mut self, exports: Exports) {
        self.instances.push(InstanceState { exports: Arc::new(exports), memory: None });
    }

    pub(super) fn instance(&self, instance: Instance) -> Result<&InstanceState, CallError> {
        let found = usize::try_from(instance.0).ok().and_then(|index| self.instances.get(index));
        found.ok_or_else(|| CallError::Mismatch("there is no such instance in this sandbox".into()))
    }

    pub(super) fn find_function(&self, instance: Instance, name: &str) -> Result<(u32, &FuncType), CallError> {
        match self.instance(instance)?.exports.find(name) {
            Some((export, Export { ty: ExportType::Func(ty), .. })) => Ok((export, ty)),
            Some(_) => Err(CallError::Mismatch(format!("the export `{name}` is no function").into())),
            None => Err(CallError::Mismatch(format!("the module exports no function `{name}`").into())),
        }
    }

    pub(super) fn find_global(&self, instance: Instance, name: &str) -> Result<(u32, ValueType, bool), CallError> {
        match self.instance(instance)?.exports.find(name) {
            Some((export, Export { ty: ExportType::Global { ty, mutable }, .. })) => Ok((export, *ty, *mutable)),
            Some(_) => Err(CallError::Mismatch(format!("the export `{name}` is no global").into())),
            None => Err(CallError::Mismatch(format!("the module exports no global `{name}`").into())),
        }
    }
}

/// What a module is told that does not even reach the guest.
fn refused(error: &ModuleError) -> CallError {
    let (message, is_about_contents) = (error.to_string(), error.is_about_contents());
    CallError::Rejected(Box::new(if is_about_contents { Rejection::Invalid(message) } else { Rejection::CannotRun(message) }))
}
