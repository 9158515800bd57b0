//! What is in a directory, as far as two runs can be compared by it.

use std::{
    collections::BTreeMap,
    fs::{self, FileTimes},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Everything in a directory by its path, times and permissions left out.
pub(super) type Tree = BTreeMap<PathBuf, Entry>;

#[derive(PartialEq, Eq)]
pub(super) enum Entry {
    Directory,
    File(Vec<u8>),
    Link(PathBuf),
}

/// # Panics
///
/// If something cannot be read.
pub(super) fn read(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("cannot read a directory") {
            let entry = entry.expect("cannot read a directory");
            let (path, kind) = (entry.path(), entry.file_type().expect("a file has no type"));
            let found = if kind.is_dir() {
                folders.push(path.clone());
                Entry::Directory
            } else if kind.is_symlink() {
                Entry::Link(fs::read_link(&path).expect("cannot read a link"))
            } else {
                Entry::File(fs::read(&path).expect("cannot read a file"))
            };
            tree.insert(path.strip_prefix(root).expect("it is inside").to_path_buf(), found);
        }
    }
    tree
}

/// Paths at which two trees differ.
pub(super) fn differences(one: &Tree, other: &Tree) -> Vec<PathBuf> {
    let paths = one.keys().chain(other.keys().filter(|path| !one.contains_key(*path)));
    paths.filter(|path| one.get(*path) != other.get(*path)).cloned().collect()
}

/// Copies a directory of plain files and directories. All files get the same time of change: programs such as CPython
/// write it into what they derive from a file.
///
/// # Panics
///
/// If something cannot be copied.
pub(super) fn copy(from: &Path, to: &Path) {
    let changed = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    for (path, entry) in read(from) {
        let target = to.join(path);
        match entry {
            Entry::Directory => fs::create_dir(&target).expect("cannot create a directory"),
            Entry::File(bytes) => {
                fs::write(&target, bytes).expect("cannot write a file");
                let file = fs::File::options().write(true).open(&target).expect("cannot open a file");
                file.set_times(changed).expect("cannot set a time");
            }
            Entry::Link(_) => panic!("{} is a link", target.display()),
        }
    }
}
