//! What a snapshot file says beside its pages, and what of that is believed: everything is checked here before anything of it
//! is used. RAM is not here: it is the guest's business what that holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    marker::PhantomData,
};

use mote_abi::{
    layout::{
        self, BASE, BOOT_INFO, CHUNK_BYTES, CONFIG, HOST_STATUS, LINEAR, MAX_RAM_BYTES, MIN_RAM_BYTES, MODULE, PAGE_BYTES,
        POOL_FAR, POOL_NEAR, RAMDISK, SYSTEM,
    },
    value::signature,
};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, SeqAccess, Visitor},
};

use super::{
    super::export::{Export, ExportType, FuncType},
    file::DIGEST_BYTES,
};

/// All of it, as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Metadata {
    /// Digest of the kernel image, in hexadecimal digits.
    pub(super) kernel: String,
    /// Version of the contract between kernel and host.
    pub(super) abi_version: u32,
    /// Features of the processor that the kernel was told of.
    #[serde(deserialize_with = "list")]
    pub(super) cpu_features: Vec<String>,
    pub(super) ram_bytes: u64,
    /// Whether it waits for standard input.
    pub(super) at_input: bool,
    pub(super) fixed_clock_ns: Option<u64>,
    pub(super) monotonic_ns: u64,
    /// The seed of random numbers that are meant to be the same in every copy.
    pub(super) seed: Option<[u8; 32]>,
    pub(super) seed_generation: u64,
    pub(super) input_generation: u64,
    /// Bytes of the strings that the kernel was given.
    pub(super) config_bytes: u64,
    pub(super) ring_tail: u64,
    pub(super) next_chunk: u64,
    /// Guest-virtual and guest-physical address of each chunk.
    #[serde(deserialize_with = "list")]
    pub(super) chunks: Vec<[u64; 2]>,
    #[serde(deserialize_with = "list")]
    pub(super) functions: Vec<[String; 3]>,
    #[serde(deserialize_with = "list")]
    pub(super) directories: Vec<String>,
    #[serde(deserialize_with = "list")]
    pub(super) instances: Vec<InstanceMetadata>,
    pub(super) deadline_ns: Option<u64>,
    pub(super) fuel: Option<u64>,
    #[serde(deserialize_with = "list")]
    pub(super) segments: Vec<SegmentMetadata>,
    /// Compiled modules, which lie behind the segments, each in whole pages.
    #[serde(deserialize_with = "list")]
    pub(super) modules: Vec<ModuleMetadata>,
    /// Bytes of the ramdisk's archive, which lies behind them.
    pub(super) ramdisk_bytes: u64,
    /// Digests of the data in pieces of [`DIGEST_BYTES`], in hexadecimal digits.
    #[serde(deserialize_with = "list")]
    pub(super) digests: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InstanceMetadata {
    #[serde(deserialize_with = "list")]
    pub(super) exports: Vec<ExportMetadata>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExportMetadata {
    name: String,
    kind: Kind,
    /// Letters of its type.
    ty: String,
    flag: bool,
    minimum: u64,
    maximum: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Func,
    Global,
    Memory,
    Table,
    Tag,
}

/// A part of RAM: where it lies in the guest, and where in the data of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SegmentMetadata {
    pub(super) start: u64,
    pub(super) bytes: u64,
    pub(super) from: u64,
}

/// A compiled module: where it lies in the guest, and what of it can be executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModuleMetadata {
    pub(super) address: u64,
    pub(super) bytes: u64,
    pub(super) text_start: u64,
    pub(super) text_end: u64,
}

impl ModuleMetadata {
    /// What it takes in the file.
    pub(super) fn file_bytes(&self) -> u64 {
        self.bytes.next_multiple_of(PAGE_BYTES)
    }

    fn is_possible(&self) -> bool {
        let Self { address, bytes, text_start, text_end } = *self;
        let aligned = address.is_multiple_of(CHUNK_BYTES) && (text_start | text_end).is_multiple_of(PAGE_BYTES);
        aligned && bytes > 0 && MODULE.contains_range(address, bytes) && text_start < text_end && text_end <= self.file_bytes()
    }
}

/// Parts of RAM that the host writes itself, and never takes from a file.
pub(super) const OF_HOST: [layout::Region; 3] = [BOOT_INFO, HOST_STATUS, SYSTEM];
/// Longest list of anything: longer than a guest can have it.
const MAX_LIST: usize = 1 << 19;
/// Most segments: each is a mapping in each copy, of which a process can have some 65,000. Images keep far below.
pub(super) const MAX_SEGMENTS: usize = 1 << 10;

impl Metadata {
    /// Bytes of the compiled modules in the file; their addresses were checked not to overlap, so the sum does not overflow.
    pub(super) fn modules_bytes(&self) -> u64 {
        self.modules.iter().map(ModuleMetadata::file_bytes).fold(0, u64::saturating_add)
    }

    /// Says what is wrong with it, whatever data there is behind it: `data_bytes`, ramdisk included.
    pub(super) fn check(&self, data_bytes: u64) -> Result<(), String> {
        let ensure = |condition: bool, what: &str| if condition { Ok(()) } else { Err(String::from(what)) };
        let ram = self.ram_bytes;
        ensure((MIN_RAM_BYTES..=MAX_RAM_BYTES).contains(&ram), "its RAM has a size that no guest can have")?;
        ensure((ram - BASE.bytes()).is_multiple_of(CHUNK_BYTES), "its RAM has a size that no guest can have")?;
        ensure(self.config_bytes <= CONFIG.bytes(), "its strings do not fit where they belong")?;
        ensure(self.ramdisk_bytes <= RAMDISK.bytes() && self.ramdisk_bytes <= data_bytes, "its ramdisk is too large")?;
        let mut free_from = MODULE.start;
        for module in &self.modules {
            ensure(module.is_possible() && module.address >= free_from, "a compiled module lies where none can be")?;
            free_from = module.address + module.file_bytes();
        }
        ensure(self.modules_bytes() <= data_bytes - self.ramdisk_bytes, "its compiled modules are too large")?;
        let digests = usize::try_from(data_bytes.div_ceil(DIGEST_BYTES)).ok();
        ensure(digests == Some(self.digests.len()), "it has another number of digests than its data need")?;
        ensure(!self.instances.is_empty(), "it has no instance")?;
        ensure(
            self.functions.iter().all(|[_, _, ty]| signature::decode(ty.as_bytes()).is_some()),
            "a host function has no type",
        )?;
        self.check_chunks()?;
        self.check_segments(data_bytes - self.ramdisk_bytes - self.modules_bytes())
    }

    fn pool_bytes(&self) -> u64 {
        self.ram_bytes - BASE.bytes()
    }

    /// The pool's two parts, as far as there is RAM for them.
    fn pool(&self) -> [std::ops::Range<u64>; 2] {
        let near = self.pool_bytes().min(POOL_NEAR.bytes());
        [POOL_NEAR.start..POOL_NEAR.start + near, POOL_FAR.start..POOL_FAR.start + (self.pool_bytes() - near)]
    }

    fn check_chunks(&self) -> Result<(), String> {
        let [near, far] = self.pool();
        let next = self.next_chunk;
        let next_is_near = (near.start..=near.end).contains(&next);
        if !next.is_multiple_of(CHUNK_BYTES) || !(next_is_near || (far.start..=far.end).contains(&next)) {
            return Err("its next chunk of RAM is none".into());
        }
        let given = |at: u64| {
            if next_is_near { (near.start..next).contains(&at) } else { near.contains(&at) || (far.start..next).contains(&at) }
        };
        let (mut addresses, mut chunks) = (BTreeSet::new(), BTreeSet::new());
        for [address, chunk] in &self.chunks {
            let aligned = address.is_multiple_of(CHUNK_BYTES) && chunk.is_multiple_of(CHUNK_BYTES);
            let possible = layout::is_demand(*address) || LINEAR.contains(*address);
            if !aligned || !possible || !given(*chunk) || !addresses.insert(address) || !chunks.insert(chunk) {
                return Err(format!("its RAM is mapped at {address:#x}, from {chunk:#x}, where it cannot be"));
            }
        }
        Ok(())
    }

    fn check_segments(&self, data_bytes: u64) -> Result<(), String> {
        if self.segments.len() > MAX_SEGMENTS {
            return Err("it has more segments than any snapshot".into());
        }
        let [near, far] = self.pool();
        // Each begins where the one before it ends, or later; in the file there is nothing between them.
        let (mut end, mut next) = (0, 0);
        for SegmentMetadata { start, bytes, from } in &self.segments {
            let wrong = || format!("its segment of {bytes:#x} bytes at {start:#x}, from {from:#x}, cannot be");
            let aligned = (start | bytes | from).is_multiple_of(PAGE_BYTES) && *bytes > 0;
            let last = start.checked_add(*bytes).ok_or_else(wrong)?;
            let in_file = *from == next && *bytes <= data_bytes - next;
            let in_ram =
                [BASE.start..BASE.end, near.clone(), far.clone()].iter().any(|part| part.start <= *start && last <= part.end);
            let of_host = OF_HOST.iter().any(|region| *start < region.end && region.start < last);
            if !aligned || !in_file || !in_ram || of_host || *start < end {
                return Err(wrong());
            }
            end = last;
            next += bytes;
        }
        if next == data_bytes { Ok(()) } else { Err("it has data that belong to nothing".into()) }
    }

    /// The chunks by their guest-virtual addresses.
    pub(super) fn mapped(&self) -> BTreeMap<u64, u64> {
        self.chunks.iter().map(|[address, chunk]| (*address, *chunk)).collect()
    }
}

/// A list of at most [`MAX_LIST`] elements: a longer one is refused before it takes memory.
fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    struct Elements<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Elements<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<T>, A::Error> {
            let mut all = Vec::new();
            while let Some(element) = sequence.next_element()? {
                if all.len() == MAX_LIST {
                    return Err(A::Error::custom("a list is longer than that of any snapshot"));
                }
                all.push(element);
            }
            Ok(all)
        }
    }

    deserializer.deserialize_seq(Elements(PhantomData))
}

impl From<&Export> for ExportMetadata {
    fn from(export: &Export) -> Self {
        let letters = |types: &[mote_abi::value::ValueType]| types.iter().map(|ty| char::from(ty.letter())).collect::<String>();
        let plain = |kind, ty: String| Self { name: export.name.clone(), kind, ty, flag: false, minimum: 0, maximum: None };
        match &export.ty {
            ExportType::Func(ty) => plain(Kind::Func, format!("{}:{}", letters(&ty.params), letters(&ty.results))),
            ExportType::Global { ty, mutable } => Self { flag: *mutable, ..plain(Kind::Global, letters(&[*ty])) },
            ExportType::Memory { minimum, maximum, memory64 } => {
                Self { flag: *memory64, minimum: *minimum, maximum: *maximum, ..plain(Kind::Memory, String::new()) }
            }
            ExportType::Table { ty, minimum, maximum } => {
                Self { minimum: *minimum, maximum: *maximum, ..plain(Kind::Table, letters(&[*ty])) }
            }
            ExportType::Tag => plain(Kind::Tag, String::new()),
        }
    }
}

impl TryFrom<&ExportMetadata> for Export {
    type Error = String;

    fn try_from(export: &ExportMetadata) -> Result<Self, String> {
        let ExportMetadata { name, kind, ty, flag, minimum, maximum } = export;
        let (minimum, maximum, wrong) = (*minimum, *maximum, || format!("its export `{name}` has no type"));
        let single = || match ty.as_bytes() {
            [letter] => mote_abi::value::ValueType::from_letter(*letter).ok_or_else(wrong),
            _ => Err(wrong()),
        };
        let ty = match kind {
            Kind::Func => {
                let (params, results) = signature::decode(ty.as_bytes()).ok_or_else(wrong)?;
                ExportType::Func(FuncType { params: params.collect(), results: results.collect() })
            }
            Kind::Global => ExportType::Global { ty: single()?, mutable: *flag },
            Kind::Memory => ExportType::Memory { minimum, maximum, memory64: *flag },
            Kind::Table => ExportType::Table { ty: single()?, minimum, maximum },
            Kind::Tag => ExportType::Tag,
        };
        Ok(Self { name: name.clone(), ty })
    }
}

#[cfg(test)]
mod tests;
