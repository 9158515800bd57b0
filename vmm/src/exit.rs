//! Exits of the vCPU, typed before anything decides about them.

use kvm_ioctls::VcpuExit;
use mote_abi::layout::{DOORBELL, FAULT_DOORBELL};

/// Why the vCPU stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// A hypercall: the request is in the mailbox.
    Doorbell,
    /// An exception: the frame is on the stack of ring 0. The value is CR2.
    Fault { address: u64 },
    /// Any other access to a guest-physical address without memory.
    StrayAccess { address: u64 },
    /// A stop that no kernel of ours causes.
    Stopped(&'static str),
    /// Hardware refused the processor state.
    EntryFailed { reason: u64 },
}

impl From<VcpuExit<'_>> for Exit {
    fn from(exit: VcpuExit<'_>) -> Self {
        match exit {
            // One store of four bytes, as the kernel makes it: a longer one may leave KVM with a second part that it tells on
            // the next entry, whatever was restored in between.
            VcpuExit::MmioWrite(address, &[_, _, _, _]) if DOORBELL.contains(address) => Self::Doorbell,
            VcpuExit::MmioWrite(address, data) if FAULT_DOORBELL.contains(address) => {
                data.try_into().map_or(Self::StrayAccess { address }, |bytes| Self::Fault { address: u64::from_le_bytes(bytes) })
            }
            VcpuExit::MmioWrite(address, _) | VcpuExit::MmioRead(address, _) => Self::StrayAccess { address },
            VcpuExit::IoIn(..) | VcpuExit::IoOut(..) => Self::Stopped("port input or output"),
            VcpuExit::Hlt => Self::Stopped("halt"),
            VcpuExit::Shutdown => Self::Stopped("triple fault"),
            VcpuExit::InternalError => Self::Stopped("KVM cannot emulate an instruction"),
            VcpuExit::FailEntry(reason, _) => Self::EntryFailed { reason },
            _ => Self::Stopped("unexpected exit"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_are_told_apart() {
        let write = |address, data: &[u8]| Exit::from(VcpuExit::MmioWrite(address, data));
        assert_eq!(write(DOORBELL.start, &[1, 0, 0, 0]), Exit::Doorbell);
        assert_eq!(write(DOORBELL.end - 4, &[0; 4]), Exit::Doorbell);
        assert_eq!(write(DOORBELL.start, &[0; 8]), Exit::StrayAccess { address: DOORBELL.start });
        assert_eq!(write(DOORBELL.start, &[1]), Exit::StrayAccess { address: DOORBELL.start });
        assert_eq!(write(FAULT_DOORBELL.start, &7u64.to_le_bytes()), Exit::Fault { address: 7 });
        assert_eq!(write(FAULT_DOORBELL.start, &[7]), Exit::StrayAccess { address: FAULT_DOORBELL.start });
        assert_eq!(write(0x1234, &[7]), Exit::StrayAccess { address: 0x1234 });
        assert_eq!(Exit::from(VcpuExit::MmioRead(DOORBELL.start, &mut [0])), Exit::StrayAccess { address: DOORBELL.start });
        assert_eq!(Exit::from(VcpuExit::Hlt), Exit::Stopped("halt"));
    }
}
