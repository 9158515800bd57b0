//! What this process gives up before it reads a byte of the module, for good: everything but computing, and writing to two
//! descriptors that its parent opened.
//!
//! Limits first, then Landlock, then the threads, which inherit both, then seccomp for all of them at once. Seccomp alone
//! leaves no way to a file or socket; Landlock is there for the day on which it does not hold, and may be missing.

use std::{collections::BTreeMap, fmt::Display, io};

use landlock::{ABI, Access as _, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetError, RulesetStatus, Scope};
use libc::{c_int, c_long, c_uint};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use crate::request::Request;

/// The newest that the crate knows. What an older kernel lacks of it is left out by the crate.
const NEWEST: ABI = ABI::V9;
/// First descriptor behind the standard streams.
const FIRST_OTHER: c_uint = 3;
/// Processor time between the signal that can be told apart and the one that cannot be caught.
const GRACE_SECONDS: u64 = 2;
/// Threads that compile never have to give it back, and glibc would open a file to find out how.
const TRIMMED_BYTES: c_int = 1 << 30;

/// Ends with the parent, and never uses more than it allowed.
pub(crate) fn limit(request: &Request) -> io::Result<()> {
    // SAFETY: these change nothing but what the kernel notes about this process. No descriptor is in use but the standard
    // streams; others, which its parent may have from anywhere, are not for it.
    let is_orphan = unsafe {
        check(libc::close_range(FIRST_OTHER, c_uint::MAX, 0))?;
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0))?;
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        check(libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0))?;
        libc::mallopt(libc::M_TRIM_THRESHOLD, TRIMMED_BYTES);
        libc::getppid().cast_unsigned() != request.parent
    };
    if is_orphan {
        return Err(io::Error::other("the process that started this one has ended"));
    }
    let limits = [
        (libc::RLIMIT_AS, request.memory_bytes, 0),
        (libc::RLIMIT_CPU, request.cpu_seconds, GRACE_SECONDS),
        (libc::RLIMIT_FSIZE, request.artifact_bytes, 0),
        (libc::RLIMIT_CORE, 0, 0),
    ];
    for (resource, soft, grace) in limits {
        lower(resource, soft, soft.saturating_add(grace))?;
    }
    Ok(())
}

/// No descriptor beside those that are open.
pub(crate) fn forbid_descriptors() -> io::Result<()> {
    lower(libc::RLIMIT_NOFILE, 0, 0)
}

/// Never above what it is already.
fn lower(resource: c_uint, soft: u64, hard: u64) -> io::Result<()> {
    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both point to a structure that lives through the call.
    unsafe {
        check(libc::getrlimit(resource, &raw mut now))?;
        let limit = libc::rlimit { rlim_cur: soft.min(now.rlim_max), rlim_max: hard.min(now.rlim_max) };
        check(libc::setrlimit(resource, &raw const limit))
    }
}

fn check(result: c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// No file, no socket, no signal to others: nothing at all is allowed. Whether the kernel has it.
pub(crate) fn forbid_files() -> Result<bool, RulesetError> {
    let rules = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?;
    let status = rules.create()?.restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

/// System calls that need no look at their arguments.
const ANY: &[c_long] = &[
    // Memory.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // Other threads, and time.
    libc::SYS_clock_gettime,
    libc::SYS_futex,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    // What a crash needs to be told by its signal; hash maps begin with a random number.
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Any other call ends the process, whichever thread makes it.
pub(crate) fn forbid_calls() -> Result<(), String> {
    let program = program().map_err(text)?;
    seccompiler::apply_filter_all_threads(&program).map_err(text)
}

fn text(error: impl Display) -> String {
    format!("cannot confine the compiler by seccomp: {error}")
}

fn program() -> Result<BpfProgram, BackendError> {
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> = ANY.iter().map(|number| (*number, Vec::new())).collect();
    let not_executable = || masked(2, libc::PROT_EXEC, 0);
    let (kind, private) = (libc::MAP_TYPE | libc::MAP_ANONYMOUS, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let own = masked(0, -1, std::process::id().cast_signed())?;
    let conditional = [
        (libc::SYS_mmap, vec![not_executable()?, masked(3, kind, private)?]),
        (libc::SYS_mprotect, vec![not_executable()?]),
        (libc::SYS_pread64, vec![is(0, libc::STDIN_FILENO)?]),
        (libc::SYS_write, vec![is(0, libc::STDOUT_FILENO)?]),
        (libc::SYS_write, vec![is(0, libc::STDERR_FILENO)?]),
        (libc::SYS_writev, vec![is(0, libc::STDERR_FILENO)?]),
        (libc::SYS_rt_sigaction, vec![is(0, libc::SIGSEGV)?]),
        (libc::SYS_rt_sigaction, vec![is(0, libc::SIGBUS)?]),
        (libc::SYS_rt_sigaction, vec![is(0, libc::SIGABRT)?]),
        (libc::SYS_tgkill, vec![own]),
    ];
    for (number, conditions) in conditional {
        rules.entry(number).or_default().push(SeccompRule::new(conditions)?);
    }
    SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, TargetArch::x86_64)?.try_into()
}

fn is(argument: u8, value: c_int) -> Result<SeccompCondition, BackendError> {
    masked(argument, -1, value)
}

/// Some bits of an argument that is an `int`.
fn masked(argument: u8, mask: c_int, value: c_int) -> Result<SeccompCondition, BackendError> {
    let operator = SeccompCmpOp::MaskedEq(mask.cast_unsigned().into());
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value.cast_unsigned().into())
}
