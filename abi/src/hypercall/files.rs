//! Arguments and results of the requests about files, directories and sockets.
//!
//! A handle is the host's number of something that is open; at the start there is one for each listening socket and then
//! one for each pre-opened directory, from 0. All of these requests are answered with a status of 0 or of an
//! [`crate::errno::Errno`]. What they carry besides arguments lies in a [`buffer`].

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    file::FileStat,
    layout::{MAILBOX_DATA, READ_AHEAD, Region},
};

/// The mailbox's data area as number of a buffer.
pub const MAILBOX_BUFFER: u32 = 0;
/// Buffers behind the mailbox's data area.
pub const WINDOWS: u32 = 8;
/// Bytes of each of them.
pub const WINDOW_BYTES: u64 = READ_AHEAD.bytes() / WINDOWS as u64;

/// Where buffer `number` lies: [`MAILBOX_BUFFER`], or a window from 1 to [`WINDOWS`]. `None` if there is none.
pub const fn buffer(number: u32) -> Option<Region> {
    match number {
        MAILBOX_BUFFER => Some(MAILBOX_DATA),
        1..=WINDOWS => {
            let start = READ_AHEAD.start + (number as u64 - 1) * WINDOW_BYTES;
            Some(Region { start, end: start + WINDOW_BYTES })
        }
        _ => None,
    }
}

/// Bits of [`OpenArgs::access`].
pub mod access {
    /// The file will be read.
    pub const READ: u32 = 1 << 0;
    /// The file will be written.
    pub const WRITE: u32 = 1 << 1;
    /// A symbolic link at the end of the path is followed.
    pub const FOLLOW: u32 = 1 << 2;
}

/// Arguments of [`super::FILE_OPEN`]; the path is in the mailbox.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct OpenArgs {
    /// Handle of the directory at which the path starts.
    pub directory: u32,
    /// Bytes of the path.
    pub path_bytes: u32,
    /// Bits of [`access`].
    pub access: u32,
    /// Bits of [`crate::file::oflags`].
    pub oflags: u16,
    /// Bits of [`crate::file::fdflags`]; only those of synchronized writing matter to the host.
    pub fdflags: u16,
    /// A regular file that is only read has its beginning read into this buffer.
    pub buffer: u32,
    /// How many bytes of it, 0 for none.
    pub ahead_bytes: u32,
}

/// Result of [`super::FILE_OPEN`].
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct OpenResult {
    /// The new handle.
    pub handle: u32,
    /// Bytes that were read.
    pub ahead_bytes: u32,
    /// 1 if the file was read.
    pub was_read: u32,
    /// 1 if the file ends behind those bytes.
    pub at_end: u32,
    /// What was opened.
    pub stat: FileStat,
}

/// Arguments of requests about a handle and nothing else: [`super::FILE_CLOSE`], [`super::FILE_STAT`].
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HandleArgs {
    /// The handle.
    pub handle: u32,
    /// Zero.
    pub reserved: u32,
}

/// Bits of [`TransferArgs::flags`].
pub mod transfer {
    /// Answer `again` instead of waiting.
    pub const NONBLOCK: u32 = 1 << 0;
    /// Write at the end of the file, wherever that is then; the offset is not used.
    pub const APPEND: u32 = 1 << 1;
    /// Leave what a socket received where it is.
    pub const PEEK: u32 = 1 << 2;
    /// Wait until the whole buffer is received from a socket.
    pub const WAITALL: u32 = 1 << 3;
}

/// Arguments of [`super::FILE_READ`], [`super::FILE_WRITE`], [`super::DIRECTORY_LIST`], [`super::SOCKET_RECEIVE`] and
/// [`super::SOCKET_SEND`].
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TransferArgs {
    /// The file, directory or socket.
    pub handle: u32,
    /// Number of the buffer that is filled or emptied.
    pub buffer: u32,
    /// How many bytes of it, from its start.
    pub bytes: u32,
    /// Bits of [`transfer`].
    pub flags: u32,
    /// Position in the file; the cookie of a directory; not used where there are no positions.
    pub offset: u64,
}

/// Result of the same.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TransferResult {
    /// Bytes read or written.
    pub bytes: u32,
    /// 1 if the file, or the directory, ends here.
    pub at_end: u32,
    /// Size of the file after an append.
    pub file_bytes: u64,
}

/// Values of [`ChangeArgs::change`].
pub mod change {
    /// Set the size to `first`.
    pub const SET_BYTES: u32 = 1;
    /// Make sure that the `second` bytes from `first` can be written.
    pub const ALLOCATE: u32 = 2;
    /// The `second` bytes from `first` will be used as `flags` says (witx: `advice`).
    pub const ADVISE: u32 = 3;
    /// Wait until data and attributes are on the storage.
    pub const SYNC: u32 = 4;
    /// Wait until the data is on the storage.
    pub const DATASYNC: u32 = 5;
    /// Set the time of access to `first`, that of modification to `second`, as `flags` says (witx: `fstflags`).
    pub const SET_TIMES: u32 = 6;
}

/// Arguments of [`super::FILE_CHANGE`].
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ChangeArgs {
    /// The file.
    pub handle: u32,
    /// One of [`change`].
    pub change: u32,
    /// See [`change`].
    pub first: u64,
    /// See [`change`].
    pub second: u64,
    /// See [`change`].
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}

/// Flags of setting times (witx: `fstflags`).
pub mod fstflags {
    /// Set the time of access.
    pub const ATIM: u32 = 1 << 0;
    /// Set it to now.
    pub const ATIM_NOW: u32 = 1 << 1;
    /// Set the time of modification.
    pub const MTIM: u32 = 1 << 2;
    /// Set it to now.
    pub const MTIM_NOW: u32 = 1 << 3;
}

/// Values of [`PathArgs::operation`].
pub mod path {
    /// What is there; answered with a [`crate::file::FileStat`].
    pub const STAT: u32 = 1;
    /// Set times, as [`super::change::SET_TIMES`].
    pub const SET_TIMES: u32 = 2;
    /// Make a directory.
    pub const CREATE_DIRECTORY: u32 = 3;
    /// Remove an empty directory.
    pub const REMOVE_DIRECTORY: u32 = 4;
    /// Remove anything else.
    pub const UNLINK_FILE: u32 = 5;
    /// Rename to the second path.
    pub const RENAME: u32 = 6;
    /// Make the second path a hard link to the first.
    pub const LINK: u32 = 7;
    /// Make the first path a symbolic link that holds the second text.
    pub const SYMLINK: u32 = 8;
    /// The text of a symbolic link, into the mailbox.
    pub const READLINK: u32 = 9;
}

/// Arguments of [`super::PATH`]; the paths are in the mailbox, one behind the other.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PathArgs {
    /// One of [`path`].
    pub operation: u32,
    /// Handle of the directory at which the path starts.
    pub directory: u32,
    /// Bytes of the path.
    pub path_bytes: u32,
    /// Handle of the directory at which the second path starts.
    pub second_directory: u32,
    /// Bytes of the second path or text.
    pub second_bytes: u32,
    /// 1 to follow a symbolic link at the end of the path.
    pub follow: u32,
    /// For [`path::SET_TIMES`].
    pub accessed_ns: u64,
    /// For [`path::SET_TIMES`].
    pub modified_ns: u64,
    /// For [`path::SET_TIMES`]: bits of [`fstflags`].
    pub which: u32,
    /// Zero.
    pub reserved: u32,
}

/// Arguments of [`super::SOCKET_ACCEPT`], with [`transfer::NONBLOCK`] or nothing as `flags`, and of
/// [`super::SOCKET_SHUTDOWN`], where `flags` says what ends (witx: `sdflags`).
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SocketArgs {
    /// The socket.
    pub handle: u32,
    /// See above.
    pub flags: u32,
}

/// Bits of the flags of [`super::SOCKET_SHUTDOWN`] (witx: `sdflags`).
pub mod sdflags {
    /// Nothing more is received.
    pub const RECEIVE: u32 = 1 << 0;
    /// Nothing more is sent.
    pub const SEND: u32 = 1 << 1;
}

/// What a [`super::WAIT`] waits for; an array of these is the data of the request, and comes back with `ready` filled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Interest {
    /// A handle, or [`STDIN`].
    pub handle: u32,
    /// One of [`interest`].
    pub events: u32,
    /// Bits of [`ready`].
    pub ready: u32,
    /// Zero.
    pub reserved: u32,
    /// Bytes that can be read at once, as far as the host knows.
    pub readable_bytes: u64,
}

/// Standard input as [`Interest::handle`].
pub const STDIN: u32 = u32::MAX;

/// Values of [`Interest::events`].
pub mod interest {
    /// A read would not block.
    pub const READ: u32 = 1;
    /// A write would not block.
    pub const WRITE: u32 = 2;
}

/// Bits of [`Interest::ready`].
pub mod ready {
    /// It is.
    pub const READY: u32 = 1 << 0;
    /// The other end is closed, or the stream is broken.
    pub const HANGUP: u32 = 1 << 1;
    /// There is no such handle.
    pub const BAD_HANDLE: u32 = 1 << 2;
}

/// Most interests in one wait.
pub const MAX_INTERESTS: usize = 4096;

/// In front of the bytes of a [`crate::ring::Stream::Write`] record.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PostedWrite {
    /// The file.
    pub handle: u32,
    /// [`transfer::APPEND`] or nothing.
    pub flags: u32,
    /// Position in the file.
    pub offset: u64,
}

const _: () = {
    assert!(size_of::<OpenArgs>() == 24 && size_of::<OpenResult>() == 80 && size_of::<TransferArgs>() == 24);
    assert!(size_of::<TransferResult>() == 16 && size_of::<ChangeArgs>() == 32 && size_of::<PathArgs>() == 48);
    assert!(size_of::<Interest>() == 24 && size_of::<PostedWrite>() == 16 && size_of::<SocketArgs>() == 8);
    assert!(size_of::<OpenResult>() <= crate::mailbox::ARGUMENT_BYTES);
    assert!(2 * (crate::file::MAX_PATH_BYTES as u64) < MAILBOX_DATA.bytes());
    assert!((MAX_INTERESTS * size_of::<Interest>()) as u64 <= MAILBOX_DATA.bytes());
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_disjoint_and_inside() {
        assert_eq!(buffer(MAILBOX_BUFFER), Some(MAILBOX_DATA));
        for number in 1..=WINDOWS {
            let window = buffer(number).unwrap();
            assert!(READ_AHEAD.contains_range(window.start, WINDOW_BYTES) && window.bytes() == WINDOW_BYTES);
            assert!(number == 1 || buffer(number - 1).unwrap().end == window.start);
        }
        assert_eq!(buffer(WINDOWS + 1), None);
        assert_eq!(buffer(u32::MAX), None);
    }
}
