//! Sandboxes of compiled modules, and what is expected of their traps.

use std::{path::Path, sync::OnceLock};

use mote_vmm::{ArtifactCache, CallError, CompiledOptions, Engine, Sandbox, SandboxBuilder, SandboxState, Trap, TrapKind};

/// The engine of all tests here, with a cache of their own.
pub(crate) fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let cache = ArtifactCache::open(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled_code"), 256 << 20).unwrap();
        Engine::compiled(CompiledOptions { cache: Some(cache), ..CompiledOptions::default() })
    })
}

/// Begins to make a sandbox of a module in the text format.
pub(crate) fn builder(text: &str) -> SandboxBuilder {
    Sandbox::builder().engine(engine()).module_bytes(text).ram_bytes(64 << 20)
}

#[track_caller]
pub(crate) fn build(text: &str) -> Sandbox {
    builder(text).build().unwrap()
}

/// The trap of a call, which left the sandbox as documented, and which was forgiven.
#[track_caller]
pub(crate) fn trap<T: std::fmt::Debug>(sandbox: &mut Sandbox, what: &str, result: Result<T, CallError>) -> Trap {
    let error = result.expect_err(what);
    let trap = error.trap().unwrap_or_else(|| panic!("{what}: {error:?}")).clone();
    assert_eq!(sandbox.state(), SandboxState::Poisoned(mote_vmm::Poison::Trapped), "{what}");
    sandbox.clear_poison().unwrap();
    trap
}

/// Calls a function of that name, which has to trap so; the innermost frame has to be its own.
#[track_caller]
pub(crate) fn traps(sandbox: &mut Sandbox, function: &str, arguments: &[mote_vmm::Value], kind: TrapKind) -> Trap {
    let what = format!("{function} {arguments:?}");
    let result = sandbox.call_dynamic(function, arguments);
    let trap = trap(sandbox, &what, result);
    assert_eq!(trap.kind, kind, "{what}: {trap}");
    assert_eq!(trap.export, function, "{what}");
    assert_eq!(trap.backtrace.first().and_then(|frame| frame.name.as_deref()), Some(function), "{what}: {trap}");
    // Where a function begins by finding that it has no stack, there is no instruction of the module yet.
    let begins = usize::from(kind == TrapKind::StackOverflow);
    assert!(trap.backtrace.iter().skip(begins).all(|frame| frame.module_offset.is_some()), "{what}: {trap}");
    trap
}
