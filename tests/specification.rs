//! The test-suite of the WebAssembly specification, in sandboxes, with each engine. The interpreter is also run without a VM:
//! nothing may come out otherwise in a sandbox. `--nocapture` shows what passed, failed and was not run, by file.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod spectest {
    pub(crate) mod engine;
    pub(crate) mod execute;
    pub(crate) mod known;
    pub(crate) mod native;
    pub(crate) mod proposals;
    pub(crate) mod report;
    pub(crate) mod sandbox;
    pub(crate) mod script;
    pub(crate) mod suite;
    pub(crate) mod value;
}
mod support {
    pub(crate) mod engine;
    pub(crate) mod kvm;
}

use std::{
    collections::BTreeSet,
    env, fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use mote_vmm::Snapshot;
use spectest::{
    engine::Engine,
    execute::{Step, Verdict, execute},
    known,
    native::Native,
    report::{self, Tally},
    sandbox::{self, InSandbox},
    script::{self, Directive},
    suite::{self, Script},
};
use support::{engine, engine::by_engine, kvm};

/// Writes the tables into the document, instead of comparing them with it.
const UPDATE: &str = "MOTE_UPDATE_SPECIFICATION_SUITE";

/// Text is parsed by recursion.
const STACK_BYTES: usize = 32 << 20;

/// What came of a script.
#[derive(Default)]
struct Outcome {
    tally: Tally,
    /// What came out otherwise in the sandbox than without one.
    differences: Vec<String>,
    /// Lines of directives that failed, with what happened.
    failures: Vec<(usize, String)>,
}

#[test]
fn the_suite_comes_out_in_sandboxes_as_without_them() {
    if !kvm::usable() {
        return;
    }
    let scripts = suite::scripts();
    let outcomes = run_all(&scripts);
    let files: Vec<_> = scripts
        .iter()
        .zip(&outcomes)
        .map(|(script, outcome)| (script.suite.as_str(), script.name.as_str(), outcome.tally.clone()))
        .collect();
    println!("{}", report::by_file(&files));
    let tables = report::by_suite(&files);
    println!("{tables}");

    let differences: Vec<_> = outcomes.iter().flat_map(|outcome| &outcome.differences).map(String::as_str).collect();
    assert!(differences.is_empty(), "{} in sandboxes:\n{}", differences.len(), differences.join("\n"));
    check_failures(&scripts, &outcomes);
    check_document(&tables);
}

/// Runs all scripts, as many at a time as there are processors.
fn run_all(scripts: &[Script]) -> Vec<Outcome> {
    let base = sandbox::base().unwrap();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some((index, script)) = Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, scripts.get(at)?))) {
            done.push((index, run(script, &base)));
        }
        done
    };
    let threads = thread::available_parallelism().map_or(1, Into::into);
    let mut outcomes: Vec<_> = thread::scope(|scope| {
        let spawn = |_| thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work).unwrap();
        let threads: Vec<_> = (0..threads).map(spawn).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    outcomes.sort_by_key(|(index, _)| *index);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Runs a script in a sandbox; the interpreter also without one.
fn run(script: &Script, base: &Snapshot) -> Outcome {
    let at = |line: usize| format!("{}/{}:{line}", script.suite, script.name);
    let directives = script::parse(&script.text).unwrap_or_else(|error| panic!("{}: {error}", at(0)));
    let mut sandbox = InSandbox::new(base).unwrap();
    let steps = execute(&mut sandbox, &directives);

    let mut outcome = Outcome::default();
    if engine::under_test() == engine::Engine::Interp {
        let mut native = Native::new();
        for ((Directive { line, kind, .. }, step), expected) in
            directives.iter().zip(&steps).zip(&execute(&mut native, &directives))
        {
            if !is_like(step, expected) {
                let (got, wanted) = (&step.observed, &expected.observed);
                outcome.differences.push(format!("{}: {kind}: {got:x?}, without a sandbox {wanted:x?}", at(*line)));
            }
        }
        if sandbox.printed() != native.printed() {
            outcome.differences.push(format!("{}: other lines are printed", at(0)));
        }
    }
    for (Directive { line, kind, .. }, step) in directives.iter().zip(&steps) {
        outcome.tally.count(&step.verdict);
        if let Verdict::Failed(reason) | Verdict::Text(Err(reason)) = &step.verdict {
            outcome.failures.push((*line, format!("{}: {kind}: {reason}", at(*line))));
        }
    }
    outcome
}

/// Whether two engines did the same.
fn is_like(one: &Step, two: &Step) -> bool {
    match (&one.observed, &two.observed) {
        (Some(Ok(one)), Some(Ok(two))) => one.len() == two.len() && one.iter().zip(two).all(|(one, two)| one.is_like(*two)),
        (Some(Err(one)), Some(Err(two))) => one.is_like(two),
        (None, None) => one.verdict == two.verdict,
        _ => false,
    }
}

/// What fails without a sandbox, too, must be known, and what is known must fail.
fn check_failures(scripts: &[Script], outcomes: &[Outcome]) {
    let mut known: BTreeSet<_> = known::known()
        .flat_map(|known| known.lines.iter().map(|line| (known.suite.to_owned(), known.file.to_owned(), *line)))
        .collect();
    let mut unknown = Vec::new();
    for (script, outcome) in scripts.iter().zip(outcomes) {
        for (line, failure) in &outcome.failures {
            if !known.remove(&(script.suite.clone(), script.name.clone(), *line)) {
                unknown.push(failure.as_str());
            }
        }
    }
    assert!(unknown.is_empty(), "{} failures that are not known:\n{}", unknown.len(), unknown.join("\n"));
    assert!(known.is_empty(), "known to fail, but they do not: {known:?}");
}

/// The tables of the document are those of this run.
fn check_document(tables: &str) {
    let begin = by_engine("<!-- tables of the interpreter -->\n", "<!-- tables of compiled code -->\n");
    const END: &str = "<!-- end of tables -->\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/specification-suite.md");
    let document = fs::read_to_string(&path).unwrap();
    let (before, rest) = document.split_once(begin).unwrap();
    let (there, after) = rest.split_once(END).unwrap();
    if env::var_os(UPDATE).is_some() {
        fs::write(&path, format!("{before}{begin}\n{tables}\n{END}{after}")).unwrap();
    } else {
        assert_eq!(there.trim(), tables.trim(), "docs/specification-suite.md is not up to date: set {UPDATE}=1 to write it");
    }
}
