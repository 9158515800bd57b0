//! Builds the programs that this crate embeds, the kernel and the compiler, so that `cargo run` needs no step before it, and
//! hands their paths to the crate.

use std::{
    env,
    error::Error,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::{Child, Command},
};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// A program that is a workspace of its own.
struct Program {
    /// Its directory, below the repository's.
    directory: &'static str,
    /// Where it is built, below the output directory: variants have nothing in common.
    target: &'static str,
    /// Its file.
    name: &'static str,
    /// Names a file to take instead, as a build of several variants of this crate wants it.
    instead: &'static str,
    /// Exactly what it is made of: no other change builds it again.
    inputs: &'static [&'static str],
}

const KERNEL: Program =
    Program { directory: "kernel", target: "kernel", name: "mote-kernel", instead: "MOTE_KERNEL", inputs: KERNEL_INPUTS };

/// The same with the other engine.
const COMPILED_KERNEL: Program = Program { target: "kernel-compiled", instead: "MOTE_COMPILED_KERNEL", ..KERNEL };

const KERNEL_INPUTS: &[&str] = &[
    "kernel/Cargo.toml",
    "kernel/Cargo.lock",
    "kernel/build.rs",
    "kernel/.cargo",
    "kernel/src",
    "kernel/logic/src",
    "kernel/logic/Cargo.toml",
    "abi/src",
    "abi/Cargo.toml",
    "machine/src",
    "machine/Cargo.toml",
    "kernel/memfd",
    "wasmtime-config/Cargo.toml",
    "wasmtime-config/src",
    "linker",
];

const COMPILER: Program = Program {
    directory: "compiler",
    target: "compiler",
    name: "mote-compiler",
    instead: "MOTE_COMPILER",
    inputs: &["compiler/Cargo.toml", "compiler/Cargo.lock", "compiler/src", "wasmtime-config/Cargo.toml", "wasmtime-config/src"],
};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-env-changed=MOTE_STABLE_DISPATCH");
    let stable_dispatch: &[&str] = match env::var_os("MOTE_STABLE_DISPATCH") {
        Some(_) => &["--no-default-features", "--features", "interpreter,stable-dispatch"],
        None => &[],
    };
    // All at once: each is bound by one long crate at its end.
    let kernel = KERNEL.start(stable_dispatch)?;
    let with_compiled = env::var_os("CARGO_FEATURE_COMPILED").is_some();
    let compiler = with_compiled.then(|| COMPILER.start(&[])).transpose()?;
    let compiled = ["--no-default-features", "--features", "compiled"];
    let compiled_kernel = with_compiled.then(|| COMPILED_KERNEL.start(&compiled)).transpose()?;
    let image = kernel
        .finish()
        .map_err(|error| format!("{error}; if the compiler rejects `explicit_tail_calls`, set MOTE_STABLE_DISPATCH=1"));
    // Waits for the others in any case, so that its messages do not come after the end of this program.
    if let Some(compiler) = compiler {
        let program = compiler.finish()?;
        println!("cargo:rustc-env=MOTE_COMPILER_IDENTITY={}", identity(&program)?);
        println!("cargo:rustc-env=MOTE_COMPILER_PROGRAM={}", program.display());
    }
    if let Some(kernel) = compiled_kernel {
        println!("cargo:rustc-env=MOTE_COMPILED_KERNEL_IMAGE={}", kernel.finish()?.display());
    }
    println!("cargo:rustc-env=MOTE_KERNEL_IMAGE={}", image?.display());
    Ok(())
}

/// One that is being built, or is there.
struct Build {
    name: &'static str,
    cargo: Option<Child>,
    file: PathBuf,
}

impl Program {
    fn start(&self, options: &[&str]) -> Result<Build, Box<dyn Error>> {
        println!("cargo:rerun-if-env-changed={}", self.instead);
        if let Some(file) = env::var_os(self.instead).map(PathBuf::from) {
            let file = file.canonicalize().map_err(|error| format!("{}={}: {error}", self.instead, file.display()))?;
            println!("cargo:rerun-if-changed={}", file.display());
            return Ok(Build { name: self.name, cargo: None, file });
        }
        let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("..").canonicalize()?;
        for input in self.inputs {
            println!("cargo:rerun-if-changed={}", root.join(input).display());
        }
        let target_dir = PathBuf::from(env::var("OUT_DIR")?).join(self.target);
        let cargo = cargo(&root.join(self.directory), &target_dir, options)?.spawn()?;
        Ok(Build { name: self.name, cargo: Some(cargo), file: target_dir.join(TARGET).join("release").join(self.name) })
    }
}

impl Build {
    fn finish(self) -> Result<PathBuf, Box<dyn Error>> {
        let status = self.cargo.map(|mut cargo| cargo.wait()).transpose()?;
        match status {
            Some(status) if !status.success() => Err(format!("building {} failed: {status}", self.name).into()),
            _ => Ok(self.file),
        }
    }
}

fn cargo(workspace: &Path, target_dir: &Path, options: &[&str]) -> Result<Command, Box<dyn Error>> {
    let mut cargo = Command::new(env::var("CARGO")?);
    cargo
        .current_dir(workspace) // for the flags in its .cargo/config.toml
        .args(["build", "--release", "--locked", "--target", TARGET, "--target-dir"])
        .arg(target_dir)
        .args(options);
    // The flags, wrappers and features of the host build are not those of the program.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let foreign = text.starts_with("CARGO_FEATURE_") || text.starts_with("CARGO_CFG_") || text.starts_with("CARGO_PROFILE_");
        if foreign
            || ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER", "RUSTC_WRAPPER", "CARGO_BUILD_TARGET"]
                .contains(&text.as_ref())
        {
            cargo.env_remove(&name);
        }
    }
    Ok(cargo)
}

/// What tells the programs of two builds apart. Nobody who could gain by two that are alike can choose them.
fn identity(program: &Path) -> Result<String, Box<dyn Error>> {
    let bytes = fs::read(program)?;
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    Ok(format!("{:016x}-{}", hasher.finish(), bytes.len()))
}
