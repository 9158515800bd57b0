//! Every module of `wasm-payloads/` with its verdict from the table there: exit status, exact output, and what is said
//! about its end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod running {
    mod streams;
}
mod support {
    pub(crate) mod command;
    pub(crate) mod engine;
    pub(crate) mod kvm;
}

use std::{fmt::Write as _, fs, path::Path};

use serde_json::Value;
use support::{
    command::{mote, payload, payload_line, run, run_module, run_payload, run_with_input},
    engine::by_engine,
    kvm,
};

type Options = &'static [&'static str];
type Arguments = &'static [&'static str];

/// Modules that need nothing: options, file, arguments, status, standard output.
const PLAIN: [(Options, &str, Arguments, i32, &str); 21] = [
    (&[], "hello.wat", &[], 0, "Hello from a micro VM!\n"),
    (&[], "hello-c.wasm", &[], 0, "Hello from C in a micro VM!\n"),
    (&[], "hello-rs.wasm", &[], 0, "Hello from Rust in a micro VM!\n"),
    (&[], "exit.wat", &[], 42, ""),
    (&[], "args.wat", &["a", "b c", ""], 0, "args.wat\na\nb c\n\n"),
    (&["--env", "A=1", "--env", "B=2"], "env.wat", &[], 0, "A=1\nB=2\n"),
    (&[], "env.wat", &[], 0, ""),
    (&[], "clock.wat", &[], 0, ""),
    (&[], "random.wat", &[], 0, ""),
    (&[], "sleep.wat", &[], 0, ""),
    (&["--memory", "6GiB"], "huge-memory.wat", &[], 0, ""),
    (&["--max-wasm-memory", "1MiB"], "grow.wat", &[], 0, "16\n"),
    (&["--max-wasm-memory", "100KiB"], "grow.wat", &[], 0, "1\n"),
    (&[], "grow-to.wat", &["100"], 0, ""),
    (&["--max-wasm-memory", "1MiB"], "grow-to.wat", &["16"], 0, ""),
    (&["--max-wasm-memory", "1MiB"], "grow-to.wat", &["17"], 1, ""),
    (&[], "grow-to.wat", &["65537"], 1, ""),
    (&[], "grow-denied.wat", &[], 0, ""),
    (&[], "simd.wat", &[], 0, ""),
    (&[], "features.wat", &[], 0, ""),
    (&["--fuel", "1000000"], "hello.wat", &[], 0, "Hello from a micro VM!\n"),
];

#[test]
fn modules_end_with_their_status_and_output() {
    if !kvm::usable() {
        return;
    }
    for (options, name, arguments, status, stdout) in PLAIN {
        let outcome = run_payload(options, name, arguments);
        assert_eq!((outcome.status, outcome.text(), outcome.stderr.as_str()), (Some(status), stdout, ""), "{name} {arguments:?}");
    }
}

/// Modules that trap: options, file, arguments, standard output, what is said.
const TRAPS: [(Options, &str, Arguments, &str, &str); 12] = [
    (&[], "unreachable.wat", &[], "", "unreachable, in a call of `_start`"),
    (&[], "div-zero.wat", &[], "", "integer divide by zero, in a call of `_start`"),
    (&[], "int-overflow.wat", &[], "", "integer overflow, in a call of `_start`"),
    (&[], "oob.wat", &[], "", "out of bounds memory access, in a call of `_start`"),
    (&[], "call-null.wat", &[], "", "uninitialized element, in a call of `_start`"),
    (&[], "call-type.wat", &[], "", "indirect call type mismatch, in a call of `_start`"),
    // The specification says "undefined element"; the engine does not tell it from `table.get` behind a table's end.
    (&[], "table-oob.wat", &[], "", "out of bounds table access, in a call of `_start`"),
    (&[], "recurse.wat", &[], "", "call stack exhausted, in a call of `_start`"),
    (&[], "start-trap.wat", &[], "", "unreachable, while the module was instantiated"),
    (
        &[],
        "trap-after-print.wat",
        &[],
        "printed before the trap\n",
        "unreachable, in a call of `_start`; the last call to the host was fd_write(1, 0, 1, 8)",
    ),
    (
        &["--fuel", "100000"],
        "print-then-spin.wat",
        &[],
        "before the loop\n",
        "all fuel consumed, in a call of `_start`; the last call to the host was fd_write(",
    ),
    (&["--invoke", "div"], "add.wat", &["7", "0"], "", "integer divide by zero, in a call of `div`"),
];

#[test]
fn traps_have_their_name_and_place_and_lose_no_output() {
    if !kvm::usable() {
        return;
    }
    for (options, name, arguments, stdout, message) in TRAPS {
        let outcome = run_payload(options, name, arguments).complains(134, &format!("{name}: wasm trap: {message}"));
        assert_eq!(outcome.text(), stdout, "{name}");
    }
}

#[test]
fn what_cannot_run_is_refused_with_all_reasons() {
    if !kvm::usable() {
        return;
    }
    let outcome = run_payload(&[], "unknown-import.wat", &[]);
    let outcome = outcome.complains(126, "env::no_such_function").complains(126, "wasi_snapshot_preview1::no_such_call");
    assert_eq!(outcome.text(), "");
    let outcome = run_payload(&["--memory", "512MiB"], "huge-memory.wat", &[]);
    outcome.complains(126, "4294967296").complains(126, "536870912");
    run_payload(&["--max-wasm-memory", "10KiB"], "grow.wat", &[]).complains(126, "65536 bytes").complains(126, "10240 bytes");
}

#[test]
fn arguments_arrive_as_given() {
    if !kvm::usable() {
        return;
    }
    let odd = ["", " ", "a b", "tab\tnewline\n", "häß 🦀", "--fuel", "-x", "--", "'\"\\"];
    let lines = odd.iter().fold(String::new(), |mut text, argument| {
        writeln!(text, "{argument}").unwrap();
        text
    });
    run_payload(&[], "args.wat", &odd).expect_output(&format!("args.wat\n{lines}"));
    run_payload(&["--argv0", "my program"], "args.wat", &[]).expect_output("my program\n");
    run_payload(&["--argv0", ""], "args.wat", &["x"]).expect_output("\nx\n");
    // 64 KiB in 3,000 arguments.
    let many: Vec<String> = (0..3000).map(|index| format!("argument number {index}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    run_payload(&[], "args.wat", &many).expect_output(&format!("args.wat\n{}\n", many.join("\n")));
}

#[test]
fn only_the_environment_that_was_given_arrives() {
    if !kvm::usable() {
        return;
    }
    let run = |options: &[&str]| {
        let mut command = mote(payload_line(options, "env.wat", &[]));
        support::command::finish(command.env("INHERITED", "from the host = yes").env_remove("ABSENT").spawn().unwrap())
    };
    run(&["--env", "INHERITED", "--env", "EMPTY=", "--env", "EQUALS=a=b"])
        .expect_output("INHERITED=from the host = yes\nEMPTY=\nEQUALS=a=b\n");
    run(&["--env", "ABSENT"]).expect_output("");
    run(&["--env", "=value"]).complains(2, "environment variable name \"\"");
}

#[test]
fn a_module_can_come_through_a_pipe() {
    if !kvm::usable() {
        return;
    }
    let text = fs::read(payload("args.wat")).unwrap();
    run_with_input(&mut mote(["run", "-", "x"]), &text).expect_output("-\nx\n");
    let binary = fs::read(payload("hello-rs.wasm")).unwrap();
    run_with_input(&mut mote(["run", "-"]), &binary).expect_output("Hello from Rust in a micro VM!\n");
    run_with_input(&mut mote(["run", "-"]), b"").complains(126, "standard input is empty");
    run_with_input(&mut mote(["run", "-"]), b"no module").complains(126, "standard input is not a WebAssembly module");
    run(["run", "/proc/self/fd/0"].map(Path::new)).complains(126, "is empty");
}

#[test]
fn functions_are_called_by_name() {
    if !kvm::usable() {
        return;
    }
    let call = |function: &str, arguments: &[&str]| run_payload(&["--invoke", function], "add.wat", arguments);
    call("add", &["2", "3"]).expect_output("5\n");
    call("add", &["-1", "0x10"]).expect_output("15\n");
    call("add", &["0xffffffff", "4294967295"]).expect_output("-2\n");
    call("add", &["-2147483648", "0"]).expect_output("-2147483648\n");
    call("mulf", &["1.5", "2"]).expect_output("3\n");
    call("mulf", &["-1e3", "2.5"]).expect_output("-2500\n");
    call("div", &["7", "2"]).expect_output("3\n");
    call("swap", &["1", "2"]).expect_output("2\n1\n");
    call("swap", &["-9223372036854775808", "0xffffffffffffffff"]).expect_output("-1\n-9223372036854775808\n");
    call("nop", &[]).expect_output("");
    run_payload(&["--invoke", "sched_yield"], "wild.wat", &[]).expect_output("0\n");

    call("add", &["1"]).complains(126, "`add` takes 2 arguments (i32, i32), 1 were given");
    call("nop", &["1"]).complains(126, "`nop` takes 0 arguments (), 1 were given");
    call("add", &["4294967296", "0"]).complains(126, "argument 1 of `add`: \"4294967296\" is out of range for type (i32)");
    call("add", &["0", "-2147483649"]).complains(126, "argument 2 of `add`: \"-2147483649\" is out of range");
    call("swap", &["18446744073709551616", "0"]).complains(126, "is out of range for type (i64)");
    call("add", &["1.5", "0"]).complains(126, "\"1.5\" is not a number of type (i32)");
    call("mulf", &["", "0"]).complains(126, "\"\" is not a number of type (f64)");
    call("absent", &[]).complains(126, "it exports no function `absent`");
    // An export that is no function.
    call("memory", &[]).complains(126, "it exports no function `memory`");
}

#[test]
fn functions_take_and_give_all_number_types() {
    if !kvm::usable() {
        return;
    }
    let types = "i32 i64 f32 f64 v128";
    let echo = format!(
        r#"(module (func (export "echo") (param {types}) (result {types})
        (local.get 0) (local.get 1) (local.get 2) (local.get 3) (local.get 4)))"#
    );
    let file = support::command::module_file(&echo);
    let call = |arguments: [&str; 5]| {
        let line = ["run", "--invoke", "echo"].into_iter().map(String::from).chain([file.path().display().to_string()]);
        run(line.chain(arguments.map(String::from)))
    };
    call(["-1", "-2", "-1.25", "1e20", "0xf0000000000000000000000000000001"])
        .expect_output("-1\n-2\n-1.25\n100000000000000000000\n319014718988379809496913694467282698241\n");
    call(["0", "0", "inf", "nan", "0"]).expect_output("0\n0\ninf\nNaN\n0\n");
    call(["0", "0", "-0", "-inf", "1"]).expect_output("0\n0\n-0\n-inf\n1\n");
    let takes_reference = r#"(module (func (export "f") (param externref)))"#;
    let file = support::command::module_file(takes_reference);
    run([Path::new("run"), Path::new("--invoke"), Path::new("f"), file.path(), Path::new("0")])
        .complains(126, "cannot be given on a command line");
}

#[test]
fn a_reactor_is_initialised_first() {
    if !kvm::usable() {
        return;
    }
    let reactor = r#"(module (global $ready (mut i32) (i32.const 0))
        (func (export "_initialize") (global.set $ready (i32.const 7)))
        (func (export "ready") (result i32) (global.get $ready)))"#;
    run_module(&["--invoke", "ready"], reactor).expect_output("7\n");
}

#[test]
fn hello_costs_at_most_two_exits() {
    if !kvm::usable() {
        return;
    }
    // Ticks come with time, of which a slow machine takes more.
    let without = |stats: &Value, kinds: &[&str]| {
        exits(stats) - kinds.iter().map(|kind| stats["exits"][kind].as_u64().unwrap()).sum::<u64>()
    };
    let stats = run_payload(&["--stats=json"], "hello.wat", &[]).expect(0).stats();
    assert!(without(&stats, &["signal"]) <= 2, "{stats}");
    // A module with more memory: one more for each 2 MiB of it.
    let stats = run_payload(&["--stats=json"], "hello-c.wasm", &[]).expect(0).stats();
    assert!(without(&stats, &["signal", "demand"]) <= 2, "{stats}");
}

#[test]
fn many_short_lines_are_complete_and_cheap() {
    if !kvm::usable() {
        return;
    }
    let outcome = run_payload(&["--stats=json"], "lines.wat", &[]).expect(0);
    let lines = (1..=100_000).fold(String::new(), |mut lines, number| {
        writeln!(lines, "line {number}").unwrap();
        lines
    });
    assert!(outcome.text() == lines, "lines are missing or out of order");
    assert!(exits(&outcome.stats()) < 1000, "{}", outcome.stats());
}

/// Memory is taken as it is touched: no doubling, no copies, no time that grows faster than memory.
#[test]
fn growing_costs_what_is_touched() {
    if !kvm::usable() {
        return;
    }
    const RAM_BYTES: u64 = 256 << 20;
    const SLACK_BYTES: u64 = 2 << 20;
    let pages_of = |percent: u64| (RAM_BYTES * percent / 100) >> 16;
    let grow_to = |pages: u64| {
        let stats =
            |_| run_payload(&["--memory", "256MiB", "--stats=json"], "grow-to.wat", &[&pages.to_string()]).expect(0).stats();
        // The machine may do other things as well: the quickest of three counts.
        (0..3).map(stats).min_by(|a, b| run_us(a).total_cmp(&run_us(b))).unwrap()
    };
    let [one, small, medium, large] = [1, pages_of(15), pages_of(30), pages_of(60)].map(grow_to);
    let touched = |stats: &Value| stats["ram_touched_bytes"].as_u64().unwrap() - one["ram_touched_bytes"].as_u64().unwrap();
    let demands = |stats: &Value| stats["exits"]["demand"].as_u64().unwrap();
    let bytes = pages_of(60) << 16;
    assert!(touched(&large) <= bytes + SLACK_BYTES, "{} bytes for {bytes}", touched(&large));
    for (stats, percent) in [(&small, 15), (&medium, 30), (&large, 60)] {
        // RAM comes in chunks.
        let bytes = (pages_of(percent) << 16).next_multiple_of(2 << 20);
        assert!(touched(stats) <= bytes + SLACK_BYTES, "{percent} %: {} bytes for {bytes}", touched(stats));
        // One for each 2 MiB, and a few for what the engine needs. What compiled code may not touch yet must not be mapped, so it
        // is one for each page by which it grows.
        let units = by_engine(bytes.div_ceil(2 << 20), pages_of(percent));
        assert!(demands(stats) <= units + 2, "{percent} %: {} exits", demands(stats));
    }
    // Proportional would be four times; copying everything at each growth would take minutes. Hosts that have to find memory
    // first take a second now and then.
    let bound_us = 12.0 * run_us(&small) + 10_000_000.0;
    assert!(run_us(&large) < bound_us, "{} µs for 60 %, {} µs for 15 %", run_us(&large), run_us(&small));
}

/// Nearly all RAM can become linear memory.
#[test]
fn memory_grows_to_the_limit() {
    if !kvm::usable() {
        return;
    }
    let outcome = run_payload(&[], "grow.wat", &[]).expect(0);
    let pages: u32 = outcome.text().trim_end().parse().unwrap();
    assert!((14_000..16_384).contains(&pages), "{pages} pages in 1 GiB");
}

#[test]
fn memory_that_nothing_touches_is_not_taken() {
    if !kvm::usable() {
        return;
    }
    let stats = run_module(&["--stats=json"], r#"(module (memory 4096) (func (export "_start")))"#).expect(0).stats();
    let touched = stats["ram_touched_bytes"].as_u64().unwrap();
    assert!(touched < 16 << 20, "{touched} bytes of RAM for 256 MiB that nothing uses");
}

fn exits(stats: &Value) -> u64 {
    stats["exits_total"].as_u64().unwrap()
}

fn run_us(stats: &Value) -> f64 {
    stats["phases_us"]["run"].as_f64().unwrap()
}
