//! Snapshot files taken apart, changed, and put together with digests that are right.

use std::{fs, path::Path};

use serde_json::Value;

const HEADER_BYTES: usize = 128;
const PAGE_BYTES: usize = 4096;
const DIGEST_BYTES: usize = 1 << 20;

/// Offsets of the header's fields.
const VERSION: usize = 8;
const METADATA_BYTES: usize = 16;
const DATA_OFFSET: usize = 24;
const DATA_BYTES: usize = 32;
const METADATA_DIGEST: usize = 64;
const HEADER_DIGEST: usize = 96;

/// A file, taken apart.
#[derive(Debug, Clone)]
pub(crate) struct Forgery {
    pub(crate) metadata: Value,
    pub(crate) data: Vec<u8>,
}

impl Forgery {
    pub(crate) fn of(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        assert_eq!(&bytes[..8], b"motesnap");
        let metadata = serde_json::from_slice(&bytes[HEADER_BYTES..HEADER_BYTES + number(METADATA_BYTES)]).unwrap();
        let data = bytes[number(DATA_OFFSET)..number(DATA_OFFSET) + number(DATA_BYTES)].to_vec();
        Self { metadata, data }
    }

    /// Digests of the data as they are.
    pub(crate) fn digest_data(&mut self) {
        let digests = self.data.chunks(DIGEST_BYTES).map(|part| Value::from(blake3::hash(part).to_string()));
        self.metadata["digests"] = digests.collect::<Vec<_>>().into();
    }

    /// Writes the file with the digests of header and metadata.
    pub(crate) fn write(&self, path: &Path) {
        write(path, &serde_json::to_vec(&self.metadata).unwrap(), &self.data);
    }

    /// The number in the metadata that this pointer of RFC 6901 means.
    pub(crate) fn number(&self, pointer: &str) -> u64 {
        self.metadata.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("{pointer} is no number"))
    }

    /// Sets what this pointer means.
    pub(crate) fn set(&mut self, pointer: &str, value: impl Into<Value>) {
        *self.metadata.pointer_mut(pointer).unwrap_or_else(|| panic!("there is no {pointer}")) = value.into();
    }

    /// Adds an element to a list.
    pub(crate) fn push(&mut self, pointer: &str, value: impl Into<Value>) {
        self.metadata.pointer_mut(pointer).unwrap().as_array_mut().unwrap().push(value.into());
    }

    /// Where in the data guest-physical memory lies that is a part of the file.
    pub(crate) fn offset_of(&self, address: u64) -> Option<usize> {
        let segments = self.metadata["segments"].as_array().unwrap();
        segments.iter().find_map(|segment| {
            let [start, bytes, from] = ["start", "bytes", "from"].map(|name| segment[name].as_u64().unwrap());
            let inside = (start..start + bytes).contains(&address);
            inside.then(|| (from + (address - start)) as usize)
        })
    }
}

/// Writes a file with this metadata, whatever it is, and digests of header and metadata that are right.
pub(crate) fn write(path: &Path, metadata: &[u8], data: &[u8]) {
    fs::write(path, with_header(metadata, data, |_| ())).unwrap();
}

/// The bytes of a file whose header was changed by `change` before it got its digest.
pub(crate) fn with_header(metadata: &[u8], data: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let data_offset = (HEADER_BYTES + metadata.len()).next_multiple_of(PAGE_BYTES);
    let mut bytes = vec![0; data_offset];
    bytes[..8].copy_from_slice(b"motesnap");
    bytes[VERSION..VERSION + 4].copy_from_slice(&1u32.to_le_bytes());
    for (at, number) in [(METADATA_BYTES, metadata.len()), (DATA_OFFSET, data_offset), (DATA_BYTES, data.len())] {
        set_number(&mut bytes, at, number as u64);
    }
    bytes[METADATA_DIGEST..HEADER_DIGEST].copy_from_slice(blake3::hash(metadata).as_bytes());
    change(&mut bytes[..HEADER_DIGEST]);
    let digest = blake3::hash(&bytes[..HEADER_DIGEST]);
    bytes[HEADER_DIGEST..HEADER_BYTES].copy_from_slice(digest.as_bytes());
    bytes[HEADER_BYTES..HEADER_BYTES + metadata.len()].copy_from_slice(metadata);
    bytes.extend(data);
    bytes
}

fn set_number(bytes: &mut [u8], at: usize, number: u64) {
    bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
}

/// Changes of headers.
pub(crate) mod header {
    use super::set_number;

    pub(crate) fn version(header: &mut [u8], version: u32) {
        header[super::VERSION..super::VERSION + 4].copy_from_slice(&version.to_le_bytes());
    }

    pub(crate) fn metadata_bytes(header: &mut [u8], bytes: u64) {
        set_number(header, super::METADATA_BYTES, bytes);
    }

    pub(crate) fn data_offset(header: &mut [u8], offset: u64) {
        set_number(header, super::DATA_OFFSET, offset);
    }

    pub(crate) fn data_bytes(header: &mut [u8], bytes: u64) {
        set_number(header, super::DATA_BYTES, bytes);
    }
}
