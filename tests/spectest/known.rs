//! Directives that fail, and why: in sandboxes as in the interpreter by itself, and with compiled code. Where both engines fail,
//! they have a newer specification than the file.

use crate::support::engine::by_engine;

/// Some that fail for one reason.
pub(crate) struct Known {
    pub(crate) suite: &'static str,
    pub(crate) file: &'static str,
    pub(crate) lines: &'static [usize],
    pub(crate) reason: &'static str,
}

const fn fails(suite: &'static str, file: &'static str, lines: &'static [usize], reason: &'static str) -> Known {
    Known { suite, file, lines, reason }
}

const EXACT: &str = "the module is taken for valid, and the compiler lacks exact types (custom-descriptors, not in 3.0)";
const LIMITS: &str = "limits of memories have 64 bits, and so may be longer (memory64, in 3.0)";
const MEMORIES: &str = "a module may have several memories (multi-memory, in 3.0)";
const MEMORY_INDEX: &str =
    "what was a reserved zero byte is the index of a memory, in LEB128 of any length (multi-memory, in 3.0)";
const OFFSETS: &str = "offsets of loads and stores have 64 bits, and so may be longer (memory64, in 3.0)";
const SEGMENTS: &str = "segments are written one after another, and trap where they do not fit (bulk-memory, in 2.0)";
const TABLES: &str = "a module may have several tables (reference-types, in 2.0)";
const UNREACHABLE: &str = "the labels of a br_table in unreachable code may have different types (in 2.0)";

/// Those of the engine under test.
pub(crate) fn known() -> impl Iterator<Item = &'static Known> {
    BOTH.iter().chain(by_engine(ONLY_INTERPRETED, ONLY_COMPILED))
}

const BOTH: &[Known] = &[
    fails("wasm-v1", "binary-leb128.wast", &[403, 460], OFFSETS),
    fails("wasm-v1", "imports.wast", &[404, 408, 412], MEMORIES),
    fails("wasm-v1", "memory.wast", &[8, 9], MEMORIES),
    fails("wasm-v2", "binary.wast", &[145, 165, 184, 203, 242, 261, 279, 297], MEMORY_INDEX),
    fails("wasm-v2", "imports.wast", &[487, 491, 495], MEMORIES),
    fails("wasm-v2", "memory.wast", &[10, 11], MEMORIES),
    fails("proposals/function-references", "binary.wast", &[145, 165, 184, 203, 242, 261, 279, 297], MEMORY_INDEX),
    fails("proposals/memory64", "binary.wast", &[876, 896, 915, 934, 973, 992, 1010, 1028], MEMORY_INDEX),
    fails("proposals/memory64", "memory.wast", &[10, 11], MEMORIES),
    fails("proposals/memory64", "memory64.wast", &[8, 9], MEMORIES),
    fails("proposals/multi-value", "binary.wast", &[162, 182, 201, 220, 259, 278, 296, 314], MEMORY_INDEX),
    fails("proposals/mutable-global", "linking.wast", &[206, 227, 236, 238, 248, 298, 334, 342, 344, 354], SEGMENTS),
    fails("proposals/reference-types", "binary-leb128.wast", &[404, 461], OFFSETS),
    fails("proposals/reference-types", "binary.wast", &[362, 419], OFFSETS),
    fails("proposals/reference-types", "binary.wast", &[756, 776, 795, 814, 853, 872, 890, 908], MEMORY_INDEX),
    fails("proposals/reference-types", "imports.wast", &[416, 420, 424], MEMORIES),
    fails("proposals/reference-types", "unreached-invalid.wast", &[539], UNREACHABLE),
    fails("proposals/threads", "imports.wast", &[309, 313, 317], TABLES),
    fails("proposals/threads", "imports.wast", &[404, 408, 412], MEMORIES),
    fails("proposals/threads", "memory.wast", &[14, 15], MEMORIES),
];

const ONLY_INTERPRETED: &[Known] = &[];

const ONLY_COMPILED: &[Known] = &[
    fails("wasm-v1", "binary-leb128.wast", &[216, 224], LIMITS),
    fails("wasm-v2", "binary-leb128.wast", &[217, 225], LIMITS),
    fails("proposals/custom-descriptors", "exact-casts.wast", &[4, 216, 428], EXACT),
    fails("proposals/reference-types", "binary-leb128.wast", &[217, 225], LIMITS),
    fails("proposals/reference-types", "binary.wast", &[157, 354], LIMITS),
];
