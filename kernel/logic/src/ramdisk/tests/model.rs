//! The same operations on a RAM disk and on a directory of the machine, which is Linux's: answers and trees must agree.
//! Needs `openat2`; without it (Linux before 5.6, some sandboxes) the test says so and passes.

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use mote_abi::file::{MAX_PATH_BYTES, file_type, oflags};
use proptest::prelude::*;
use rustix::fs::{self as host, AtFlags, FallocateFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno as HostErrno;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Open { path: String, follow: bool, flags: u16, write: bool },
    Release,
    Stat { path: String, follow: bool },
    CreateDirectory(String),
    RemoveDirectory(String),
    Unlink(String),
    Symlink { target: String, path: String },
    Readlink(String),
    Link { old: String, to: usize, new: String },
    Rename { old: String, to: usize, new: String },
    Write { offset: u64, bytes: usize, byte: u8 },
    SetBytes(u64),
    Allocate { offset: u64, bytes: u64 },
    List,
}

fn path() -> impl Strategy<Value = String> {
    let component = prop_oneof![
        150 => prop::sample::select(&["a", "b", "c"][..]).prop_map(String::from),
        5 => Just(".".into()),
        14 => Just("..".into()),
        1 => Just("n".repeat(255)),
        1 => Just("n".repeat(256)),
    ];
    let slash = prop_oneof![9 => Just("/"), 1 => Just("//")];
    let end = prop_oneof![12 => Just(""), 1 => Just("/"), 1 => Just("///")];
    let length = prop_oneof![6 => Just(1), 4 => Just(2), 2 => Just(3), 1 => Just(5)];
    let components = length.prop_flat_map(move |length| prop::collection::vec((component.clone(), slash.clone()), length));
    let whole = (components, end).prop_map(|(components, end)| {
        let joined: String = components.iter().flat_map(|(name, slash)| [name.as_str(), slash]).collect();
        joined.trim_end_matches('/').to_string() + end
    });
    prop_oneof![
        150 => whole.clone(),
        1 => whole.prop_map(|path| "/".to_string() + &path),
        1 => Just(String::new()),
        1 => Just("a/".repeat(MAX_PATH_BYTES / 2) + "aa"),
    ]
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let size = || prop_oneof![0u64..300, 0u64..200_000, 65_530u64..65_545];
    let flags = prop_oneof![Just(0), Just(oflags::CREAT), Just(oflags::DIRECTORY), Just(oflags::CREAT | oflags::EXCL), 0u16..16];
    let step = prop_oneof![
        10 => (path(), any::<bool>(), flags, any::<bool>())
            .prop_map(|(path, follow, flags, write)| Step::Open { path, follow, flags, write }),
        2 => Just(Step::Release),
        3 => (path(), any::<bool>()).prop_map(|(path, follow)| Step::Stat { path, follow }),
        6 => path().prop_map(Step::CreateDirectory),
        3 => path().prop_map(Step::RemoveDirectory),
        3 => path().prop_map(Step::Unlink),
        3 => (path(), path()).prop_map(|(target, path)| Step::Symlink { target, path }),
        2 => path().prop_map(Step::Readlink),
        6 => (path(), 0usize..8, path()).prop_map(|(old, to, new)| Step::Link { old, to, new }),
        8 => (path(), 0usize..8, path()).prop_map(|(old, to, new)| Step::Rename { old, to, new }),
        4 => (size(), 0usize..100_000, any::<u8>()).prop_map(|(offset, bytes, byte)| Step::Write { offset, bytes, byte }),
        2 => size().prop_map(Step::SetBytes),
        1 => (size(), size()).prop_map(|(offset, bytes)| Step::Allocate { offset, bytes }),
        2 => Just(Step::List),
    ];
    (0usize..8, step)
}

/// What a step answers, if not an error.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Done,
    Count(usize),
    Text(String),
    /// Type, links, bytes.
    Stat(u8, u64, u64),
    Names(Vec<(String, u8)>),
}

/// A descriptor on both sides.
struct Open {
    node: NodeId,
    file: File,
    is_writable: bool,
}

struct Pair<'a> {
    disk: Disk<'a>,
    open: Vec<Open>,
}

impl Pair<'_> {
    /// Does a step on both sides; `None` if it does not apply.
    fn step(&mut self, pick: usize, step: &Step, now: u64) -> Option<(Result<Answer, Errno>, Result<Answer, HostErrno>)> {
        let data = matches!(step, Step::Write { .. } | Step::SetBytes(_) | Step::Allocate { .. });
        let suited: Vec<usize> = (0..self.open.len()).filter(|at| !data || self.open[*at].is_writable).collect();
        let at = *suited.get(pick.checked_rem(suited.len())?)?;
        let Open { node, file, .. } = &self.open[at];
        let (node, disk) = (*node, &mut self.disk);
        Some(match step {
            Step::Open { path, follow, flags, write } => {
                let ours = disk.open(node, path, *follow, *flags, *write, now);
                let theirs = host_open(file, path, *follow, *flags, *write);
                if let (Ok(node), Ok(fd)) = (ours, &theirs) {
                    self.open.push(Open { node, file: fd.try_clone().unwrap().into(), is_writable: *write });
                }
                (ours.map(|_| Answer::Done), theirs.map(|_| Answer::Done))
            }
            Step::Release => {
                if at == 0 {
                    return None;
                }
                disk.release(node);
                self.open.remove(at);
                return None;
            }
            Step::Stat { path, follow } => (
                disk.lookup(node, path, *follow).and_then(|node| stat(disk, node)),
                host_lookup(file, path, *follow).and_then(|fd| host_stat(&fd)),
            ),
            Step::CreateDirectory(path) => (
                disk.create_directory(node, path, now).map(|()| Answer::Done),
                host_parent(file, path).and_then(|(fd, last)| done(host::mkdirat(fd, last, Mode::RWXU))),
            ),
            Step::RemoveDirectory(path) => (
                disk.remove_directory(node, path, now).map(|()| Answer::Done),
                host_parent(file, path).and_then(|(fd, last)| done(host::unlinkat(fd, last, AtFlags::REMOVEDIR))),
            ),
            Step::Unlink(path) => (
                disk.unlink_file(node, path, now).map(|()| Answer::Done),
                host_parent(file, path).and_then(|(fd, last)| done(host::unlinkat(fd, last, AtFlags::empty()))),
            ),
            Step::Symlink { target, path } => {
                (disk.symlink(target, node, path, now).map(|()| Answer::Done), host_symlink(target, file, path))
            }
            Step::Readlink(path) => (disk.readlink(node, path).map(|text| Answer::Text(text.into())), host_readlink(file, path)),
            Step::Link { old, to, new } => {
                let to = &self.open[to % self.open.len()];
                let ours = disk.link(node, old, to.node, new, now).map(|()| Answer::Done);
                (ours, host_link(file, old, &to.file, new))
            }
            Step::Rename { old, to, new } => {
                let to = &self.open[to % self.open.len()];
                let ours = disk.rename(node, old, to.node, new, now).map(|()| Answer::Done);
                (ours, host_rename(file, old, &to.file, new))
            }
            Step::Write { offset, bytes, byte } => {
                let data = vec![*byte; *bytes];
                (
                    disk.write(node, *offset, &data, now).map(Answer::Count),
                    rustix::io::pwrite(file, &data, *offset).map(Answer::Count),
                )
            }
            Step::SetBytes(bytes) => {
                (disk.set_bytes(node, *bytes, now).map(|()| Answer::Done), done(host::ftruncate(file, *bytes)))
            }
            Step::Allocate { offset, bytes } => {
                let ours = disk.allocate(node, *offset, *bytes, now).map(|()| Answer::Done);
                (ours, done(host::fallocate(file, FallocateFlags::empty(), *offset, *bytes)))
            }
            Step::List => {
                if disk.stat(node).unwrap().file_type != file_type::DIRECTORY {
                    return None;
                }
                (Ok(Answer::Names(listed(disk, node))), Ok(Answer::Names(host_listed(file))))
            }
        })
    }

    /// Everything that has a name, and everything that is open.
    fn check_trees(&self) {
        for open in &self.open {
            self.check(open.node, open.file.try_clone().unwrap());
        }
    }

    fn check(&self, node: NodeId, file: File) {
        assert_eq!(stat(&self.disk, node), Ok(host_stat(&file).unwrap()));
        match self.disk.stat(node).unwrap().file_type {
            file_type::DIRECTORY => {
                let entries = listed(&self.disk, node);
                assert_eq!(entries, host_listed(&file));
                for (name, file_type) in entries.into_iter().filter(|(name, _)| name != "." && name != "..") {
                    if file_type == file_type::SYMBOLIC_LINK {
                        assert_eq!(
                            self.disk.readlink(node, &name).map(|text| Answer::Text(text.into())),
                            Ok(host_readlink(&file, &name).unwrap())
                        );
                    } else {
                        let below = beneath(&file, &name, OFlags::RDONLY | OFlags::NOFOLLOW).unwrap();
                        self.check(self.disk.lookup(node, &name, false).unwrap(), below.into());
                    }
                }
            }
            _ => {
                let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
                file.read_exact_at(&mut bytes, 0).unwrap();
                assert!(contents(&self.disk, node) == bytes, "contents differ");
            }
        }
    }
}

fn stat(disk: &Disk<'_>, node: NodeId) -> Result<Answer, Errno> {
    disk.stat(node).map(|stat| Answer::Stat(stat.file_type, stat.links, stat.bytes))
}

fn listed(disk: &Disk<'_>, dir: NodeId) -> Vec<(String, u8)> {
    let mut names: Vec<_> = disk.list(dir, 0).unwrap().map(|entry| (entry.name.into(), entry.file_type)).collect();
    names.sort();
    names
}

fn done(result: Result<(), HostErrno>) -> Result<Answer, HostErrno> {
    result.map(|()| Answer::Done)
}

fn host_type(of: host::FileType) -> u8 {
    match of {
        host::FileType::Directory => file_type::DIRECTORY,
        host::FileType::RegularFile => file_type::REGULAR_FILE,
        host::FileType::Symlink => file_type::SYMBOLIC_LINK,
        other => panic!("{other:?} was never made"),
    }
}

fn host_stat(fd: impl std::os::fd::AsFd) -> Result<Answer, HostErrno> {
    let stat = host::fstat(fd)?;
    let of = host_type(host::FileType::from_raw_mode(stat.st_mode));
    // File systems differ in how large directories are.
    let bytes = if of == file_type::DIRECTORY { 0 } else { stat.st_size.cast_unsigned() };
    Ok(Answer::Stat(of, stat.st_nlink, bytes))
}

fn host_listed(dir: &File) -> Vec<(String, u8)> {
    // A removed directory has no entries, or cannot be listed.
    let entries = host::Dir::read_from(dir).unwrap().filter_map(Result::ok);
    let mut names: Vec<_> =
        entries.map(|entry| (entry.file_name().to_str().unwrap().into(), host_type(entry.file_type()))).collect();
    names.sort();
    names
}

fn refused(path: &str) -> Result<(), HostErrno> {
    match path {
        "" => Err(HostErrno::NOENT),
        _ if path.len() > MAX_PATH_BYTES => Err(HostErrno::NAMETOOLONG),
        _ if path.starts_with('/') => Err(HostErrno::PERM),
        _ => Ok(()),
    }
}

/// `openat2`, confined to `dir`.
fn beneath(dir: &File, path: &str, flags: OFlags) -> Result<OwnedFd, HostErrno> {
    refused(path)?;
    let mode = if flags.contains(OFlags::CREATE) { Mode::RUSR | Mode::WUSR } else { Mode::empty() };
    loop {
        match host::openat2(dir, path, flags | OFlags::CLOEXEC, mode, ResolveFlags::BENEATH) {
            // Something was renamed somewhere on the machine, so the kernel is not sure about a "..".
            Err(HostErrno::AGAIN) => {}
            result => return result,
        }
    }
}

/// The directory of the last component, and that with the slashes behind it.
fn host_parent<'p>(dir: &File, path: &'p str) -> Result<(OwnedFd, &'p str), HostErrno> {
    refused(path)?;
    let (head, last) = path.split_at(path.trim_end_matches('/').rfind('/').map_or(0, |slash| slash + 1));
    let fd = beneath(dir, if head.is_empty() { "." } else { head }, OFlags::PATH | OFlags::DIRECTORY)?;
    if last.trim_end_matches('/') == ".." && beneath(dir, path, OFlags::PATH).is_err() {
        return Err(HostErrno::PERM);
    }
    Ok((fd, last))
}

fn host_lookup(dir: &File, path: &str, follow: bool) -> Result<OwnedFd, HostErrno> {
    beneath(dir, path, if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW })
}

fn host_open(dir: &File, path: &str, follow: bool, flags: u16, write: bool) -> Result<OwnedFd, HostErrno> {
    let mut wanted = if write { OFlags::RDWR } else { OFlags::RDONLY };
    let pairs = [
        (oflags::CREAT, OFlags::CREATE),
        (oflags::DIRECTORY, OFlags::DIRECTORY),
        (oflags::EXCL, OFlags::EXCL),
        (oflags::TRUNC, OFlags::TRUNC),
    ];
    for (flag, host_flag) in pairs {
        wanted.set(host_flag, flags & flag != 0);
    }
    wanted.set(OFlags::NOFOLLOW, !follow);
    // Older kernels make a file here.
    if wanted.contains(OFlags::CREATE | OFlags::DIRECTORY) {
        return Err(HostErrno::INVAL);
    }
    beneath(dir, path, wanted)
}

fn host_symlink(target: &str, dir: &File, path: &str) -> Result<Answer, HostErrno> {
    refused(target)?;
    host_parent(dir, path).and_then(|(fd, last)| done(host::symlinkat(target, fd, last)))
}

fn host_readlink(dir: &File, path: &str) -> Result<Answer, HostErrno> {
    let found = host_lookup(dir, path, false)?;
    if !host::FileType::from_raw_mode(host::fstat(&found)?.st_mode).is_symlink() {
        return Err(HostErrno::INVAL);
    }
    let target = host::readlinkat(found, "", Vec::new())?;
    Ok(Answer::Text(target.into_string().unwrap()))
}

fn host_link(old_dir: &File, old: &str, new_dir: &File, new: &str) -> Result<Answer, HostErrno> {
    // What a slash follows is a directory in `old_dir`, or this fails.
    host_lookup(old_dir, old, false)?;
    let (old_fd, old_last) = host_parent(old_dir, old)?;
    let (new_fd, new_last) = host_parent(new_dir, new)?;
    done(host::linkat(old_fd, old_last, new_fd, new_last, AtFlags::empty()))
}

fn host_rename(old_dir: &File, old: &str, new_dir: &File, new: &str) -> Result<Answer, HostErrno> {
    let (old_fd, old_last) = host_parent(old_dir, old)?;
    let (new_fd, new_last) = host_parent(new_dir, new)?;
    done(host::renameat(old_fd, old_last, new_fd, new_last))
}

fn errno(host: HostErrno) -> Errno {
    match host {
        HostErrno::NOENT => Errno::Noent,
        HostErrno::EXIST => Errno::Exist,
        HostErrno::NOTDIR => Errno::Notdir,
        HostErrno::ISDIR => Errno::Isdir,
        HostErrno::NOTEMPTY => Errno::Notempty,
        HostErrno::INVAL => Errno::Inval,
        HostErrno::LOOP => Errno::Loop,
        HostErrno::NAMETOOLONG => Errno::Nametoolong,
        HostErrno::BUSY => Errno::Busy,
        // Out of the directory: WASI has no such thing as another mount.
        HostErrno::PERM | HostErrno::XDEV => Errno::Perm,
        other => panic!("the host answered {other:?}"),
    }
}

/// An archive that both sides start from.
fn archive() -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind, link: Option<&str>, data: &[u8]| {
        let mut header = ::tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(data.len() as u64);
        match link {
            Some(target) => builder.append_link(&mut header, path, target).unwrap(),
            None => builder.append_data(&mut header, path, data).unwrap(),
        }
    };
    let large: Vec<u8> = (0..150_000u32).map(|at| (at % 251) as u8).collect();
    add("a/b/c", ::tar::EntryType::Regular, None, &large);
    add("a/c", ::tar::EntryType::Link, Some("a/b/c"), &[]);
    add("b", ::tar::EntryType::Directory, None, &[]);
    add("b/a", ::tar::EntryType::Symlink, Some("../a/b"), &[]);
    add("c", ::tar::EntryType::Symlink, Some("b/a/c"), &[]);
    builder.into_inner().unwrap()
}

/// A directory, in memory if possible, in which directories count those in them.
fn scratch() -> Option<tempfile::TempDir> {
    let scratch = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let root = File::open(scratch.path()).unwrap();
    std::fs::create_dir(scratch.path().join("probe")).unwrap();
    let links = host::fstat(&root).unwrap().st_nlink;
    std::fs::remove_dir(scratch.path().join("probe")).unwrap();
    let confined = host::openat2(&root, ".", OFlags::PATH, Mode::empty(), ResolveFlags::BENEATH);
    if links != 3 || confined.is_err() {
        std::eprintln!("skipped: no openat2 ({:?}), or directories with {links} links", confined.err());
        return None;
    }
    Some(scratch)
}

fn drive(steps: &[(usize, Step)], with_archive: bool) {
    let Some(scratch) = scratch() else { return };
    let archive = if with_archive { archive() } else { Vec::new() };
    ::tar::Archive::new(&archive[..]).unpack(scratch.path()).unwrap();
    let budget = Counted::new(1 << 30);
    let mut disk = RamDisk::new(&archive, budget.clone(), 0).unwrap();
    disk.retain(ROOT).unwrap();
    let root = Open { node: ROOT, file: File::open(scratch.path()).unwrap(), is_writable: false };
    let mut pair = Pair { disk, open: vec![root] };
    pair.check_trees();
    for (now, (pick, step)) in (1..).zip(steps) {
        if let Some((ours, theirs)) = pair.step(*pick, step, now) {
            assert_eq!(ours, theirs.map_err(errno), "step {now}, {step:?}");
        }
    }
    pair.check_trees();
    for open in pair.open {
        pair.disk.release(open.node);
    }
    remove_all(&mut pair.disk);
    assert_eq!(budget.taken.get(), 0, "everything is given back");
}

proptest! {
    #![proptest_config(cases(100))]

    #[test]
    fn agrees_with_linux(steps in prop::collection::vec(step(), 1..200), with_archive: bool) {
        drive(&steps, with_archive);
    }
}
