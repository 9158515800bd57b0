//! Standard input.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, OwnedFd},
};

use rustix::event::PollFlags;

use super::{files::Refusal, wait};
use crate::{
    config::{Input, InputCallback},
    control::Control,
};

/// Where input comes from.
#[derive(Debug)]
pub(crate) enum Stdin {
    Bytes(VecDeque<u8>),
    Fd(OwnedFd),
    Callback(InputCallback),
}

impl From<Input> for Stdin {
    fn from(input: Input) -> Self {
        match input {
            Input::Empty => Self::Bytes(VecDeque::new()),
            Input::Bytes(bytes) => Self::Bytes(bytes.into()),
            Input::Fd(fd) => Self::Fd(fd),
            Input::Callback(callback) => Self::Callback(callback),
        }
    }
}

impl Stdin {
    /// Reads at most `max_bytes`, waiting until there is something; no bytes mean the end.
    pub(crate) fn read(&mut self, max_bytes: usize, control: &Control) -> Result<Vec<u8>, Refusal> {
        let mut buffer = vec![0; max_bytes];
        let fd = match self {
            Self::Callback(callback) => {
                let bytes = callback.read(&mut buffer)?;
                buffer.truncate(bytes);
                return Ok(buffer);
            }
            Self::Bytes(bytes) => {
                let count = bytes.len().min(max_bytes);
                return Ok(bytes.drain(..count).collect());
            }
            Self::Fd(fd) => fd,
        };
        loop {
            wait::poll_until(&[Some((fd.as_fd(), PollFlags::IN))], None, control)?;
            match rustix::io::read(&*fd, &mut buffer) {
                Ok(bytes) => {
                    buffer.truncate(bytes);
                    return Ok(buffer);
                }
                // Another process that shares the descriptor was quicker.
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn bytes_are_read_to_their_end() {
        let control = Control::new(None).unwrap();
        let mut stdin = Stdin::from(Input::Bytes(b"abc".to_vec()));
        assert_eq!(stdin.read(2, &control).unwrap(), b"ab");
        assert_eq!(stdin.read(2, &control).unwrap(), b"c");
        assert_eq!(stdin.read(2, &control).unwrap(), b"");
    }

    #[test]
    fn a_pipe_is_waited_for_until_a_stop() {
        let control = Control::new(None).unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let mut stdin = Stdin::from(Input::Fd(reader.into()));
        rustix::io::write(&writer, b"x").unwrap();
        assert_eq!(stdin.read(9, &control).unwrap(), b"x");
        control.handle().interrupt();
        assert!(stdin.read(9, &control).is_err());
    }
}
