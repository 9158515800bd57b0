//! GDB itself, in batch mode. Skipped where it is missing, or a failure where `MOTE_REQUIRE_GDB` is set.

use std::{
    io::{Read, Write},
    process::{Child, Command, Stdio},
    thread,
};

use mote_abi::layout::{IMAGE, STACK};
use rustix::process::Signal;

use super::client::Waiting;
use crate::support::command::{Outcome, finish, kill};

const REQUIRE: &str = "MOTE_REQUIRE_GDB";

fn is_here() -> bool {
    if Command::new("gdb").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return true;
    }
    assert!(std::env::var_os(REQUIRE).is_none(), "{REQUIRE} is set, but there is no gdb");
    let thread = thread::current();
    let _written = writeln!(std::io::stderr(), "skipped {}: there is no gdb", thread.name().unwrap_or("a test"));
    false
}

/// What GDB says to these commands, and how `mote` ended.
#[track_caller]
fn debug(options: &[&str], payload: &str, commands: &[&str]) -> Option<(String, Outcome)> {
    debug_and(options, payload, commands, |_gdb, _mote| {})
}

#[track_caller]
fn debug_and(
    options: &[&str],
    payload: &str,
    commands: &[&str],
    meanwhile: impl FnOnce(&Child, &mut Child),
) -> Option<(String, Outcome)> {
    if !is_here() {
        return None;
    }
    let mut waiting = Waiting::start(options, payload)?;
    let mut gdb = Command::new("gdb");
    gdb.args(["--batch", "-nx", "-ex", "set confirm off"]).arg("-ex").arg(format!("target remote {}", waiting.socket.display()));
    for command in commands {
        gdb.args(["-ex", command]);
    }
    let gdb = gdb.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    meanwhile(&gdb, &mut waiting.process);
    let said = finish(gdb);
    Some((said.text().to_owned() + &said.stderr, finish(waiting.process)))
}

#[test]
fn breakpoints_registers_memory_and_steps() {
    let break_there = format!("break *{:#x}", IMAGE.start + 2);
    let commands = [
        "info registers rip rsp",
        "x/i $pc",
        &break_there,
        "continue",
        "stepi",
        "stepi",
        "delete",
        "set $r15 = 77",
        "print $r15",
        "x/2xb 0",
        "continue",
    ];
    let Some((said, mote)) = debug(&[], "hello.wat", &commands) else { return };
    mote.expect(0);
    for expected in [
        format!("rip            {:#x}", IMAGE.start),
        format!("rsp            {:#x}", STACK.end),
        "fninit".into(),
        format!("Breakpoint 1, {:#018x}", IMAGE.start + 2),
        "$1 = 77".into(),
        "Cannot access memory at address 0x0".into(),
    ] {
        assert!(said.contains(&expected), "{expected} is not in {said}");
    }
}

#[test]
fn statuses() {
    for (payload, status, told) in [
        ("hello.wat", 0, "exited normally"),
        ("exit.wat", 42, "exited with code 052"),
        ("unreachable.wat", 134, "exited with code 0206"),
    ] {
        let Some((said, mote)) = debug(&["--confinement", "required"], payload, &["continue"]) else { return };
        mote.expect(status);
        assert!(said.contains(told), "{said}");
    }
}

#[test]
fn interrupt_and_kill() {
    let interrupt = |gdb: &Child, mote: &mut Child| {
        // What it prints shows that the guest goes on, and that GDB waits for it.
        mote.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        kill(gdb, Signal::INT);
    };
    let commands = ["continue", "info registers rip", "kill"];
    let Some((said, mote)) = debug_and(&[], "print-then-spin.wat", &commands, interrupt) else { return };
    assert!(said.contains("SIGINT") && said.contains("rip "), "{said}");
    assert!(mote.expect(137).stderr.contains("killed by the debugger"));
}

/// As GDB does at its own end, too.
#[test]
fn detach() {
    let break_there = format!("break *{:#x}", IMAGE.start + 2);
    for commands in [&["stepi", "detach"][..], &[&break_there]] {
        let Some((said, mote)) = debug(&[], "exit.wat", commands) else { return };
        assert!(said.contains("detached") || commands.len() == 1, "{said}");
        mote.expect(42);
    }
}

/// It is not left to GDB's single steps, which would take for ever.
#[test]
fn watchpoints() {
    let watch = format!("watch *(long *) {:#x}", STACK.end - 16);
    let Some((said, mote)) = debug(&[], "hello.wat", &[&watch, "continue", "delete", "continue"]) else { return };
    mote.expect(0);
    assert!(said.contains("Hardware watchpoint 1"), "{said}");
    assert!(said.contains("Could not insert hardware watchpoint 1") || said.contains("Old value"), "{said}");
}
