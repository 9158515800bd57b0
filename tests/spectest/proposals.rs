//! Which proposals a module needs that the engine does not have: decided by validating it with and without them.

use wasmparser::{Parser, Payload, Validator, WasmFeatures};

use crate::support::engine::by_engine;

/// What wasmi has, with the crate features of the kernel.
const INTERPRETED: WasmFeatures = WasmFeatures::WASM2
    .union(WasmFeatures::MULTI_MEMORY)
    .union(WasmFeatures::TAIL_CALL)
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::MEMORY64)
    .union(WasmFeatures::RELAXED_SIMD);

/// What wasmtime has, as `wasmtime-config/` configures it.
const COMPILED: WasmFeatures = WasmFeatures::WASM3.difference(WasmFeatures::THREADS);

/// What the suite has beyond the first of these, each with what it is built on, and what it has together.
const LACKING: [(&str, WasmFeatures); 11] = [
    ("custom-page-sizes", WasmFeatures::CUSTOM_PAGE_SIZES),
    ("wide-arithmetic", WasmFeatures::WIDE_ARITHMETIC),
    ("compact-import-section", WasmFeatures::COMPACT_IMPORTS),
    ("threads", WasmFeatures::THREADS),
    ("function-references", WasmFeatures::FUNCTION_REFERENCES),
    ("exceptions", WasmFeatures::EXCEPTIONS),
    ("gc", GC),
    ("custom-descriptors", GC.union(WasmFeatures::CUSTOM_DESCRIPTORS)),
    ("exceptions and function-references", WasmFeatures::EXCEPTIONS.union(WasmFeatures::FUNCTION_REFERENCES)),
    ("exceptions and gc", WasmFeatures::EXCEPTIONS.union(GC)),
    ("exceptions and compact-import-section", WasmFeatures::EXCEPTIONS.union(WasmFeatures::COMPACT_IMPORTS)),
];

const GC: WasmFeatures = WasmFeatures::FUNCTION_REFERENCES.union(WasmFeatures::GC);

/// Where validation stops, and why.
type Verdict = Result<(), (u64, String)>;

/// The proposal that a module needs, which is valid by some version of the specification.
pub(crate) fn needed_by_valid(bytes: &[u8]) -> Option<&'static str> {
    let ideal = verdict(bytes, everything());
    if ideal.is_ok() && verdict(bytes, supported()).is_err() { Some(first_with(bytes, &ideal)) } else { None }
}

/// The proposal that a module needs, which is invalid, for the engine to come as far as what is wrong with it.
pub(crate) fn needed_by_invalid(bytes: &[u8]) -> Option<&'static str> {
    let ideal = verdict(bytes, everything());
    if ideal.is_err() && verdict(bytes, supported()) != ideal { Some(first_with(bytes, &ideal)) } else { None }
}

/// The names of the modules that a module imports from, as far as they can be read.
pub(crate) fn imported_modules(bytes: &[u8]) -> Vec<String> {
    let sections = Parser::new(0).parse_all(bytes).map_while(Result::ok).filter_map(|payload| match payload {
        Payload::ImportSection(section) => Some(section),
        _ => None,
    });
    sections.flat_map(|section| section.into_imports().map_while(Result::ok)).map(|import| import.module.to_owned()).collect()
}

/// What the engine under test has.
fn supported() -> WasmFeatures {
    by_engine(INTERPRETED, COMPILED)
}

fn everything() -> WasmFeatures {
    LACKING.iter().fold(supported(), |all, (_, features)| all | *features)
}

fn first_with(bytes: &[u8], ideal: &Verdict) -> &'static str {
    let suffices = |(_, features): &&(&str, WasmFeatures)| verdict(bytes, supported() | *features) == *ideal;
    let lacking = LACKING.iter().filter(|(_, features)| !supported().contains(*features));
    lacking.into_iter().find(suffices).map_or("several of them", |(name, _)| name)
}

fn verdict(bytes: &[u8], features: WasmFeatures) -> Verdict {
    let result = Validator::new_with_features(features).validate_all(bytes);
    result.map(drop).map_err(|error| (error.offset(), error.message().to_owned()))
}
