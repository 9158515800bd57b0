//! `mote bench`: that what it prints is true of what it did, and how it ends. No time is judged.

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    COUNTER, Folder,
    support::command::{finish, kill, module_file, mote, payload, run},
};

fn json(arguments: &[&str]) -> Value {
    let outcome = run([&["bench", "--json"], arguments].concat()).expect(0);
    assert_eq!((outcome.stderr.as_str(), outcome.text().lines().count()), ("", 1), "{outcome:?}");
    serde_json::from_str(outcome.text()).unwrap()
}

/// Percentiles rise from the least to the largest.
fn check_summary(summary: &Value) {
    let values = ["min", "p50", "p90", "p99", "p99.9", "max"].map(|name| summary[name].as_f64().unwrap());
    assert!(values[0] > 0.0 && values.is_sorted(), "{summary}");
    let mean = summary["mean"].as_f64().unwrap();
    assert!(values[0] <= mean && mean <= values[5], "{summary}");
}

#[test]
fn so_many_clean_calls_are_made_and_told() {
    let Some(folder) = Folder::new() else { return };
    let module = module_file(COUNTER);
    let snapshot = folder.take("a.snap", &["--after-start"], COUNTER, &[]);
    for file in [module.path().to_str().unwrap(), &snapshot] {
        for threads in ["1", "3"] {
            let measured = json(&["--count", "500", "--threads", threads, file, "--invoke", "add", "-3"]);
            assert_eq!(
                (&measured["calls"], &measured["clean"], &measured["function"]),
                (&500.into(), &true.into(), &"add".into())
            );
            assert_eq!(measured["threads"].to_string(), threads);
            ["call_us", "restore_us", "both_us"].iter().for_each(|name| check_summary(&measured[name]));
            assert!(measured["both_us"]["min"].as_f64() >= measured["call_us"]["min"].as_f64());
            assert!(measured["restored_pages_per_call"].as_f64().unwrap() >= 1.0, "a call changes memory: {measured}");
            let (rate, seconds) = (measured["calls_per_second"].as_f64().unwrap(), measured["seconds"].as_f64().unwrap());
            assert!(rate * seconds >= 499.0, "{measured}");
            let rows = measured["histogram"].as_array().unwrap();
            assert_eq!(rows.iter().map(|row| row["count"].as_u64().unwrap()).sum::<u64>(), 500);
        }
    }
}

/// So many that the allocator has as many heaps as it wants: all threads are confined.
#[test]
fn many_threads_measure_together() {
    let Some(_folder) = Folder::new() else { return };
    let module = module_file(COUNTER);
    let file = module.path().to_str().unwrap();
    let measured = json(&["--count", "300", "--threads", "150", file, "--invoke", "add", "1"]);
    assert_eq!((&measured["calls"], &measured["threads"]), (&300.into(), &150.into()));
}

/// A function that traps when it finds what an earlier call left.
#[test]
fn a_clean_call_finds_nothing_of_the_one_before() {
    let Some(_folder) = Folder::new() else { return };
    let module = module_file(
        r#"(module (memory 1) (func (export "once")
          (if (i32.load (i32.const 0)) (then unreachable)) (i32.store (i32.const 0) (i32.const 1))))"#,
    );
    let module = module.path().to_str().unwrap();
    assert_eq!(json(&["--count", "50", module, "--invoke", "once"])["calls"], 50);
    run(["bench", "--count", "50", "--no-clean", module, "--invoke", "once"]).complains(134, "unreachable");
}

#[test]
fn calls_without_cleaning_are_measured_alone() {
    let Some(_folder) = Folder::new() else { return };
    let module = payload("add.wat").display().to_string();
    let measured = json(&["--count", "50", "--no-clean", &module, "--invoke", "add", "2", "3"]);
    assert_eq!((&measured["restore_us"], &measured["both_us"], &measured["clean"]), (&Value::Null, &Value::Null, &false.into()));
    check_summary(&measured["call_us"]);
}

#[test]
fn people_get_a_table_and_a_histogram() {
    let Some(_folder) = Folder::new() else { return };
    let module = payload("add.wat").display().to_string();
    let outcome = run(["bench", "--duration", "200ms", &module, "--invoke", "add", "2", "3"]).expect(0);
    let text = outcome.text();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].contains(" clean calls of `add` in ") && lines[0].ends_with("1 thread"), "{text}");
    let columns: Vec<_> = lines[2].split_whitespace().collect();
    assert_eq!(columns, ["µs", "min", "p50", "p90", "p99", "p99.9", "max"]);
    for (line, name) in lines[3..6].iter().zip(["call", "restore", "both"]) {
        let words: Vec<_> = line.split_whitespace().collect();
        assert!(words[0] == name && words.len() == 7 && words[1..].iter().all(|word| word.parse::<f64>().is_ok()), "{line}");
    }
    for name in ["calls per second", "pages restored per call", "call and restore, µs"] {
        assert!(text.contains(name), "{text}");
    }
    assert!(lines.iter().any(|line| line.contains(&"#".repeat(40))), "{text}");
}

#[test]
fn what_goes_wrong_ends_it_with_its_status() {
    let Some(folder) = Folder::new() else { return };
    let module = module_file(COUNTER);
    let module = module.path().to_str().unwrap();
    let snapshot = folder.take("a.snap", &[], COUNTER, &[]);
    let waiting = folder.take_payload("b.snap", &["--at-stdin"], "cat.wat");
    for file in [module, &snapshot] {
        for threads in ["1", "2"] {
            let bench = |arguments: &[&str]| run([&["bench", "--threads", threads, file, "--invoke"], arguments].concat());
            bench(&["trap"]).complains(134, "unreachable, in a call of `trap`");
            bench(&["spin", "--timeout", "100ms"]).complains(124, "deadline");
            bench(&["exit", "7"]).complains(7, "ended itself with status 7");
            bench(&["add"]).complains(126, "`add` takes 1 arguments (i32), 0 were given");
            bench(&["nothing"]).complains(126, "exports no function `nothing`");
        }
    }
    run(["bench", &waiting, "--invoke", "_start"]).complains(2, "waits for standard input");
    run(["bench", &snapshot, "--invoke", "get", "--env", "A=1"]).complains(2, "--env cannot be given with a snapshot");
    run(["bench", &snapshot, "--invoke", "get", "--fuel", "9"]).complains(2, "--fuel cannot be given");
    run(["bench", module, "--invoke", "get", "--verify"]).complains(2, "--verify is for snapshots");
    run(["bench", module, "--invoke", "spin", "--fuel", "1000"]).complains(134, "fuel");
    run(["bench", "/nowhere.wasm", "--invoke", "get"]).complains(126, "/nowhere.wasm");
}

#[test]
fn a_signal_ends_it() {
    let Some(_folder) = Folder::new() else { return };
    let module = module_file(COUNTER);
    let module = module.path().to_str().unwrap();
    for (function, arguments) in [("add", &["1"][..]), ("spin", &[])] {
        let line = [&["bench", "--duration", "10min", "--threads", "2", module, "--invoke", function], arguments].concat();
        let child = mote(line).spawn().unwrap();
        // Both ends are right before anything was measured, too, but for the time before signals are caught.
        let caught = || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
            let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:\t")).unwrap();
            u64::from_str_radix(mask, 16).unwrap() & 1 << (Signal::INT.as_raw() - 1) != 0
        };
        while !caught() {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
        kill(&child, Signal::INT);
        finish(child).complains(137, "interrupted by a signal");
    }
}
