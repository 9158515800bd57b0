//! What a program said about each of its checks, and the judgement of three runtimes.

use std::collections::BTreeMap;

use super::{
    fixture::Fixture,
    known::{Known, Right},
};
use crate::support::command::Outcome;

/// Each check by its label. A line is `label: answer`; lines with the same label are one answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answers {
    labels: Vec<String>,
    answers: BTreeMap<String, String>,
}

impl Answers {
    /// The lines of a program that ended, its exit status, and what it left behind.
    pub(crate) fn of(outcome: &Outcome, fixture: &Fixture) -> Self {
        let mut answers = Self::default();
        answers.add_lines(outcome.text());
        answers.add_status(outcome);
        answers.add_tree(fixture);
        answers
    }

    pub(crate) fn add_status(&mut self, outcome: &Outcome) {
        self.add("exit status", &outcome.status.map_or_else(|| String::from("a signal"), |status| status.to_string()));
    }

    pub(crate) fn add_lines(&mut self, lines: &str) {
        for line in lines.lines() {
            let (label, answer) = line.split_once(": ").unwrap_or_else(|| panic!("no answer in {line:?}"));
            self.add(label, answer);
        }
    }

    pub(crate) fn add(&mut self, label: &str, answer: &str) {
        if let Some(answers) = self.answers.get_mut(label) {
            *answers = format!("{answers}; {answer}");
        } else {
            self.labels.push(String::from(label));
            self.answers.insert(String::from(label), String::from(answer));
        }
    }

    pub(crate) fn add_tree(&mut self, fixture: &Fixture) {
        for (path, description) in fixture.tree() {
            self.add(&format!("left {path}"), &description);
        }
    }

    pub(crate) fn get(&self, label: &str) -> &str {
        self.answers.get(label).map_or("(nothing)", String::as_str)
    }
}

/// The answers of all runtimes to one program.
pub(crate) struct Contest<'a> {
    pub(crate) program: &'a str,
    pub(crate) wasmtime: &'a Answers,
    pub(crate) preview1: &'a Answers,
    pub(crate) mote: &'a Answers,
}

impl Contest<'_> {
    /// Where both references agree, mote must; where they do not, or it does not, the table of known differences decides.
    ///
    /// # Panics
    ///
    /// With all that is wrong: answers of mote, differences that are not known, known ones that are none.
    pub(crate) fn judge(&self) {
        let known = Known::of(self.program);
        let mut needed = vec![false; known.len()];
        let mut wrong = Vec::new();
        for label in self.labels() {
            let [wasmtime, preview1, mote] = [self.wasmtime, self.preview1, self.mote].map(|answers| answers.get(label));
            let all = format!("{label}\n    wasmtime: {wasmtime}\n    preview 1: {preview1}\n    mote: {mote}");
            let Some(index) = known.iter().position(|known| known.covers(label)) else {
                if wasmtime != preview1 {
                    wrong.push(format!("not known that they differ: {all}"));
                } else if mote != wasmtime {
                    wrong.push(format!("mote: {all}"));
                }
                continue;
            };
            let Known { right, reason, .. } = &known[index];
            let expected = match *right {
                Right::Wasmtime => wasmtime,
                Right::Preview1 => preview1,
                Right::Answer(answer) | Right::Unsteady(answer) => answer,
                Right::Unspecified => mote,
            };
            needed[index] |= wasmtime != preview1 || expected != wasmtime || !right.is_steady();
            if mote != expected {
                wrong.push(format!("mote, which must say {expected} ({reason}): {all}"));
            }
        }
        let idle = known.iter().zip(needed).filter(|(_, needed)| !needed);
        wrong.extend(idle.map(|(known, _)| format!("known, but there is no such difference: {}", known.pattern)));
        assert!(wrong.is_empty(), "{}: {} wrong\n{}", self.program, wrong.len(), wrong.join("\n"));
    }

    /// Every label of any of them.
    fn labels(&self) -> impl Iterator<Item = &str> {
        let (wasmtime, preview1) = (self.wasmtime, self.preview1);
        let more = preview1.labels.iter().filter(|label| !wasmtime.answers.contains_key(*label));
        let ours = self.mote.labels.iter();
        let ours = ours.filter(|label| !wasmtime.answers.contains_key(*label) && !preview1.answers.contains_key(*label));
        wasmtime.labels.iter().chain(more).chain(ours).map(String::as_str)
    }
}
