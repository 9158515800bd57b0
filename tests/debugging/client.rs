//! A debugger for tests: packets of the remote protocol (GDB's manual, appendix E), over a Unix socket.

use std::{
    io::{ErrorKind, Read, Write},
    ops::{Deref, DerefMut},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use mote_abi::layout::Region;
use tempfile::TempDir;

use crate::support::{
    command::{LIMIT, Outcome, finish, mote, payload},
    kvm,
};

/// The instruction pointer among the registers of [`Client::registers`]: as GDB orders them, rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp
/// and r8 to r15 come before it.
pub(super) const RIP: usize = 16;
pub(super) const RSP: usize = 7;

/// The other end of a debugger's connection.
pub(super) struct Client(UnixStream);

impl Client {
    pub(super) fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Self(stream)
    }

    /// Sends a packet and takes the answer.
    #[track_caller]
    pub(super) fn ask(&mut self, packet: &str) -> String {
        self.tell(packet);
        self.answer()
    }

    #[track_caller]
    pub(super) fn expect(&mut self, packet: &str, answer: &str) {
        assert_eq!(self.ask(packet), answer, "to {packet}");
    }

    /// Sends a packet.
    pub(super) fn tell(&mut self, packet: &str) {
        let sum = packet.bytes().fold(0u8, u8::wrapping_add);
        self.send(format!("${packet}#{sum:02x}").as_bytes());
    }

    /// Sends bytes; the other end may have gone.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        match self.0.write_all(bytes) {
            Err(error) if !matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => panic!("{error}"),
            _ => {}
        }
    }

    /// Sends the same again and again, and takes whatever is answered, until the other end goes.
    pub(super) fn flood(&self, bytes: &'static [u8]) -> [thread::JoinHandle<()>; 2] {
        let [mut to, mut from] = [(); 2].map(|()| self.0.try_clone().unwrap());
        let many = bytes.repeat(4096);
        let sender = thread::spawn(move || while to.write_all(&many).is_ok() {});
        let taker = thread::spawn(move || {
            let mut taken = vec![0; 1 << 20];
            while from.read(&mut taken).is_ok_and(|bytes| bytes > 0) {}
        });
        [sender, taker]
    }

    /// Takes a packet, and says that it came.
    #[track_caller]
    pub(super) fn answer(&mut self) -> String {
        self.try_answer().expect("an answer, not the end of the connection")
    }

    /// `None` at the end of the connection.
    #[track_caller]
    pub(super) fn try_answer(&mut self) -> Option<String> {
        while self.byte()? != b'$' {}
        let mut body = Vec::new();
        loop {
            match self.byte()? {
                b'#' => break,
                byte => body.push(byte),
            }
        }
        let _sum = (self.byte()?, self.byte()?);
        self.send(b"+");
        Some(expand(&body))
    }

    fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        match self.0.read(&mut byte) {
            Ok(1) => Some(byte[0]),
            Ok(_) => None,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            Err(error) => panic!("no answer: {error}"),
        }
    }

    /// General registers and the instruction pointer.
    #[track_caller]
    pub(super) fn registers(&mut self) -> Vec<u64> {
        let all = self.ask("g");
        (0..=RIP).map(|index| u64::from_str_radix(&all[16 * index..16 * (index + 1)], 16).unwrap().swap_bytes()).collect()
    }

    #[track_caller]
    pub(super) fn rip(&mut self) -> u64 {
        self.registers()[RIP]
    }

    /// Memory, which has to be there.
    #[track_caller]
    pub(super) fn read(&mut self, address: u64, bytes: usize) -> Vec<u8> {
        let text = self.ask(&format!("m{address:x},{bytes:x}"));
        assert_eq!(text.len(), 2 * bytes, "{text}");
        (0..bytes).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
    }

    /// One instruction; it has to come to its end.
    #[track_caller]
    pub(super) fn step(&mut self) -> u64 {
        let stop = self.ask("vCont;s");
        assert!(stop.starts_with("T05") || stop == "S05", "{stop}");
        self.rip()
    }

    /// Goes on to a breakpoint.
    #[track_caller]
    pub(super) fn run_to_breakpoint(&mut self) -> u64 {
        let stop = self.ask("vCont;c");
        assert!(stop.starts_with("T05") && stop.contains("swbreak"), "{stop}");
        self.rip()
    }

    /// Lets the guest go on until it is in `region`, and interrupts it there; where.
    #[track_caller]
    pub(super) fn run_into(&mut self, region: Region) -> u64 {
        let started = Instant::now();
        loop {
            self.tell("vCont;c");
            thread::sleep(Duration::from_millis(50));
            self.interrupt();
            let rip = self.rip();
            if region.contains(rip) {
                return rip;
            }
            assert!(started.elapsed() < LIMIT, "it is at {rip:#x}");
        }
    }

    /// Interrupts the guest, which takes no longer than people would wait.
    #[track_caller]
    pub(super) fn interrupt(&mut self) {
        let started = Instant::now();
        self.send(&[3]);
        let stop = self.answer();
        assert!(stop.starts_with("T02") || stop == "S02", "{stop}");
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    }
}

/// Undoes the run-length encoding.
fn expand(body: &[u8]) -> String {
    let mut expanded: Vec<u8> = Vec::new();
    let mut bytes = body.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'*' => {
                let count = usize::from(*bytes.next().unwrap()) - 29;
                let last = *expanded.last().unwrap();
                expanded.extend(std::iter::repeat_n(last, count));
            }
            _ => expanded.push(byte),
        }
    }
    String::from_utf8(expanded).unwrap()
}

/// `mote gdb` with a client at it.
pub(super) struct Session {
    client: Client,
    process: Child,
    _folder: TempDir,
}

impl Session {
    /// Debugs a payload; `None`, with the reason on standard error, where there is no KVM.
    pub(super) fn start(options: &[&str], name: &str) -> Option<Self> {
        let process = Waiting::start(options, name)?;
        Some(process.connect())
    }

    /// Waits for the end.
    #[track_caller]
    pub(super) fn finish_with_all(self) -> Outcome {
        finish(self.process)
    }

    /// The same without what tells how to connect.
    #[track_caller]
    pub(super) fn finish(self) -> Outcome {
        let outcome = self.finish_with_all();
        // Whoever debugs is told how to connect, and what there is not.
        let is_invitation =
            |line: &&str| !line.contains("waits for a debugger") && !line.contains("no symbols") && !line.contains("watchpoints");
        let stderr: String = outcome.stderr.lines().filter(is_invitation).map(|line| format!("{line}\n")).collect();
        Outcome { stderr, ..outcome }
    }

    pub(super) fn process(&mut self) -> &mut Child {
        &mut self.process
    }

    /// Gives the client up, as one that dies.
    pub(super) fn hang_up(self) -> Self {
        let (client, _other) = UnixStream::pair().unwrap();
        Self { client: Client::new(client), ..self }
    }
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

/// `mote gdb` that waits for a debugger, at a Unix socket.
pub(super) struct Waiting {
    pub(super) process: Child,
    pub(super) socket: PathBuf,
    folder: TempDir,
}

impl Waiting {
    pub(super) fn start(options: &[&str], name: &str) -> Option<Self> {
        if !kvm::usable() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("gdb");
        let (listen, module) = (socket.display().to_string(), payload(name).display().to_string());
        let line = ["gdb", "--listen", listen.as_str()].into_iter().chain(options.iter().copied()).chain([module.as_str()]);
        let process = mote(line).stdin(Stdio::piped()).spawn().expect("mote does not start");
        let started = Instant::now();
        while !socket.exists() {
            assert!(started.elapsed() < LIMIT, "there is no socket");
            thread::sleep(Duration::from_millis(2));
        }
        Some(Self { process, socket, folder })
    }

    pub(super) fn connect(self) -> Session {
        let Self { process, socket, folder } = self;
        let client = Client::new(connect(&socket));
        Session { client, process, _folder: folder }
    }
}

/// A socket is there for a moment before anybody listens.
fn connect(socket: &Path) -> UnixStream {
    let started = Instant::now();
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return stream,
            Err(error) => assert!(started.elapsed() < LIMIT, "it does not listen: {error}"),
        }
        thread::sleep(Duration::from_millis(2));
    }
}
