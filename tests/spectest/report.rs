//! Counting what came of directives, and telling it.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    ops::AddAssign,
};

use super::{
    execute::{Reason, Verdict},
    known,
};

/// How many directives ended how.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) text: usize,
    pub(crate) not_run: BTreeMap<Reason, usize>,
}

impl Tally {
    pub(crate) fn count(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Passed => self.passed += 1,
            Verdict::Failed(_) | Verdict::Text(Err(_)) => self.failed += 1,
            Verdict::Text(Ok(())) => self.text += 1,
            Verdict::NotRun(reason) => *self.not_run.entry(*reason).or_default() += 1,
        }
    }

    fn not_run(&self) -> usize {
        self.not_run.values().sum()
    }

    fn numbers(&self) -> [usize; 4] {
        [self.passed, self.failed, self.not_run(), self.text]
    }
}

impl AddAssign<&Self> for Tally {
    fn add_assign(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.text += other.text;
        for (reason, count) in &other.not_run {
            *self.not_run.entry(*reason).or_default() += count;
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proposal(name) => write!(f, "needs {name}"),
            Self::NoModule => write!(f, "is about a module that could not be instantiated"),
            Self::OnlyDefined => write!(f, "only defines a module"),
        }
    }
}

/// A table for people at a terminal, by suite and file.
pub(crate) fn by_file(files: &[(&str, &str, Tally)]) -> String {
    let mut table = String::new();
    let mut line = |name: &str, [passed, failed, not_run, text]: [String; 4]| {
        let _never_fails = writeln!(table, "{name:<60} {passed:>8} {failed:>8} {not_run:>8} {text:>10}");
    };
    line("file", ["passed", "failed", "not run", "text only"].map(str::to_owned));
    for (suite, name, tally) in files {
        line(&format!("{suite}/{name}"), tally.numbers().map(|number| number.to_string()));
    }
    table
}

/// Three tables in Markdown: totals by suite, why directives are not run, and why some fail.
pub(crate) fn by_suite(files: &[(&str, &str, Tally)]) -> String {
    let mut suites: Vec<(&str, Tally)> = Vec::new();
    let mut total = Tally::default();
    for (suite, _, tally) in files {
        if suites.last().is_none_or(|(last, _)| last != suite) {
            suites.push((suite, Tally::default()));
        }
        if let Some((_, sum)) = suites.last_mut() {
            *sum += tally;
        }
        total += tally;
    }
    let mut text = String::from("| suite | passed | failed | not run | text only |\n| --- | --: | --: | --: | --: |\n");
    let rows = suites.iter().map(|(name, tally)| (*name, tally)).chain([("all", &total)]);
    for (name, [passed, failed, not_run, only]) in rows.map(|(name, tally)| (name, tally.numbers())) {
        let _never_fails = writeln!(text, "| {name} | {passed} | {failed} | {not_run} | {only} |");
    }
    text.push_str("\n| not run, because the directive | directives |\n| --- | --: |\n");
    for (reason, count) in &total.not_run {
        let _never_fails = writeln!(text, "| {reason} | {count} |");
    }
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for known in known::known() {
        *reasons.entry(known.reason).or_default() += known.lines.len();
    }
    text.push_str("\n| fails, because | directives |\n| --- | --: |\n");
    for (reason, count) in reasons {
        let _never_fails = writeln!(text, "| {reason} | {count} |");
    }
    text
}
