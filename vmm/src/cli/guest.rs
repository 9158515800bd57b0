//! From the command line to what the library takes.

use std::{
    env,
    ffi::{OsStr, OsString},
    io::{self, Write},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use anyhow::Context;
use mote_vmm::{Access, Directory, DirectoryError, ImageError, KernelImage, Output, Ramdisk, Sandbox, Snapshot, Translation};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::{
    arguments::{DirectoryArg, GuestArgs},
    engine::{self, EngineArg, Loaded},
    failure::Failure,
};

/// A module or a snapshot as messages name it: in one line, whatever the file's name is.
pub(crate) fn shown(path: &Path) -> String {
    path.display().to_string().replace(char::is_control, "\u{fffd}")
}

/// The kernel that was asked for, if one was.
pub(crate) fn given_kernel(arguments: &GuestArgs) -> Result<Option<Arc<KernelImage>>, ImageError> {
    arguments.kernel.as_deref().map(KernelImage::from_file).transpose()
}

impl GuestArgs {
    pub(crate) fn directories(&self) -> Result<Vec<Directory>, DirectoryError> {
        let open = |names: &DirectoryArg, access| Directory::open(&names.host, &names.guest, access);
        let writable = self.dir.iter().map(|names| open(names, Access::ReadWrite));
        let read_only = self.dir_ro.iter().map(|names| open(names, Access::ReadOnly));
        writable.chain(read_only).collect()
    }

    pub(crate) fn environment(&self) -> Result<Vec<(String, String)>, Failure> {
        self.env.iter().filter_map(|variable| environment_variable(variable).transpose()).collect()
    }

    pub(crate) fn open_ramdisk(&self) -> Result<Option<Arc<Ramdisk>>, Failure> {
        Ok(self.ramdisk.as_deref().map(Ramdisk::from_file).transpose()?)
    }

    /// The first of the program's arguments.
    pub(crate) fn program_name(&self, module: &Path) -> String {
        let file_name = || module.file_name().map_or_else(|| "-".into(), OsStr::to_string_lossy).into_owned();
        self.argv0.clone().unwrap_or_else(file_name)
    }

    /// Options that a snapshot has settled, and that were given all the same.
    pub(crate) fn refuse_settled(&self) -> Result<(), Failure> {
        let settled = [
            ("--env", !self.env.is_empty()),
            ("--ramdisk", self.ramdisk.is_some()),
            ("--memory", self.memory.is_some()),
            ("--max-wasm-memory", self.max_wasm_memory.is_some()),
            ("--argv0", self.argv0.is_some()),
            ("--engine", self.engine != EngineArg::Auto),
        ];
        match settled.into_iter().find(|(_, given)| *given) {
            Some((option, _)) => Err(settled_by_snapshot(option)),
            None => Ok(()),
        }
    }

    /// Makes a sandbox of a module: instantiated, not started. Its standard input is empty, and its output passes through this
    /// process, so that it sees no terminal: what is kept of it must not depend on where it was made.
    /// `signals` interrupt it.
    pub(crate) fn sandbox(&self, path: &Path, arguments: Vec<String>, signals: OwnedFd) -> Result<Sandbox, Failure> {
        let Loaded { kernel, module, .. } = engine::load(self, path)?;
        let pass_on =
            |mut to: Box<dyn Write + Send>| Output::callback(move |bytes| to.write_all(bytes).and_then(|()| to.flush()));
        let mut builder = Sandbox::builder()
            .kernel(&kernel)
            .module(&module)
            .args([self.program_name(path)].into_iter().chain(arguments))
            .stdout(pass_on(Box::new(io::stdout())))
            .stderr(pass_on(Box::new(io::stderr())))
            .log_level(self.log.into())
            // What follows is a snapshot: no copy has to translate what it calls.
            .translation(Translation::Eager)
            .interrupt_on(signals);
        for (name, value) in self.environment()? {
            builder = builder.env(name, value);
        }
        for directory in self.directories()? {
            builder = builder.directory(directory);
        }
        if let Some(ramdisk) = self.open_ramdisk()? {
            builder = builder.ramdisk(&ramdisk);
        }
        if let Some(bytes) = self.memory {
            builder = builder.ram_bytes(bytes);
        }
        if let Some(bytes) = self.max_wasm_memory {
            builder = builder.linear_memory_bytes(bytes);
        }
        if let Some(fuel) = self.fuel {
            builder = builder.fuel(fuel);
        }
        builder = match self.timeout {
            Some(timeout) => builder.deadline(timeout),
            None => builder.without_deadline(),
        };
        builder.build().map_err(|error| match error {
            mote_vmm::BuildError::Instantiate(error) => Failure::of_call(&shown(path), error),
            error => error.into(),
        })
    }
}

/// An option, or something else, that is not to be given with a snapshot.
pub(crate) fn settled_by_snapshot(what: &str) -> Failure {
    Failure::usage(format!("{what} cannot be given with a snapshot: that was settled when it was taken"))
}

/// Fuel for a snapshot whose engine does not count it would do nothing.
pub(crate) fn refuse_uncounted_fuel(arguments: &GuestArgs, snapshot: &Snapshot) -> Result<(), Failure> {
    if arguments.fuel.is_some() && !snapshot.counts_fuel() {
        return Err(Failure::usage("--fuel cannot be given with this snapshot: it was taken without, and does not count fuel"));
    }
    Ok(())
}

/// `--verify` for a module.
pub(crate) fn nothing_to_verify() -> Failure {
    Failure::usage("--verify is for snapshots: the guest checks a module in any case")
}

/// WASI has no strings but UTF-8.
pub(crate) fn utf8(arguments: impl IntoIterator<Item = OsString>) -> Result<Vec<String>, Failure> {
    let text = |argument: OsString| {
        argument.into_string().map_err(|argument| Failure::usage(format!("the argument {argument:?} is not UTF-8")))
    };
    arguments.into_iter().map(text).collect()
}

pub(crate) fn duplicate(stream: impl AsFd) -> anyhow::Result<OwnedFd> {
    stream.as_fd().try_clone_to_owned().context("cannot duplicate a descriptor")
}

/// `NAME=VALUE`, or `NAME` for the value that this process has; one that it lacks stays unset.
fn environment_variable(text: &str) -> Result<Option<(String, String)>, Failure> {
    if let Some((name, value)) = text.split_once('=') {
        return Ok(Some((name.into(), value.into())));
    }
    match env::var(text) {
        Ok(value) => Ok(Some((text.into(), value))),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(error) => Err(Failure::usage(format!("--env {text}: {error}"))),
    }
}

/// The end of a pipe that becomes readable, and stays so, when a signal asks this process to end, so that output is not lost.
pub(crate) fn signals() -> anyhow::Result<OwnedFd> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("cannot make a pipe")?;
    for signal in caught_signals() {
        let writer = writer.try_clone().context("cannot duplicate a pipe")?;
        signal_hook::low_level::pipe::register(signal, writer).context("cannot catch signals")?;
    }
    Ok(reader)
}

/// Whether one has come to what [`signals`] gave; waits for it so long. Nothing is read, so others see it as well.
pub(crate) fn has_signal(signals: impl AsFd, time: Duration) -> bool {
    let time = Timespec::try_from(time).ok();
    poll(&mut [PollFd::new(&signals, PollFlags::IN)], time.as_ref()).is_ok_and(|ready| ready > 0)
}

/// Waits for one.
pub(crate) fn wait_for_signal(signals: impl AsFd) {
    while matches!(poll(&mut [PollFd::new(&signals, PollFlags::IN)], None), Err(Errno::INTR)) {}
}

/// Sets `flag` at the same signals.
pub(crate) fn flag_signals(flag: &Arc<AtomicBool>) -> anyhow::Result<()> {
    for signal in caught_signals() {
        signal_hook::flag::register(signal, Arc::clone(flag)).context("cannot catch signals")?;
    }
    Ok(())
}

fn caught_signals() -> impl Iterator<Item = libc::c_int> {
    [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| !is_ignored(*signal))
}

/// A program that writes more than `ulimit -f` allows gets an errno; it must not end the process.
pub(crate) fn ignore_file_size_signal() {
    // SAFETY: ignoring a signal runs no code of ours in a handler.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Whether this process was started with the signal ignored, as by nohup(1): then it stays so.
fn is_ignored(signal: libc::c_int) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action this only writes the old one, and all zeros are a valid action if it fails.
    let action = unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
        action.assume_init()
    };
    action.sa_sigaction == libc::SIG_IGN
}
