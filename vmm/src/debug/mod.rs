//! A guest under GDB: its registers and memory, breakpoints, single steps, and the remote protocol that asks for them.
//!
//! `KVM_SET_GUEST_DEBUG` is not used: for ring 3 it does nothing where KVM works without hardware support. What is used instead
//! works everywhere, with the stubs that every VM has. A breakpoint is an `int3` in a copy of the code that this VM has for itself
//! (`unshared` of image and module); a step is the trap flag. Both raise an exception in ring 3, whose stub rings the doorbell, and
//! at that exit the guest is stopped (`execution.rs`).
//!
//! What the debugger sends is input: `gdbstub` parses it, and each address and register is checked here. It can do to the guest
//! what it likes, and to this process no more than the guest can.

mod breakpoints;
mod connection;
mod execution;
mod memory;
mod probe;
mod registers;
mod session;
mod target;
mod watchpoints;

use std::{io, os::fd::OwnedFd, sync::Arc, time::Instant};

use kvm_bindings::kvm_xsave;
use kvm_ioctls::{Cap, Kvm};

use crate::{
    config::Config,
    confinement::Role,
    control::InterruptHandle,
    ending::{Ending, HostFailure},
    image::KernelImage,
    kvm::{self, KvmError},
    module::Module,
    vm::{Report, Vm, VmError},
};

use connection::Connection;
use execution::Guest;

/// A micro VM that runs its module once, under a debugger.
#[derive(Debug)]
pub struct Debuggee {
    vm: Vm,
    has_watchpoints: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct DebugReport {
    /// As of a run without debugger. After [`Departure::Killed`] and [`Departure::Lost`] it ended by [`Ending::Interrupted`].
    pub report: Report,
    /// How the debugger went.
    pub departure: Departure,
}

/// How a debugger went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Departure {
    /// It saw the end of the run.
    Ended,
    /// It detached, and the guest went on by itself.
    Detached,
    /// It killed the guest.
    Killed,
    /// It went away without a word, or said what nobody understands: this is why.
    Lost(String),
}

impl Debuggee {
    /// Makes the VM, with code that it shares with no other. Nothing runs yet.
    ///
    /// Fails, too, if this process asked for registers in its guests that are not known here (`ARCH_REQ_XCOMP_GUEST_PERM`), as
    /// those of AMX.
    pub fn new(kernel: &KernelImage, module: &Arc<Module>, config: Config) -> Result<Self, VmError> {
        let kvm = kvm::open()?;
        let has_watchpoints = probe::watchpoints_fire(&kvm)?;
        let kernel = Arc::new(kernel.unshared()?);
        let module = module.unshared()?.map_or_else(|| Arc::clone(module), Arc::new);
        let vm = Vm::with_kvm(&kvm, &kernel, &module, config)?;
        check_extended_registers(&kvm)?;
        Ok(Self { vm, has_watchpoints })
    }

    /// Whether the debugger can watch memory: not where KVM works without hardware support.
    pub fn has_watchpoints(&self) -> bool {
        self.has_watchpoints
    }

    /// A handle that ends the run from another thread.
    pub fn interrupt_handle(&self) -> InterruptHandle {
        self.vm.interrupt_handle()
    }

    /// Runs the module to its end on the calling thread, and confines that first if the configuration says so. The guest is stopped
    /// before its first instruction, and does what the debugger at the other end of `connection` says, a socket or another
    /// descriptor that is read and written. `status` is what the debugger is told of the end.
    ///
    /// The deadline does not come nearer while the guest is stopped.
    pub fn run(mut self, connection: OwnedFd, status: impl FnOnce(&Ending) -> u8) -> DebugReport {
        let begin = || -> Result<_, Ending> {
            // Before the thread is confined.
            let connection = Connection::new(connection, &self.vm.machine.control).map_err(no_connection)?;
            let role = Role { debugger: true, watchpoints: self.has_watchpoints, ..self.vm.role() };
            Ok((connection, self.vm.begin(Instant::now(), role)?))
        };
        match begin() {
            Ok((connection, attached)) => session::run(Guest::new(self.vm, attached, self.has_watchpoints), connection, status),
            Err(ending) => {
                let report = self.vm.conclude(ending);
                DebugReport { report, departure: Departure::Lost("the guest did not begin".into()) }
            }
        }
    }
}

/// Whether KVM takes a guest's extended registers as the structure that is given to it. It takes more if the process asked for
/// registers that need more; once there is a vCPU, it cannot ask any more (Linux, `fpu_init_guest_permissions`).
fn check_extended_registers(kvm: &Kvm) -> Result<(), KvmError> {
    // A KVM that does not know the question always takes the structure, and says 0.
    check_extended_bytes(kvm.check_extension_int(Cap::Xsave2))
}

fn check_extended_bytes(bytes: i32) -> Result<(), KvmError> {
    match usize::try_from(bytes) {
        Ok(bytes) if bytes <= size_of::<kvm_xsave>() => Ok(()),
        _ => Err(KvmError::Unsupported(
            "this process asked for registers in its guests that need more than 4096 bytes (KVM_CAP_XSAVE2), as those of AMX, which no debugger can be given",
        )),
    }
}

fn no_connection(error: io::Error) -> HostFailure {
    HostFailure::Machine(format!("the debugger's connection: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_that_do_not_fit_are_refused() {
        assert!([0, 2696, 4096].map(check_extended_bytes).iter().all(Result::is_ok));
        // With AMX's tiles; and an error.
        assert!([4097, 11008, -1].map(check_extended_bytes).iter().all(Result::is_err));
    }
}
