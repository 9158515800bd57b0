//! A file system in memory: a tar archive, never written, and over it whatever the module changes.
//!
//! Files, names and link targets of the archive are slices of it. A file's first write copies the part it touches, no
//! more. Everything that takes memory is asked of a [`Budget`] before and given back after.
//!
//! Rules and errors are those of Linux (`openat`, `renameat`, …), with paths confined to the directory they start from,
//! as WASI preview 1 wants it. Not here: descriptors with their rights and positions, which are the caller's, and users,
//! permissions, devices and locks, which preview 1 does not have. Nothing is ever written back.
//!
//! A [`NodeId`] is good for as long as the node has a name or a reference ([`RamDisk::open`], [`RamDisk::retain`]);
//! after that it answers `badf`, and never means another node.

mod contents;
mod list;
mod load;
mod names;
mod node;
mod path;
mod pax;
mod tar;
#[cfg(test)]
mod tests;

use alloc::collections::BTreeMap;

use mote_abi::errno::Errno;
use mote_abi::file::FileStat;

use contents::Contents;
use node::{Kind, Node, Times};

pub use list::DirectoryEntry;
pub use node::{NodeId, ROOT};
pub use tar::{TarError, TarProblem};

/// Device number in every [`FileStat`].
pub const DEVICE: u64 = 1;

/// The memory a disk may use.
pub trait Budget {
    /// Reserves `bytes`; `false`, with nothing reserved, if there is no room for all of them.
    fn take(&mut self, bytes: u64) -> bool;
    /// Gives back bytes taken before.
    fn give(&mut self, bytes: u64);
}

/// The file system.
#[derive(Debug)]
pub struct RamDisk<'a, B> {
    nodes: BTreeMap<NodeId, Node<'a>>,
    next_id: u64,
    skipped: u64,
    budget: B,
}

/// References of descriptors.
impl<B: Budget> RamDisk<'_, B> {
    /// Takes one more reference on `node`, which keeps it when it loses its last name.
    pub fn retain(&mut self, node: NodeId) -> Result<(), Errno> {
        let references = &mut self.node_mut(node)?.references;
        *references = references.checked_add(1).ok_or(Errno::Nfile)?;
        Ok(())
    }

    /// Gives a reference back.
    pub fn release(&mut self, node: NodeId) {
        if let Ok(found) = self.node_mut(node) {
            found.references = found.references.saturating_sub(1);
            self.drop_if_unused(node);
        }
    }
}

/// Data of files. Offsets and sizes are at most 2^63-1.
impl<'a, B: Budget> RamDisk<'a, B> {
    /// Reads from `offset` on; fewer bytes than asked for, or none, at the end of the file. Access times stay as they are.
    pub fn read(&self, node: NodeId, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        let contents = match &self.node(node)?.kind {
            Kind::File(contents) => contents,
            Kind::Directory(_) => return Err(Errno::Isdir),
            Kind::Link(_) => return Err(Errno::Inval),
        };
        check_range(offset, buffer.len())?;
        Ok(contents.read(offset, buffer))
    }

    /// Writes at `offset`; a gap behind the end becomes zeros. Answers how many bytes there was room for; `nospc` only if
    /// that is none.
    pub fn write(&mut self, node: NodeId, offset: u64, bytes: &[u8], now_ns: u64) -> Result<usize, Errno> {
        let (contents, times, budget) = self.file_mut(node, Errno::Isdir)?;
        check_range(offset, bytes.len())?;
        let written = contents.write(offset, bytes, budget)?;
        if written > 0 {
            times.modified(now_ns);
        }
        Ok(written)
    }

    /// Cuts a file, or lengthens it with zeros, which take no memory.
    pub fn set_bytes(&mut self, node: NodeId, bytes: u64, now_ns: u64) -> Result<(), Errno> {
        let (contents, times, budget) = self.file_mut(node, Errno::Inval)?;
        check_range(bytes, 0)?;
        contents.set_bytes(bytes, budget);
        times.modified(now_ns);
        Ok(())
    }

    /// Takes the memory that later writes to this range will need; lengthens the file to its end if it is shorter. With
    /// `nospc`, the file is as it was.
    pub fn allocate(&mut self, node: NodeId, offset: u64, bytes: u64, now_ns: u64) -> Result<(), Errno> {
        let (contents, times, budget) = self.file_mut(node, Errno::Isdir)?;
        if bytes == 0 {
            return Err(Errno::Inval);
        }
        check_range(offset, 0)?;
        check_range(bytes, 0)?;
        let end = offset.checked_add(bytes).filter(|end| i64::try_from(*end).is_ok()).ok_or(Errno::Fbig)?;
        contents.allocate(offset, end, budget)?;
        times.modified(now_ns);
        Ok(())
    }

    fn file_mut(&mut self, node: NodeId, of_directory: Errno) -> Result<(&mut Contents<'a>, &mut Times, &mut B), Errno> {
        let node = self.nodes.get_mut(&node).ok_or(Errno::Badf)?;
        match &mut node.kind {
            Kind::File(contents) => Ok((contents, &mut node.times, &mut self.budget)),
            Kind::Directory(_) => Err(of_directory),
            Kind::Link(_) => Err(Errno::Inval),
        }
    }
}

/// Attributes.
impl<B: Budget> RamDisk<'_, B> {
    /// What is known of `node`. Directories have no bytes.
    pub fn stat(&self, node: NodeId) -> Result<FileStat, Errno> {
        let found = self.node(node)?;
        Ok(FileStat {
            device: DEVICE,
            inode: node.inode(),
            file_type: found.kind.file_type(),
            reserved: [0; 7],
            links: found.links,
            bytes: found.kind.bytes(),
            accessed_ns: found.times.accessed_ns,
            modified_ns: found.times.modified_ns,
            changed_ns: found.times.changed_ns,
        })
    }

    /// Sets times; `None` leaves one as it is.
    pub fn set_times(
        &mut self,
        node: NodeId,
        accessed_ns: Option<u64>,
        modified_ns: Option<u64>,
        now_ns: u64,
    ) -> Result<(), Errno> {
        let times = &mut self.node_mut(node)?.times;
        if accessed_ns.is_some() || modified_ns.is_some() {
            times.accessed_ns = accessed_ns.unwrap_or(times.accessed_ns);
            times.modified_ns = modified_ns.unwrap_or(times.modified_ns);
            times.changed_ns = now_ns;
        }
        Ok(())
    }

    /// Entries of the archive that were left out: devices, pipes and types unknown here.
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }
}

/// Nodes.
impl<'a, B: Budget> RamDisk<'a, B> {
    fn node(&self, id: NodeId) -> Result<&Node<'a>, Errno> {
        self.nodes.get(&id).ok_or(Errno::Badf)
    }

    fn node_mut(&mut self, id: NodeId) -> Result<&mut Node<'a>, Errno> {
        self.nodes.get_mut(&id).ok_or(Errno::Badf)
    }

    /// Forgets a node without names and references.
    fn drop_if_unused(&mut self, id: NodeId) {
        if self.nodes.get(&id).is_some_and(|node| node.links == 0 && node.references == 0)
            && let Some(node) = self.nodes.remove(&id)
        {
            self.budget.give(node.memory_bytes());
        }
    }
}

/// Linux answers `inval` as well for a range that would end behind 2^63-1.
fn check_range(offset: u64, bytes: usize) -> Result<(), Errno> {
    let end = offset.checked_add(bytes as u64).ok_or(Errno::Inval)?;
    i64::try_from(end).map(drop).map_err(|_| Errno::Inval)
}
