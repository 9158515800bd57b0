//! The kernel in QEMU by PVH, without `mote qemu` around it: what a loader and a machine can be like, and what the serial line then
//! shows, as a whole.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    command::{self, module_file},
    qemu,
};

/// Longer than any of these machines takes.
const LIMIT: Duration = Duration::from_secs(60);
/// The status of QEMU if its debug exit was told this one.
const fn debug_exit(status: i32) -> i32 {
    status << 1 & 0xff | 1
}

/// The kernel as a file.
fn kernel() -> &'static Path {
    static KEPT: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, kernel) = KEPT.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let keep = directory.path().join("kept");
        let options = ["--dry-run", "--keep", keep.to_str().unwrap()];
        command::run(qemu::payload_line(&options, "hello.wat", &[])).expect(0);
        let kernel = keep.join("kernel");
        (directory, kernel)
    });
    kernel
}

/// A machine with this boot module and command line, and more arguments for QEMU.
struct Machine<'a> {
    module: Option<&'a Path>,
    words: &'a str,
    arguments: &'a [&'a str],
}

impl Machine<'_> {
    fn command(&self) -> Command {
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-accel", "tcg", "-display", "none", "-nodefaults", "-no-reboot", "-serial", "stdio"]);
        command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-append", self.words]).arg("-kernel").arg(kernel());
        if let Some(module) = self.module {
            command.arg("-initrd").arg(module);
        }
        if !self.arguments.contains(&"-cpu") {
            command.args(["-cpu", "max"]);
        }
        command.args(self.arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs it to its end: the status of QEMU, and what came through the serial line.
    #[track_caller]
    fn run(&self) -> (i32, String) {
        let mut child = self.command().spawn().unwrap();
        let started = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if started.elapsed() > LIMIT {
                child.kill().unwrap();
                panic!("{} hangs: {:?}", self.words, child.wait_with_output());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "QEMU complains");
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    }
}

/// A module in binary format, which is what a kernel takes.
fn binary(name: &str) -> tempfile::NamedTempFile {
    module_file(wat::parse_file(command::payload(name)).unwrap())
}

#[track_caller]
fn boots(module: &str, words: &str, arguments: &[&str], status: i32, serial: &str) {
    let module = binary(module);
    let machine = Machine { module: Some(module.path()), words, arguments };
    assert_eq!(machine.run(), (status, serial.to_string()), "{words} {arguments:?}");
}

const HELLO: &str = "Hello from a micro VM!\n";

#[test]
fn memory_is_what_the_machine_has() {
    if !qemu::usable() {
        return;
    }
    for megabytes in ["64", "6144"] {
        boots("hello.wat", "exit=debug", &["-m", megabytes], debug_exit(0), HELLO);
    }
}

/// More than lies below 4 GiB, where devices have a gigabyte.
#[test]
fn memory_above_4_gib_is_used() {
    if !qemu::usable() {
        return;
    }
    let touches = r#"(module (memory 57344) (func (export "_start") (local $at i32)
        (loop $next
            (i32.store (local.get $at) (i32.const 1))
            (local.set $at (i32.add (local.get $at) (i32.const 2097152)))
            (br_if $next (i32.ne (local.get $at) (i32.const -536870912))))))"#;
    let module = module_file(wat::parse_str(touches).unwrap());
    let run = |megabytes: &str| Machine { module: Some(module.path()), words: "exit=debug", arguments: &["-m", megabytes] }.run();
    assert_eq!(run("6144"), (debug_exit(0), String::new()));
    let (status, serial) = run("3072");
    assert_eq!(status, debug_exit(126), "{serial}");
    assert!(serial.starts_with("mote: the module cannot be run: ") && serial.ends_with('\n'), "{serial}");
}

#[test]
fn what_does_not_fit_is_told_with_both_sizes() {
    if !qemu::usable() {
        return;
    }
    // The loader has no place for it but that of the kernel.
    let mut module = b"\0asm".to_vec();
    module.resize(40 << 20, 0);
    let module = module_file(module);
    let machine = Machine { module: Some(module.path()), words: "exit=debug", arguments: &["-m", "64"] };
    let text = "mote: the loader put a boot module of 40960 KiB where the kernel has to be, from 16384 to 31744 KiB: of 65020 KiB of memory \
                there may be no other place for it\n";
    assert_eq!(machine.run(), (debug_exit(125), text.into()));
}

#[test]
fn what_a_processor_lacks_is_told() {
    if !qemu::usable() {
        return;
    }
    for (model, words, status, serial) in [
        (
            "qemu64,-nx",
            "",
            125,
            "mote: this processor lacks NX, which keeps data from being executed; perhaps firmware switched it off\n",
        ),
        (
            "max,-rdrand,-rdseed",
            "",
            125,
            "mote: this processor gives no random numbers (RDSEED, RDRAND), and programs rely on them; random=weak on the command \
             line takes guessable ones\n",
        ),
        (
            "max,-rdrand,-rdseed",
            "random=weak",
            0,
            "mote: warning: random numbers are weak, as random=weak allows on this processor\nHello from a micro VM!\n",
        ),
        ("max,-rdseed", "", 0, HELLO),
        ("max,-sse2", "", 125, "mote: this processor lacks SSE2 or FXSAVE, which mote needs\r\n"),
        ("qemu32", "", 125, "mote: this processor has no 64-bit mode: mote needs x86-64\r\n"),
    ] {
        let words = format!("exit=debug {words}");
        boots("hello.wat", &words, &["-cpu", model], debug_exit(status), serial);
    }
}

#[test]
fn what_is_missing_or_wrong_is_told() {
    if !qemu::usable() {
        return;
    }
    let run = |module: Option<&Path>, words| Machine { module, words, arguments: &[] }.run();
    let no_module = "mote: there is no module: the loader has to give one as a boot module (QEMU: -initrd; GRUB: module2), alone or in a \
                     bundle\n";
    assert_eq!(run(None, "exit=debug"), (debug_exit(125), no_module.into()));
    let wrong = module_file("neither");
    let not_a_module = "mote: the boot module that is to be run is neither WebAssembly nor a compiled module\n";
    assert_eq!(run(Some(wrong.path()), "exit=debug"), (debug_exit(125), not_a_module.into()));
    let hello = binary("hello.wat");
    let bad_word = "mote: command line: `console=x` is not `com1` to `com4`, a port as 0x3f8, or `none`, perhaps with `,BAUD`\n";
    assert_eq!(run(Some(hello.path()), "exit=debug console=x"), (debug_exit(125), bad_word.into()));
    let invalid = module_file(*b"\0asm\x07\0\0\0");
    let (status, serial) = run(Some(invalid.path()), "exit=debug");
    assert_eq!(status, debug_exit(126));
    assert!(serial.starts_with("mote: the module is not valid: ") && serial.ends_with('\n'), "{serial}");
}

#[test]
fn each_kind_of_end_ends_the_machine() {
    if !qemu::usable() {
        return;
    }
    // Off, by ACPI of both kinds of machine, and reset, which QEMU takes as its end.
    for machine in ["pc", "q35"] {
        boots("hello.wat", "exit=poweroff", &["-machine", machine], 0, HELLO);
        boots("hello.wat", "exit=reboot delay=0", &["-machine", machine], 0, HELLO);
    }
    let ended = format!("{HELLO}mote: the program ended with status 42\n");
    boots("exit.wat", "exit=debug", &[], debug_exit(42), &ended["Hello from a micro VM!\n".len()..]);
    let trap = "printed before the trap\nmote: wasm trap: unreachable, in a call of `_start`\n";
    boots("trap-after-print.wat", "exit=debug", &[], debug_exit(134), trap);
}

/// What the serial line shows of a machine that does not end by itself, after so long: whole lines.
fn shows(module: &Path, words: &str, arguments: &[&str], after: Duration) -> String {
    let mut child = Machine { module: Some(module), words, arguments }.command().spawn().unwrap();
    std::thread::sleep(after);
    assert!(child.try_wait().unwrap().is_none(), "{words}: it ended");
    child.kill().unwrap();
    let mut text = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    text.truncate(text.rfind('\n').map_or(0, |at| at + 1));
    text
}

/// Prints how often it ran, by its memory and by its global, then a long line; and leaves as much as it can behind.
const COUNTS: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
    (memory (export "memory") 2)
    (global $runs (mut i32) (i32.const 48))
    (data (i32.const 0) "\10\00\00\00\03\00\00\00" "\00\80\00\00\b8\0b\00\00")
    (data (i32.const 16) "00\n")
    (func $print (param $iovec i32) (param $count i32)
        (if (call $write (i32.const 1) (local.get $iovec) (local.get $count) (i32.const 64)) (then (unreachable))))
    (func $deep (param $depth i32) (result i32)
        (if (result i32) (i32.eqz (local.get $depth))
            (then (i32.const 0))
            (else (i32.add (i32.const -1) (call $deep (i32.sub (local.get $depth) (i32.const 1)))))))
    (func (export "_start")
        (if (i32.ne (memory.size) (i32.const 2)) (then (unreachable)))
        (if (i32.load (i32.const 40000)) (then (unreachable)))
        (i32.store8 (i32.const 16) (i32.add (i32.load8_u (i32.const 16)) (i32.const 1)))
        (global.set $runs (i32.add (global.get $runs) (i32.const 1)))
        (i32.store8 (i32.const 17) (global.get $runs))
        (call $print (i32.const 0) (i32.const 1))
        (memory.fill (i32.const 32768) (i32.const 120) (i32.const 2999))
        (i32.store8 (i32.const 35767) (i32.const 10))
        (call $print (i32.const 8) (i32.const 1))
        (drop (call $deep (i32.const 10000)))
        (drop (memory.grow (i32.const 20)))
        (memory.fill (i32.const 36000) (i32.const 255) (i32.const 1400000))))"#;

#[test]
fn a_module_runs_again_and_again() {
    if !qemu::usable() {
        return;
    }
    // Each time from the start: memory and data are what they were.
    let module = module_file(wat::parse_str(COUNTS).unwrap());
    let text = shows(module.path(), "exit=restart delay=0", &[], Duration::from_secs(4));
    let (short, long) = ("11\n", format!("{}\n", "x".repeat(2999)));
    let runs = text.matches(&long).count();
    let whole = format!("{short}{long}").repeat(runs);
    assert!(runs > 3 && text.strip_prefix(&whole).is_some_and(|rest| rest.is_empty() || rest == short), "{runs} runs");
    // Failures are further and further apart: at 0, 1, 3 and 7 seconds.
    let line = "mote: wasm trap: out of bounds memory access, in a call of `_start`\n";
    let text = shows(binary("oob.wat").path(), "exit=restart delay=1", &[], Duration::from_secs(6));
    let runs = text.matches(line).count();
    assert!((2..=3).contains(&runs) && text == line.repeat(runs), "{text}");
    assert_eq!(shows(binary("hello.wat").path(), "exit=halt", &[], Duration::from_secs(2)), HELLO);
}

#[test]
fn a_watchdog_resets_a_machine_that_is_silent() {
    if !qemu::usable() {
        return;
    }
    let watchdog = ["-device", "ib700", "-action", "watchdog=poweroff"];
    boots("print-then-spin.wat", "exit=debug watchdog=ib700,2", &watchdog, 0, "before the loop\n");
    // One that only waits is heard of.
    let text = shows(binary("hello.wat").path(), "exit=restart delay=60 watchdog=ib700,2", &watchdog, Duration::from_secs(5));
    assert_eq!(text, HELLO);
}

/// A person types: what is deleted is gone, lines end as terminals want, Ctrl-D ends.
#[test]
fn a_terminal_edits_lines() {
    if !qemu::usable() {
        return;
    }
    let module = module_file(wat::parse_str(PROMPTS).unwrap());
    let mut command = Machine { module: Some(module.path()), words: "exit=debug terminal", arguments: &[] }.command();
    let child = command.stdin(Stdio::piped()).spawn().unwrap();
    let (mut child, watched) = limited(child);
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    // What is sent before the line is set up is lost.
    let mut prompt = [0; 2];
    output.read_exact(&mut prompt).unwrap();
    assert_eq!(&prompt, b"> ");
    input.write_all(b"ab\x7fc\rnext\r\x04").unwrap();
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(debug_exit(0)));
    assert_eq!(text, "ab\x08 \x08c\r\nac\r\nnext\r\nnext\r\n");
    drop(watched);
}

/// Says that it is there, then copies what is typed.
const PROMPTS: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "\00\04\00\00\02\00\00\00")
    (data (i32.const 1024) "> ")
    (func (export "_start")
        (loop $next
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
            (i32.store (i32.const 4) (i32.const 1000))
            (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
            (i32.store (i32.const 4) (i32.load (i32.const 8)))
            (br_if $next (i32.load (i32.const 4))))))"#;

/// A process that is killed if it takes too long, unless the second value is gone by then.
fn limited(child: Child) -> (Child, Sender<()>) {
    let (sender, gone) = channel();
    let pid = Pid::from_child(&child);
    thread::spawn(move || {
        if gone.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
            kill_process(pid, Signal::KILL).unwrap();
        }
    });
    (child, sender)
}

/// What happened to a machine, by QEMU's own account: events, and what it logs of resets.
fn events(module: &str, words: &str, arguments: &[&str]) -> (i32, Vec<Value>) {
    let directory = tempfile::tempdir().unwrap();
    let (socket, log) = (directory.path().join("qmp"), directory.path().join("log"));
    let listener = UnixListener::bind(&socket).unwrap();
    let module = binary(module);
    let mut command = Machine { module: Some(module.path()), words, arguments }.command();
    command.args(["-S", "-d", "cpu_reset", "-D", log.to_str().unwrap(), "-qmp"]).arg(format!("unix:{}", socket.display()));
    let (mut child, watched) = limited(command.spawn().unwrap());
    let mut connection = listener.accept().unwrap().0;
    connection.write_all(b"{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"cont\"}\n").unwrap();
    let lines = BufReader::new(connection).lines().map_while(Result::ok);
    let events = lines.map(|line| serde_json::from_str(&line).unwrap()).collect();
    let status = child.wait().unwrap().code().unwrap();
    drop(watched);
    let log = fs::read_to_string(log).unwrap_or_default();
    assert!(!log.contains("Triple fault"), "{words}");
    (status, events)
}

/// The one event of this name.
#[track_caller]
fn only<'a>(events: &'a [Value], name: &str) -> &'a Value {
    let found: Vec<_> = events.iter().filter(|event| event["event"] == name).collect();
    assert_eq!(found.len(), 1, "{name}: {events:?}");
    &found[0]["data"]
}

/// QEMU's status is 0 for each, and for a processor that gave up as well.
#[test]
fn a_machine_is_switched_off_or_reset_as_it_should_be() {
    if !qemu::usable() {
        return;
    }
    let watchdog = ["-device", "ib700", "-action", "watchdog=poweroff"];
    for machine in ["pc", "q35"] {
        for (words, reason) in [("exit=poweroff", "guest-shutdown"), ("exit=reboot delay=0", "guest-reset")] {
            let (status, events) = events("hello.wat", words, &["-machine", machine]);
            assert_eq!((status, &only(&events, "SHUTDOWN")["reason"]), (0, &reason.into()), "{machine}");
        }
    }
    let (_, events) = events("print-then-spin.wat", "watchdog=ib700,2", &watchdog);
    assert_eq!(only(&events, "WATCHDOG")["action"], "poweroff");
}

/// As well as one that runs something: a machine that waits for nothing is off.
#[test]
fn a_bad_word_switches_the_machine_off() {
    if !qemu::usable() {
        return;
    }
    let module = binary("hello.wat");
    let (status, serial) = Machine { module: Some(module.path()), words: "bogus", arguments: &[] }.run();
    assert!(status == 0 && serial.starts_with("mote: command line: `bogus` is no option"), "{serial}");
    let (_, events) = events("hello.wat", "bogus", &[]);
    assert_eq!(only(&events, "SHUTDOWN")["reason"], "guest-shutdown");
}

/// A bundle that any tar makes: nothing in it begins on a page.
#[test]
fn a_bundle_without_padding_is_taken() {
    if !qemu::usable() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("module"), wat::parse_file(command::payload("args.wat")).unwrap()).unwrap();
    fs::write(path("cmdline"), "exit=debug argv0=name -- \"a b\"").unwrap();
    let mut archive = tar::Builder::new(fs::File::create(path("bundle")).unwrap());
    for name in ["module", "cmdline"] {
        archive.append_path_with_name(path(name), name).unwrap();
    }
    archive.finish().unwrap();
    let bundle = path("bundle");
    let machine = Machine { module: Some(&bundle), words: "-- c", arguments: &[] };
    assert_eq!(machine.run(), (debug_exit(0), "name\na b\nc\n".into()));
}
