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
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use rustix::{
    fs::MemfdFlags,
    io::{FdFlags, fcntl_setfd},
    process::{Signal, getpid, getppid, set_parent_process_death_signal},
};

use super::super::failure::Failure;

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

/// Ends with its owner.
pub(crate) struct Ended(pub(crate) Child);

impl Ended {
    /// Its status; it is killed if that does not come by itself.
    pub(crate) fn end_within(&mut self, time: Duration) -> io::Result<ExitStatus> {
        let started = Instant::now();
        loop {
            match self.0.try_wait()? {
                Some(status) => return Ok(status),
                None if started.elapsed() >= time => self.0.kill()?,
                None => {}
            }
            thread::sleep(TICK);
        }
    }
}

impl Drop for Ended {
    /// Does nothing to a process that has been waited for.
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _status = self.0.wait();
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
    // The signals of a terminal are for this process: it decides.
    command.args(arguments).process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let passed = files.iter().map(|file| file.as_fd().as_raw_fd()).chain([records.theirs.as_raw_fd()]).collect();
    tie(&mut command, passed);
    let mut child = Ended(command.spawn().map_err(|error| not_started(program, error))?);
    let streams = (child.0.stdin.take(), child.0.stdout.take(), child.0.stderr.take());
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
