//! Booting the kernel without the VMM: what `mote qemu` and `mote image` have in common.

pub(crate) mod bundle;
pub(crate) mod load;
pub(crate) mod machine;
pub(crate) mod process;
pub(crate) mod programs;
pub(crate) mod watch;
pub(crate) mod words;

use std::{
    io::{self, Write},
    path::Path,
};

use clap::ValueEnum;

use super::{
    arguments::{DEFAULT_LOG, GuestArgs},
    failure::Failure,
};
use load::Files;
use words::Words;

/// Options that such a machine cannot have, and that were given all the same.
pub(crate) fn refuse(command: &str, options: &[(&str, bool, &str)]) -> Result<(), Failure> {
    match options.iter().find(|(_, given, _)| *given) {
        Some((option, _, why)) => Err(Failure::usage(format!("{option} cannot be given to `mote {command}`: {why}"))),
        None => Ok(()),
    }
}

/// Why there are no directories.
pub(crate) const ONLY_RAMDISK: &str = "there are no files but those of --ramdisk";
/// Why there are no sockets.
pub(crate) const NO_NETWORK: &str = "there is no network";

/// What the kernel is told about the program: by options, then by the words of --cmdline, which count where both say something. What is
/// only a default is said where nothing else was.
pub(crate) fn program_words(guest: &GuestArgs, path: &Path, invoke: Option<&str>, given: Words) -> Result<Words, Failure> {
    let mut words = Words::default();
    if let Some(name) = &guest.argv0 {
        words.push("argv0", Some(name));
    }
    for (name, value) in guest.environment()? {
        words.push("env", Some(&format!("{name}={value}")));
    }
    if let Some(function) = invoke {
        words.push("invoke", Some(function));
    }
    let mut number = |name: &str, value: Option<u64>| {
        if let Some(value) = value {
            words.push(name, Some(&value.to_string()));
        }
    };
    number("fuel", guest.fuel);
    number("max-wasm-memory", guest.max_wasm_memory);
    // The default is the kernel's own.
    if let Some(level) = guest.log.to_possible_value().filter(|level| level.get_name() != DEFAULT_LOG) {
        words.push("log", Some(level.get_name()));
    }
    words.extend(given);
    words.push_default("argv0", &guest.program_name(path));
    Ok(words)
}

/// Writes all that the kernel is given besides its command line, which can be in it as well.
pub(crate) fn write_bundle(files: &Files, command_line: &str, to: impl Write) -> io::Result<()> {
    let mut members: Vec<(&str, &[u8])> = Vec::new();
    if !command_line.is_empty() {
        members.push(("cmdline", command_line.as_bytes()));
    }
    members.push(("module", &files.module));
    if let Some(ramdisk) = &files.ramdisk {
        members.push(("ramdisk", ramdisk));
    }
    bundle::write(&members, to)
}

/// Why there was no run, with what QEMU said.
pub(crate) fn failed(what: String, complaints: &str) -> Failure {
    let said = if complaints.is_empty() { String::new() } else { format!("; QEMU says: {}", one_line(complaints)) };
    Failure::of_host(anyhow::anyhow!("{what}{said}"))
}

/// What another program said, for a message that is one line.
pub(crate) fn one_line(text: &str) -> String {
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("; ").replace(char::is_control, "\u{fffd}")
}
