//! `mote gdb`.

use std::{
    borrow::Cow,
    fs,
    io::{self, ErrorKind, Write},
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, net::UnixListener},
    },
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Args;
use mote_vmm::{DebugReport, Debuggee, Departure, Report, Snapshot};
use rustix::event::{PollFd, PollFlags, poll};

use super::{
    CONFINED, EXIT_STATUS,
    engine::{self, Loaded},
    failure::{Failure, judge},
    guest::{ignore_file_size_signal, nothing_to_verify, shown},
    run::{self, RunArgs, Timeline},
    say, status,
};

#[derive(Args)]
#[command(after_help = format!("{EXIT_STATUS}; {OF_DEBUGGER}{CONFINED}"), override_usage = "mote gdb [OPTIONS] MODULE [ARGS...]")]
pub(crate) struct GdbArgs {
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// Where GDB connects: an address with a port, 0 for any, or the path of a Unix socket, with a slash in it. Whoever can connect
    /// has the guest in their hands, and what that has of this machine.
    #[arg(long, value_name = "ADDR:PORT|PATH", default_value = "127.0.0.1:1234", value_parser = place)]
    listen: Place,
}

/// What 137 is, too: the row of the table that comes last.
const OF_DEBUGGER: &str = "or the debugger killed the guest, or was lost";

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

fn place(text: &str) -> Result<Place, String> {
    if text.contains('/') {
        // GDB's `target remote` takes a path as it is, in quotes or not; but it looks for addresses and commands first.
        let is_misread = text.contains(|c: char| c == ':' || c.is_control()) || text.starts_with('|') || text.trim() != text;
        let refused =
            "GDB finds no socket there: give a path without colons, control characters, blanks at its ends, and | before it";
        return if is_misread { Err(refused.into()) } else { Ok(Place::Unix(text.into())) };
    }
    text.parse().map(Place::Tcp).map_err(|error| format!("{error}; give 127.0.0.1:1234, or a path with a slash in it"))
}

/// Runs the module under a debugger; the exit status of the process.
pub(crate) fn gdb(arguments: GdbArgs, mut timeline: Timeline) -> u8 {
    let GdbArgs { run: arguments, listen } = arguments;
    let module = arguments.command.first().map(PathBuf::from).unwrap_or_default();
    let format = arguments.stats;
    match execute(arguments, &listen, &module, &mut timeline) {
        Ok(DebugReport { departure: Departure::Killed, .. }) => killed(&module, "killed by the debugger"),
        Ok(DebugReport { departure: Departure::Lost(why), report: Report { ending: mote_vmm::Ending::Interrupted, .. } }) => {
            killed(&module, &format!("lost its debugger: {why}"))
        }
        result => run::conclude(result.map(|debugged| debugged.report), &module, &timeline, format),
    }
}

fn killed(module: &Path, how: &str) -> u8 {
    say(format_args!("mote: {}: stopped: {how}\n", shown(module)));
    status::INTERRUPTED
}

fn execute(arguments: RunArgs, place: &Place, path: &Path, timeline: &mut Timeline) -> Result<DebugReport, Failure> {
    ignore_file_size_signal();
    if Snapshot::is_snapshot(path) {
        return Err(Failure::usage(format!("{} is a snapshot; only a module can be debugged from its beginning", shown(path))));
    }
    if arguments.verify {
        return Err(nothing_to_verify());
    }
    let Loaded { kernel, module, choice } = engine::load(&arguments.guest, path)?;
    timeline.engine = Some(choice);
    timeline.module_is_loaded();
    let symbols = arguments.guest.kernel.clone();
    let listener = Listener::bind(place)?;
    let config = run::config(arguments, path)?;
    let signals = config.interrupt_on.as_ref().map(|fd| fd.try_clone()).transpose().context("cannot duplicate a descriptor")?;
    let debuggee = Debuggee::new(&kernel, &module, config)?;
    invite(&listener, symbols.as_deref(), debuggee.has_watchpoints())?;
    let connection = listener.accept(signals.as_ref())?;
    drop(listener);
    Ok(debuggee.run(connection, |ending| judge(ending).0))
}

/// Tells how to connect.
fn invite(listener: &Listener, symbols: Option<&Path>, has_watchpoints: bool) -> anyhow::Result<()> {
    // Nobody has to read it.
    let _written = io::stderr().write_all(&invitation(&listener.place()?, symbols));
    if symbols.is_none() {
        say(format_args!("mote: the built-in kernel has no symbols; docs/debugging.md says how to get one for --kernel\n"));
    }
    if !has_watchpoints {
        say(format_args!("mote: there are no hardware watchpoints on this machine\n"));
    }
    Ok(())
}

/// A line with a command for a shell. File names are bytes.
fn invitation(place: &str, symbols: Option<&Path>) -> Vec<u8> {
    let mut line = b"mote: the guest waits for a debugger: gdb -ex ".to_vec();
    line.extend(quoted(format!("target remote {place}").as_bytes()));
    if let Some(kernel) = symbols {
        line.push(b' ');
        line.extend(quoted(kernel.as_os_str().as_bytes()));
    }
    line.push(b'\n');
    line
}

/// A word for a shell, without what would do things to a terminal.
fn quoted(word: &[u8]) -> Vec<u8> {
    let printable = word.utf8_chunks().flat_map(|chunk| {
        let valid = chunk.valid().replace(char::is_control, "\u{fffd}");
        [valid.as_bytes(), chunk.invalid()].concat()
    });
    let printable: Vec<u8> = printable.collect();
    // Only what has a zero in it cannot be quoted.
    shlex::bytes::try_quote(&printable).map(Cow::into_owned).unwrap_or_default()
}

/// Where a debugger connects.
enum Listener {
    Tcp(TcpListener),
    /// With its path, which goes with it.
    Unix(UnixListener, PathBuf),
}

impl Listener {
    fn bind(place: &Place) -> anyhow::Result<Self> {
        match place {
            Place::Tcp(address) => {
                let listener = TcpListener::bind(address).with_context(|| format!("cannot listen at {address}"))?;
                listener.set_nonblocking(true).context("cannot listen")?;
                if !address.ip().is_loopback() {
                    say(format_args!(
                        "mote: anybody who reaches {address} can do to the guest, and to its files, what they like\n"
                    ));
                }
                Ok(Self::Tcp(listener))
            }
            Place::Unix(path) => {
                let listener = UnixListener::bind(path);
                let listener =
                    listener.with_context(|| format!("cannot listen at {}, which must not be there yet", shown(path)))?;
                let listener = Self::Unix(listener, path.clone());
                if let Self::Unix(listener, _) = &listener {
                    listener.set_nonblocking(true).context("cannot listen")?;
                }
                Ok(listener)
            }
        }
    }

    /// As GDB wants it.
    fn place(&self) -> anyhow::Result<String> {
        Ok(match self {
            Self::Tcp(listener) => listener.local_addr().context("cannot listen")?.to_string(),
            Self::Unix(_, path) => path.display().to_string(),
        })
    }

    /// Waits for the first one that comes, or for what becomes readable to end that.
    fn accept(&self, signals: Option<&OwnedFd>) -> Result<OwnedFd, Failure> {
        loop {
            let mut fds = vec![PollFd::from_borrowed_fd(self.as_fd(), PollFlags::IN)];
            fds.extend(signals.map(|signals| PollFd::new(signals, PollFlags::IN)));
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                ready => ready.map_err(|errno| Failure::of_host(io::Error::from(errno)))?,
            };
            if fds.iter().skip(1).any(|fd| !fd.revents().is_empty()) {
                let error = anyhow::anyhow!("stopped: interrupted by a signal, before a debugger came");
                return Err(Failure { status: status::INTERRUPTED, error });
            }
            match self.try_accept() {
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
                accepted => return Ok(accepted.context("no debugger can connect")?),
            }
        }
    }

    fn try_accept(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Tcp(listener) => {
                let (connection, _) = listener.accept()?;
                // The protocol is questions and answers, and each of them is small.
                connection.set_nodelay(true)?;
                Ok(connection.into())
            }
            Self::Unix(listener, _) => Ok(listener.accept()?.0.into()),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener, _) => listener.as_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            let _already_gone = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, process::Command};

    use super::*;

    #[test]
    fn places_are_addresses_or_paths() {
        assert_eq!(place("127.0.0.1:0"), Ok(Place::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))));
        assert_eq!(place("./gdb"), Ok(Place::Unix("./gdb".into())));
        assert!(place("gdb").is_err() && place("1234").is_err() && place("").is_err());
        for misread in ["/tmp/a:b", "|/bin/true", "/tmp/a ", " /tmp/a", "/tmp/a\n"] {
            assert!(place(misread).is_err(), "{misread:?}");
        }
    }

    #[test]
    fn the_command_is_what_a_shell_reads() {
        let words = |line: &[u8]| {
            let shell =
                Command::new("sh").arg("-c").arg(OsStr::from_bytes(&[b"printf '%s\\0' ", line].concat())).output().unwrap();
            shell.stdout
        };
        let prefix = b"mote: the guest waits for a debugger: ";
        for (place, kernel, expected) in [
            ("127.0.0.1:1234", &b"target/mote-kernel"[..], &b"gdb\0-ex\0target remote 127.0.0.1:1234\0target/mote-kernel\0"[..]),
            ("/tmp/k sp/so'ck", b"a'b \xff$x`!\"\\", b"gdb\0-ex\0target remote /tmp/k sp/so'ck\0a'b \xff$x`!\"\\\0"),
        ] {
            let line = invitation(place, Some(Path::new(OsStr::from_bytes(kernel))));
            assert_eq!(words(line.strip_prefix(prefix).unwrap()), expected, "{}", line.escape_ascii());
        }
        assert!(!invitation("/", Some("\x1b[m\n\u{9b}".as_ref())).trim_ascii_end().iter().any(u8::is_ascii_control));
    }
}
