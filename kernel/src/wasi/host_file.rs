//! Files of the host: read ahead in windows, written behind through the ring.
//!
//! What a program can see of this is nothing but speed. Reads are answered from a window only while nobody can tell that it is
//! not the file itself: see [`Moment`]. Small writes are posted, in the order of everything else that is posted, and every request
//! makes the host do what was posted first; a run's end does, too, however it ends. If a posted write fails, the next
//! write, sync or close through the same descriptor gets the error.

use mote_abi::{
    errno::Errno,
    file::{FileStat, fdflags, file_type},
    hypercall::{
        self as abi,
        files::{
            ChangeArgs, HandleArgs, MAILBOX_BUFFER, OpenResult, PostedWrite, TransferArgs, TransferResult, WINDOW_BYTES, WINDOWS,
            transfer,
        },
    },
    mailbox::DATA_BYTES,
    ring,
};
use mote_kernel_logic::window::{Ahead, FileId, Hit, Moment, Windows};
use zerocopy::IntoBytes;

use super::directory::Listing;
use crate::{clock, console, guest, hypercall};

/// Writes up to this size are posted; larger ones go through the mailbox, which takes more at once.
const MAX_POSTED_BYTES: usize = 64 << 10;
/// Largest position in a file (off_t).
const MAX_OFFSET: u64 = i64::MAX as u64;

/// What all files of the host share.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) windows: Windows<{ WINDOWS as usize }>,
    /// Counts what may change the attributes of any file.
    pub(super) changes: u64,
    pub(super) listing: Listing,
}

/// An open file, or anything else that has a path on the host and is no directory.
pub(super) struct HostFile {
    pub(super) handle: u32,
    pub(super) id: FileId,
    pub(super) file_type: u8,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// Writes have to reach the storage before they are acknowledged.
    synchronized: bool,
    /// Another descriptor has, or had, the same file open.
    pub(super) is_shared: bool,
    position: Position,
    ahead: Ahead,
    /// Attributes as the host told them on opening.
    opened: Opened,
    /// Writes were posted whose success nobody asked for yet.
    has_posted: bool,
    /// How many posted writes had failed, of any file, when the host was last asked about this one.
    seen_failures: u64,
}

/// Where the next read or write happens.
#[derive(Clone, Copy)]
enum Position {
    At(u64),
    /// Behind what this descriptor appended, which nobody asked for yet.
    End,
}

/// What the host told when it opened the file.
struct Opened {
    stat: FileStat,
    /// [`Shared::changes`] then.
    changes: u64,
    at: Moment,
}

impl HostFile {
    /// A file that was just opened with the beginning of it read into window `window`.
    pub(super) fn new(
        result: &OpenResult,
        readable: bool,
        writable: bool,
        flags: u16,
        window: Option<usize>,
        shared: &mut Shared,
    ) -> Self {
        let id = FileId { device: result.stat.device, inode: result.stat.inode };
        let at = now();
        if let (Some(window), 1) = (window, result.was_read) {
            shared.windows.fill(window, id, 0, u64::from(result.ahead_bytes), result.at_end == 1, at);
        }
        Self {
            handle: result.handle,
            id,
            file_type: result.stat.file_type,
            readable,
            writable,
            synchronized: flags & (fdflags::DSYNC | fdflags::RSYNC | fdflags::SYNC) != 0,
            is_shared: false,
            position: Position::At(0),
            ahead: Ahead::opened_with(u64::from(result.ahead_bytes)),
            opened: Opened { stat: result.stat, changes: shared.changes, at },
            has_posted: false,
            seen_failures: guest::failed_writes(),
        }
    }

    /// Whether it has positions and never blocks.
    pub(super) fn is_regular(&self) -> bool {
        self.file_type == file_type::REGULAR_FILE
    }

    pub(super) fn position(&mut self) -> Result<u64, Errno> {
        match self.position {
            Position::At(position) => Ok(position),
            Position::End => {
                let end = self.ask_stat()?.bytes;
                self.position = Position::At(end);
                Ok(end)
            }
        }
    }

    /// Finds out where this descriptor stands, before something else moves the end of the file. Who asks for it afterwards
    /// meets an error again.
    pub(super) fn settle_position(&mut self) {
        let _asked_again = self.position();
    }

    pub(super) fn set_position(&mut self, position: u64) {
        self.position = Position::At(position);
    }

    /// Reads at `offset` until `target` is full or the file ends.
    pub(super) fn read_at(&mut self, shared: &mut Shared, target: &mut [u8], offset: u64) -> Result<usize, Errno> {
        let mut done = 0;
        while let Some(rest) = target.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset.checked_add(done as u64).filter(|at| *at <= MAX_OFFSET).ok_or(Errno::Inval)?;
            let hit = match shared.windows.find(self.id, at, now()) {
                Some(hit) => hit,
                None => match self.fetch(shared, at, rest.len()) {
                    Ok(hit) => hit,
                    Err(_) if done > 0 => break,
                    Err(errno) => return Err(errno),
                },
            };
            let bytes = (hit.bytes as usize).min(rest.len());
            hypercall::copy_out(window_buffer(hit.window), hit.start as usize, rest.get_mut(..bytes).unwrap_or(&mut []));
            done += bytes;
            if bytes == 0 {
                break;
            }
        }
        Ok(done)
    }

    fn fetch(&mut self, shared: &mut Shared, offset: u64, wanted: usize) -> Result<Hit, Errno> {
        let goes_on = self.ahead.goes_on(offset);
        let bytes = self.ahead.next(offset, wanted as u64, WINDOW_BYTES) as u32;
        let window = shared.windows.victim(self.id);
        let buffer = window_buffer(window);
        let arguments = TransferArgs { handle: self.handle, buffer, bytes, flags: 0, offset };
        let result: TransferResult = hypercall::file(abi::FILE_READ, &arguments, &[])?;
        if !goes_on {
            // Others may say in one file that they have changed another.
            hypercall::note_tidings();
        }
        let (got, at_end) = (u64::from(result.bytes.min(bytes)), result.at_end == 1);
        shared.windows.fill(window, self.id, offset, got, at_end, now());
        Ok(Hit { window, start: 0, bytes: got, at_end })
    }

    /// Reads what a stream has, at least one byte unless it has ended.
    pub(super) fn read_stream(&self, target: &mut [u8], flags: u16) -> Result<usize, Errno> {
        let bytes = read_through_mailbox(abi::FILE_READ, self.handle, target, wait_flag(flags))?;
        hypercall::note_tidings();
        Ok(bytes)
    }

    /// Writes `parts`, `total` bytes together, at `at`, or else at the position, or at the end if `flags` say so.
    pub(super) fn write<'a>(
        &mut self,
        shared: &mut Shared,
        parts: impl Iterator<Item = &'a [u8]>,
        total: usize,
        at: Option<u64>,
        flags: u16,
    ) -> Result<usize, Errno> {
        let append = flags & fdflags::APPEND != 0;
        let offset = match (append, at) {
            (true, _) => 0,
            (false, Some(offset)) => offset,
            (false, None) if self.is_regular() => self.position()?,
            (false, None) => 0,
        };
        if total == 0 {
            return Ok(0);
        }
        if at.is_some() {
            self.settle_position();
        }
        shared.windows.forget(self.id);
        shared.changes += 1;
        let fits = offset.checked_add(total as u64).is_some_and(|end| end <= MAX_OFFSET);
        let exact = append && self.is_shared;
        let posted = self.is_regular() && !self.synchronized && !exact && fits && total <= MAX_POSTED_BYTES;
        if posted && guest::failed_writes() == self.seen_failures {
            self.post(parts, total, offset, append);
            if at.is_none() {
                self.position = if append { Position::End } else { Position::At(offset + total as u64) };
            }
            return Ok(total);
        }
        let (done, end) = self.write_now(parts, offset, append, flags)?;
        if at.is_none() && self.is_regular() {
            self.position = Position::At(if append { end } else { offset.saturating_add(done as u64) });
        }
        Ok(done)
    }

    fn post<'a>(&mut self, parts: impl Iterator<Item = &'a [u8]>, total: usize, offset: u64, append: bool) {
        let flags = if append { transfer::APPEND } else { 0 };
        let header = PostedWrite { handle: self.handle, flags, offset };
        console::post(ring::Stream::Write, header.as_bytes(), parts, total);
        self.has_posted = true;
    }

    /// Writes through the mailbox; how many bytes, and where the file ends after an append. An error after some bytes is left
    /// to the next write.
    fn write_now<'a>(
        &mut self,
        parts: impl Iterator<Item = &'a [u8]>,
        offset: u64,
        append: bool,
        flags: u16,
    ) -> Result<(usize, u64), Errno> {
        let mut state = Now { done: 0, filled: 0, end: 0 };
        let handle = self.handle;
        let append_flag = if append { transfer::APPEND } else { 0 };
        let flush = |state: &mut Now| -> Result<bool, Errno> {
            let arguments = TransferArgs {
                handle,
                buffer: MAILBOX_BUFFER,
                bytes: state.filled as u32,
                flags: append_flag | wait_flag(flags),
                offset: offset.saturating_add(state.done as u64),
            };
            let written: Result<TransferResult, Errno> = hypercall::file(abi::FILE_WRITE, &arguments, &[]);
            match written {
                Ok(result) => {
                    let whole = result.bytes as usize >= state.filled;
                    state.done += (result.bytes as usize).min(state.filled);
                    state.end = result.file_bytes;
                    state.filled = 0;
                    Ok(whole)
                }
                Err(_) if state.done > 0 => Ok(false),
                Err(errno) => Err(errno),
            }
        };
        self.seen_failures = guest::failed_writes();
        for mut part in parts {
            while !part.is_empty() {
                let (now, later) = part.split_at(part.len().min(DATA_BYTES - state.filled));
                hypercall::write_data(state.filled, now);
                state.filled += now.len();
                part = later;
                if state.filled == DATA_BYTES && !flush(&mut state)? {
                    return Ok((state.done, state.end));
                }
            }
        }
        if state.filled > 0 {
            flush(&mut state)?;
        }
        Ok((state.done, state.end))
    }

    /// What is known of it.
    pub(super) fn stat(&self, shared: &Shared) -> Result<FileStat, Errno> {
        let Opened { stat, changes, at } = &self.opened;
        let known = self.is_regular() && at.has_size(now()) && *changes == shared.changes;
        if known { Ok(*stat) } else { self.ask_stat() }
    }

    fn ask_stat(&self) -> Result<FileStat, Errno> {
        hypercall::file(abi::FILE_STAT, &HandleArgs { handle: self.handle, reserved: 0 }, &[])
    }

    /// One of [`mote_abi::hypercall::files::change`].
    pub(super) fn change(&mut self, shared: &mut Shared, change: u32, first: u64, second: u64, flags: u32) -> Result<(), Errno> {
        if matches!(change, abi::files::change::SET_BYTES | abi::files::change::ALLOCATE) {
            self.settle_position();
        }
        shared.windows.forget(self.id);
        shared.changes += 1;
        change_handle(self.handle, change, first, second, flags)?;
        if matches!(change, abi::files::change::SYNC | abi::files::change::DATASYNC) {
            self.has_posted = false;
        }
        Ok(())
    }

    /// Gives the handle back. Only if something was written does anybody wait for that.
    pub(super) fn close(self) -> Result<(), Errno> {
        if self.has_posted || !self.is_regular() { close_handle(self.handle) } else { post_close(self.handle) }
    }
}

/// A write through the mailbox on its way.
struct Now {
    done: usize,
    /// Bytes in the mailbox.
    filled: usize,
    end: u64,
}

/// This moment, as far as what is known of files is concerned.
fn now() -> Moment {
    Moment { ns: clock::stale_monotonic_ns(), tidings: hypercall::tidings() }
}

/// Reads what a stream or a socket has by request `number`, as much as the mailbox takes.
pub(super) fn read_through_mailbox(number: u32, handle: u32, target: &mut [u8], flags: u32) -> Result<usize, Errno> {
    let bytes = target.len().min(DATA_BYTES);
    let arguments = TransferArgs { handle, buffer: MAILBOX_BUFFER, bytes: bytes as u32, flags, offset: 0 };
    let result: TransferResult = hypercall::file(number, &arguments, &[])?;
    let bytes = (result.bytes as usize).min(bytes);
    hypercall::copy_out(MAILBOX_BUFFER, 0, target.get_mut(..bytes).unwrap_or(&mut []));
    Ok(bytes)
}

/// A change of whatever has a handle.
pub(super) fn change_handle(handle: u32, change: u32, first: u64, second: u64, flags: u32) -> Result<(), Errno> {
    let arguments = ChangeArgs { handle, change, first, second, flags, reserved: 0 };
    hypercall::file::<_, u32>(abi::FILE_CHANGE, &arguments, &[]).map(drop)
}

/// Gives a handle back and waits for it.
pub(super) fn close_handle(handle: u32) -> Result<(), Errno> {
    hypercall::file::<_, u32>(abi::FILE_CLOSE, &HandleArgs { handle, reserved: 0 }, &[]).map(drop)
}

/// Gives a handle back at some time.
pub(super) fn post_close(handle: u32) -> Result<(), Errno> {
    console::post(ring::Stream::Close, &handle.to_le_bytes(), core::iter::empty(), 0);
    Ok(())
}

/// The buffer that window `index` is.
pub(super) fn window_buffer(index: usize) -> u32 {
    MAILBOX_BUFFER + 1 + index as u32
}

/// The flag of a transfer for a descriptor's flags.
pub(super) fn wait_flag(flags: u16) -> u32 {
    if flags & fdflags::NONBLOCK != 0 { transfer::NONBLOCK } else { 0 }
}
