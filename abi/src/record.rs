//! What a kernel that runs without a VMM tells a machine beside it: records on a second channel, as a serial line.
//!
//! The console has the program's output and nothing else can be told from it: an exit status, why a program trapped, what the machine
//! lacks. So these go through a channel of their own, in records that stand out from whatever else is on a line: a header and its
//! payload. In the other direction the only record is [`InputEnd`], as a serial line has no end of its own.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// First field of a [`RecordHeader`].
pub const RECORD_MAGIC: [u8; 8] = *b"moteREC\n";
/// First field of an [`InputEnd`].
pub const INPUT_END_MAGIC: [u8; 8] = *b"moteEOF\n";
/// Most bytes that a payload can have: [`crate::hypercall::ExitArgs`] and as many texts as fit into a mailbox.
pub const MAX_RECORD_BYTES: u32 = (size_of::<crate::hypercall::ExitArgs>() + crate::mailbox::DATA_BYTES) as u32;

/// What stands before the payload of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RecordHeader {
    /// [`RECORD_MAGIC`].
    pub magic: [u8; 8],
    /// One of [`kind`].
    pub kind: u32,
    /// Bytes that follow; at most [`MAX_RECORD_BYTES`].
    pub payload_bytes: u32,
    /// [`Crc32`] of them.
    pub checksum: u32,
    /// Zero.
    pub reserved: u32,
}

/// Values of [`RecordHeader::kind`].
pub mod kind {
    /// The run ended: a [`crate::hypercall::ExitArgs`] and the texts that it tells of.
    pub const EXIT: u32 = 1;
    /// The machine cannot run anything, or the kernel did what it must not: a text in UTF-8.
    pub const FAILURE: u32 = 2;
    /// [`super::Phases`].
    pub const PHASES: u32 = 3;
}

/// Time-stamp counter at the ends of the phases before a kernel is entered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Phases {
    /// The first instruction.
    pub entered: u64,
    /// In long mode.
    pub long_mode: u64,
    /// What the loader gave is known, the console works, boot modules lie where they can be mapped.
    pub loaded: u64,
    /// The rate of the counter and the time of day are known.
    pub clock: u64,
    /// Page tables, descriptor tables, boot information are there.
    pub tables: u64,
}

/// That no more than this comes through the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct InputEnd {
    /// [`INPUT_END_MAGIC`].
    pub magic: [u8; 8],
    /// How many bytes there were.
    pub total_bytes: u64,
}

/// CRC-32 as in Ethernet and zlib (ISO 3309), of bytes that come in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crc32(u32);

impl Crc32 {
    /// Of nothing yet.
    pub const fn new() -> Self {
        Self(u32::MAX)
    }

    /// With these bytes behind those before.
    #[must_use]
    pub const fn with(self, bytes: &[u8]) -> Self {
        let mut remainder = self.0;
        let mut rest = bytes;
        // Bit by bit: a record is short, and its line is slower.
        while let [byte, more @ ..] = rest {
            remainder ^= *byte as u32;
            let mut bit = 0;
            while bit < 8 {
                let polynomial = if remainder & 1 == 1 { 0xedb8_8320 } else { 0 };
                remainder = remainder >> 1 ^ polynomial;
                bit += 1;
            }
            rest = more;
        }
        Self(remainder)
    }

    /// The checksum.
    pub const fn finish(self) -> u32 {
        !self.0
    }
}

impl Default for Crc32 {
    fn default() -> Self {
        Self::new()
    }
}

const _: () = {
    assert!(size_of::<RecordHeader>() == 24 && size_of::<InputEnd>() == 16 && size_of::<Phases>() == 40);
    // The check value that catalogues of such codes give.
    assert!(Crc32::new().with(b"123456789").finish() == 0xcbf4_3926);
};
