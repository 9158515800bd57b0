//! The bytes from and to the debugger. What ends the run is looked at where this waits for the debugger, and also before more is taken
//! from one that is never waited for.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use rustix::{
    event::{PollFd, PollFlags},
    fs::OFlags,
    io::Errno,
};

use crate::control::{Control, Stopped};

/// What is sent in one piece, if it is not flushed before.
const PIECE_BYTES: usize = 16 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct Connection {
    fd: Arc<OwnedFd>,
    control: Arc<Control>,
    /// Came, and was not looked at.
    received: VecDeque<u8>,
    /// To be sent.
    unsent: Vec<u8>,
}

/// A connection that cannot be used any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error("it closed the connection")]
    Closed,
    #[error("the connection failed: {0}")]
    Failed(#[from] io::Error),
    /// Something else ends the run.
    #[error("the run is to end")]
    Stopped,
}

impl Connection {
    pub(super) fn new(fd: OwnedFd, control: &Arc<Control>) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        Ok(Self { fd: Arc::new(fd), control: Arc::clone(control), received: VecDeque::new(), unsent: Vec::new() })
    }

    pub(super) fn fd(&self) -> &Arc<OwnedFd> {
        &self.fd
    }

    /// The next byte if it is here already.
    pub(super) fn received(&mut self) -> Option<u8> {
        self.received.pop_front()
    }

    /// The next byte; waits for it.
    pub(super) fn receive(&mut self) -> Result<u8, Lost> {
        loop {
            if let Some(byte) = self.received() {
                return Ok(byte);
            }
            self.look()?;
            let mut buffer = [0; 4096];
            match rustix::io::read(&*self.fd, &mut buffer) {
                Ok(0) => return Err(Lost::Closed),
                Ok(bytes) => self.received.extend(buffer.get(..bytes).unwrap_or_default()),
                Err(Errno::AGAIN) => self.wait(PollFlags::IN)?,
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET | Errno::PIPE) => return Err(Lost::Closed),
                Err(errno) => return Err(Lost::Failed(errno.into())),
            }
        }
    }

    fn send(&mut self) -> Result<(), Lost> {
        let mut sent = 0;
        while let Some(rest) = self.unsent.get(sent..).filter(|rest| !rest.is_empty()) {
            match rustix::io::write(&*self.fd, rest) {
                Ok(bytes) => sent += bytes,
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT)?,
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET | Errno::PIPE) => return Err(Lost::Closed),
                Err(errno) => return Err(Lost::Failed(errno.into())),
            }
        }
        self.unsent.clear();
        Ok(())
    }

    fn look(&self) -> Result<(), Lost> {
        self.control.look().map_or(Ok(()), |_reason| Err(Lost::Stopped))
    }

    fn wait(&self, what: PollFlags) -> Result<(), Lost> {
        let fds = [PollFd::from_borrowed_fd(self.fd.as_fd(), what)];
        self.control.poll(&fds, None)?.map(drop).map_err(|Stopped| Lost::Stopped)
    }
}

impl gdbstub::conn::Connection for Connection {
    type Error = Lost;

    fn write(&mut self, byte: u8) -> Result<(), Lost> {
        self.unsent.push(byte);
        if self.unsent.len() < PIECE_BYTES {
            return Ok(());
        }
        self.look()?;
        self.send()
    }

    /// Without a look: this is how the debugger is told that the run ended.
    fn flush(&mut self) -> Result<(), Lost> {
        self.send()
    }
}
