//! Makes the tree of an archive's entries, as `tar -x` would: later entries replace earlier ones.

use mote_abi::errno::Errno;

use super::contents::Contents;
use super::node::{Directory, Kind, Node, Text, Times};
use super::path::MAX_LINKS;
use super::tar::{Entries, Entry, EntryKind, Path};
use super::{BTreeMap, Budget, NodeId, ROOT, RamDisk, TarError, TarProblem};

impl<'a, B: Budget> RamDisk<'a, B> {
    /// The file system of `archive`; empty bytes are an empty one. `now_ns` is for directories without an entry.
    pub fn new(archive: &'a [u8], budget: B, now_ns: u64) -> Result<Self, TarError> {
        let root = Node::new(Kind::Directory(Directory::new(ROOT)), now_ns);
        let next_id = ROOT.inode().wrapping_add(1);
        let mut disk = Self { nodes: BTreeMap::from([(ROOT, root)]), next_id, skipped: 0, budget };
        let mut entries = Entries::new(archive);
        while let Some(entry) = entries.next()? {
            disk.extract(&entry, now_ns).map_err(|problem| entry.error(problem))?;
        }
        disk.skipped = entries.skipped();
        Ok(disk)
    }

    fn extract(&mut self, entry: &Entry<'a>, now_ns: u64) -> Result<(), TarProblem> {
        let Some((parent, name)) = self.place(entry.path, now_ns)? else {
            let EntryKind::Directory = entry.kind else { return Err(TarProblem::Occupied) };
            return self.set_entry_times(ROOT, entry.modified_ns);
        };
        let present = self.child(parent, name).map_err(problem)?;
        let kind = match entry.kind {
            EntryKind::File(data) => Kind::File(Contents::of_archive(data)),
            EntryKind::Symlink("") => return Err(TarProblem::BadPath),
            EntryKind::Symlink(target) => Kind::Link(Text::Archive(target)),
            EntryKind::Directory => match present {
                Some(node) if self.node(node).map_err(problem)?.is_directory() => {
                    return self.set_entry_times(node, entry.modified_ns);
                }
                _ => Kind::Directory(Directory::new(parent)),
            },
            EntryKind::HardLink(target) => {
                let target = self.hard_link_target(target)?;
                if present != Some(target) {
                    self.clear(parent, name, present)?;
                    self.add_name(parent, Text::Archive(name), target).map_err(problem)?;
                }
                return Ok(());
            }
        };
        self.clear(parent, name, present)?;
        self.make(parent, Text::Archive(name), Node::new(kind, entry.modified_ns)).map_err(problem)?;
        Ok(())
    }

    /// The directory an entry goes into, made if need be, and its name there; `None` for the root. Symbolic links on the
    /// way are followed within the root.
    fn place(&mut self, path: Path<'a>, now_ns: u64) -> Result<Option<(NodeId, &'a str)>, TarProblem> {
        let mut components = path.components();
        let Some(mut name) = components.next() else { return Ok(None) };
        let (mut at, mut links_left) = (ROOT, MAX_LINKS);
        for next in components {
            at = if self.child(at, name).map_err(problem)?.is_some() {
                self.enter(ROOT, at, name, &mut links_left).map_err(problem)?
            } else {
                let directory = Node::new(Kind::Directory(Directory::new(at)), now_ns);
                self.make(at, Text::Archive(name), directory).map_err(problem)?
            };
            name = next;
        }
        Ok(Some((at, name)))
    }

    /// What is at `path`, if that can have one more name.
    fn hard_link_target(&self, path: Path<'a>) -> Result<NodeId, TarProblem> {
        let mut components = path.components();
        let mut name = components.next().ok_or(TarProblem::LinkTarget)?;
        let (mut at, mut links_left) = (ROOT, MAX_LINKS);
        for next in components {
            at = self.enter(ROOT, at, name, &mut links_left).map_err(|_| TarProblem::LinkTarget)?;
            name = next;
        }
        let node = self.child(at, name).map_err(problem)?.ok_or(TarProblem::LinkTarget)?;
        let is_directory = self.node(node).map_err(problem)?.is_directory();
        if is_directory { Err(TarProblem::LinkTarget) } else { Ok(node) }
    }

    /// Removes what has the name of an entry.
    fn clear(&mut self, parent: NodeId, name: &str, present: Option<NodeId>) -> Result<(), TarProblem> {
        let Some(node) = present else { return Ok(()) };
        if let Kind::Directory(directory) = &self.node(node).map_err(problem)?.kind {
            if !directory.is_empty() {
                return Err(TarProblem::Occupied);
            }
            self.node_mut(parent).map_err(problem)?.links -= 1;
        }
        self.remove_name(parent, name).map_err(problem)?;
        // Times of directories are those of their entries, whatever is made in them.
        self.lose_name(node, 0).map_err(problem)
    }

    fn set_entry_times(&mut self, node: NodeId, ns: u64) -> Result<(), TarProblem> {
        self.node_mut(node).map_err(problem)?.times = Times::all(ns);
        Ok(())
    }
}

/// Nodes are there as the loader has just seen them, and names were checked: what is left is a path that leads nowhere, or
/// no budget.
const fn problem(errno: Errno) -> TarProblem {
    if matches!(errno, Errno::Nospc) { TarProblem::NoSpace } else { TarProblem::NotDirectory }
}
