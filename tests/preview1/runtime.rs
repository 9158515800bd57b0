//! The three runtimes, and running a program in one of them.

use std::{
    env,
    ffi::OsString,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::fixture::Fixture;
use crate::support::{
    command::{Outcome, run_with_input},
    engine, kvm,
};

/// What runs a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runtime {
    /// Preview 1 over preview 2.
    Wasmtime,
    /// Preview 1 as it was first: `wasi-common`.
    Preview1,
    Mote,
}

impl Runtime {
    /// `RUNTIME run`, with its way to spell options. All streams are pipes.
    pub(crate) fn command(self) -> Command {
        let mut command = match self {
            Self::Wasmtime => Command::new(fetched("bin/wasmtime")),
            Self::Preview1 => Command::new(fetched("bin/wasmtime-preview1")),
            Self::Mote => engine::mote(),
        };
        command.arg("run").args(match self {
            Self::Wasmtime => &[],
            Self::Preview1 => &["-S", "preview2=n"][..],
            Self::Mote => engine::under_test().options(),
        });
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a program in a fixture, with nothing on standard input.
    pub(crate) fn run(self, fixture: &Fixture, program: &str, arguments: &[&str]) -> Outcome {
        self.run_with_input(fixture, program, arguments, b"")
    }

    pub(crate) fn run_with_input(self, fixture: &Fixture, program: &str, arguments: &[&str], input: &[u8]) -> Outcome {
        let mut command = self.command();
        for (directory, name) in [(fixture.sandbox(), "::/"), (fixture.outside(), "::data/outside")] {
            let mut option = OsString::from(directory);
            option.push(name);
            command.arg("--dir").arg(option);
        }
        run_with_input(command.arg(module(program)).args(arguments), input)
    }
}

/// The module built from a program of `tests/programs/wasi/`.
pub(crate) fn module(program: &str) -> PathBuf {
    fetched(&format!("wasi/{program}.wasm"))
}

fn fetched(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/programs").join(name)
}

/// Whether everything that runs this program is there. If not, says why on standard error: the test is skipped.
///
/// # Panics
///
/// If `MOTE_REQUIRE_PROGRAMS` is set and a program is missing, or `MOTE_REQUIRE_KVM` and KVM is.
pub(crate) fn available(program: &str) -> bool {
    let needed = [fetched("bin/wasmtime"), fetched("bin/wasmtime-preview1"), module(program)];
    if let Some(missing) = needed.iter().find(|path| !path.exists()) {
        let reason = format!("{program}: no {}; scripts/fetch-programs brings it", missing.display());
        assert!(env::var_os("MOTE_REQUIRE_PROGRAMS").is_none(), "{reason}");
        skip(&reason);
        return false;
    }
    kvm::usable()
}

/// Says that a test is skipped, and why.
pub(crate) fn skip(reason: &str) {
    // Not `eprintln`, which the test harness shows only for tests that fail.
    let _written = writeln!(std::io::stderr(), "skipped {reason}");
}
