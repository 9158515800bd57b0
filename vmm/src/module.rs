//! The module: a file that guests map read-only. Its bytes are first parsed inside the VM; only text format is not.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use mote_abi::layout::MODULE;
use thiserror::Error;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::{
    memory::{Mapping, MemoryError},
    sandbox::SNAPSHOT_MAGIC,
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

/// A module, ready to be mapped into any number of VMs.
#[derive(Debug)]
pub struct Module {
    mapping: Mapping,
    bytes: u64,
}

impl Module {
    /// A module from a file in binary or text format. The file must not change while it is in use: it is mapped, not
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
        if start != CORE_MODULE {
            return Self::from_reader(path, io::Cursor::new(start).chain(file));
        }
        let bytes = check_size(path, metadata.len())?;
        Ok(Arc::new(Self { mapping: Mapping::file("the module", file.as_fd(), bytes)?, bytes }))
    }

    /// A module in binary or text format from a stream; `name` is for messages.
    pub fn from_reader(name: &Path, reader: impl Read) -> Result<Arc<Self>, ModuleError> {
        let mut bytes = Vec::new();
        let read = reader.take(MODULE.bytes() + 1).read_to_end(&mut bytes);
        read.map_err(|source| ModuleError::Read { path: name.into(), source })?;
        Self::from_bytes(name, bytes)
    }

    /// A module in binary or text format; `name` is for messages.
    pub fn from_bytes(name: &Path, bytes: Vec<u8>) -> Result<Arc<Self>, ModuleError> {
        let bytes = read_module(name, bytes)?;
        let length = bytes.len() as u64;
        let mapping = Mapping::anonymous("the module", length)?;
        let error = |message: String| ModuleError::Memory(MemoryError::Layout(message));
        // SAFETY: the mapping is anonymous and outlives the region, which ends with this function.
        let region = unsafe { mapping.region(MODULE.start)? };
        let memory = GuestMemoryMmap::from_regions(vec![region]).map_err(|source| error(source.to_string()))?;
        memory.write_slice(&bytes, GuestAddress(MODULE.start)).map_err(|source| error(source.to_string()))?;
        Ok(Arc::new(Self { mapping, bytes: length }))
    }

    /// Size of the binary format in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn mapping(&self) -> &Mapping {
        &self.mapping
    }
}

/// The binary format of the module at `path`, or on standard input for `-`.
pub(crate) fn read_binary(path: &Path) -> Result<Vec<u8>, ModuleError> {
    let read_error = |source| ModuleError::Read { path: path.into(), source };
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin().lock().take(MODULE.bytes()).read_to_end(&mut bytes)
    } else {
        File::open(path).map_err(read_error)?.take(MODULE.bytes()).read_to_end(&mut bytes)
    };
    read.map_err(read_error)?;
    to_binary(path, bytes)
}

/// The binary format of a module in either format; `name` is for messages.
pub(crate) fn read_module(name: &Path, bytes: Vec<u8>) -> Result<Vec<u8>, ModuleError> {
    let bytes = to_binary(name, bytes)?;
    check_size(name, bytes.len() as u64)?;
    Ok(bytes)
}

/// The binary format of a module in either format.
fn to_binary(name: &Path, bytes: Vec<u8>) -> Result<Vec<u8>, ModuleError> {
    if bytes.is_empty() {
        return Err(ModuleError::Empty { path: name.into() });
    }
    if bytes.starts_with(COMPONENT) {
        return Err(ModuleError::Component { path: name.into() });
    }
    if bytes.starts_with(&SNAPSHOT_MAGIC) {
        return Err(ModuleError::Snapshot { path: name.into() });
    }
    // Anything else that claims to be binary goes to the guest, whose parser says best what is wrong with it.
    if bytes.starts_with(b"\0asm") {
        return Ok(bytes);
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) if looks_like_text(text.trim_start_matches('\u{feff}')) => {
            let text = text.trim_start_matches('\u{feff}');
            let text_error = |error: wat::Error| ModuleError::Text { path: name.into(), message: in_one_line(&error) };
            wat::parse_str(text).map_err(text_error)
        }
        _ => {
            let start = bytes.get(..bytes.len().min(8)).unwrap_or(&bytes).escape_ascii().to_string();
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
