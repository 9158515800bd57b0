//! Waiting: for time to pass, for standard input, for files and sockets. A stop ends any wait.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    sync::Arc,
    time::Duration,
};

use mote_abi::hypercall::files::{Interest, STDIN, interest, ready};
use rustix::event::{PollFd, PollFlags};

use super::{
    files::{FileService, Open, Refusal},
    stdin::Stdin,
};
use crate::control::{Control, Stopped};

/// Waits until one of the interests is ready or `timeout` passed, and fills in what was found.
pub(crate) fn wait(
    interests: &mut [Interest],
    timeout: Option<Duration>,
    stdin: &Stdin,
    files: &FileService,
    control: &Control,
) -> Result<u32, Refusal> {
    // Opened things live until the wait is over, whatever happens to their handles.
    let open: Vec<Option<Arc<Open>>> = interests.iter().map(|interest| files.get(interest.handle).ok()).collect();
    let sources: Vec<Source<'_>> =
        interests.iter().zip(&open).map(|(interest, open)| Source::of(interest, open.as_deref(), stdin)).collect();
    let fds: Vec<_> = sources.iter().map(Source::fd).collect();
    let decided = sources.iter().any(|source| matches!(source, Source::Decided { .. }));
    let timeout = if decided { Some(Duration::ZERO) } else { timeout };
    let found = poll_until(&fds, timeout, control)?;
    let mut count = 0;
    for ((interest, source), flags) in interests.iter_mut().zip(&sources).zip(found) {
        (interest.ready, interest.readable_bytes) = source.result(flags);
        count += u32::from(interest.ready != 0);
    }
    Ok(count)
}

/// Does `action` until it no longer says that it would block. `nonblocking` makes that an error.
pub(crate) fn retry(
    fd: BorrowedFd<'_>,
    flags: PollFlags,
    nonblocking: bool,
    control: &Control,
    mut action: impl FnMut() -> io::Result<usize>,
) -> Result<usize, Refusal> {
    loop {
        match action() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !nonblocking => {
                poll_until(&[Some((fd, flags))], None, control)?;
            }
            result => return Ok(result?),
        }
    }
}

/// Where readiness comes from.
enum Source<'a> {
    /// A file descriptor that may or may not be ready.
    Poll(BorrowedFd<'a>, PollFlags),
    /// Known without asking.
    Decided { ready: u32, readable_bytes: u64 },
}

impl<'a> Source<'a> {
    fn of(interest: &Interest, open: Option<&'a Open>, stdin: &'a Stdin) -> Self {
        let flags = if interest.events == interest::WRITE { PollFlags::OUT } else { PollFlags::IN | PollFlags::RDHUP };
        match (interest.handle, open) {
            (STDIN, _) => match stdin {
                Stdin::Fd(fd) => Self::Poll(fd.as_fd(), PollFlags::IN),
                // It has to be asked, and may then wait as long as it likes.
                Stdin::Callback(_) => Self::Decided { ready: ready::READY, readable_bytes: 1 },
                Stdin::Bytes(bytes) => {
                    let hangup = if bytes.is_empty() { ready::HANGUP } else { 0 };
                    Self::Decided { ready: ready::READY | hangup, readable_bytes: bytes.len() as u64 }
                }
            },
            (_, Some(open)) => Self::Poll(open.fd(), flags),
            (_, None) => Self::Decided { ready: ready::READY | ready::BAD_HANDLE, readable_bytes: 0 },
        }
    }

    fn fd(&self) -> Option<(BorrowedFd<'a>, PollFlags)> {
        match self {
            Self::Poll(fd, flags) => Some((*fd, *flags)),
            Self::Decided { .. } => None,
        }
    }

    fn result(&self, found: PollFlags) -> (u32, u64) {
        match self {
            Self::Decided { ready, readable_bytes } => (*ready, *readable_bytes),
            Self::Poll(..) if found.is_empty() => (0, 0),
            Self::Poll(fd, asked) => {
                let hangup = found.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::RDHUP);
                let bytes = if asked.contains(PollFlags::IN) { rustix::io::ioctl_fionread(fd).unwrap_or(0) } else { 0 };
                (ready::READY | if hangup { ready::HANGUP } else { 0 }, bytes)
            }
        }
    }
}

/// poll(2) until a stop; what was found for each, nothing at all if the time ran out.
pub(crate) fn poll_until(
    sources: &[Option<(BorrowedFd<'_>, PollFlags)>],
    timeout: Option<Duration>,
    control: &Control,
) -> Result<Vec<PollFlags>, Refusal> {
    // A descriptor that is waited for many times counts once: poll(2) takes no more than can be open.
    let mut asked: BTreeMap<RawFd, (BorrowedFd<'_>, PollFlags)> = BTreeMap::new();
    for (fd, flags) in sources.iter().flatten() {
        asked.entry(fd.as_raw_fd()).or_insert((*fd, PollFlags::empty())).1 |= *flags;
    }
    let fds: Vec<_> = asked.values().map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
    let found = control.poll(&fds, timeout)?.map_err(|Stopped| Refusal::Stopped)?;
    let found: BTreeMap<RawFd, PollFlags> = asked.keys().copied().zip(found).collect();
    let errors = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
    let of = |source: &Option<(BorrowedFd<'_>, PollFlags)>| {
        let (fd, flags) = source.as_ref()?;
        Some(*found.get(&fd.as_raw_fd())? & (*flags | errors))
    };
    Ok(sources.iter().map(|source| of(source).unwrap_or(PollFlags::empty())).collect())
}
