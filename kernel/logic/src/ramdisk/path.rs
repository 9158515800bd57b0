//! Resolution of paths: as Linux does it (`namei`), confined to the directory a path starts from (`RESOLVE_BENEATH`).

use alloc::vec::Vec;

use mote_abi::errno::Errno;
use mote_abi::file::{MAX_NAME_BYTES, MAX_PATH_BYTES};

use super::node::Kind;
use super::{Budget, NodeId, RamDisk};

/// Symbolic links followed for one path.
pub(super) const MAX_LINKS: u32 = 40;

/// The last component of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last<'p> {
    Name {
        name: &'p str,
        /// Whether a slash follows.
        slash: bool,
    },
    Dot,
    DotDot,
}

/// What a path leads to.
#[derive(Debug)]
pub(super) enum Found<'p> {
    Node(NodeId),
    /// Nothing, but there is a directory for it.
    Missing {
        parent: NodeId,
        name: &'p str,
    },
}

impl<B: Budget> RamDisk<'_, B> {
    /// The node at `path` from `dir`; a symbolic link itself unless `follow` is set or a slash is behind it.
    pub fn lookup(&self, dir: NodeId, path: &str, follow: bool) -> Result<NodeId, Errno> {
        match self.find(dir, path, follow, false)? {
            Found::Node(node) => Ok(node),
            Found::Missing { .. } => Err(Errno::Noent),
        }
    }

    /// As [`Self::lookup`], but to `create` a file if there is none: then no slash may be at the end.
    pub(super) fn find<'p>(&'p self, dir: NodeId, path: &'p str, follow: bool, create: bool) -> Result<Found<'p>, Errno> {
        check(path)?;
        let mut walk = Walk::new(self, dir);
        let mut must_be_directory = false;
        let mut text = path;
        loop {
            let (head, last) = split(text);
            walk.enter(head)?;
            let Last::Name { name, slash } = last else {
                if last == Last::DotDot {
                    walk.up()?;
                }
                return Ok(Found::Node(walk.at));
            };
            if slash && create {
                return Err(Errno::Isdir);
            }
            must_be_directory |= slash;
            let Some(node) = self.child(walk.at, name)? else { return Ok(Found::Missing { parent: walk.at, name }) };
            match &self.node(node)?.kind {
                Kind::Link(target) if follow || must_be_directory => text = walk.follow(target)?,
                Kind::Directory(_) => return Ok(Found::Node(node)),
                _ if must_be_directory => return Err(Errno::Notdir),
                _ => return Ok(Found::Node(node)),
            }
        }
    }

    /// The directory of the last component, and that.
    pub(super) fn parent<'p>(&self, dir: NodeId, path: &'p str) -> Result<(NodeId, Last<'p>), Errno> {
        check(path)?;
        let (head, last) = split(path);
        let mut walk = Walk::new(self, dir);
        walk.enter(head)?;
        if last == Last::DotDot && walk.at == dir { Err(Errno::Perm) } else { Ok((walk.at, last)) }
    }

    /// The directory at `path` from `at`, not leaving `base`, in which `at` is.
    pub(super) fn enter(&self, base: NodeId, at: NodeId, path: &str, links_left: &mut u32) -> Result<NodeId, Errno> {
        let mut walk = Walk { disk: self, base, at, links_left: *links_left };
        walk.enter(path)?;
        *links_left = walk.links_left;
        Ok(walk.at)
    }

    /// What `name` means in a directory that is not removed.
    pub(super) fn child(&self, dir: NodeId, name: &str) -> Result<Option<NodeId>, Errno> {
        let node = self.node(dir)?;
        let directory = node.directory()?;
        if node.links == 0 {
            return Err(Errno::Noent);
        }
        if name.len() > MAX_NAME_BYTES {
            return Err(Errno::Nametoolong);
        }
        Ok(directory.get(name))
    }
}

/// A way through the tree.
#[derive(Debug)]
struct Walk<'d, D> {
    disk: &'d D,
    base: NodeId,
    /// In `base`, or that itself.
    at: NodeId,
    links_left: u32,
}

impl<'d, 'a, B: Budget> Walk<'d, RamDisk<'a, B>> {
    const fn new(disk: &'d RamDisk<'a, B>, base: NodeId) -> Self {
        Self { disk, base, at: base, links_left: MAX_LINKS }
    }

    /// Goes along `path`, which leads to a directory. No component is the same directory.
    fn enter<'p>(&mut self, path: &'p str) -> Result<(), Errno>
    where
        'd: 'p,
    {
        // What comes after a link's target: one for each link that is being followed.
        let mut pending: Vec<&'p str> = Vec::new();
        let mut rest = path;
        loop {
            self.disk.node(self.at)?.directory()?;
            rest = rest.trim_start_matches('/');
            if rest.is_empty() {
                match pending.pop() {
                    Some(behind) => rest = behind,
                    None => return Ok(()),
                }
                continue;
            }
            let (name, behind) = rest.split_once('/').unwrap_or((rest, ""));
            rest = behind;
            match name {
                "." => {}
                ".." => self.up()?,
                _ => {
                    let node = self.disk.child(self.at, name)?.ok_or(Errno::Noent)?;
                    if let Kind::Link(target) = &self.disk.node(node)?.kind {
                        pending.push(behind);
                        rest = self.follow(target)?;
                    } else {
                        self.at = node;
                    }
                }
            }
        }
    }

    fn up(&mut self) -> Result<(), Errno> {
        if self.at == self.base {
            return Err(Errno::Perm);
        }
        self.at = self.disk.node(self.at)?.directory()?.parent;
        Ok(())
    }

    /// Counts a link; its target must be a path that can be walked.
    fn follow(&mut self, target: &'d str) -> Result<&'d str, Errno> {
        self.links_left = self.links_left.checked_sub(1).ok_or(Errno::Loop)?;
        check(target)?;
        Ok(target)
    }
}

/// Refuses what is no path within a directory.
pub(super) fn check(path: &str) -> Result<(), Errno> {
    match path {
        "" => Err(Errno::Noent),
        _ if path.len() > MAX_PATH_BYTES => Err(Errno::Nametoolong),
        _ if path.contains('\0') => Err(Errno::Inval),
        _ if path.starts_with('/') => Err(Errno::Perm),
        _ => Ok(()),
    }
}

/// The part before the last component, and that.
fn split(path: &str) -> (&str, Last<'_>) {
    let trimmed = path.trim_end_matches('/');
    let (head, name) = trimmed.rsplit_once('/').unwrap_or(("", trimmed));
    let last = match name {
        "." => Last::Dot,
        ".." => Last::DotDot,
        _ => Last::Name { name, slash: trimmed.len() < path.len() },
    };
    (head, last)
}
