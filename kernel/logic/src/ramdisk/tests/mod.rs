//! Tests of the RAM disk, and what they share.

extern crate std;

mod archive;
mod contents;
mod model;
mod names;

use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::Cell;

use proptest::test_runner::{Config, RngSeed};

use super::*;

/// Counts what is taken, up to a limit.
#[derive(Debug, Clone)]
struct Counted {
    taken: Rc<Cell<u64>>,
    limit: u64,
}

impl Counted {
    fn new(limit: u64) -> Self {
        Self { taken: Rc::default(), limit }
    }
}

impl Budget for Counted {
    fn take(&mut self, bytes: u64) -> bool {
        let taken = self.taken.get().checked_add(bytes).filter(|taken| *taken <= self.limit);
        taken.inspect(|taken| self.taken.set(*taken)).is_some()
    }

    fn give(&mut self, bytes: u64) {
        self.taken.set(self.taken.get().checked_sub(bytes).expect("no more is given back than was taken"));
    }
}

type Disk<'a> = RamDisk<'a, Counted>;

fn empty() -> Disk<'static> {
    RamDisk::new(&[], Counted::new(64 << 20), 0).unwrap()
}

/// An archive of regular files.
fn archive_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (path, data) in files {
        let mut header = ::tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_mtime(7);
        header.set_size(data.len() as u64);
        builder.append_data(&mut header, path, *data).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Runs that are the same every time.
fn cases(cases: u32) -> Config {
    Config { cases, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..Config::default() }
}

fn names(disk: &Disk<'_>, dir: NodeId) -> Vec<String> {
    let mut names: Vec<_> = disk.list(dir, 2).unwrap().map(|entry| entry.name.to_string()).collect();
    names.sort();
    names
}

fn contents(disk: &Disk<'_>, node: NodeId) -> Vec<u8> {
    let mut bytes = alloc::vec![0xa5; usize::try_from(disk.stat(node).unwrap().bytes).unwrap() + 1];
    let read = disk.read(node, 0, &mut bytes).unwrap();
    assert_eq!(read, bytes.len() - 1);
    bytes.truncate(read);
    bytes
}

/// Removes everything below the root.
fn remove_all(disk: &mut Disk<'_>) {
    let mut way = alloc::vec![ROOT];
    while let Some(dir) = way.last().copied() {
        let first = disk.list(dir, 2).unwrap().next().map(|entry| (entry.name.to_string(), entry.file_type));
        match first {
            Some((name, mote_abi::file::file_type::DIRECTORY)) => {
                let node = disk.lookup(dir, &name, false).unwrap();
                if disk.remove_directory(dir, &name, 0).is_err() {
                    way.push(node);
                }
            }
            Some((name, _)) => disk.unlink_file(dir, &name, 0).unwrap(),
            None => drop(way.pop()),
        }
    }
}
