//! Names, rule by rule. Where the rule is Linux's, `model` compares with it as well.

use alloc::string::String;
use alloc::vec::Vec;
use std::format;

use mote_abi::file::{MAX_PATH_BYTES, file_type, oflags::*};

use super::*;

/// A directory `d` with `d/f`, `d/e`, `d/up` to `../g`, a file `g`, links `to_d`, `to_g` and `loop`.
fn tree() -> Disk<'static> {
    let mut disk = empty();
    for dir in ["d", "d/e"] {
        disk.create_directory(ROOT, dir, 1).unwrap();
    }
    for file in ["d/f", "g"] {
        let file = disk.open(ROOT, file, true, CREAT, true, 1).unwrap();
        disk.release(file);
    }
    for (target, path) in [("../g", "d/up"), ("d", "to_d"), ("g", "to_g"), ("loop", "loop")] {
        disk.symlink(target, ROOT, path, 1).unwrap();
    }
    disk
}

#[test]
fn opening_follows_the_rules_of_openat() {
    let mut disk = tree();
    let node = |disk: &Disk<'_>, path| disk.lookup(ROOT, path, true).unwrap();
    let (d, g) = (node(&disk, "d"), node(&disk, "g"));
    let mut open = |path: &str, follow, flags, write| disk.open(ROOT, path, follow, flags, write, 2);
    assert_eq!(open("", true, 0, false), Err(Errno::Noent));
    assert_eq!(open(".", true, 0, false), Ok(ROOT));
    assert_eq!(open("d/.", true, DIRECTORY, false), Ok(d));
    assert_eq!(open("d/..//g", true, 0, true), Ok(g));
    assert_eq!(open("g/", true, 0, false), Err(Errno::Notdir));
    assert_eq!(open("g", true, DIRECTORY, false), Err(Errno::Notdir));
    assert_eq!(open("g/x", true, CREAT, true), Err(Errno::Notdir));
    assert_eq!(open("d", true, 0, true), Err(Errno::Isdir));
    assert_eq!(open("d", true, TRUNC, false), Err(Errno::Isdir));
    assert_eq!(open("d", true, CREAT, false), Err(Errno::Isdir));
    assert_eq!(open("d", true, CREAT | EXCL, false), Err(Errno::Exist));
    assert_eq!(open("new/", true, CREAT, true), Err(Errno::Isdir));
    assert_eq!(open("new", true, CREAT | DIRECTORY, false), Err(Errno::Inval));
    assert_eq!(open("to_g", true, 0, true), Ok(g));
    assert_eq!(open("to_g", false, 0, true), Err(Errno::Loop));
    assert_eq!(open("to_d", false, DIRECTORY, false), Err(Errno::Notdir));
    assert_eq!(open("to_d/", false, DIRECTORY, false), Ok(d));
    assert_eq!(open("to_g", true, CREAT | EXCL, true), Err(Errno::Exist));
    assert_eq!(open("loop", true, 0, false), Err(Errno::Loop));
    assert_eq!(open("loop/x", true, CREAT, false), Err(Errno::Loop));
}

#[test]
fn a_dangling_link_is_created_through() {
    let mut disk = tree();
    disk.symlink("d/new", ROOT, "dangling", 1).unwrap();
    let node = disk.open(ROOT, "dangling", true, CREAT, true, 2).unwrap();
    assert_eq!(disk.lookup(ROOT, "d/new", false), Ok(node));
}

#[test]
fn truncation_takes_no_right_to_write() {
    let mut disk = tree();
    let file = disk.open(ROOT, "g", true, 0, true, 2).unwrap();
    disk.write(file, 0, b"text", 2).unwrap();
    assert_eq!(disk.open(ROOT, "g", true, TRUNC, false, 9), Ok(file));
    let stat = disk.stat(file).unwrap();
    assert_eq!((stat.bytes, stat.modified_ns, stat.changed_ns, stat.accessed_ns), (0, 9, 9, 1));
}

#[test]
fn no_path_leaves_its_directory() {
    let mut disk = tree();
    let d = disk.open(ROOT, "d", true, DIRECTORY, false, 2).unwrap();
    for path in ["/", "/g", "..", "../g", "e/../../g", "up", "./e/../..", "e/../up"] {
        assert_eq!(disk.lookup(d, path, true), Err(Errno::Perm), "{path}");
    }
    assert!(disk.lookup(d, "up", false).is_ok(), "the link itself is inside");
    assert_eq!(disk.lookup(ROOT, "..", true), Err(Errno::Perm));
    assert_eq!(disk.lookup(ROOT, "d/up", true), disk.lookup(ROOT, "g", true));
    assert_eq!(disk.create_directory(d, "../x", 2), Err(Errno::Perm));
    assert_eq!(disk.create_directory(d, "..", 2), Err(Errno::Perm));
    assert_eq!(disk.unlink_file(d, "../g", 2), Err(Errno::Perm));
    assert_eq!(disk.rename(d, "f", d, "../f", 2), Err(Errno::Perm));
    assert_eq!(disk.link(d, "../g", d, "x", 2), Err(Errno::Perm));
    assert_eq!(disk.symlink("/g", d, "x", 2), Err(Errno::Perm));
    assert_eq!(disk.open(d, "up/", true, CREAT, true, 2), Err(Errno::Isdir));
    // A directory that moved is still the end of the way up.
    disk.rename(ROOT, "d", ROOT, "moved", 2).unwrap();
    assert_eq!(disk.lookup(d, "e/../..", true), Err(Errno::Perm));
    let archive = super::archive::links(&[("abs", "/g"), ("g", "nothing")]);
    let disk = RamDisk::new(&archive, Counted::new(1 << 20), 0).unwrap();
    assert_eq!(disk.lookup(ROOT, "abs", true), Err(Errno::Perm));
    assert_eq!(disk.readlink(ROOT, "abs"), Ok("/g"));
}

#[test]
fn forty_links_are_followed_and_no_more() {
    let mut disk = tree();
    disk.symlink("g", ROOT, "l0", 1).unwrap();
    for at in 1..=40 {
        disk.symlink(&format!("l{}", at - 1), ROOT, &format!("l{at}"), 1).unwrap();
    }
    assert_eq!(disk.lookup(ROOT, "l39", true), disk.lookup(ROOT, "g", true));
    assert_eq!(disk.lookup(ROOT, "l40", true), Err(Errno::Loop));
    // They count for the whole path.
    disk.symlink(".", ROOT, "here", 1).unwrap();
    assert!(disk.lookup(ROOT, &("here/".repeat(40) + "g"), true).is_ok());
    assert_eq!(disk.lookup(ROOT, &("here/".repeat(41) + "g"), true), Err(Errno::Loop));
    // Each of these doubles what the one before walks.
    disk.symlink(".", ROOT, "x0", 1).unwrap();
    for at in 1..60 {
        disk.symlink(&format!("x{0}/x{0}", at - 1), ROOT, &format!("x{at}"), 1).unwrap();
    }
    assert_eq!(disk.lookup(ROOT, "x59", true), Err(Errno::Loop));
}

#[test]
fn long_and_strange_paths_are_refused() {
    let mut disk = tree();
    let name = "n".repeat(255);
    assert_eq!(disk.create_directory(ROOT, &name, 2), Ok(()));
    assert_eq!(disk.create_directory(ROOT, &(name.clone() + "n"), 2), Err(Errno::Nametoolong));
    assert_eq!(disk.lookup(ROOT, &(name + "n/x"), true), Err(Errno::Nametoolong));
    let longest = "./".repeat(MAX_PATH_BYTES / 2) + "d";
    assert_eq!(longest.len(), MAX_PATH_BYTES);
    assert_eq!(disk.lookup(ROOT, &longest, true), disk.lookup(ROOT, "d", true));
    assert_eq!(disk.lookup(ROOT, &(longest.clone() + "/"), true), Err(Errno::Nametoolong));
    assert_eq!(disk.symlink(&(longest + "/"), ROOT, "x", 2), Err(Errno::Nametoolong));
    assert_eq!(disk.symlink("", ROOT, "x", 2), Err(Errno::Noent));
    assert_eq!(disk.create_directory(ROOT, "a\0b", 2), Err(Errno::Inval));
    assert_eq!(disk.lookup(NodeId::new(99), "x", true), Err(Errno::Badf));
    assert_eq!(disk.create_directory(ROOT, "ein/ß", 2), Err(Errno::Noent));
    assert_eq!(disk.create_directory(ROOT, "ß", 2), Ok(()));
}

#[test]
fn removing_asks_for_the_right_kind() {
    let mut disk = tree();
    assert_eq!(disk.unlink_file(ROOT, "d", 2), Err(Errno::Isdir));
    assert_eq!(disk.unlink_file(ROOT, "g/", 2), Err(Errno::Notdir));
    assert_eq!(disk.unlink_file(ROOT, "to_d/", 2), Err(Errno::Notdir));
    assert_eq!(disk.unlink_file(ROOT, ".", 2), Err(Errno::Isdir));
    assert_eq!(disk.remove_directory(ROOT, "g", 2), Err(Errno::Notdir));
    assert_eq!(disk.remove_directory(ROOT, "to_d", 2), Err(Errno::Notdir));
    assert_eq!(disk.remove_directory(ROOT, "d", 2), Err(Errno::Notempty));
    assert_eq!(disk.remove_directory(ROOT, "d/.", 2), Err(Errno::Inval));
    assert_eq!(disk.remove_directory(ROOT, "d/e/..", 2), Err(Errno::Notempty));
    assert_eq!(disk.remove_directory(ROOT, ".", 2), Err(Errno::Inval));
    assert_eq!(disk.remove_directory(ROOT, "d/e/", 2), Ok(()));
    assert_eq!(disk.unlink_file(ROOT, "to_d", 2), Ok(()));
    assert_eq!(names(&disk, ROOT), ["d", "g", "loop", "to_g"]);
}

#[test]
fn a_directory_removed_while_open_is_empty_and_stays_so() {
    let mut disk = tree();
    let e = disk.open(ROOT, "d/e", true, DIRECTORY, false, 2).unwrap();
    disk.remove_directory(ROOT, "d/e", 3).unwrap();
    assert_eq!(disk.list(e, 0).unwrap().count(), 0);
    assert_eq!(disk.stat(e).unwrap().links, 0);
    assert_eq!(disk.lookup(e, ".", true), Ok(e));
    assert_eq!(disk.lookup(e, "..", true), Err(Errno::Perm));
    assert_eq!(disk.lookup(e, "x", true), Err(Errno::Noent));
    assert_eq!(disk.open(e, "x", true, CREAT, true, 4), Err(Errno::Noent));
    assert_eq!(disk.create_directory(e, "x", 4), Err(Errno::Noent));
    assert_eq!(disk.symlink("x", e, "x", 4), Err(Errno::Noent));
    assert_eq!(disk.link(ROOT, "g", e, "x", 4), Err(Errno::Noent));
    assert_eq!(disk.rename(ROOT, "g", e, "x", 4), Err(Errno::Noent));
    // Even when the directory it was in is gone as well.
    for name in ["d/f", "d/up"] {
        disk.unlink_file(ROOT, name, 5).unwrap();
    }
    disk.remove_directory(ROOT, "d", 5).unwrap();
    assert_eq!(disk.list(e, 0).unwrap().count(), 0);
    assert_eq!(disk.rename(ROOT, "to_g", e, "x", 6), Err(Errno::Noent));
    disk.release(e);
    assert_eq!(disk.stat(e), Err(Errno::Badf));
}

#[test]
fn renaming_follows_the_rules_of_renameat() {
    let mut disk = tree();
    disk.create_directory(ROOT, "full", 1).unwrap();
    disk.create_directory(ROOT, "full/x", 1).unwrap();
    disk.create_directory(ROOT, "none", 1).unwrap();
    disk.link(ROOT, "g", ROOT, "g2", 1).unwrap();
    let mut rename = |old: &str, new: &str| disk.rename(ROOT, old, ROOT, new, 2);
    assert_eq!(rename("g", "none"), Err(Errno::Isdir));
    assert_eq!(rename("d", "g"), Err(Errno::Notdir));
    assert_eq!(rename("d", "full"), Err(Errno::Notempty));
    assert_eq!(rename("d", "d/e/x"), Err(Errno::Inval));
    assert_eq!(rename("d", "to_d/x"), Err(Errno::Inval));
    assert_eq!(rename("d/e", "d"), Err(Errno::Notempty));
    assert_eq!(rename("d/f", "d"), Err(Errno::Notempty));
    assert_eq!(rename("g", "new/"), Err(Errno::Notdir));
    assert_eq!(rename("to_d/", "new"), Err(Errno::Notdir));
    assert_eq!(rename(".", "new"), Err(Errno::Busy));
    assert_eq!(rename("d/e/..", "new"), Err(Errno::Busy));
    assert_eq!(rename("d", "."), Err(Errno::Busy));
    assert_eq!(rename("gone", "new"), Err(Errno::Noent));
    assert_eq!(rename("d", "gone/new"), Err(Errno::Noent));
    assert_eq!(rename("d", "d"), Ok(()));
    assert_eq!(rename("g", "g2"), Ok(()));
    assert_eq!(rename("d/", "none/"), Ok(()));
    assert_eq!(rename("none/e", "full/new/"), Ok(()));
    assert_eq!(rename("to_g", "none/f"), Ok(()));
    let links = |disk: &Disk<'_>, path| disk.lookup(ROOT, path, false).and_then(|node| disk.stat(node)).unwrap().links;
    assert_eq!(names(&disk, ROOT), ["full", "g", "g2", "loop", "none", "to_d"], "two names of a file stay two");
    assert_eq!((links(&disk, "."), links(&disk, "full"), links(&disk, "none"), links(&disk, "g")), (4, 4, 2, 2));
    assert_eq!(disk.readlink(ROOT, "none/f"), Ok("g"));
}

#[test]
fn hard_links_are_for_files() {
    let mut disk = tree();
    assert_eq!(disk.link(ROOT, "d", ROOT, "x", 2), Err(Errno::Perm));
    assert_eq!(disk.link(ROOT, "g", ROOT, "d", 2), Err(Errno::Exist));
    assert_eq!(disk.link(ROOT, "g", ROOT, "x/", 2), Err(Errno::Noent));
    assert_eq!(disk.link(ROOT, "to_g", ROOT, "x", 2), Ok(()));
    assert_eq!(disk.readlink(ROOT, "x"), Ok("g"), "a link's link is the same link");
    assert_eq!(disk.lookup(ROOT, "to_g", false), disk.lookup(ROOT, "x", false));
}

#[test]
fn times_change_with_what_they_are_of() {
    let mut disk = empty();
    let times = |disk: &Disk<'_>, node| {
        let stat = disk.stat(node).unwrap();
        (stat.accessed_ns, stat.modified_ns, stat.changed_ns)
    };
    let file = disk.open(ROOT, "f", true, CREAT, true, 1).unwrap();
    assert_eq!((times(&disk, file), times(&disk, ROOT)), ((1, 1, 1), (0, 1, 1)));
    disk.write(file, 0, b"", 2).unwrap();
    assert_eq!(times(&disk, file), (1, 1, 1));
    disk.write(file, 0, b"x", 3).unwrap();
    assert_eq!((times(&disk, file), times(&disk, ROOT)), ((1, 3, 3), (0, 1, 1)));
    disk.set_times(file, Some(70), None, 4).unwrap();
    assert_eq!(times(&disk, file), (70, 3, 4));
    disk.set_times(file, None, Some(80), 5).unwrap();
    disk.set_times(file, None, None, 6).unwrap();
    assert_eq!(times(&disk, file), (70, 80, 5));
    disk.link(ROOT, "f", ROOT, "g", 7).unwrap();
    assert_eq!((times(&disk, file), times(&disk, ROOT)), ((70, 80, 7), (0, 7, 7)));
    disk.rename(ROOT, "f", ROOT, "h", 8).unwrap();
    assert_eq!((times(&disk, file), times(&disk, ROOT)), ((70, 80, 8), (0, 8, 8)));
    disk.unlink_file(ROOT, "h", 9).unwrap();
    assert_eq!((times(&disk, file), times(&disk, ROOT)), ((70, 80, 9), (0, 9, 9)));
    disk.create_directory(ROOT, "d", 10).unwrap();
    disk.remove_directory(ROOT, "d", 11).unwrap();
    assert_eq!(times(&disk, ROOT), (0, 11, 11));
}

/// All names of a scan of one entry a call; `between` runs after each.
fn scan(disk: &mut Disk<'_>, mut between: impl FnMut(&mut Disk<'_>, usize)) -> Vec<String> {
    let mut seen = Vec::new();
    let mut cookie = 0;
    loop {
        let entry = disk.list(ROOT, cookie).unwrap().next().map(|entry| (entry.next_cookie, entry.name.into()));
        let Some((next, name)) = entry else { return seen };
        cookie = next;
        seen.push(name);
        between(disk, seen.len());
        assert!(seen.len() < 1000, "the scan does not end");
    }
}

#[test]
fn a_scan_meets_what_stays_once_whatever_else_happens() {
    let mut disk = empty();
    for at in 0..20 {
        disk.create_directory(ROOT, &format!("keep{at}"), 1).unwrap();
        disk.create_directory(ROOT, &format!("drop{at}"), 1).unwrap();
    }
    let seen = scan(&mut disk, |disk, step| {
        let _ = disk.remove_directory(ROOT, &format!("drop{}", step * 7 % 20), 2);
        disk.create_directory(ROOT, &format!("new{step}"), 2).unwrap();
    });
    assert_eq!(seen[..2], [".", ".."]);
    for at in 0..20 {
        let name = format!("keep{at}");
        assert_eq!(seen.iter().filter(|seen| **seen == name).count(), 1, "{name}");
    }
    let mut once = seen.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), seen.len(), "nothing twice");
}

#[test]
fn a_scan_that_renames_what_it_meets_ends() {
    let mut disk = empty();
    for at in 0..20 {
        disk.create_directory(ROOT, &format!("d{at}"), 1).unwrap();
    }
    let mut renamed = 0;
    scan(&mut disk, |disk, step| {
        if let Some(at) = step.checked_sub(3) {
            // Newest first.
            disk.rename(ROOT, &format!("d{}", 19 - at), ROOT, &format!("e{at}"), 2).unwrap();
            renamed += 1;
        }
    });
    assert_eq!(renamed, 20);
    assert!(names(&disk, ROOT).iter().all(|name| name.starts_with('e')));
}

#[test]
fn listings_say_what_entries_are() {
    let mut disk = tree();
    let d = disk.open(ROOT, "d", true, DIRECTORY, false, 1).unwrap();
    let mut listed: Vec<_> = disk.list(d, 0).unwrap().map(|entry| (entry.name, entry.file_type, entry.inode)).collect();
    listed.sort_unstable();
    let inode = |path| disk.lookup(d, path, false).unwrap().inode();
    let expected = [
        (".", file_type::DIRECTORY, d.inode()),
        ("..", file_type::DIRECTORY, ROOT.inode()),
        ("e", file_type::DIRECTORY, inode("e")),
        ("f", file_type::REGULAR_FILE, inode("f")),
        ("up", file_type::SYMBOLIC_LINK, inode("up")),
    ];
    assert_eq!(listed, expected);
    assert_eq!(disk.list(d, u64::MAX).unwrap().count(), 3, "a cookie never given goes on somewhere");
    assert_eq!(disk.list(d, 1).unwrap().count(), 4);
    assert_eq!(disk.list(d, 3).unwrap().count(), 0);
    let file = disk.lookup(d, "f", true).unwrap();
    assert_eq!(disk.list(file, 0).map(Iterator::count), Err(Errno::Notdir));
}

#[test]
fn depth_is_no_recursion() {
    let mut disk = RamDisk::new(&[], Counted::new(1 << 30), 0).unwrap();
    let mut dir = ROOT;
    for _ in 0..20_000 {
        disk.create_directory(dir, "d", 1).unwrap();
        dir = disk.lookup(dir, "d", true).unwrap();
    }
    disk.create_directory(ROOT, "e", 1).unwrap();
    assert_eq!(disk.rename(ROOT, "d", dir, "x", 1), Err(Errno::Inval));
    assert_eq!(disk.rename(ROOT, "e", dir, "e", 1), Ok(()));
    drop(disk);
}
