//! The engine that runs the modules of a test.
//!
//! A test target can be built twice: once under its own name, for the interpreter, and once under that name with
//! `_compiled` behind it, for modules that are compiled ahead of time (`vmm/tests-compiled` is another name of this directory,
//! as cargo warns of a file in two targets). Nothing but this file knows how an engine is asked for: processes are made with
//! [`mote`], [`line()`] or [`Engine::options`], sandboxes with [`sandbox_builder`], VMs with [`kernel`] and [`module`]. Where
//! something rightly comes out otherwise, a test asks [`under_test`].

#![allow(dead_code, reason = "no test needs all of it")]
#![allow(clippy::expect_used, clippy::unimplemented, reason = "a test fails by panicking")]

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use mote_vmm::{KernelImage, Module, Sandbox, SandboxBuilder};

/// What runs modules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    /// The interpreter.
    Interp,
    /// Compiled code.
    Aot,
}

/// The one of this build of the test.
pub(crate) const fn under_test() -> Engine {
    const NAME: &[u8] = env!("CARGO_CRATE_NAME").as_bytes();
    match NAME {
        [.., b'_', b'c', b'o', b'm', b'p', b'i', b'l', b'e', b'd'] => Engine::Aot,
        _ => Engine::Interp,
    }
}

/// What is expected of the engine under test, where engines differ.
pub(crate) fn by_engine<T>(interpreted: T, compiled: T) -> T {
    match under_test() {
        Engine::Interp => interpreted,
        Engine::Aot => compiled,
    }
}

impl Engine {
    /// What `mote run`, `mote snapshot` and `mote bench` take for it, in front of their other arguments.
    pub(crate) fn options(self) -> &'static [&'static str] {
        match self {
            Self::Interp => &["--engine", "interp"],
            Self::Aot => &["--engine", "aot"],
        }
    }
}

/// The program `mote`, with the cache of these tests.
pub(crate) fn mote() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mote"));
    command.env("XDG_CACHE_HOME", cache_home());
    command
}

/// Where processes have their caches (`XDG_CACHE_HOME`): never where the user has one.
pub(crate) fn cache_home() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache")
}

/// A command line of `mote`, its engine included where the subcommand takes one.
pub(crate) fn line(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Vec<OsString> {
    let mut line: Vec<OsString> = arguments.into_iter().map(|argument| argument.as_ref().to_owned()).collect();
    if takes_engine(&line) {
        line.splice(1..1, under_test().options().iter().map(OsString::from));
    }
    line
}

/// Whether it runs a module. Snapshots, whose files are named so in all tests, go on with the engine that they were taken
/// with.
fn takes_engine(line: &[OsString]) -> bool {
    let is = |at: usize, word: &str| line.get(at).is_some_and(|argument| argument == word);
    let of_snapshot = line.iter().any(|argument| argument.as_encoded_bytes().ends_with(b".snap"));
    match () {
        () if is(0, "run") || is(0, "bench") || is(0, "gdb") => !of_snapshot,
        () => is(0, "snapshot") && !is(1, "verify"),
    }
}

/// What `Sandbox::builder` gives, with the engine.
pub(crate) fn sandbox_builder() -> SandboxBuilder {
    Sandbox::builder().engine(library())
}

/// The kernel of the engine.
pub(crate) fn kernel() -> Arc<KernelImage> {
    match under_test() {
        Engine::Interp => KernelImage::embedded().expect("the kernel is right"),
        Engine::Aot => KernelImage::embedded_compiled().expect("the kernel is right").expect("it was built"),
    }
}

/// A module for VMs without fuel, in either format, ready for the engine.
pub(crate) fn module(bytes: impl Into<Vec<u8>>) -> Arc<Module> {
    library().load_bytes("the module".as_ref(), bytes.into(), false).expect("it can be loaded")
}

/// The same for a file.
pub(crate) fn module_file(path: &Path) -> Arc<Module> {
    library().load_file(path, false).expect("it can be loaded")
}

/// Lets processes run a module without more ado: what has to be compiled is in their cache afterwards.
pub(crate) fn prepare(path: &Path) {
    // In the format in which processes look for it.
    let _kept_in_the_cache = module(Module::read_binary(path).expect("it can be read"));
}

/// The engine as the library has it.
pub(crate) fn library() -> &'static mote_vmm::Engine {
    static ENGINE: std::sync::LazyLock<mote_vmm::Engine> = std::sync::LazyLock::new(|| match under_test() {
        Engine::Interp => mote_vmm::Engine::interpreter(),
        Engine::Aot => compiled(),
    });
    &ENGINE
}

/// Compiled code, with the cache that processes have as well.
#[cfg(feature = "compiled")]
fn compiled() -> mote_vmm::Engine {
    use mote_vmm::{ArtifactCache, CompiledOptions};

    let cache = ArtifactCache::open(&cache_home().join("mote"), ArtifactCache::DEFAULT_MAX_BYTES).expect("no cache");
    mote_vmm::Engine::compiled(CompiledOptions { cache: Some(cache), ..CompiledOptions::default() })
}

/// Targets for compiled code need the feature.
#[cfg(not(feature = "compiled"))]
fn compiled() -> mote_vmm::Engine {
    unimplemented!("this build has no compiled code")
}
