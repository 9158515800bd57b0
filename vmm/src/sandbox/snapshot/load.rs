//! Reading a snapshot file: what is believed of it is checked here and in `metadata.rs`.

use std::{
    fs::File,
    io::{self, Read},
    os::{
        fd::AsFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use mote_abi::{
    ABI_VERSION,
    boot::{BOOT_MAGIC, BootInfo, flags},
    cpu,
    layout::{BASE, SYSTEM},
};
use thiserror::Error;
use vm_memory::{Bytes, GuestAddress};
use zerocopy::{FromBytes, FromZeros};

use super::{
    super::{
        InstanceState,
        builder::CallLimits,
        error::{BuildError, SandboxState},
        export::{Export, Exports},
        host::HostFunctions,
        hypervisor::Hypervisor,
    },
    Inner, Snapshot,
    file::{
        DIGEST_BYTES, Digests, FORMAT_VERSION, HEADER_BYTES, Header, INVARIANT_TSC, MAGIC, MAX_METADATA_BYTES, copy_from,
        cpu_features, data_offset,
    },
    metadata::{InstanceMetadata, Metadata, ModuleMetadata, OF_HOST, SegmentMetadata},
};
use crate::{
    config::ClockSource,
    engine::Engine,
    guest_ram::GuestRam,
    image::{ImageError, KernelImage},
    machine::MachineImage,
    memory::{Backing, MemoryError},
    module::{Module, PlacedModule, shown},
    pagemap::PageMap,
    ram_image::{RamImage, Segment},
    ramdisk::Ramdisk,
    request::printable,
    service::{
        clock::{self, ClockOrigin},
        demand::{self, DemandState},
    },
    tables::{ModuleSizes, Sizes, Tables},
};

/// What an error quotes of a file at most.
const MAX_QUOTED_BYTES: usize = 500;

/// A file that is no snapshot that can be used.
#[derive(Debug, Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error("cannot read the snapshot {}: {source}", shown(path))]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is another kind of file.
    #[error("{} is no snapshot: it does not begin with \"motesnap\"", shown(path))]
    NotSnapshot {
        /// Which file.
        path: PathBuf,
    },
    /// It is of another version of the format.
    #[error("the snapshot {} has format version {found}, this program reads {FORMAT_VERSION}", shown(path))]
    Version {
        /// Which file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// It was cut short or changed, or made by somebody who meant harm.
    #[error("the snapshot {} is damaged: {what}", shown(path))]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// It needs something that is not here.
    #[error("the snapshot {} does not fit: {what}; take it anew here", shown(path))]
    Unfit {
        /// Which file.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// The kernel image cannot be used.
    #[error(transparent)]
    Kernel(#[from] ImageError),
    /// No host memory for it.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// KVM, or the page map of this process, cannot be used.
    #[error(transparent)]
    Host(#[from] BuildError),
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Guest RAM of each copy, in bytes.
    pub ram_bytes: u64,
    /// How much of it the file holds.
    pub stored_bytes: u64,
    /// Whether copies wait for standard input.
    pub at_input: bool,
    /// Digest of the kernel image that it needs, in hexadecimal digits.
    pub kernel: String,
    /// Whether its modules were compiled ahead of time.
    pub is_compiled: bool,
    /// Host functions that copies must be given: module, name and signature.
    pub functions: Vec<[String; 3]>,
    /// Directories that copies must be given, by the names that the program knows them by.
    pub directories: Vec<String>,
    /// Exports of the first module.
    pub exports: Vec<Export>,
}

impl SnapshotInfo {
    /// Whether it was taken with this kernel image, and can only go on with that.
    pub fn fits_kernel(&self, kernel: &KernelImage) -> bool {
        self.kernel == kernel.digest().to_string()
    }
}

/// A file that was opened and whose header and metadata are good.
struct Opened<'a> {
    path: &'a Path,
    file: File,
    header: Header,
    metadata: Metadata,
}

impl<'a> Opened<'a> {
    fn open(path: &'a Path) -> Result<Self, LoadError> {
        let read = |source| LoadError::Read { path: path.into(), source };
        let damaged = |what: &str| LoadError::Damaged { path: path.into(), what: quoted(what) };
        // Non-blocking, as opening a pipe would wait for its other end.
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(read)?;
        let attributes = file.metadata().map_err(read)?;
        if attributes.is_dir() {
            return Err(read(io::ErrorKind::IsADirectory.into()));
        }
        if !attributes.is_file() {
            return Err(read(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")));
        }
        let mut bytes = Vec::new();
        (&file).take(HEADER_BYTES as u64).read_to_end(&mut bytes).map_err(read)?;
        if !bytes.starts_with(&MAGIC) {
            return Err(LoadError::NotSnapshot { path: path.into() });
        }
        let header = Header::read_from_bytes(&bytes).map_err(|_| damaged("it ends in its header"))?;
        if header.version != FORMAT_VERSION {
            return Err(LoadError::Version { path: path.into(), found: header.version });
        }
        if header.header_digest != header.digest() {
            return Err(damaged("its header does not have the digest that it should"));
        }
        if header.metadata_bytes > MAX_METADATA_BYTES {
            return Err(damaged("its metadata is longer than that of any snapshot"));
        }
        if header.data_offset != data_offset(header.metadata_bytes) {
            return Err(damaged("its data do not begin behind its metadata"));
        }
        if header.data_offset.checked_add(header.data_bytes) != Some(attributes.len()) {
            return Err(damaged("it has another size than it says"));
        }
        let mut json = Vec::new();
        (&file).take(header.metadata_bytes).read_to_end(&mut json).map_err(read)?;
        if *blake3::hash(&json).as_bytes() != header.metadata_digest {
            return Err(damaged("its metadata does not have the digest that it should"));
        }
        let metadata: Metadata =
            serde_json::from_slice(&json).map_err(|error| damaged(&format!("its metadata is none: {error}")))?;
        metadata.check(header.data_bytes).map_err(|what| damaged(&what))?;
        Ok(Self { path, file, header, metadata })
    }

    fn damaged(&self, what: impl Into<String>) -> LoadError {
        LoadError::Damaged { path: self.path.into(), what: quoted(&what.into()) }
    }

    fn unfit(&self, what: impl Into<String>) -> LoadError {
        LoadError::Unfit { path: self.path.into(), what: quoted(&what.into()) }
    }

    fn read_error(&self, source: io::Error) -> LoadError {
        LoadError::Read { path: self.path.into(), source }
    }

    /// Refuses what this machine and this program cannot go on with.
    fn check_fits(&self, kernel: &KernelImage) -> Result<(), LoadError> {
        let Metadata { kernel: digest, abi_version, cpu_features: features, .. } = &self.metadata;
        if *abi_version != ABI_VERSION {
            return Err(self.unfit(format!("it is of ABI version {abi_version}, this program speaks {ABI_VERSION}")));
        }
        if *digest != kernel.digest().to_string() {
            return Err(self.unfit("it was taken with another kernel image"));
        }
        // The counter has to be of the same kind. Features may be more here.
        let here = cpu_features(clock::host_has_invariant_tsc(), kernel.cpu_features());
        let is_invariant = |features: &[String]| features.iter().any(|name| name == INVARIANT_TSC);
        if is_invariant(features) != is_invariant(&here) || features.iter().any(|name| !here.contains(name)) {
            return Err(self.unfit(format!("it was taken where the processor has {features:?}; here it has {here:?}")));
        }
        Ok(())
    }

    /// The kernel that it most likely was taken with; [`Opened::check_fits`] knows.
    fn built_in_kernel(&self) -> Result<Arc<KernelImage>, LoadError> {
        if self.metadata.modules.is_empty() {
            return Ok(KernelImage::embedded()?);
        }
        KernelImage::embedded_compiled()?
            .ok_or_else(|| self.unfit("its modules are compiled, which this program was built without"))
    }

    fn exports(&self) -> Result<Vec<Vec<Export>>, LoadError> {
        let all = |instance: &InstanceMetadata| instance.exports.iter().map(Export::try_from).collect::<Result<Vec<_>, _>>();
        self.metadata.instances.iter().map(all).collect::<Result<_, _>>().map_err(|what| self.damaged(what))
    }

    fn info(&self) -> Result<SnapshotInfo, LoadError> {
        let Metadata { ram_bytes, at_input, kernel, functions, directories, segments, modules, .. } = &self.metadata;
        Ok(SnapshotInfo {
            ram_bytes: *ram_bytes,
            stored_bytes: segments.iter().map(|segment| segment.bytes).sum(),
            at_input: *at_input,
            kernel: kernel.clone(),
            is_compiled: !modules.is_empty(),
            functions: functions.clone(),
            directories: directories.clone(),
            exports: self.exports()?.into_iter().next().unwrap_or_default(),
        })
    }

    /// Compares all data with the digests. What lies between them and the metadata is zeros.
    fn check_data(&self) -> Result<(), LoadError> {
        let metadata_end = HEADER_BYTES as u64 + self.header.metadata_bytes;
        let mut between = vec![0; usize::try_from(self.header.data_offset - metadata_end).unwrap_or(0)];
        self.file.read_exact_at(&mut between, metadata_end).map_err(|error| self.read_error(error))?;
        if between.iter().any(|byte| *byte != 0) {
            return Err(self.damaged("between its metadata and its data is something else than zeros"));
        }
        let mut digests = Digests::default();
        copy_from(&self.file, self.header.data_offset, self.header.data_bytes, &mut digests)
            .map_err(|error| self.read_error(error))?;
        let found = digests.finish();
        match found.iter().zip(&self.metadata.digests).position(|(found, expected)| found != expected) {
            Some(index) => {
                let offset = self.header.data_offset + index as u64 * DIGEST_BYTES;
                Err(self.damaged(format!("its data from byte {offset} on do not have the digest that they should")))
            }
            None => Ok(()),
        }
    }
}

/// Reads a whole file, and compares all of it with its digests.
pub(super) fn verify(path: &Path) -> Result<SnapshotInfo, LoadError> {
    let opened = Opened::open(path)?;
    opened.check_data()?;
    opened.info()
}

/// See [`Snapshot::is_snapshot`]. Anything but a regular file is not even opened: a pipe would lose what is read.
pub(super) fn is_snapshot(path: &Path) -> bool {
    let is_regular = path.metadata().is_ok_and(|attributes| attributes.is_file());
    let mut start = [0; MAGIC.len()];
    is_regular && File::open(path).is_ok_and(|mut file| file.read_exact(&mut start).is_ok()) && start == MAGIC
}

/// How a snapshot file is opened.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// The kernel that it goes on with; `None` for the one that is built in, of the engine that it was taken with.
    pub kernel: Option<Arc<KernelImage>>,
    /// Whether each byte of the file is checked first, as [`Snapshot::verify`] does.
    pub verify: bool,
}

/// Opens a file as a snapshot.
pub(super) fn load(path: &Path, options: &LoadOptions) -> Result<Snapshot, LoadError> {
    let opened = Opened::open(path)?;
    if options.verify {
        opened.check_data()?;
    }
    let kernel = &match &options.kernel {
        Some(kernel) => Arc::clone(kernel),
        None => opened.built_in_kernel()?,
    };
    let hypervisor = Arc::new(Hypervisor::open()?);
    opened.check_fits(kernel)?;
    let instances =
        opened.exports()?.into_iter().map(|exports| InstanceState { exports: Arc::new(Exports::new(exports)), memory: None });
    let instances = instances.collect();
    let metadata = &opened.metadata;
    let ramdisk = match metadata.ramdisk_bytes {
        0 => None,
        bytes => {
            let offset = opened.header.data_offset + opened.header.data_bytes - bytes;
            Some(Ramdisk::from_part(&opened.file, offset, bytes)?)
        }
    };
    let modules = modules(&opened)?;
    let (ram, tables) = ram(&opened, &modules, kernel, hypervisor.page_map()?)?;
    let seeded = metadata.seed.is_some();
    let has_invariant_tsc = metadata.cpu_features.iter().any(|name| name == INVARIANT_TSC);
    let cpu_features = metadata.cpu_features.iter().map(|name| cpu::bit(name)).fold(0, |all, bit| all | bit);
    let fixed = if metadata.fixed_clock_ns.is_some() { flags::FIXED_CLOCK } else { 0 };
    let invariant = if has_invariant_tsc { flags::INVARIANT_TSC } else { 0 };
    let boot = BootInfo {
        magic: BOOT_MAGIC,
        version: ABI_VERSION,
        flags: flags::SERVE | fixed | invariant,
        ram_bytes: metadata.ram_bytes,
        random_seed: metadata.seed.unwrap_or_default(),
        seed_generation: metadata.seed_generation,
        input_generation: metadata.input_generation,
        cpu_features,
        ..BootInfo::new_zeroed()
    };
    let source = metadata.fixed_clock_ns.map_or(ClockSource::Host, |realtime_ns| ClockSource::Fixed { realtime_ns });
    let image = MachineImage {
        ram,
        ram_bytes: metadata.ram_bytes,
        is_of_file: true,
        demand: DemandState { tables, next_chunk: metadata.next_chunk, mapped: metadata.mapped(), changes: 0 },
        boot,
        seeded,
        clock: ClockOrigin::at(source, Duration::from_nanos(metadata.monotonic_ns)),
        config_bytes: metadata.config_bytes,
        ring_tail: metadata.ring_tail,
        kernel: Arc::clone(kernel),
        ramdisk,
        modules,
        working_set: OnceLock::new(),
    };
    Ok(Snapshot(Arc::new(Inner {
        image: Arc::new(image),
        hypervisor,
        engine: Engine::for_kernel(kernel),
        functions: Arc::new(HostFunctions::default()),
        needed_functions: metadata.functions.clone(),
        instances,
        directories: Arc::new(Vec::new()),
        directory_names: metadata.directories.clone(),
        limits: CallLimits { deadline: metadata.deadline_ns.map(Duration::from_nanos), fuel: metadata.fuel },
        state: if metadata.at_input { SandboxState::AtInput } else { SandboxState::Ready },
    })))
}

/// The compiled modules of the file, mapped.
fn modules(opened: &Opened<'_>) -> Result<Vec<PlacedModule>, LoadError> {
    let metadata = &opened.metadata;
    let data_end = opened.header.data_offset + opened.header.data_bytes;
    let mut from = data_end - metadata.ramdisk_bytes - metadata.modules_bytes();
    let mut modules = Vec::new();
    for module in &metadata.modules {
        let ModuleMetadata { address, bytes, text_start, text_end } = *module;
        let sizes = ModuleSizes { bytes, text_start, text_end };
        modules.push(PlacedModule { address, module: Module::from_part(&opened.file, from, sizes, metadata.fuel.is_some())? });
        from += module.file_bytes();
    }
    Ok(modules)
}

/// RAM of the file, with a machine in it that is built here. The parts with a fixed place are copied; the pool is mapped.
fn ram(
    opened: &Opened<'_>,
    modules: &[PlacedModule],
    kernel: &KernelImage,
    page_map: &PageMap,
) -> Result<(RamImage, Tables), LoadError> {
    let metadata = &opened.metadata;
    let layout = |error: &dyn std::fmt::Display| LoadError::Memory(MemoryError::Layout(error.to_string()));
    let scratch = GuestRam::new(metadata.ram_bytes)?;
    let sizes =
        Sizes { module: ModuleSizes::default(), ramdisk_bytes: metadata.ramdisk_bytes, config_bytes: metadata.config_bytes };
    let mut tables = Tables::build(scratch.memory(), kernel, &sizes).map_err(|error| layout(&error))?;
    for placed in modules {
        tables.map_module(scratch.memory(), placed.address, placed.module.sizes()).map_err(|error| layout(&error))?;
    }
    let backing = opened.file.try_clone().map_err(|source| opened.read_error(source))?;
    let end = opened.header.data_offset + opened.header.data_bytes;
    let backing = Arc::new(Backing::from_file("a snapshot", backing, end));
    let mut mapped = Vec::new();
    for SegmentMetadata { start, bytes, from } in &metadata.segments {
        let from = opened.header.data_offset + from;
        if *start < BASE.end {
            let place = scratch.place(*start, *bytes).ok_or_else(|| layout(&"a segment is no RAM"))?;
            let loaded = place.mapping.load(place.offset, *bytes, opened.file.as_fd(), from);
            loaded.map_err(|source| opened.read_error(source))?;
        } else {
            mapped.push(Segment { start: *start, bytes: *bytes, backing: Arc::clone(&backing), from });
        }
    }
    // Where memory may be that is mapped in part, the guest has announced in RAM.
    for [address, chunk] in &metadata.chunks {
        let mapped = demand::map_again(&mut tables, &scratch, *address, *chunk);
        mapped.map_err(|error| opened.damaged(error.to_string()))?;
    }
    // The host writes these before the guest goes on; until then they are there.
    for region in OF_HOST.iter().filter(|region| region.start < SYSTEM.start) {
        scratch.memory().write_obj(0u64, GuestAddress(region.start)).map_err(|error| layout(&error))?;
    }
    let fixed = RamImage::capture(&scratch, page_map, std::slice::from_ref(&(BASE.start..SYSTEM.end)), None)?;
    Ok((RamImage::new(fixed.segments().iter().cloned().chain(mapped).collect()), tables))
}

/// What a file says, in an error: of bounded length, and without characters that do things to terminals.
fn quoted(what: &str) -> String {
    printable(what.as_bytes().get(..MAX_QUOTED_BYTES).unwrap_or(what.as_bytes()))
}
