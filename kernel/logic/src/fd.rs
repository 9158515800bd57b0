//! The descriptor table, and what descriptors are allowed.

use alloc::vec::Vec;

use mote_abi::errno::Errno;

/// Rights, bits as in the witx type `rights`.
pub mod rights {
    /// fd_datasync.
    pub const FD_DATASYNC: u64 = 1 << 0;
    /// fd_read.
    pub const FD_READ: u64 = 1 << 1;
    /// fd_seek.
    pub const FD_SEEK: u64 = 1 << 2;
    /// fd_fdstat_set_flags.
    pub const FD_FDSTAT_SET_FLAGS: u64 = 1 << 3;
    /// fd_sync.
    pub const FD_SYNC: u64 = 1 << 4;
    /// fd_tell.
    pub const FD_TELL: u64 = 1 << 5;
    /// fd_write.
    pub const FD_WRITE: u64 = 1 << 6;
    /// fd_advise.
    pub const FD_ADVISE: u64 = 1 << 7;
    /// fd_allocate.
    pub const FD_ALLOCATE: u64 = 1 << 8;
    /// path_create_directory.
    pub const PATH_CREATE_DIRECTORY: u64 = 1 << 9;
    /// path_open with `oflags::creat`.
    pub const PATH_CREATE_FILE: u64 = 1 << 10;
    /// The source of path_link.
    pub const PATH_LINK_SOURCE: u64 = 1 << 11;
    /// The target of path_link.
    pub const PATH_LINK_TARGET: u64 = 1 << 12;
    /// path_open.
    pub const PATH_OPEN: u64 = 1 << 13;
    /// fd_readdir.
    pub const FD_READDIR: u64 = 1 << 14;
    /// path_readlink.
    pub const PATH_READLINK: u64 = 1 << 15;
    /// The source of path_rename.
    pub const PATH_RENAME_SOURCE: u64 = 1 << 16;
    /// The target of path_rename.
    pub const PATH_RENAME_TARGET: u64 = 1 << 17;
    /// path_filestat_get.
    pub const PATH_FILESTAT_GET: u64 = 1 << 18;
    /// path_open with `oflags::trunc`.
    pub const PATH_FILESTAT_SET_SIZE: u64 = 1 << 19;
    /// path_filestat_set_times.
    pub const PATH_FILESTAT_SET_TIMES: u64 = 1 << 20;
    /// fd_filestat_get.
    pub const FD_FILESTAT_GET: u64 = 1 << 21;
    /// fd_filestat_set_size.
    pub const FD_FILESTAT_SET_SIZE: u64 = 1 << 22;
    /// fd_filestat_set_times.
    pub const FD_FILESTAT_SET_TIMES: u64 = 1 << 23;
    /// path_symlink.
    pub const PATH_SYMLINK: u64 = 1 << 24;
    /// path_remove_directory.
    pub const PATH_REMOVE_DIRECTORY: u64 = 1 << 25;
    /// path_unlink_file.
    pub const PATH_UNLINK_FILE: u64 = 1 << 26;
    /// poll_oneoff.
    pub const POLL_FD_READWRITE: u64 = 1 << 27;
    /// sock_shutdown.
    pub const SOCK_SHUTDOWN: u64 = 1 << 28;
    /// sock_accept.
    pub const SOCK_ACCEPT: u64 = 1 << 29;

    /// All of them.
    pub const ALL: u64 = (1 << 30) - 1;
    /// Of a directory that the program is given, in the selection that C libraries expect.
    pub const PREOPENED: u64 = PATH_CREATE_DIRECTORY
        | PATH_CREATE_FILE
        | PATH_LINK_SOURCE
        | PATH_LINK_TARGET
        | PATH_OPEN
        | FD_READDIR
        | PATH_READLINK
        | PATH_RENAME_SOURCE
        | PATH_RENAME_TARGET
        | PATH_SYMLINK
        | PATH_REMOVE_DIRECTORY
        | PATH_UNLINK_FILE
        | PATH_FILESTAT_GET
        | PATH_FILESTAT_SET_TIMES
        | FD_FILESTAT_GET
        | FD_FILESTAT_SET_TIMES;
    /// Of what is opened through it.
    pub const PREOPENED_INHERITING: u64 = PREOPENED
        | FD_DATASYNC
        | FD_READ
        | FD_SEEK
        | FD_FDSTAT_SET_FLAGS
        | FD_SYNC
        | FD_TELL
        | FD_WRITE
        | FD_ADVISE
        | FD_ALLOCATE
        | FD_FILESTAT_SET_SIZE
        | POLL_FD_READWRITE;
    /// Of a directory that was opened.
    pub const DIRECTORY: u64 = ALL & !(FD_WRITE | FD_SEEK | FD_FILESTAT_SET_SIZE | PATH_FILESTAT_SET_SIZE);
    /// Of a socket that listens.
    pub const LISTENER: u64 = SOCK_ACCEPT | POLL_FD_READWRITE | FD_FDSTAT_SET_FLAGS | FD_FILESTAT_GET;
    /// Of a connection.
    pub const CONNECTION: u64 = FD_READ | FD_WRITE | SOCK_SHUTDOWN | POLL_FD_READWRITE | FD_FDSTAT_SET_FLAGS | FD_FILESTAT_GET;
    /// Of any standard stream, beside reading or writing.
    pub const STREAM: u64 = FD_FDSTAT_SET_FLAGS | FD_FILESTAT_GET | POLL_FD_READWRITE;
}

/// Most descriptors: what has no handle of the host is bounded by this alone. The table must be small beside any guest's RAM.
pub const MAX_DESCRIPTORS: usize = 4096;

/// No such descriptor: errno `badf`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadFd;

/// No number is left: errno `mfile`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableFull;

impl From<BadFd> for Errno {
    fn from(_: BadFd) -> Self {
        Self::Badf
    }
}

impl From<TableFull> for Errno {
    fn from(_: TableFull) -> Self {
        Self::Mfile
    }
}

/// The table. New descriptors get the lowest number that is free.
#[derive(Debug)]
pub struct FdTable<T> {
    entries: Vec<Option<T>>,
    /// No number below is free.
    lowest_free: usize,
}

impl<T> Default for FdTable<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), lowest_free: 0 }
    }
}

impl<T> FdTable<T> {
    /// The descriptor `fd`.
    pub fn get(&self, fd: u32) -> Result<&T, BadFd> {
        self.entries.get(fd as usize).and_then(Option::as_ref).ok_or(BadFd)
    }

    /// The descriptor `fd`, to change it.
    pub fn get_mut(&mut self, fd: u32) -> Result<&mut T, BadFd> {
        self.entries.get_mut(fd as usize).and_then(Option::as_mut).ok_or(BadFd)
    }

    /// Whether there is room for one more.
    pub fn check_room(&mut self) -> Result<(), TableFull> {
        self.free().map(drop)
    }

    /// Adds a descriptor and returns its number.
    pub fn insert(&mut self, descriptor: T) -> Result<u32, TableFull> {
        let free = self.free()?;
        if let Some(entry) = self.entries.get_mut(free) {
            *entry = Some(descriptor);
        }
        u32::try_from(free).map_err(|_| TableFull)
    }

    /// Takes `fd` out of the table.
    pub fn close(&mut self, fd: u32) -> Result<T, BadFd> {
        let index = fd as usize;
        let closed = self.entries.get_mut(index).and_then(Option::take).ok_or(BadFd)?;
        self.lowest_free = self.lowest_free.min(index);
        Ok(closed)
    }

    /// Gives the number `to` to what `from` stands for; both must be open. Returns what `to` stood for, if that was another.
    pub fn renumber(&mut self, from: u32, to: u32) -> Result<Option<T>, BadFd> {
        self.get(from)?;
        self.get(to)?;
        if from == to {
            return Ok(None);
        }
        let moved = self.close(from)?;
        Ok(core::mem::replace(self.get_mut(to)?, moved).into())
    }

    /// All open descriptors, to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.iter_mut().flatten()
    }

    /// The lowest free index, for which there is an entry then.
    fn free(&mut self) -> Result<usize, TableFull> {
        while self.entries.get(self.lowest_free).is_some_and(Option::is_some) {
            self.lowest_free += 1;
        }
        if self.lowest_free == self.entries.len() {
            if self.lowest_free >= MAX_DESCRIPTORS || self.entries.try_reserve(1).is_err() {
                return Err(TableFull);
            }
            self.entries.push(None);
        }
        Ok(self.lowest_free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u16),
        Close(u32),
        Renumber(u32, u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            any::<u16>().prop_map(Step::Insert),
            (0u32..8).prop_map(Step::Close),
            (0u32..8, 0u32..8).prop_map(|(from, to)| Step::Renumber(from, to)),
        ]
    }

    proptest! {
        #[test]
        fn behaves_as_a_map_does(steps in prop::collection::vec(step(), 0..40)) {
            let mut table = FdTable::default();
            let mut model: BTreeMap<u32, u16> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Insert(value) => {
                        let lowest = (0..).find(|fd| !model.contains_key(fd)).unwrap();
                        prop_assert_eq!(table.insert(value), Ok(lowest));
                        model.insert(lowest, value);
                    }
                    Step::Close(fd) => prop_assert_eq!(table.close(fd).ok(), model.remove(&fd)),
                    Step::Renumber(from, to) => match (model.get(&from).copied(), model.get(&to).copied()) {
                        (Some(moved), Some(replaced)) => {
                            let expected = if from == to { None } else { Some(replaced) };
                            prop_assert_eq!(table.renumber(from, to), Ok(expected));
                            if from != to {
                                model.remove(&from);
                                model.insert(to, moved);
                            }
                        }
                        _ => prop_assert_eq!(table.renumber(from, to), Err(BadFd)),
                    },
                }
                for fd in 0..10 {
                    prop_assert_eq!(table.get(fd).ok(), model.get(&fd));
                }
            }
        }
    }

    #[test]
    fn any_number_is_safe_and_the_table_is_bounded() {
        let mut table = FdTable::default();
        for number in 0..MAX_DESCRIPTORS {
            assert_eq!(table.insert(()), Ok(number as u32));
        }
        assert_eq!(table.insert(()), Err(TableFull));
        assert_eq!(table.close(u32::MAX), Err(BadFd));
        assert_eq!(table.renumber(0, u32::MAX), Err(BadFd));
        assert_eq!(table.close(7), Ok(()));
        assert_eq!(table.insert(()), Ok(7));
    }
}
