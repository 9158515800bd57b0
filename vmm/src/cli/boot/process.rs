//! A QEMU process: started with what it needs, and never left behind.

use std::{
    ffi::OsString,
    io::{self, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;
use rustix::{
    fs::MemfdFlags,
    io::{FdFlags, fcntl_setfd},
    process::{Pid, Signal, WaitId, WaitIdOptions, getpid, getppid, kill_process_group, set_parent_process_death_signal, waitid},
};

use super::super::{failure::Failure, guest::has_signal};

/// Between two looks at a process that is about to end.
const TICK: Duration = Duration::from_millis(1);

/// A file without a name, for a process that is started: nothing has to be removed afterwards, whatever happens.
pub(crate) struct PassedFile(OwnedFd);

impl PassedFile {
    pub(crate) fn new(name: &str, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<Self, Failure> {
        let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC).map_err(io::Error::from);
        let written = file.and_then(|file| {
            let mut file = std::fs::File::from(file);
            write(&mut file).map(|()| file.into())
        });
        Ok(Self(written.with_context(|| format!("cannot keep the {name} in memory"))?))
    }

    /// Its name for the process.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}

impl AsFd for PassedFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A process, and all that connects this one to it.
pub(crate) struct Running {
    pub(crate) child: Ended,
    pub(crate) console_input: ChildStdin,
    pub(crate) console_output: ChildStdout,
    pub(crate) complaints: ChildStderr,
    pub(crate) records: UnixStream,
}

/// Ends with its owner, and all that it started: it may be a script around QEMU.
pub(crate) struct Ended {
    child: Child,
    /// Since it has been waited for. Before that its number is its own, and that of its group.
    status: Option<ExitStatus>,
}

impl Ended {
    /// Its status; it is killed if that does not come by itself, or once a signal asks this process to end.
    pub(crate) fn end_within(&mut self, time: Duration, signals: &OwnedFd) -> io::Result<ExitStatus> {
        let started = Instant::now();
        while !self.has_ended()? && started.elapsed() < time && !has_signal(signals, TICK) {}
        self.end()
    }

    fn has_ended(&self) -> io::Result<bool> {
        // Without taking its status: others of its group are still to be ended.
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(waitid(WaitId::Pid(Pid::from_child(&self.child)), look)?.is_some())
    }

    fn end(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        let _ended_already = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let status = self.child.wait()?;
        self.status = Some(status);
        Ok(status)
    }
}

impl Drop for Ended {
    /// Does nothing to a process that has been waited for.
    fn drop(&mut self) {
        let _status = self.end();
    }
}

/// The descriptor by which the process knows the channel of records; it belongs to the process after it was started.
pub(crate) struct RecordChannel {
    ours: UnixStream,
    theirs: UnixStream,
}

impl RecordChannel {
    pub(crate) fn new() -> Result<Self, Failure> {
        let (ours, theirs) = UnixStream::pair().context("cannot make a pair of sockets")?;
        Ok(Self { ours, theirs })
    }

    /// For QEMU's `-chardev`.
    pub(crate) fn backend(&self) -> String {
        format!("socket,fd={}", self.theirs.as_raw_fd())
    }
}

/// Starts QEMU.
pub(crate) fn start(
    program: &Path,
    arguments: &[OsString],
    files: &[PassedFile],
    records: RecordChannel,
) -> Result<Running, Failure> {
    let mut command = Command::new(program);
    // The signals of a terminal are for this process, which decides; and what QEMU is started by can be ended with it.
    command.args(arguments).process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let passed = files.iter().map(|file| file.as_fd().as_raw_fd()).chain([records.theirs.as_raw_fd()]).collect();
    tie(&mut command, passed);
    let child = command.spawn().map_err(|error| not_started(program, error))?;
    let mut child = Ended { child, status: None };
    let streams = (child.child.stdin.take(), child.child.stdout.take(), child.child.stderr.take());
    let (Some(console_input), Some(console_output), Some(complaints)) = streams else {
        return Err(Failure::of_host(anyhow::anyhow!("QEMU was started without streams")));
    };
    // The other end is the process's alone, so that its end can be seen.
    drop(records.theirs);
    Ok(Running { child, console_input, console_output, complaints, records: records.ours })
}

/// Lets the process have descriptors, and end when this thread does, even if that is killed.
fn tie(command: &mut Command, passed: Vec<RawFd>) {
    let parent = getpid();
    let prepare = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // It may have ended before that was settled.
        if getppid() != Some(parent) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        for descriptor in &passed {
            // SAFETY: the caller keeps these open until the process was started, and this is a copy of its table.
            fcntl_setfd(unsafe { BorrowedFd::borrow_raw(*descriptor) }, FdFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec it makes system calls and nothing else: no allocation, no lock.
    unsafe { command.pre_exec(prepare) };
}

fn not_started(program: &Path, error: io::Error) -> Failure {
    let program = program.display();
    let help = match error.kind() {
        io::ErrorKind::NotFound => " (install QEMU, on Debian the package qemu-system-x86, or name it by --qemu)",
        _ => "",
    };
    Failure::of_host(anyhow::Error::new(error).context(format!("cannot start {program}{help}")))
}
