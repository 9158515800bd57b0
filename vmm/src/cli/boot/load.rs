//! A module and the kernel for it as files that a machine without the VMM is given.

use std::{borrow::Cow, path::Path};

use anyhow::Context;
use mote_vmm::{KernelImage, Module, Ramdisk};

use super::super::{
    arguments::GuestArgs,
    engine::{self, Choice, EngineArg},
    failure::Failure,
    guest::shown,
};

/// Contents of the files.
pub(crate) struct Files {
    pub(crate) kernel: Cow<'static, [u8]>,
    /// WebAssembly in binary format, or compiled.
    pub(crate) module: Vec<u8>,
    pub(crate) ramdisk: Option<Vec<u8>>,
    pub(crate) choice: Choice,
}

/// What `target` is: for compiled code, processors that it is for. Without the feature there is nothing to choose.
#[cfg(feature = "compiled")]
pub(crate) type Target = mote_vmm::TargetCpu;
#[cfg(not(feature = "compiled"))]
pub(crate) type Target = ();

/// Reads what was named, and compiles the module if it is to be.
pub(crate) fn load(arguments: &GuestArgs, path: &Path, target: Target) -> Result<Files, Failure> {
    let given = given_kernel(arguments)?;
    let engine = match (&given, arguments.engine) {
        (Some((_, true)), EngineArg::Auto) => EngineArg::Aot,
        (Some((_, false)), EngineArg::Auto) => EngineArg::Interp,
        (_, engine) => engine,
    };
    let bytes = Module::read_binary(path)?;
    let (module, choice) = engine::module_bytes(arguments, path, engine, bytes, target)?;
    let compiled = choice.is_compiled();
    let kernel = match given {
        Some((_, runs_compiled)) if runs_compiled != compiled => {
            let (has, takes) = if compiled { ("compiled", "WebAssembly") } else { ("WebAssembly", "compiled modules") };
            return Err(Failure::rejected(format!("{} is {has}, and the kernel of --kernel runs {takes}", shown(path))));
        }
        Some((file, _)) => Cow::Owned(file),
        None => Cow::Borrowed(KernelImage::embedded_file(compiled).ok_or_else(engine::no_compiled)?),
    };
    let ramdisk = arguments.ramdisk.as_deref().map(ramdisk).transpose()?;
    Ok(Files { kernel, module, ramdisk, choice })
}

/// The file of `--kernel`, and whether it runs compiled modules.
fn given_kernel(arguments: &GuestArgs) -> Result<Option<(Vec<u8>, bool)>, Failure> {
    let Some(path) = arguments.kernel.as_deref() else { return Ok(None) };
    let runs_compiled = KernelImage::from_file(path)?.runs_compiled();
    let file = std::fs::read(path).with_context(|| format!("cannot read {}", shown(path)))?;
    Ok(Some((file, runs_compiled)))
}

fn ramdisk(path: &Path) -> Result<Vec<u8>, Failure> {
    // It says what is no archive.
    let _checked = Ramdisk::from_file(path)?;
    Ok(std::fs::read(path).with_context(|| format!("cannot read {}", shown(path)))?)
}
