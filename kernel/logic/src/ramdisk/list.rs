//! Listings of directories.
//!
//! Newest entries come first, so that a scan ends even if the module makes or moves files as it goes. A cookie says where
//! to go on: 1 and 2 are behind `.` and `..`, and 3 more than a serial number is behind the entry of that number.

use mote_abi::errno::Errno;
use mote_abi::file::file_type;

use super::{Budget, NodeId, RamDisk};

/// Cookies below are for `.` and `..`.
const FIRST_COOKIE: u64 = 3;

/// An entry of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoryEntry<'d> {
    /// Goes on behind this entry.
    pub next_cookie: u64,
    /// Inode number.
    pub inode: u64,
    /// One of [`file_type`].
    pub file_type: u8,
    /// Its name.
    pub name: &'d str,
}

impl<B: Budget> RamDisk<'_, B> {
    /// The entries of `dir` from a cookie on; 0 is the start. An entry that is there throughout is met once in a scan,
    /// whatever else comes and goes. A removed directory has none at all.
    pub fn list(&self, dir: NodeId, cookie: u64) -> Result<impl Iterator<Item = DirectoryEntry<'_>>, Errno> {
        let node = self.node(dir)?;
        let directory = node.directory()?;
        let dot = |next_cookie, node: NodeId, name| DirectoryEntry {
            next_cookie,
            inode: node.inode(),
            file_type: file_type::DIRECTORY,
            name,
        };
        let dots = [dot(1, dir, "."), dot(2, directory.parent, "..")];
        let done = if node.links == 0 { dots.len() } else { cookie.min(2) as usize };
        let below = if cookie < FIRST_COOKIE { u64::MAX } else { cookie - FIRST_COOKIE };
        let entries = directory.below(below).filter_map(|(serial, name, node)| {
            Some(DirectoryEntry {
                next_cookie: serial.saturating_add(FIRST_COOKIE),
                inode: node.inode(),
                file_type: self.node(node).ok()?.kind.file_type(),
                name,
            })
        });
        Ok(dots.into_iter().skip(done).chain(entries))
    }
}
