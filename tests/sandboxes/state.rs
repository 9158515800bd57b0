//! States: what each kind of end leaves a sandbox in, and how it comes out of that.

use std::time::Duration;

use mote_vmm::{CallError, Caller, Input, Output, Poison, Progress, Sandbox, SandboxState, SharedBuffer, SnapshotError};

use super::guests::{ECHO, MEMORY, build, builder};
use crate::support::{engine::by_engine, kvm};

const ENDS: &str = r#"(module
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (import "env" "fail" (func $fail))
    (memory (export "memory") 1)
    (func (export "fine") (result i32) (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1))) (i32.load (i32.const 0)))
    (func (export "trap") unreachable)
    (func (export "exit") (call $exit (i32.const 9)))
    (func (export "fail") (call $fail))
    (func (export "spin") (loop (br 0))))"#;

fn ends() -> Sandbox {
    builder(ENDS).func("env", "fail", |_: Caller<'_>| Err::<(), _>(std::io::Error::other("failed"))).build().unwrap()
}

/// Brings a sandbox into the state that this poison stands for.
fn poison(sandbox: &mut Sandbox, poison: Poison) {
    let name = match poison {
        Poison::Trapped => "trap",
        Poison::HostError => "fail",
        Poison::Exited => "exit",
        Poison::Interrupted => {
            sandbox.interrupt_handle().interrupt();
            "spin"
        }
        _ => {
            sandbox.set_deadline(Some(Duration::from_millis(5)));
            "spin"
        }
    };
    let error = sandbox.call::<_, ()>(name, ()).unwrap_err();
    sandbox.set_deadline(None);
    match (poison, &error) {
        (Poison::Trapped, CallError::Trap(_))
        | (Poison::HostError, CallError::Host { .. })
        | (Poison::Exited, CallError::Exit(9))
        | (Poison::Interrupted, CallError::Interrupted)
        | (Poison::DeadlineExceeded, CallError::DeadlineExceeded) => {}
        _ => panic!("{poison:?}: {error:?}"),
    }
    assert_eq!(sandbox.state(), SandboxState::Poisoned(poison));
}

const UNWOUND: [Poison; 3] = [Poison::Trapped, Poison::HostError, Poison::Exited];
const STOPPED: [Poison; 2] = [Poison::Interrupted, Poison::DeadlineExceeded];

#[test]
fn a_poisoned_sandbox_refuses_everything_and_says_why() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = ends();
    let snapshot = sandbox.snapshot().unwrap();
    for cause in UNWOUND.into_iter().chain(STOPPED) {
        assert_eq!(sandbox.call::<_, i32>("fine", ()).unwrap(), 1);
        poison(&mut sandbox, cause);
        let calls = sandbox.counters().calls;
        let refused = |result: Result<(), CallError>| match result {
            Err(error @ CallError::Poisoned(found)) => {
                assert_eq!(found, cause);
                assert!(error.to_string().ends_with("restore it from a snapshot"), "{error}");
                assert!(error.to_string().contains(&cause.to_string()), "{error}");
            }
            other => panic!("{other:?}"),
        };
        refused(sandbox.call::<_, i32>("fine", ()).map(drop));
        refused(sandbox.instantiate(b"(module)").map(drop));
        refused(sandbox.start_until_input().map(drop).map_err(|error| match error {
            // It has no such function, which is found out first.
            CallError::Mismatch(_) => CallError::Poisoned(cause),
            other => other,
        }));
        refused(sandbox.resume().map(drop));
        let instance = sandbox.main_instance();
        refused(sandbox.register("x", instance));
        assert!(matches!(sandbox.snapshot(), Err(SnapshotError::NotQuiet(SandboxState::Poisoned(found))) if found == cause));
        assert_eq!(sandbox.counters().calls, calls, "the guest was entered");
        sandbox.restore(&snapshot).unwrap();
        assert_eq!(sandbox.state(), SandboxState::Ready);
    }
    let counters = sandbox.counters();
    let counted =
        [counters.traps, counters.host_errors, counters.exits, counters.interrupts, counters.deadlines, counters.faults];
    assert_eq!(counted, [1, 1, 1, 1, 1, 0]);
}

#[test]
fn poison_of_an_unwound_call_can_be_cleared_and_no_other() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = ends();
    sandbox.clear_poison().unwrap();
    for (round, cause) in UNWOUND.into_iter().cycle().take(9).enumerate() {
        poison(&mut sandbox, cause);
        sandbox.clear_poison().unwrap();
        assert_eq!(sandbox.state(), SandboxState::Ready);
        assert_eq!(sandbox.call::<_, i32>("fine", ()).unwrap(), round as i32 + 1, "memory is as the call left it");
    }
    let snapshot = sandbox.snapshot().unwrap();
    for cause in STOPPED {
        poison(&mut sandbox, cause);
        assert!(matches!(sandbox.clear_poison(), Err(CallError::Poisoned(found)) if found == cause));
        assert_eq!(sandbox.state(), SandboxState::Poisoned(cause));
        sandbox.restore(&snapshot).unwrap();
        assert_eq!(sandbox.call::<_, i32>("fine", ()).unwrap(), 10);
    }
}

#[test]
fn a_trap_tells_what_and_where() {
    if !kvm::usable() {
        return;
    }
    let error = ends().call::<_, ()>("trap", ()).unwrap_err();
    // The interpreter has no backtraces.
    let told = |what: &str, frame: &str| format!("wasm trap: {what}{}", by_engine("", frame));
    assert_eq!(error.to_string(), told("unreachable, in a call of `trap`", "\n    at 0x9d function 3"));
    let error = build(MEMORY).call::<_, i32>("load", -1).unwrap_err();
    assert_eq!(error.to_string(), told("out of bounds memory access, in a call of `load`", "\n    at 0xb2 function 2"));
}

#[test]
fn a_command_ends_with_its_status() {
    if !kvm::usable() {
        return;
    }
    let stdout = SharedBuffer::new(1 << 10);
    let mut sandbox =
        builder(ECHO).stdin(Input::Bytes(b"hello world".to_vec())).stdout(Output::Buffer(stdout.clone())).build().unwrap();
    assert_eq!(sandbox.start().unwrap(), 3);
    assert_eq!(stdout.contents(), b"ready\nhello world");
    assert_eq!(sandbox.state(), SandboxState::Poisoned(Poison::Exited));
    let mut returns = build(r#"(module (func (export "_start")))"#);
    assert_eq!((returns.start().unwrap(), returns.state()), (0, SandboxState::Ready));
    assert!(matches!(build(MEMORY).start(), Err(CallError::Mismatch(_))));
}

/// Copies of a program that waits for input go on with an input each of its own.
#[test]
fn copies_of_a_program_at_its_input_each_read_their_own() {
    if !kvm::usable() {
        return;
    }
    let stdout = SharedBuffer::new(1 << 10);
    let mut sandbox =
        builder(ECHO).stdin(Input::Bytes(b"unread".to_vec())).stdout(Output::Buffer(stdout.clone())).build().unwrap();
    assert!(matches!(sandbox.resume(), Err(CallError::Mismatch(_))), "nothing to go on with");
    assert_eq!(sandbox.start_until_input().unwrap(), Progress::AtInput);
    assert_eq!(sandbox.state(), SandboxState::AtInput);
    assert_eq!(stdout.contents(), b"ready\n");
    assert!(matches!(sandbox.call::<_, ()>("_start", ()), Err(CallError::AtInput)));
    assert!(matches!(sandbox.start_until_input(), Err(CallError::AtInput)));
    assert!(sandbox.read_memory(0, &mut [0]).is_err());
    sandbox.clear_poison().unwrap();
    assert_eq!(sandbox.state(), SandboxState::AtInput);

    let snapshot = sandbox.snapshot().unwrap();
    assert!(snapshot.is_at_input());
    for number in 0..5 {
        let text = "copy ".repeat(number) + &number.to_string();
        let stdout = SharedBuffer::new(1 << 10);
        let copy = snapshot.sandbox().stdin(Input::Bytes(text.clone().into())).stdout(Output::Buffer(stdout.clone()));
        let mut copy = copy.build().unwrap();
        assert_eq!(copy.state(), SandboxState::AtInput);
        assert_eq!(copy.resume().unwrap(), 3);
        assert_eq!(String::from_utf8(stdout.contents()).unwrap(), text);
        // Back to the input, as often as one likes.
        copy.restore(&snapshot).unwrap();
        copy.set_stdin(Input::Bytes(b"+again".to_vec()));
        assert_eq!(copy.resume().unwrap(), 3);
        assert_eq!(String::from_utf8(stdout.contents()).unwrap(), text + "+again");
    }
    // So does the one that it was taken of.
    assert_eq!(sandbox.resume().unwrap(), 3);
    assert_eq!(stdout.contents(), b"ready\nunread");
    assert!(matches!(sandbox.resume(), Err(CallError::Poisoned(Poison::Exited))));
}

#[test]
fn a_program_that_reads_nothing_finishes() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = build(r#"(module (func (export "_start")) (func (export "f") (result i32) (i32.const 1)))"#);
    assert_eq!(sandbox.start_until_input().unwrap(), Progress::Finished);
    assert_eq!(sandbox.call::<_, i32>("f", ()).unwrap(), 1);
    let mut traps = build(r#"(module (func (export "_start") unreachable))"#);
    assert!(traps.start_until_input().unwrap_err().trap().is_some());
}

/// A resumed call has deadline and interrupts as any other.
#[test]
fn a_resumed_call_can_be_stopped() {
    if !kvm::usable() {
        return;
    }
    let (reader, _writer) = std::io::pipe().unwrap();
    let mut sandbox = builder(ECHO).stdin(Input::Fd(reader.into())).build().unwrap();
    assert_eq!(sandbox.start_until_input().unwrap(), Progress::AtInput);
    let snapshot = sandbox.snapshot().unwrap();
    sandbox.set_deadline(Some(Duration::from_millis(20)));
    assert!(matches!(sandbox.resume(), Err(CallError::DeadlineExceeded)));
    sandbox.restore(&snapshot).unwrap();
    sandbox.set_deadline(None);
    sandbox.interrupt_handle().interrupt();
    assert!(matches!(sandbox.resume(), Err(CallError::Interrupted)));
    assert_eq!(sandbox.state(), SandboxState::Poisoned(Poison::Interrupted));
    sandbox.restore(&snapshot).unwrap();
    sandbox.set_stdin(Input::Empty);
    assert_eq!(sandbox.resume().unwrap(), 3);
}
