//! The kernel image: checked against the contract before anything of it is loaded.
//!
//! What is refused: another ABI version, segments outside of their regions, overlapping, writable and executable, or
//! beyond the end of the file, an entry that is not in executable memory.

use std::{
    fs::File,
    io::{Cursor, Read},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use linux_loader::loader::{Elf, KernelLoader};
use mote_abi::{
    ABI_VERSION,
    layout::{CHUNK_BYTES, IMAGE, KERNEL_DATA, PAGE_BYTES},
    note::{NOTE_NAME, NOTE_TYPE_ABI},
};
use mote_machine::paging::Access;
use object::{
    LittleEndian, elf,
    read::elf::{ElfFile64, FileHeader, ProgramHeader},
};
use thiserror::Error;
use vm_memory::GuestMemoryMmap;

use crate::memory::{Mapping, MemoryError};

/// A kernel image that cannot be used.
#[derive(Debug, Error)]
pub enum ImageError {
    /// The file could not be read.
    #[error("cannot read kernel image {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Not an ELF file of the right kind, or truncated.
    #[error("kernel image is no complete x86-64 ELF executable: {0}")]
    Malformed(String),
    /// No note with the ABI version.
    #[error("kernel image has no mote ABI note; it was not built as a kernel for mote")]
    NoVersion,
    /// Built for another version of the contract.
    #[error("kernel image speaks ABI version {found}, this VMM speaks {ABI_VERSION}; use the kernel that was built with it")]
    Version {
        /// The image's version.
        found: u32,
    },
    /// A segment that the contract does not allow.
    #[error("kernel image: segment {index} at {start:#x}, {bytes:#x} bytes, {what}")]
    Segment {
        /// Which program header, counted from 0.
        index: usize,
        /// First guest address.
        start: u64,
        /// Size in memory.
        bytes: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The entry point is not in an executable segment.
    #[error("kernel image: entry {entry:#x} is not in an executable segment")]
    Entry {
        /// The address.
        entry: u64,
    },
    /// No host memory for it.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// A read-only segment, loaded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) access: Access,
}

impl Segment {
    pub(crate) fn bytes(&self) -> u64 {
        self.end - self.start
    }
}

/// A kernel image in memory, shared by all VMs made from it.
#[derive(Debug)]
pub struct KernelImage {
    /// The region [`IMAGE`], which VMs see read-only.
    mapping: Mapping,
    segments: Vec<Segment>,
    /// Initial contents of the writable segment, and its size with what starts as zeros.
    data: Vec<u8>,
    data_bytes: u64,
    entry: u64,
    /// Of all that a guest sees of it.
    digest: OnceLock<blake3::Hash>,
}

/// How much of a file is read: an image with all its symbols is far smaller.
const MAX_FILE_BYTES: u64 = 256 << 20;
/// Bytes that are digested at a time.
const DIGEST_PIECE_BYTES: usize = 128 << 10;
/// From this size on a segment gets huge pages: clearing one costs less than so many faults.
const HUGE_FROM_BYTES: u64 = 1 << 20;

static EMBEDDED: &[u8] = include_bytes!(env!("MOTE_KERNEL_IMAGE"));

impl KernelImage {
    /// The kernel that was built with this crate; loaded once in a process.
    pub fn embedded() -> Result<Arc<Self>, ImageError> {
        static LOADED: OnceLock<Arc<KernelImage>> = OnceLock::new();
        if let Some(image) = LOADED.get() {
            return Ok(Arc::clone(image));
        }
        let image = Arc::new(Self::from_bytes(EMBEDDED)?);
        Ok(Arc::clone(LOADED.get_or_init(|| image)))
    }

    /// A kernel from a file.
    pub fn from_file(path: &Path) -> Result<Arc<Self>, ImageError> {
        let read_error = |source| ImageError::Read { path: path.into(), source };
        let mut bytes = Vec::new();
        File::open(path).map_err(read_error)?.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(read_error)?;
        Self::from_bytes(&bytes).map(Arc::new)
    }

    /// A kernel from the bytes of its ELF file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ImageError> {
        let plan = Plan::parse(bytes)?;
        let mapping = Mapping::anonymous("the kernel image", IMAGE.bytes())?;
        mapping.use_small_pages(0, IMAGE.bytes());
        for segment in plan.segments.iter().filter(|segment| segment.bytes() >= HUGE_FROM_BYTES) {
            let bytes = segment.bytes().next_multiple_of(CHUNK_BYTES);
            mapping.use_huge_pages(segment.start - IMAGE.start, bytes.min(IMAGE.end - segment.start));
        }
        let data = Mapping::anonymous("the kernel's data", KERNEL_DATA.bytes())?;
        // SAFETY: both mappings are anonymous and live to the end of this function, the regions do not.
        let regions = unsafe { vec![mapping.region(IMAGE.start)?, data.region(KERNEL_DATA.start)?] };
        let memory = GuestMemoryMmap::from_regions(regions).map_err(|error| MemoryError::Layout(error.to_string()))?;
        Elf::load(&memory, None, &mut Cursor::new(bytes), None).map_err(|error| ImageError::Malformed(error.to_string()))?;
        Ok(Self {
            mapping,
            segments: plan.segments,
            data: plan.data,
            data_bytes: plan.data_bytes,
            entry: plan.entry,
            digest: OnceLock::new(),
        })
    }

    pub(crate) fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    pub(crate) fn data(&self) -> &[u8] {
        &self.data
    }

    pub(crate) fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    pub(crate) fn entry(&self) -> u64 {
        self.entry
    }

    /// A digest of all that a guest sees of the image: who has the same one can go on with a snapshot.
    pub(crate) fn digest(&self) -> blake3::Hash {
        *self.digest.get_or_init(|| {
            let mut hasher = blake3::Hasher::new();
            // It hashes parts of 16 KiB side by side, if they come in one piece and begin at a multiple of 1 KiB.
            let mut piece = vec![0; DIGEST_PIECE_BYTES];
            for segment in &self.segments {
                for at in (segment.start..segment.end).step_by(piece.len()) {
                    let bytes = usize::try_from(segment.end - at).unwrap_or(usize::MAX).min(piece.len());
                    let Some(piece) = piece.get_mut(..bytes) else { continue };
                    // Segments lie in the mapping.
                    let _inside = self.mapping.read(at - IMAGE.start, piece);
                    hasher.update(piece);
                }
            }
            hasher.update(&self.data);
            // What tells where each part ends.
            for Segment { start, end, access } in &self.segments {
                hasher
                    .update(&start.to_le_bytes())
                    .update(&end.to_le_bytes())
                    .update(&[u8::from(*access == Access::UserReadExecute)]);
            }
            hasher.update(&self.entry.to_le_bytes()).update(&self.data_bytes.to_le_bytes());
            hasher.update(&(self.data.len() as u64).to_le_bytes());
            hasher.finalize()
        })
    }
}

/// What loading will do, checked.
struct Plan {
    segments: Vec<Segment>,
    data: Vec<u8>,
    data_bytes: u64,
    entry: u64,
}

impl Plan {
    fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let malformed = |error: object::Error| ImageError::Malformed(error.to_string());
        let file = ElfFile64::<LittleEndian>::parse(bytes).map_err(malformed)?;
        let header = file.elf_header();
        if header.e_machine(LittleEndian) != elf::EM_X86_64 || header.e_type(LittleEndian) != elf::ET_EXEC {
            return Err(ImageError::Malformed("it is not a static executable for x86-64".into()));
        }
        check_version(&file, bytes)?;

        let mut plan = Self { segments: Vec::new(), data: Vec::new(), data_bytes: 0, entry: header.e_entry(LittleEndian) };
        let mut taken: Vec<(u64, u64)> = Vec::new();
        for (index, segment) in file.elf_program_headers().iter().enumerate() {
            if segment.p_type(LittleEndian) != elf::PT_LOAD {
                continue;
            }
            let (start, memory_bytes) = (segment.p_vaddr(LittleEndian), segment.p_memsz(LittleEndian));
            let refuse = |what| ImageError::Segment { index, start, bytes: memory_bytes, what };
            let contents = segment.data(LittleEndian, bytes).map_err(|()| refuse("lies beyond the end of the file"))?;
            if contents.len() as u64 > memory_bytes {
                return Err(refuse("is larger in the file than in memory"));
            }
            if segment.p_paddr(LittleEndian) != start {
                return Err(refuse("has a physical address other than its virtual one"));
            }
            if !start.is_multiple_of(PAGE_BYTES) {
                return Err(refuse("does not begin on a page"));
            }
            let end = start.checked_add(memory_bytes).and_then(|end| end.checked_next_multiple_of(PAGE_BYTES));
            let end = end.ok_or_else(|| refuse("overflows the address space"))?;
            if taken.iter().any(|(other_start, other_end)| start < *other_end && *other_start < end) {
                return Err(refuse("overlaps another"));
            }
            taken.push((start, end));
            plan.add(segment.p_flags(LittleEndian), Segment { start, end, access: Access::UserRead }, contents, memory_bytes)
                .map_err(refuse)?;
        }
        let executable =
            |segment: &Segment| segment.access == Access::UserReadExecute && (segment.start..segment.end).contains(&plan.entry);
        if !plan.segments.iter().any(executable) {
            return Err(ImageError::Entry { entry: plan.entry });
        }
        Ok(plan)
    }

    fn add(
        &mut self,
        flags: elf::ProgramFlags,
        segment: Segment,
        contents: &[u8],
        memory_bytes: u64,
    ) -> Result<(), &'static str> {
        let range = (segment.start, segment.bytes());
        match (flags.contains(elf::PF_W), flags.contains(elf::PF_X)) {
            (true, true) => return Err("is writable and executable"),
            (true, false) if segment.start != KERNEL_DATA.start => {
                return Err("is writable and not at the start of the data region");
            }
            (true, false) if !KERNEL_DATA.contains_range(range.0, range.1) => return Err("does not fit into the data region"),
            (true, false) => {
                self.data = contents.to_vec();
                self.data_bytes = memory_bytes;
            }
            (false, _) if !IMAGE.contains_range(range.0, range.1) => return Err("is not in the image region"),
            (false, executable) => {
                let access = if executable { Access::UserReadExecute } else { Access::UserRead };
                self.segments.push(Segment { access, ..segment });
            }
        }
        Ok(())
    }
}

fn check_version(file: &ElfFile64<'_, LittleEndian>, bytes: &[u8]) -> Result<(), ImageError> {
    let malformed = |error: object::Error| ImageError::Malformed(error.to_string());
    for segment in file.elf_program_headers() {
        let Some(mut notes) = segment.notes(LittleEndian, bytes).map_err(malformed)? else { continue };
        while let Some(note) = notes.next().map_err(malformed)? {
            let ours = note.name() == NOTE_NAME.strip_suffix(b"\0").unwrap_or(&NOTE_NAME)
                && note.n_type(LittleEndian) == elf::NoteType(NOTE_TYPE_ABI);
            if let (true, Ok(version)) = (ours, note.desc().try_into()) {
                return match u32::from_le_bytes(version) {
                    ABI_VERSION => Ok(()),
                    found => Err(ImageError::Version { found }),
                };
            }
        }
    }
    Err(ImageError::NoVersion)
}
