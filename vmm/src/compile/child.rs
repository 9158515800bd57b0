//! The process that compiles: started, watched, and ended if it takes too long. Whatever it says is input.

use std::{
    fs::File,
    io::{self, Read},
    ops::ControlFlow,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::{CompileError, CompileOptions, CompileProgress, program, protocol};

/// How often the observer is asked.
const TICK: Duration = Duration::from_millis(100);
/// Between two looks at a process that has closed its pipe, and so is about to end.
const END_TICK: Duration = Duration::from_millis(1);
/// Kept of what the process says.
const MAX_MESSAGE_BYTES: usize = 4096;
/// Of a line about progress.
const MAX_LINE_BYTES: usize = 256;

/// Compiles one file into another, which is empty.
pub(super) fn compile(
    module: File,
    artifact: File,
    options: &CompileOptions,
    observer: &mut dyn FnMut(CompileProgress) -> ControlFlow<()>,
) -> Result<(), CompileError> {
    let mut running = Running::start(module, artifact, options)?;
    let mut speech = Speech::default();
    running.listen(&mut speech, observer)?;
    let status = running.wait(&speech, observer)?;
    verdict(status, speech.message(), options)
}

struct Running {
    child: Child,
    pipe: ChildStderr,
    started: Instant,
    limit: Duration,
}

impl Running {
    fn start(module: File, artifact: File, options: &CompileOptions) -> Result<Self, CompileError> {
        let limits = &options.limits;
        let threads = options.threads.map_or_else(default_threads, std::num::NonZeroUsize::get);
        // That of all threads, and a little more, so that the deadline comes first.
        let cpu_seconds = limits.time.as_secs().saturating_add(2).saturating_mul(threads as u64);
        let features: Vec<_> = options.cpu_features().names().collect();
        let mut command = Command::new(program::path()?);
        command
            .env_clear()
            .current_dir("/")
            // The signals of a terminal are for this process: it decides.
            .process_group(0)
            .arg(format!("{}{}", protocol::FEATURES, features.join(",")))
            .arg(format!("{}{}", protocol::MEMORY, limits.memory_bytes))
            .arg(format!("{}{cpu_seconds}", protocol::CPU_SECONDS))
            .arg(format!("{}{}", protocol::ARTIFACT, limits.artifact_bytes))
            .arg(format!("{}{threads}", protocol::THREADS))
            .arg(format!("{}{}", protocol::PARENT, std::process::id()))
            .args(options.fuel.then_some(protocol::FUEL))
            .stdin(module)
            .stdout(artifact)
            .stderr(Stdio::piped());
        let started = Instant::now();
        let host = |source| CompileError::Host { what: "cannot start the compiler", source };
        let mut child = command.spawn().map_err(host)?;
        match child.stderr.take() {
            Some(pipe) => Ok(Self { child, pipe, started, limit: limits.time }),
            None => Err(host(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Until it closes its pipe.
    fn listen(
        &mut self,
        speech: &mut Speech,
        observer: &mut dyn FnMut(CompileProgress) -> ControlFlow<()>,
    ) -> Result<(), CompileError> {
        let host = |source: io::Error| CompileError::Host { what: "cannot listen to the compiler", source };
        let mut buffer = [0; 4096];
        loop {
            let left = self.check(speech, observer)?;
            let timeout = Timespec::try_from(left.min(TICK)).unwrap_or_default();
            match rustix::event::poll(&mut [PollFd::new(&self.pipe, PollFlags::IN)], Some(&timeout)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(host(error.into())),
            }
            match self.pipe.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(bytes) => speech.hear(buffer.get(..bytes).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(host(error)),
            }
        }
    }

    /// Until it has ended. One that closed its pipe and goes on has been taken over; it has no more time than others.
    fn wait(
        &mut self,
        speech: &Speech,
        observer: &mut dyn FnMut(CompileProgress) -> ControlFlow<()>,
    ) -> Result<ExitStatus, CompileError> {
        loop {
            let status = self.child.try_wait();
            match status.map_err(|source| CompileError::Host { what: "cannot wait for the compiler", source })? {
                Some(status) => return Ok(status),
                None => thread::sleep(END_TICK),
            }
            self.check(speech, observer)?;
        }
    }

    /// The time that it has left.
    fn check(
        &self,
        speech: &Speech,
        observer: &mut dyn FnMut(CompileProgress) -> ControlFlow<()>,
    ) -> Result<Duration, CompileError> {
        let elapsed = self.started.elapsed();
        if observer(CompileProgress { elapsed, functions: speech.functions }).is_break() {
            return Err(CompileError::Cancelled);
        }
        match self.limit.checked_sub(elapsed) {
            Some(left) if !left.is_zero() => Ok(left),
            _ => Err(CompileError::Time { limit: self.limit }),
        }
    }
}

impl Drop for Running {
    /// Does nothing to a process that has been waited for.
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _status = self.child.wait();
    }
}

fn default_threads() -> usize {
    const MAX_THREADS: usize = 16;
    thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get).min(MAX_THREADS)
}

/// What the process has said so far.
#[derive(Default)]
struct Speech {
    /// Not ended yet.
    line: Vec<u8>,
    message: Vec<u8>,
    functions: Option<(u64, u64)>,
}

impl Speech {
    fn hear(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.line.len() > MAX_LINE_BYTES {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        match progress(&line) {
            // Two threads may tell it out of order.
            Some(functions) => self.functions = self.functions.max(Some(functions)),
            None => {
                let room = MAX_MESSAGE_BYTES.saturating_sub(self.message.len());
                self.message.extend(line.iter().take(room));
            }
        }
    }

    /// In one line, and harmless to a terminal.
    fn message(mut self) -> String {
        self.end_line();
        let text = String::from_utf8_lossy(&self.message);
        let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        lines.join(" ").replace(char::is_control, "\u{fffd}")
    }
}

/// Compiled, and all; never more than all.
fn progress(line: &[u8]) -> Option<(u64, u64)> {
    let text = std::str::from_utf8(line).ok()?.strip_prefix(protocol::PROGRESS)?;
    let (compiled, all) = text.trim_end().split_once(' ')?;
    let (compiled, all) = (compiled.parse::<u64>().ok()?, all.parse().ok()?);
    Some((compiled.min(all), all))
}

fn verdict(status: ExitStatus, message: String, options: &CompileOptions) -> Result<(), CompileError> {
    let limits = &options.limits;
    match (status.code(), status.signal()) {
        (Some(protocol::COMPILED), _) => Ok(()),
        (Some(protocol::INVALID), _) => Err(CompileError::Invalid { message }),
        (Some(protocol::UNSUPPORTED), _) => Err(CompileError::Unsupported { message }),
        (Some(protocol::OUT_OF_MEMORY), _) => Err(CompileError::Memory { limit_bytes: limits.memory_bytes }),
        (Some(protocol::ARTIFACT_TOO_LARGE), _) | (_, Some(libc::SIGXFSZ)) => {
            Err(CompileError::ArtifactTooLarge { limit_bytes: limits.artifact_bytes })
        }
        (Some(protocol::FAILED), _) => Err(CompileError::Host { what: "the compiler failed", source: io::Error::other(message) }),
        (_, Some(libc::SIGXCPU)) => Err(CompileError::Time { limit: limits.time }),
        (Some(code), _) => Err(CompileError::Crashed { how: format!("exit status {code}"), message }),
        (None, Some(signal)) => Err(CompileError::Crashed { how: signal_name(signal), message }),
        (None, None) => Err(CompileError::Crashed { how: status.to_string(), message }),
    }
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGILL => "SIGILL",
        libc::SIGKILL => "SIGKILL",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGSYS => "SIGSYS",
        libc::SIGTERM => "SIGTERM",
        libc::SIGTRAP => "SIGTRAP",
        _ => return format!("signal {signal}"),
    };
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn heard(pieces: &[&[u8]]) -> Speech {
        let mut speech = Speech::default();
        pieces.iter().for_each(|piece| speech.hear(piece));
        speech
    }

    #[test]
    fn progress_and_message_are_told_apart_wherever_the_pieces_end() {
        let said = b"\x01progress 0 10\n\x01progress 7 10\nwhat is wrong\nand where";
        for at in 0..said.len() {
            let speech = heard(&[&said[..at], &said[at..]]);
            assert_eq!(speech.functions, Some((7, 10)));
            assert_eq!(speech.message(), "what is wrong and where");
        }
        assert_eq!(heard(&[b"\x01progress 12 10\n"]).functions, Some((10, 10)));
        assert_eq!(heard(&[b"\x01progress -1 10\n\x1b[2J"]).message(), "\u{fffd}progress -1 10 \u{fffd}[2J");
    }

    #[test]
    fn what_ended_it_has_a_name() {
        let options = CompileOptions::default();
        let error = |raw| verdict(ExitStatus::from_raw(raw), "m".into(), &options).unwrap_err().to_string();
        assert!(error(libc::SIGSYS).contains("SIGSYS"));
        assert!(error(libc::SIGXCPU).contains("time"));
        assert!(error(libc::SIGXFSZ).contains("artifact"));
        assert!(error(101 << 8).contains("101"));
        assert!(verdict(ExitStatus::from_raw(0), String::new(), &options).is_ok());
    }

    proptest! {
        #[test]
        fn nothing_that_it_says_takes_more_than_its_bounds(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 0..20)) {
            let mut speech = Speech::default();
            for piece in &pieces {
                speech.hear(piece);
                prop_assert!(speech.line.len() <= MAX_LINE_BYTES + 2000 && speech.message.len() <= MAX_MESSAGE_BYTES);
            }
            prop_assert!(!speech.message().contains(char::is_control));
        }
    }
}
