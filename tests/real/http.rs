//! An HTTP server of Go's library, made for WASI, on a socket of the host's.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::Child,
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::both::fetched;
use crate::support::command::{self, Outcome};

const CLIENTS: usize = 8;
const REQUESTS: usize = 1000;
/// After so many a client opens another connection.
const REQUESTS_PER_CONNECTION: usize = 25;
/// A client that waits longer has been forgotten.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_thousand_requests_of_concurrent_clients() {
    let Some(server) = Server::start() else { return };
    // It says nothing, and must keep nobody else waiting.
    let silent = server.connect();
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let server = &server;
            scope.spawn(move || {
                let mut connection = server.connect();
                for request in 0..REQUESTS / CLIENTS {
                    if request % REQUESTS_PER_CONNECTION == 0 {
                        connection = server.connect();
                    }
                    let answer = get(&mut connection, &format!("/hello?name={client}-{request}"));
                    assert_eq!(answer, Answer::ok(format!("hello, {client}-{request}\n").as_bytes()));
                }
            });
        }
    });
    drop(silent);
    server.interrupt().complains(137, "interrupted by a signal");
}

#[test]
fn bodies_of_a_mebibyte() {
    let Some(server) = Server::start() else { return };
    let body: Vec<u8> = (0..1u32 << 20).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut connection = server.connect();
    for _ in 0..3 {
        let head = format!("POST /echo HTTP/1.1\r\nHost: mote\r\nContent-Length: {}\r\n\r\n", body.len());
        connection.get_mut().write_all(head.as_bytes()).expect("cannot send");
        connection.get_mut().write_all(&body).expect("cannot send");
        let answer = answer(&mut connection);
        assert!(answer.status == 200 && answer.body == body, "{} {} bytes", answer.status, answer.body.len());
    }
    assert_eq!(get(&mut connection, "/").status, 404);
    server.interrupt().complains(137, "interrupted by a signal");
}

#[test]
fn a_server_without_requests_ends_at_an_interrupt() {
    let Some(server) = Server::start() else { return };
    let started = Instant::now();
    server.interrupt().complains(137, "interrupted by a signal");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

/// `mote run` with the server, which listens.
struct Server {
    /// `None` once it was waited for.
    child: Option<Child>,
    address: SocketAddr,
}

impl Server {
    fn start() -> Option<Self> {
        let module = fetched("http-server.wasm")?;
        // Free a moment ago; nothing else is likely to take it.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let address = free.expect("no free port");
        let mut command = command::mote(["run", "--tcplisten", &address.to_string()]);
        let mut child = command.arg(module).spawn().expect("mote does not start");
        let mut line = String::new();
        let stdout = child.stdout.as_mut().expect("standard output is a pipe");
        let _bytes = BufReader::new(stdout).read_line(&mut line).expect("cannot read output");
        let server = Self { child: Some(child), address };
        match line.as_str() {
            "serving\n" => Some(server),
            _ => panic!("{line:?}: {:?}", server.interrupt()),
        }
    }

    fn connect(&self) -> BufReader<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.address, PATIENCE).expect("cannot connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("cannot set a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("cannot set a timeout");
        BufReader::new(stream)
    }

    /// Ctrl-C.
    fn interrupt(mut self) -> Outcome {
        let child = self.child.take().expect("it runs");
        command::kill(&child, Signal::INT);
        command::finish(child)
    }
}

/// A test that fails leaves no server behind.
impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ended = child.kill().and_then(|()| child.wait());
        }
    }
}

/// What the server answered.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    body: Vec<u8>,
}

impl Answer {
    fn ok(body: &[u8]) -> Self {
        Self { status: 200, body: body.to_vec() }
    }
}

fn get(connection: &mut BufReader<TcpStream>, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: mote\r\n\r\n");
    connection.get_mut().write_all(request.as_bytes()).expect("cannot send");
    answer(connection)
}

/// The next answer, whose length its head must tell.
fn answer(connection: &mut BufReader<TcpStream>) -> Answer {
    let status_line = line(connection);
    let status = status_line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let mut length = None;
    loop {
        let header = line(connection);
        if header.is_empty() {
            break;
        }
        if let Some((_, value)) = header.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
            length = value.parse().ok();
        }
    }
    let mut body = vec![0; length.unwrap_or_else(|| panic!("no length: {status_line}"))];
    connection.read_exact(&mut body).expect("cannot receive a body");
    Answer { status: status.unwrap_or_else(|| panic!("no status: {status_line}")), body }
}

fn line(connection: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    let _bytes = connection.read_line(&mut line).expect("cannot receive a line");
    line.strip_suffix("\r\n").unwrap_or_else(|| panic!("no line: {line:?}")).to_owned()
}
