//! Running `mote` as a process, always within a time limit, and judging what it said.

#![allow(dead_code, reason = "no test needs all of it")]

use std::{
    ffi::OsStr,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::NamedTempFile;

use super::engine::{self, Engine};

/// No run of these tests takes this long, whatever else the machine does: one that does hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A finished process.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// `None` if a signal ended it.
    pub(crate) status: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Outcome {
    /// Checks the exit status; what else is known is shown if it is another.
    #[track_caller]
    pub(crate) fn expect(self, status: i32) -> Self {
        assert!(!self.stderr.contains("panicked"), "a panic: {self:?}");
        assert_eq!(self.status, Some(status), "{self:?}");
        self
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("standard output is not UTF-8")
    }

    /// Checks that the run ended well and printed exactly `stdout`, nothing else.
    #[track_caller]
    pub(crate) fn expect_output(self, stdout: &str) {
        let outcome = self.expect(0);
        assert_eq!((outcome.text(), outcome.stderr.as_str()), (stdout, ""));
    }

    /// The one line that says why the run did not end well. A backtrace can follow it, which the interpreter has not.
    #[track_caller]
    pub(crate) fn complaint(&self) -> &str {
        let text = self.stderr.strip_suffix('\n').unwrap_or_else(|| panic!("no whole line: {self:?}"));
        let line = match (engine::under_test(), self.status, text.split_once('\n')) {
            (Engine::Aot, Some(134), Some((line, backtrace))) => {
                let is_frame = |line: &str| line.starts_with("    at ") && !line.chars().any(char::is_control);
                assert!(backtrace.split('\n').all(is_frame), "no backtrace: {self:?}");
                line
            }
            _ => text,
        };
        assert!(line.starts_with("mote: "), "not mote's: {self:?}");
        assert!(!line.chars().any(char::is_control), "more than a line, or a control character: {self:?}");
        assert!(!line.contains("panicked"), "a panic: {self:?}");
        line
    }

    /// Checks status and complaint.
    #[track_caller]
    pub(crate) fn complains(self, status: i32, about: &str) -> Self {
        let outcome = self.expect(status);
        let complaint = outcome.complaint();
        assert!(complaint.contains(about), "{about:?} is not in {complaint:?}");
        outcome
    }

    /// What `--stats=json` printed: the last line of standard error.
    #[track_caller]
    pub(crate) fn stats(&self) -> Value {
        let line = self.stderr.lines().last().unwrap_or_else(|| panic!("no line: {self:?}"));
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// `mote` with arguments, and with the engine under test; standard input is empty, output is captured.
pub(crate) fn mote(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = engine::mote();
    command.args(engine::line(arguments)).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs `mote` with these arguments to its end.
#[track_caller]
pub(crate) fn run(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Outcome {
    finish(mote(arguments).spawn().expect("mote does not start"))
}

/// Runs `mote run [OPTIONS] PAYLOAD [ARGS]`.
#[track_caller]
pub(crate) fn run_payload(options: &[&str], name: &str, arguments: &[&str]) -> Outcome {
    run(payload_line(options, name, arguments))
}

/// The command line of [`run_payload`].
pub(crate) fn payload_line(options: &[&str], name: &str, arguments: &[&str]) -> Vec<String> {
    let path = payload(name).display().to_string();
    let options = options.iter().map(ToString::to_string);
    [String::from("run")].into_iter().chain(options).chain([path]).chain(arguments.iter().map(ToString::to_string)).collect()
}

/// Runs `mote run [OPTIONS] MODULE` for a module in either format, in a file of its own.
#[track_caller]
pub(crate) fn run_module(options: &[&str], module: impl AsRef<[u8]>) -> Outcome {
    let file = module_file(module);
    run([OsStr::new("run")].into_iter().chain(options.iter().map(OsStr::new)).chain([file.path().as_os_str()]))
}

/// A module in a file, which lives as long as the result.
pub(crate) fn module_file(module: impl AsRef<[u8]>) -> NamedTempFile {
    let mut file = tempfile::Builder::new().prefix("mote-test-").suffix(".wasm").tempfile().expect("no temporary file");
    file.write_all(module.as_ref()).expect("cannot write a temporary file");
    file
}

/// A file of `wasm-payloads/`.
pub(crate) fn payload(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../wasm-payloads").join(name)
}

/// Runs with `input` on standard input.
#[track_caller]
pub(crate) fn run_with_input(command: &mut Command, input: &[u8]) -> Outcome {
    run_with_input_within(command, input, LIMIT)
}

/// The same for a process that may need longer than [`LIMIT`].
#[track_caller]
pub(crate) fn run_with_input_within(command: &mut Command, input: &[u8], limit: Duration) -> Outcome {
    let mut child = command.stdin(Stdio::piped()).spawn().expect("mote does not start");
    let mut stdin = child.stdin.take().expect("standard input is a pipe");
    let input = input.to_vec();
    // A reader may end before it has read everything.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let outcome = finish_within(child, limit);
    writer.join().expect("the writer panicked");
    outcome
}

/// Waits for the end, taking all output that is captured. Panics, and kills it, if it does not come.
#[track_caller]
pub(crate) fn finish(child: Child) -> Outcome {
    finish_within(child, LIMIT)
}

#[track_caller]
fn finish_within(mut child: Child, limit: Duration) -> Outcome {
    let stdout = child.stdout.take().map(read_all);
    let stderr = child.stderr.take().map(read_all);
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("cannot wait") {
            break status;
        }
        if started.elapsed() > limit {
            child.kill().expect("cannot kill");
            let _status = child.wait();
            panic!(
                "it does not end; it said: {:?}",
                stderr.map(collect).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            );
        }
        thread::sleep(Duration::from_millis(2));
    };
    // A program may write anything there; what mote says is judged by `complaint`.
    let stderr = String::from_utf8_lossy(&stderr.map(collect).unwrap_or_default()).into_owned();
    Outcome { status: status.code(), stdout: stdout.map(collect).unwrap_or_default(), stderr }
}

fn read_all(mut stream: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("cannot read output");
        bytes
    })
}

fn collect(reader: JoinHandle<Vec<u8>>) -> Vec<u8> {
    reader.join().expect("the reader panicked")
}

/// Sends a signal.
pub(crate) fn kill(child: &Child, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).expect("cannot send a signal");
}
