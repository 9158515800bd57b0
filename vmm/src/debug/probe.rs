//! Whether the processor's watchpoints reach ring 3 of a guest: a VM tries one. KVM takes them everywhere, and where it works without
//! hardware support they never fire.

use gdbstub::target::ext::breakpoints::WatchKind;
use kvm_ioctls::Kvm;
use mote_abi::layout::{KERNEL_DATA, MIN_RAM_BYTES};

use super::watchpoints::{Watchpoint, Watchpoints};
use crate::{
    config::{Config, Limits},
    exit::Exit,
    image::KernelImage,
    machine::{Machine, Purpose},
    module::Module,
    vcpu,
    vm::VmError,
};

/// Vector of #DB.
const DEBUG: u64 = 1;
/// Most entries until the trial is over: a signal can end one.
const ENTRIES: usize = 16;

/// Makes a VM that stores to a watched address, and then executes what is no instruction.
pub(super) fn watchpoints_fire(kvm: &Kvm) -> Result<bool, VmError> {
    let machine_error = |error: &dyn std::fmt::Display| VmError::Machine(format!("the trial of watchpoints: {error}"));
    let [a, b, c, d] = u32::try_from(KERNEL_DATA.start).unwrap_or(0).to_le_bytes();
    // mov dword [KERNEL_DATA], 1; ud2
    let code = [0xc7, 0x04, 0x25, a, b, c, d, 1, 0, 0, 0, 0x0f, 0x0b];
    let kernel = KernelImage::of_code(&code)?.into();
    let module = Module::from_bytes("empty".as_ref(), b"\0asm\x01\0\0\0".to_vec()).map_err(|error| machine_error(&error))?;
    let config = Config { limits: Limits { ram_bytes: MIN_RAM_BYTES, ..Limits::default() }, ..Config::default() };
    let mut machine = Machine::new(kvm, &kernel, &module, config, &[], Purpose::Run)?;

    let watchpoint = Watchpoint { address: KERNEL_DATA.start, bytes: 4, kind: WatchKind::Write };
    vcpu::finish_exit(&mut machine.vcpu).map_err(VmError::create("KVM_RUN"))?;
    if Watchpoints::default().add(&machine.vcpu, watchpoint).is_none() {
        return Ok(false);
    }
    for _ in 0..ENTRIES {
        match machine.vcpu.run().map(Exit::from) {
            Ok(Exit::Fault { .. }) => {
                let frame = vcpu::exception_frame(machine.ram.memory()).map_err(|error| machine_error(&error))?;
                return Ok(frame.vector == DEBUG);
            }
            Ok(_) => return Ok(false),
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {}
            Err(error) => return Err(VmError::create("KVM_RUN")(error)),
        }
    }
    Ok(false)
}
