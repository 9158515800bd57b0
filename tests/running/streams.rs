//! Output while a program runs and when something ends it; standard input; sleeping.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::support::{
    command::{finish, kill, module_file, mote, payload_line, run_payload, run_with_input},
    kvm,
};

/// Starts a payload whose standard input and output are pipes.
fn start(options: &[&str], name: &str) -> Child {
    mote(payload_line(options, name, &[])).stdin(Stdio::piped()).spawn().unwrap()
}

/// Waits for a line on standard output; the rest of it is still to be read.
fn first_line(child: &mut Child) -> (String, BufReader<impl Read + Send + use<>>) {
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    (line, reader)
}

#[test]
fn output_is_seen_while_the_program_runs() {
    if !kvm::usable() {
        return;
    }
    // The timeout only keeps a failure from lasting.
    let mut child = start(&["--timeout", "20s"], "print-then-spin.wat");
    let started = Instant::now();
    let (line, _) = first_line(&mut child);
    let waited = started.elapsed();
    assert_eq!(line, "before the loop\n");
    assert!(child.try_wait().unwrap().is_none(), "it ended already");
    kill(&child, Signal::TERM);
    let outcome = finish(child);
    assert!(waited < Duration::from_secs(1), "the line took {waited:?}");
    outcome.complains(137, "interrupted by a signal");
}

#[test]
fn no_output_is_lost_by_a_signal_or_a_deadline() {
    if !kvm::usable() {
        return;
    }
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut child = start(&[], "print-then-spin.wat");
        let (line, mut rest) = first_line(&mut child);
        kill(&child, signal);
        let outcome = finish(child).complains(137, "print-then-spin.wat: stopped: interrupted by a signal");
        let mut more = String::new();
        rest.read_to_string(&mut more).unwrap();
        assert_eq!((line.as_str(), more.as_str(), outcome.text()), ("before the loop\n", "", ""), "{signal:?}");
    }
    let started = Instant::now();
    let outcome = run_payload(&["--timeout", "200ms"], "print-then-spin.wat", &[]);
    assert_eq!(
        outcome.complains(124, "print-then-spin.wat: stopped: the deadline of --timeout passed").text(),
        "before the loop\n"
    );
    assert!((Duration::from_millis(200)..Duration::from_secs(5)).contains(&started.elapsed()), "{:?}", started.elapsed());
}

/// Also what the program had printed within the last milliseconds before the signal arrives.
#[test]
fn lines_before_a_signal_are_a_gapless_sequence() {
    if !kvm::usable() {
        return;
    }
    let mut child = start(&[], "lines.wat");
    let (first, mut rest) = first_line(&mut child);
    kill(&child, Signal::INT);
    // Reading comes before waiting: an unread pipe would be full.
    let mut text = first;
    rest.read_to_string(&mut text).unwrap();
    let outcome = finish(child);
    assert!(matches!(outcome.status, Some(0 | 137)), "{outcome:?}");
    for (index, line) in text.lines().enumerate() {
        assert_eq!(line, format!("line {}", index + 1));
    }
    assert!(text.ends_with('\n'), "half a line");
}

#[test]
fn a_signal_ends_waiting_for_input_and_sleeping() {
    if !kvm::usable() {
        return;
    }
    for name in ["cat.wat", "stdin-poll.wat"] {
        let child = start(&[], name);
        std::thread::sleep(Duration::from_millis(300));
        let started = Instant::now();
        kill(&child, Signal::TERM);
        finish(child).complains(137, "interrupted by a signal");
        assert!(started.elapsed() < Duration::from_secs(3), "{name}: {:?}", started.elapsed());
    }
    let child = start(&["--timeout", "300ms"], "cat.wat");
    finish_keeping_stdin(child).complains(124, "deadline");
}

/// [`finish`] drops nothing of the child but its output: standard input stays open.
fn finish_keeping_stdin(mut child: Child) -> crate::support::command::Outcome {
    let stdin = child.stdin.take();
    let outcome = finish(child);
    drop(stdin);
    outcome
}

#[test]
fn an_unread_full_pipe_does_not_keep_a_run_alive() {
    if !kvm::usable() {
        return;
    }
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let child = mote(payload_line(&["--timeout", "300ms"], "flood.wat", &[])).stdout(writer).spawn().unwrap();
    let started = Instant::now();
    finish(child).expect(124);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    drop(reader);
}

#[test]
fn a_reader_that_goes_away_is_the_programs_business() {
    if !kvm::usable() {
        return;
    }
    let mut child = start(&[], "flood.wat");
    let mut some = [0; 100];
    child.stdout.as_mut().unwrap().read_exact(&mut some).unwrap();
    assert_eq!(some, [b'.'; 100]);
    drop(child.stdout.take());
    let outcome = finish(child).expect(64);
    assert_eq!(outcome.stderr, "");
}

#[test]
fn input_is_copied_to_its_end() {
    if !kvm::usable() {
        return;
    }
    let long: Vec<u8> = (0..3_000_000u32).map(|index| index.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    for input in [&b""[..], b"x", b"one\ntwo\n\0three", &long[..65_535], &long[..65_536], &long[..65_537], &long] {
        let outcome = run_with_input(&mut mote(payload_line(&[], "cat.wat", &[])), input).expect(0);
        assert!(outcome.stdout == input, "{} bytes became {}", input.len(), outcome.stdout.len());
    }
    let mut file = module_file(&long);
    file.flush().unwrap();
    let child = mote(payload_line(&[], "cat.wat", &[])).stdin(File::open(file.path()).unwrap()).spawn().unwrap();
    assert!(finish(child).expect(0).stdout == long, "a file is not copied");
}

#[test]
fn input_streams() {
    if !kvm::usable() {
        return;
    }
    let mut child = start(&[], "cat.wat");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"first\n").unwrap();
    let (line, mut rest) = first_line(&mut child);
    assert_eq!(line, "first\n");
    stdin.write_all(b"second").unwrap();
    drop(stdin);
    let mut more = String::new();
    rest.read_to_string(&mut more).unwrap();
    assert_eq!(more, "second");
    finish(child).expect(0);
}

#[test]
fn polling_sees_input_its_end_and_time() {
    if !kvm::usable() {
        return;
    }
    run_with_input(&mut mote(payload_line(&[], "stdin-poll.wat", &[])), b"x\n").expect_output("stdin\n");
    // The end of the input is an event too.
    run_payload(&[], "stdin-poll.wat", &[]).expect_output("stdin\n");
    let started = Instant::now();
    finish_keeping_stdin(start(&[], "stdin-poll.wat")).expect_output("clock\n");
    assert!(started.elapsed() >= Duration::from_secs(5), "{:?}", started.elapsed());
}

/// Writes numbered lines, an odd one to standard output and an even one to standard error: `1` to `9999`.
const ALTERNATING: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  ;; 0: iovec of 5 bytes at 32, which are four digits and a newline.
  (data (i32.const 0) "\20\00\00\00\05\00\00\00")
  (data (i32.const 32) "0000\n")
  (func $digit (param $at i32) (param $value i32)
    (i32.store8 (local.get $at) (i32.add (i32.const 48) (i32.rem_u (local.get $value) (i32.const 10)))))
  (func (export "_start") (local $n i32)
    (loop $next
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (call $digit (i32.const 35) (local.get $n))
      (call $digit (i32.const 34) (i32.div_u (local.get $n) (i32.const 10)))
      (call $digit (i32.const 33) (i32.div_u (local.get $n) (i32.const 100)))
      (call $digit (i32.const 32) (i32.div_u (local.get $n) (i32.const 1000)))
      (if (call $fd_write (i32.sub (i32.const 2) (i32.and (local.get $n) (i32.const 1))) (i32.const 0) (i32.const 1) (i32.const 8))
        (then unreachable))
      (br_if $next (i32.lt_u (local.get $n) (i32.const 9999))))))"#;

#[test]
fn both_streams_keep_their_order_and_one_target_that_of_both() {
    if !kvm::usable() {
        return;
    }
    let file = module_file(ALTERNATING);
    let line = ["run".as_ref(), file.path().as_os_str()];
    let lines = |of: fn(&u32) -> bool| (1..=9999).filter(of).map(|number| format!("{number:04}\n")).collect::<String>();
    let outcome = finish(mote(line).spawn().unwrap()).expect(0);
    assert!(outcome.text() == lines(|number| number % 2 == 1), "standard output");
    assert!(outcome.stderr == lines(|number| number % 2 == 0), "standard error");

    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command = mote(line);
    command.stdout(writer.try_clone().unwrap()).stderr(writer);
    let child = command.spawn().unwrap();
    // It holds the writing end.
    drop(command);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    finish(child).expect(0);
    assert!(text == lines(|_| true), "both into one pipe");
}

#[test]
fn a_reader_that_pauses_after_the_end_of_the_program_gets_all_of_its_output() {
    if !kvm::usable() {
        return;
    }
    // More than a pipe holds, less than pipe and ring hold together: the program ends before anything is read.
    let mut child = mote(payload_line(&["--timeout", "30s"], "lines.wat", &[])).spawn().unwrap();
    let mut reader = child.stdout.take().unwrap();
    let mut start = vec![0; 950_000];
    reader.read_exact(&mut start).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    drop(reader);
    finish(child).expect(0);
    let whole = [start, rest].concat();
    let expected: String = (1..=100_000).map(|number| format!("line {number}\n")).collect();
    assert!(whole == expected.as_bytes(), "{} bytes of {}", whole.len(), expected.len());
}
