//! Engines: how a module comes to be run, and what has to be done with it before.

use std::{path::Path, sync::Arc};

use thiserror::Error;

#[cfg(feature = "compiled")]
use crate::{
    compile::{Artifact, ArtifactCache, CompileError, CompileLimits, CompileOptions, TargetCpu, compile},
    module::check_bytes,
};
use crate::{
    ending::Rejection,
    image::KernelImage,
    module::{Module, ModuleError},
};

/// What runs modules. Everything else is the same with each.
///
/// A file that was compiled before (`mote compile`) is run compiled by any engine.
#[derive(Debug, Clone, Default)]
pub struct Engine(Kind);

#[derive(Debug, Clone, Default)]
enum Kind {
    #[default]
    Interpreter,
    #[cfg(feature = "compiled")]
    Compiled(Arc<CompiledOptions>),
}

/// How modules are compiled for [`Engine::compiled`].
#[cfg(feature = "compiled")]
#[derive(Debug, Default)]
pub struct CompiledOptions {
    /// For which processors.
    pub target_cpu: TargetCpu,
    /// What a compilation may take.
    pub limits: CompileLimits,
    /// Where artifacts are kept between processes; `None` for nowhere.
    pub cache: Option<ArtifactCache>,
}

impl Engine {
    /// Modules are interpreted, inside the VM: they start at once, and compute several times slower than native code.
    pub fn interpreter() -> Self {
        Self(Kind::Interpreter)
    }

    /// Modules are compiled, in a confined process of their own, before a VM runs them at the speed of native code.
    #[cfg(feature = "compiled")]
    pub fn compiled(options: CompiledOptions) -> Self {
        Self(Kind::Compiled(Arc::new(options)))
    }

    /// The one whose modules a kernel runs.
    pub(crate) fn for_kernel(kernel: &KernelImage) -> Self {
        match kernel.runs_compiled() {
            #[cfg(feature = "compiled")]
            true => Self::compiled(CompiledOptions::default()),
            _ => Self::interpreter(),
        }
    }

    /// Whether modules are compiled for it.
    pub(crate) fn is_compiled(&self) -> bool {
        !matches!(self.0, Kind::Interpreter)
    }

    /// Makes a module ready to be mapped into VMs: the file at `path` in binary or text format, or compiled. `fuel` tells
    /// whether calls of it will have fuel.
    pub fn load_file(&self, path: &Path, fuel: bool) -> Result<Arc<Module>, EngineError> {
        let _only_for_compilation = fuel;
        match &self.0 {
            Kind::Interpreter => Ok(Module::from_file(path)?),
            #[cfg(feature = "compiled")]
            Kind::Compiled(_) if Module::is_artifact(path) => Ok(Module::from_file(path)?),
            #[cfg(feature = "compiled")]
            Kind::Compiled(options) => options.module(&Module::read(path)?, fuel),
        }
    }

    /// The same for bytes; `name` is for messages.
    pub fn load_bytes(&self, name: &Path, bytes: Vec<u8>, fuel: bool) -> Result<Arc<Module>, EngineError> {
        let _only_for_compilation = fuel;
        match &self.0 {
            Kind::Interpreter => Ok(Module::from_bytes(name, bytes)?),
            #[cfg(feature = "compiled")]
            Kind::Compiled(_) if Artifact::is_artifact(&bytes) => Ok(Module::from_bytes(name, bytes)?),
            #[cfg(feature = "compiled")]
            Kind::Compiled(options) => {
                check_bytes(name, &bytes)?;
                options.module(&bytes, fuel)
            }
        }
    }

    /// Makes a module ready for this engine: one that is not compiled yet is, if the engine asks for that.
    pub(crate) fn prepare(&self, module: Arc<Module>, fuel: bool) -> Result<Arc<Module>, EngineError> {
        let _only_for_compilation = fuel;
        match &self.0 {
            Kind::Interpreter => Ok(module),
            #[cfg(feature = "compiled")]
            Kind::Compiled(_) if module.is_compiled() => Ok(module),
            #[cfg(feature = "compiled")]
            Kind::Compiled(options) => options.module(&module.contents()?, fuel),
        }
    }
}

#[cfg(feature = "compiled")]
impl CompiledOptions {
    /// What is compiled for the target, with fuel or without.
    fn module(&self, bytes: &[u8], fuel: bool) -> Result<Arc<Module>, EngineError> {
        let options = CompileOptions { fuel, target_cpu: self.target_cpu, limits: self.limits, ..CompileOptions::default() };
        let observer = |_| std::ops::ControlFlow::Continue(());
        let artifact = match &self.cache {
            Some(cache) => cache.get_or_compile(bytes, &options, observer)?,
            None => compile(bytes, &options, observer)?,
        };
        Ok(Module::from_artifact(&artifact)?)
    }
}

/// A module that an engine cannot have.
#[derive(Debug, Error)]
pub enum EngineError {
    /// It cannot be loaded.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// It cannot be compiled.
    #[cfg(feature = "compiled")]
    #[error(transparent)]
    Compile(#[from] CompileError),
}

impl EngineError {
    /// The same as what a guest says of a module.
    pub(crate) fn rejection(&self) -> Rejection {
        let message = self.to_string();
        match self {
            Self::Module(error) if error.is_about_contents() => Rejection::Invalid(message),
            #[cfg(feature = "compiled")]
            Self::Compile(CompileError::Invalid { message }) => Rejection::Invalid(message.clone()),
            _ => Rejection::CannotRun(message),
        }
    }
}
