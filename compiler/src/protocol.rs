//! What the compiler and the process that starts it say to each other. Both are built from this file.
//!
//! Standard input is the module, a file that does not change; standard output takes the artifact, an empty file. Standard
//! error is a pipe of lines: those that begin with [`PROGRESS`] tell how far it is, anything else is the message. The exit
//! status says what came of it.

/// The artifact is complete.
pub(crate) const COMPILED: i32 = 0;
/// The module is not valid WebAssembly, or uses a proposal that is off.
pub(crate) const INVALID: i32 = 3;
/// The module is valid, and this compiler cannot compile it.
pub(crate) const UNSUPPORTED: i32 = 4;
/// There was no memory left of what [`MEMORY`] allows.
pub(crate) const OUT_OF_MEMORY: i32 = 5;
/// The artifact is larger than [`ARTIFACT`] allows.
pub(crate) const ARTIFACT_TOO_LARGE: i32 = 6;
/// Something failed that is not the module's fault; nothing of the module was read if it could not be confined.
pub(crate) const FAILED: i32 = 7;

/// Before two numbers with a space between them: functions that are compiled, and all. The first can end above the second.
pub(crate) const PROGRESS: &str = "\u{1}progress ";

/// Flag: the code counts fuel.
pub(crate) const FUEL: &str = "--fuel";
/// Names of processor features that the code may use, as Cranelift calls them, with commas between them.
pub(crate) const FEATURES: &str = "--features=";
/// Bytes of address space.
pub(crate) const MEMORY: &str = "--memory=";
/// Seconds of processor time, of all threads together.
pub(crate) const CPU_SECONDS: &str = "--cpu-seconds=";
/// Bytes of the artifact.
pub(crate) const ARTIFACT: &str = "--artifact=";
/// Threads that compile.
pub(crate) const THREADS: &str = "--threads=";
/// Process ID of who started it, and with whom it ends.
pub(crate) const PARENT: &str = "--parent=";
