//! Where the time of a machine went, as far as its guest tells.

use std::fmt::Write;

use mote_abi::record::Phases;
use serde::Serialize;

use super::super::{StatsFormat, engine::Choice, say};

/// Time-stamp counter at the end of each phase, in their order, with names. The first has none before it: a machine's counter
/// begins somewhere.
fn readings(phases: Option<Phases>, tsc: Option<[u64; 4]>) -> Vec<(&'static str, u64)> {
    let mut readings = Vec::new();
    if let Some(Phases { entered, long_mode, loaded, clock, tables }) = phases {
        readings.extend([("entered", entered), ("long_mode", long_mode), ("load", loaded), ("clock", clock), ("tables", tables)]);
    }
    if let Some([kernel, parsed, instantiated, end]) = tsc {
        readings.extend([("enter_kernel", kernel), ("parse", parsed), ("instantiate", instantiated), ("run", end)]);
    }
    readings
}

/// Ticks that each phase took.
fn phases(phases: Option<Phases>, tsc: Option<[u64; 4]>) -> Vec<(&'static str, u64)> {
    let readings = readings(phases, tsc);
    let ticks = |pair: &[(&'static str, u64)]| match pair {
        // A phase that was never reached has no reading.
        [(_, before), (name, after)] => Some((*name, after.saturating_sub(*before))),
        _ => None,
    };
    readings.windows(2).filter_map(ticks).collect()
}

#[derive(Serialize)]
struct Json {
    exit_status: u8,
    engine: &'static str,
    engine_because: &'static str,
    phases_ticks: serde_json::Map<String, serde_json::Value>,
    total_ticks: u64,
    fuel_used: u64,
}

/// To standard error. `record` has the fuel that was used and the counter's readings in the kernel.
pub(super) fn print(
    format: StatsFormat,
    exit_status: u8,
    choice: Choice,
    before: Option<Phases>,
    record: Option<(u64, [u64; 4])>,
) {
    let (fuel_used, tsc) = record.unzip();
    let phases = phases(before, tsc);
    let total_ticks = phases.iter().map(|(_, ticks)| ticks).sum();
    let fuel_used = fuel_used.unwrap_or_default();
    match format {
        StatsFormat::Table => say(format_args!("{}", table(&phases, total_ticks, fuel_used, choice))),
        StatsFormat::Json => {
            let phases_ticks = phases.iter().map(|(name, ticks)| ((*name).into(), (*ticks).into())).collect();
            let Choice { engine, why } = choice;
            let object = Json { exit_status, engine, engine_because: why, phases_ticks, total_ticks, fuel_used };
            let text = serde_json::to_string(&object).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"));
            say(format_args!("{text}\n"));
        }
    }
}

fn table(phases: &[(&str, u64)], total: u64, fuel_used: u64, Choice { engine, why }: Choice) -> String {
    let mut text = format!("{:<16}{:>16}\n", "phase", "ticks");
    for (name, ticks) in phases.iter().copied().chain([("total", total), ("fuel used", fuel_used)]) {
        // Writing to a string cannot fail.
        let _written = writeln!(text, "{name:<16}{ticks:>16}");
    }
    let _written = write!(text, "{:<16}{engine:>16}\n  because {why}\n", "engine");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_differences() {
        let before = Phases { entered: 100, long_mode: 110, loaded: 130, clock: 160, tables: 200 };
        let expected = [
            ("long_mode", 10),
            ("load", 20),
            ("clock", 30),
            ("tables", 40),
            ("enter_kernel", 5),
            ("parse", 1),
            ("instantiate", 2),
            ("run", 3),
        ];
        assert_eq!(phases(Some(before), Some([205, 206, 208, 211])), expected);
        assert_eq!(phases(None, Some([1, 2, 0, 9])), [("parse", 1), ("instantiate", 0), ("run", 9)]);
        assert!(phases(None, None).is_empty());
    }
}
