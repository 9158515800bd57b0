//! What can be said on the command line about a program and the VM around it: the same for all subcommands that run one.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
    time::Duration,
};

use clap::{
    Args, ValueEnum,
    builder::{OsStringValueParser, TypedValueParser},
};

use super::engine::EngineArg;

/// Level of the log that is the default, here and in the kernel.
pub(crate) const DEFAULT_LOG: &str = "warn";

/// What a program is given, and what it may take.
#[derive(Args)]
pub(crate) struct GuestArgs {
    /// Set an environment variable, or pass one of this process on; may be repeated.
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Give the program a directory, which it sees under its own path or as GUEST; may be repeated.
    #[arg(long, value_name = "HOST[::GUEST]", value_parser = OsStringValueParser::new().try_map(directory))]
    pub(crate) dir: Vec<DirectoryArg>,
    /// The same, but nothing in it can be changed.
    #[arg(long, value_name = "HOST[::GUEST]", value_parser = OsStringValueParser::new().try_map(directory))]
    pub(crate) dir_ro: Vec<DirectoryArg>,
    /// Mount a tar archive at `/`. What the program writes there is in the guest's RAM, and gone at the end.
    #[arg(long, value_name = "FILE.tar")]
    pub(crate) ramdisk: Option<PathBuf>,
    /// RAM of the guest, as 256MiB: everything it has, linear memories included. Only what is touched is taken [default: 1GiB].
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) memory: Option<u64>,
    /// Bound of all linear memories together [default: what fits into --memory].
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) max_wasm_memory: Option<u64>,
    /// Stop with a trap after this much work; roughly one unit an instruction where it is interpreted, another measure where it is
    /// compiled.
    #[arg(long, value_name = "N")]
    pub(crate) fuel: Option<u64>,
    /// Stop after this time, as 500ms or 2min. What it takes to compile a module does not count.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// First of the program's arguments [default: the module's file name].
    #[arg(long, value_name = "NAME")]
    pub(crate) argv0: Option<String>,
    /// Log of VMM and guest kernel to standard error.
    #[arg(long, value_name = "LEVEL", default_value = DEFAULT_LOG)]
    pub(crate) log: LogArg,
    /// What runs the module. A snapshot goes on with the engine that it was taken with.
    #[arg(long, value_name = "ENGINE", default_value = "auto")]
    pub(crate) engine: EngineArg,
    /// Boot this kernel image instead of the built-in one.
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
}

/// A directory of the host and its name for the program.
#[derive(Debug, Clone)]
pub(crate) struct DirectoryArg {
    pub(crate) host: PathBuf,
    pub(crate) guest: String,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum LogArg {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum ConfinementArg {
    /// By what this machine's kernel supports.
    BestEffort,
    /// By both, or the module does not run.
    Required,
    /// Not at all: for debugging.
    Off,
}

fn directory(text: OsString) -> Result<DirectoryArg, String> {
    // WASI has no names but UTF-8; a host path that is none needs a name to go by.
    let bytes = text.as_bytes();
    let (host, guest) = match bytes.windows(2).rposition(|pair| pair == b"::") {
        Some(at) => bytes.split_at(at),
        None => (bytes, bytes),
    };
    let guest = str::from_utf8(guest.strip_prefix(b"::").unwrap_or(guest));
    let guest = guest.map_err(|_| "the name for the program is not UTF-8; give it one as HOST::GUEST")?;
    if host.is_empty() || guest.is_empty() {
        return Err("a name is empty; give a directory as HOST or HOST::GUEST".into());
    }
    Ok(DirectoryArg { host: PathBuf::from(OsStr::from_bytes(host)), guest: guest.into() })
}

/// A time in which something can happen.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("no program can run in no time".into()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error}; give a duration as 500ms or 2min")),
    }
}

pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    text.parse::<bytesize::ByteSize>()
        .map(|size| size.as_u64())
        .map_err(|error| format!("{error}; give a size as 256MiB or 2GiB"))
}

impl From<LogArg> for mote_vmm::LogLevel {
    fn from(level: LogArg) -> Self {
        match level {
            LogArg::Off => Self::Off,
            LogArg::Error => Self::Error,
            LogArg::Warn => Self::Warn,
            LogArg::Info => Self::Info,
            LogArg::Debug => Self::Debug,
            LogArg::Trace => Self::Trace,
        }
    }
}

impl From<ConfinementArg> for mote_vmm::Confinement {
    fn from(confinement: ConfinementArg) -> Self {
        match confinement {
            ConfinementArg::BestEffort => Self::BestEffort,
            ConfinementArg::Required => Self::Required,
            ConfinementArg::Off => Self::Off,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_have_two_names() {
        let names = |text: &str| directory(text.into()).map(|names| (names.host.display().to_string(), names.guest));
        assert_eq!(names("a/b"), Ok(("a/b".into(), "a/b".into())));
        assert_eq!(names("a::/b"), Ok(("a".into(), "/b".into())));
        assert_eq!(names("a::b::/c"), Ok(("a::b".into(), "/c".into())));
        assert!(names("").is_err() && names("::x").is_err() && names("x::").is_err());
        assert!(directory(OsStr::from_bytes(b"\xff").into()).is_err());
        assert!(directory(OsStr::from_bytes(b"\xff::x").into()).is_ok());
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("64MiB"), Ok(64 << 20));
        assert_eq!(parse_size("2GB"), Ok(2_000_000_000));
        assert!(parse_size("much").is_err());
        assert!(parse_size("-1").is_err());
    }
}
