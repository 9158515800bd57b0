//! What a run comes to for the shell: exit status, and one line that says why.

use mote_vmm::{
    BuildError, CallError, DirectoryError, Ending, EngineError, GuestFault, ImageError, LoadError, ModuleError, RamdiskError,
    Rejection, SnapshotError, VmError,
};

use super::{chain, say, status};

/// Why something did not happen, and the exit status for it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: u8,
    pub(crate) error: anyhow::Error,
}

impl Failure {
    /// The command line is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { status: status::USAGE, error: anyhow::Error::msg(message.into()) }
    }

    /// The module, or the snapshot, is not one for this.
    pub(crate) fn rejected(message: impl Into<String>) -> Self {
        Self { status: status::REJECTED, error: anyhow::Error::msg(message.into()) }
    }

    /// Host or VM failed.
    pub(crate) fn of_host(error: impl Into<anyhow::Error>) -> Self {
        Self { status: status::FAILURE, error: error.into() }
    }

    /// A call of `module` that did not return. `None` for a program that ended itself with status 0.
    pub(crate) fn of_call(module: &str, error: CallError) -> Self {
        let (status, message) = judge(&ending(error));
        let message = message.unwrap_or_else(|| format!("the program ended itself with status {status}"));
        Self { status, error: anyhow::anyhow!("{module}: {message}") }
    }

    /// Says it; the status.
    pub(crate) fn tell(&self) -> u8 {
        say(format_args!("mote: {}\n", chain(&self.error)));
        self.status
    }
}

impl From<ModuleError> for Failure {
    fn from(error: ModuleError) -> Self {
        Self { status: status::REJECTED, error: error.into() }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Module(error) => error.into(),
            #[cfg(feature = "compiled")]
            error => Self::rejected(error.to_string()),
        }
    }
}

impl From<DirectoryError> for Failure {
    fn from(error: DirectoryError) -> Self {
        Self::of_host(error)
    }
}

impl From<RamdiskError> for Failure {
    fn from(error: RamdiskError) -> Self {
        Self::of_host(error)
    }
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        Self::of_host(error)
    }
}

impl From<VmError> for Failure {
    fn from(error: VmError) -> Self {
        match error {
            VmError::Config(error) => Self { status: status::USAGE, error: error.into() },
            // Without KVM there is something to be done, and a command that says what.
            VmError::Kvm(error) => {
                const HELP: &str =
                    "cannot use KVM (`mote doctor` checks the machine; `mote qemu` runs modules without KVM, slowly)";
                Self::of_host(anyhow::Error::new(error).context(HELP))
            }
            VmError::NoFuel => Self::usage(error.to_string()),
            VmError::OtherEngine { .. } => Self::rejected(error.to_string()),
            error => Self::of_host(error),
        }
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Host(error) => error.into(),
            LoadError::Kernel(_) | LoadError::Memory(_) => Self::of_host(error),
            error => Self { status: status::REJECTED, error: error.into() },
        }
    }
}

impl From<BuildError> for Failure {
    /// A module that cannot be instantiated is told with its name, by [`Failure::of_call`].
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Module(error) => error.into(),
            BuildError::Vm(error) => error.into(),
            BuildError::OtherDirectories { expected, given } => Self::usage(other_directories(&expected, &given)),
            BuildError::MissingFunction { .. } => {
                Self::rejected(format!("{error}, which only a program that embeds mote can give it"))
            }
            error => Self::of_host(error),
        }
    }
}

impl From<SnapshotError> for Failure {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::NotQuiet(_) | SnapshotError::OpenFiles(_) => Self::rejected(error.to_string()),
            SnapshotError::Vm(error) => error.into(),
            error => Self::of_host(error),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::of_host(error)
    }
}

fn other_directories(expected: &[String], given: &[String]) -> String {
    let list = |names: &[String]| match names {
        [] => String::from("none"),
        names => names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", "),
    };
    let (expected, given) = (list(expected), list(given));
    format!(
        "the snapshot was taken with these directories, by the program's names: {expected}; given: {given}. Give the same by --dir \
         and --dir-ro, in this order"
    )
}

/// The end of a call as that of a run.
pub(crate) fn ending(error: CallError) -> Ending {
    match error {
        CallError::Exit(status) => Ending::Exited(status),
        CallError::Trap(trap) => Ending::Trapped(trap),
        CallError::Rejected(rejection) => Ending::Rejected(*rejection),
        CallError::DeadlineExceeded => Ending::DeadlineExceeded,
        CallError::Interrupted => Ending::Interrupted,
        CallError::Guest(fault) => Ending::GuestFault(fault),
        CallError::HostFailure(failure) => Ending::HostFailure(*failure),
        // The command line has no host functions, and calls what there is when it can be called.
        error @ (CallError::Host { .. } | CallError::Mismatch(_) | CallError::Poisoned(_) | CallError::AtInput) => {
            Ending::Rejected(Rejection::CannotRun(error.to_string()))
        }
    }
}

/// Exit status, and what to say.
pub(crate) fn judge(ending: &Ending) -> (u8, Option<String>) {
    match ending {
        // As for any process, the low eight bits are what the parent sees.
        Ending::Exited(code) => (u8::try_from(code & 0xff).unwrap_or(0), None),
        Ending::Trapped(trap) => (status::TRAP, Some(trap.to_string())),
        Ending::Rejected(rejection) => (status::REJECTED, Some(rejection.to_string())),
        Ending::DeadlineExceeded => (status::DEADLINE, Some("stopped: the deadline of --timeout passed".into())),
        Ending::Interrupted => (status::INTERRUPTED, Some("stopped: interrupted by a signal".into())),
        Ending::GuestFault(fault) => (status::FAILURE, Some(guest_fault(fault))),
        Ending::HostFailure(failure) => (status::FAILURE, Some(failure.to_string())),
    }
}

fn guest_fault(fault: &GuestFault) -> String {
    match fault {
        GuestFault::OutOfMemory(_) => fault.to_string(),
        fault => format!("{fault}; with the built-in kernel this is a bug in mote, please report it"),
    }
}
