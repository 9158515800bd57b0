//! Builds the kernel, so that `cargo run` needs no step before it, and hands its path to the crate for embedding.

use std::{
    env,
    error::Error,
    path::{Path, PathBuf},
    process::Command,
};

const TARGET: &str = "x86_64-unknown-linux-gnu";

fn main() -> Result<(), Box<dyn Error>> {
    // An image that was built already, as a build of several variants of the host side wants it.
    println!("cargo:rerun-if-env-changed=MOTE_KERNEL");
    if let Some(image) = env::var_os("MOTE_KERNEL").map(PathBuf::from) {
        let image = image.canonicalize().map_err(|error| format!("MOTE_KERNEL={}: {error}", image.display()))?;
        println!("cargo:rerun-if-changed={}", image.display());
        println!("cargo:rustc-env=MOTE_KERNEL_IMAGE={}", image.display());
        return Ok(());
    }
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("..").canonicalize()?;
    let kernel = root.join("kernel");
    // Exactly what the image is made of: no other change builds it again.
    for input in [
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
        "linker",
    ] {
        println!("cargo:rerun-if-changed={}", root.join(input).display());
    }
    let target_dir = PathBuf::from(env::var("OUT_DIR")?).join("kernel");
    build(&kernel, &target_dir)?;
    let image = target_dir.join(TARGET).join("release").join("mote-kernel");
    println!("cargo:rustc-env=MOTE_KERNEL_IMAGE={}", image.display());
    Ok(())
}

fn build(kernel: &Path, target_dir: &Path) -> Result<(), Box<dyn Error>> {
    let mut cargo = Command::new(env::var("CARGO")?);
    cargo
        .current_dir(kernel) // for the flags in its .cargo/config.toml
        .args(["build", "--release", "--locked", "--target", TARGET, "--target-dir"])
        .arg(target_dir);
    println!("cargo:rerun-if-env-changed=MOTE_STABLE_DISPATCH");
    if env::var_os("MOTE_STABLE_DISPATCH").is_some() {
        cargo.args(["--no-default-features", "--features", "stable-dispatch"]);
    }
    // The flags, wrappers and features of the host build are not those of the kernel.
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
    let status = cargo.status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!(
            "building the kernel failed: {status}; if the compiler rejects `explicit_tail_calls`, set MOTE_STABLE_DISPATCH=1"
        )
        .into())
    }
}
