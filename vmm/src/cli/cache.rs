//! `mote cache`: what is kept of compiled modules.

use std::{fmt::Write, os::unix::ffi::OsStrExt, process::ExitCode, time::SystemTime};

use bytesize::ByteSize;
use clap::Subcommand;
use mote_vmm::{ArtifactCache, CacheEntry};

/// Of a key, for people.
const SHOWN_KEY: usize = 16;

#[derive(Subcommand)]
pub(crate) enum CacheAction {
    /// List what is kept: sizes, and when each was last used.
    Ls,
    /// Remove all of it. Programs that run go on.
    Clear,
    /// Print where it is.
    Dir,
}

pub(crate) fn main(action: &CacheAction) -> anyhow::Result<ExitCode> {
    match action {
        CacheAction::Dir => super::print(&[ArtifactCache::default_path()?.as_os_str().as_bytes(), b"\n"].concat()),
        CacheAction::Ls => super::print(table(&ArtifactCache::open_default()?.list()?, SystemTime::now()).as_bytes()),
        CacheAction::Clear => {
            let (count, bytes) = ArtifactCache::open_default()?.clear()?;
            super::print(format!("removed {}\n", sum(count, bytes)).as_bytes())
        }
    }
}

fn table(entries: &[CacheEntry], now: SystemTime) -> String {
    let mut text = String::new();
    for CacheEntry { key, bytes, used } in entries {
        let age = now.duration_since(*used).unwrap_or_default().as_secs();
        let key = key.get(..SHOWN_KEY).unwrap_or(key);
        // Writing to a string cannot fail.
        let _written = writeln!(text, "{key}  {:>10}  used {} ago", ByteSize::b(*bytes).to_string(), roughly(age));
    }
    let _written = writeln!(text, "{}", sum(entries.len(), entries.iter().map(|entry| entry.bytes).sum()));
    text
}

fn sum(count: usize, bytes: u64) -> String {
    format!("{count} compiled module{}, {}", if count == 1 { "" } else { "s" }, ByteSize::b(bytes))
}

/// In the largest unit that is full.
fn roughly(seconds: u64) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let unit = units.iter().find(|(length, _)| seconds >= *length);
    unit.map_or_else(|| "0s".into(), |(length, name)| format!("{}{name}", seconds / length))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_list_ends_with_its_sum() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let entry = |key: &str, bytes, age| CacheEntry { key: key.repeat(64), bytes, used: now - Duration::from_secs(age) };
        let text = table(&[entry("a", 3 << 20, 59), entry("b", 1 << 10, 7200)], now);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("aaaaaaaaaaaaaaaa ") && lines[0].ends_with("used 59s ago"), "{text}");
        assert!(lines[1].ends_with("used 2h ago"), "{text}");
        assert!(lines[2].starts_with("2 compiled modules, 3.0 MiB"), "{text}");
        assert_eq!(table(&[], now), "0 compiled modules, 0 B\n");
    }
}
