//! The file service: what a guest has open, and everything that is done to it.
//!
//! A handle is an index into a table of bounded size. Whatever the guest names is looked up there; paths are resolved by
//! `cap-std`, which never leaves the directory at which they start. Everything is opened such that it does not block, and
//! where a guest may wait, it waits in poll(2) beside the event that a stop makes readable.
//!
//! Requests and what guests posted in the ring share the table. Nobody holds its lock while waiting for anything.

mod change;
mod directory;
mod open;
mod path;
mod transfer;

use std::{
    fs::File,
    net::{TcpListener, TcpStream},
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering},
    },
};

use cap_std::fs::Dir;
use mote_abi::{
    errno::Errno,
    file::{FileStat, file_type},
    hypercall::status,
    mailbox::Response,
};
use rustix::fs::FileType;
use vm_memory::GuestMemoryMmap;

use super::{errno, sockets};
use crate::{
    control::Control,
    request::{FileRequest, Transfer},
};

/// Why a request was not done.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The guest is told this.
    Errno(Errno),
    /// The run is to end.
    Stopped,
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        Self::Errno(errno::of(&error))
    }
}

impl From<rustix::io::Errno> for Refusal {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Errno(errno::of_host(error))
    }
}

/// What a handle stands for.
#[derive(Debug)]
pub(crate) enum Open {
    Directory(Directory),
    File(OpenFile),
    Listener(TcpListener),
    Connection(TcpStream),
}

/// An open directory.
#[derive(Debug)]
pub(crate) struct Directory {
    dir: Dir,
    /// Whether anything in it may be changed.
    writable: bool,
}

/// An open file, or anything else that has a path and is no directory.
#[derive(Debug)]
pub(crate) struct OpenFile {
    file: File,
    /// A regular file has positions and never blocks for long; all else is a stream.
    regular: bool,
    /// Whether the directory that it was found in may be changed.
    writable: bool,
    /// The first error of a posted write, until the guest is told: the number of an [`Errno`], or 0.
    failure: AtomicU16,
}

impl OpenFile {
    /// The error that is still to be told.
    fn take_failure(&self) -> Result<(), Errno> {
        match Errno::from_code(self.failure.swap(0, Ordering::Relaxed)) {
            Some(errno) => Err(errno),
            None => Ok(()),
        }
    }
}

impl Open {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Directory(directory) => directory.dir.as_fd(),
            Self::File(file) => file.file.as_fd(),
            Self::Listener(listener) => listener.as_fd(),
            Self::Connection(stream) => stream.as_fd(),
        }
    }

    fn directory(&self) -> Result<&Directory, Errno> {
        match self {
            Self::Directory(directory) => Ok(directory),
            _ => Err(Errno::Notdir),
        }
    }

    fn file(&self) -> Result<&OpenFile, Errno> {
        match self {
            Self::File(file) => Ok(file),
            _ => Err(Errno::Badf),
        }
    }
}

/// Everything that one guest has open.
#[derive(Debug)]
pub(crate) struct FileService {
    table: Mutex<Table>,
    /// The device of /proc, if there is one: its files are, or lead to, the memory and the descriptors of this process.
    proc_device: Option<u64>,
    /// How many posted writes failed, ever.
    failed_writes: AtomicU64,
    /// Whether one of them failed of which the guest was never told.
    lost_writes: AtomicBool,
}

#[derive(Debug)]
struct Table {
    entries: Vec<Option<Arc<Open>>>,
    max_open: usize,
    /// What was given at the start: the first entries, unless the guest closed them.
    given: Vec<Arc<Open>>,
}

impl FileService {
    /// A table in which listeners come first and directories follow, each with whether it may be changed. `max_open` bounds
    /// how many handles there are beside them.
    pub(crate) fn new(listeners: Vec<TcpListener>, directories: Vec<(File, bool)>, max_open: usize) -> Self {
        // Without a directory nothing is ever opened.
        let proc_device = if directories.is_empty() { None } else { proc_device() };
        let listeners = listeners.into_iter().map(Open::Listener);
        let directories = directories
            .into_iter()
            .map(|(file, writable)| Open::Directory(Directory { dir: Dir::from_std_file(file), writable }));
        let given: Vec<_> = listeners.chain(directories).map(Arc::new).collect();
        let entries = given.iter().cloned().map(Some).collect();
        let max_open = given.len().saturating_add(max_open);
        let table = Mutex::new(Table { entries, max_open, given });
        Self { table, proc_device, failed_writes: AtomicU64::new(0), lost_writes: AtomicBool::new(false) }
    }

    /// How many files, directories and connections are open beside those that were given, and how many of the given ones are
    /// not open any more or are listeners.
    pub(crate) fn unsaved(&self) -> usize {
        let table = self.lock();
        let opened = table.entries.iter().skip(table.given.len()).flatten().count();
        let kept = |(given, entry): (&Arc<Open>, &Option<Arc<Open>>)| {
            matches!(**given, Open::Directory(_)) && entry.as_ref().is_some_and(|entry| Arc::ptr_eq(entry, given))
        };
        opened + table.given.iter().zip(&table.entries).filter(|pair| !kept(*pair)).count()
    }

    /// Closes everything that was opened, and opens what was given again.
    pub(crate) fn reset(&self) {
        let mut table = self.lock();
        let kept =
            |(entry, given): (&Option<Arc<Open>>, &Arc<Open>)| entry.as_ref().is_some_and(|entry| Arc::ptr_eq(entry, given));
        if table.entries.len() != table.given.len() || !table.entries.iter().zip(&table.given).all(kept) {
            table.entries = table.given.iter().cloned().map(Some).collect();
        }
        self.failed_writes.store(0, Ordering::Relaxed);
        self.lost_writes.store(false, Ordering::Relaxed);
    }

    /// Does what the guest asks for.
    pub(crate) fn answer(&self, request: FileRequest, memory: &GuestMemoryMmap, control: &Control) -> Result<Response, Refusal> {
        let ok = || Response::new(status::OK, &0u32, 0);
        match request {
            FileRequest::Open(request) => self.open(&request, memory),
            FileRequest::Close { handle } => self.close(handle).map(|()| ok()),
            FileRequest::Stat { handle } => match &*self.get(handle)? {
                // The kernel knows all that there is to know of a socket.
                Open::Listener(_) | Open::Connection(_) => Err(Errno::Badf.into()),
                open => Ok(Response::new(status::OK, &stat(open.fd())?, 0)),
            },
            FileRequest::Read(transfer) => transfer::read(self.get(transfer.handle)?.file()?, &transfer, memory, control),
            FileRequest::Write(transfer) => transfer::write(self.get(transfer.handle)?.file()?, &transfer, memory, control),
            FileRequest::Change { handle, change } => change::change(&*self.get(handle)?, change).map(|()| ok()),
            FileRequest::List(transfer) => directory::list(self.get(transfer.handle)?.directory()?, &transfer, memory),
            FileRequest::Path { directory, path, operation } => self.path(directory, &path, operation, memory),
            FileRequest::Accept { handle, nonblocking } => {
                self.check_room()?;
                let connection = match &*self.get(handle)? {
                    Open::Listener(listener) => sockets::accept(listener, nonblocking, control)?,
                    _ => return Err(Errno::Notsock.into()),
                };
                let handle = self.insert(Open::Connection(connection))?;
                Ok(Response::new(status::OK, &mote_abi::hypercall::files::HandleArgs { handle, reserved: 0 }, 0))
            }
            FileRequest::Receive(transfer) => sockets::receive(self.connection(&transfer)?.fd(), &transfer, memory, control),
            FileRequest::Send(transfer) => sockets::send(self.connection(&transfer)?.fd(), &transfer, memory, control),
            FileRequest::Shutdown { handle, receive, send } => match &*self.get(handle)? {
                Open::Connection(stream) => sockets::shutdown(stream, receive, send).map(|()| ok()),
                Open::Listener(_) => Err(Errno::Notconn.into()),
                _ => Err(Errno::Notsock.into()),
            },
        }
    }

    /// A write that the guest posted. Its error is kept until the guest asks.
    pub(crate) fn posted_write(&self, transfer: &Transfer, memory: &GuestMemoryMmap) {
        let Ok(open) = self.get(transfer.handle) else { return };
        let Ok(file) = open.file() else { return };
        let result = if file.regular { transfer::write_whole(file, transfer, memory) } else { Err(Errno::Inval) };
        if let Err(errno) = result {
            let _first = file.failure.compare_exchange(0, errno.code(), Ordering::Relaxed, Ordering::Relaxed);
            self.failed_writes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A handle that the guest gave back without waiting for an answer.
    pub(crate) fn posted_close(&self, handle: u32) {
        if let Ok(open) = self.take(handle) {
            self.note_loss(&open);
        }
    }

    /// How many posted writes failed.
    pub(crate) fn failed_writes(&self) -> u64 {
        self.failed_writes.load(Ordering::Relaxed)
    }

    /// Whether bytes of which the guest was told that they were written were not, and nobody was told.
    pub(crate) fn has_lost_writes(&self) -> bool {
        let table = self.lock();
        table.entries.iter().flatten().for_each(|open| self.note_loss(open));
        self.lost_writes.load(Ordering::Relaxed)
    }

    /// The thing itself, for waiting.
    pub(crate) fn get(&self, handle: u32) -> Result<Arc<Open>, Errno> {
        let index = usize::try_from(handle).unwrap_or(usize::MAX);
        self.lock().entries.get(index).and_then(Clone::clone).ok_or(Errno::Badf)
    }

    fn connection(&self, transfer: &Transfer) -> Result<Arc<Open>, Errno> {
        let open = self.get(transfer.handle)?;
        match &*open {
            Open::Connection(_) => Ok(open),
            Open::Listener(_) => Err(Errno::Notconn),
            _ => Err(Errno::Notsock),
        }
    }

    /// The lowest free handle.
    fn insert(&self, open: Open) -> Result<u32, Errno> {
        let mut table = self.lock();
        let index = table.free_index()?;
        let handle = u32::try_from(index).map_err(|_| Errno::Mfile)?;
        if index == table.entries.len() {
            table.entries.push(None);
        }
        if let Some(entry) = table.entries.get_mut(index) {
            *entry = Some(Arc::new(open));
        }
        Ok(handle)
    }

    /// Before something is opened that could not be kept.
    fn check_room(&self) -> Result<(), Errno> {
        self.lock().free_index().map(drop)
    }

    fn take(&self, handle: u32) -> Result<Arc<Open>, Errno> {
        let index = usize::try_from(handle).unwrap_or(usize::MAX);
        self.lock().entries.get_mut(index).and_then(Option::take).ok_or(Errno::Badf)
    }

    fn close(&self, handle: u32) -> Result<(), Refusal> {
        match &*self.take(handle)? {
            Open::File(file) => Ok(file.take_failure()?),
            _ => Ok(()),
        }
    }

    fn note_loss(&self, open: &Open) {
        if let Open::File(file) = open
            && file.take_failure().is_err()
        {
            self.lost_writes.store(true, Ordering::Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn free_index(&self) -> Result<usize, Errno> {
        let free = self.entries.iter().position(Option::is_none).unwrap_or(self.entries.len());
        if free < self.max_open { Ok(free) } else { Err(Errno::Mfile) }
    }
}

/// The device of /proc, if that is what its name says.
fn proc_device() -> Option<u64> {
    let found = rustix::fs::statfs("/proc").ok().filter(|found| found.f_type == rustix::fs::PROC_SUPER_MAGIC);
    found.and_then(|_| rustix::fs::stat("/proc").ok()).map(|stat| stat.st_dev)
}

/// What is known of an open file.
fn stat(fd: BorrowedFd<'_>) -> Result<FileStat, rustix::io::Errno> {
    let stat = rustix::fs::fstat(fd)?;
    Ok(FileStat {
        device: stat.st_dev,
        inode: stat.st_ino,
        file_type: type_of(FileType::from_raw_mode(stat.st_mode)),
        reserved: [0; 7],
        links: stat.st_nlink,
        bytes: u64::try_from(stat.st_size).unwrap_or(0),
        accessed_ns: nanoseconds(stat.st_atime, stat.st_atime_nsec),
        modified_ns: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
        changed_ns: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
    })
}

fn type_of(file_type: FileType) -> u8 {
    match file_type {
        FileType::BlockDevice => file_type::BLOCK_DEVICE,
        FileType::CharacterDevice => file_type::CHARACTER_DEVICE,
        FileType::Directory => file_type::DIRECTORY,
        FileType::RegularFile => file_type::REGULAR_FILE,
        FileType::Socket => file_type::SOCKET_STREAM,
        FileType::Symlink => file_type::SYMBOLIC_LINK,
        _ => file_type::UNKNOWN,
    }
}

/// Times before 1970 are 1970: WASI has no others.
fn nanoseconds(seconds: i64, nanoseconds: impl TryInto<u64>) -> u64 {
    let seconds = u64::try_from(seconds).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds.try_into().unwrap_or(0))
}
