//! What the command line says of itself, and what it refuses before anything is done.

use crate::support::command::run;

#[test]
fn both_subcommands_have_help() {
    let whole = run(["--help"]).expect(0);
    for name in ["snapshot", "bench"] {
        assert!(whole.text().contains(&format!("\n  {name} ")), "{whole:?}");
        for arguments in [[name, "--help"], [name, "-h"], ["help", name]] {
            let outcome = run(arguments).expect(0);
            assert!(outcome.text().contains(&format!("Usage: mote {name}")) && outcome.stderr.is_empty(), "{outcome:?}");
            assert!(outcome.text().contains("--invoke"), "{outcome:?}");
        }
        assert!(run(["man", name]).expect(0).text().contains(&format!(".TH mote-{name} 1")));
    }
    let verify = run(["snapshot", "verify", "--help"]).expect(0);
    assert!(verify.text().contains("Usage: mote snapshot verify <FILE>"), "{verify:?}");
}

#[test]
fn the_help_tells_all_options_and_statuses() {
    let common = ["--env", "--dir", "--dir-ro", "--ramdisk", "--memory", "--max-wasm-memory", "--fuel", "--timeout", "--argv0"];
    let common = [&common[..], &["--log", "--kernel"]].concat();
    let own: [(&str, &[&str]); 3] = [
        ("run", &["--invoke", "--tcplisten", "--verify", "--stats", "--confinement"]),
        ("snapshot", &["--output", "--at-stdin", "--invoke", "--after-start"]),
        ("bench", &["--invoke", "--duration", "--count", "--threads", "--no-clean", "--json", "--verify", "--confinement"]),
    ];
    for (name, options) in own {
        let outcome = run([name, "--help"]).expect(0);
        for option in options.iter().chain(&common) {
            let (alone, behind_short) = (format!("  {option}"), format!(", {option}"));
            assert!(outcome.text().contains(&alone) || outcome.text().contains(&behind_short), "{option}");
        }
        for status in ["  2 ", "  125 ", "  126 "] {
            assert!(outcome.text().contains(status), "{name}: {status}");
        }
    }
}

#[test]
fn a_wrong_command_line_has_status_2() {
    let wrong: [&[&str]; 12] = [
        &["snapshot"],
        &["snapshot", "a.wasm"],
        &["snapshot", "-o", "a.snap"],
        &["snapshot", "-o", "a.snap", "--at-stdin", "--after-start", "a.wasm"],
        &["snapshot", "-o", "a.snap", "--at-stdin", "--invoke", "f", "a.wasm"],
        &["snapshot", "verify"],
        &["snapshot", "verify", "a.snap", "b.snap"],
        &["bench", "a.wasm"],
        &["bench", "--invoke", "f"],
        &["bench", "--invoke", "f", "--threads", "0", "a.wasm"],
        &["bench", "--invoke", "f", "--count", "0", "a.wasm"],
        &["bench", "--invoke", "f", "--count", "3", "--duration", "3s", "a.wasm"],
    ];
    for arguments in wrong {
        let outcome = run(arguments).expect(2);
        assert_eq!(outcome.text(), "", "{arguments:?}");
        assert!(outcome.stderr.starts_with("error: ") && outcome.stderr.contains("--help"), "{arguments:?}: {outcome:?}");
    }
}
