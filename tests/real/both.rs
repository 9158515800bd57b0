//! Running one command line in both runtimes, each in a directory of its own.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use super::tree::{self, Tree};
pub(super) use crate::support::programs::{programs, skip};
use crate::support::{
    command::{self, Outcome},
    kvm,
    programs::{all_there, repository},
};

/// The longest case takes twenty seconds alone on a machine; here others run beside it.
const LIMIT: Duration = Duration::from_secs(300);

/// Where programs see their directory.
pub(super) const GUEST: &str = "/w";

/// A program of `target/programs/`; `None`, with the reason on standard error, if it cannot be run here.
pub(super) fn fetched(name: &str) -> Option<PathBuf> {
    let (wasmtime, program) = (programs().join("bin/wasmtime"), programs().join(name));
    (all_there(name, &[&wasmtime, &program]) && kvm::usable()).then_some(program)
}

/// A directory of `tests/real/`.
pub(super) fn fixture(name: &str) -> PathBuf {
    repository().join("tests/real").join(name)
}

/// One command line, and what it finds.
pub(super) struct Case {
    module: PathBuf,
    /// Copied for each runtime, to be seen as [`GUEST`]; empty if `None`.
    files: Option<PathBuf>,
    /// Options that both runtimes spell alike.
    options: Vec<OsString>,
    /// Seen by wasmtime as a directory at `/`, which mote has in a ramdisk.
    root: Option<(PathBuf, PathBuf)>,
    arguments: Vec<OsString>,
    input: &'static [u8],
    /// What wasmtime compiles it with, and how.
    compiler: &'static [&'static str],
}

/// Of one pass: it needs a fifth of the time that the other takes, which is minutes for clang, and the result is fast enough.
const QUICK: &[&str] = &["-C", "compiler=winch"];
/// For what the quick one cannot compile; once, as the result is kept.
const THOROUGH: &[&str] = &["-C", "compiler=cranelift", "-C", "cache"];

impl Case {
    pub(super) fn new(module: impl Into<PathBuf>) -> Self {
        Self { module: module.into(), files: None, options: vec![], root: None, arguments: vec![], input: b"", compiler: QUICK }
    }

    /// Each runtime has a copy of this directory.
    pub(super) fn files(self, files: impl Into<PathBuf>) -> Self {
        Self { files: Some(files.into()), ..self }
    }

    pub(super) fn environment(mut self, variable: &str) -> Self {
        self.options.extend(["--env".into(), variable.into()]);
        self
    }

    /// A directory of both, which is not to be changed.
    pub(super) fn directory(mut self, host: &Path, guest: &str) -> Self {
        self.options.extend(["--dir".into(), mapping(host, guest)]);
        self
    }

    /// The contents of a directory at `/`, for mote from an archive of them.
    pub(super) fn root(self, directory: &Path, archive: &Path) -> Self {
        Self { root: Some((directory.to_path_buf(), archive.to_path_buf())), ..self }
    }

    pub(super) fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(OsString::from));
        self
    }

    /// The module needs what wasmtime has in its slow compiler alone.
    pub(super) fn compiled_thoroughly(self) -> Self {
        Self { compiler: THOROUGH, ..self }
    }

    pub(super) fn input(self, input: &'static [u8]) -> Self {
        Self { input, ..self }
    }

    /// Both runtimes end it with `status`, with the same output and the same files.
    #[track_caller]
    pub(super) fn exits(&self, status: i32) -> Both {
        let both = self.ends(status);
        let (mote, wasmtime) = (text(&both.mote.outcome.stdout), text(&both.wasmtime.outcome.stdout));
        // Bytes, not texts, are compared: invalid UTF-8 would look alike.
        assert!(
            both.mote.outcome.stdout == both.wasmtime.outcome.stdout,
            "{}\nmote: {mote}\nwasmtime: {wasmtime}",
            both.mote.line
        );
        both
    }

    /// Both runtimes end it with `status` and the same files; the output has something in it that changes.
    #[track_caller]
    pub(super) fn ends(&self, status: i32) -> Both {
        let (wasmtime, mote) = (self.in_wasmtime(), self.in_mote());
        for run in [&wasmtime, &mote] {
            assert_eq!(run.outcome.status, Some(status), "{}\n{}{}", run.line, run.text(), run.outcome.stderr);
        }
        let differences = tree::differences(&mote.tree(), &wasmtime.tree());
        assert!(differences.is_empty(), "{}\nother files than under wasmtime: {differences:?}", mote.line);
        Both { wasmtime, mote }
    }

    fn in_wasmtime(&self) -> Run {
        let mut command = Command::new(programs().join("bin/wasmtime"));
        command.arg("run").args(self.compiler);
        if let Some((directory, _)) = &self.root {
            command.arg("--dir").arg(mapping(directory, "/"));
        }
        self.run(command)
    }

    fn in_mote(&self) -> Run {
        let mut command = command::mote(["run"]);
        if let Some((_, archive)) = &self.root {
            command.arg("--ramdisk").arg(archive);
        }
        self.run(command)
    }

    #[track_caller]
    fn run(&self, mut command: Command) -> Run {
        let directory = tempfile::tempdir().expect("no temporary directory");
        if let Some(files) = &self.files {
            tree::copy(files, directory.path());
            command.arg("--dir").arg(mapping(directory.path(), GUEST));
        }
        command.args(&self.options).arg(&self.module).args(&self.arguments);
        // With it, wasmtime writes pages to standard error about a trap.
        command.env_remove("RUST_BACKTRACE").stdout(Stdio::piped()).stderr(Stdio::piped());
        let line = format!("{command:?}");
        Run { outcome: command::run_with_input_within(&mut command, self.input, LIMIT), directory, line }
    }
}

fn mapping(host: &Path, guest: &str) -> OsString {
    let mut mapping = host.as_os_str().to_os_string();
    mapping.push("::");
    mapping.push(guest);
    mapping
}

/// Two runs, which ended with the same status and the same files.
pub(super) struct Both {
    pub(super) wasmtime: Run,
    pub(super) mote: Run,
}

impl Both {
    /// What both printed; mote's if they differ.
    pub(super) fn text(&self) -> String {
        self.mote.text()
    }
}

/// A process that ended, and its directory.
pub(super) struct Run {
    pub(super) outcome: Outcome,
    directory: TempDir,
    line: String,
}

impl Run {
    pub(super) fn text(&self) -> String {
        text(&self.outcome.stdout)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn tree(&self) -> Tree {
        tree::read(self.directory.path())
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
