//! Commands: what the host wants done with the modules that the kernel holds.

use alloc::{string::String, vec::Vec};

use mote_abi::{
    command::{self, CallArgs, ExportArgs, ExportsArgs, InstantiateArgs, RegisterArgs, StageArgs},
    hypercall::{LinearMemory, NO_FUEL, ReturnArgs, exit_kind, return_kind},
    layout::MODULE,
    mailbox::{DATA_BYTES, Response},
    value::{MAX_VALUES, RawValue},
};

use super::{
    backend::{self, AsContextMut, Engine, Extern, Func, FuncType, Instance, Module, Store, Val},
    host::HostFunctions,
    instances::{self, Instances},
    instantiate, invoke,
};
use crate::{guest, hypercall, report::Ending, wasi::Wasi};

/// Everything that commands are about.
pub(crate) struct Server<'a> {
    engine: &'a Engine,
    store: &'a mut Store<Wasi>,
    host: HostFunctions,
    instances: Instances,
    /// Parts of a module that is to be instantiated.
    staged: Vec<u8>,
    /// Arguments and results of the last call, kept for their room.
    arguments: Vec<Val>,
    results: Vec<Val>,
}

/// Why a command was not done: the end of a call that did not return, or a refusal.
type Outcome = Result<ReturnArgs, Ending>;

impl<'a> Server<'a> {
    pub(crate) fn new(engine: &'a Engine, store: &'a mut Store<Wasi>, host: HostFunctions, instances: Instances) -> Self {
        Self { engine, store, host, instances, staged: Vec::new(), arguments: Vec::new(), results: Vec::new() }
    }

    /// Does what the host says, for ever. `tsc` is when the kernel was entered, the module parsed and instantiated.
    pub(crate) fn serve(mut self, tsc: [u64; 3]) -> ! {
        let mut outcome = self.list(0, 0).map(|listed| ReturnArgs { tsc, memory: self.memory_of(0), ..listed });
        loop {
            let response = self.tell(outcome);
            outcome = self.obey(&response);
        }
    }

    /// Tells what came of a command and takes the next one.
    fn tell(&mut self, outcome: Outcome) -> Response {
        let (outcome, ending) = match outcome {
            Ok(done) => return hypercall::next_command(done, [&[], &[], &[]]),
            Err(ending) => (returned(&ending), ending),
        };
        let last_call = self.store.data().last_call.describe();
        let outcome = ReturnArgs { fuel_left: self.fuel_left(), ..outcome };
        hypercall::next_command(outcome, [ending.message.as_bytes(), last_call.as_bytes(), ending.backtrace.as_bytes()])
    }

    fn obey(&mut self, command: &Response) -> Outcome {
        fn arguments<T: zerocopy::FromBytes>(command: &Response) -> Result<T, Ending> {
            command.results().ok_or_else(|| refused("a command without arguments"))
        }
        match command.status {
            command::CALL => self.call(&arguments(command)?),
            command::EXPORTS => {
                let ExportsArgs { instance, from } = arguments(command)?;
                self.list(instance, from)
            }
            command::GLOBAL_GET => self.global_get(&arguments(command)?),
            command::GLOBAL_SET => self.global_set(&arguments(command)?),
            command::MEMORY => match self.export(&arguments(command)?)? {
                Extern::Memory(memory) => Ok(ReturnArgs { memory: instances::linear(memory, self.store), ..done() }),
                _ => Err(refused("the export is no memory")),
            },
            command::STAGE => self.stage(&arguments(command)?),
            command::INSTANTIATE => self.instantiate(&arguments(command)?),
            command::REGISTER => self.register(&arguments(command)?),
            _ => Err(refused("a command that this kernel does not know")),
        }
    }

    fn call(&mut self, arguments: &CallArgs) -> Outcome {
        let Extern::Func(function) = self.export(&ExportArgs { instance: arguments.instance, export: arguments.export })? else {
            return Err(refused("the export is no function"));
        };
        self.set_fuel(arguments.fuel)?;
        self.call_function(function, arguments.count)?;
        let payload_bytes = (self.results.len() * size_of::<RawValue>()) as u32;
        let fuel_left = if arguments.fuel == NO_FUEL { NO_FUEL } else { self.fuel_left() };
        Ok(ReturnArgs { payload_bytes, fuel_left, memory: self.memory_of(arguments.instance), ..done() })
    }

    /// Calls with arguments from the mailbox, and puts the results there.
    fn call_function(&mut self, function: Func, count: u32) -> Result<(), Ending> {
        let mut scope = backend::scope(self.store);
        let ty = function.ty(&scope);
        take_arguments(&ty, count, &mut scope, &mut self.arguments)?;
        self.results.clear();
        self.results.extend(backend::results(&ty).map(|ty| backend::place(&ty)));
        function.call(&mut scope, &self.arguments, &mut self.results).map_err(|error| backend::ending(&error))?;
        for (at, value) in self.results.iter().enumerate() {
            hypercall::write_value(at, backend::encode(value, &scope));
        }
        Ok(())
    }

    fn list(&mut self, instance: u32, from: u32) -> Outcome {
        let loaded = self.instances.get(instance).ok_or_else(|| refused("there is no such instance"))?;
        let (bytes, count) = loaded.list(from).ok_or_else(|| refused("the name of an export is too long"))?;
        Ok(ReturnArgs { payload_bytes: bytes as u32, code: count as u32, memory: self.memory_of(instance), ..done() })
    }

    fn global_get(&mut self, arguments: &ExportArgs) -> Outcome {
        let Extern::Global(global) = self.export(arguments)? else { return Err(refused("the export is no global")) };
        let mut scope = backend::scope(self.store);
        let value = global.get(&mut scope);
        hypercall::write_value(0, backend::encode(&value, &scope));
        Ok(ReturnArgs { payload_bytes: size_of::<RawValue>() as u32, ..done() })
    }

    fn global_set(&mut self, arguments: &ExportArgs) -> Outcome {
        let Extern::Global(global) = self.export(arguments)? else { return Err(refused("the export is no global")) };
        let mut scope = backend::scope(self.store);
        let ty = backend::content(&global.ty(&scope));
        let value = backend::decode(&ty, hypercall::read_value(0), &mut scope).ok_or_else(no_function_reference)?;
        global.set(&mut scope, value).map_err(|_| refused("the global cannot be changed"))?;
        Ok(done())
    }

    fn stage(&mut self, arguments: &StageArgs) -> Outcome {
        let bytes = arguments.bytes as usize;
        if bytes > DATA_BYTES || arguments.whole_bytes > MODULE.bytes() {
            return Err(refused("a part of a module that is too large"));
        }
        if arguments.first != 0 {
            self.staged = Vec::new();
            let reserved = self.staged.try_reserve_exact(arguments.whole_bytes as usize);
            reserved.map_err(|_| refused("the module does not fit into guest RAM"))?;
        }
        let at = self.staged.len();
        if self.staged.capacity() - at < bytes {
            return Err(refused("more of a module than was announced"));
        }
        self.staged.resize(at + bytes, 0);
        hypercall::copy_out_of_mailbox(self.staged.get_mut(at..).unwrap_or(&mut []));
        Ok(done())
    }

    fn instantiate(&mut self, arguments: &InstantiateArgs) -> Outcome {
        self.set_fuel(arguments.fuel)?;
        let staged = core::mem::take(&mut self.staged);
        let module = match arguments.bytes {
            0 => backend::load_copy(self.engine, &staged)?,
            bytes => {
                let mapped = guest::mapped_module(arguments.address, bytes);
                backend::load(self.engine, mapped.ok_or_else(|| refused("a module outside of the region for modules"))?)?
            }
        };
        // What it does before it is one of the instances is about its own memory.
        self.store.data_mut().memory = None;
        match self.instantiate_and_initialize(&module) {
            Ok(instance) => {
                let number = self.instances.add(&module, instance, self.store);
                Ok(ReturnArgs { code: number, memory: self.memory_of(number), ..done() })
            }
            Err(ending) => {
                self.instances.note_memory(self.store);
                Err(ending)
            }
        }
    }

    fn instantiate_and_initialize(&mut self, module: &Module) -> Result<Instance, Ending> {
        let instance = instantiate(module, self.store, &self.host, &self.instances)?;
        invoke::initialize(self.store, instance).map_err(|error| backend::ending(&error))?;
        Ok(instance)
    }

    fn register(&mut self, arguments: &RegisterArgs) -> Outcome {
        let bytes = arguments.name_bytes as usize;
        let mut name = alloc::vec![0; bytes.min(DATA_BYTES)];
        hypercall::copy_out_of_mailbox(&mut name);
        let name = String::from_utf8(name).map_err(|_| refused("a name that is not UTF-8"))?;
        if self.instances.register(arguments.instance, name) { Ok(done()) } else { Err(refused("there is no such instance")) }
    }

    fn export(&self, arguments: &ExportArgs) -> Result<Extern, Ending> {
        let found = self.instances.export(arguments.instance, arguments.export);
        found.ok_or_else(|| refused("there is no such export"))
    }

    fn memory_of(&mut self, instance: u32) -> LinearMemory {
        self.instances.get(instance).map_or_else(LinearMemory::default, |loaded| loaded.memory(self.store))
    }

    fn set_fuel(&mut self, fuel: u64) -> Result<(), Ending> {
        if fuel != NO_FUEL && self.store.set_fuel(fuel).is_err() {
            return Err(refused("fuel for an engine that does not count it"));
        }
        Ok(())
    }

    fn fuel_left(&self) -> u64 {
        self.store.get_fuel().unwrap_or(NO_FUEL)
    }
}

fn done() -> ReturnArgs {
    ReturnArgs { kind: return_kind::DONE, fuel_left: NO_FUEL, ..ReturnArgs::default() }
}

fn refused(message: &str) -> Ending {
    Ending::cannot_run(String::from(message))
}

fn no_function_reference() -> Ending {
    refused("a reference to a function cannot be given from outside")
}

/// Puts the arguments of a call where the engine wants them.
fn take_arguments(
    ty: &FuncType,
    count: u32,
    mut store: impl AsContextMut<Data = Wasi>,
    arguments: &mut Vec<Val>,
) -> Result<(), Ending> {
    let parameters = backend::parameters(ty);
    if parameters.len() != count as usize || parameters.len().max(backend::results(ty).len()) > MAX_VALUES {
        return Err(refused("another number of arguments than the function has"));
    }
    arguments.clear();
    for (at, ty) in parameters.enumerate() {
        let value = backend::decode(&ty, hypercall::read_value(at), &mut store);
        arguments.push(value.ok_or_else(no_function_reference)?);
    }
    Ok(())
}

/// How the end of a call is told as that of a command.
fn returned(ending: &Ending) -> ReturnArgs {
    let kind = match ending.kind {
        exit_kind::TRAPPED if ending.host_failed => return_kind::HOST_ERROR,
        exit_kind::TRAPPED => return_kind::TRAPPED,
        exit_kind::EXITED => return_kind::EXITED,
        exit_kind::INVALID_MODULE => return_kind::INVALID,
        _ => return_kind::REFUSED,
    };
    ReturnArgs { kind, code: ending.code, ..ReturnArgs::default() }
}
