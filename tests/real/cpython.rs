//! CPython 3.12: scripts with modules, tests, data and files, from a directory and from a ramdisk.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use super::{
    both::{Case, fetched, fixture},
    tree,
};

/// Modules whose documentation has examples that are tests.
const LIBRARY: [&str; 8] = ["difflib", "statistics", "collections", "fractions", "json", "enum", "pickletools", "doctest"];

fn case(arguments: &[&str]) -> Option<Case> {
    Some(Case::new(fetched("cpython.wasm")?).environment("PYTHONPATH=/w").arguments(arguments))
}

#[test]
fn a_script_imports_modules_of_its_own() {
    let Some(case) = case(&["/w/main.py", "a", "b"]) else { return };
    let both = case.environment("UNIT=m").files(fixture("cpython")).input(b"circle 2\nsquare 3\n").exits(5);
    assert_eq!(both.mote.outcome.stderr, "total       21.566\n");
    // Compiled modules hold the size and the time of change of their source.
    assert!(both.mote.path("shapes/__pycache__/circle.cpython-312.pyc").exists());
}

#[test]
fn unittest() {
    let Some(case) = case(&["-m", "unittest", "-v", "test_shapes"]) else { return };
    let both = case.files(fixture("cpython")).exits(0);
    for run in [both.mote, both.wasmtime] {
        assert!(run.outcome.stderr.contains("\nRan 3 tests in ") && run.outcome.stderr.ends_with("\nOK\n"), "{:?}", run.outcome);
    }
}

#[test]
fn the_examples_of_the_library() {
    let Some(case) = case(&["/w/library.py"]) else { return };
    let output = case.arguments(&LIBRARY).files(fixture("cpython")).exits(0).text();
    assert_eq!(output.lines().filter(|line| line.ends_with(" tests, 0 failures, 0 errors")).count(), LIBRARY.len(), "{output}");
}

#[test]
fn data_goes_from_file_to_file() {
    let Some(case) = case(&["/w/data.py"]) else { return };
    let both = case.files(fixture("cpython")).exits(0);
    assert!(fs::read(both.mote.path("summary.json")).expect("it is there").starts_with(b"{\n  \"Brno\": {\n    \"count\": 100,"));
}

#[test]
fn files_and_folders() {
    let Some(case) = case(&["/w/files.py"]) else { return };
    let output = case.files(fixture("cpython")).exits(0).text();
    assert!(output.contains("OSError 55 Directory not empty a None\n") && !output.contains("no error"), "{output}");
}

#[test]
fn everything_in_a_ramdisk() {
    let archive = Archive::new(&fixture("cpython"));
    let before = tree::read(archive.folder.path());
    for (arguments, status) in
        [(["/w/main.py", "a"].as_slice(), 5), (&["/w/data.py"], 0), (&["-m", "unittest", "test_shapes"], 0)]
    {
        let Some(case) = case(arguments) else { return };
        // wasmtime writes into a copy; what mote writes is gone.
        let copy = Archive::new(&fixture("cpython"));
        case.environment("UNIT=m").root(&copy.contents(), &archive.file()).input(b"circle 2\n").exits(status);
        assert!(before == tree::read(archive.folder.path()), "{arguments:?} left something on the host");
    }
}

/// A directory that has the files of another one in `w`, and a tar archive of it.
struct Archive {
    folder: TempDir,
}

impl Archive {
    fn new(files: &Path) -> Self {
        let archive = Self { folder: tempfile::tempdir().expect("no temporary directory") };
        fs::create_dir_all(archive.contents().join("w")).expect("cannot create a directory");
        tree::copy(files, &archive.contents().join("w"));
        let mut tar = Command::new("tar");
        tar.arg("-cf").arg(archive.file()).arg("-C").arg(archive.contents()).arg("w");
        assert!(tar.status().expect("tar is missing").success(), "{tar:?}");
        archive
    }

    fn contents(&self) -> PathBuf {
        self.folder.path().join("contents")
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("archive.tar")
    }
}
