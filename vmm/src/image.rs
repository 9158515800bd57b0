//! The kernel image: checked against the contract before anything of it is loaded.
//!
//! What is refused: another ABI version, segments outside of their regions, overlapping, writable and executable, or
//! beyond the end of the file, an entry that is not in executable memory.

use std::{
    fs::File,
    io::{Cursor, Read},
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use linux_loader::loader::{Elf, KernelLoader};
use mote_abi::{
    ABI_VERSION,
    layout::{CHUNK_BYTES, IMAGE, KERNEL_DATA, MONITOR, PAGE_BYTES, Region},
    note::{NOTE_NAME, NOTE_TYPE_ABI, engine},
};
use mote_machine::{paging::Access, space};
use object::{
    LittleEndian, elf,
    read::elf::{ElfFile64, FileHeader, ProgramHeader},
};
use thiserror::Error;
use vm_memory::GuestMemoryMmap;

#[cfg(feature = "gdb")]
use crate::memory::Source;
use crate::{
    cpu,
    memory::{Mapping, MemoryError, Pages},
    module::Module,
};

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
    /// There is no kernel for compiled modules in this build.
    #[error("this program was built without the engine for compiled modules (the feature `compiled`)")]
    NotBuiltIn,
    /// No host memory for it.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// A read-only segment, loaded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Bytes of it that the file has; what follows means nothing.
    filled: u64,
    pub(crate) access: Access,
}

impl Segment {
    pub(crate) fn bytes(&self) -> u64 {
        self.end - self.start
    }

    /// As it is mapped.
    pub(crate) fn pages(&self) -> space::Segment {
        space::Segment { start: self.start, end: self.end, access: self.access }
    }
}

/// A kernel image in memory, shared by all VMs made from it.
#[derive(Debug)]
pub struct KernelImage {
    /// What VMs see of it read-only, by guest address: the whole region [`IMAGE`], or each segment.
    mappings: Vec<(u64, Mapping)>,
    /// For an image that is used in place: what further VMs see instead.
    copy: Option<CopyForMore>,
    segments: Vec<Segment>,
    /// Initial contents of the writable segment, and its size with what starts as zeros.
    data: Vec<u8>,
    data_bytes: u64,
    entry: u64,
    /// Whether modules have to be compiled for it.
    runs_compiled: bool,
    /// Of all that a guest sees of it.
    digest: OnceLock<blake3::Hash>,
}

/// A copy with its text in large pages, which an image that is used in place gets with its second VM. A process that makes one
/// VM is quicker without it; each further VM is spared a fault for each small page that its kernel touches.
#[derive(Debug)]
struct CopyForMore {
    pages: &'static Pages<[u8]>,
    has_vm: AtomicBool,
    mappings: OnceLock<Option<Vec<(u64, Mapping)>>>,
}

impl CopyForMore {
    /// For the next VM; `None` for the first one, and where there is no memory for it.
    fn mappings(&self) -> Option<&[(u64, Mapping)]> {
        if !self.has_vm.swap(true, Ordering::Relaxed) {
            return None;
        }
        let copy = || Some(vec![load(&self.pages.0, &Plan::parse(&self.pages.0).ok()?).ok()?]);
        self.mappings.get_or_init(copy).as_deref()
    }
}

/// What an image keeps free for a monitor, where it starts without a VMM: base RAM behind its data, tables, memory of its own.
const RESERVED: Region = Region { start: KERNEL_DATA.end, end: MONITOR.end };
/// How much of a file is read: an image with all its symbols is far smaller.
const MAX_FILE_BYTES: u64 = 256 << 20;
/// Bytes that are digested at a time.
const DIGEST_PIECE_BYTES: usize = 128 << 10;
/// From this size on a segment gets huge pages: clearing one costs less than so many faults.
const HUGE_FROM_BYTES: u64 = 512 << 10;

static EMBEDDED: &[u8] = include_bytes!(env!("MOTE_KERNEL_IMAGE"));
#[cfg(feature = "compiled")]
static EMBEDDED_COMPILED: Option<&Pages<[u8]>> = Some(&Pages(*include_bytes!(env!("MOTE_COMPILED_KERNEL_IMAGE"))));
#[cfg(not(feature = "compiled"))]
static EMBEDDED_COMPILED: Option<&Pages<[u8]>> = None;

impl KernelImage {
    /// The kernel that was built with this crate; loaded once in a process.
    pub fn embedded() -> Result<Arc<Self>, ImageError> {
        static LOADED: OnceLock<Arc<KernelImage>> = OnceLock::new();
        once(&LOADED, || Self::from_bytes(EMBEDDED))
    }

    /// The kernel for compiled modules that was built with this crate; loaded once in a process. `None` if it was built without.
    pub fn embedded_compiled() -> Result<Option<Arc<Self>>, ImageError> {
        static LOADED: OnceLock<Arc<KernelImage>> = OnceLock::new();
        EMBEDDED_COMPILED.map(|pages| once(&LOADED, || Self::in_place(pages))).transpose()
    }

    /// The ELF file of the kernel that was built with this crate: what boots without a VMM. The one for compiled modules is `None`
    /// if the crate was built without.
    pub fn embedded_file(for_compiled: bool) -> Option<&'static [u8]> {
        if for_compiled { EMBEDDED_COMPILED.map(|pages| &pages.0) } else { Some(EMBEDDED) }
    }

    /// The kernel that is built in for a module.
    pub(crate) fn embedded_for(module: &Module) -> Result<Arc<Self>, ImageError> {
        if module.is_compiled() { Self::embedded_compiled()?.ok_or(ImageError::NotBuiltIn) } else { Self::embedded() }
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
        let mapping = load(bytes, &plan)?;
        Ok(plan.image(vec![mapping], None))
    }

    /// A kernel whose read-only segments are used where they are, in the program: nothing is copied before the second VM, and all
    /// processes share it.
    #[cfg_attr(not(feature = "compiled"), allow(dead_code, reason = "the other kernel gets huge pages"))]
    fn in_place(pages: &'static Pages<[u8]>) -> Result<Self, ImageError> {
        let plan = Plan::parse(&pages.0)?;
        let malformed = || ImageError::Malformed("a segment does not begin on a page of the file".into());
        let map = |(segment, part): (&Segment, &Range<usize>)| {
            let mapping = Mapping::of_pages(pages, part).ok_or_else(malformed)?;
            mapping.populate_to_read(0, mapping.bytes());
            Ok((segment.start, mapping))
        };
        let mappings = plan.segments.iter().zip(&plan.parts).map(map).collect::<Result<_, ImageError>>()?;
        let copy = CopyForMore { pages, has_vm: AtomicBool::new(false), mappings: OnceLock::new() };
        Ok(plan.image(mappings, Some(copy)))
    }

    /// The same in memory of its own, which the host can write: what a debugger changes is seen by one VM alone.
    #[cfg(feature = "gdb")]
    pub(crate) fn unshared(&self) -> Result<Self, MemoryError> {
        let contents = self.segments.iter().map(|segment| (segment.start, self.contents(segment))).collect();
        let Self { segments, data, data_bytes, entry, runs_compiled, .. } = self;
        let (segments, data) = (segments.clone(), data.clone());
        let plan =
            Plan { segments, parts: Vec::new(), data, data_bytes: *data_bytes, entry: *entry, runs_compiled: *runs_compiled };
        plan.in_memory(contents)
    }

    /// An image that has this code and nothing else.
    #[cfg(feature = "gdb")]
    pub(crate) fn of_code(code: &[u8]) -> Result<Self, MemoryError> {
        let (start, filled) = (IMAGE.start, code.len() as u64);
        let end = start + filled.next_multiple_of(PAGE_BYTES);
        let segments = vec![Segment { start, end, filled, access: Access::UserReadExecute }];
        let (parts, data) = (Vec::new(), Vec::new());
        let plan = Plan { segments, parts, data, data_bytes: PAGE_BYTES, entry: start, runs_compiled: false };
        plan.in_memory(vec![(start, code.to_vec())])
    }

    /// What VMs see of an image that is in memory of its own, and its address.
    #[cfg(feature = "gdb")]
    pub(crate) fn own_mapping(&self) -> Option<(u64, &Mapping)> {
        self.mappings.first().map(|(start, mapping)| (*start, mapping))
    }

    /// What the file has of a segment.
    #[cfg(feature = "gdb")]
    fn contents(&self, segment: &Segment) -> Vec<u8> {
        let mut contents = vec![0; usize::try_from(segment.filled).unwrap_or(0)];
        let mapping = self.mappings.iter().rev().find(|(start, _)| *start <= segment.start);
        let _inside = mapping.map(|(start, mapping)| mapping.read(segment.start - start, &mut contents));
        contents
    }

    /// For one more VM.
    pub(crate) fn mappings(&self) -> &[(u64, Mapping)] {
        self.copy.as_ref().and_then(CopyForMore::mappings).unwrap_or(&self.mappings)
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

    /// Whether it runs compiled modules, and no others.
    pub fn runs_compiled(&self) -> bool {
        self.runs_compiled
    }

    /// The features of the processor that it is told of: an interpreter uses none.
    pub(crate) fn cpu_features(&self) -> u64 {
        if self.runs_compiled { cpu::features() } else { 0 }
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
                let end = segment.start + segment.filled;
                for at in (segment.start..end).step_by(piece.len()) {
                    let bytes = usize::try_from(end - at).unwrap_or(usize::MAX).min(piece.len());
                    let Some(piece) = piece.get_mut(..bytes) else { continue };
                    // Each segment lies in a mapping, and begins no page that it does not fill.
                    let mapping = self.mappings.iter().rev().find(|(start, _)| *start <= at);
                    let _inside = mapping.map(|(start, mapping)| mapping.read(at - start, piece));
                    hasher.update(piece);
                }
            }
            hasher.update(&self.data);
            // What tells where each part ends.
            for Segment { start, end, access, .. } in &self.segments {
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

/// What is loaded already, or is now.
fn once(
    loaded: &OnceLock<Arc<KernelImage>>,
    load: impl FnOnce() -> Result<KernelImage, ImageError>,
) -> Result<Arc<KernelImage>, ImageError> {
    if let Some(image) = loaded.get() {
        return Ok(Arc::clone(image));
    }
    let image = Arc::new(load()?);
    Ok(Arc::clone(loaded.get_or_init(|| image)))
}

/// The region [`IMAGE`] with the read-only segments of an ELF file, in memory of its own.
fn load(bytes: &[u8], plan: &Plan) -> Result<(u64, Mapping), ImageError> {
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
    Ok((IMAGE.start, mapping))
}

/// What loading will do, checked.
struct Plan {
    segments: Vec<Segment>,
    /// Where each of them lies in the file.
    parts: Vec<Range<usize>>,
    data: Vec<u8>,
    data_bytes: u64,
    entry: u64,
    runs_compiled: bool,
}

impl Plan {
    fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let malformed = |error: object::Error| ImageError::Malformed(error.to_string());
        let file = ElfFile64::<LittleEndian>::parse(bytes).map_err(malformed)?;
        let header = file.elf_header();
        if header.e_machine(LittleEndian) != elf::EM_X86_64 || header.e_type(LittleEndian) != elf::ET_EXEC {
            return Err(ImageError::Malformed("it is not a static executable for x86-64".into()));
        }
        let runs_compiled = check_note(&file, bytes)? == engine::COMPILED;

        let entry = header.e_entry(LittleEndian);
        let mut plan = Self { segments: Vec::new(), parts: Vec::new(), data: Vec::new(), data_bytes: 0, entry, runs_compiled };
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
            let filled = contents.len() as u64;
            let (offset, _) = segment.file_range(LittleEndian);
            let part = usize::try_from(offset).map(|offset| offset..offset.saturating_add(contents.len()));
            let part = part.map_err(|_| refuse("lies beyond the end of the file"))?;
            let segment_of = Segment { start, end, filled, access: Access::UserRead };
            plan.add(segment.p_flags(LittleEndian), segment_of, contents, part, memory_bytes).map_err(refuse)?;
        }
        let executable =
            |segment: &Segment| segment.access == Access::UserReadExecute && (segment.start..segment.end).contains(&plan.entry);
        if !plan.segments.iter().any(executable) {
            return Err(ImageError::Entry { entry: plan.entry });
        }
        Ok(plan)
    }

    /// The image with these contents, by their addresses, in memory of its own.
    #[cfg(feature = "gdb")]
    fn in_memory(self, contents: Vec<(u64, Vec<u8>)>) -> Result<KernelImage, MemoryError> {
        let mapping = Mapping::anonymous("the kernel image", IMAGE.bytes())?;
        for (start, bytes) in contents {
            let _inside = mapping.make_equal(start - IMAGE.start, bytes.len() as u64, Source::Bytes(&bytes));
        }
        Ok(self.image(vec![(IMAGE.start, mapping)], None))
    }

    /// The image of which VMs see these mappings.
    fn image(self, mappings: Vec<(u64, Mapping)>, copy: Option<CopyForMore>) -> KernelImage {
        let Self { segments, parts: _, data, data_bytes, entry, runs_compiled } = self;
        KernelImage { mappings, copy, segments, data, data_bytes, entry, runs_compiled, digest: OnceLock::new() }
    }

    fn add(
        &mut self,
        flags: elf::ProgramFlags,
        segment: Segment,
        contents: &[u8],
        part: Range<usize>,
        memory_bytes: u64,
    ) -> Result<(), &'static str> {
        let range = (segment.start, segment.bytes());
        match (flags.contains(elf::PF_W), flags.contains(elf::PF_X)) {
            (true, true) => return Err("is writable and executable"),
            // Keeps other loaders from putting something there; in a VM nothing is.
            (true, false) if contents.is_empty() && RESERVED.contains_range(range.0, range.1) => {}
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
                self.parts.push(part);
            }
        }
        Ok(())
    }
}

/// The engine that the image has, if it is of the right version.
fn check_note(file: &ElfFile64<'_, LittleEndian>, bytes: &[u8]) -> Result<u32, ImageError> {
    let malformed = |error: object::Error| ImageError::Malformed(error.to_string());
    for segment in file.elf_program_headers() {
        let Some(mut notes) = segment.notes(LittleEndian, bytes).map_err(malformed)? else { continue };
        while let Some(note) = notes.next().map_err(malformed)? {
            let ours = note.name() == NOTE_NAME.strip_suffix(b"\0").unwrap_or(&NOTE_NAME)
                && note.n_type(LittleEndian) == elf::NoteType(NOTE_TYPE_ABI);
            // Version 3 and earlier had no engine.
            if let (true, (Some(version), engine)) = (ours, (word(note.desc(), 0), word(note.desc(), 1))) {
                return match (version, engine) {
                    (ABI_VERSION, Some(engine @ (engine::INTERPRETER | engine::COMPILED))) => Ok(engine),
                    (ABI_VERSION, _) => Err(ImageError::Malformed("its ABI note names no engine".into())),
                    (found, _) => Err(ImageError::Version { found }),
                };
            }
        }
    }
    Err(ImageError::NoVersion)
}

/// The 32-bit word number `index` of a note.
fn word(descriptor: &[u8], index: usize) -> Option<u32> {
    descriptor.as_chunks().0.get(index).map(|bytes| u32::from_le_bytes(*bytes))
}
