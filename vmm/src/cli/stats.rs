//! What a run cost, for people and for programs.

use std::{fmt::Write, time::Duration};

use bytesize::ByteSize;
use mote_vmm::{Phases, Report};
use serde::Serialize;

use super::{engine::Choice, run::Timeline};

/// Phases in their order, with names.
fn phases(timeline: &Timeline, phases: &Phases) -> [(&'static str, Duration); 10] {
    [
        ("before_main", timeline.before_main),
        ("command_line", timeline.command_line),
        ("load_kernel", timeline.load_kernel),
        ("load_module", timeline.load_module),
        ("create_vm", phases.create),
        ("enter_guest", phases.enter),
        ("parse", phases.parse),
        ("instantiate", phases.instantiate),
        ("run", phases.run),
        ("flush", phases.flush),
    ]
}

/// A table for people.
pub(crate) fn table(timeline: &Timeline, report: &Report) -> String {
    let stats = &report.stats;
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _written = writeln!(text, "{name:<16}{value:>14}");
    };
    line("phase", "µs".into());
    for (name, duration) in phases(timeline, &stats.phases) {
        line(name, format!("{:.1}", duration.as_secs_f64() * 1e6));
    }
    line("total", format!("{:.1}", timeline.total().as_secs_f64() * 1e6));
    line("exits", stats.exits.total().to_string());
    for (name, count) in stats.exits.named().into_iter().filter(|(_, count)| *count > 0) {
        line(&format!("  {name}"), count.to_string());
    }
    line("fuel used", stats.fuel_used.to_string());
    line("pages touched", (stats.touched_bytes / 4096).to_string());
    line("RAM touched", ByteSize::b(stats.touched_bytes).to_string());
    line("RAM", ByteSize::b(stats.ram_bytes).to_string());
    if let Some(Choice { engine, why }) = timeline.engine {
        line("engine", engine.into());
        let _written = writeln!(text, "  because {why}");
    }
    text
}

#[derive(Serialize)]
struct Json {
    exit_status: u8,
    /// Absent for a snapshot, which goes on as it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    engine: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    engine_because: Option<&'static str>,
    phases_us: serde_json::Map<String, serde_json::Value>,
    total_us: f64,
    exits: serde_json::Map<String, serde_json::Value>,
    exits_total: u64,
    fuel_used: u64,
    pages_touched: u64,
    ram_touched_bytes: u64,
    ram_bytes: u64,
}

/// One JSON object.
pub(crate) fn json(timeline: &Timeline, report: &Report, exit_status: u8) -> String {
    let stats = &report.stats;
    let microseconds = |duration: Duration| duration.as_secs_f64() * 1e6;
    let object = Json {
        exit_status,
        engine: timeline.engine.map(|choice| choice.engine),
        engine_because: timeline.engine.map(|choice| choice.why),
        phases_us: phases(timeline, &stats.phases)
            .map(|(name, duration)| (name.into(), microseconds(duration).into()))
            .into_iter()
            .collect(),
        total_us: microseconds(timeline.total()),
        exits: stats.exits.named().map(|(name, count)| (name.into(), count.into())).into_iter().collect(),
        exits_total: stats.exits.total(),
        fuel_used: stats.fuel_used,
        pages_touched: stats.touched_bytes / 4096,
        ram_touched_bytes: stats.touched_bytes,
        ram_bytes: stats.ram_bytes,
    };
    serde_json::to_string(&object).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
}
