//! Real programs, which `scripts/fetch-programs` brings.

#![allow(dead_code, reason = "no test needs all of it")]

use std::{
    env,
    io::Write,
    path::{Path, PathBuf},
};

/// Whether all of these files are there. If not, says so on standard error, so that the test of `name` can return: it is skipped.
///
/// # Panics
///
/// If one is not there and the environment variable `MOTE_REQUIRE_PROGRAMS` is set.
pub(crate) fn all_there(name: &str, files: &[&Path]) -> bool {
    let Some(missing) = files.iter().find(|path| !path.exists()) else { return true };
    let reason = format!("{name}: no {}; scripts/fetch-programs brings it", missing.display());
    assert!(env::var_os("MOTE_REQUIRE_PROGRAMS").is_none(), "{reason}");
    skip(&reason);
    false
}

/// Says that a test is skipped, and why.
pub(crate) fn skip(reason: &str) {
    // Not `eprintln`, which the test harness shows only for tests that fail.
    let _written = writeln!(std::io::stderr(), "skipped {reason}");
}

/// Where they are.
pub(crate) fn programs() -> PathBuf {
    repository().join("target/programs")
}

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is not the root").to_path_buf()
}
