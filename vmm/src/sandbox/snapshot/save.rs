//! Writing a snapshot file.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    ops::Range,
    os::unix::fs::FileExt,
    path::Path,
    time::Duration,
};

use mote_abi::{ABI_VERSION, boot::flags, layout::PAGE_BYTES};
use zerocopy::IntoBytes;

use super::{
    Inner, SandboxState,
    file::{
        DIGEST_BYTES, Digesting, Digests, FORMAT_VERSION, HEADER_BYTES, Header, MAGIC, MAX_METADATA_BYTES, copy_from,
        cpu_features, data_offset,
    },
    metadata::{InstanceMetadata, MAX_SEGMENTS, Metadata, ModuleMetadata, OF_HOST, SegmentMetadata},
};
use crate::{
    config::ClockSource,
    module::PlacedModule,
    ram_image::{RamImage, Segment},
    ramdisk::Ramdisk,
    tables::ModuleSizes,
};

/// Pieces of RAM that are left out if they are zeros.
const ZERO_BYTES: u64 = 32 << 10;

/// Writes a snapshot to a file.
pub(super) fn save(inner: &Inner, path: &Path) -> io::Result<()> {
    let image = &inner.image;
    // A device, say, must not be replaced by a file.
    if path.metadata().is_ok_and(|attributes| !attributes.is_file()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "there is something else than a regular file"));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".mote-snapshot-").tempfile_in(folder)?;
    let parts = parts(&image.ram)?;
    let mut next = 0;
    let segments: Vec<_> = parts
        .iter()
        .map(|part| {
            let from = next;
            next += part.bytes;
            SegmentMetadata { start: part.start, bytes: part.bytes, from }
        })
        .collect();
    let ramdisk_bytes = image.ramdisk.as_ref().map_or(0, |ramdisk| ramdisk.bytes());
    let modules: Vec<_> = image.modules.iter().map(module_metadata).collect();
    let data_bytes = next + modules.iter().map(ModuleMetadata::file_bytes).sum::<u64>() + ramdisk_bytes;

    // The digests have a fixed length, so metadata without them tells where the data begins.
    let mut metadata = metadata(inner, segments, modules, ramdisk_bytes);
    let digests = usize::try_from(data_bytes.div_ceil(DIGEST_BYTES)).unwrap_or(usize::MAX);
    metadata.digests = vec!["0".repeat(2 * blake3::OUT_LEN); digests];
    let json = serde_json::to_vec(&metadata)?;
    if json.len() as u64 > MAX_METADATA_BYTES {
        return Err(io::Error::other("its metadata, of which exports are the largest part, are longer than can be loaded"));
    }
    let data_offset = data_offset(json.len() as u64);
    file.seek(SeekFrom::Start(data_offset))?;
    metadata.digests = write_data(file.as_file(), &parts, &image.modules, image.ramdisk.as_deref())?;

    let json = serde_json::to_vec(&metadata)?;
    let mut header = Header {
        magic: MAGIC,
        version: FORMAT_VERSION,
        reserved: 0,
        metadata_bytes: json.len() as u64,
        data_offset,
        data_bytes,
        padding: [0; 24],
        metadata_digest: *blake3::hash(&json).as_bytes(),
        header_digest: [0; 32],
    };
    header.header_digest = header.digest();
    file.as_file().write_all_at(header.as_bytes(), 0)?;
    file.as_file().write_all_at(&json, HEADER_BYTES as u64)?;
    file.as_file().set_len(data_offset + data_bytes)?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

/// Writes segments, modules and ramdisk from where the file stands; their digests.
fn write_data(file: &File, parts: &[Segment], modules: &[PlacedModule], ramdisk: Option<&Ramdisk>) -> io::Result<Vec<String>> {
    let mut writer = Digesting { file: io::BufWriter::with_capacity(1 << 20, file), digests: Digests::default() };
    for part in parts {
        copy_from(&part.backing.file, part.from, part.bytes, &mut writer)?;
    }
    for PlacedModule { module, .. } in modules {
        module.mapping().write_to(&mut writer)?;
        let padding = module.bytes().next_multiple_of(PAGE_BYTES) - module.bytes();
        io::copy(&mut io::repeat(0).take(padding), &mut writer)?;
    }
    if let Some(ramdisk) = ramdisk {
        ramdisk.mapping().write_to(&mut writer)?;
    }
    writer.flush()?;
    Ok(writer.digests.finish())
}

/// The segments of an image without what the host writes itself, and without what is zeros in them.
fn parts(ram: &RamImage) -> io::Result<Vec<Segment>> {
    let mut parts = ram.segments().to_vec();
    for region in OF_HOST {
        let around = |segment: &Segment| {
            let before = segment.part(&(segment.start..region.start));
            let after = segment.part(&(region.end..segment.start + segment.bytes));
            before.into_iter().chain(after).collect::<Vec<_>>()
        };
        parts = parts.iter().flat_map(around).collect();
    }
    let mut filled = Vec::new();
    for part in &parts {
        filled.extend(without_zeros(part)?);
    }
    // Each is a mapping in each copy: a guest may have strewn what it wrote.
    Ok(if filled.len() <= MAX_SEGMENTS { filled } else { parts })
}

/// The parts of a segment that hold anything, to [`ZERO_BYTES`].
fn without_zeros(segment: &Segment) -> io::Result<Vec<Segment>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    let mut buffer = vec![0; usize::try_from(ZERO_BYTES).unwrap_or(usize::MAX)];
    let end = segment.start + segment.bytes;
    let mut start = segment.start;
    while start < end {
        let bytes = ZERO_BYTES.min(end - start);
        let part = buffer.get_mut(..usize::try_from(bytes).unwrap_or(0)).unwrap_or(&mut []);
        segment.backing.file.read_exact_at(part, segment.from + (start - segment.start))?;
        if part.iter().any(|byte| *byte != 0) {
            match runs.last_mut() {
                Some(last) if last.end == start => last.end = start + bytes,
                _ => runs.push(start..start + bytes),
            }
        }
        start += bytes;
    }
    Ok(runs.iter().filter_map(|run| segment.part(run)).collect())
}

fn module_metadata(placed: &PlacedModule) -> ModuleMetadata {
    let ModuleSizes { bytes, text_start, text_end } = placed.module.sizes();
    ModuleMetadata { address: placed.address, bytes, text_start, text_end }
}

fn metadata(inner: &Inner, segments: Vec<SegmentMetadata>, modules: Vec<ModuleMetadata>, ramdisk_bytes: u64) -> Metadata {
    let image = &inner.image;
    let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    Metadata {
        kernel: image.kernel.digest().to_string(),
        abi_version: ABI_VERSION,
        cpu_features: cpu_features(image.boot.flags & flags::INVARIANT_TSC != 0, image.boot.cpu_features),
        ram_bytes: image.ram_bytes,
        at_input: inner.state == SandboxState::AtInput,
        fixed_clock_ns: match image.clock.source() {
            ClockSource::Host => None,
            ClockSource::Fixed { realtime_ns } => Some(realtime_ns),
        },
        monotonic_ns: nanoseconds(image.clock.monotonic()),
        seed: image.seeded.then_some(image.boot.random_seed),
        seed_generation: image.boot.seed_generation,
        input_generation: image.boot.input_generation,
        config_bytes: image.config_bytes,
        ring_tail: image.ring_tail,
        next_chunk: image.demand.next_chunk,
        chunks: image.demand.mapped.iter().map(|(address, chunk)| [*address, *chunk]).collect(),
        functions: inner.needed_functions.clone(),
        directories: inner.directory_names.clone(),
        instances: inner
            .instances
            .iter()
            .map(|instance| InstanceMetadata { exports: instance.exports.as_slice().iter().map(Into::into).collect() })
            .collect(),
        deadline_ns: inner.limits.deadline.map(nanoseconds),
        fuel: inner.limits.fuel,
        segments,
        modules,
        ramdisk_bytes,
        digests: Vec::new(),
    }
}
