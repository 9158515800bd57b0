//! Output: takes records out of the ring and sends them to the console.

use mote_abi::{
    boot::status_offset,
    layout::{HOST_STATUS, RING_DATA, RING_HEAD},
    ring::{HEADER_BYTES, Header, Stream, pieces, used_bytes},
};

use super::{Monitor, memory::View};

/// Names of the levels of the log.
const LEVELS: [&str; 6] = ["", "ERROR", "WARN", "INFO", "DEBUG", "TRACE"];

/// Something in the ring that no kernel of ours puts there.
pub(super) struct Corrupted(pub(super) &'static str);

/// Empties the ring.
pub(super) fn drain(monitor: &mut Monitor) -> Result<(), Corrupted> {
    let head: u64 = View::load(RING_HEAD.start);
    let mut tail = monitor.machine.ring_tail;
    let mut used = used_bytes(head, tail).ok_or(Corrupted("its head is nowhere in it"))?;
    while used > 0 {
        let header = Header::decode(word(tail)).filter(|header| header.record_bytes() <= used);
        let header = header.ok_or(Corrupted("a record that cannot be"))?;
        let payload = pieces(tail.wrapping_add(HEADER_BYTES), u64::from(header.payload_bytes))
            .map(|(offset, bytes)| View::slice(RING_DATA.start + offset, bytes as usize));
        match header.stream {
            Stream::Stdout | Stream::Stderr => payload.iter().for_each(|piece| monitor.console.write(piece)),
            Stream::Log(level) => {
                let level = LEVELS.get(usize::from(level)).unwrap_or(&"");
                for piece in [b"mote: ", level.as_bytes(), b" "].into_iter().chain(payload).chain([&b"\n"[..]]) {
                    monitor.console.write(piece);
                }
            }
            // There are no files.
            Stream::Write | Stream::Close => return Err(Corrupted("a handle that was never given")),
        }
        used -= header.record_bytes();
        tail = tail.wrapping_add(header.record_bytes());
        monitor.machine.ring_tail = tail;
    }
    View::store(HOST_STATUS.start + status_offset::RING_TAIL, tail);
    Ok(())
}

/// The same at an end that has a worse reason.
pub(super) fn drain_what_is_there(monitor: &mut Monitor) {
    if monitor.machine.is_built {
        let _told_already = drain(monitor);
    }
}

/// The header at a position. One never wraps around, as records are multiples of its size.
fn word(at: u64) -> u32 {
    let [(offset, _), _] = pieces(at, HEADER_BYTES);
    View::load(RING_DATA.start + offset)
}
