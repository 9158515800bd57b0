//! Standard input, and waiting for it or for time to pass.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{config::Input, control::Control};

/// Where input comes from.
#[derive(Debug)]
pub(crate) enum Stdin {
    Bytes(VecDeque<u8>),
    Fd(OwnedFd),
}

/// What a wait found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Readiness {
    pub(crate) readable: bool,
    pub(crate) hangup: bool,
    pub(crate) bytes: u64,
}

/// A stop was asked for while waiting.
#[derive(Debug)]
pub(crate) struct Stopped;

impl From<Input> for Stdin {
    fn from(input: Input) -> Self {
        match input {
            Input::Empty => Self::Bytes(VecDeque::new()),
            Input::Bytes(bytes) => Self::Bytes(bytes.into()),
            Input::Fd(fd) => Self::Fd(fd),
        }
    }
}

impl Stdin {
    /// Reads at most `max_bytes`, waiting until there is something; no bytes mean the end.
    pub(crate) fn read(&mut self, max_bytes: usize, control: &Control) -> Result<io::Result<Vec<u8>>, Stopped> {
        let fd = match self {
            Self::Bytes(bytes) => {
                let count = bytes.len().min(max_bytes);
                return Ok(Ok(bytes.drain(..count).collect()));
            }
            Self::Fd(fd) => fd,
        };
        let mut buffer = vec![0; max_bytes];
        loop {
            wait(Some(fd), None, control)?;
            match rustix::io::read(&*fd, &mut buffer) {
                Ok(bytes) => {
                    buffer.truncate(bytes);
                    return Ok(Ok(buffer));
                }
                // Another process that shares the descriptor was quicker.
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(errno) => return Ok(Err(errno.into())),
            }
        }
    }

    /// Waits until input is there, if `interested`, or `timeout` passed.
    pub(crate) fn wait(&self, interested: bool, timeout: Option<Duration>, control: &Control) -> Result<Readiness, Stopped> {
        match self {
            Self::Bytes(bytes) if interested => {
                Ok(Readiness { readable: true, hangup: bytes.is_empty(), bytes: bytes.len() as u64 })
            }
            Self::Fd(fd) if interested => wait(Some(fd), timeout, control),
            _ => wait(None, timeout, control),
        }
    }
}

/// Waits for `fd`, the timeout or a stop, whichever comes first.
fn wait(fd: Option<&OwnedFd>, timeout: Option<Duration>, control: &Control) -> Result<Readiness, Stopped> {
    let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let event = control.event();
        let mut fds = vec![PollFd::new(&event, PollFlags::IN)];
        fds.extend(fd.map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)));
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut fds, left.as_ref()) {
            Ok(0) => return Ok(Readiness::default()),
            Ok(_) => {}
            Err(_interrupted) => continue,
        }
        let mut found = fds.iter().map(PollFd::revents);
        if found.next().is_some_and(|event| !event.is_empty()) {
            return Err(Stopped);
        }
        let flags = found.next().unwrap_or(PollFlags::empty());
        let bytes = fd.and_then(|fd| rustix::io::ioctl_fionread(fd).ok()).unwrap_or(0);
        return Ok(Readiness { readable: true, hangup: flags.intersects(PollFlags::HUP | PollFlags::ERR), bytes });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::StopReason;

    #[test]
    fn bytes_are_read_to_their_end() {
        let control = Control::new().unwrap();
        let mut stdin = Stdin::from(Input::Bytes(b"abc".to_vec()));
        assert_eq!(stdin.wait(true, None, &control).unwrap(), Readiness { readable: true, hangup: false, bytes: 3 });
        assert_eq!(stdin.read(2, &control).unwrap().unwrap(), b"ab");
        assert_eq!(stdin.read(2, &control).unwrap().unwrap(), b"c");
        assert_eq!(stdin.read(2, &control).unwrap().unwrap(), b"");
        assert!(stdin.wait(true, None, &control).unwrap().hangup);
    }

    #[test]
    fn a_pipe_is_waited_for_until_a_stop() {
        let control = Control::new().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let mut stdin = Stdin::from(Input::Fd(reader.into()));
        let timeout = Some(Duration::from_millis(1));
        assert_eq!(stdin.wait(true, timeout, &control).unwrap(), Readiness::default());
        rustix::io::write(&writer, b"x").unwrap();
        assert_eq!(stdin.wait(true, None, &control).unwrap(), Readiness { readable: true, hangup: false, bytes: 1 });
        assert_eq!(stdin.read(9, &control).unwrap().unwrap(), b"x");
        control.stop(StopReason::Interrupted);
        assert!(stdin.read(9, &control).is_err());
    }
}
