//! The module: a file that guests map read-only. Its bytes are first parsed inside the VM; only text format, and what is compiled,
//! is not.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use mote_abi::layout::{CHUNK_BYTES, MODULE};
use thiserror::Error;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

#[cfg(feature = "compiled")]
use crate::compile::{Artifact, ArtifactError};
#[cfg(feature = "gdb")]
use crate::memory::Source;
use crate::{
    memory::{Mapping, MemoryError},
    sandbox::SNAPSHOT_MAGIC,
    tables::ModuleSizes,
};

/// First bytes of a core module: magic number and version (WebAssembly specification, 5.5.16).
const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";
/// First bytes of a component.
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

/// A module that cannot even be tried.
#[derive(Debug, Error)]
pub enum ModuleError {
    /// The file could not be read.
    #[error("cannot read {}: {source}", shown(path))]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Neither of the two formats.
    #[error("{} is not a WebAssembly module: it begins with {start}, not with \"\\0asm\", and is no text format", shown(path))]
    NotWasm {
        /// Which file.
        path: PathBuf,
        /// Its first bytes, for people.
        start: String,
    },
    /// A component, which is another format.
    #[error("{} is a WebAssembly component; only core modules can be run", shown(path))]
    Component {
        /// Which file.
        path: PathBuf,
    },
    /// A snapshot, which is no module.
    #[error("{} is a snapshot and no module; `mote run` and `mote bench` take one, but only as a regular file", shown(path))]
    Snapshot {
        /// Which file.
        path: PathBuf,
    },
    /// Nothing in it.
    #[error("{} is empty", shown(path))]
    Empty {
        /// Which file.
        path: PathBuf,
    },
    /// More than the guest has addresses for.
    #[error("{} is too large: {bytes} bytes, at most {} can be run", shown(path), MODULE.bytes())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Compiled code that cannot be used.
    #[cfg(feature = "compiled")]
    #[error("{} cannot be run: {source}", shown(path))]
    Artifact {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: ArtifactError,
    },
    /// Text format that does not parse.
    #[error("{} is not valid WebAssembly text: {message}", shown(path))]
    Text {
        /// Which file.
        path: PathBuf,
        /// What and where.
        message: String,
    },
    /// No host memory for it.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

impl ModuleError {
    /// Whether it says what is wrong with the module, and not that it could not be had.
    pub(crate) fn is_about_contents(&self) -> bool {
        match self {
            Self::NotWasm { .. } | Self::Component { .. } | Self::Snapshot { .. } | Self::Empty { .. } | Self::Text { .. } => {
                true
            }
            #[cfg(feature = "compiled")]
            Self::Artifact { .. } => true,
            Self::Read { .. } | Self::TooLarge { .. } | Self::Memory(_) => false,
        }
    }
}

/// A module, ready to be mapped into any number of VMs.
#[derive(Debug)]
pub struct Module {
    mapping: Mapping,
    sizes: ModuleSizes,
    code: Code,
}

/// Code that is made present ahead of its use: a page costs some 0.1 µs.
const MOST_WARM_BYTES: u64 = 64 << 20;

/// What kind of code a module is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    /// WebAssembly.
    Interpreted,
    /// That of the processor.
    WithoutFuel,
    /// The same, counting fuel.
    WithFuel,
}

/// A module in the memory of a VM.
#[derive(Debug, Clone)]
pub(crate) struct PlacedModule {
    /// Guest address.
    pub(crate) address: u64,
    pub(crate) module: Arc<Module>,
}

impl PlacedModule {
    /// The first module of a VM.
    pub(crate) fn first(module: &Arc<Module>) -> Self {
        Self { address: MODULE.start, module: Arc::clone(module) }
    }

    /// Whether it is the same one, at the same address.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.address == other.address && Arc::ptr_eq(&self.module, &other.module)
    }

    /// Where the next one can be; `None` if there is no room for `bytes` bytes.
    pub(crate) fn next_address(&self, bytes: u64) -> Option<u64> {
        let address = (self.address + self.module.bytes()).next_multiple_of(CHUNK_BYTES);
        MODULE.contains_range(address, bytes).then_some(address)
    }
}

impl Module {
    /// A module from a file in binary or text format, or compiled. The file must not change while it is in use: it is mapped, not
    /// copied.
    pub fn from_file(path: &Path) -> Result<Arc<Self>, ModuleError> {
        let read_error = |source| ModuleError::Read { path: path.into(), source };
        let mut file = File::open(path).map_err(read_error)?;
        let metadata = file.metadata().map_err(read_error)?;
        if !metadata.is_file() {
            if metadata.is_dir() {
                return Err(read_error(io::ErrorKind::IsADirectory.into()));
            }
            return Self::from_reader(path, file);
        }
        let mut start = Vec::new();
        file.by_ref().take(CORE_MODULE.len() as u64).read_to_end(&mut start).map_err(read_error)?;
        #[cfg(feature = "compiled")]
        if Artifact::is_artifact(&start) {
            let artifact = Artifact::from_file(file).map_err(|source| ModuleError::Artifact { path: path.into(), source });
            return Self::from_artifact(&artifact?);
        }
        if start != CORE_MODULE {
            return Self::from_reader(path, io::Cursor::new(start).chain(file));
        }
        let bytes = check_size(path, metadata.len())?;
        Ok(Arc::new(Self {
            mapping: Mapping::file("the module", file.as_fd(), bytes)?,
            sizes: ModuleSizes::interpreted(bytes),
            code: Code::Interpreted,
        }))
    }

    /// A module in binary or text format from a stream; `name` is for messages.
    pub fn from_reader(name: &Path, reader: impl Read) -> Result<Arc<Self>, ModuleError> {
        let mut bytes = Vec::new();
        let read = reader.take(MODULE.bytes() + 1).read_to_end(&mut bytes);
        read.map_err(|source| ModuleError::Read { path: name.into(), source })?;
        Self::from_bytes(name, bytes)
    }

    /// A module in binary or text format, or compiled; `name` is for messages.
    pub fn from_bytes(name: &Path, bytes: Vec<u8>) -> Result<Arc<Self>, ModuleError> {
        #[cfg(feature = "compiled")]
        if Artifact::is_artifact(&bytes) {
            let artifact = Artifact::from_bytes(&bytes).map_err(|source| ModuleError::Artifact { path: name.into(), source });
            return Self::from_artifact(&artifact?);
        }
        let bytes = read_module(name, bytes)?;
        let length = bytes.len() as u64;
        let mapping = Mapping::anonymous("the module", length)?;
        let error = |message: String| ModuleError::Memory(MemoryError::Layout(message));
        // SAFETY: the mapping is anonymous and outlives the region, which ends with this function.
        let region = unsafe { mapping.region(MODULE.start)? };
        let memory = GuestMemoryMmap::from_regions(vec![region]).map_err(|source| error(source.to_string()))?;
        memory.write_slice(&bytes, GuestAddress(MODULE.start)).map_err(|source| error(source.to_string()))?;
        Ok(Arc::new(Self { mapping, sizes: ModuleSizes::interpreted(length), code: Code::Interpreted }))
    }

    /// What was compiled.
    #[cfg(feature = "compiled")]
    pub fn from_artifact(artifact: &Artifact) -> Result<Arc<Self>, ModuleError> {
        let text = artifact.text();
        let sizes = ModuleSizes { bytes: artifact.bytes(), text_start: text.start, text_end: text.end };
        check_size("the compiled module".as_ref(), sizes.bytes)?;
        let mapping = Mapping::file("the compiled module", artifact.as_fd(), sizes.bytes)?;
        Ok(Arc::new(Self { mapping, sizes, code: if artifact.counts_fuel() { Code::WithFuel } else { Code::WithoutFuel } }))
    }

    /// Whether the regular file at `path` begins as one that was compiled.
    #[cfg(feature = "compiled")]
    pub fn is_artifact(path: &Path) -> bool {
        let is_regular = path.metadata().is_ok_and(|metadata| metadata.is_file());
        let mut start = [0; CORE_MODULE.len()];
        is_regular && File::open(path).is_ok_and(|mut file| file.read_exact(&mut start).is_ok()) && Artifact::is_artifact(&start)
    }

    /// A compiled module of a snapshot, in a part of its file, from a multiple of the page size on.
    pub(crate) fn from_part(file: &File, from: u64, sizes: ModuleSizes, fuel: bool) -> Result<Arc<Self>, MemoryError> {
        let mapping = Mapping::part_of_file("the compiled module", file.as_fd(), from, sizes.bytes)?;
        Ok(Arc::new(Self { mapping, sizes, code: if fuel { Code::WithFuel } else { Code::WithoutFuel } }))
    }

    /// Whether it was compiled, and is no WebAssembly any more.
    pub fn is_compiled(&self) -> bool {
        self.code != Code::Interpreted
    }

    /// Whether it was compiled so that it counts fuel.
    pub(crate) fn counts_fuel(&self) -> bool {
        self.code == Code::WithFuel
    }

    /// A copy of its bytes.
    #[cfg(feature = "compiled")]
    pub(crate) fn contents(&self) -> Result<Vec<u8>, ModuleError> {
        let mut bytes = Vec::new();
        let written = self.mapping.write_to(&mut bytes);
        written.map(|()| bytes).map_err(|source| ModuleError::Read { path: "the module".into(), source })
    }

    /// The same in memory of its own, which the host can write: what a debugger changes is seen by one VM alone. `None` for a module
    /// without code of the processor.
    #[cfg(feature = "gdb")]
    pub(crate) fn unshared(&self) -> Result<Option<Self>, MemoryError> {
        if !self.is_compiled() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let gone = |source| MemoryError::Map { what: "the compiled module", bytes: self.bytes(), source };
        self.mapping.write_to(&mut bytes).map_err(gone)?;
        let mapping = Mapping::anonymous("the compiled module", self.bytes())?;
        let _inside = mapping.make_equal(0, self.bytes(), Source::Bytes(&bytes));
        Ok(Some(Self { mapping, sizes: self.sizes, code: self.code }))
    }

    /// Makes the code present that guests will run, as far as the host has it in memory: many pages at once cost a fraction of
    /// what a guest pays for each.
    pub(crate) fn warm(&self) {
        let ModuleSizes { text_start, text_end, .. } = self.sizes;
        self.mapping.populate_to_read(text_start, (text_end - text_start).min(MOST_WARM_BYTES));
    }

    pub(crate) fn sizes(&self) -> ModuleSizes {
        self.sizes
    }

    /// The bytes of a file, or of standard input for `-`, that could be a module in either format; nothing is parsed.
    pub fn read(path: &Path) -> Result<Vec<u8>, ModuleError> {
        let bytes = read_all(path)?;
        check_bytes(name_of(path), &bytes)?;
        Ok(bytes)
    }

    /// The same in binary format: text is converted.
    pub fn read_binary(path: &Path) -> Result<Vec<u8>, ModuleError> {
        read_binary(path)
    }

    /// Size of the binary format, or of the artifact, in bytes.
    pub fn bytes(&self) -> u64 {
        self.sizes.bytes
    }

    pub(crate) fn mapping(&self) -> &Mapping {
        &self.mapping
    }
}

/// Whether bytes could be a module in either format; nothing is parsed. `name` is for messages.
pub(crate) fn check_bytes(name: &Path, bytes: &[u8]) -> Result<(), ModuleError> {
    format(name, bytes)?;
    check_size(name, bytes.len() as u64)?;
    Ok(())
}

/// The binary format of the module at `path`, or on standard input for `-`.
pub(crate) fn read_binary(path: &Path) -> Result<Vec<u8>, ModuleError> {
    to_binary(name_of(path), read_all(path)?)
}

/// What messages call the module at `path`.
fn name_of(path: &Path) -> &Path {
    if path == Path::new("-") { "standard input".as_ref() } else { path }
}

/// At most one byte more than a module can have.
fn read_all(path: &Path) -> Result<Vec<u8>, ModuleError> {
    let read_error = |source| ModuleError::Read { path: name_of(path).into(), source };
    let mut bytes = Vec::new();
    let most = MODULE.bytes() + 1;
    let read = if path == Path::new("-") {
        io::stdin().lock().take(most).read_to_end(&mut bytes)
    } else {
        let file = File::open(path).map_err(read_error)?;
        if file.metadata().map_err(read_error)?.is_dir() {
            return Err(read_error(io::ErrorKind::IsADirectory.into()));
        }
        file.take(most).read_to_end(&mut bytes)
    };
    read.map_err(read_error)?;
    Ok(bytes)
}

/// The binary format of a module in either format; `name` is for messages.
pub(crate) fn read_module(name: &Path, bytes: Vec<u8>) -> Result<Vec<u8>, ModuleError> {
    let bytes = to_binary(name, bytes)?;
    check_size(name, bytes.len() as u64)?;
    Ok(bytes)
}

/// The binary format of a module in either format.
fn to_binary(name: &Path, bytes: Vec<u8>) -> Result<Vec<u8>, ModuleError> {
    match format(name, &bytes)? {
        Format::Binary => Ok(bytes),
        Format::Text(text) => {
            let text_error = |error: wat::Error| ModuleError::Text { path: name.into(), message: in_one_line(&error) };
            wat::parse_str(text).map_err(text_error)
        }
    }
}

/// What the beginning of a module says it is.
enum Format<'a> {
    Binary,
    /// Without a byte order mark.
    Text(&'a str),
}

fn format<'a>(name: &Path, bytes: &'a [u8]) -> Result<Format<'a>, ModuleError> {
    if bytes.is_empty() {
        return Err(ModuleError::Empty { path: name.into() });
    }
    if bytes.starts_with(COMPONENT) {
        return Err(ModuleError::Component { path: name.into() });
    }
    if bytes.starts_with(&SNAPSHOT_MAGIC) {
        return Err(ModuleError::Snapshot { path: name.into() });
    }
    #[cfg(feature = "compiled")]
    if Artifact::is_artifact(bytes) {
        return Ok(Format::Binary);
    }
    // Anything else that claims to be binary goes to the guest, whose parser says best what is wrong with it.
    if bytes.starts_with(b"\0asm") {
        return Ok(Format::Binary);
    }
    match std::str::from_utf8(bytes).map(|text| text.trim_start_matches('\u{feff}')) {
        Ok(text) if looks_like_text(text) => Ok(Format::Text(text)),
        _ => {
            let start = bytes.get(..bytes.len().min(8)).unwrap_or(bytes).escape_ascii().to_string();
            Err(ModuleError::NotWasm { path: name.into(), start: format!("\"{start}\"") })
        }
    }
}

/// What is wrong, at which line and column: the first two lines of a message that goes on by drawing the place.
fn in_one_line(error: &wat::Error) -> String {
    let message = error.to_string();
    let mut lines = message.lines();
    let what = lines.next().unwrap_or_default();
    match lines.next().and_then(|line| line.trim_start().strip_prefix("--> <anon>:")) {
        Some(place) => format!("{what} (at {place})"),
        None => what.into(),
    }
}

/// A path for messages: without control characters, so that a message is one line and leaves terminals alone.
pub(crate) fn shown(path: &Path) -> String {
    path.display().to_string().replace(char::is_control, "\u{fffd}")
}

/// Text format begins with a parenthesis or a comment.
fn looks_like_text(text: &str) -> bool {
    let text = text.trim_start();
    text.starts_with('(') || text.starts_with(";;")
}

fn check_size(path: &Path, bytes: u64) -> Result<u64, ModuleError> {
    match bytes {
        0 => Err(ModuleError::Empty { path: path.into() }),
        _ if bytes > MODULE.bytes() => Err(ModuleError::TooLarge { path: path.into(), bytes }),
        _ => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(bytes: &[u8]) -> String {
        Module::from_bytes("a".as_ref(), bytes.to_vec()).unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_module_is_told_so() {
        assert_eq!(error(b""), "a is empty");
        assert!(error(b"\x7fELF\x02").contains("begins with \"\\x7fELF\\x02\""));
        assert!(error(b"hello there").contains("is not a WebAssembly module"));
        assert!(error(b"\0asm\x0d\0\x01\0").contains("component"));
        assert!(error(b"(module (func $x (call $y)))").contains("not valid WebAssembly text"));
        assert!(error(b"(module (func $x (call $y)))").contains("$y"));
        assert_eq!(error(b"(module\n  (fun))"), "a is not valid WebAssembly text: expected valid module field (at 2:4)");
        let odd_name = Module::from_bytes("a\nb\x1b".as_ref(), Vec::new()).unwrap_err().to_string();
        assert_eq!(odd_name, "a\u{fffd}b\u{fffd} is empty");
    }

    #[test]
    fn both_formats_and_any_reader_are_taken() {
        let text = Module::from_bytes("a".as_ref(), b" (module)".to_vec()).unwrap();
        let binary = Module::from_reader("b".as_ref(), CORE_MODULE).unwrap();
        assert_eq!((text.bytes(), binary.bytes()), (8, 8));
    }

    #[test]
    fn a_directory_and_a_missing_file_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let is_directory = Module::from_file(directory.path()).unwrap_err();
        assert!(is_directory.to_string().contains("is a directory"), "{is_directory}");
        let missing = Module::from_file(&directory.path().join("no.wasm")).unwrap_err();
        assert!(missing.to_string().contains("No such file"), "{missing}");
    }
}
