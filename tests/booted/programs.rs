//! What a program is given, and what comes of it, is the same as under the VMM.

use std::process::{Command, Stdio};

use crate::support::{
    command::{self, Outcome, finish, mote, payload, run_with_input},
    engine::cache_home,
    kvm, qemu,
};

/// Ends with this status.
fn exit(status: u32) -> String {
    format!(
        r#"(module
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 1)
            (func (export "_start") (call $exit (i32.const {status}))))"#
    )
}

#[test]
fn the_exit_status_is_the_programs() {
    if !qemu::usable() {
        return;
    }
    for status in [0, 1, 127, 134, 137, 255] {
        let outcome = qemu::run_module(&[], exit(status)).expect(status.try_into().unwrap());
        assert_eq!((outcome.text(), outcome.stderr.as_str()), ("", ""), "{status}");
        if kvm::usable() {
            assert_eq!(command::run_module(&[], exit(status)).status, outcome.status);
        }
    }
}

/// The same by `mote run`, and by `mote qemu`; `None` if one of them cannot be.
#[track_caller]
fn both(options: &[&str], name: &str, arguments: &[&str]) -> Option<(Outcome, Outcome)> {
    let usable = qemu::usable() && kvm::usable();
    usable.then(|| (command::run_payload(options, name, arguments), qemu::run_payload(options, name, arguments)))
}

#[test]
fn arguments_and_environment_come_whole() {
    let words = ["one", "", "two words", r#"a "quoted" \ one"#, "--", "-x", "ä€𝄞", "tab\there", "line\nbreak", "a=b"];
    if let Some((expected, outcome)) = both(&["--argv0", "the \"name\""], "args.wat", &words) {
        outcome.expect_output(expected.expect(0).text());
    }
    let variables = ["--env", "PLAIN=1", "--env", r#"ODD= "x" \ = y"#, "--env", "EMPTY=", "--env", "Ü=ß"];
    if let Some((expected, outcome)) = both(&variables, "env.wat", &[]) {
        outcome.expect_output(expected.expect(0).text());
    }
}

/// They do not fit where QEMU's loader has room for a command line.
#[test]
fn many_arguments_come_whole() {
    let words: Vec<String> = (0..2000).map(|number| format!("argument {number}")).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if let Some((expected, outcome)) = both(&[], "args.wat", &words) {
        outcome.expect_output(expected.expect(0).text());
    }
}

#[test]
fn standard_input_comes_whole_and_has_an_end() {
    if !qemu::usable() {
        return;
    }
    // All bytes that there are, and more than a line's buffers hold.
    let input: Vec<u8> = (0..=u8::MAX).cycle().map(|byte| byte.wrapping_mul(7)).take(20_000).collect();
    let outcome = run_with_input(&mut mote(qemu::payload_line(&[], "cat.wat", &[])), &input).expect(0);
    assert_eq!(outcome.stderr, "");
    assert!(outcome.stdout == input, "{} bytes of {} came back", outcome.stdout.len(), input.len());
    qemu::run_payload(&[], "cat.wat", &[]).expect_output("");
    // A module may come that way, too.
    let module = std::fs::read(payload("hello.wat")).unwrap();
    let outcome = run_with_input(&mut mote(["qemu", "-"]), &module);
    outcome.expect_output("Hello from a micro VM!\n");
}

/// Not what is only a default, and not an option that says the same of something else.
#[test]
fn words_of_the_command_line_count() {
    if !qemu::usable() {
        return;
    }
    qemu::run_payload(&["--cmdline", "argv0=given"], "args.wat", &["x"]).expect_output("given\nx\n");
    qemu::run_payload(&["--argv0", "option"], "args.wat", &[]).expect_output("option\n");
    qemu::run_payload(&["--argv0", "option", "--cmdline", "argv0=word"], "args.wat", &[]).expect_output("word\n");
    qemu::run_payload(&["--fuel", "1000000000", "--cmdline", "fuel=1000"], "spin.wat", &[]).complains(134, "fuel");
    let logged = qemu::run_payload(&["--cmdline", "log=trace"], "hello.wat", &[]).expect(0);
    assert!(logged.text().len() > "Hello from a micro VM!\n".len(), "{logged:?}");
}

#[test]
fn traps_are_told_in_the_same_words() {
    for (options, name) in [(&[][..], "trap-after-print.wat"), (&["--fuel", "1000"], "spin.wat"), (&[], "unknown-import.wat")] {
        if let Some((expected, outcome)) = both(options, name, &[]) {
            assert_eq!(outcome.status, expected.status, "{outcome:?}");
            assert_eq!((outcome.text(), &outcome.stderr), (expected.text(), &expected.stderr));
        }
    }
}

#[test]
fn functions_are_called_and_costs_are_told() {
    if !qemu::usable() {
        return;
    }
    let outcome = qemu::run_payload(&["--invoke", "add", "--fuel", "1000", "--stats=json"], "add.wat", &["2", "-3"]).expect(0);
    assert_eq!(outcome.text(), "-1\n");
    let stats = outcome.stats();
    assert!(stats["fuel_used"].as_u64().is_some_and(|fuel| (1..1000).contains(&fuel)), "{stats}");
    assert_eq!((&stats["exit_status"], &stats["engine"]), (&0.into(), &"interpreter".into()));
    let phases: Vec<_> = stats["phases_ticks"].as_object().unwrap().keys().collect();
    assert_eq!(phases, ["clock", "enter_kernel", "instantiate", "load", "long_mode", "parse", "run", "tables"]);
}

/// What both are for: the one says what the other does where there is no KVM.
#[test]
fn it_runs_where_there_is_no_kvm() {
    if !qemu::usable() {
        return;
    }
    // An almost empty directory as /dev, which takes the rights to make one.
    let script = "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/urandom c 1 9 && exec \"$@\"";
    let without_kvm = |subcommand: &str| {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_mote"), subcommand]).arg(payload("hello.wat"));
        command.env("XDG_CACHE_HOME", cache_home()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        finish(command.spawn().expect("there is no unshare"))
    };
    let outcome = without_kvm("run");
    if outcome.stderr.contains("Operation not permitted") {
        println!("skipped: {}", outcome.stderr);
        return;
    }
    outcome.complains(125, "there is no /dev/kvm").complains(125, "`mote qemu` runs modules without KVM");
    without_kvm("qemu").expect_output("Hello from a micro VM!\n");
}

#[cfg(feature = "compiled")]
#[test]
fn compiled_code_runs_and_traps() {
    if !qemu::usable() {
        return;
    }
    let aot = ["--engine", "aot"];
    qemu::run_payload(&aot, "hello.wat", &[]).expect_output("Hello from a micro VM!\n");
    let trapped = qemu::run_payload(&aot, "oob.wat", &[]).expect(134);
    assert!(trapped.stderr.contains("wasm trap: out of bounds memory access"), "{trapped:?}");
    assert!(trapped.stderr.contains("\n    at "), "no backtrace: {trapped:?}");
}
