use super::*;
use mote_abi::{
    layout::{HEAP, LARGE, MEDIUM},
    value::ValueType,
};
use proptest::prelude::*;

const PAGES: u64 = 12;
const RAMDISK_BYTES: u64 = 100;
const DATA_BYTES: u64 = PAGES * PAGE_BYTES + RAMDISK_BYTES;

fn export(name: &str, ty: ExportType) -> Export {
    Export { name: name.into(), ty }
}

/// Of a small guest with two chunks, two segments and a ramdisk, whose data have [`DATA_BYTES`].
fn good() -> Metadata {
    let ty = FuncType { params: vec![ValueType::I32], results: vec![] };
    Metadata {
        kernel: "0".repeat(64),
        abi_version: 1,
        cpu_features: Vec::new(),
        ram_bytes: MIN_RAM_BYTES,
        at_input: false,
        fixed_clock_ns: None,
        monotonic_ns: 0,
        seed: None,
        seed_generation: 0,
        input_generation: 0,
        config_bytes: 0,
        ring_tail: 0,
        next_chunk: POOL_NEAR.start + 2 * CHUNK_BYTES,
        chunks: vec![[HEAP.start, POOL_NEAR.start], [MEDIUM.start, POOL_NEAR.start + CHUNK_BYTES]],
        functions: vec![["env".into(), "f".into(), "i:".into()]],
        directories: Vec::new(),
        instances: vec![InstanceMetadata { exports: vec![(&export("f", ExportType::Func(ty))).into()] }],
        deadline_ns: None,
        fuel: None,
        segments: vec![
            SegmentMetadata { start: BASE.start, bytes: 8 * PAGE_BYTES, from: 0 },
            SegmentMetadata { start: POOL_NEAR.start, bytes: 4 * PAGE_BYTES, from: 8 * PAGE_BYTES },
        ],
        modules: Vec::new(),
        ramdisk_bytes: RAMDISK_BYTES,
        digests: vec!["0".repeat(64)],
    }
}

#[track_caller]
fn assert_refused(change: impl FnOnce(&mut Metadata), about: &str) {
    let mut metadata = good();
    change(&mut metadata);
    let error = metadata.check(DATA_BYTES).expect_err(about);
    assert!(error.contains(about), "{about:?} is not in {error:?}");
}

#[test]
fn good_metadata_are_good_and_stay_so_in_a_file() {
    let metadata = good();
    assert_eq!(metadata.check(DATA_BYTES), Ok(()));
    let json = serde_json::to_vec(&metadata).unwrap();
    assert_eq!(serde_json::from_slice::<Metadata>(&json).unwrap(), metadata);
}

#[test]
fn sizes_are_those_that_a_guest_can_have() {
    for bytes in [0, MIN_RAM_BYTES - 1, MIN_RAM_BYTES + PAGE_BYTES, MAX_RAM_BYTES + CHUNK_BYTES, u64::MAX] {
        assert_refused(|metadata| metadata.ram_bytes = bytes, "its RAM has a size");
    }
    let mut largest = good();
    largest.ram_bytes = MAX_RAM_BYTES;
    assert_eq!(largest.check(DATA_BYTES), Ok(()));
    assert_refused(|metadata| metadata.config_bytes = CONFIG.bytes() + 1, "its strings do not fit");
    assert_refused(|metadata| metadata.ramdisk_bytes = DATA_BYTES + 1, "its ramdisk is too large");
    assert_refused(|metadata| metadata.ramdisk_bytes = u64::MAX, "its ramdisk is too large");
    assert_refused(|metadata| metadata.instances.clear(), "it has no instance");
    assert_refused(|metadata| metadata.functions[0][2] = "i".into(), "a host function has no type");
    assert_refused(|metadata| metadata.digests.clear(), "another number of digests");
    assert_refused(|metadata| metadata.digests.push(String::new()), "another number of digests");
    assert!(good().check(DATA_BYTES + DIGEST_BYTES).is_err() && good().check(0).is_err());
}

/// Every byte of the data belongs to one segment or to the ramdisk.
#[test]
fn data_are_used_once_and_as_a_whole() {
    const WRONG: &str = "its segment of";
    assert_refused(|metadata| metadata.segments[1].from -= PAGE_BYTES, WRONG);
    assert_refused(|metadata| metadata.segments[1].from += PAGE_BYTES, WRONG);
    assert_refused(|metadata| metadata.segments[1].bytes += PAGE_BYTES, WRONG);
    assert_refused(|metadata| metadata.segments[1].bytes -= PAGE_BYTES, "data that belong to nothing");
    assert_refused(|metadata| metadata.segments.truncate(1), "data that belong to nothing");
    assert_refused(|metadata| metadata.ramdisk_bytes += 1, WRONG);
    assert_refused(|metadata| metadata.ramdisk_bytes -= 1, "data that belong to nothing");
    assert_refused(|metadata| metadata.segments.swap(0, 1), WRONG);
    assert_refused(|metadata| metadata.segments = vec![metadata.segments[0]; MAX_SEGMENTS + 1], "more segments");
}

/// An address that means something, or one beside it.
fn address() -> impl Strategy<Value = u64> {
    let regions = [BASE, BOOT_INFO, HOST_STATUS, SYSTEM, POOL_NEAR, POOL_FAR, RAMDISK, HEAP, MEDIUM, LARGE];
    let ends = prop::sample::select(regions.iter().flat_map(|region| [region.start, region.end]).collect::<Vec<_>>());
    let near = (-3i64..4, prop::sample::select(vec![1, PAGE_BYTES, CHUNK_BYTES]));
    prop_oneof![
        8 => (ends, near).prop_map(|(end, (steps, step))| end.wrapping_add_signed(steps * step.cast_signed())),
        1 => any::<u64>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn segments_that_are_taken_are_ram_of_the_guest_alone(
        parts in prop::collection::vec((address(), 1u64..600), 1..4),
        ram_chunks in 5u64..40,
    ) {
        let mut metadata = good();
        metadata.ram_bytes = BASE.bytes() + ram_chunks * CHUNK_BYTES;
        let mut next = 0;
        metadata.segments = parts.iter().map(|(start, pages)| {
            let (from, bytes) = (next, pages * PAGE_BYTES);
            next += bytes;
            SegmentMetadata { start: *start, bytes, from }
        }).collect();
        metadata.digests = vec![String::new(); usize::try_from((next + RAMDISK_BYTES).div_ceil(DIGEST_BYTES)).unwrap()];
        if metadata.check(next + RAMDISK_BYTES).is_ok() {
            let near = ram_chunks.min(POOL_NEAR.bytes() / CHUNK_BYTES);
            for (index, segment) in metadata.segments.iter().enumerate() {
                for page in (segment.start..segment.start + segment.bytes).step_by(4096) {
                    let ram = BASE.contains(page)
                        || (POOL_NEAR.start..POOL_NEAR.start + near * CHUNK_BYTES).contains(&page)
                        || (POOL_FAR.start..POOL_FAR.start + (ram_chunks - near) * CHUNK_BYTES).contains(&page);
                    let host = BOOT_INFO.contains(page) || HOST_STATUS.contains(page) || SYSTEM.contains(page);
                    prop_assert!(ram && !host && page.is_multiple_of(PAGE_BYTES), "{page:#x}");
                    let others = metadata.segments.iter().enumerate().filter(|(other, _)| *other != index);
                    prop_assert!(others.into_iter().all(|(_, other)| !(other.start..other.start + other.bytes).contains(&page)));
                }
            }
        }
    }

    #[test]
    fn chunks_that_are_taken_were_handed_out_once(
        pairs in prop::collection::vec((address(), address()), 0..4),
        next in address(),
        ram_chunks in 5u64..40,
    ) {
        let mut metadata = good();
        metadata.ram_bytes = BASE.bytes() + ram_chunks * CHUNK_BYTES;
        metadata.next_chunk = next;
        metadata.chunks = pairs.iter().map(|(address, chunk)| [*address, *chunk]).collect();
        if metadata.check(DATA_BYTES).is_ok() {
            // The pool's chunks in the order in which they are handed out.
            let near = ram_chunks.min(POOL_NEAR.bytes() / CHUNK_BYTES);
            let pool: Vec<_> = (0..near)
                .map(|chunk| POOL_NEAR.start + chunk * CHUNK_BYTES)
                .chain((0..ram_chunks - near).map(|chunk| POOL_FAR.start + chunk * CHUNK_BYTES))
                .collect();
            let at_end = next == POOL_NEAR.start + near * CHUNK_BYTES || next == POOL_FAR.start + (ram_chunks - near) * CHUNK_BYTES;
            prop_assert!(at_end || pool.contains(&next), "next: {next:#x}");
            let mapped = metadata.mapped();
            prop_assert_eq!(mapped.len(), metadata.chunks.len());
            prop_assert_eq!(mapped.values().collect::<BTreeSet<_>>().len(), metadata.chunks.len());
            for (address, chunk) in mapped {
                prop_assert!(layout::is_demand(address) && address.is_multiple_of(CHUNK_BYTES), "{address:#x}");
                prop_assert!(pool.contains(&chunk) && chunk < next, "{chunk:#x}, next {next:#x}");
            }
        }
    }
}

#[test]
fn a_list_is_not_taken_beyond_its_bound() {
    let parse = |length: usize| {
        let list = vec![""; length].iter().map(|_| "\"\"").collect::<Vec<_>>().join(",");
        list_of_strings(&format!("[{list}]")).map(|all| all.len())
    };
    assert_eq!(parse(MAX_LIST).unwrap(), MAX_LIST);
    assert!(parse(MAX_LIST + 1).unwrap_err().to_string().contains("longer than that of any snapshot"));
    assert!(list_of_strings("{}").unwrap_err().to_string().contains("a list"));
}

fn list_of_strings(json: &str) -> serde_json::Result<Vec<String>> {
    list(&mut serde_json::Deserializer::from_str(json))
}

#[test]
fn exports_come_back_with_their_types() {
    let ty = FuncType { params: vec![ValueType::I32, ValueType::V128], results: vec![ValueType::F64] };
    for ty in [
        ExportType::Func(ty),
        ExportType::Global { ty: ValueType::I64, mutable: true },
        ExportType::Memory { minimum: 1, maximum: Some(u64::MAX), memory64: true },
        ExportType::Table { ty: ValueType::ExternRef, minimum: 3, maximum: None },
    ] {
        let before = export("a\0\u{1b}", ty);
        assert_eq!(Export::try_from(&ExportMetadata::from(&before)).unwrap(), before);
    }
    let wrong = |kind, ty: &str| ExportMetadata { name: "x".into(), kind, ty: ty.into(), flag: false, minimum: 0, maximum: None };
    for metadata in [wrong(Kind::Func, "i"), wrong(Kind::Global, ""), wrong(Kind::Global, "ii"), wrong(Kind::Table, "?")] {
        assert!(Export::try_from(&metadata).unwrap_err().contains("`x` has no type"), "{metadata:?}");
    }
}

/// A compiled module of two pages, the second of which is text, in the last page of the data and one more.
fn with_module(change: impl FnOnce(&mut Vec<ModuleMetadata>)) -> Result<(), String> {
    let module =
        ModuleMetadata { address: MODULE.start, bytes: PAGE_BYTES + 5, text_start: PAGE_BYTES, text_end: 2 * PAGE_BYTES };
    let mut metadata = Metadata { modules: vec![module], ..good() };
    change(&mut metadata.modules);
    metadata.check(DATA_BYTES + 2 * PAGE_BYTES)
}

#[test]
fn compiled_modules_lie_where_they_can() {
    assert_eq!(with_module(|_| ()), Ok(()));
    type Change = fn(&mut ModuleMetadata);
    let bad: [(&str, Change); 17] = [
        ("before the region", |module| module.address -= CHUNK_BYTES),
        ("at zero", |module| module.address = 0),
        ("behind the region", |module| module.address = MODULE.end),
        ("at the end of all", |module| module.address = u64::MAX - CHUNK_BYTES + 1),
        ("not at a chunk", |module| module.address += PAGE_BYTES),
        ("not at a page", |module| module.address += 1),
        ("no bytes", |module| module.bytes = 0),
        ("over the end of the region", |module| module.bytes = MODULE.bytes() + 1),
        ("of all bytes", |module| module.bytes = u64::MAX),
        ("of nearly all bytes", |module| module.bytes = u64::MAX - MODULE.start),
        ("no text", |module| module.text_start = module.text_end),
        ("text from its end", |module| module.text_start = module.text_end + PAGE_BYTES),
        ("text behind it", |module| module.text_end += PAGE_BYTES),
        ("text far behind it", |module| module.text_end = u64::MAX - PAGE_BYTES + 1),
        ("text from no page", |module| module.text_start += 1),
        ("text to no page", |module| module.text_end -= 1),
        ("text to its last byte", |module| module.text_end = module.bytes),
    ];
    for (name, change) in bad {
        let refused = with_module(|modules| change(&mut modules[0]));
        assert_eq!(refused.unwrap_err(), "a compiled module lies where none can be", "{name}");
    }
}

#[test]
fn compiled_modules_do_not_overlap_and_have_their_data() {
    let refused = |change: fn(&mut Vec<ModuleMetadata>)| with_module(change).unwrap_err();
    assert!(refused(|modules| modules.push(modules[0])).contains("lies where none can be"));
    assert!(refused(|modules| modules[0].bytes = CHUNK_BYTES + 1).contains("too large"));
    let backwards = refused(|modules| {
        modules.push(modules[0]);
        modules[0].address += CHUNK_BYTES;
    });
    assert!(backwards.contains("lies where none can be"), "{backwards}");
    // Data that belong to no module.
    assert!(refused(|modules| modules.clear()).contains("data"));
    assert!(
        refused(|modules| (modules[0].bytes, modules[0].text_start, modules[0].text_end) = (1, 0, PAGE_BYTES)).contains("data")
    );
}
