//! Linear memory of a sandbox that nobody runs. `linear.rs` has the accesses.

use mote_abi::{
    command::{self, ExportArgs},
    hypercall::LinearMemory,
};

use super::{
    AccessError, CallError, ExportType, Sandbox, SandboxState, linear,
    session::{About, done},
};

impl Sandbox {
    /// Size in bytes of the linear memory that the first module exports as `memory`.
    pub fn memory_bytes(&mut self) -> Result<u64, AccessError> {
        self.memory("memory").map(|memory| memory.bytes)
    }

    /// Reads the linear memory that the first module exports as `memory`, from `offset` on. Also after a trap, an error of a
    /// host function or an exit.
    pub fn read_memory(&mut self, offset: u64, to: &mut [u8]) -> Result<(), AccessError> {
        self.read_memory_of("memory", offset, to)
    }

    /// Writes to the same from `offset` on.
    pub fn write_memory(&mut self, offset: u64, from: &[u8]) -> Result<(), AccessError> {
        self.write_memory_of("memory", offset, from)
    }

    /// Reads a memory that is exported under another name.
    pub fn read_memory_of(&mut self, name: &str, offset: u64, to: &mut [u8]) -> Result<(), AccessError> {
        let memory = self.memory(name)?;
        linear::read(&self.machine, memory, offset, to)
    }

    /// Writes to a memory that is exported under another name.
    pub fn write_memory_of(&mut self, name: &str, offset: u64, from: &[u8]) -> Result<(), AccessError> {
        if let SandboxState::Poisoned(poison) = self.state {
            return Err(AccessError::Unavailable(CallError::Poisoned(poison).to_string()));
        }
        let memory = self.memory(name)?;
        linear::write(&mut self.machine, memory, offset, from)
    }

    /// Where a memory of the first module lies; asked of the guest only if it is not known.
    pub(super) fn memory(&mut self, name: &str) -> Result<LinearMemory, AccessError> {
        let no_memory = || AccessError::NoMemory(name.into());
        let instance = self.instances.first().ok_or_else(no_memory)?;
        let (export, found) = instance.exports.find(name).ok_or_else(no_memory)?;
        if !matches!(found.ty, ExportType::Memory { .. }) {
            return Err(no_memory());
        }
        match self.state {
            SandboxState::Poisoned(poison) if !poison.is_unwound() => {
                return Err(AccessError::Unavailable(CallError::Poisoned(poison).to_string()));
            }
            SandboxState::AtInput => return Err(AccessError::Unavailable(CallError::AtInput.to_string())),
            SandboxState::Ready | SandboxState::Poisoned(_) => {}
        }
        if let ("memory", Some(known)) = (name, instance.memory) {
            return Ok(known);
        }
        let arguments = ExportArgs { instance: 0, export };
        let unavailable = |error: CallError| AccessError::Unavailable(error.to_string());
        let (step, memory) =
            self.command_with_memory(command::MEMORY, About::default(), &arguments, &[], false).map_err(unavailable)?;
        done(step).map_err(unavailable)?;
        Ok(memory)
    }
}
