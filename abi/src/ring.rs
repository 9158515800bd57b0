//! The ring: how output and writes to files reach the host without exits.
//!
//! The guest appends records to [`crate::layout::RING_DATA`] and then publishes the new head; the host takes records
//! and publishes the new tail in [`crate::boot::HostStatus`]. Head and tail count bytes ever written and taken, so their
//! difference is what lies in the ring. A record is a four-byte header and its payload, padded to four bytes; it may
//! wrap around the end of the ring. This module has the arithmetic; moving the bytes is left to each side.

use crate::layout::RING_DATA;

/// Bytes of the ring.
pub const RING_BYTES: u64 = RING_DATA.bytes();
/// Largest payload of one record: half the ring, so that one can be written while another is taken.
pub const MAX_PAYLOAD_BYTES: u32 = (RING_BYTES / 2) as u32 - HEADER_BYTES as u32;
/// Bytes of a record's header.
pub const HEADER_BYTES: u64 = 4;

/// What a record carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A write to a file: a [`crate::hypercall::files::PostedWrite`] and the bytes.
    Write,
    /// A handle that is given back: four bytes.
    Close,
    /// A line of the kernel's log with its level: 1 error … 5 trace.
    Log(u8),
}

impl Stream {
    const fn code(self) -> u32 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
            Self::Write => 3,
            Self::Close => 4,
            Self::Log(level) => 0x10 | (level as u32 & 0xf),
        }
    }

    const fn from_code(code: u32) -> Option<Self> {
        match code {
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            3 => Some(Self::Write),
            4 => Some(Self::Close),
            0x11..=0x15 => Some(Self::Log((code & 0xf) as u8)),
            _ => None,
        }
    }
}

/// The header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Whose bytes follow.
    pub stream: Stream,
    /// How many; at most [`MAX_PAYLOAD_BYTES`].
    pub payload_bytes: u32,
}

impl Header {
    /// The header as it lies in the ring: stream in the low byte, length above it.
    pub const fn encode(self) -> u32 {
        self.payload_bytes << 8 | self.stream.code()
    }

    /// Reads a header; `None` if it is none that [`Header::encode`] makes.
    pub const fn decode(word: u32) -> Option<Self> {
        let payload_bytes = word >> 8;
        match Stream::from_code(word & 0xff) {
            Some(stream) if payload_bytes <= MAX_PAYLOAD_BYTES => Some(Self { stream, payload_bytes }),
            _ => None,
        }
    }

    /// Bytes of the whole record, padding included.
    pub const fn record_bytes(self) -> u64 {
        HEADER_BYTES + (self.payload_bytes as u64).next_multiple_of(4)
    }
}

/// How many bytes lie in the ring; `None` if head and tail cannot belong together.
pub const fn used_bytes(head: u64, tail: u64) -> Option<u64> {
    let used = head.wrapping_sub(tail);
    if used <= RING_BYTES && used.is_multiple_of(4) { Some(used) } else { None }
}

/// The pieces, as offset and length, that `bytes` bytes from position `at` occupy: one, or two around the end.
pub const fn pieces(at: u64, bytes: u64) -> [(u64, u64); 2] {
    let offset = at % RING_BYTES;
    let room = RING_BYTES - offset;
    let first = if bytes < room { bytes } else { room };
    [(offset, first), (0, bytes - first)]
}

const _: () = assert!(RING_BYTES.is_power_of_two() && (RING_BYTES / 2) < 1 << 24);

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn headers_survive(code in prop::sample::select(std::vec![1u32, 2, 3, 4, 0x11, 0x15]), bytes in 0..=MAX_PAYLOAD_BYTES) {
            let header = Header { stream: Stream::from_code(code).unwrap(), payload_bytes: bytes };
            prop_assert_eq!(Header::decode(header.encode()), Some(header));
        }

        #[test]
        fn any_word_decodes_to_what_fits_or_nothing(word: u32) {
            if let Some(header) = Header::decode(word) {
                prop_assert!(header.record_bytes() <= RING_BYTES / 2);
            }
        }

        #[test]
        fn pieces_cover_and_stay_inside(at: u64, bytes in 0..=RING_BYTES) {
            let [(first, first_bytes), (second, second_bytes)] = pieces(at, bytes);
            prop_assert_eq!(first_bytes + second_bytes, bytes);
            prop_assert!(first + first_bytes <= RING_BYTES && second + second_bytes <= first);
        }

        #[test]
        fn used_is_never_more_than_the_ring(head: u64, tail: u64) {
            prop_assert!(used_bytes(head, tail).is_none_or(|used| used <= RING_BYTES));
        }
    }
}
