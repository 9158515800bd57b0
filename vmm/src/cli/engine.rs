//! Which engine runs a module: what `--engine` says, or what is best for it.

use std::{path::Path, sync::Arc};

#[cfg(feature = "compiled")]
use anyhow::Context;
use clap::ValueEnum;
#[cfg(feature = "compiled")]
use mote_vmm::{Artifact, ArtifactCache, CacheError, CacheKey, CompileOptions, TargetCpu};
use mote_vmm::{KernelImage, Module};

#[cfg(feature = "compiled")]
use super::compile::compile_visibly;
use super::{arguments::GuestArgs, failure::Failure, guest::given_kernel};
#[cfg(feature = "compiled")]
use super::{guest::shown, say};

/// What `--engine` can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EngineArg {
    /// Compiled code if the cache has it, or if the interpreter lacks something that the module needs; else the interpreter.
    Auto,
    /// The interpreter.
    Interp,
    /// Compiled code; what the cache does not have is compiled first.
    Aot,
}

#[cfg(not(feature = "compiled"))]
const NO_OTHER: &str = "there is no other engine in this build";

/// A module with the kernel for it, and why it is that one.
pub(crate) struct Loaded {
    pub(crate) kernel: Arc<KernelImage>,
    pub(crate) module: Arc<Module>,
    pub(crate) choice: Choice,
}

/// What runs, and why.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice {
    pub(crate) engine: &'static str,
    pub(crate) why: &'static str,
}

impl Choice {
    /// Whether compiled code runs.
    pub(crate) fn is_compiled(self) -> bool {
        self.engine != "interpreter"
    }

    fn interpreted(why: &'static str) -> Self {
        Self { engine: "interpreter", why }
    }

    /// What else to try with a module that this engine does not take.
    pub(crate) fn hint(self) -> &'static str {
        match self.engine {
            "interpreter" if cfg!(feature = "compiled") => "; if the interpreter lacks what it needs, --engine aot may run it",
            "compiled" => {
                "; if it is compiled for other processors than this one, `mote compile --target-cpu x86-64` makes one for all"
            }
            _ => "",
        }
    }

    #[cfg(feature = "compiled")]
    fn compiled(why: &'static str) -> Self {
        Self { engine: "compiled", why }
    }
}

/// Makes a module ready to be run.
pub(crate) fn load(arguments: &GuestArgs, path: &Path) -> Result<Loaded, Failure> {
    let kernel = given_kernel(arguments)?;
    let engine = match (&kernel, arguments.engine) {
        (Some(kernel), EngineArg::Auto) if kernel.runs_compiled() => EngineArg::Aot,
        (Some(_), EngineArg::Auto) => EngineArg::Interp,
        (_, engine) => engine,
    };
    #[cfg(feature = "compiled")]
    let loaded = match (Module::is_artifact(path), engine) {
        (true, EngineArg::Interp) => return Err(no_interpreter_for(path)),
        (true, _) => compiled_file(path)?,
        (false, _) => by_choice(arguments, path, engine)?,
    };
    #[cfg(not(feature = "compiled"))]
    let loaded = match engine {
        EngineArg::Aot => return Err(no_compiled()),
        EngineArg::Auto | EngineArg::Interp => interpreted(path, Choice::interpreted(NO_OTHER))?,
    };
    Ok(match kernel {
        Some(kernel) => Loaded { kernel, ..loaded },
        None => loaded,
    })
}

/// A module as it is.
fn interpreted(path: &Path, choice: Choice) -> Result<Loaded, Failure> {
    let module = if path == Path::new("-") {
        Module::from_reader("standard input".as_ref(), std::io::stdin().lock())
    } else {
        Module::from_file(path)
    }?;
    Ok(Loaded { kernel: KernelImage::embedded()?, module, choice })
}

#[cfg(feature = "compiled")]
fn no_interpreter_for(path: &Path) -> Failure {
    Failure::usage(format!("{} is compiled: no interpreter runs it", shown(path)))
}

#[cfg(feature = "compiled")]
fn compiled_file(path: &Path) -> Result<Loaded, Failure> {
    let choice = Choice::compiled("the file is compiled already");
    Ok(Loaded { kernel: compiled_kernel()?, module: Module::from_file(path)?, choice })
}

#[cfg(feature = "compiled")]
fn by_choice(arguments: &GuestArgs, path: &Path, engine: EngineArg) -> Result<Loaded, Failure> {
    if engine == EngineArg::Interp {
        return interpreted(path, Choice::interpreted("--engine says so"));
    }
    let bytes = Module::read_binary(path)?;
    if Artifact::is_artifact(&bytes) {
        let choice = Choice::compiled("what comes is compiled already");
        return Ok(Loaded { kernel: compiled_kernel()?, module: Module::from_bytes(path, bytes)?, choice });
    }
    let cache = cache(engine);
    if engine == EngineArg::Aot {
        return compiled(arguments, path, &bytes, cache.as_ref(), "--engine says so");
    }
    if let Some(artifact) = cache.as_ref().and_then(|cache| cached(cache, &bytes, arguments)) {
        return of_artifact(&artifact, "the cache has it compiled");
    }
    if let Some(reason) = mote_vmm::inspect::interpreter_lacks(&bytes) {
        say(format_args!("mote: {}: the interpreter cannot run it ({reason}): it is compiled\n", shown(path)));
        return compiled(arguments, path, &bytes, cache.as_ref(), "the interpreter lacks what the module needs");
    }
    let why = if cache.is_some() { "the cache does not have it compiled" } else { "there is no cache" };
    // A file that can be mapped is not kept twice. One that was text has another length than what it became.
    let is_binary_file = path.metadata().is_ok_and(|attributes| attributes.is_file() && attributes.len() == bytes.len() as u64);
    let module = if is_binary_file { Module::from_file(path) } else { Module::from_bytes(path, bytes) }?;
    Ok(Loaded { kernel: KernelImage::embedded()?, module, choice: Choice::interpreted(why) })
}

/// The cache of this user, if it can be used: nobody needs one.
#[cfg(feature = "compiled")]
fn cache(engine: EngineArg) -> Option<ArtifactCache> {
    match ArtifactCache::open_default() {
        Ok(cache) => Some(cache),
        Err(CacheError::NoPlace) => None,
        Err(error) => {
            let message = "compiled modules are neither looked for nor kept";
            if engine == EngineArg::Aot {
                tracing::warn!(%error, "{message}")
            } else {
                tracing::debug!(%error, "{message}")
            }
            None
        }
    }
}

/// What the cache has, if it can be read: who did not ask for it can do without. One that has nothing is worth neither a digest
/// nor to ask what guests may use of the processor.
#[cfg(feature = "compiled")]
fn cached(cache: &ArtifactCache, bytes: &[u8], arguments: &GuestArgs) -> Option<Artifact> {
    let found = match cache.is_empty() {
        Ok(true) => Ok(None),
        _ => cache.get(&CacheKey::new(bytes, &options(arguments))),
    };
    found.unwrap_or_else(|error| {
        tracing::debug!(%error, "the cache of compiled modules cannot be used");
        None
    })
}

#[cfg(feature = "compiled")]
fn options(arguments: &GuestArgs) -> CompileOptions {
    CompileOptions { fuel: arguments.fuel.is_some(), ..CompileOptions::default() }
}

/// Out of the cache, or compiled and kept there.
#[cfg(feature = "compiled")]
fn compiled(
    arguments: &GuestArgs,
    path: &Path,
    bytes: &[u8],
    cache: Option<&ArtifactCache>,
    why: &'static str,
) -> Result<Loaded, Failure> {
    of_artifact(&kept_or_compiled(path, bytes, cache, &options(arguments))?, why)
}

#[cfg(feature = "compiled")]
fn kept_or_compiled(
    path: &Path,
    bytes: &[u8],
    cache: Option<&ArtifactCache>,
    options: &CompileOptions,
) -> Result<Artifact, Failure> {
    let compile = || compile_visibly(path, bytes, options);
    match cache {
        Some(cache) => cache.get_or_make(&CacheKey::new(bytes, options), compile),
        None => compile(),
    }
}

#[cfg(feature = "compiled")]
fn of_artifact(artifact: &Artifact, why: &'static str) -> Result<Loaded, Failure> {
    Ok(Loaded { kernel: compiled_kernel()?, module: Module::from_artifact(artifact)?, choice: Choice::compiled(why) })
}

#[cfg(feature = "compiled")]
fn compiled_kernel() -> Result<Arc<KernelImage>, Failure> {
    KernelImage::embedded_compiled()?.ok_or_else(no_compiled)
}

/// Compiled code was asked for, and there is none.
pub(crate) fn no_compiled() -> Failure {
    Failure::usage("this mote was built without the engine for compiled modules")
}

/// The module as a file for a machine that `target` describes, made of its bytes in binary format, and what runs it there. Nobody
/// looks into the cache for `auto`: what it has is for the processor of this machine.
#[cfg(feature = "compiled")]
pub(crate) fn module_bytes(
    arguments: &GuestArgs,
    path: &Path,
    engine: EngineArg,
    bytes: Vec<u8>,
    target: TargetCpu,
) -> Result<(Vec<u8>, Choice), Failure> {
    if Artifact::is_artifact(&bytes) {
        if engine == EngineArg::Interp {
            return Err(no_interpreter_for(path));
        }
        // It says what is no artifact of this version.
        let _checked = Module::from_bytes(path, bytes.clone())?;
        return Ok((bytes, Choice::compiled("the file is compiled already")));
    }
    let why = match engine {
        EngineArg::Interp => return Ok((bytes, Choice::interpreted("--engine says so"))),
        EngineArg::Aot => "--engine says so",
        EngineArg::Auto => match mote_vmm::inspect::interpreter_lacks(&bytes) {
            None => return Ok((bytes, Choice::interpreted("nobody asked for compiled code"))),
            Some(reason) => {
                say(format_args!("mote: {}: the interpreter cannot run it ({reason}): it is compiled\n", shown(path)));
                "the interpreter lacks what the module needs"
            }
        },
    };
    let options = CompileOptions { target_cpu: target, ..options(arguments) };
    let artifact = kept_or_compiled(path, &bytes, cache(engine).as_ref(), &options)?;
    let mut file = Vec::new();
    artifact.write_to(&mut file).context("cannot read what was compiled")?;
    Ok((file, Choice::compiled(why)))
}

/// The module as it is.
#[cfg(not(feature = "compiled"))]
pub(crate) fn module_bytes(
    _: &GuestArgs,
    _: &Path,
    engine: EngineArg,
    bytes: Vec<u8>,
    (): (),
) -> Result<(Vec<u8>, Choice), Failure> {
    match engine {
        EngineArg::Aot => Err(no_compiled()),
        EngineArg::Auto | EngineArg::Interp => Ok((bytes, Choice::interpreted(NO_OTHER))),
    }
}
