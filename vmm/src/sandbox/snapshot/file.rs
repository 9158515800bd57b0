//! Snapshot files.
//!
//! ```text
//! header      128 bytes: what it is, sizes, digests of the metadata and of the header itself
//! metadata    JSON
//! zeros       to a multiple of 4096
//! data        the segments of RAM, then the archive of the ramdisk, each from a multiple of 4096 on
//! ```
//!
//! Digests are BLAKE3. Numbers of the header are little-endian. `docs/snapshots.md` describes the metadata.
//!
//! A file is hostile input. It gives RAM and nothing else: registers are those of an ordinary entry, and descriptor tables,
//! page tables, stubs and boot information are written anew. Of RAM, what this process itself touches while it runs the guest
//! is copied out of the file; the rest is mapped.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
};

use mote_abi::{cpu, layout::PAGE_BYTES};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// First bytes of a file.
pub(crate) const MAGIC: [u8; 8] = *b"motesnap";
/// Version of the format.
pub(super) const FORMAT_VERSION: u32 = 1;
/// Bytes of data for which there is one digest.
pub(super) const DIGEST_BYTES: u64 = 1 << 20;
/// Longest metadata.
pub(super) const MAX_METADATA_BYTES: u64 = 64 << 20;
/// What a file begins with.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Header {
    pub(super) magic: [u8; 8],
    pub(super) version: u32,
    pub(super) reserved: u32,
    pub(super) metadata_bytes: u64,
    pub(super) data_offset: u64,
    pub(super) data_bytes: u64,
    pub(super) padding: [u8; 24],
    pub(super) metadata_digest: [u8; 32],
    /// Of all before it.
    pub(super) header_digest: [u8; 32],
}

pub(super) const HEADER_BYTES: usize = size_of::<Header>();
const _: () = assert!(HEADER_BYTES == 128);

/// Where the data of a file with so much metadata begins.
pub(super) fn data_offset(metadata_bytes: u64) -> u64 {
    (HEADER_BYTES as u64 + metadata_bytes).next_multiple_of(PAGE_BYTES)
}

/// What the kernel was told of the processor, by which it may have chosen code: that its counter is invariant, and features, as
/// [`cpu::FEATURES`] numbers them.
pub(super) fn cpu_features(invariant_tsc: bool, features: u64) -> Vec<String> {
    let features = cpu::FEATURES.iter().filter(|feature| features & cpu::bit(feature.name) != 0);
    let names = invariant_tsc.then_some(INVARIANT_TSC).into_iter().chain(features.map(|feature| feature.name));
    names.map(String::from).collect()
}

/// The name of an invariant counter among the features.
pub(super) const INVARIANT_TSC: &str = "invariant-tsc";

impl Header {
    pub(super) fn digest(&self) -> [u8; 32] {
        let bytes = self.as_bytes();
        *blake3::hash(bytes.get(..HEADER_BYTES - blake3::OUT_LEN).unwrap_or(bytes)).as_bytes()
    }
}

/// Copies a part of a file.
pub(super) fn copy_from(file: &File, mut from: u64, bytes: u64, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let mut left = bytes;
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let part = buffer.get_mut(..length).unwrap_or(&mut []);
        file.read_exact_at(part, from)?;
        to.write_all(part)?;
        from += length as u64;
        left -= length as u64;
    }
    Ok(())
}

/// Digests of what was written, one for each [`DIGEST_BYTES`].
#[derive(Default)]
pub(super) struct Digests {
    hasher: blake3::Hasher,
    in_hasher: u64,
    done: Vec<String>,
}

impl Digests {
    pub(super) fn finish(mut self) -> Vec<String> {
        if self.in_hasher > 0 {
            self.done.push(self.hasher.finalize().to_string());
        }
        self.done
    }
}

impl Write for Digests {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = usize::try_from(DIGEST_BYTES - self.in_hasher).unwrap_or(usize::MAX);
        let now = bytes.get(..room.min(bytes.len())).unwrap_or(bytes);
        self.hasher.update(now);
        self.in_hasher += now.len() as u64;
        if self.in_hasher == DIGEST_BYTES {
            self.done.push(self.hasher.finalize().to_string());
            self.hasher.reset();
            self.in_hasher = 0;
        }
        Ok(now.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file whose contents are digested as they are written.
pub(super) struct Digesting<W> {
    pub(super) file: W,
    pub(super) digests: Digests,
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.digests.write_all(bytes.get(..written).unwrap_or(bytes))?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
