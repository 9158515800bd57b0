//! Interpreters that wait for their program: what it takes in one process until `print(1)` has printed, from the module, as a
//! new copy of a snapshot, and in a sandbox that is restored to it. `scripts/bench --only warm` has the same for processes.
//!
//! `cargo bench -p mote-vmm --bench interpreters`; needs `/dev/kvm` and what `scripts/fetch-programs --only cpython quickjs`
//! brings. Times are wall-clock times, medians; the three take turns.

#![expect(clippy::expect_used, reason = "a benchmark that fails has nothing to go on with")]

use std::{
    path::{Path, PathBuf},
    sync::mpsc,
    time::{Duration, Instant},
};

use mote_vmm::{Input, Output, Sandbox, Translation, open_kvm};

const ROUNDS: usize = 15;
const PROGRAM: &[u8] = b"print(1)\n";
const EXPECTED: &[u8] = b"1\n";
const INTERPRETERS: [(&str, &[&str]); 2] =
    [("cpython", &["python"]), ("quickjs", &["qjs", "--std", "-e", "std.evalScript(std.in.readAsString())"])];

fn main() {
    if let Err(error) = open_kvm() {
        eprintln!("skipped: {error}");
        return;
    }
    println!("\nUntil print(1) has printed, milliseconds, medians of {ROUNDS}; and how many times faster than cold\n");
    println!(
        "| interpreter | cold | new copy | faster | restored sandbox | faster |\n| --- | ---: | ---: | ---: | ---: | ---: |"
    );
    for (name, arguments) in INTERPRETERS {
        let module = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../target/programs/{name}.wasm"));
        if module.exists() {
            measure(name, &module, arguments);
        } else {
            eprintln!("skipped: {name} is missing; run scripts/fetch-programs");
        }
    }
}

fn measure(name: &str, module: &PathBuf, arguments: &[&str]) {
    let builder = || Sandbox::builder().module_file(module).args(arguments.iter().copied());
    let mut original = builder().translation(Translation::Eager).build().expect("the interpreter starts");
    original.start_until_input().expect("it waits for its program");
    let snapshot = original.snapshot().expect("nothing is open");
    let copy = || snapshot.sandbox().build().expect("a copy can be made");
    let mut kept = copy();
    until_printed(&mut kept, Instant::now(), |sandbox| sandbox.resume());
    let (mut cold, mut new, mut restored) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let mut sandbox = builder().build().expect("the interpreter starts");
        cold.push(until_printed(&mut sandbox, started, |sandbox| sandbox.start()));
        drop(sandbox);
        let started = Instant::now();
        let mut sandbox = copy();
        new.push(until_printed(&mut sandbox, started, |sandbox| sandbox.resume()));
        drop(sandbox);
        let started = Instant::now();
        kept.restore(&snapshot).expect("it goes back");
        restored.push(until_printed(&mut kept, started, |sandbox| sandbox.resume()));
    }
    let [cold, new, restored] = [cold, new, restored].map(median);
    println!("| {name} | {cold:.1} | {new:.2} | {:.1} | {restored:.2} | {:.1} |", cold / new, cold / restored);
}

/// Milliseconds from `started` until the output is there.
fn until_printed(
    sandbox: &mut Sandbox,
    started: Instant,
    run: impl FnOnce(&mut Sandbox) -> Result<u32, mote_vmm::CallError>,
) -> f64 {
    let (sender, printed) = mpsc::channel();
    sandbox.set_stdin(Input::Bytes(PROGRAM.to_vec()));
    sandbox.set_stdout(Output::callback(move |bytes| {
        assert_eq!(bytes, EXPECTED, "it printed something else");
        // Nobody waits for a second piece.
        let _received = sender.send(started.elapsed());
        Ok(())
    }));
    assert_eq!(run(sandbox).expect("it ends by itself"), 0, "its status");
    printed.recv().map(|time: Duration| time.as_secs_f64() * 1e3).expect("it printed")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
