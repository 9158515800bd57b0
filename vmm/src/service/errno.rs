//! The host's errors as WASI's error numbers.

use std::io;

use mote_abi::errno::Errno;
use rustix::io::Errno as HostErrno;

/// The error number that a guest sees for an error of the host.
pub(crate) fn of(error: &io::Error) -> Errno {
    if let Some(code) = error.raw_os_error() {
        return of_host(HostErrno::from_raw_os_error(code));
    }
    match error.kind() {
        io::ErrorKind::NotFound => Errno::Noent,
        // What `cap-std` says of a path that leaves its directory.
        io::ErrorKind::PermissionDenied => Errno::Perm,
        io::ErrorKind::AlreadyExists => Errno::Exist,
        io::ErrorKind::InvalidInput => Errno::Inval,
        _ => Errno::Io,
    }
}

/// The error number for one of Linux.
pub(crate) fn of_host(errno: HostErrno) -> Errno {
    const NUMBERS: [(HostErrno, Errno); 54] = [
        (HostErrno::TOOBIG, Errno::Toobig),
        (HostErrno::ACCESS, Errno::Acces),
        (HostErrno::ADDRINUSE, Errno::Addrinuse),
        (HostErrno::AGAIN, Errno::Again),
        (HostErrno::ALREADY, Errno::Already),
        (HostErrno::BADF, Errno::Badf),
        (HostErrno::BUSY, Errno::Busy),
        (HostErrno::CONNABORTED, Errno::Connaborted),
        (HostErrno::CONNREFUSED, Errno::Connrefused),
        (HostErrno::CONNRESET, Errno::Connreset),
        (HostErrno::DEADLK, Errno::Deadlk),
        (HostErrno::DQUOT, Errno::Dquot),
        (HostErrno::EXIST, Errno::Exist),
        (HostErrno::FBIG, Errno::Fbig),
        (HostErrno::HOSTUNREACH, Errno::Hostunreach),
        (HostErrno::ILSEQ, Errno::Ilseq),
        (HostErrno::INPROGRESS, Errno::Inprogress),
        (HostErrno::INTR, Errno::Intr),
        (HostErrno::INVAL, Errno::Inval),
        (HostErrno::IO, Errno::Io),
        (HostErrno::ISCONN, Errno::Isconn),
        (HostErrno::ISDIR, Errno::Isdir),
        (HostErrno::LOOP, Errno::Loop),
        (HostErrno::MFILE, Errno::Mfile),
        (HostErrno::MLINK, Errno::Mlink),
        (HostErrno::MSGSIZE, Errno::Msgsize),
        (HostErrno::NAMETOOLONG, Errno::Nametoolong),
        (HostErrno::NETDOWN, Errno::Netdown),
        (HostErrno::NETRESET, Errno::Netreset),
        (HostErrno::NETUNREACH, Errno::Netunreach),
        (HostErrno::NFILE, Errno::Nfile),
        (HostErrno::NOBUFS, Errno::Nobufs),
        (HostErrno::NODEV, Errno::Nodev),
        (HostErrno::NOENT, Errno::Noent),
        (HostErrno::NOLCK, Errno::Nolck),
        (HostErrno::NOMEM, Errno::Nomem),
        (HostErrno::NOSPC, Errno::Nospc),
        (HostErrno::NOSYS, Errno::Nosys),
        (HostErrno::NOTCONN, Errno::Notconn),
        (HostErrno::NOTDIR, Errno::Notdir),
        (HostErrno::NOTEMPTY, Errno::Notempty),
        (HostErrno::NOTSUP, Errno::Notsup),
        (HostErrno::NOTTY, Errno::Notty),
        (HostErrno::NXIO, Errno::Nxio),
        (HostErrno::OVERFLOW, Errno::Overflow),
        (HostErrno::PERM, Errno::Perm),
        (HostErrno::PIPE, Errno::Pipe),
        (HostErrno::PROTO, Errno::Proto),
        (HostErrno::ROFS, Errno::Rofs),
        (HostErrno::SPIPE, Errno::Spipe),
        (HostErrno::STALE, Errno::Stale),
        (HostErrno::TIMEDOUT, Errno::Timedout),
        (HostErrno::TXTBSY, Errno::Txtbsy),
        (HostErrno::XDEV, Errno::Xdev),
    ];
    NUMBERS.iter().find(|(host, _)| *host == errno).map_or(Errno::Io, |(_, wasi)| *wasi)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_keep_their_meaning() {
        assert_eq!(of(&io::Error::from_raw_os_error(libc::ENOENT)), Errno::Noent);
        assert_eq!(of(&io::Error::from_raw_os_error(libc::ENOSPC)), Errno::Nospc);
        assert_eq!(of(&io::Error::from_raw_os_error(libc::EXDEV)), Errno::Xdev);
        assert_eq!(of(&io::ErrorKind::PermissionDenied.into()), Errno::Perm);
        assert_eq!(of(&io::Error::from_raw_os_error(libc::ENOTBLK)), Errno::Io);
    }
}
