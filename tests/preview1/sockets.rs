//! Programs with a listening socket, which only the first implementation of preview 1 has too, and their peer.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    process::ChildStdout,
    thread,
};

use super::{
    answers::{Answers, Contest},
    runtime::{Runtime, available, module},
};
use crate::support::command::finish;

/// Runs a program in both runtimes, with this process as its peer, and compares what was seen at both ends.
pub(crate) fn check(program: &str) {
    if available(program) {
        let [preview1, mote] = [Runtime::Preview1, Runtime::Mote].map(|runtime| run(runtime, program));
        Contest { program, wasmtime: &preview1, preview1: &preview1, mote: &mote }.judge();
    }
}

fn run(runtime: Runtime, program: &str) -> Answers {
    let address = unused_address();
    let option = match runtime {
        Runtime::Mote => format!("--tcplisten={address}"),
        Runtime::Wasmtime | Runtime::Preview1 => format!("-Stcplisten={address}"),
    };
    let mut child = runtime.command().arg(option).arg(module(program)).spawn().expect("the runtime does not start");
    drop(child.stdin.take());
    let lines = child.stdout.take().expect("standard output is a pipe");
    let peer = thread::spawn(move || follow(lines, address));
    let outcome = finish(child);
    let mut answers = peer.join().expect("the peer panicked");
    answers.add_status(&outcome);
    answers
}

/// Nobody else is likely to take it in the moment until the runtime does.
fn unused_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("no port is free");
    listener.local_addr().expect("a listener has an address")
}

/// The answers of the program; its lines `client: COMMAND` are carried out, and what came of it is an answer too.
fn follow(lines: ChildStdout, address: SocketAddr) -> Answers {
    let (mut answers, mut connection) = (Answers::default(), None);
    for line in BufReader::new(lines).lines() {
        let line = line.expect("cannot read output");
        match (line.strip_prefix("client: "), &connection) {
            (None, _) => answers.add_lines(&line),
            (Some("connect"), _) => connection = Some(TcpStream::connect(address).expect("cannot connect")),
            (Some("close"), _) => connection = None,
            (Some(command), Some(stream)) => answers.add("client", &carry_out(command, stream)),
            (Some(_), None) => panic!("the client is not connected: {line}"),
        }
    }
    answers
}

/// `send TEXT`, `receive [BYTES]` (to the end, if not told) or `shut down`; what came of it.
fn carry_out(command: &str, mut stream: &TcpStream) -> String {
    if let Some(text) = command.strip_prefix("send ") {
        stream.write_all(text.as_bytes()).expect("cannot send");
        String::from("sent")
    } else if let Some(bytes) = command.strip_prefix("receive") {
        let mut received = Vec::new();
        let end = stream.take(bytes.trim().parse().unwrap_or(u64::MAX)).read_to_end(&mut received);
        let start = String::from_utf8_lossy(received.get(..32).unwrap_or(&received)).into_owned();
        format!("received {} bytes, {start:?}, {:?}", received.len(), end.err().map(|error| error.kind()))
    } else {
        assert_eq!(command, "shut down");
        stream.shutdown(Shutdown::Write).expect("cannot shut down");
        String::from("shut down")
    }
}
