//! The kick signal: blocked, unblocked inside KVM_RUN, and taken off the queue.

use std::{io, mem, ptr};

use kvm_ioctls::VcpuFd;
use vmm_sys_util::signal;

/// The one signal that this crate uses: the last real-time one, which others take last.
pub(super) fn kick_signal() -> libc::c_int {
    signal::SIGRTMAX()
}

pub(super) fn kick_signal_set() -> libc::sigset_t {
    // SAFETY: zeros are a value of this plain structure, which the first call makes an empty set; the signal exists.
    unsafe {
        let mut set = mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, kick_signal());
        set
    }
}

/// The mask as it was before.
pub(super) fn block_kick_signal() -> io::Result<libc::sigset_t> {
    let set = kick_signal_set();
    // SAFETY: zeros are a value of this plain structure; both pointers are to values that live through the call.
    let (result, before) = unsafe {
        let mut before = mem::zeroed();
        (libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, &raw mut before), before)
    };
    if result == 0 { Ok(before) } else { Err(io::Error::from_raw_os_error(result)) }
}

/// Takes all kicks off the queue.
pub(super) fn clear_kick_signal() {
    let set = kick_signal_set();
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointers are to values that live through the call, or null where that means that nothing is wanted.
    while unsafe { libc::sigtimedwait(&raw const set, ptr::null_mut(), &raw const now) } > 0 {}
}

/// struct kvm_signal_mask of the KVM API with the kernel's signal set of 64 bits.
#[repr(C)]
struct SignalMask {
    bytes: u32,
    // Not u64: the kernel's structure has no padding here.
    set: [u32; 2],
}

/// Inside KVM_RUN all signals that the thread blocks stay blocked, but for the kick.
pub(super) fn unblock_kick_signal_in_run(vcpu: &VcpuFd, blocked: &libc::sigset_t) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    vmm_sys_util::ioctl_iow_nr!(KVM_SET_SIGNAL_MASK, kvm_bindings::KVMIO, 0x8b, u32);

    // SAFETY: the set is one that the kernel gave. Numbers that are no signals are told by -1.
    let is_blocked = |number: libc::c_int| unsafe { libc::sigismember(blocked, number) } == 1;
    let half = |first: libc::c_int| {
        (0..32).filter(|bit| first + bit != kick_signal() && is_blocked(first + bit)).fold(0u32, |set, bit| set | 1 << bit)
    };
    let mask = SignalMask { bytes: 8, set: [half(1), half(33)] };
    // SAFETY: the argument is a kvm_signal_mask of the size that it says, and lives through the call.
    let result = unsafe { vmm_sys_util::ioctl::ioctl_with_ref(&vcpu.as_raw_fd(), KVM_SET_SIGNAL_MASK(), &mask) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
