//! seccomp: the system calls that a thread of a VM may make, in groups by purpose. Any other ends the process (SIGSYS).
//!
//! The lists hold what this crate, the standard library and libc call between the first entry of the guest and the end of
//! the process. To find out what a change needs, run `strace -f mote run --confinement=off …` and look behind the first
//! KVM_RUN; the system log has the number of a call that ended a process (`journalctl -k`, type=1326).

use std::{io, sync::Once};

use kvm_bindings::{KVMIO, kvm_debugregs, kvm_regs, kvm_sregs, kvm_userspace_memory_region, kvm_vcpu_events, kvm_xsave};
use libc::{c_int, c_long};
use seccompiler::{BackendError, BpfProgram, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};
use vmm_sys_util::{ioctl_io_nr, ioctl_ior_nr, ioctl_iow_nr};

use super::{
    ConfinementError, Layer, Role,
    filter::{self, Rules},
};
use crate::pagemap::PAGEMAP_SCAN;

/// A system call; conditions that hold together, none for any arguments. Several entries for one call are alternatives.
struct Call {
    number: c_long,
    when: &'static [Condition],
}

/// What a register argument has to be.
struct Condition {
    argument: u8,
    mask: u64,
    value: u64,
}

const fn any(number: c_long) -> Call {
    Call { number, when: &[] }
}

const fn when(number: c_long, when: &'static [Condition]) -> Call {
    Call { number, when }
}

/// The lower half of an argument that is an `int`.
const fn is(argument: u8, value: c_int) -> Condition {
    Condition { argument, mask: u32::MAX as u64, value: value.cast_unsigned() as u64 }
}

/// Some bits of an `int`.
const fn has_bits(argument: u8, mask: c_int, value: c_int) -> Condition {
    Condition { argument, mask: mask.cast_unsigned() as u64, value: value.cast_unsigned() as u64 }
}

const fn is_null(argument: u8) -> Condition {
    Condition { argument, mask: u64::MAX, value: 0 }
}

const NOT_EXECUTABLE: Condition = has_bits(2, libc::PROT_EXEC, 0);
const PRIVATE_ANONYMOUS: Condition = has_bits(3, libc::MAP_TYPE | libc::MAP_ANONYMOUS, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);

/// Allocating, and giving memory back; no file can be mapped and nothing made executable.
const MEMORY: &[Call] = &[
    any(libc::SYS_brk),
    any(libc::SYS_madvise),
    when(libc::SYS_mmap, &[NOT_EXECUTABLE, PRIVATE_ANONYMOUS]),
    when(libc::SYS_mprotect, &[NOT_EXECUTABLE]),
    any(libc::SYS_mremap),
    any(libc::SYS_munmap),
];

/// Writing to what is open, and closing it.
const OUTPUT: &[Call] = &[any(libc::SYS_close), any(libc::SYS_write), any(libc::SYS_writev)];

/// For events, for other threads, for time to pass. A vDSO that cannot tell the time calls the kernel.
const WAITING: &[Call] = &[
    any(libc::SYS_clock_gettime),
    any(libc::SYS_futex),
    any(libc::SYS_ppoll),
    any(libc::SYS_restart_syscall),
    any(libc::SYS_sched_yield),
];

/// Handlers that are installed run and return; signals go to threads of this process (see [`of_this_process`]). Handlers of
/// the standard library take themselves off at a crash that is not theirs, so that the signal tells what it was.
const SIGNALS: &[Call] = &[
    any(libc::SYS_getpid),
    any(libc::SYS_gettid),
    any(libc::SYS_rt_sigprocmask),
    any(libc::SYS_rt_sigreturn),
    any(libc::SYS_sigaltstack),
    when(libc::SYS_rt_sigaction, &[is(0, libc::SIGBUS)]),
    when(libc::SYS_rt_sigaction, &[is(0, libc::SIGSEGV)]),
];

/// Ending, and random numbers, which the standard library's hash maps begin with.
const ENDING: &[Call] = &[any(libc::SYS_exit), any(libc::SYS_exit_group), any(libc::SYS_getrandom)];

/// Beside its ioctls (see [`VCPU_IOCTLS`]): reading what is open, taking a kick off the queue, setting the timer of ticks,
/// which is there already, counting resident pages.
const VCPU: &[Call] = &[
    any(libc::SYS_mincore),
    any(libc::SYS_read),
    any(libc::SYS_rt_sigtimedwait),
    any(libc::SYS_timer_delete),
    any(libc::SYS_timer_settime),
];

/// What WASI does with files, as openat2 and its kin beneath a directory; Landlock says which. `cap-std` follows paths by
/// openat and newfstatat where openat2 gives up.
const FILES: &[Call] = &[
    any(libc::SYS_fadvise64),
    any(libc::SYS_fallocate),
    any(libc::SYS_fdatasync),
    any(libc::SYS_fstat),
    any(libc::SYS_fsync),
    any(libc::SYS_ftruncate),
    any(libc::SYS_getdents64),
    any(libc::SYS_linkat),
    any(libc::SYS_lseek),
    any(libc::SYS_mkdirat),
    any(libc::SYS_newfstatat),
    any(libc::SYS_openat),
    any(libc::SYS_openat2),
    any(libc::SYS_pread64),
    any(libc::SYS_pwrite64),
    any(libc::SYS_pwritev2),
    any(libc::SYS_readlinkat),
    any(libc::SYS_renameat),
    any(libc::SYS_statx),
    any(libc::SYS_symlinkat),
    any(libc::SYS_unlinkat),
    any(libc::SYS_utimensat),
];

/// Connections of listening sockets that are open. No socket can be made, and nothing sent to an address.
const SOCKETS: &[Call] =
    &[any(libc::SYS_accept4), any(libc::SYS_recvfrom), any(libc::SYS_shutdown), when(libc::SYS_sendto, &[is_null(4)])];

/// A sandbox that goes back to its snapshot: pages that are read out of its file.
const CALLS: &[Call] = &[any(libc::SYS_pread64)];

/// Linear memory that may be of a file, and compiled modules, whose data is copied: such that a page that is not there any more is an error and no signal. Only
/// of this process.
const OWN_MEMORY: [c_long; 2] = [libc::SYS_process_vm_readv, libc::SYS_process_vm_writev];

ioctl_io_nr!(KVM_RUN, KVMIO, 0x80);
ioctl_iow_nr!(KVM_SET_USER_MEMORY_REGION, KVMIO, 0x46, kvm_userspace_memory_region);
ioctl_ior_nr!(KVM_GET_REGS, KVMIO, 0x81, kvm_regs);

/// Running the vCPU, memory on demand, the registers of a fault; how much input there is.
const VCPU_IOCTLS: [fn() -> libc::c_ulong; 4] = [KVM_RUN, KVM_SET_USER_MEMORY_REGION, KVM_GET_REGS, || libc::FIONREAD];

ioctl_iow_nr!(KVM_SET_SIGNAL_MASK, KVMIO, 0x8b, u32);
ioctl_iow_nr!(KVM_SET_VCPU_EVENTS, KVMIO, 0xa0, kvm_vcpu_events);
ioctl_iow_nr!(KVM_SET_SREGS, KVMIO, 0x84, kvm_sregs);
ioctl_iow_nr!(KVM_SET_REGS, KVMIO, 0x82, kvm_regs);
ioctl_iow_nr!(KVM_SET_XSAVE, KVMIO, 0xa5, kvm_xsave);

/// Each call of a sandbox says anew which signals end KVM_RUN; a restore sets all registers, and asks for the pages that were
/// written.
const CALL_IOCTLS: [fn() -> libc::c_ulong; 6] =
    [KVM_SET_SIGNAL_MASK, KVM_SET_VCPU_EVENTS, KVM_SET_SREGS, KVM_SET_REGS, KVM_SET_XSAVE, PAGEMAP_SCAN];

ioctl_ior_nr!(KVM_GET_SREGS, KVMIO, 0x83, kvm_sregs);
ioctl_ior_nr!(KVM_GET_XSAVE, KVMIO, 0xa4, kvm_xsave);
ioctl_ior_nr!(KVM_GET_DEBUGREGS, KVMIO, 0xa1, kvm_debugregs);
ioctl_iow_nr!(KVM_SET_DEBUGREGS, KVMIO, 0xa2, kvm_debugregs);

/// A debugger looks at all registers, and changes those that are not segments. Its connection is read and written as a file.
const DEBUGGER_IOCTLS: [fn() -> libc::c_ulong; 4] = [KVM_SET_REGS, KVM_GET_SREGS, KVM_GET_XSAVE, KVM_SET_XSAVE];

/// Only where watchpoints reach the guest.
const WATCHPOINT_IOCTLS: [fn() -> libc::c_ulong; 2] = [KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS];

const SOCKET_IOCTLS: [fn() -> libc::c_ulong; 1] = [|| libc::FIONBIO];

/// Confines the calling thread to the calls of its role.
pub(super) fn install(role: Role) -> Result<(), ConfinementError> {
    let failed = |message: String| ConfinementError::Failed { layer: Layer::Seccomp, message };
    let program = program(role).map_err(|error| failed(error.to_string()))?;
    keep_heaps_of_threads();
    seccompiler::apply_filter(&program).map_err(|error| match error {
        seccompiler::Error::Seccomp(source) if is_unsupported(&source) => {
            ConfinementError::Unsupported { layer: Layer::Seccomp, remedy: "it has to be built with CONFIG_SECCOMP_FILTER" }
        }
        error => failed(error.to_string()),
    })
}

/// Before glibc first gives back a part of the heap of a thread, it opens a file to find out how (`check_may_shrink_heap` in its
/// malloc/arena.c), which a confined thread must not. A heap of a thread has 64 MiB at most, so that none is trimmed that has
/// to be larger for that; whole heaps go back as before. glibc itself raises this bound as far when blocks of 32 MiB are freed.
#[cfg(target_env = "gnu")]
fn keep_heaps_of_threads() {
    const TRIMMED_BYTES: c_int = 64 << 20;
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: no precondition; it takes the locks of the allocator.
        let is_set = unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, TRIMMED_BYTES) };
        debug_assert_eq!(is_set, 1);
    });
}

#[cfg(not(target_env = "gnu"))]
fn keep_heaps_of_threads() {}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL))
}

fn program(role: Role) -> Result<BpfProgram, BackendError> {
    let mut rules = Rules::new();
    for group in [MEMORY, OUTPUT, WAITING, SIGNALS, ENDING, VCPU] {
        add_group(&mut rules, group)?;
    }
    add(&mut rules, libc::SYS_tgkill, &[of_this_process()])?;
    add_ioctls(&mut rules, &VCPU_IOCTLS)?;
    if role.files {
        add_group(&mut rules, FILES)?;
    }
    if role.sockets {
        add_group(&mut rules, SOCKETS)?;
        add_ioctls(&mut rules, &SOCKET_IOCTLS)?;
    }
    if role.calls {
        add_group(&mut rules, CALLS)?;
        add_ioctls(&mut rules, &CALL_IOCTLS)?;
    }
    if role.debugger {
        add_ioctls(&mut rules, &DEBUGGER_IOCTLS)?;
    }
    if role.watchpoints {
        add_ioctls(&mut rules, &WATCHPOINT_IOCTLS)?;
    }
    if role.calls || role.compiled || role.debugger {
        OWN_MEMORY.into_iter().try_for_each(|number| add(&mut rules, number, &[of_this_process()]))?;
    }
    filter::compile(&rules)
}

/// For tgkill: kicks, and abort(3).
fn of_this_process() -> Condition {
    Condition { argument: 0, mask: u64::from(u32::MAX), value: u64::from(std::process::id()) }
}

fn add_group(rules: &mut Rules, group: &[Call]) -> Result<(), BackendError> {
    group.iter().try_for_each(|call| add(rules, call.number, call.when))
}

fn add_ioctls(rules: &mut Rules, requests: &[fn() -> libc::c_ulong]) -> Result<(), BackendError> {
    // The kernel takes 32 bits of it; some libcs extend its sign.
    let request = |value| Condition { argument: 1, mask: u64::from(u32::MAX), value };
    requests.iter().try_for_each(|value| add(rules, libc::SYS_ioctl, &[request(value())]))
}

fn add(rules: &mut Rules, number: c_long, conditions: &[Condition]) -> Result<(), BackendError> {
    // Numbers of the system call table are small.
    let alternatives = rules.entry(u32::try_from(number).unwrap_or(u32::MAX)).or_default();
    if !conditions.is_empty() {
        let conditions = conditions.iter().map(Condition::compile).collect::<Result<_, _>>()?;
        alternatives.push(SeccompRule::new(conditions)?);
    }
    Ok(())
}

impl Condition {
    fn compile(&self) -> Result<SeccompCondition, BackendError> {
        let (length, operator) = match self.mask {
            u64::MAX => (SeccompCmpArgLen::Qword, SeccompCmpOp::Eq),
            mask if mask == u64::from(u32::MAX) => (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq),
            mask => (SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask)),
        };
        SeccompCondition::new(self.argument, length, operator, self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::filter::tests::Data, *};

    #[test]
    fn no_call_is_allowed_with_and_without_conditions() {
        let groups = [MEMORY, OUTPUT, WAITING, SIGNALS, ENDING, VCPU, FILES, SOCKETS, CALLS];
        let calls: Vec<&Call> = groups.into_iter().flatten().collect();
        for call in &calls {
            let same = calls.iter().filter(|other| other.number == call.number);
            assert!(same.clone().all(|other| other.when.is_empty() == call.when.is_empty()), "call {}", call.number);
        }
    }

    #[test]
    fn the_ioctls_have_the_numbers_of_the_kvm_api() {
        let numbers = VCPU_IOCTLS.map(|request| request());
        assert_eq!(numbers, [0xae80, 0x4020_ae46, 0x8090_ae81, 0x541b]);
        let numbers = CALL_IOCTLS.map(|request| request());
        assert_eq!(numbers, [0x4004_ae8b, 0x4040_aea0, 0x4138_ae84, 0x4090_ae82, 0x5000_aea5, 0xc060_6610]);
        let numbers = DEBUGGER_IOCTLS.map(|request| request());
        assert_eq!(numbers, [0x4090_ae82, 0x8138_ae83, 0x9000_aea4, 0x5000_aea5]);
        assert_eq!(WATCHPOINT_IOCTLS.map(|request| request()), [0x8080_aea1, 0x4080_aea2]);
    }

    const PLAIN: Role = Role { files: false, sockets: false, calls: false, compiled: false, debugger: false, watchpoints: false };

    fn allows(role: Role, number: c_long, arguments: &[u64]) -> bool {
        filter::tests::allows(&program(role).unwrap(), &Data::new(number, arguments))
    }

    fn unsigned(value: c_int) -> u64 {
        u64::from(value.cast_unsigned())
    }

    #[test]
    fn each_resource_adds_its_calls_and_no_others() {
        let with = |files, sockets| Role { files, sockets, ..PLAIN };
        for number in 0..600 {
            let is_in = |group: &[Call]| group.iter().any(|call| call.number == number && call.when.is_empty());
            let [plain, files, sockets] =
                [PLAIN, with(true, false), with(false, true)].map(|role| allows(role, number, &[1, 2, 3, 4, 5, 6]));
            assert_eq!(files, plain || is_in(FILES), "call {number}");
            assert_eq!(sockets, plain || is_in(SOCKETS), "call {number}");
            let calls = allows(Role { calls: true, ..PLAIN }, number, &[1, 2, 3, 4, 5, 6]);
            assert_eq!(calls, plain || is_in(CALLS), "call {number}");
        }
        for forbidden in [libc::SYS_openat, libc::SYS_open, libc::SYS_accept4, libc::SYS_stat] {
            assert!(!allows(PLAIN, forbidden, &[]), "call {forbidden}");
        }
        for forbidden in [libc::SYS_execve, libc::SYS_socket, libc::SYS_fork, libc::SYS_clone, libc::SYS_clone3, libc::SYS_ptrace]
        {
            assert!(!allows(with(true, true), forbidden, &[]), "call {forbidden}");
        }
    }

    #[test]
    fn arguments_are_looked_at() {
        let [read, write, execute] = [libc::PROT_READ, libc::PROT_WRITE, libc::PROT_EXEC].map(unsigned);
        let [anonymous, private, shared] = [libc::MAP_ANONYMOUS, libc::MAP_PRIVATE, libc::MAP_SHARED].map(unsigned);
        let mmap = |protection, flags| allows(PLAIN, libc::SYS_mmap, &[0, 4096, protection, flags, u64::MAX, 0]);
        assert!(mmap(read | write, private | anonymous));
        assert!(mmap(0, private | anonymous | unsigned(libc::MAP_NORESERVE)));
        assert!(!mmap(read | execute, private | anonymous));
        assert!(!mmap(read, private));
        assert!(!mmap(read, shared | anonymous));
        assert!(allows(PLAIN, libc::SYS_mprotect, &[0, 4096, read]));
        assert!(!allows(PLAIN, libc::SYS_mprotect, &[0, 4096, read | execute]));

        let ioctl = |request| allows(PLAIN, libc::SYS_ioctl, &[3, request, 0]);
        assert!(VCPU_IOCTLS.iter().all(|request| ioctl(request())));
        // Whatever a libc does with the upper half.
        assert!(ioctl(0xffff_ffff_8090_ae81));
        let (kvm_create_vm, tiocsti) = (0xae01, 0x5412);
        assert!(!ioctl(kvm_create_vm) && !ioctl(tiocsti) && !ioctl(libc::FIONBIO));
        assert!(allows(Role { sockets: true, ..PLAIN }, libc::SYS_ioctl, &[3, libc::FIONBIO]));

        let own = u64::from(std::process::id());
        assert!(allows(PLAIN, libc::SYS_tgkill, &[own, 1, 1]));
        assert!(!allows(PLAIN, libc::SYS_tgkill, &[1, 1, 1]));
        assert!(!allows(PLAIN, libc::SYS_kill, &[own, 1]));
        assert!(allows(PLAIN, libc::SYS_rt_sigaction, &[unsigned(libc::SIGSEGV)]));
        assert!(!allows(PLAIN, libc::SYS_rt_sigaction, &[unsigned(libc::SIGSYS)]));

        let calls = |number, arguments: &[u64]| allows(Role { calls: true, ..PLAIN }, number, arguments);
        let compiled = |number, arguments: &[u64]| allows(Role { compiled: true, ..PLAIN }, number, arguments);
        for number in OWN_MEMORY {
            assert!(compiled(number, &[own]) && !compiled(number, &[1]));
            assert!(calls(number, &[own]) && !calls(number, &[1]) && !allows(PLAIN, number, &[own]), "call {number}");
        }
        for request in CALL_IOCTLS.map(|request| request()) {
            assert!(calls(libc::SYS_ioctl, &[3, request]) && !ioctl(request), "{request:#x}");
        }

        let debugger = |number, arguments: &[u64]| allows(Role { debugger: true, ..PLAIN }, number, arguments);
        for request in DEBUGGER_IOCTLS.map(|request| request()) {
            assert!(debugger(libc::SYS_ioctl, &[3, request]) && !ioctl(request), "{request:#x}");
        }
        let watchpoints = |request| allows(Role { watchpoints: true, ..PLAIN }, libc::SYS_ioctl, &[3, request]);
        for request in WATCHPOINT_IOCTLS.map(|request| request()) {
            assert!(watchpoints(request) && !debugger(libc::SYS_ioctl, &[3, request]) && !ioctl(request), "{request:#x}");
        }
        assert!(debugger(libc::SYS_process_vm_readv, &[own]) && !debugger(libc::SYS_process_vm_readv, &[1]));
        for forbidden in [libc::SYS_socket, libc::SYS_accept4, libc::SYS_connect, libc::SYS_sendto, libc::SYS_recvfrom] {
            assert!(!debugger(forbidden, &[1, 2, 3, 4, 5, 6]), "call {forbidden}");
        }

        let sendto = |address| allows(Role { sockets: true, ..PLAIN }, libc::SYS_sendto, &[3, 0, 0, 0, address, 0]);
        assert!(sendto(0));
        assert!(!sendto(1) && !sendto(1 << 32));
    }
}
