//! What a program finds in its world: arguments, environment, streams, clocks, random numbers.

use std::{
    io::{Read, Write},
    sync::{Arc, Mutex, mpsc},
    time::{SystemTime, UNIX_EPOCH},
};

use mote_vmm::{CallError, ClockSource, Input, Output, Sandbox, SandboxBuilder, SharedBuffer};

use super::guests::{ECHO, builder};
use crate::support::kvm;

const WORLD: &str = r#"(module
    (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_get" (func $environ (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_time_get" (func $time (param i32 i64 i32) (result i32)))
    (memory (export "memory") 4)
    (func (export "args") (result i32 i32)
        (drop (call $args_sizes (i32.const 0) (i32.const 4)))
        (drop (call $args (i32.const 1024) (i32.const 65536)))
        (i32.load (i32.const 0)) (i32.load (i32.const 4)))
    (func (export "environ") (result i32 i32)
        (drop (call $environ_sizes (i32.const 0) (i32.const 4)))
        (drop (call $environ (i32.const 1024) (i32.const 65536)))
        (i32.load (i32.const 0)) (i32.load (i32.const 4)))
    (func (export "random") (result i64 i64)
        (drop (call $random (i32.const 0) (i32.const 16)))
        (i64.load (i32.const 0)) (i64.load (i32.const 8)))
    (func (export "time") (param i32) (result i64)
        (drop (call $time (local.get 0) (i64.const 1) (i32.const 0)))
        (i64.load (i32.const 0))))"#;

const REALTIME: i32 = 0;
const MONOTONIC: i32 = 1;

/// The strings that `function` finds.
fn strings(sandbox: &mut Sandbox, function: &str) -> Vec<String> {
    let (count, bytes): (u32, u32) = sandbox.call(function, ()).unwrap();
    let mut text = vec![0; bytes as usize];
    sandbox.read_memory(65536, &mut text).unwrap();
    let strings: Vec<_> = String::from_utf8(text).unwrap().split_terminator('\0').map(str::to_owned).collect();
    assert_eq!(strings.len(), count as usize);
    strings
}

fn random(sandbox: &mut Sandbox) -> (i64, i64) {
    sandbox.call("random", ()).unwrap()
}

fn time(sandbox: &mut Sandbox, clock: i32) -> i64 {
    sandbox.call("time", clock).unwrap()
}

#[test]
fn arguments_and_environment_are_as_given() {
    if !kvm::usable() {
        return;
    }
    let arguments = ["program", "", "with space", "ünï🦀"];
    let mut sandbox = builder(WORLD).args(arguments).env("A", "1").env("EMPTY", "").env("B", "x=y").build().unwrap();
    assert_eq!(strings(&mut sandbox, "args"), arguments);
    assert_eq!(strings(&mut sandbox, "environ"), ["A=1", "EMPTY=", "B=x=y"]);
    let snapshot = sandbox.snapshot().unwrap();
    let mut copy = Sandbox::from_snapshot(&snapshot).unwrap();
    assert_eq!(strings(&mut copy, "args"), arguments);
    let mut nothing = builder(WORLD).build().unwrap();
    assert!(strings(&mut nothing, "args").is_empty() && strings(&mut nothing, "environ").is_empty());
    assert!(builder(WORLD).args(["a\0b"]).build().is_err());
    assert!(builder(WORLD).env("A=B", "").build().is_err());
}

#[test]
fn input_comes_from_where_it_should() {
    if !kvm::usable() {
        return;
    }
    let echoes = |input: Input| {
        let stdout = SharedBuffer::new(1 << 20);
        let mut sandbox = builder(ECHO).stdin(input).stdout(Output::Buffer(stdout.clone())).build().unwrap();
        assert_eq!(sandbox.start().unwrap(), 3);
        String::from_utf8(stdout.contents()).unwrap()
    };
    assert_eq!(echoes(Input::Empty), "ready\n");
    let long = "0123456789".repeat(20_000);
    assert_eq!(echoes(Input::Bytes(long.clone().into())), format!("ready\n{long}"));
    let mut parts = ["one ", "two ", "three"].into_iter();
    let callback = Input::callback(move |buffer| match parts.next() {
        Some(part) => {
            buffer[..part.len()].copy_from_slice(part.as_bytes());
            Ok(part.len())
        }
        None => Ok(0),
    });
    assert_eq!(echoes(callback), "ready\none two three");
    let (reader, mut writer) = std::io::pipe().unwrap();
    let feeder = std::thread::spawn(move || writer.write_all(b"from a pipe"));
    assert_eq!(echoes(Input::Fd(reader.into())), "ready\nfrom a pipe");
    feeder.join().unwrap().unwrap();
}

#[test]
fn output_goes_where_it_should() {
    if !kvm::usable() {
        return;
    }
    let run = |stdout: Output| {
        let mut sandbox = builder(ECHO).stdin(Input::Bytes(b"text".to_vec())).stdout(stdout).build().unwrap();
        sandbox.start()
    };
    assert_eq!(run(Output::Null).unwrap(), 3);
    let (sender, receiver) = mpsc::channel();
    let callback = Output::callback(move |bytes| {
        sender.send(bytes.to_vec()).unwrap();
        Ok(())
    });
    assert_eq!(run(callback).unwrap(), 3);
    assert_eq!(receiver.into_iter().flatten().collect::<Vec<_>>(), b"ready\ntext");
    let (mut reader, writer) = std::io::pipe().unwrap();
    assert_eq!(run(Output::Fd(writer.into())).unwrap(), 3);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "ready\ntext");
    // A reader that fails ends the call as a failure of the host.
    let error = run(Output::callback(|_| Err(std::io::Error::other("no room")))).unwrap_err();
    assert!(matches!(&error, CallError::HostFailure(why) if why.to_string().contains("no room")), "{error}");
}

#[test]
fn streams_can_be_changed_between_calls() {
    if !kvm::usable() {
        return;
    }
    let text = r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "\10\00\00\00\02\00\00\00") (data (i32.const 16) "hi")
        (func (export "print") (param i32) (drop (call $write (local.get 0) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;
    let [first, second, errors] = [(); 3].map(|()| SharedBuffer::new(100));
    let mut sandbox = builder(text).stdout(Output::Buffer(first.clone())).build().unwrap();
    sandbox.call::<_, ()>("print", 1).unwrap();
    sandbox.set_stdout(Output::Buffer(second.clone()));
    sandbox.set_stderr(Output::Buffer(errors.clone()));
    sandbox.call::<_, ()>("print", 1).unwrap();
    sandbox.call::<_, ()>("print", 1).unwrap();
    sandbox.call::<_, ()>("print", 2).unwrap();
    let contents = [first, second, errors].map(|buffer| String::from_utf8(buffer.contents()).unwrap());
    assert_eq!(contents, ["hi", "hihi", "hi"]);
}

fn fixed() -> SandboxBuilder {
    builder(WORLD).random_seed([7; 32]).clock(ClockSource::Fixed { realtime_ns: 1_000_000_000_000_000_000 })
}

#[test]
fn a_fixed_world_is_the_same_each_time() {
    if !kvm::usable() {
        return;
    }
    let look = |sandbox: &mut Sandbox| {
        let times: Vec<_> = [REALTIME, MONOTONIC, REALTIME].into_iter().map(|clock| time(sandbox, clock)).collect();
        (random(sandbox), random(sandbox), times)
    };
    let mut sandbox = fixed().build().unwrap();
    let snapshot = sandbox.snapshot().unwrap();
    let expected = look(&mut sandbox);
    assert_ne!(expected.0, expected.1);
    assert_eq!(expected.2[0] / 1_000_000_000, 1_000_000_000);
    assert!((0..1_000_000).contains(&expected.2[1]), "{expected:?}");
    assert_eq!(look(&mut fixed().build().unwrap()), expected, "another sandbox");
    assert_eq!(look(&mut Sandbox::from_snapshot(&snapshot).unwrap()), expected, "a copy");
    sandbox.restore(&snapshot).unwrap();
    assert_eq!(look(&mut sandbox), expected, "a restore");
    let mut other = builder(WORLD).random_seed([8; 32]).build().unwrap();
    assert_ne!(random(&mut other), expected.0);
    // In the middle of a sequence.
    let later = sandbox.snapshot().unwrap();
    let next = look(&mut sandbox);
    assert_ne!(next, expected);
    assert_eq!(look(&mut Sandbox::from_snapshot(&later).unwrap()), next);
    sandbox.restore(&later).unwrap();
    assert_eq!(look(&mut sandbox), next);
}

#[test]
fn random_numbers_are_never_the_same_twice() {
    if !kvm::usable() {
        return;
    }
    let mut seen = std::collections::HashSet::new();
    let mut is_new = |sandbox: &mut Sandbox| {
        for _ in 0..3 {
            let drawn = random(sandbox);
            assert!(seen.insert(drawn), "{drawn:?} was drawn before");
        }
    };
    let mut sandbox = builder(WORLD).build().unwrap();
    let untouched = sandbox.snapshot().unwrap();
    is_new(&mut sandbox);
    let drawn = sandbox.snapshot().unwrap();
    is_new(&mut sandbox);
    for snapshot in [&untouched, &drawn, &untouched, &drawn, &drawn] {
        sandbox.restore(snapshot).unwrap();
        is_new(&mut sandbox);
        is_new(&mut Sandbox::from_snapshot(snapshot).unwrap());
    }
    // Of a snapshot that is older or newer than what goes back to it, in number of restores.
    let newer = sandbox.snapshot().unwrap();
    is_new(&mut sandbox);
    for before in 0..8 {
        let mut copy = Sandbox::from_snapshot(&untouched).unwrap();
        for _ in 0..before {
            copy.restore(&untouched).unwrap();
        }
        copy.restore(&newer).unwrap();
        is_new(&mut copy);
    }
    is_new(&mut builder(WORLD).build().unwrap());
}

#[test]
fn clocks_go_on_through_restores_and_copies() {
    if !kvm::usable() {
        return;
    }
    let now = || i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap();
    let is_right = |sandbox: &mut Sandbox| {
        // What a counter may be off by, of which the rate is not known to the last digit.
        const TOLERANCE_NS: i64 = 5_000_000;
        let before = now();
        let shown = time(sandbox, REALTIME);
        let after = now();
        assert!((before - TOLERANCE_NS..after + TOLERANCE_NS).contains(&shown), "{} ns before or after", shown - before);
    };
    let mut sandbox = builder(WORLD).build().unwrap();
    let first = sandbox.snapshot().unwrap();
    let mut last = 0;
    for round in 0..20 {
        let shown = time(&mut sandbox, MONOTONIC);
        assert!(shown > last, "round {round}: {shown} after {last}");
        last = shown;
        is_right(&mut sandbox);
        std::thread::sleep(std::time::Duration::from_millis(2));
        sandbox.restore(&first).unwrap();
        is_right(&mut sandbox);
    }
    let mut copy = Sandbox::from_snapshot(&first).unwrap();
    let shown = time(&mut copy, MONOTONIC);
    assert!(shown >= 40_000_000, "{shown} ns: twenty times 2 ms passed");
    is_right(&mut copy);
    let later = copy.snapshot().unwrap();
    sandbox.restore(&later).unwrap();
    assert!(time(&mut sandbox, MONOTONIC) > shown.max(last));
    is_right(&mut sandbox);
}

/// A callback that is slow or waits for another thread is just slow.
#[test]
fn callbacks_may_share_state() {
    if !kvm::usable() {
        return;
    }
    let pieces = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&pieces);
    let callback = Output::callback(move |bytes| {
        *counted.lock().unwrap() += bytes.len();
        Ok(())
    });
    let mut sandbox = builder(ECHO).stdin(Input::Bytes(vec![b'x'; 100_000])).stdout(callback).build().unwrap();
    assert_eq!(sandbox.start().unwrap(), 3);
    assert_eq!(*pieces.lock().unwrap(), 100_006);
}
