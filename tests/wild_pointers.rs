//! WASI with arguments that no honest program gives: every answer is an errno, and the guest kernel never fails.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "arguments are bit patterns")]

mod wasi {
    mod errnos;
}
mod support {
    pub(crate) mod command;
    pub(crate) mod engine;
    pub(crate) mod kvm;
}

use std::{fmt::Write, sync::LazyLock};

use proptest::{prelude::*, sample::select, test_runner::TestRunner};
use support::{
    command::{Outcome, payload, run_module},
    kvm,
};
use tempfile::{NamedTempFile, TempDir};
use wasmparser::{FuncType, Parser, Payload, TypeRef, ValType};

/// The largest errno (witx: `notcapable`).
const MAX_ERRNO: u32 = 76;
/// Numbers at which pointers, lengths and descriptors change their meaning; memory ends at 65536.
const EXTREMES: [i64; 20] = [
    0,
    1,
    2,
    3,
    4,
    8,
    48,
    64,
    4096,
    65_504,
    65_520,
    65_528,
    65_532,
    65_535,
    65_536,
    0x1000_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fff8,
    -1,
];
/// Their 64-bit companions.
const LONG_EXTREMES: [i64; 6] = [i64::MIN, i64::MAX, 1 << 32, -2, 1_000_000_000, 0x7fff_ffff_ffff_fff0];

/// A function of WASI preview 1.
struct Function {
    name: String,
    parameters: Vec<ValType>,
}

/// All 46 but `proc_exit`, as `wild.wat` imports them.
static FUNCTIONS: LazyLock<Vec<Function>> = LazyLock::new(|| {
    let binary = wat::parse_file(payload("wild.wat")).unwrap();
    let mut types: Vec<FuncType> = Vec::new();
    let mut functions = Vec::new();
    for part in Parser::new(0).parse_all(&binary) {
        match part.unwrap() {
            Payload::TypeSection(section) => types.extend(section.into_iter_err_on_gc_types().map(Result::unwrap)),
            Payload::ImportSection(section) => {
                for import in section.into_imports().map(Result::unwrap) {
                    let TypeRef::Func(ty) = import.ty else { panic!("{} is no function", import.name) };
                    functions.push(Function { name: import.name.into(), parameters: types[ty as usize].params().into() });
                }
            }
            _ => {}
        }
    }
    assert_eq!(functions.len(), 46);
    functions.retain(|function| function.name != "proc_exit");
    functions
});

/// A call with its arguments.
#[derive(Clone)]
struct Call {
    function: &'static Function,
    arguments: Vec<i64>,
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let arguments: Vec<_> = self.arguments.iter().map(ToString::to_string).collect();
        write!(f, "{}({})", self.function.name, arguments.join(", "))
    }
}

impl Call {
    /// As an expression in text format.
    fn text(&self) -> String {
        let mut text = format!("(call ${}", self.function.name);
        for (ty, argument) in self.function.parameters.iter().zip(&self.arguments) {
            // An i32 has the low half of the number.
            let argument = if *ty == ValType::I32 { i64::from(*argument as u32) } else { *argument };
            write!(text, " ({ty}.const {argument})").unwrap();
        }
        text + ")"
    }
}

/// A module that makes these calls in a memory that begins with `words`, and traps at the first answer that is no errno.
fn module(words: &[u32], calls: &[Call]) -> String {
    let mut text = String::from("(module\n");
    for Function { name, parameters } in &*FUNCTIONS {
        let parameters: String = parameters.iter().map(|ty| format!(" {ty}")).collect();
        writeln!(text, r#"(import "wasi_snapshot_preview1" "{name}" (func ${name} (param{parameters}) (result i32)))"#).unwrap();
    }
    let data: String = words.iter().flat_map(|word| word.to_le_bytes()).map(|byte| format!("\\{byte:02x}")).collect();
    // Behind the words all is a name, so that paths of some lengths can be.
    let names = "a".repeat(65_536 - NAMES);
    writeln!(text, r#"(memory (export "memory") 1 1) (data (i32.const 0) "{data}") (data (i32.const {NAMES}) "{names}")"#)
        .unwrap();
    writeln!(text, "(func $check (param i32) (if (i32.gt_u (local.get 0) (i32.const {MAX_ERRNO})) (then unreachable)))").unwrap();
    let calls: String = calls.iter().map(|call| format!("(call $check {})\n", call.text())).collect();
    write!(text, r#"(func (export "_start") {calls}))"#).unwrap();
    text
}

/// Where the names begin in the memory.
const NAMES: usize = 1024;

/// A directory that becomes descriptor 3, and the archive of a ramdisk that becomes 4.
fn given() -> (TempDir, NamedTempFile) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a"), "contents").unwrap();
    std::fs::create_dir(directory.path().join("aa")).unwrap();
    let archive = NamedTempFile::new().unwrap();
    let mut builder = tar::Builder::new(archive.reopen().unwrap());
    builder.append_dir_all("", directory.path()).unwrap();
    builder.finish().unwrap();
    (directory, archive)
}

/// Makes the calls; what went wrong, if anything did.
fn make(words: &[u32], calls: &[Call]) -> Result<(), String> {
    let (directory, archive) = given();
    let names = format!("{}::/d", directory.path().display());
    let archive = archive.path().display().to_string();
    // Arguments that happen to be right may make `poll_oneoff` wait for long.
    let options = ["--timeout", "1s", "--memory", "64MiB", "--dir", &names, "--ramdisk", &archive];
    let Outcome { status, stderr, .. } = run_module(&options, module(words, calls));
    match status {
        Some(0 | 124) => Ok(()),
        // The message names the last call.
        _ => Err(format!("status {status:?}: {}", stderr.lines().last().unwrap_or_default())),
    }
}

/// Every function with every argument at every extreme, while the others are all the same.
#[test]
fn extremes_give_errnos() {
    if !kvm::usable() {
        return;
    }
    for function in &*FUNCTIONS {
        let mut calls = Vec::new();
        for others in [0, 1, 2, 8, 65_528, -1] {
            for index in 0..function.parameters.len() {
                for extreme in EXTREMES.into_iter().chain(LONG_EXTREMES) {
                    let mut arguments = vec![others; function.parameters.len()];
                    arguments[index] = extreme;
                    calls.push(Call { function, arguments });
                }
            }
        }
        if let Err(what) = make(&[], &calls) {
            panic!("{}: {what}", function.name);
        }
    }
}

fn argument() -> impl Strategy<Value = i64> {
    prop_oneof![6 => select(&EXTREMES[..]), 1 => select(&LONG_EXTREMES[..]), 2 => 0i64..65_600, 1 => any::<i64>()]
}

fn call() -> impl Strategy<Value = Call> {
    (0..FUNCTIONS.len()).prop_flat_map(|index| {
        let function = &FUNCTIONS[index];
        prop::collection::vec(argument(), function.parameters.len()).prop_map(move |arguments| Call { function, arguments })
    })
}

/// Words that make good and bad vectors and subscriptions at the beginning of memory.
fn word() -> impl Strategy<Value = u32> {
    argument().prop_map(|value| value as u32)
}

/// Sequences of calls: descriptors are closed and renumbered, memory is filled and used again.
#[test]
fn any_sequence_of_calls_gives_errnos() {
    if !kvm::usable() {
        return;
    }
    let config = ProptestConfig { cases: 400, max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() };
    let strategy = (prop::collection::vec(word(), 0..40), prop::collection::vec(call(), 1..150));
    TestRunner::new(config)
        .run(&strategy, |(words, calls)| make(&words, &calls).map_err(TestCaseError::fail))
        .unwrap_or_else(|error| panic!("{error}"));
}
