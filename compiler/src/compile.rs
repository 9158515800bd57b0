//! From the bytes of a module to those of an artifact.

use mote_wasmtime_config::Options;
use wasmtime::{Engine, OptLevel};
use wasmtime_environ::{CompileError, WasmError};

use crate::{protocol, request::Request};

/// Named although it is the host's own: then the code uses no feature of the processor but those that are asked for.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// First bytes of any binary format.
const BINARY: &[u8] = b"\0asm";

/// Why there is no artifact, and the exit status that says so.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: i32,
    pub(crate) message: String,
}

/// A compiler for such code.
pub(crate) fn engine(counts_fuel: bool, features: &[String]) -> Result<Engine, wasmtime::Error> {
    let mut config = mote_wasmtime_config::config(Options { fuel: counts_fuel });
    config.target(TARGET)?.cranelift_opt_level(OptLevel::Speed);
    for feature in features {
        // SAFETY: a flag makes the code use instructions. The runtime refuses an artifact that uses what the processor lacks.
        unsafe { config.cranelift_flag_enable(feature) };
    }
    Engine::new(&config)
}

/// What the process was started for, once it is confined.
pub(crate) fn compile(engine: &Engine, module: Vec<u8>, request: &Request) -> Result<Vec<u8>, Failure> {
    let module = to_binary(module)?;
    crate::progress::begin(&module);
    let artifact = engine.precompile_module(&module).map_err(|error| classify(&error))?;
    if artifact.len() as u64 > request.artifact_bytes {
        return Err(Failure { status: protocol::ARTIFACT_TOO_LARGE, message: format!("{} bytes", artifact.len()) });
    }
    Ok(artifact)
}

fn to_binary(module: Vec<u8>) -> Result<Vec<u8>, Failure> {
    if module.starts_with(BINARY) {
        return Ok(module);
    }
    let invalid = |message| Failure { status: protocol::INVALID, message };
    match std::str::from_utf8(&module) {
        Ok(text) => wat::parse_str(text.trim_start_matches('\u{feff}')).map_err(|error| invalid(error.to_string())),
        Err(_) => Err(invalid("it is neither in binary nor in text format".into())),
    }
}

fn classify(error: &wasmtime::Error) -> Failure {
    let wasm = match error.downcast_ref() {
        Some(CompileError::Wasm(wasm)) => Some(wasm),
        Some(CompileError::Codegen(_) | CompileError::DebugInfoNotSupported) => {
            return Failure { status: protocol::UNSUPPORTED, message: format!("{error:#}") };
        }
        None => error.downcast_ref(),
    };
    let status = match wasm {
        Some(WasmError::Unsupported(_) | WasmError::ImplLimitExceeded) => protocol::UNSUPPORTED,
        _ => protocol::INVALID,
    };
    Failure { status, message: format!("{error:#}") }
}
