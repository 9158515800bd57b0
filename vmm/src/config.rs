//! What a VM is made for: arguments, streams, limits. One file, because it is one structure with its types and their checks.

use std::{
    collections::BTreeSet,
    fmt, io,
    net::TcpListener,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use mote_abi::{
    boot::Span,
    layout::{CONFIG, MAX_RAM_BYTES, MIN_RAM_BYTES},
};
use thiserror::Error;

use crate::{confinement::Confinement, directory::Directory, ramdisk::Ramdisk};

/// Everything about one run but kernel and module.
#[derive(Debug)]
pub struct Config {
    /// What is called.
    pub entry: Entry,
    /// The program's arguments, its own name first.
    pub arguments: Vec<String>,
    /// Environment.
    pub environment: Vec<(String, String)>,
    /// Where standard input comes from.
    pub stdin: Input,
    /// Where standard output goes.
    pub stdout: Output,
    /// Where standard error goes.
    pub stderr: Output,
    /// Directories of the host, in the order of their descriptors, which begin after those of the listeners. A program that
    /// makes a file larger than the process may (RLIMIT_FSIZE) gets an errno only if the process ignores SIGXFSZ.
    pub directories: Vec<Directory>,
    /// Sockets that listen already; the first becomes descriptor 3.
    pub listeners: Vec<TcpListener>,
    /// A file system at `/`, with a descriptor after all others. What the program writes to it is in memory, and gone at the
    /// end.
    pub ramdisk: Option<Arc<Ramdisk>>,
    /// Bounds.
    pub limits: Limits,
    /// Ends the run when it becomes readable, as a pipe to which a signal handler writes.
    pub interrupt_on: Option<OwnedFd>,
    /// What the kernel logs; its lines become `tracing` events.
    pub log_level: LogLevel,
    /// When functions are translated.
    pub translation: Translation,
    /// What clocks show.
    pub clock: ClockSource,
    /// Seed of the module's random generator; `None` takes one of the operating system.
    pub random_seed: Option<[u8; 32]>,
    /// Whether the threads of the VM give up what they do not need, which cannot be undone.
    pub confinement: Confinement,
}

/// What is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// `_start`, as a WASI command has it.
    Start,
    /// An export, with arguments as text; its results go to standard output, one a line.
    Invoke {
        /// Name of the export.
        function: String,
        /// One text for each parameter.
        arguments: Vec<String>,
    },
}

/// Bounds of a run. All are enforced, always.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Guest RAM: linear memories, the engine's code and data, everything. A multiple of 2 MiB is used.
    pub ram_bytes: u64,
    /// Linear memories together; `None` for no bound but RAM.
    pub wasm_memory_bytes: Option<u64>,
    /// Elements of all tables together.
    pub table_elements: u64,
    /// Modules that are instantiated in one VM.
    pub instances: u32,
    /// Fuel; `None` to run without counting.
    pub fuel: Option<u64>,
    /// Wall-clock time from the first instruction of the guest.
    pub deadline: Option<Duration>,
    /// Stack of WebAssembly values, in bytes. Compiled code has 896 KiB at most.
    pub wasm_stack_bytes: u64,
    /// WebAssembly functions that call each other. Not counted in compiled code, where the stack is the bound.
    pub wasm_frames: u64,
    /// Files, directories and connections of the host that are open at a time, beside those that the program is given.
    pub open_files: usize,
}

impl Default for Limits {
    /// 1 GiB of RAM, of which only what is touched is taken from the host; ten million elements of tables, 1,000 instances; no
    /// fuel, no deadline; a stack for 50,000 frames, 512 open files.
    fn default() -> Self {
        Self {
            ram_bytes: 1 << 30,
            wasm_memory_bytes: None,
            table_elements: 10_000_000,
            instances: 1_000,
            fuel: None,
            deadline: None,
            wasm_stack_bytes: 8 << 20,
            wasm_frames: 50_000,
            open_files: 512,
        }
    }
}

impl Default for Config {
    /// The start function, no arguments, no input, output thrown away.
    fn default() -> Self {
        Self {
            entry: Entry::Start,
            arguments: Vec::new(),
            environment: Vec::new(),
            stdin: Input::Empty,
            stdout: Output::Null,
            stderr: Output::Null,
            directories: Vec::new(),
            listeners: Vec::new(),
            ramdisk: None,
            limits: Limits::default(),
            interrupt_on: None,
            log_level: LogLevel::Off,
            translation: Translation::Lazy,
            clock: ClockSource::Host,
            random_seed: None,
            confinement: Confinement::Off,
        }
    }
}

/// How much the kernel logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names of the levels say it")]
pub enum LogLevel {
    #[default]
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// When the interpreter translates functions into its own form.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Translation {
    /// Each when it is first called: a module starts sooner.
    #[default]
    Lazy,
    /// All when the module is loaded: a snapshot has them, so that no copy has to. Takes time and RAM in proportion to the size
    /// of the module.
    Eager,
}

/// What the clocks of a program show.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClockSource {
    /// The time of the host, real and monotonic.
    #[default]
    Host,
    /// Always the same: real time begins at this many nanoseconds since 1970-01-01T00:00Z, monotonic time at 0. Both go on by
    /// a microsecond with each reading, and by the whole time that a program sleeps, without waiting.
    Fixed {
        /// Nanoseconds since 1970-01-01T00:00Z.
        realtime_ns: u64,
    },
}

/// Where standard input comes from.
#[derive(Debug)]
pub enum Input {
    /// Nothing: its end is reached at once.
    Empty,
    /// These bytes.
    Bytes(Vec<u8>),
    /// A file, pipe or terminal.
    Fd(OwnedFd),
    /// What a function gives.
    Callback(InputCallback),
}

impl Input {
    /// The standard input of this process, duplicated.
    pub fn inherit() -> io::Result<Self> {
        io::stdin().as_fd().try_clone_to_owned().map(Self::Fd)
    }

    /// What `read` puts into its argument; it returns how many bytes, 0 at the end. While it runs, neither a deadline nor an
    /// interrupt ends the call.
    pub fn callback(read: impl FnMut(&mut [u8]) -> io::Result<usize> + Send + 'static) -> Self {
        Self::Callback(InputCallback(Box::new(read)))
    }
}

/// See [`Input::callback`].
pub struct InputCallback(Box<Read>);

type Read = dyn FnMut(&mut [u8]) -> io::Result<usize> + Send;

impl InputCallback {
    /// Never more than `buffer` holds, whatever the function says.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (self.0)(buffer).map(|bytes| bytes.min(buffer.len()))
    }
}

impl fmt::Debug for InputCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InputCallback")
    }
}

/// Where output goes.
#[derive(Debug)]
pub enum Output {
    /// Away.
    Null,
    /// Into memory.
    Buffer(SharedBuffer),
    /// To a file, pipe or terminal.
    Fd(OwnedFd),
    /// To a function.
    Callback(OutputCallback),
}

impl Output {
    /// The standard output of this process, duplicated.
    pub fn inherit_stdout() -> io::Result<Self> {
        io::stdout().as_fd().try_clone_to_owned().map(Self::Fd)
    }

    /// The standard error of this process, duplicated.
    pub fn inherit_stderr() -> io::Result<Self> {
        io::stderr().as_fd().try_clone_to_owned().map(Self::Fd)
    }

    /// To `write`, in pieces as they come. An error of the kind [`io::ErrorKind::BrokenPipe`] becomes `pipe` for the program,
    /// any other ends the call.
    pub fn callback(write: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static) -> Self {
        Self::Callback(OutputCallback(Box::new(write)))
    }
}

/// See [`Output::callback`].
pub struct OutputCallback(Box<Write>);

type Write = dyn FnMut(&[u8]) -> io::Result<()> + Send;

impl OutputCallback {
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        (self.0)(bytes)
    }
}

impl fmt::Debug for OutputCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OutputCallback")
    }
}

/// Output in memory, up to a bound; beyond it the program sees a broken pipe.
#[derive(Debug, Clone)]
pub struct SharedBuffer {
    bytes: Arc<Mutex<Vec<u8>>>,
    max_bytes: usize,
}

impl SharedBuffer {
    /// A buffer for at most `max_bytes` bytes.
    pub fn new(max_bytes: usize) -> Self {
        Self { bytes: Arc::default(), max_bytes }
    }

    /// What came so far.
    pub fn contents(&self) -> Vec<u8> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes as much as fits; `false` if that was not all.
    pub(crate) fn append(&self, bytes: &[u8]) -> bool {
        let mut contents = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let room = self.max_bytes.saturating_sub(contents.len());
        contents.extend(bytes.iter().take(room));
        bytes.len() <= room
    }
}

/// A configuration that cannot be.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// Guest RAM out of bounds.
    #[error(
        "{bytes} bytes of guest RAM are out of range: it must be {MIN_RAM_BYTES} to {MAX_RAM_BYTES} bytes (16 MiB to 60 GiB)"
    )]
    Ram {
        /// What was asked for.
        bytes: u64,
    },
    /// A NUL byte where the guest's strings end.
    #[error("{what} {text:?} contains a NUL byte")]
    Nul {
        /// Argument, environment variable, function or directory name.
        what: &'static str,
        /// The text.
        text: String,
    },
    /// An environment name that cannot be told from its value.
    #[error("environment variable name {name:?} is empty or contains `=`")]
    EnvironmentName {
        /// The name.
        name: String,
    },
    /// Two directories, or a directory and the ramdisk, of one name.
    #[error("the program would see two directories as {name:?}; give one of them another name, as HOST::GUEST")]
    DirectoryName {
        /// The name.
        name: String,
    },
    /// Too many or too long strings.
    #[error("arguments, environment and names of directories and host functions take {bytes} bytes, at most {} can be passed", CONFIG.bytes())]
    TooLarge {
        /// What they take.
        bytes: usize,
    },
}

/// The strings of a configuration as they lie in [`CONFIG`].
#[derive(Debug, Default)]
pub(crate) struct Strings {
    pub(crate) bytes: Vec<u8>,
    pub(crate) arguments: Span,
    pub(crate) environment: Span,
    pub(crate) entry: Span,
    pub(crate) entry_arguments: Span,
    pub(crate) directories: Span,
    pub(crate) host_functions: Span,
}

impl Config {
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let bytes = self.limits.ram_bytes;
        if !(MIN_RAM_BYTES..=MAX_RAM_BYTES).contains(&bytes) {
            return Err(ConfigError::Ram { bytes });
        }
        let ramdisk = self.ramdisk.as_ref().map(|_| "/");
        let mut names = BTreeSet::new();
        match self.directories.iter().map(|directory| &*directory.guest).chain(ramdisk).find(|name| !names.insert(*name)) {
            Some(name) => Err(ConfigError::DirectoryName { name: name.into() }),
            None => Ok(()),
        }
    }

    /// `host_functions` are module, name and signature of each.
    pub(crate) fn strings(&self, host_functions: &[String]) -> Result<Strings, ConfigError> {
        let mut strings = Strings::default();
        strings.arguments = strings.push("argument", &self.arguments)?;
        for (name, _) in &self.environment {
            if name.is_empty() || name.contains('=') {
                return Err(ConfigError::EnvironmentName { name: name.clone() });
            }
        }
        let environment: Vec<String> = self.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        strings.environment = strings.push("environment variable", &environment)?;
        if let Entry::Invoke { function, arguments } = &self.entry {
            strings.entry = strings.push("function name", std::slice::from_ref(function))?;
            strings.entry_arguments = strings.push("argument", arguments)?;
        }
        let directories: Vec<String> = self.directories.iter().map(|directory| directory.guest.clone()).collect();
        strings.directories = strings.push("directory name", &directories)?;
        strings.host_functions = strings.push("name of a host function", host_functions)?;
        Ok(strings)
    }
}

impl Strings {
    fn push(&mut self, what: &'static str, texts: &[String]) -> Result<Span, ConfigError> {
        let offset = self.bytes.len();
        for text in texts {
            if text.contains('\0') {
                return Err(ConfigError::Nul { what, text: text.clone() });
            }
            self.bytes.extend_from_slice(text.as_bytes());
            self.bytes.push(0);
        }
        let too_large = ConfigError::TooLarge { bytes: self.bytes.len() };
        if self.bytes.len() as u64 > CONFIG.bytes() {
            return Err(too_large);
        }
        let number = |value: usize| u32::try_from(value).ok();
        match (number(offset), number(self.bytes.len() - offset), number(texts.len())) {
            (Some(offset), Some(bytes), Some(count)) => Ok(Span { offset, bytes, count, reserved: 0 }),
            _ => Err(too_large),
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("_start"),
            Self::Invoke { function, .. } => f.write_str(function),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn strings_come_out_as_they_went_in(arguments in prop::collection::vec("[^\0]{0,20}", 0..20), value in "[^\0]{0,9}") {
            let config = Config { arguments: arguments.clone(), environment: vec![("N".into(), value.clone())], ..Config::default() };
            let strings = config.strings(&[]).unwrap();
            let part = |span: Span| &strings.bytes[span.offset as usize..][..span.bytes as usize];
            let expected: Vec<u8> = arguments.iter().flat_map(|text| text.bytes().chain([0])).collect();
            prop_assert_eq!(part(strings.arguments), expected);
            prop_assert_eq!(part(strings.environment), format!("N={value}\0").into_bytes());
            prop_assert_eq!(strings.arguments.count as usize, arguments.len());
        }
    }

    #[test]
    fn what_cannot_be_passed_is_refused() {
        let config = |arguments: &[&str], name: &str| Config {
            arguments: arguments.iter().map(|text| text.to_string()).collect(),
            environment: vec![(name.into(), String::new())],
            ..Config::default()
        };
        assert!(matches!(config(&["a\0b"], "N").strings(&[]), Err(ConfigError::Nul { what: "argument", .. })));
        assert!(matches!(config(&[], "A=B").strings(&[]), Err(ConfigError::EnvironmentName { .. })));
        assert!(matches!(config(&[], "").strings(&[]), Err(ConfigError::EnvironmentName { .. })));
        let long = "x".repeat(1 << 20);
        assert!(matches!(config(&[&long], "N").strings(&[]), Err(ConfigError::TooLarge { .. })));
    }

    #[test]
    fn a_full_buffer_says_so() {
        let buffer = SharedBuffer::new(3);
        assert!(buffer.append(b"ab"));
        assert!(!buffer.append(b"cd"));
        assert_eq!(buffer.contents(), b"abc");
    }
}
