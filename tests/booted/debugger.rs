//! A debugger can be attached, and the script for it works as far as it does without symbols.

use std::{
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    command::{LIMIT, finish, mote},
    qemu,
};

#[test]
fn the_machine_waits_for_a_debugger_and_ends_as_without() {
    if !qemu::debugger_usable() {
        return;
    }
    // Below those that are given to whoever asks for any; free now, and another one for another test run.
    let mut ports = (0..1000).map(|number| 10_000 + (std::process::id() + number) % 20_000);
    let is_free = |port: &u32| TcpListener::bind(format!("127.0.0.1:{port}")).is_ok();
    let port = ports.find(is_free).expect("no port is free");
    let address = format!("127.0.0.1:{port}");
    let child = mote(qemu::payload_line(&["--timeout", "50s", &format!("--gdb={address}")], "exit.wat", &[])).spawn().unwrap();

    // The kernel that is built in has no symbols, but an address where it begins in ring 3.
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/mote.gdb");
    let commands = [&format!("mote-connect {address}"), "break *0x1000000", "continue", "wasm-break", "info registers cs"];
    let debug = || {
        let mut gdb = Command::new("gdb");
        gdb.args(["-nx", "-q", "-batch", "-x"]).arg(&script);
        for command in commands {
            gdb.args(["-ex", command]);
        }
        gdb.stdin(Stdio::null()).output().unwrap()
    };
    let started = Instant::now();
    let said = loop {
        let output = debug();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        if !said.contains("could not connect") && !said.contains("Connection refused") {
            break said;
        }
        assert!(started.elapsed() < LIMIT, "{said}");
        thread::sleep(Duration::from_millis(50));
    };
    assert!(said.contains("Breakpoint 1, 0x0000000001000000 in ?? ()"), "{said}");
    let segment = said.lines().find(|line| line.starts_with("cs ")).and_then(|line| line.split_whitespace().nth(2));
    // Ring 3: its lowest bits.
    assert_eq!(segment.and_then(|number| number.parse::<u16>().ok()).map(|selector| selector & 3), Some(3), "{said}");
    assert!(!said.contains("Python Exception") && !said.contains("Traceback"), "{said}");

    let outcome = finish(child).expect(42);
    assert_eq!(outcome.text(), "");
    assert!(
        outcome.stderr.starts_with("mote: the machine waits for a debugger when it has started: gdb -x scripts/mote.gdb "),
        "{outcome:?}"
    );
    assert_eq!(outcome.stderr.lines().count(), 1);
}
