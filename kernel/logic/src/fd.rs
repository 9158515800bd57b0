//! The table of file descriptors. Preview 1 without pre-opened directories has the three standard streams.

use alloc::vec::Vec;

/// What a descriptor stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard input.
    Stdin,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Its number among the standard streams.
    pub const fn index(self) -> u32 {
        match self {
            Self::Stdin => 0,
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }
}

/// Rights, bits as in the witx type `rights`.
pub mod rights {
    /// Read.
    pub const FD_READ: u64 = 1 << 1;
    /// Change flags.
    pub const FD_FDSTAT_SET_FLAGS: u64 = 1 << 3;
    /// Write.
    pub const FD_WRITE: u64 = 1 << 6;
    /// Stat.
    pub const FD_FILESTAT_GET: u64 = 1 << 21;
    /// Wait for it.
    pub const POLL_FD_READWRITE: u64 = 1 << 27;
}

/// Flags of a descriptor, bits as in the witx type `fdflags`.
pub mod fdflags {
    /// Write at the end.
    pub const APPEND: u16 = 1 << 0;
    /// Do not block.
    pub const NONBLOCK: u16 = 1 << 2;
}

/// An open descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// What it stands for.
    pub stream: Stream,
    /// Bits of [`fdflags`].
    pub flags: u16,
    /// Bits of [`rights`].
    pub rights: u64,
    /// Rights that descriptors opened through this one could have.
    pub rights_inheriting: u64,
}

impl Descriptor {
    fn new(stream: Stream) -> Self {
        let common = rights::FD_FDSTAT_SET_FLAGS | rights::FD_FILESTAT_GET | rights::POLL_FD_READWRITE;
        let (flags, own) = match stream {
            Stream::Stdin => (0, rights::FD_READ),
            Stream::Stdout | Stream::Stderr => (fdflags::APPEND, rights::FD_WRITE),
        };
        Self { stream, flags, rights: common | own, rights_inheriting: 0 }
    }
}

/// No such descriptor: errno `badf`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadFd;

/// The table.
#[derive(Debug)]
pub struct FdTable {
    entries: Vec<Option<Descriptor>>,
}

impl FdTable {
    /// Descriptors 0, 1 and 2.
    pub fn with_standard_streams() -> Self {
        let streams = [Stream::Stdin, Stream::Stdout, Stream::Stderr];
        Self { entries: streams.map(|stream| Some(Descriptor::new(stream))).into() }
    }

    /// The descriptor `fd`.
    pub fn get(&self, fd: u32) -> Result<&Descriptor, BadFd> {
        self.entries.get(fd as usize).and_then(Option::as_ref).ok_or(BadFd)
    }

    /// The descriptor `fd`, to change it.
    pub fn get_mut(&mut self, fd: u32) -> Result<&mut Descriptor, BadFd> {
        self.entries.get_mut(fd as usize).and_then(Option::as_mut).ok_or(BadFd)
    }

    /// Closes `fd`.
    pub fn close(&mut self, fd: u32) -> Result<(), BadFd> {
        self.entries.get_mut(fd as usize).and_then(Option::take).map(drop).ok_or(BadFd)
    }

    /// Closes `to` and gives its number to what `from` stands for; both must be open.
    pub fn renumber(&mut self, from: u32, to: u32) -> Result<(), BadFd> {
        let descriptor = *self.get(from)?;
        *self.get_mut(to)? = descriptor;
        if from == to { Ok(()) } else { self.close(from) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_as_a_map_does(steps in prop::collection::vec((any::<bool>(), 0u32..5, 0u32..5), 0..20)) {
            let mut table = FdTable::with_standard_streams();
            let mut model: Vec<Option<Stream>> = [Some(Stream::Stdin), Some(Stream::Stdout), Some(Stream::Stderr), None, None].into();
            for (close, a, b) in steps {
                let (a_open, b_open) = (model[a as usize], model[b as usize]);
                if close {
                    prop_assert_eq!(table.close(a).is_ok(), a_open.is_some());
                    model[a as usize] = None;
                } else {
                    let both = a_open.is_some() && b_open.is_some();
                    prop_assert_eq!(table.renumber(a, b).is_ok(), both);
                    if both && a != b {
                        model[b as usize] = a_open;
                        model[a as usize] = None;
                    }
                }
                for (fd, stream) in (0u32..).zip(&model) {
                    prop_assert_eq!(table.get(fd).ok().map(|descriptor| descriptor.stream), *stream);
                }
            }
        }
    }

    #[test]
    fn any_number_is_safe() {
        let mut table = FdTable::with_standard_streams();
        assert_eq!(table.close(u32::MAX), Err(BadFd));
        assert_eq!(table.renumber(0, u32::MAX), Err(BadFd));
        assert_eq!(table.get(3), Err(BadFd));
    }
}
