//! What both sides say of files: types, stat results, open flags. Numbers and layouts are those of WASI preview 1 (witx),
//! so that what the host answers is what a module sees.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Longest path, in bytes (Linux's PATH_MAX without its NUL).
pub const MAX_PATH_BYTES: usize = 4095;
/// Longest name in a directory, in bytes (Linux's NAME_MAX).
pub const MAX_NAME_BYTES: usize = 255;

/// Values of [`FileStat::file_type`] (witx: `filetype`).
pub mod file_type {
    /// None of the others, or not known: pipes are here.
    pub const UNKNOWN: u8 = 0;
    /// Block device.
    pub const BLOCK_DEVICE: u8 = 1;
    /// Character device.
    pub const CHARACTER_DEVICE: u8 = 2;
    /// Directory.
    pub const DIRECTORY: u8 = 3;
    /// Regular file.
    pub const REGULAR_FILE: u8 = 4;
    /// Datagram socket.
    pub const SOCKET_DGRAM: u8 = 5;
    /// Stream socket.
    pub const SOCKET_STREAM: u8 = 6;
    /// Symbolic link.
    pub const SYMBOLIC_LINK: u8 = 7;
}

/// Flags of opening a path (witx: `oflags`).
pub mod oflags {
    /// Make the file if there is none.
    pub const CREAT: u16 = 1 << 0;
    /// Fail if it is no directory.
    pub const DIRECTORY: u16 = 1 << 1;
    /// Fail if it exists.
    pub const EXCL: u16 = 1 << 2;
    /// Cut it to no bytes.
    pub const TRUNC: u16 = 1 << 3;
}

/// Flags of a descriptor (witx: `fdflags`).
pub mod fdflags {
    /// Write at the end.
    pub const APPEND: u16 = 1 << 0;
    /// Writes wait for the data to be on the storage.
    pub const DSYNC: u16 = 1 << 1;
    /// Do not block.
    pub const NONBLOCK: u16 = 1 << 2;
    /// Reads wait as writes do.
    pub const RSYNC: u16 = 1 << 3;
    /// Writes wait for data and attributes to be on the storage.
    pub const SYNC: u16 = 1 << 4;
    /// All of them.
    pub const ALL: u16 = APPEND | DSYNC | NONBLOCK | RSYNC | SYNC;
}

/// What is known of a file (witx: `filestat`). Times are in nanoseconds since 1970-01-01T00:00Z.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FileStat {
    /// Device.
    pub device: u64,
    /// Number of the file on its device.
    pub inode: u64,
    /// One of [`file_type`].
    pub file_type: u8,
    /// Zeros.
    pub reserved: [u8; 7],
    /// Hard links.
    pub links: u64,
    /// Size in bytes; of a symbolic link, of its target's text.
    pub bytes: u64,
    /// Last access.
    pub accessed_ns: u64,
    /// Last change of the data.
    pub modified_ns: u64,
    /// Last change of data or attributes.
    pub changed_ns: u64,
}

const _: () = {
    assert!(size_of::<FileStat>() == 64 && core::mem::offset_of!(FileStat, links) == 24);
};
