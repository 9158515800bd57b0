//! What changes names: opening with creation, making, linking, renaming, removing.

use mote_abi::errno::Errno;
use mote_abi::file::oflags;

use super::contents::Contents;
use super::node::{Directory, Kind, Node, Text, entry_bytes};
use super::path::{Found, Last, check};
use super::{Budget, NodeId, ROOT, RamDisk};

impl<'a, B: Budget> RamDisk<'a, B> {
    /// Opens `path` from `dir`, with bits of [`oflags`], and takes a reference on what is there. `follow` is for a
    /// symbolic link in the last place; `write` asks for a file, not a directory.
    pub fn open(&mut self, dir: NodeId, path: &str, follow: bool, flags: u16, write: bool, now_ns: u64) -> Result<NodeId, Errno> {
        let [create, directory, exclusive, truncate] =
            [oflags::CREAT, oflags::DIRECTORY, oflags::EXCL, oflags::TRUNC].map(|flag| flags & flag != 0);
        if create && directory {
            return Err(Errno::Inval);
        }
        let node = match self.find(dir, path, follow && !(create && exclusive), create)? {
            Found::Missing { parent, name } if create => {
                let name = Text::made(name);
                let file = self.make(parent, name, Node::new(Kind::File(Contents::default()), now_ns))?;
                self.touch(parent, now_ns);
                file
            }
            Found::Missing { .. } => return Err(Errno::Noent),
            Found::Node(_) if create && exclusive => return Err(Errno::Exist),
            Found::Node(node) => {
                match &self.node(node)?.kind {
                    Kind::Directory(_) if create || write || truncate => return Err(Errno::Isdir),
                    Kind::Directory(_) => {}
                    _ if directory => return Err(Errno::Notdir),
                    Kind::Link(_) => return Err(Errno::Loop),
                    Kind::File(_) if truncate => self.set_bytes(node, 0, now_ns)?,
                    Kind::File(_) => {}
                }
                node
            }
        };
        self.retain(node)?;
        Ok(node)
    }

    /// Makes a directory.
    pub fn create_directory(&mut self, dir: NodeId, path: &str, now_ns: u64) -> Result<(), Errno> {
        let (parent, name) = self.vacant(dir, path, true)?;
        self.make(parent, Text::made(name), Node::new(Kind::Directory(Directory::new(parent)), now_ns))?;
        self.touch(parent, now_ns);
        Ok(())
    }

    /// Makes a symbolic link. Its target need not exist, but must be relative; it is only followed within the directory that
    /// a path starts from.
    pub fn symlink(&mut self, target: &str, dir: NodeId, path: &str, now_ns: u64) -> Result<(), Errno> {
        check(target)?;
        let (parent, name) = self.vacant(dir, path, false)?;
        self.make(parent, Text::made(name), Node::new(Kind::Link(Text::made(target)), now_ns))?;
        self.touch(parent, now_ns);
        Ok(())
    }

    /// The target of a symbolic link.
    pub fn readlink(&self, dir: NodeId, path: &str) -> Result<&str, Errno> {
        match &self.node(self.lookup(dir, path, false)?)?.kind {
            Kind::Link(target) => Ok(target),
            _ => Err(Errno::Inval),
        }
    }

    /// Gives a file, or a symbolic link itself, one more name.
    pub fn link(&mut self, old_dir: NodeId, old_path: &str, new_dir: NodeId, new_path: &str, now_ns: u64) -> Result<(), Errno> {
        let node = self.lookup(old_dir, old_path, false)?;
        let (parent, name) = self.vacant(new_dir, new_path, false)?;
        if self.node(node)?.is_directory() {
            return Err(Errno::Perm);
        }
        self.add_name(parent, Text::made(name), node)?;
        self.node_mut(node)?.times.changed_ns = now_ns;
        self.touch(parent, now_ns);
        Ok(())
    }

    /// Removes a name of a file or symbolic link. The file goes with its last name and reference.
    pub fn unlink_file(&mut self, dir: NodeId, path: &str, now_ns: u64) -> Result<(), Errno> {
        let (parent, last) = self.parent(dir, path)?;
        let Last::Name { name, slash } = last else { return Err(Errno::Isdir) };
        let node = self.child(parent, name)?.ok_or(Errno::Noent)?;
        if self.node(node)?.is_directory() {
            return Err(Errno::Isdir);
        }
        if slash {
            return Err(Errno::Notdir);
        }
        self.remove_name(parent, name)?;
        self.touch(parent, now_ns);
        self.lose_name(node, now_ns)
    }

    /// Removes an empty directory.
    pub fn remove_directory(&mut self, dir: NodeId, path: &str, now_ns: u64) -> Result<(), Errno> {
        let (parent, last) = self.parent(dir, path)?;
        let name = match last {
            Last::Name { name, .. } => name,
            Last::Dot => return Err(Errno::Inval),
            Last::DotDot => return Err(Errno::Notempty),
        };
        let node = self.child(parent, name)?.ok_or(Errno::Noent)?;
        if !self.node(node)?.directory()?.is_empty() {
            return Err(Errno::Notempty);
        }
        self.remove_name(parent, name)?;
        self.node_mut(parent)?.links -= 1;
        self.touch(parent, now_ns);
        self.lose_name(node, now_ns)
    }

    /// Gives what is at `old_path` the name `new_path`, instead of what has that now.
    pub fn rename(&mut self, old_dir: NodeId, old_path: &str, new_dir: NodeId, new_path: &str, now_ns: u64) -> Result<(), Errno> {
        let (old_parent, old_last) = self.parent(old_dir, old_path)?;
        let (new_parent, new_last) = self.parent(new_dir, new_path)?;
        let Last::Name { name: old_name, slash: old_slash } = old_last else { return Err(Errno::Busy) };
        let Last::Name { name: new_name, slash: new_slash } = new_last else { return Err(Errno::Busy) };
        let moved = self.child(old_parent, old_name)?.ok_or(Errno::Noent)?;
        let target = self.child(new_parent, new_name)?;

        let is_directory = self.node(moved)?.is_directory();
        if !is_directory && (old_slash || new_slash) {
            return Err(Errno::Notdir);
        }
        if is_directory && self.is_within(new_parent, moved)? {
            return Err(Errno::Inval);
        }
        if let Some(target) = target {
            if self.node(target)?.is_directory() && self.is_within(old_parent, target)? {
                return Err(Errno::Notempty);
            }
            if target == moved {
                return Ok(());
            }
            self.check_replaceable(target, is_directory)?;
        }

        match target {
            Some(_) => {
                self.node_mut(new_parent)?.directory_mut()?.replace(new_name, moved);
                self.remove_name(old_parent, old_name)?;
            }
            None => self.move_name(old_parent, old_name, new_parent, Text::made(new_name))?,
        }
        if is_directory {
            self.node_mut(moved)?.directory_mut()?.parent = new_parent;
            self.node_mut(old_parent)?.links -= 1;
            // A directory that is replaced was counted already.
            self.node_mut(new_parent)?.links += u64::from(target.is_none());
        }
        self.node_mut(moved)?.times.changed_ns = now_ns;
        self.touch(old_parent, now_ns);
        self.touch(new_parent, now_ns);
        target.map_or(Ok(()), |target| self.lose_name(target, now_ns))
    }

    /// Adds a new node under a name that `parent`, a directory, does not have. Takes memory for both, or does nothing.
    pub(super) fn make(&mut self, parent: NodeId, name: Text<'a>, node: Node<'a>) -> Result<NodeId, Errno> {
        let is_directory = node.is_directory();
        let bytes = node.memory_bytes() + entry_bytes(&name);
        let parent_node = self.nodes.get_mut(&parent).ok_or(Errno::Badf)?;
        let directory = parent_node.directory_mut()?;
        if !self.budget.take(bytes) {
            return Err(Errno::Nospc);
        }
        let id = NodeId::new(self.next_id);
        directory.insert(name, id);
        parent_node.links += u64::from(is_directory);
        self.nodes.insert(id, node);
        // One a nanosecond would take 500 years to wrap.
        self.next_id = self.next_id.wrapping_add(1);
        Ok(id)
    }

    /// Gives a node that is no directory a name that `parent` does not have.
    pub(super) fn add_name(&mut self, parent: NodeId, name: Text<'a>, node: NodeId) -> Result<(), Errno> {
        if !self.budget.take(entry_bytes(&name)) {
            return Err(Errno::Nospc);
        }
        self.node_mut(parent)?.directory_mut()?.insert(name, node);
        self.node_mut(node)?.links += 1;
        Ok(())
    }

    /// Removes a name; the node does not learn of it.
    pub(super) fn remove_name(&mut self, parent: NodeId, name: &str) -> Result<(), Errno> {
        let bytes = self.node_mut(parent)?.directory_mut()?.remove(name);
        self.budget.give(bytes);
        Ok(())
    }

    /// A node lost a name; a directory, its only one.
    pub(super) fn lose_name(&mut self, id: NodeId, now_ns: u64) -> Result<(), Errno> {
        let node = self.node_mut(id)?;
        node.links = if node.is_directory() { 0 } else { node.links.saturating_sub(1) };
        node.times.changed_ns = now_ns;
        self.drop_if_unused(id);
        Ok(())
    }

    fn move_name(&mut self, old_parent: NodeId, old: &str, new_parent: NodeId, new: Text<'a>) -> Result<(), Errno> {
        let node = self.child(old_parent, old)?.ok_or(Errno::Noent)?;
        if !self.budget.take(entry_bytes(&new)) {
            return Err(Errno::Nospc);
        }
        if old_parent == new_parent {
            let bytes = self.node_mut(old_parent)?.directory_mut()?.rename(old, new);
            self.budget.give(bytes);
            Ok(())
        } else {
            self.node_mut(new_parent)?.directory_mut()?.insert(new, node);
            self.remove_name(old_parent, old)
        }
    }

    /// The directory and name for something new. A slash behind it is for a `directory` only.
    fn vacant<'p>(&self, dir: NodeId, path: &'p str, directory: bool) -> Result<(NodeId, &'p str), Errno> {
        let (parent, last) = self.parent(dir, path)?;
        let Last::Name { name, slash } = last else { return Err(Errno::Exist) };
        match self.child(parent, name)? {
            Some(_) => Err(Errno::Exist),
            None if slash && !directory => Err(Errno::Noent),
            None => Ok((parent, name)),
        }
    }

    fn check_replaceable(&self, target: NodeId, by_directory: bool) -> Result<(), Errno> {
        match (&self.node(target)?.kind, by_directory) {
            (Kind::Directory(_), false) => Err(Errno::Isdir),
            (Kind::Directory(directory), true) if !directory.is_empty() => Err(Errno::Notempty),
            (Kind::Directory(_), true) | (_, false) => Ok(()),
            (_, true) => Err(Errno::Notdir),
        }
    }

    /// Whether the directory `inner` is `outer` or somewhere below.
    fn is_within(&self, inner: NodeId, outer: NodeId) -> Result<bool, Errno> {
        let mut at = inner;
        while at != outer {
            if at == ROOT {
                return Ok(false);
            }
            at = self.node(at)?.directory()?.parent;
        }
        Ok(true)
    }

    /// The names in `dir` changed.
    fn touch(&mut self, dir: NodeId, now_ns: u64) {
        if let Ok(node) = self.node_mut(dir) {
            node.times.modified(now_ns);
        }
    }
}
