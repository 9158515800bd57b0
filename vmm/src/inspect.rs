//! What a module imports, exports and needs: the one part of this crate that parses module bytes on the host.
//!
//! For people who wonder whether a module will run, and for the command that has to choose an engine for one; the library does not
//! come through here when it runs modules.

use std::path::Path;

use wasmparser::{ExternalKind, FuncType, MemoryType, Parser, Payload, TypeRef, Validator, WasmFeatures};

use crate::module::{ModuleError, read_binary};

/// The functions of WASI preview 1 that the kernel answers, which are all, with their types.
const PREVIEW1: [(&str, &str); 46] = [
    ("args_get", "(i32, i32) -> (i32)"),
    ("args_sizes_get", "(i32, i32) -> (i32)"),
    ("clock_res_get", "(i32, i32) -> (i32)"),
    ("clock_time_get", "(i32, i64, i32) -> (i32)"),
    ("environ_get", "(i32, i32) -> (i32)"),
    ("environ_sizes_get", "(i32, i32) -> (i32)"),
    ("fd_advise", "(i32, i64, i64, i32) -> (i32)"),
    ("fd_allocate", "(i32, i64, i64) -> (i32)"),
    ("fd_close", "(i32) -> (i32)"),
    ("fd_datasync", "(i32) -> (i32)"),
    ("fd_fdstat_get", "(i32, i32) -> (i32)"),
    ("fd_fdstat_set_flags", "(i32, i32) -> (i32)"),
    ("fd_fdstat_set_rights", "(i32, i64, i64) -> (i32)"),
    ("fd_filestat_get", "(i32, i32) -> (i32)"),
    ("fd_filestat_set_size", "(i32, i64) -> (i32)"),
    ("fd_filestat_set_times", "(i32, i64, i64, i32) -> (i32)"),
    ("fd_pread", "(i32, i32, i32, i64, i32) -> (i32)"),
    ("fd_prestat_dir_name", "(i32, i32, i32) -> (i32)"),
    ("fd_prestat_get", "(i32, i32) -> (i32)"),
    ("fd_pwrite", "(i32, i32, i32, i64, i32) -> (i32)"),
    ("fd_read", "(i32, i32, i32, i32) -> (i32)"),
    ("fd_readdir", "(i32, i32, i32, i64, i32) -> (i32)"),
    ("fd_renumber", "(i32, i32) -> (i32)"),
    ("fd_seek", "(i32, i64, i32, i32) -> (i32)"),
    ("fd_sync", "(i32) -> (i32)"),
    ("fd_tell", "(i32, i32) -> (i32)"),
    ("fd_write", "(i32, i32, i32, i32) -> (i32)"),
    ("path_create_directory", "(i32, i32, i32) -> (i32)"),
    ("path_filestat_get", "(i32, i32, i32, i32, i32) -> (i32)"),
    ("path_filestat_set_times", "(i32, i32, i32, i32, i64, i64, i32) -> (i32)"),
    ("path_link", "(i32, i32, i32, i32, i32, i32, i32) -> (i32)"),
    ("path_open", "(i32, i32, i32, i32, i32, i64, i64, i32, i32) -> (i32)"),
    ("path_readlink", "(i32, i32, i32, i32, i32, i32) -> (i32)"),
    ("path_remove_directory", "(i32, i32, i32) -> (i32)"),
    ("path_rename", "(i32, i32, i32, i32, i32, i32) -> (i32)"),
    ("path_symlink", "(i32, i32, i32, i32, i32) -> (i32)"),
    ("path_unlink_file", "(i32, i32, i32) -> (i32)"),
    ("poll_oneoff", "(i32, i32, i32, i32) -> (i32)"),
    ("proc_exit", "(i32) -> ()"),
    ("proc_raise", "(i32) -> (i32)"),
    ("random_get", "(i32, i32) -> (i32)"),
    ("sched_yield", "() -> (i32)"),
    ("sock_accept", "(i32, i32, i32) -> (i32)"),
    ("sock_recv", "(i32, i32, i32, i32, i32, i32) -> (i32)"),
    ("sock_send", "(i32, i32, i32, i32, i32) -> (i32)"),
    ("sock_shutdown", "(i32, i32) -> (i32)"),
];

/// A module's interface.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// In their order.
    pub imports: Vec<Import>,
    /// In their order.
    pub exports: Vec<Export>,
    /// Own memories, for people.
    pub memories: Vec<String>,
    /// Whether it has a start function as WASI commands have.
    pub is_command: bool,
    /// Why it cannot be run here; empty if it can.
    pub obstacles: Vec<String>,
}

/// One import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// `func`, `memory` …
    pub kind: &'static str,
    /// Module name.
    pub module: String,
    /// Field name.
    pub name: String,
    /// Type, for people.
    pub ty: String,
    /// Whether it is there for a module that runs here.
    pub is_known: bool,
}

/// One export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// `func`, `memory` …
    pub kind: &'static str,
    /// Name.
    pub name: String,
    /// Type of a function, for people.
    pub ty: String,
}

/// Parses and validates the module at `path`, or on standard input for `-`.
pub fn inspect(path: &Path) -> Result<Inspection, ModuleError> {
    Ok(inspect_binary(&read_binary(path)?))
}

/// The same for the binary format. Never fails: what is wrong is an obstacle.
pub fn inspect_binary(bytes: &[u8]) -> Inspection {
    let mut inspection = Inspection::default();
    let valid = |features| Validator::new_with_features(features).validate_all(bytes);
    let compiles = cfg!(feature = "compiled") && valid(COMPILED_FEATURES).is_ok();
    if let (Err(error), false) = (valid(engine_features()), compiles) {
        inspection.obstacles.push(format!("it is not valid, or needs a proposal that no engine here has: {error}"));
    }
    // What precedes an error is still worth showing.
    if let Err(error) = inspection.collect(bytes) {
        inspection.obstacles.push(format!("it cannot be parsed: {error}"));
    }
    inspection.obstacles.dedup();
    inspection
}

/// What compiled code can have: `wasmtime-config/` says the same to compiler and kernel.
const COMPILED_FEATURES: WasmFeatures = WasmFeatures::WASM3.difference(WasmFeatures::THREADS);

/// What the interpreter in the kernel has.
fn engine_features() -> WasmFeatures {
    WasmFeatures::MVP
        | WasmFeatures::MUTABLE_GLOBAL
        | WasmFeatures::MULTI_VALUE
        | WasmFeatures::MULTI_MEMORY
        | WasmFeatures::SATURATING_FLOAT_TO_INT
        | WasmFeatures::SIGN_EXTENSION
        | WasmFeatures::BULK_MEMORY
        | WasmFeatures::REFERENCE_TYPES
        | WasmFeatures::GC_TYPES
        | WasmFeatures::TAIL_CALL
        | WasmFeatures::EXTENDED_CONST
        | WasmFeatures::FLOATS
        | WasmFeatures::MEMORY64
        | WasmFeatures::SIMD
        | WasmFeatures::RELAXED_SIMD
}

/// What of a module, in binary format, the interpreter cannot run, but compiled code can: a proposal that shows outside of the
/// bodies of its functions, as exceptions and GC do. Bodies are not looked at: that is the guest's work.
pub fn interpreter_lacks(bytes: &[u8]) -> Option<String> {
    let error = check_declarations(bytes, engine_features()).err()?;
    check_declarations(bytes, COMPILED_FEATURES).ok()?;
    Some(error.message().into())
}

/// Validates everything but the bodies of functions.
fn check_declarations(bytes: &[u8], features: WasmFeatures) -> wasmparser::Result<()> {
    let mut validator = Validator::new_with_features(features);
    for payload in Parser::new(0).parse_all(bytes) {
        validator.payload(&payload?)?;
    }
    Ok(())
}

impl Inspection {
    fn collect(&mut self, bytes: &[u8]) -> wasmparser::Result<()> {
        let mut types: Vec<Option<FuncType>> = Vec::new();
        let mut functions: Vec<u32> = Vec::new();
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::TypeSection(section) => {
                    for group in section {
                        for sub_type in group?.into_types() {
                            let is_function = matches!(sub_type.composite_type.inner, wasmparser::CompositeInnerType::Func(_));
                            types.push(is_function.then(|| sub_type.unwrap_func().clone()));
                        }
                    }
                }
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let import = import?;
                        if let TypeRef::Func(ty) | TypeRef::FuncExact(ty) = import.ty {
                            functions.push(ty);
                        }
                        self.import(&import, &types);
                    }
                }
                Payload::FunctionSection(section) => {
                    for ty in section {
                        functions.push(ty?);
                    }
                }
                Payload::MemorySection(section) => {
                    for memory in section {
                        self.memories.push(memory_type(&memory?));
                    }
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export?;
                        let ty = match export.kind {
                            ExternalKind::Func | ExternalKind::FuncExact => {
                                let ty = usize::try_from(export.index).ok().and_then(|index| functions.get(index));
                                ty.map(|ty| function_type(&types, *ty)).unwrap_or_default()
                            }
                            _ => String::new(),
                        };
                        self.is_command |= export.name == "_start" && ty == "() -> ()";
                        self.exports.push(Export { kind: kind_name(export.kind), name: printable(export.name), ty });
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn import(&mut self, import: &wasmparser::Import<'_>, types: &[Option<FuncType>]) {
        let (kind, ty) = match import.ty {
            TypeRef::Func(ty) | TypeRef::FuncExact(ty) => ("func", function_type(types, ty)),
            TypeRef::Table(_) => ("table", String::new()),
            TypeRef::Memory(ty) => ("memory", memory_type(&ty)),
            TypeRef::Global(ty) => ("global", format!("{}", ty.content_type)),
            TypeRef::Tag(_) => ("tag", String::new()),
        };
        let is_known =
            kind == "func" && import.module == "wasi_snapshot_preview1" && PREVIEW1.contains(&(import.name, ty.as_str()));
        let (module, name) = (printable(import.module), printable(import.name));
        if !is_known {
            self.obstacles.push(format!("there is no {kind} {module}::{name} {ty}").trim_end().to_owned());
        }
        self.imports.push(Import { kind, module, name, ty, is_known });
    }
}

/// A name out of the module without control characters.
fn printable(name: &str) -> String {
    crate::request::printable(name.as_bytes())
}

fn kind_name(kind: ExternalKind) -> &'static str {
    match kind {
        ExternalKind::Func | ExternalKind::FuncExact => "func",
        ExternalKind::Table => "table",
        ExternalKind::Memory => "memory",
        ExternalKind::Global => "global",
        ExternalKind::Tag => "tag",
    }
}

fn function_type(types: &[Option<FuncType>], index: u32) -> String {
    let ty = usize::try_from(index).ok().and_then(|index| types.get(index)).and_then(Option::as_ref);
    let list = |types: &[wasmparser::ValType]| types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    ty.map_or_else(|| "?".into(), |ty| format!("({}) -> ({})", list(ty.params()), list(ty.results())))
}

fn memory_type(ty: &MemoryType) -> String {
    let bits = if ty.memory64 { "64-bit" } else { "32-bit" };
    let page_bytes = 1u64.checked_shl(ty.page_size_log2.unwrap_or(16)).unwrap_or(0);
    let maximum = ty.maximum.map_or_else(|| "no maximum".into(), |pages| format!("at most {pages}"));
    format!("{bits}, {} pages of {page_bytes} bytes, {maximum}", ty.initial)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn inspect_text(text: &str) -> Inspection {
        inspect_binary(&wat::parse_str(text).unwrap())
    }

    #[test]
    fn imports_and_exports_are_shown_with_types() {
        let inspection = inspect_text(
            r#"(module
                (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
                (import "env" "missing" (func))
                (memory (export "memory") 1 2)
                (func (export "_start"))
                (func (export "add") (param i32 i64) (result f32) unreachable))"#,
        );
        assert_eq!(inspection.imports[0].ty, "(i32, i32, i32, i32) -> (i32)");
        assert!(inspection.imports[0].is_known && !inspection.imports[1].is_known);
        assert_eq!(inspection.exports[2].ty, "(i32, i64) -> (f32)");
        assert_eq!(inspection.memories, ["32-bit, 1 pages of 65536 bytes, at most 2"]);
        assert!(inspection.is_command);
        assert_eq!(inspection.obstacles, ["there is no func env::missing () -> ()"]);
    }

    #[test]
    fn the_type_of_an_import_matters() {
        let inspection = inspect_text(r#"(module (import "wasi_snapshot_preview1" "fd_write" (func (param i32))))"#);
        assert_eq!(inspection.obstacles, ["there is no func wasi_snapshot_preview1::fd_write (i32) -> ()"]);
    }

    /// The kernel's table is in another workspace, so its text is compared.
    #[test]
    fn the_kernel_links_the_same_functions() {
        let source = include_str!("../../kernel/src/wasi/mod.rs");
        let (_, table) = source.split_once("\npreview1! {\n").unwrap();
        let (table, _) = table.split_once("\n}\n").unwrap();
        let mut linked: Vec<(String, String)> = table
            .lines()
            .filter_map(|line| line.trim().split_once(") => ")?.0.split_once('('))
            .map(|(name, arguments)| {
                let types: Vec<_> =
                    arguments.split(", ").filter_map(|argument| argument.split_once(": ")).map(|(_, ty)| ty).collect();
                (name.to_owned(), format!("({}) -> (i32)", types.join(", ")))
            })
            .collect();
        // Written out beside the table, as the only one without a result.
        linked.push(("proc_exit".into(), "(i32) -> ()".into()));
        linked.sort();
        let mut known = PREVIEW1.map(|(name, ty)| (name.to_owned(), ty.to_owned()));
        known.sort();
        assert_eq!(linked, known);
    }

    #[test]
    fn what_is_invalid_is_an_obstacle() {
        let inspection = inspect_binary(b"\0asm\x01\0\0\0\xff");
        assert!(!inspection.obstacles.is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_have_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut module = b"\0asm\x01\0\0\0".to_vec();
            module.extend(bytes);
            inspect_binary(&module);
        }
    }
}
