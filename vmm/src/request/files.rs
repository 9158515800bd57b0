//! Requests about files, directories and sockets.

use mote_abi::{
    file::{MAX_PATH_BYTES, fdflags},
    hypercall::{
        self,
        files::{
            ChangeArgs, HandleArgs, OpenArgs, PathArgs, SocketArgs, TransferArgs, access, buffer, change, path, sdflags, transfer,
        },
    },
    mailbox::{DATA_BYTES, Request as RawRequest},
};
use vm_memory::GuestAddress;
use zerocopy::FromBytes;

use crate::ending::GuestFault;

/// A checked request about files, directories or sockets. Handles are the guest's allegations still.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FileRequest {
    Open(Open),
    Close { handle: u32 },
    Stat { handle: u32 },
    Read(Transfer),
    Write(Transfer),
    Change { handle: u32, change: Change },
    List(Transfer),
    Path { directory: u32, path: String, operation: PathOperation },
    Accept { handle: u32, nonblocking: bool },
    Receive(Transfer),
    Send(Transfer),
    Shutdown { handle: u32, receive: bool, send: bool },
}

/// Opening a path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) directory: u32,
    pub(crate) path: String,
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) follow: bool,
    /// Bits of [`mote_abi::file::oflags`].
    pub(crate) oflags: u16,
    /// Bits of [`fdflags`].
    pub(crate) fdflags: u16,
    /// Where the beginning of the file is wanted.
    pub(crate) ahead: Area,
}

/// Guest memory inside a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Area {
    pub(crate) start: GuestAddress,
    pub(crate) bytes: usize,
}

impl Area {
    /// What is left behind the first `done` bytes.
    pub(crate) fn rest(self, done: usize) -> Self {
        Self { start: GuestAddress(self.start.0 + done as u64), bytes: self.bytes - done }
    }
}

/// Moving bytes between a handle and guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Transfer {
    pub(crate) handle: u32,
    pub(crate) area: Area,
    pub(crate) offset: u64,
    pub(crate) nonblocking: bool,
    pub(crate) append: bool,
    pub(crate) peek: bool,
    pub(crate) wait_all: bool,
}

impl Transfer {
    /// A write that came through the ring.
    pub(crate) fn posted(handle: u32, area: Area, offset: u64, append: bool) -> Self {
        Self { handle, area, offset, nonblocking: false, append, peek: false, wait_all: false }
    }
}

/// A change of an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    SetBytes(u64),
    Allocate { offset: u64, bytes: u64 },
    Advise { offset: u64, bytes: u64, advice: u32 },
    Sync,
    DataSync,
    SetTimes(Times),
}

/// Times to be set (witx: `fstflags`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) accessed_ns: u64,
    pub(crate) modified_ns: u64,
    /// Bits of [`mote_abi::hypercall::files::fstflags`].
    pub(crate) which: u32,
}

/// What is done to a path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PathOperation {
    Stat { follow: bool },
    SetTimes { follow: bool, times: Times },
    CreateDirectory,
    RemoveDirectory,
    UnlinkFile,
    Rename { directory: u32, path: String },
    Link { directory: u32, path: String },
    Symlink { target: String },
    ReadLink,
}

impl FileRequest {
    /// Reads the arguments of request `raw.number`; `data` reads bytes of the mailbox's data area.
    pub(super) fn decode(
        raw: &RawRequest,
        data: impl Fn(usize, usize) -> Result<Vec<u8>, GuestFault>,
    ) -> Result<Option<Self>, GuestFault> {
        Ok(Some(match raw.number {
            hypercall::FILE_OPEN => Self::Open(open(&arguments(raw)?, data)?),
            hypercall::FILE_CLOSE => Self::Close { handle: arguments::<HandleArgs>(raw)?.handle },
            hypercall::FILE_STAT => Self::Stat { handle: arguments::<HandleArgs>(raw)?.handle },
            hypercall::FILE_READ => Self::Read(move_bytes(&arguments(raw)?)?),
            hypercall::FILE_WRITE => Self::Write(move_bytes(&arguments(raw)?)?),
            hypercall::FILE_CHANGE => changed(&arguments(raw)?)?,
            hypercall::DIRECTORY_LIST => Self::List(move_bytes(&arguments(raw)?)?),
            hypercall::PATH => named(&arguments(raw)?, data)?,
            hypercall::SOCKET_ACCEPT => {
                let SocketArgs { handle, flags } = arguments(raw)?;
                Self::Accept { handle, nonblocking: flags & transfer::NONBLOCK != 0 }
            }
            hypercall::SOCKET_RECEIVE => Self::Receive(move_bytes(&arguments(raw)?)?),
            hypercall::SOCKET_SEND => Self::Send(move_bytes(&arguments(raw)?)?),
            hypercall::SOCKET_SHUTDOWN => {
                let SocketArgs { handle, flags } = arguments(raw)?;
                Self::Shutdown { handle, receive: flags & sdflags::RECEIVE != 0, send: flags & sdflags::SEND != 0 }
            }
            _ => return Ok(None),
        }))
    }
}

fn arguments<T: FromBytes>(raw: &RawRequest) -> Result<T, GuestFault> {
    raw.arguments().ok_or_else(|| GuestFault::BadRequest("arguments that cannot be".into()))
}

fn open(arguments: &OpenArgs, data: impl Fn(usize, usize) -> Result<Vec<u8>, GuestFault>) -> Result<Open, GuestFault> {
    Ok(Open {
        directory: arguments.directory,
        path: text(0, arguments.path_bytes, data)?,
        read: arguments.access & access::READ != 0,
        write: arguments.access & access::WRITE != 0,
        follow: arguments.access & access::FOLLOW != 0,
        oflags: arguments.oflags,
        fdflags: arguments.fdflags & fdflags::ALL,
        ahead: area(arguments.buffer, arguments.ahead_bytes)?,
    })
}

fn move_bytes(arguments: &TransferArgs) -> Result<Transfer, GuestFault> {
    let TransferArgs { handle, buffer, bytes, flags, offset } = *arguments;
    Ok(Transfer {
        handle,
        area: area(buffer, bytes)?,
        offset,
        nonblocking: flags & transfer::NONBLOCK != 0,
        append: flags & transfer::APPEND != 0,
        peek: flags & transfer::PEEK != 0,
        wait_all: flags & transfer::WAITALL != 0,
    })
}

fn changed(arguments: &ChangeArgs) -> Result<FileRequest, GuestFault> {
    let ChangeArgs { handle, change: number, first, second, flags, .. } = *arguments;
    let change = match number {
        change::SET_BYTES => Change::SetBytes(first),
        change::ALLOCATE => Change::Allocate { offset: first, bytes: second },
        change::ADVISE => Change::Advise { offset: first, bytes: second, advice: flags },
        change::SYNC => Change::Sync,
        change::DATASYNC => Change::DataSync,
        change::SET_TIMES => Change::SetTimes(Times { accessed_ns: first, modified_ns: second, which: flags }),
        number => return Err(GuestFault::BadRequest(format!("unknown change {number:#x} of a file"))),
    };
    Ok(FileRequest::Change { handle, change })
}

fn named(arguments: &PathArgs, data: impl Fn(usize, usize) -> Result<Vec<u8>, GuestFault>) -> Result<FileRequest, GuestFault> {
    let follow = arguments.follow != 0;
    let path = text(0, arguments.path_bytes, &data)?;
    let second = text(path.len(), arguments.second_bytes, &data)?;
    let second_directory = arguments.second_directory;
    let times = Times { accessed_ns: arguments.accessed_ns, modified_ns: arguments.modified_ns, which: arguments.which };
    let operation = match arguments.operation {
        path::STAT => PathOperation::Stat { follow },
        path::SET_TIMES => PathOperation::SetTimes { follow, times },
        path::CREATE_DIRECTORY => PathOperation::CreateDirectory,
        path::REMOVE_DIRECTORY => PathOperation::RemoveDirectory,
        path::UNLINK_FILE => PathOperation::UnlinkFile,
        path::RENAME => PathOperation::Rename { directory: second_directory, path: second },
        path::LINK => PathOperation::Link { directory: second_directory, path: second },
        path::SYMLINK => PathOperation::Symlink { target: second },
        path::READLINK => PathOperation::ReadLink,
        number => return Err(GuestFault::BadRequest(format!("unknown operation {number:#x} on a path"))),
    };
    Ok(FileRequest::Path { directory: arguments.directory, path, operation })
}

fn area(number: u32, bytes: u32) -> Result<Area, GuestFault> {
    let region = buffer(number).ok_or_else(|| GuestFault::BadRequest(format!("there is no buffer {number}")))?;
    match usize::try_from(bytes) {
        Ok(length) if u64::from(bytes) <= region.bytes() => Ok(Area { start: GuestAddress(region.start), bytes: length }),
        _ => Err(GuestFault::BadRequest(format!("{bytes} bytes, more than buffer {number} holds"))),
    }
}

/// A path, as the kernel has checked it.
fn text(offset: usize, bytes: u32, data: impl Fn(usize, usize) -> Result<Vec<u8>, GuestFault>) -> Result<String, GuestFault> {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    if bytes > MAX_PATH_BYTES || offset + bytes > DATA_BYTES {
        return Err(GuestFault::BadRequest(format!("a path of {bytes} bytes")));
    }
    let text = String::from_utf8(data(offset, bytes)?).ok().filter(|text| !text.contains('\0'));
    text.ok_or_else(|| GuestFault::BadRequest("a path that is not UTF-8, or has a NUL".into()))
}
