//! Output: takes records out of the ring and writes them where they belong: standard streams, log, files.
//!
//! Writing never blocks beyond a stop: a descriptor that may block is written only in pieces that poll(2) says it takes.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use mote_abi::{
    boot::status_offset,
    hypercall::files::{PostedWrite, transfer},
    layout::{HOST_STATUS, RING_DATA, RING_HEAD},
    ring::{HEADER_BYTES, Header, Stream, pieces, used_bytes},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::FileType,
    io::Errno,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};
use zerocopy::IntoBytes;

use super::files::FileService;
use crate::{
    config::Output,
    control::Control,
    ending::{GuestFault, HostFailure},
    request::{Area, Transfer, printable},
};

/// What a pipe takes without blocking once poll(2) says that it is writable (PIPE_BUF).
const ATOMIC_BYTES: usize = 4096;
/// Log lines of the guest that are kept until somebody emits them; more are dropped.
const MAX_LOG_LINES: usize = 1000;

/// Why draining failed.
#[derive(Debug)]
pub(crate) enum DrainError {
    Guest(GuestFault),
    Host(HostFailure),
    /// Patience ended before all was written.
    Stopped,
}

impl From<GuestMemoryError> for DrainError {
    fn from(error: GuestMemoryError) -> Self {
        Self::Host(HostFailure::Machine(error.to_string()))
    }
}

/// How long draining may wait for readers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Patience<'a> {
    /// Not at all: what cannot be written now stays.
    None,
    /// Until a stop is asked for.
    UntilStopped(&'a Control),
    /// Until this moment.
    UntilTime(Instant),
}

/// Both streams, the position in the ring, and what was taken out of it but not written yet.
#[derive(Debug)]
pub(crate) struct OutputService {
    files: Arc<FileService>,
    tail: u64,
    /// Bytes for one stream; at most a ring full.
    batch: Vec<u8>,
    batch_stream: Stream,
    /// How many bytes of the batch were written.
    written: usize,
    stdout: Sink,
    stderr: Sink,
    /// Lines of the guest's log that were taken out of the ring.
    log: Vec<(u8, String)>,
    max_log_level: u8,
}

#[derive(Debug)]
struct Sink {
    name: &'static str,
    target: Output,
    /// Whether a write can block.
    may_block: bool,
    broken: bool,
}

impl OutputService {
    pub(crate) fn new(stdout: Output, stderr: Output, max_log_level: u8, files: Arc<FileService>) -> Self {
        Self {
            files,
            tail: 0,
            batch: Vec::new(),
            batch_stream: Stream::Stdout,
            written: 0,
            stdout: Sink::new("standard output", stdout),
            stderr: Sink::new("standard error", stderr),
            log: Vec::new(),
            max_log_level,
        }
    }

    /// Lines of the guest's log, level first. To be emitted without the lock, as writing them may block.
    pub(crate) fn take_log(&mut self) -> Vec<(u8, String)> {
        std::mem::take(&mut self.log)
    }

    /// Whether the ring holds nothing and nothing is left to be written.
    pub(crate) fn is_empty(&self, memory: &GuestMemoryMmap) -> bool {
        let head = memory.load::<u64>(GuestAddress(RING_HEAD.start), Ordering::Acquire);
        head.is_ok_and(|head| head == self.tail) && self.written == self.batch.len() && self.log.is_empty()
    }

    /// How far the ring was emptied, ever.
    pub(crate) fn tail(&self) -> u64 {
        self.tail
    }

    /// Begins anew with a ring of which all up to `tail` was taken, as a restored guest has it; tells the guest.
    pub(crate) fn reset(&mut self, memory: &GuestMemoryMmap, tail: u64) -> Result<(), DrainError> {
        self.tail = tail;
        self.batch.clear();
        self.written = 0;
        self.log.clear();
        // One that is really gone breaks again with the next write.
        (self.stdout.broken, self.stderr.broken) = (false, false);
        self.publish(memory)
    }

    /// Sends what comes from now on elsewhere; tells the guest that the stream works.
    pub(crate) fn set_stream(&mut self, memory: &GuestMemoryMmap, stream: Stream, target: Output) -> Result<(), DrainError> {
        match stream {
            Stream::Stderr => self.stderr = Sink::new("standard error", target),
            _ => self.stdout = Sink::new("standard output", target),
        }
        self.publish(memory)
    }

    /// Writes out all that the guest has published by now. What cannot be written is dropped and the stream marked broken.
    pub(crate) fn drain(&mut self, memory: &GuestMemoryMmap, patience: Patience<'_>) -> Result<(), DrainError> {
        self.write_batch(patience)?;
        // Not further than this: a guest that publishes all the time would keep this thread for ever.
        let end = self.published(memory)?;
        while self.tail != end {
            let header = self.header(memory, end)?;
            if matches!(header.stream, Stream::Write | Stream::Close) {
                self.take_posted(memory, header)?;
                continue;
            }
            let taken = self.take_batch(memory, end);
            // What lies before a record that is none is written all the same.
            self.write_batch(patience)?;
            taken?;
        }
        // A stream that broke by the last write is published even if nothing new came.
        self.publish(memory)
    }

    /// Gives up what the standard streams do not take, and does what was posted to files behind it.
    pub(crate) fn abandon_streams(&mut self, memory: &GuestMemoryMmap) -> Result<(), DrainError> {
        (self.stdout.broken, self.stderr.broken) = (true, true);
        self.drain(memory, Patience::None)
    }

    /// Where the records end that the guest has published.
    fn published(&self, memory: &GuestMemoryMmap) -> Result<u64, DrainError> {
        let head: u64 = memory.load(GuestAddress(RING_HEAD.start), Ordering::Acquire)?;
        match used_bytes(head, self.tail) {
            Some(_) => Ok(head),
            None => Err(bad_output(format!("head {head} does not fit tail {}", self.tail))),
        }
    }

    /// The header of the record at the tail, which lies before `end` as a whole.
    fn header(&self, memory: &GuestMemoryMmap, end: u64) -> Result<Header, DrainError> {
        let mut word = 0u32.to_le_bytes();
        copy_out(memory, self.tail, &mut word)?;
        let left = end.wrapping_sub(self.tail);
        let header = Header::decode(u32::from_le_bytes(word)).filter(|header| header.record_bytes() <= left);
        header.ok_or_else(|| bad_output(format!("no record at {}", self.tail)))
    }

    /// Does what the record at the tail posts to a file.
    fn take_posted(&mut self, memory: &GuestMemoryMmap, header: Header) -> Result<(), DrainError> {
        let payload = self.tail.wrapping_add(HEADER_BYTES);
        let payload_bytes = u64::from(header.payload_bytes);
        match header.stream {
            Stream::Write => {
                let mut posted = PostedWrite::default();
                let header_bytes = size_of::<PostedWrite>() as u64;
                let data_bytes = payload_bytes.checked_sub(header_bytes).ok_or_else(|| bad_output("a short write".into()))?;
                copy_out(memory, payload, posted.as_mut_bytes())?;
                let mut offset = posted.offset;
                for (at, bytes) in pieces(payload.wrapping_add(header_bytes), data_bytes) {
                    let area = Area { start: GuestAddress(RING_DATA.start + at), bytes: usize::try_from(bytes).unwrap_or(0) };
                    let append = posted.flags & transfer::APPEND != 0;
                    self.files.posted_write(&Transfer::posted(posted.handle, area, offset, append), memory);
                    offset = offset.saturating_add(bytes);
                }
            }
            _ => {
                let mut handle = 0u32.to_le_bytes();
                if payload_bytes != handle.len() as u64 {
                    return Err(bad_output("a short close".into()));
                }
                copy_out(memory, payload, &mut handle)?;
                self.files.posted_close(u32::from_le_bytes(handle));
            }
        }
        self.tail = self.tail.wrapping_add(header.record_bytes());
        self.publish(memory)
    }

    /// Takes the records at the tail that are for one stream, not beyond `end`.
    fn take_batch(&mut self, memory: &GuestMemoryMmap, end: u64) -> Result<(), DrainError> {
        self.batch.clear();
        self.written = 0;
        while self.tail != end {
            let header = self.header(memory, end)?;
            let posted = matches!(header.stream, Stream::Write | Stream::Close);
            if posted || !self.batch.is_empty() && header.stream != self.batch_stream {
                break;
            }
            let (at, bytes) = (self.batch.len(), usize::try_from(header.payload_bytes).unwrap_or(0));
            self.batch.resize(at + bytes, 0);
            copy_out(memory, self.tail.wrapping_add(HEADER_BYTES), self.batch.get_mut(at..).unwrap_or(&mut []))?;
            self.batch_stream = header.stream;
            self.tail = self.tail.wrapping_add(header.record_bytes());
            if let Stream::Log(level) = header.stream {
                if level <= self.max_log_level && self.log.len() < MAX_LOG_LINES {
                    self.log.push((level, printable(&self.batch)));
                }
                self.batch.clear();
            }
        }
        self.publish(memory)
    }

    fn write_batch(&mut self, patience: Patience<'_>) -> Result<(), DrainError> {
        let sink = match self.batch_stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
            Stream::Log(_) | Stream::Write | Stream::Close => return Ok(()),
        };
        while let Some(rest) = self.batch.get(self.written..).filter(|rest| !rest.is_empty() && !sink.broken) {
            match sink.write_some(rest, patience) {
                Ok(Some(count)) => self.written += count,
                Ok(None) => return Err(DrainError::Stopped),
                Err(error) => {
                    sink.broken = true;
                    // A reader that went away is the program's business: it sees `pipe`. Anything else loses output.
                    if error.kind() != io::ErrorKind::BrokenPipe {
                        return Err(DrainError::Host(HostFailure::Output { stream: sink.name, source: error }));
                    }
                }
            }
        }
        // What a broken stream did not take must not come to another in its place.
        self.written = self.batch.len();
        Ok(())
    }

    /// Tells the guest how far the ring is empty and which streams are broken.
    fn publish(&self, memory: &GuestMemoryMmap) -> Result<(), DrainError> {
        let broken = u64::from(self.stdout.broken) << 1 | u64::from(self.stderr.broken) << 2;
        let at = |offset| GuestAddress(HOST_STATUS.start + offset);
        memory.store(broken, at(status_offset::BROKEN_STREAMS), Ordering::Release)?;
        memory.store(self.files.failed_writes(), at(status_offset::FAILED_WRITES), Ordering::Release)?;
        memory.store(self.tail, at(status_offset::RING_TAIL), Ordering::Release)?;
        Ok(())
    }
}

fn bad_output(what: String) -> DrainError {
    DrainError::Guest(GuestFault::BadOutput(what))
}

fn copy_out(memory: &GuestMemoryMmap, at: u64, mut to: &mut [u8]) -> Result<(), DrainError> {
    for (offset, bytes) in pieces(at, to.len() as u64) {
        let (now, later) = to.split_at_mut(usize::try_from(bytes).unwrap_or(0).min(to.len()));
        memory.read_slice(now, GuestAddress(RING_DATA.start + offset))?;
        to = later;
    }
    Ok(())
}

impl Sink {
    fn new(name: &'static str, target: Output) -> Self {
        let may_block = match &target {
            Output::Fd(fd) => !is_regular_file(fd),
            Output::Null | Output::Buffer(_) | Output::Callback(_) => false,
        };
        Self { name, target, may_block, broken: false }
    }

    /// Writes at least one byte; `None` if patience ended before.
    fn write_some(&mut self, bytes: &[u8], patience: Patience<'_>) -> io::Result<Option<usize>> {
        match &mut self.target {
            Output::Null => Ok(Some(bytes.len())),
            Output::Buffer(buffer) if buffer.append(bytes) => Ok(Some(bytes.len())),
            Output::Buffer(_) => Err(io::ErrorKind::BrokenPipe.into()),
            Output::Callback(callback) => callback.write(bytes).map(|()| Some(bytes.len())),
            Output::Fd(fd) => loop {
                let bytes = if self.may_block { bytes.get(..bytes.len().min(ATOMIC_BYTES)).unwrap_or(bytes) } else { bytes };
                if self.may_block && !wait_writable(fd.as_fd(), patience)? {
                    return Ok(None);
                }
                match rustix::io::write(&*fd, bytes) {
                    Ok(count) => return Ok(Some(count)),
                    Err(Errno::INTR | Errno::AGAIN) => {}
                    Err(errno) => return Err(errno.into()),
                }
            },
        }
    }
}

fn is_regular_file(fd: &OwnedFd) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
}

/// Whether `fd` can be written; `false` if patience ended.
fn wait_writable(fd: BorrowedFd<'_>, patience: Patience<'_>) -> io::Result<bool> {
    let mut fds = vec![PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    let left = match patience {
        Patience::UntilStopped(control) => return Ok(control.poll(&fds, None)?.is_ok()),
        Patience::None => Duration::ZERO,
        Patience::UntilTime(end) => end.saturating_duration_since(Instant::now()),
    };
    let timeout = Timespec::try_from(left).ok();
    loop {
        match poll(&mut fds, timeout.as_ref()) {
            Err(Errno::INTR) => {}
            result => return Ok(result? > 0),
        }
    }
}

/// Makes a `tracing` event of a line of the guest's log.
pub(crate) fn log(level: u8, line: &str) {
    match level {
        1 => tracing::error!(target: "guest", "{line}"),
        2 => tracing::warn!(target: "guest", "{line}"),
        3 => tracing::info!(target: "guest", "{line}"),
        4 => tracing::debug!(target: "guest", "{line}"),
        _ => tracing::trace!(target: "guest", "{line}"),
    }
}
