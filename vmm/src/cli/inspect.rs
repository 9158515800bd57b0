//! `mote inspect`: what a module has and lacks. The one place where the host parses module bytes.

use std::{collections::BTreeSet, fmt::Write, path::Path, process::ExitCode};

use mote_vmm::inspect::{Import, Inspection, inspect as parse};

use super::status;

/// Prints the module's interface; fails if it cannot run here.
pub(crate) fn inspect(path: &Path) -> anyhow::Result<ExitCode> {
    let inspection = match parse(path) {
        Ok(inspection) => inspection,
        Err(error) => {
            super::say(format_args!("mote: {error}\n"));
            return Ok(ExitCode::from(status::REJECTED));
        }
    };
    let runs = inspection.obstacles.is_empty();
    super::print(describe(&inspection).as_bytes())?;
    Ok(if runs { ExitCode::SUCCESS } else { ExitCode::from(status::REJECTED) })
}

fn describe(inspection: &Inspection) -> String {
    let mut text = String::new();
    let mut section = |title: &str, lines: &mut dyn Iterator<Item = String>| {
        let lines: Vec<String> = lines.collect();
        // Writing to a string cannot fail.
        let _written = writeln!(text, "{title}: {}", if lines.is_empty() { "none".into() } else { lines.len().to_string() });
        for line in lines {
            let _written = writeln!(text, "  {line}");
        }
    };
    let mark = |import: &Import| if import.is_known { "" } else { "   <- not there" };
    section(
        "imports",
        &mut inspection
            .imports
            .iter()
            .map(|import| format!("{} {}::{} {}{}", import.kind, import.module, import.name, import.ty, mark(import))),
    );
    section(
        "exports",
        &mut inspection.exports.iter().map(|export| format!("{} {} {}", export.kind, export.name, export.ty).trim_end().into()),
    );
    section("memories", &mut inspection.memories.iter().cloned());
    let obstacles: BTreeSet<&String> = inspection.obstacles.iter().collect();
    if obstacles.is_empty() {
        let how = if inspection.is_command { "mote run MODULE" } else { "mote run --invoke FUNCTION MODULE" };
        let _written = writeln!(text, "it can be run: {how}");
    } else {
        section("it cannot be run here", &mut obstacles.into_iter().cloned());
    }
    text
}
