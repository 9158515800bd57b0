//! Unmodified interpreters: brought to where they first wait for standard input, and given their program there.

use std::{env, io::Write, path::Path, path::PathBuf};

use crate::{
    Folder,
    support::command::{mote, run, run_with_input},
};

/// A program of `target/programs/`; `None`, with the reason on standard error, if it is not there.
fn fetched(name: &str) -> Option<PathBuf> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/programs").join(name);
    if program.exists() {
        return Some(program);
    }
    let reason = format!("{name}: no {}; scripts/fetch-programs brings it", program.display());
    assert!(env::var_os("MOTE_REQUIRE_PROGRAMS").is_none(), "{reason}");
    // Not `eprintln`, which the test harness shows only for tests that fail.
    let _written = writeln!(std::io::stderr(), "skipped {reason}");
    None
}

/// Each program does the same in a run from the beginning and in one from a snapshot.
fn runs_alike(module: &str, arguments: &[&str], programs: &[(&str, i32, &str)]) {
    let (Some(module), Some(folder)) = (fetched(module), Folder::new()) else { return };
    let (module, file) = (module.to_str().unwrap(), folder.text("a.snap"));
    let taking = [&["snapshot", "--at-stdin", "-o", &file, module, "--"], arguments].concat();
    run(taking).expect_output("");
    let cold_line = [&["run", module], arguments].concat();
    for (program, status, output) in programs {
        let cold = run_with_input(&mut mote(&cold_line), program.as_bytes());
        for confinement in ["--confinement=best-effort", "--confinement=off"] {
            let warm = run_with_input(&mut mote(["run", confinement, &file]), program.as_bytes());
            assert_eq!((warm.status, warm.text(), &warm.stderr), (cold.status, cold.text(), &cold.stderr), "{program}");
            assert_eq!((warm.status, warm.text()), (Some(*status), *output), "{program}: {}", warm.stderr);
        }
    }
}

#[test]
fn cpython() {
    let programs = [
        ("print(1)\n", 0, "1\n"),
        ("", 0, ""),
        ("import sys, json\nprint(json.dumps({'a': [1, 2.5, None]}))\nsys.exit(3)\n", 3, "{\"a\": [1, 2.5, null]}\n"),
        ("print('before')\nraise ValueError('seen')\n", 1, "before\n"),
        (
            "print(sum(i * i for i in range(10000)), sorted('snapshot'))\n",
            0,
            "333283335000 ['a', 'h', 'n', 'o', 'p', 's', 's', 't']\n",
        ),
        ("print(1\n", 1, ""),
    ];
    runs_alike("cpython.wasm", &[], &programs);
    runs_alike("cpython.wasm", &["-", "one"], &[("import sys\nprint(sys.argv)\n", 0, "['-', 'one']\n")]);
}

#[test]
fn quickjs() {
    let programs = [
        ("print(1)\n", 0, "1\n"),
        ("console.log(2n ** 100n, [3, 1, 2].sort())", 0, "1267650600228229401496703205376 1,2,3\n"),
        ("print('before'); std.exit(3)", 3, "before\n"),
        ("throw new Error('seen')", 1, ""),
        ("", 0, ""),
    ];
    runs_alike("quickjs.wasm", &["--std", "-e", "std.evalScript(std.in.readAsString())"], &programs);
}

/// What copies must not share: the numbers that they draw.
#[test]
fn copies_of_an_interpreter_draw_their_own_random_numbers() {
    let (Some(module), Some(folder)) = (fetched("cpython.wasm"), Folder::new()) else { return };
    let file = folder.text("a.snap");
    run(["snapshot", "--at-stdin", "-o", &file, module.to_str().unwrap()]).expect_output("");
    let draw =
        || run_with_input(&mut mote(["run", &file]), b"import os\nprint(os.urandom(16).hex())\n").expect(0).text().to_owned();
    let (first, second) = (draw(), draw());
    assert!(first.len() == 33 && first != second, "{first} {second}");
}
