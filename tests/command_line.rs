//! What surrounds a run: help, inspection, diagnosis, completions, man pages, statistics, logs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support {
    pub(crate) mod command;
    pub(crate) mod engine;
    pub(crate) mod kvm;
}

use std::{fs, path::Path};

use support::{
    command::{Outcome, finish, module_file, mote, payload, payload_line, run, run_payload, run_with_input},
    engine::by_engine,
    kvm,
};

const SUBCOMMANDS: [&str; 12] =
    ["run", "qemu", "image", "gdb", "snapshot", "bench", "compile", "cache", "inspect", "doctor", "completions", "man"];

fn inspect(path: &Path) -> Outcome {
    run([Path::new("inspect"), path])
}

#[test]
fn every_subcommand_has_help() {
    let help = run(["--help"]).expect(0);
    for subcommand in SUBCOMMANDS {
        assert!(help.text().contains(&format!("\n  {subcommand} ")), "{subcommand}");
        for arguments in [[subcommand, "--help"], [subcommand, "-h"], ["help", subcommand]] {
            let outcome = run(arguments).expect(0);
            assert!(outcome.text().contains(&format!("Usage: mote {subcommand}")), "{outcome:?}");
            assert_eq!(outcome.stderr, "");
        }
    }
    let version = run(["--version"]).expect(0);
    assert_eq!(version.text(), format!("mote {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_help_of_run_tells_all_exit_statuses_and_options() {
    for flag in ["--help", "-h"] {
        let outcome = run(["run", flag]).expect(0);
        let help = outcome.text();
        let statuses = help.split("Exit status:").nth(1).expect("no exit statuses");
        for status in ["2 ", "124", "125", "126", "134", "137"] {
            assert!(statuses.contains(status), "{status}");
        }
        for option in [
            "--env",
            "--invoke",
            "--memory",
            "--max-wasm-memory",
            "--fuel",
            "--timeout",
            "--argv0",
            "--stats",
            "--log",
            "--confinement",
            "--kernel",
        ] {
            assert!(help.contains(option), "{option}");
        }
    }
}

#[test]
fn a_wrong_command_line_has_status_2_and_says_where_help_is() {
    let wrong: [&[&str]; 9] = [
        &["--nonsense"],
        &["nonsense"],
        &["run"],
        &["run", "--nonsense", "a.wasm"],
        &["run", "--fuel"],
        &["run", "--stats=xml", "a.wasm"],
        &["completions", "nonsense"],
        &["inspect"],
        &["man", "nonsense"],
    ];
    for arguments in wrong {
        let outcome = run(arguments).expect(2);
        assert_eq!(outcome.text(), "", "{arguments:?}");
        assert!(outcome.stderr.starts_with("error: ") && outcome.stderr.contains("--help"), "{arguments:?}: {outcome:?}");
    }
    // Nothing at all is answered with the help itself.
    let outcome = run([""; 0]).expect(2);
    assert!(outcome.stderr.contains("Usage: mote <COMMAND>"), "{outcome:?}");
}

#[test]
fn inspection_shows_the_interface_and_says_how_to_run() {
    let outcome = inspect(&payload("hello.wat")).expect(0);
    let expected = "imports: 1\n  func wasi_snapshot_preview1::fd_write (i32, i32, i32, i32) -> (i32)\nexports: 2\n  memory memory\n  \
                    func _start () -> ()\nmemories: 1\n  32-bit, 1 pages of 65536 bytes, no maximum\nit can be run: mote run MODULE\n";
    assert_eq!((outcome.text(), outcome.stderr.as_str()), (expected, ""));
    let outcome = inspect(&payload("add.wat")).expect(0);
    assert!(outcome.text().contains("func swap (i64, i64) -> (i64, i64)"), "{outcome:?}");
    assert!(outcome.text().ends_with("it can be run: mote run --invoke FUNCTION MODULE\n"), "{outcome:?}");
    let from_pipe = run_with_input(&mut mote(["inspect", "-"]), &fs::read(payload("hello.wat")).unwrap()).expect(0);
    assert_eq!(from_pipe.text(), expected);
}

/// Inspection and the engine agree on what can be run.
#[test]
fn every_payload_that_runs_passes_inspection() {
    for entry in fs::read_dir(payload("")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "wat" || extension == "wasm") {
            let status = if path.ends_with("unknown-import.wat") { 126 } else { 0 };
            assert_eq!(inspect(&path).status, Some(status), "{}", path.display());
        }
    }
}

#[test]
fn inspection_tells_what_a_module_lacks() {
    let outcome = inspect(&payload("unknown-import.wat")).expect(126);
    let text = outcome.text();
    assert!(text.contains("env::no_such_function (i32) -> (i32)   <- not there"), "{text}");
    assert!(text.contains("it cannot be run here: 2\n"), "{text}");
    assert!(text.contains("  there is no func wasi_snapshot_preview1::no_such_call () -> (i32)\n"), "{text}");

    // The one engine or the other runs these.
    for module in [r#"(module (type (struct (field i32))))"#, r#"(module (tag))"#] {
        let outcome = inspect(module_file(module).path()).expect(0);
        assert!(!outcome.text().contains("it cannot be run here"), "{module}: {outcome:?}");
    }
    let lacking =
        [r#"(module (memory 1 1 shared))"#, r#"(module (func (result i32)))"#, r#"(module (import "env" "m" (memory 1)))"#];
    for module in lacking {
        let outcome = inspect(module_file(module).path()).expect(126);
        assert!(outcome.text().contains("it cannot be run here"), "{module}: {outcome:?}");
    }
    // Names do not reach the terminal raw.
    let odd = r#"(module (import "e\1b[31m" "n\0a" (func)) (func (export "x\1b[0m\07")))"#;
    let outcome = inspect(module_file(odd).path()).expect(126);
    assert!(!outcome.text().chars().any(|character| character.is_control() && character != '\n'), "{outcome:?}");
}

#[test]
fn the_doctor_finds_a_healthy_machine() {
    if !kvm::usable() {
        return;
    }
    let outcome = run(["doctor"]).expect(0);
    let text = outcome.text();
    for line in [
        "processor ",
        "virtualization ",
        "/dev/kvm           usable",
        "huge pages ",
        "time-stamp counter ",
        "seccomp ",
        "Landlock ",
        "QEMU ",
        "trial VM           ran",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(text.ends_with("This machine can run micro VMs.\n"), "{text}");
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let outcome = run(["completions", shell]).expect(0);
        assert!(SUBCOMMANDS.iter().all(|name| outcome.text().contains(name)), "{shell}");
        assert!(outcome.text().contains("max-wasm-memory"), "{shell}");
    }
    // The shell that is certainly here parses its script.
    let script = module_file(run(["completions", "bash"]).stdout);
    match std::process::Command::new("bash").arg("-n").arg(script.path()).status() {
        Ok(status) => assert!(status.success(), "bash does not parse its completions"),
        Err(error) => println!("skipped: no bash: {error}"),
    }
}

#[test]
fn man_pages_are_for_the_command_and_each_subcommand() {
    let outcome = run(["man"]).expect(0);
    assert!(outcome.text().contains(".TH mote 1") && outcome.text().contains("mote\\-run(1)"), "{outcome:?}");
    for subcommand in SUBCOMMANDS {
        let outcome = run(["man", subcommand]).expect(0);
        assert!(outcome.text().contains(&format!(".TH mote-{subcommand} 1")), "{outcome:?}");
    }
    assert!(run(["man", "run"]).text().contains("\\-\\-max\\-wasm\\-memory"));
    assert!(run(["man", "run"]).text().contains("134"), "no exit statuses");
}

#[test]
fn text_for_a_reader_that_went_away_is_no_failure() {
    for arguments in [&["man"][..], &["completions", "bash"]] {
        let mut child = mote(arguments).spawn().unwrap();
        drop(child.stdout.take());
        assert_eq!(finish(child).expect(0).stderr, "");
    }
}

#[test]
fn statistics_in_json_have_a_schema() {
    if !kvm::usable() {
        return;
    }
    let started = std::time::Instant::now();
    let outcome = run_payload(&["--stats=json", "--memory", "64MiB"], "exit.wat", &[]).expect(42);
    let elapsed_us = started.elapsed().as_secs_f64() * 1e6;
    assert_eq!(outcome.stderr.lines().count(), 1);
    let stats = outcome.stats();
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let all = [
        "engine",
        "engine_because",
        "exit_status",
        "exits",
        "exits_total",
        "fuel_used",
        "pages_touched",
        "phases_us",
        "ram_bytes",
        "ram_touched_bytes",
        "total_us",
    ];
    let mut found = keys(&stats);
    found.sort();
    assert_eq!(found, all);
    assert_eq!((&stats["exit_status"], &stats["fuel_used"], &stats["ram_bytes"]), (&42.into(), &0.into(), &(64u64 << 20).into()));
    let exits = stats["exits"].as_object().unwrap();
    assert_eq!(
        keys(&stats["exits"]),
        [
            "copy_module",
            "demand",
            "drain_output",
            "end",
            "exceptions",
            "files",
            "host_calls",
            "read_clock",
            "read_stdin",
            "returns",
            "signal",
            "sockets",
            "wait"
        ]
    );
    assert_eq!(exits.values().map(|count| count.as_u64().unwrap()).sum::<u64>(), stats["exits_total"].as_u64().unwrap());
    assert_eq!(stats["exits"]["end"], 1);
    // A run has no commands and no functions of the host.
    assert_eq!((&stats["exits"]["returns"], &stats["exits"]["host_calls"]), (&0.into(), &0.into()));
    let phases = stats["phases_us"].as_object().unwrap();
    for phase in [
        "before_main",
        "command_line",
        "load_kernel",
        "load_module",
        "create_vm",
        "enter_guest",
        "parse",
        "instantiate",
        "run",
        "flush",
    ] {
        assert!(phases[phase].as_f64().unwrap() >= 0.0, "{phase}");
    }
    let total_us = stats["total_us"].as_f64().unwrap();
    let sum_us: f64 = phases.values().map(|phase| phase.as_f64().unwrap()).sum();
    assert!(sum_us <= total_us * 1.01 && total_us <= elapsed_us * 1.01, "{sum_us} of {total_us} of {elapsed_us} µs");
    let pages = stats["pages_touched"].as_u64().unwrap();
    assert_eq!(pages * 4096, stats["ram_touched_bytes"].as_u64().unwrap());
    assert!((1..=16384).contains(&pages), "{pages} pages");
}

#[test]
fn statistics_tell_fuel_and_follow_the_complaint() {
    if !kvm::usable() {
        return;
    }
    let used = |fuel: &str| {
        run_payload(&["--stats=json", "--fuel", fuel], "hello.wat", &[]).expect(0).stats()["fuel_used"].as_u64().unwrap()
    };
    let fuel = used("100000");
    // What an instruction costs is the engine's own business.
    assert!((1..by_engine(1000, 10_000)).contains(&fuel), "{fuel}");
    assert_eq!(used("5000"), fuel, "the same work takes the same fuel");
    let outcome = run_payload(&["--stats=json", "--fuel", "1000"], "spin.wat", &[]).expect(134);
    assert!(outcome.stderr.starts_with("mote: ") && outcome.stderr.lines().count() == by_engine(2, 3), "{outcome:?}");
    assert_eq!(outcome.stats()["exit_status"], 134);
    assert!(outcome.stats()["fuel_used"].as_u64().unwrap() <= 1000);
    let outcome = run_payload(&["--stats=json", "--timeout", "100ms"], "spin.wat", &[]).expect(124);
    assert_eq!(outcome.stats()["exit_status"], 124);
}

#[test]
fn statistics_for_people_are_a_table() {
    if !kvm::usable() {
        return;
    }
    for option in ["--stats", "--stats=table"] {
        let outcome = run_payload(&[option], "hello.wat", &[]).expect(0);
        assert_eq!(outcome.text(), "Hello from a micro VM!\n");
        let names: Vec<&str> =
            outcome.stderr.lines().map(|line| line.split("  ").find(|part| !part.is_empty()).unwrap().trim()).collect();
        for name in ["phase", "before_main", "create_vm", "run", "total", "exits", "end", "fuel used", "RAM touched", "RAM"] {
            assert!(names.contains(&name), "{name}: {names:?}");
        }
    }
}

#[test]
fn the_log_has_the_guests_lines_at_its_level_only() {
    if !kvm::usable() {
        return;
    }
    let debug = run_payload(&["--log", "debug"], "hello.wat", &[]).expect(0);
    assert!(debug.stderr.lines().any(|line| line.contains("DEBUG guest: ") && line.contains("module parsed")), "{debug:?}");
    assert!(!debug.stderr.contains('\x1b'), "colours in a pipe");
    assert_eq!(debug.text(), "Hello from a micro VM!\n");
    for level in ["off", "error", "warn"] {
        run_payload(&["--log", level], "hello.wat", &[]).expect_output("Hello from a micro VM!\n");
    }
    run_payload(&["--log", "trace"], "hello.wat", &[]).expect(0);
}

/// Whether anybody reads what mote says does not change what happened.
#[test]
fn a_status_is_told_without_standard_error() {
    if !kvm::usable() {
        return;
    }
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    for (line, status) in [
        (payload_line(&["--stats"], "hello.wat", &[]), 0),
        (payload_line(&["--timeout", "200ms"], "spin.wat", &[]), 124),
        (vec!["run".into(), "/nowhere.wasm".into()], 126),
        (payload_line(&["--log", "trace"], "hello.wat", &[]), 0),
    ] {
        let child = mote(&line).stderr(full()).spawn().unwrap();
        assert_eq!(finish(child).status, Some(status), "{line:?}");
    }
    assert_eq!(finish(mote(["doctor"]).stdout(full()).spawn().unwrap()).status, Some(0));
}
