//! Nodes (files, directories, symbolic links) and what each of them takes of the budget. No paths here.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::borrow::Borrow;
use core::ops::Deref;

use mote_abi::errno::Errno;
use mote_abi::file::file_type;

use super::contents::Contents;

/// A file, directory or symbolic link. Numbers are never used again, so they are inode numbers as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u64);

/// The directory `/`.
pub const ROOT: NodeId = NodeId(1);

impl NodeId {
    pub(super) const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its inode number.
    pub const fn inode(self) -> u64 {
        self.0
    }
}

/// What a node and a name take in their maps, which are at least half full.
const NODE_BYTES: u64 = 2 * size_of::<(NodeId, Node<'static>)>() as u64;
const ENTRY_BYTES: u64 = 2 * size_of::<(Text<'static>, Entry, u64, Text<'static>)>() as u64;
/// What a directory takes besides as soon as it has a name: the first nodes of its maps, with room for 11.
const DIRECTORY_BYTES: u64 = 11 * size_of::<(Text<'static>, Entry, u64, Text<'static>)>() as u64;
/// What an allocation takes beside its bytes: the counts of an `Arc`, and rounding.
const ALLOCATION_BYTES: u64 = 32;

#[derive(Debug)]
pub(super) struct Node<'a> {
    /// Names; of a directory, 2 and its directories, or 0 once it is removed.
    pub(super) links: u64,
    /// References of descriptors.
    pub(super) references: u32,
    pub(super) times: Times,
    pub(super) kind: Kind<'a>,
}

impl<'a> Node<'a> {
    pub(super) fn new(kind: Kind<'a>, now_ns: u64) -> Self {
        let links = if matches!(kind, Kind::Directory(_)) { 2 } else { 1 };
        Self { links, references: 0, times: Times::all(now_ns), kind }
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        NODE_BYTES
            + match &self.kind {
                Kind::File(contents) => contents.memory_bytes(),
                Kind::Directory(_) => DIRECTORY_BYTES,
                Kind::Link(target) => target.memory_bytes(),
            }
    }

    pub(super) const fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory(_))
    }

    pub(super) fn directory(&self) -> Result<&Directory<'a>, Errno> {
        if let Kind::Directory(directory) = &self.kind { Ok(directory) } else { Err(Errno::Notdir) }
    }

    pub(super) fn directory_mut(&mut self) -> Result<&mut Directory<'a>, Errno> {
        if let Kind::Directory(directory) = &mut self.kind { Ok(directory) } else { Err(Errno::Notdir) }
    }
}

#[derive(Debug)]
pub(super) enum Kind<'a> {
    File(Contents<'a>),
    Directory(Directory<'a>),
    Link(Text<'a>),
}

impl Kind<'_> {
    pub(super) const fn file_type(&self) -> u8 {
        match self {
            Self::File(_) => file_type::REGULAR_FILE,
            Self::Directory(_) => file_type::DIRECTORY,
            Self::Link(_) => file_type::SYMBOLIC_LINK,
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::File(contents) => contents.bytes(),
            Self::Directory(_) => 0,
            Self::Link(target) => target.len() as u64,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) accessed_ns: u64,
    pub(super) modified_ns: u64,
    pub(super) changed_ns: u64,
}

impl Times {
    pub(super) const fn all(ns: u64) -> Self {
        Self { accessed_ns: ns, modified_ns: ns, changed_ns: ns }
    }

    pub(super) const fn modified(&mut self, now_ns: u64) {
        self.modified_ns = now_ns;
        self.changed_ns = now_ns;
    }
}

/// A directory's names. Each has a serial number, by which a listing finds its place again.
#[derive(Debug)]
pub(super) struct Directory<'a> {
    /// The root's is the root.
    pub(super) parent: NodeId,
    names: BTreeMap<Text<'a>, Entry>,
    /// Those in `names`, by number.
    order: BTreeMap<u64, Text<'a>>,
    next_serial: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    serial: u64,
    node: NodeId,
}

impl<'a> Directory<'a> {
    pub(super) const fn new(parent: NodeId) -> Self {
        Self { parent, names: BTreeMap::new(), order: BTreeMap::new(), next_serial: 0 }
    }

    pub(super) fn get(&self, name: &str) -> Option<NodeId> {
        self.names.get(name).map(|entry| entry.node)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Adds a name that is not there.
    pub(super) fn insert(&mut self, name: Text<'a>, node: NodeId) {
        self.insert_at(self.next_serial, name, node);
        self.next_serial = self.next_serial.wrapping_add(1);
    }

    /// Makes a name that is there mean another node. Its place in listings stays.
    pub(super) fn replace(&mut self, name: &str, node: NodeId) {
        if let Some(entry) = self.names.get_mut(name) {
            entry.node = node;
        }
    }

    /// Gives an entry a name that is not there. Its place in listings stays, so a scan that renames meets it once. Answers
    /// what the entry took of the budget before.
    pub(super) fn rename(&mut self, from: &str, to: Text<'a>) -> u64 {
        let Some((from, entry)) = self.names.remove_entry(from) else { return 0 };
        self.insert_at(entry.serial, to, entry.node);
        entry_bytes(&from)
    }

    /// Removes a name; answers what its entry took of the budget.
    pub(super) fn remove(&mut self, name: &str) -> u64 {
        let Some((name, entry)) = self.names.remove_entry(name) else { return 0 };
        self.order.remove(&entry.serial);
        entry_bytes(&name)
    }

    /// Entries below a serial number, newest first.
    pub(super) fn below(&self, serial: u64) -> impl Iterator<Item = (u64, &str, NodeId)> {
        self.order.range(..serial).rev().filter_map(|(serial, name)| Some((*serial, &**name, self.get(name)?)))
    }

    fn insert_at(&mut self, serial: u64, name: Text<'a>, node: NodeId) {
        self.order.insert(serial, name.clone());
        self.names.insert(name, Entry { serial, node });
    }
}

/// What a name in a directory takes of the budget.
pub(super) fn entry_bytes(name: &Text<'_>) -> u64 {
    ENTRY_BYTES + name.memory_bytes()
}

/// A name or a link's target.
#[derive(Debug, Clone)]
pub(super) enum Text<'a> {
    Archive(&'a str),
    Made(Arc<str>),
}

impl Text<'_> {
    pub(super) fn made(text: &str) -> Self {
        Self::Made(text.into())
    }

    fn memory_bytes(&self) -> u64 {
        match self {
            Self::Archive(_) => 0,
            Self::Made(text) => ALLOCATION_BYTES + text.len() as u64,
        }
    }
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Archive(text) => text,
            Self::Made(text) => text,
        }
    }
}

impl Borrow<str> for Text<'_> {
    fn borrow(&self) -> &str {
        self
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Text<'_> {}

impl PartialOrd for Text<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text<'_> {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        (**self).cmp(&**other)
    }
}
