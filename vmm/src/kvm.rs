//! Opening KVM, making VMs, and saying what is wrong when that fails.

use std::{arch::x86_64::__cpuid, io, sync::OnceLock};

use kvm_ioctls::{Cap, Kvm, VmFd};
use thiserror::Error;

/// KVM cannot be used.
#[derive(Debug, Error)]
pub enum KvmError {
    /// No device.
    #[error(
        "there is no /dev/kvm: load the module (modprobe kvm-intel or kvm-amd), or enable virtualization in the firmware or, inside a VM, nested virtualization"
    )]
    Missing,
    /// The device cannot be opened by this user.
    #[error("no permission to open /dev/kvm: add yourself to its group (usermod -aG kvm $USER) and log in again")]
    Permission,
    /// The device cannot be opened.
    #[error("cannot open /dev/kvm: {0}")]
    Open(io::Error),
    /// Too old or too strange a KVM.
    #[error("this KVM cannot be used: {0}")]
    Unsupported(&'static str),
}

/// Opens /dev/kvm and checks that it has what a VM of ours needs.
pub fn open() -> Result<Kvm, KvmError> {
    let kvm = Kvm::new().map_err(|error| match error.errno() {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => KvmError::Missing,
        libc::EACCES | libc::EPERM => KvmError::Permission,
        errno => KvmError::Open(io::Error::from_raw_os_error(errno)),
    })?;
    check(&kvm)?;
    Ok(kvm)
}

/// Makes a VM. Any signal with a handler makes KVM give up in the middle, even one whose handler asks for restarts.
pub(crate) fn create_vm(kvm: &Kvm) -> Result<VmFd, kvm_ioctls::Error> {
    loop {
        match kvm.create_vm() {
            Err(error) if error.errno() == libc::EINTR => {}
            result => return result,
        }
    }
}

/// Whether VMs here run by PVM, without hardware virtualization. The guest then sees the processor's own `cpuid` and time-stamp
/// counter, whatever KVM is told.
pub(crate) fn is_pvm() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        // VMX: CPUID 1, ECX bit 5; SVM: CPUID 8000_0001h, ECX bit 2.
        let has_hardware = __cpuid(1).ecx >> 5 & 1 == 1 || __cpuid(0x8000_0001).ecx >> 2 & 1 == 1;
        !has_hardware && std::fs::exists("/sys/module/kvm_pvm").unwrap_or(false)
    })
}

fn check(kvm: &Kvm) -> Result<(), KvmError> {
    const STABLE_API: i32 = 12;
    if kvm.get_api_version() != STABLE_API {
        return Err(KvmError::Unsupported("its API is not version 12"));
    }
    for (capability, missing) in [
        (Cap::UserMemory, "it has no user memory slots (KVM_CAP_USER_MEMORY)"),
        (Cap::ReadonlyMem, "it has no read-only memory slots (KVM_CAP_READONLY_MEM)"),
        (Cap::GetTscKhz, "it cannot tell the time-stamp counter's rate (KVM_CAP_GET_TSC_KHZ)"),
    ] {
        if !kvm.check_extension(capability) {
            return Err(KvmError::Unsupported(missing));
        }
    }
    Ok(())
}
