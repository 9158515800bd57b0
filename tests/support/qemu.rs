//! Running modules in machines that QEMU makes: what that takes, and the processes.

#![allow(dead_code, reason = "no test needs all of it")]

use std::{env, ffi::OsString, io::Write, path::Path};

use super::command::{self, Outcome};

/// Makes a test fail, instead of being skipped, on a machine without QEMU, or without what makes and boots images.
const REQUIRE: &str = "MOTE_REQUIRE_QEMU";
/// The same without GDB.
const REQUIRE_GDB: &str = "MOTE_REQUIRE_GDB";

/// Programs and files, with what they are part of.
const FOR_RUNS: [(&str, &str); 1] = [("qemu-system-x86_64", "QEMU")];
const FOR_IMAGES: [(&str, &str); 7] = [
    ("qemu-system-x86_64", "QEMU"),
    ("grub-mkimage", "GRUB"),
    ("xorriso", "xorriso"),
    ("mformat", "mtools"),
    ("/usr/lib/grub/i386-pc", "GRUB for BIOS"),
    ("/usr/lib/grub/x86_64-efi", "GRUB for UEFI"),
    ("/usr/share/ovmf/OVMF.fd", "OVMF"),
];

const FOR_DEBUGGING: [(&str, &str); 1] = [("gdb", "GDB")];

/// Whether QEMU is there. If not, says so on standard error, so that the test can return: it is skipped.
///
/// # Panics
///
/// If it is not there and the environment variable `MOTE_REQUIRE_QEMU` is set.
pub(crate) fn usable() -> bool {
    all_there(&FOR_RUNS, REQUIRE)
}

/// The same for all that makes images and boots them.
pub(crate) fn images_usable() -> bool {
    all_there(&FOR_IMAGES, REQUIRE)
}

/// The same for QEMU and a debugger, which `MOTE_REQUIRE_GDB` is for.
pub(crate) fn debugger_usable() -> bool {
    all_there(&FOR_RUNS, REQUIRE) && all_there(&FOR_DEBUGGING, REQUIRE_GDB)
}

fn all_there(needed: &[(&str, &str)], require: &str) -> bool {
    let Some((_, missing)) = needed.iter().find(|(name, _)| !is_there(name)) else { return true };
    assert!(env::var_os(require).is_none(), "{require} is set, but there is no {missing}");
    // Not `eprintln`, which the test harness shows only for tests that fail.
    let thread = std::thread::current();
    let _written = writeln!(std::io::stderr(), "skipped {}: no {missing}", thread.name().unwrap_or("a test"));
    false
}

/// A program in one of the directories of `PATH`, or a file with its whole path.
fn is_there(name: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    Path::new(name).is_absolute() && Path::new(name).exists()
        || env::split_paths(&path).any(|directory| directory.join(name).is_file())
}

/// Runs `mote qemu [OPTIONS] PAYLOAD [-- ARGS]`; all that it printed is in the result.
#[track_caller]
pub(crate) fn run_payload(options: &[&str], name: &str, arguments: &[&str]) -> Outcome {
    command::run(payload_line(options, name, arguments))
}

/// The command line of [`run_payload`].
pub(crate) fn payload_line(options: &[&str], name: &str, arguments: &[&str]) -> Vec<OsString> {
    line("qemu", options, &command::payload(name), arguments)
}

/// Runs `mote qemu [OPTIONS] MODULE` for a module in either format, in a file of its own.
#[track_caller]
pub(crate) fn run_module(options: &[&str], module: impl AsRef<[u8]>) -> Outcome {
    command::run(line("qemu", options, command::module_file(module).path(), &[]))
}

/// A line of a subcommand that takes options anywhere.
pub(crate) fn line(subcommand: &str, options: &[&str], module: &Path, arguments: &[&str]) -> Vec<OsString> {
    let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    [words(&[subcommand]), words(options), vec![module.into()], words(&["--"]), words(arguments)].concat()
}
