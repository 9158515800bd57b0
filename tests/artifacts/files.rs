//! Artifacts to be damaged, and what comes of them.

use std::{
    ops::{ControlFlow, Range},
    sync::OnceLock,
    time::{Duration, Instant},
};

use mote_vmm::{BuildError, CallError, CompileOptions, EngineError, ModuleError, Sandbox, Value, compile};
use object::{LittleEndian, Object, ObjectSection, read::elf::ElfFile64};

/// Memory, table, data, a trap, a function of WASI and one that is called: something in every section.
const MODULE: &str = r#"(module
    (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
    (memory (export "memory") 1) (table 2 funcref) (elem (i32.const 0) $inner) (data (i32.const 16) "some data")
    (global $g (export "g") (mut i32) (i32.const 3))
    (func $inner (param i32) (result i32) (i32.load offset=16 (local.get 0)))
    (func (export "f") (param i32) (result i32)
        (drop (call $random (i32.const 64) (i32.const 8)))
        (i32.div_u (call_indirect (param i32) (result i32) (local.get 0) (i32.const 0)) (global.get $g))))"#;

/// How long anything may take that is given [`DEADLINE`].
const SOON: Duration = Duration::from_secs(10);
pub(crate) const DEADLINE: Duration = Duration::from_millis(300);

/// A good one.
pub(crate) fn good() -> &'static [u8] {
    static GOOD: OnceLock<Vec<u8>> = OnceLock::new();
    GOOD.get_or_init(|| artifact(MODULE))
}

pub(crate) fn artifact(text: &str) -> Vec<u8> {
    let artifact = compile(text.as_bytes(), &CompileOptions::default(), |_| ControlFlow::Continue(())).unwrap();
    let mut bytes = Vec::new();
    artifact.write_to(&mut bytes).unwrap();
    bytes
}

/// Names of sections and where they lie, ELF's own headers included.
pub(crate) fn sections(artifact: &[u8]) -> Vec<(String, Range<usize>)> {
    let file = ElfFile64::<LittleEndian>::parse(artifact).unwrap();
    let mut sections: Vec<_> = file
        .sections()
        .filter_map(|section| {
            let (start, bytes) = section.file_range()?;
            (bytes > 0).then(|| (section.name().unwrap().to_owned(), start as usize..(start + bytes) as usize))
        })
        .collect();
    let headers = file.elf_header().e_shoff.get(LittleEndian) as usize;
    let count = usize::from(file.elf_header().e_shnum.get(LittleEndian));
    sections.push(("section headers".into(), headers..headers + 64 * count));
    sections.push(("header".into(), 0..64));
    sections
}

pub(crate) fn section(artifact: &[u8], name: &str) -> Range<usize> {
    sections(artifact).into_iter().find(|(found, _)| found == name).unwrap().1
}

/// What came of an artifact.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The host refused it.
    Refused(String),
    /// The guest refused it, or ended while it was instantiated.
    NotInstantiated(CallError),
    /// It ran.
    Called(Result<Vec<Value>, CallError>),
}

/// Runs one, as far as it goes, and makes sure that only its own VM is touched by that.
///
/// # Panics
///
/// If the host failed, or it took too long.
pub(crate) fn run(what: &str, artifact: &[u8]) -> Outcome {
    let started = Instant::now();
    let outcome = match Sandbox::builder().module_bytes(artifact).ram_bytes(32 << 20).deadline(DEADLINE).build() {
        Err(BuildError::Module(EngineError::Module(
            error @ (ModuleError::Artifact { .. }
            | ModuleError::NotWasm { .. }
            | ModuleError::Empty { .. }
            | ModuleError::Component { .. }),
        ))) => Outcome::Refused(error.to_string()),
        Err(BuildError::Instantiate(error)) => Outcome::NotInstantiated(error),
        Err(other) => panic!("{what}: {other:?}"),
        Ok(mut sandbox) => {
            let result = sandbox.call_dynamic("f", &[Value::I32(0)]);
            let _any = sandbox.global("g");
            Outcome::Called(result)
        }
    };
    if let Outcome::NotInstantiated(CallError::HostFailure(error)) | Outcome::Called(Err(CallError::HostFailure(error))) =
        &outcome
    {
        panic!("{what}: the host failed: {error}");
    }
    assert!(started.elapsed() < SOON, "{what}: {:?}", started.elapsed());
    outcome
}

/// A sandbox that is made before others do their worst, and works after that.
pub(crate) struct Witness(Sandbox);

impl Witness {
    pub(crate) fn new() -> Self {
        let mut witness = Self(Sandbox::builder().module_bytes(good()).ram_bytes(32 << 20).build().unwrap());
        witness.check();
        witness
    }

    pub(crate) fn check(&mut self) {
        // "some" by three.
        assert_eq!(self.0.call::<_, i32>("f", 0).unwrap(), 0x656d_6f73 / 3);
        let mut data = [0; 9];
        self.0.read_memory(16, &mut data).unwrap();
        assert_eq!(&data, b"some data");
    }
}
