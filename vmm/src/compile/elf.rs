//! What an artifact says about itself. It is input: every number is checked, and no more is read than has a bound.
//!
//! The format is that of wasmtime: an ELF file whose header and sections `wasmtime_environ::obj` describes. The section
//! `.wasmtime.engine` begins with a byte 0 and the version, and goes on in the encoding `postcard` with `Metadata` of
//! wasmtime's `engine/serialization.rs`: target, flags of compiler and processor, and what the code was tuned for. That part
//! is only read if the version fits, as it is another one in each.

use std::{io, ops::Range};

use object::{
    LittleEndian,
    elf::{self, FileHeader64, SectionHeader64},
    pod,
};

use super::{ArtifactError, CpuFeatures, WASMTIME_VERSION};

const ELFOSABI_WASMTIME: u8 = 200;
const EF_WASMTIME_MODULE: u32 = 1;
const EF_WASMTIME_COMPONENT: u32 = 2;
const ENGINE: &[u8] = b".wasmtime.engine";
const TEXT: &[u8] = b".text";
/// Of guests, and of the files that are mapped into them.
const PAGE_BYTES: u64 = 4096;

const FILE_HEADER_BYTES: usize = size_of::<FileHeader64<LittleEndian>>();
const SECTION_HEADER_BYTES: usize = size_of::<SectionHeader64<LittleEndian>>();
/// wasmtime makes about a dozen.
const MAX_SECTIONS: u16 = 64;
/// Of the section with the names of sections, and of that about the engine: both take about a thousand.
const MAX_SECTION_BYTES: u64 = 64 << 10;

/// What is known of an artifact that fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Description {
    pub(super) text: Range<u64>,
    pub(super) counts_fuel: bool,
    pub(super) features: CpuFeatures,
}

/// Whether it could be an artifact, of any version.
pub(super) fn is_artifact(start: &[u8]) -> bool {
    start.starts_with(&elf::ELFMAG) && start.get(7) == Some(&ELFOSABI_WASMTIME)
}

/// Looks at a file of so many bytes, of which `read` fills a buffer from an offset on.
pub(super) fn describe(bytes: u64, read: impl Fn(&mut [u8], u64) -> io::Result<()>) -> Result<Description, ArtifactError> {
    let file = File { bytes, read };
    let start = file.read(0, FILE_HEADER_BYTES as u64)?;
    if !is_artifact(&start) {
        return Err(ArtifactError::NotAnArtifact);
    }
    let (header, _) =
        pod::from_bytes::<FileHeader64<LittleEndian>>(&start).map_err(|()| malformed("a header that is cut off"))?;
    let is_ours = header.e_ident.class == elf::ELFCLASS64
        && header.e_ident.data == elf::ELFDATA2LSB
        && header.e_machine.get(LittleEndian) == elf::EM_X86_64;
    if !is_ours {
        return Err(ArtifactError::OtherArchitecture);
    }
    let flags = header.e_flags.get(LittleEndian).0;
    if flags & EF_WASMTIME_MODULE == 0 {
        let is_component = flags & EF_WASMTIME_COMPONENT != 0;
        return Err(if is_component { ArtifactError::Component } else { malformed("it holds no module") });
    }

    let sections = file.sections(header)?;
    let engine = sections.named(ENGINE).ok_or_else(|| malformed("it does not say who compiled it"))?;
    let engine = file.small_section(engine)?;
    let (counts_fuel, features) = engine_of(&engine)?;

    let text = sections.named(TEXT).ok_or_else(|| malformed("it has no code"))?;
    let text = file.range(text)?;
    if !text.start.is_multiple_of(PAGE_BYTES) || !text.end.is_multiple_of(PAGE_BYTES) {
        return Err(malformed("its code does not lie on pages"));
    }
    Ok(Description { text, counts_fuel, features })
}

fn malformed(what: &'static str) -> ArtifactError {
    ArtifactError::Malformed { what }
}

struct File<R> {
    bytes: u64,
    read: R,
}

struct Sections {
    headers: Vec<SectionHeader64<LittleEndian>>,
    names: Vec<u8>,
}

impl<R: Fn(&mut [u8], u64) -> io::Result<()>> File<R> {
    /// Only for what has a bound.
    fn read(&self, start: u64, bytes: u64) -> Result<Vec<u8>, ArtifactError> {
        let fits = start.checked_add(bytes).is_some_and(|end| end <= self.bytes);
        let (true, Ok(bytes)) = (fits, usize::try_from(bytes)) else { return Err(ArtifactError::NotAnArtifact) };
        let mut buffer = vec![0; bytes];
        (self.read)(&mut buffer, start).map_err(|source| ArtifactError::Read { source })?;
        Ok(buffer)
    }

    fn sections(&self, header: &FileHeader64<LittleEndian>) -> Result<Sections, ArtifactError> {
        let count = header.e_shnum.get(LittleEndian);
        let size = usize::from(header.e_shentsize.get(LittleEndian));
        if count > MAX_SECTIONS || size != SECTION_HEADER_BYTES {
            return Err(malformed("a table of sections of another form"));
        }
        let count = usize::from(count);
        let truncated = |_| malformed("it is cut off");
        let table = self.read(header.e_shoff.get(LittleEndian), (count * size) as u64).map_err(truncated)?;
        let (headers, _) = pod::slice_from_bytes::<SectionHeader64<LittleEndian>>(&table, count)
            .map_err(|()| malformed("a table of sections of another form"))?;
        let names = headers.get(usize::from(header.e_shstrndx.get(LittleEndian).0));
        let names = self.small_section(names.ok_or_else(|| malformed("its sections have no names"))?)?;
        Ok(Sections { headers: headers.to_vec(), names })
    }

    fn range(&self, section: &SectionHeader64<LittleEndian>) -> Result<Range<u64>, ArtifactError> {
        let (start, bytes) = (section.sh_offset.get(LittleEndian), section.sh_size.get(LittleEndian));
        match start.checked_add(bytes) {
            Some(end) if end <= self.bytes && section.sh_type.get(LittleEndian) != elf::SHT_NOBITS => Ok(start..end),
            _ => Err(malformed("it is cut off, or a section lies outside of it")),
        }
    }

    fn small_section(&self, section: &SectionHeader64<LittleEndian>) -> Result<Vec<u8>, ArtifactError> {
        let range = self.range(section)?;
        let bytes = range.end - range.start;
        if bytes > MAX_SECTION_BYTES {
            return Err(malformed("a section is too large"));
        }
        self.read(range.start, bytes)
    }
}

impl Sections {
    /// The only section of this name.
    fn named(&self, name: &[u8]) -> Option<&SectionHeader64<LittleEndian>> {
        let is_it = |section: &&SectionHeader64<LittleEndian>| {
            let start = usize::try_from(section.sh_name.get(LittleEndian)).ok();
            let rest = start.and_then(|start| self.names.get(start..));
            rest.and_then(|rest| rest.strip_prefix(name)).is_some_and(|rest| rest.first() == Some(&0))
        };
        let mut found = self.headers.iter().filter(is_it);
        found.next().filter(|_| found.next().is_none())
    }
}

/// Whether the code counts fuel, and which features it uses.
fn engine_of(section: &[u8]) -> Result<(bool, CpuFeatures), ArtifactError> {
    let unreadable = || malformed("what it says about its compiler cannot be read");
    let [0, version_bytes, rest @ ..] = section else { return Err(unreadable()) };
    let (version, rest) = rest.split_at_checked(usize::from(*version_bytes)).ok_or_else(unreadable)?;
    if version != WASMTIME_VERSION.as_bytes() {
        let found = String::from_utf8_lossy(version).replace(char::is_control, "\u{fffd}");
        return Err(ArtifactError::OtherVersion { found });
    }
    metadata(&mut Postcard { rest }).ok_or_else(unreadable)
}

fn metadata(from: &mut Postcard<'_>) -> Option<(bool, CpuFeatures)> {
    let _target = from.text()?;
    for _ in 0..from.number()? {
        let _flag = (from.text()?, from.flag()?);
    }
    let mut features = Vec::new();
    for _ in 0..from.number()? {
        let (name, value) = (from.text()?, from.flag()?);
        if value == Flag::Bool(true) {
            features.push(std::str::from_utf8(name).ok()?);
        }
    }
    // Of the tunables: collector, sizes for memories, four flags about debugging, fuel.
    if from.byte()? == 1 {
        let _collector = from.number()?;
    }
    let _sizes = (from.number()?, from.number()?, from.number()?);
    let _debugging = (from.byte()?, from.byte()?, from.byte()?, from.byte()?);
    let counts_fuel = from.byte()? == 1;
    Some((counts_fuel, CpuFeatures::from_names(features)))
}

#[derive(PartialEq, Eq)]
enum Flag {
    Bool(bool),
    Other,
}

/// A reader of the encoding.
struct Postcard<'a> {
    rest: &'a [u8],
}

impl<'a> Postcard<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    /// Seven bits in each byte, the lowest first.
    fn number(&mut self) -> Option<u64> {
        let mut value: u64 = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let bytes = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.rest.split_at_checked(bytes)?;
        self.rest = rest;
        Some(text)
    }

    fn flag(&mut self) -> Option<Flag> {
        match self.number()? {
            0 => self.text().map(|_| Flag::Other),
            1 => self.byte().map(|_| Flag::Other),
            2 => self.byte().map(|value| Flag::Bool(value == 1)),
            _ => None,
        }
    }
}
