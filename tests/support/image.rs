//! Builds ELF files as tests need them: a good kernel image, or one that is wrong in exactly one place.

use mote_abi::{ABI_VERSION, layout::IMAGE, note::NOTE_NAME, note::NOTE_TYPE_ABI, note::engine};
use object::elf::{EM_X86_64, ET_EXEC, PF_R, PF_W, PF_X, PT_LOAD, PT_NOTE};

/// Bytes of the ELF header, and of one program header (ELF specification, "ELF Header", "Program Header").
pub(crate) const HEADER_BYTES: usize = 64;
pub(crate) const PROGRAM_HEADER_BYTES: usize = 56;

/// Rights of a segment.
pub(crate) const R: u32 = PF_R.0;
pub(crate) const RW: u32 = PF_R.0 | PF_W.0;
pub(crate) const RX: u32 = PF_R.0 | PF_X.0;
pub(crate) const RWX: u32 = PF_R.0 | PF_W.0 | PF_X.0;

/// An ELF file to be: the fields are what is written, whether it makes sense or not.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) class: u8,
    pub(crate) byte_order: u8,
    pub(crate) file_type: u16,
    pub(crate) machine: u16,
    pub(crate) entry: u64,
    /// Version in the ABI note; no note if `None`.
    pub(crate) version: Option<u32>,
    /// The engine in that note.
    pub(crate) engine: u32,
    pub(crate) segments: Vec<Segment>,
}

/// A loadable segment.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) flags: u32,
    pub(crate) virtual_address: u64,
    pub(crate) physical_address: u64,
    pub(crate) memory_bytes: u64,
    /// `p_filesz` if it is not the length of the contents.
    pub(crate) file_bytes: Option<u64>,
    /// `p_offset` if it is not where the contents are.
    pub(crate) offset: Option<u64>,
    pub(crate) contents: Vec<u8>,
}

impl Segment {
    pub(crate) fn new(flags: u32, address: u64, contents: &[u8]) -> Self {
        Self {
            flags,
            virtual_address: address,
            physical_address: address,
            memory_bytes: contents.len() as u64,
            file_bytes: None,
            offset: None,
            contents: contents.to_vec(),
        }
    }
}

impl Image {
    /// A good image: `text` at the start of the image region, where it is entered.
    pub(crate) fn new(text: &[u8]) -> Self {
        Self {
            class: 2,
            byte_order: 1,
            file_type: ET_EXEC.0,
            machine: EM_X86_64.0,
            entry: IMAGE.start,
            version: Some(ABI_VERSION),
            engine: engine::INTERPRETER,
            segments: vec![Segment::new(RX, IMAGE.start, text)],
        }
    }

    /// The file: ELF header, program headers, note, contents of the segments.
    pub(crate) fn build(&self) -> Vec<u8> {
        let note = self.version.map(|version| note(version, self.engine));
        let headers = self.segments.len() + usize::from(note.is_some());
        let mut file = self.header(headers);
        let mut offset = HEADER_BYTES + headers * PROGRAM_HEADER_BYTES;
        let mut contents = Vec::new();
        if let Some(note) = note {
            let bytes = note.len() as u64;
            file.extend(program_header(PT_NOTE.0, R, [offset as u64, 0, 0, bytes, bytes]));
            contents.extend(note);
        }
        for segment in &self.segments {
            let at = segment.offset.unwrap_or((offset + contents.len()) as u64);
            let bytes = segment.file_bytes.unwrap_or(segment.contents.len() as u64);
            let places = [at, segment.virtual_address, segment.physical_address, bytes, segment.memory_bytes];
            file.extend(program_header(PT_LOAD.0, segment.flags, places));
            contents.extend(&segment.contents);
        }
        offset = file.len();
        debug_assert_eq!(offset, HEADER_BYTES + headers * PROGRAM_HEADER_BYTES);
        file.extend(contents);
        file
    }

    fn header(&self, program_headers: usize) -> Vec<u8> {
        let mut bytes = vec![0x7f, b'E', b'L', b'F', self.class, self.byte_order, 1, 0];
        bytes.extend([0; 8]);
        bytes.extend(self.file_type.to_le_bytes());
        bytes.extend(self.machine.to_le_bytes());
        bytes.extend(1u32.to_le_bytes());
        let (program_header_offset, section_header_offset) = (HEADER_BYTES as u64, 0u64);
        for word in [self.entry, program_header_offset, section_header_offset] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(0u32.to_le_bytes());
        let section_headers = [0, 0, 0];
        for half in [HEADER_BYTES, PROGRAM_HEADER_BYTES, program_headers].into_iter().chain(section_headers) {
            bytes.extend((half as u16).to_le_bytes());
        }
        bytes
    }
}

/// `places` are offset, virtual address, physical address, bytes in the file, bytes in memory.
fn program_header(kind: u32, flags: u32, places: [u64; 5]) -> Vec<u8> {
    let alignment = 1u64;
    let halves = [kind, flags].into_iter().flat_map(u32::to_le_bytes);
    halves.chain(places.into_iter().chain([alignment]).flat_map(u64::to_le_bytes)).collect()
}

/// The ABI note, padded as the ELF specification wants it.
pub(crate) fn note(version: u32, engine: u32) -> Vec<u8> {
    let head = [NOTE_NAME.len() as u32, 8, NOTE_TYPE_ABI].into_iter().flat_map(u32::to_le_bytes);
    head.chain(NOTE_NAME).chain([0; 3]).chain(version.to_le_bytes()).chain(engine.to_le_bytes()).collect()
}
