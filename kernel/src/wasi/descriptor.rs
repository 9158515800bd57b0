//! What descriptors stand for.

use mote_abi::file::file_type;
use mote_kernel_logic::{fd::rights, ramdisk::NodeId};

use super::host_file::HostFile;
use crate::guest::BootInfo;

/// An open descriptor.
pub(super) struct Descriptor {
    pub(super) object: Object,
    /// Bits of [`mote_abi::file::fdflags`].
    pub(super) flags: u16,
    /// Bits of [`rights`]. They can be given up.
    pub(super) rights: u64,
    /// Rights that descriptors opened through this one could have.
    pub(super) rights_inheriting: u64,
}

pub(super) enum Object {
    Stdin,
    Stdout,
    Stderr,
    File(HostFile),
    RamFile(RamFile),
    Directory(Directory),
    Listener { handle: u32 },
    Connection { handle: u32 },
}

/// An open file of the ramdisk.
pub(super) struct RamFile {
    pub(super) node: NodeId,
    pub(super) position: u64,
    pub(super) readable: bool,
    pub(super) writable: bool,
}

/// An open directory.
pub(super) struct Directory {
    pub(super) place: Place,
    /// The name of one that the program was given.
    pub(super) preopened: Option<&'static [u8]>,
    /// If it is known.
    pub(super) inode: Option<u64>,
}

/// Which directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A handle of the host.
    Host(u32),
    Ram(NodeId),
}

impl Descriptor {
    pub(super) fn new(object: Object, flags: u16) -> Self {
        let (rights, rights_inheriting) = Self::rights_of(&object);
        Self { object, flags, rights, rights_inheriting }
    }

    /// What a new descriptor may do, and what descriptors opened through it may do.
    pub(super) fn rights_of(object: &Object) -> (u64, u64) {
        match object {
            Object::Stdin => (rights::STREAM | rights::FD_READ, 0),
            Object::Stdout | Object::Stderr => (rights::STREAM | rights::FD_WRITE, 0),
            Object::File(file) => twice(file_rights(file.readable, file.writable)),
            Object::RamFile(file) => twice(file_rights(file.readable, file.writable)),
            Object::Directory(Directory { preopened: Some(_), .. }) => (rights::PREOPENED, rights::PREOPENED_INHERITING),
            Object::Directory(_) => twice(rights::DIRECTORY),
            Object::Listener { .. } => (rights::LISTENER, rights::CONNECTION),
            Object::Connection { .. } => (rights::CONNECTION, 0),
        }
    }

    /// witx `filetype`.
    pub(super) fn file_type(&self, boot: BootInfo) -> u8 {
        let stream = |index| if boot.is_terminal(index) { file_type::CHARACTER_DEVICE } else { file_type::UNKNOWN };
        match &self.object {
            Object::Stdin => stream(0),
            Object::Stdout => stream(1),
            Object::Stderr => stream(2),
            Object::File(file) => file.file_type,
            Object::RamFile(_) => file_type::REGULAR_FILE,
            Object::Directory(_) => file_type::DIRECTORY,
            Object::Listener { .. } | Object::Connection { .. } => file_type::SOCKET_STREAM,
        }
    }
}

fn twice(rights: u64) -> (u64, u64) {
    (rights, rights)
}

fn file_rights(readable: bool, writable: bool) -> u64 {
    let without_read = if readable { 0 } else { rights::FD_READ | rights::FD_READDIR };
    let without_write = if writable { 0 } else { rights::FD_WRITE };
    rights::ALL & !without_read & !without_write
}
