//! The producer's end of the ring: output, writes to files, and the log.

use core::{
    fmt::{self, Write as _},
    ptr,
    sync::atomic::{AtomicU64, Ordering},
};

use mote_abi::{
    layout::{RING_DATA, RING_HEAD},
    ring::{HEADER_BYTES, Header, MAX_PAYLOAD_BYTES, RING_BYTES, Stream, pieces},
};

use crate::{guest, hypercall};

/// Appends `bytes`. Costs an exit only when the ring is full.
pub(crate) fn write(stream: Stream, bytes: &[u8]) {
    for payload in bytes.chunks(MAX_PAYLOAD_BYTES as usize) {
        post(stream, payload, core::iter::empty(), 0);
    }
}

/// Appends one record with what is at the `front` and then `parts`, `parts_bytes` together; all of it is at most
/// [`MAX_PAYLOAD_BYTES`].
pub(crate) fn post<'a>(stream: Stream, front: &[u8], parts: impl Iterator<Item = &'a [u8]>, parts_bytes: usize) {
    let header = Header { stream, payload_bytes: (front.len() + parts_bytes) as u32 };
    // SAFETY: RING_HEAD is a mapped, aligned word that only this kernel writes.
    let published = unsafe { &*(RING_HEAD.start as *const AtomicU64) };
    let head = published.load(Ordering::Relaxed);
    if head.wrapping_sub(guest::ring_tail()) + header.record_bytes() > RING_BYTES {
        hypercall::drain_output();
    }
    copy_in(head, &header.encode().to_le_bytes());
    let mut at = head.wrapping_add(HEADER_BYTES);
    copy_in(at, front);
    at = at.wrapping_add(front.len() as u64);
    for part in parts {
        copy_in(at, part);
        at = at.wrapping_add(part.len() as u64);
    }
    published.store(head.wrapping_add(header.record_bytes()), Ordering::Release);
}

fn copy_in(at: u64, mut bytes: &[u8]) {
    for (offset, length) in pieces(at, bytes.len() as u64) {
        let (now, later) = bytes.split_at(length as usize);
        let to = (RING_DATA.start + offset) as *mut u8;
        // SAFETY: `pieces` stays within the mapped ring, and the host does not look beyond the published head.
        unsafe { ptr::copy_nonoverlapping(now.as_ptr(), to, now.len()) };
        bytes = later;
    }
}

/// Text of bounded length on the stack: for the log, and for reports when the heap cannot be trusted.
pub(crate) struct Line<const BYTES: usize> {
    bytes: [u8; BYTES],
    len: usize,
}

impl<const BYTES: usize> Line<BYTES> {
    pub(crate) fn new(text: fmt::Arguments<'_>) -> Self {
        let mut line = Self { bytes: [0; BYTES], len: 0 };
        // Too long a text is cut: there is nothing better to do with it.
        let _cut = line.write_fmt(text);
        line
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}

impl<const BYTES: usize> fmt::Write for Line<BYTES> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            *self.bytes.get_mut(self.len).ok_or(fmt::Error)? = byte;
            self.len += 1;
        }
        Ok(())
    }
}

struct RingLog;

impl log::Log for RingLog {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.level() <= log::max_level() {
            let line = Line::<512>::new(format_args!("{}: {}", record.target(), record.args()));
            write(Stream::Log(record.level() as u8), line.as_bytes());
        }
    }

    fn flush(&self) {}
}

/// Sends the log to the host, up to `level`: 0 none … 5 trace.
pub(crate) fn init_log(level: u32) {
    static LOG: RingLog = RingLog;
    let filter = log::LevelFilter::iter().nth(level as usize).unwrap_or(log::LevelFilter::Trace);
    if log::set_logger(&LOG).is_ok() {
        log::set_max_level(filter);
    }
}
