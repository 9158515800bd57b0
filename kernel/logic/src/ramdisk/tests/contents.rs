//! Data: reads and writes over the archive's bytes, and what they take of the budget.

use alloc::vec;
use alloc::vec::Vec;

use mote_abi::file::oflags;
use proptest::prelude::*;

use super::*;

const CHUNK: usize = super::super::contents::CHUNK_BYTES as usize;

#[derive(Debug, Clone)]
enum Step {
    Write(usize, usize, u8),
    SetBytes(usize),
    Allocate(usize, usize),
    Read(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let place = || prop_oneof![0..1000usize, 0..3 * CHUNK, CHUNK - 3..CHUNK + 3, 2 * CHUNK - 3..2 * CHUNK + 3];
    let length = || prop_oneof![0..10usize, 0..2000usize, 0..2 * CHUNK];
    prop_oneof![
        4 => (place(), length(), 1..u8::MAX).prop_map(|(at, bytes, byte)| Step::Write(at, bytes, byte)),
        2 => place().prop_map(Step::SetBytes),
        1 => (place(), length()).prop_map(|(at, bytes)| Step::Allocate(at, bytes)),
        2 => (place(), length()).prop_map(|(at, bytes)| Step::Read(at, bytes)),
    ]
}

fn big() -> Vec<u8> {
    (0..150_000u32).map(|at| (at % 251) as u8).collect()
}

proptest! {
    #![proptest_config(cases(100))]

    #[test]
    fn behaves_as_a_vector_does(steps in prop::collection::vec(step(), 1..40), limit in 2000u64..400_000, of_archive: bool) {
        let mut model = if of_archive { big() } else { Vec::new() };
        let archive = archive_of(&[("f", &model)]);
        let budget = Counted::new(limit);
        let mut disk = RamDisk::new(&archive, budget.clone(), 0).unwrap();
        let file = disk.lookup(ROOT, "f", true).unwrap();
        let names_only = budget.taken.get();
        for step in steps {
            match step {
                Step::Write(at, bytes, byte) => match disk.write(file, at as u64, &vec![byte; bytes], 1) {
                    Ok(written) => {
                        prop_assert!(written <= bytes);
                        if written > 0 {
                            model.resize(model.len().max(at + written), 0);
                            model[at..at + written].fill(byte);
                        }
                    }
                    Err(errno) => prop_assert_eq!(errno, Errno::Nospc),
                },
                Step::SetBytes(bytes) => {
                    disk.set_bytes(file, bytes as u64, 1).unwrap();
                    model.resize(bytes, 0);
                }
                Step::Allocate(at, bytes) => match disk.allocate(file, at as u64, bytes as u64, 1) {
                    Ok(()) => {
                        model.resize(model.len().max(at + bytes), 0);
                        let taken = budget.taken.get();
                        let filled: Vec<u8> = (at..at + bytes).map(|at| model[at]).collect();
                        prop_assert_eq!(disk.write(file, at as u64, &filled, 1), Ok(bytes));
                        prop_assert_eq!(budget.taken.get(), taken, "the memory was there");
                    }
                    Err(errno) => prop_assert_eq!(errno, if bytes == 0 { Errno::Inval } else { Errno::Nospc }),
                },
                Step::Read(at, bytes) => {
                    let mut buffer = vec![0xa5; bytes];
                    let read = disk.read(file, at as u64, &mut buffer).unwrap();
                    prop_assert_eq!(&buffer[..read], model.iter().skip(at).take(bytes).copied().collect::<Vec<_>>());
                }
            }
            prop_assert!(contents(&disk, file) == model);
        }
        disk.set_bytes(file, 0, 1).unwrap();
        prop_assert_eq!(budget.taken.get(), names_only, "an empty file has no data");
        remove_all(&mut disk);
        prop_assert_eq!(budget.taken.get(), 0);
    }
}

#[test]
fn a_write_copies_only_the_chunk_it_touches() {
    let large = vec![1; 100 << 20];
    let archive = archive_of(&[("f", &large)]);
    let budget = Counted::new(1 << 20);
    let mut disk = RamDisk::new(&archive, budget.clone(), 0).unwrap();
    let file = disk.lookup(ROOT, "f", true).unwrap();
    let before = budget.taken.get();
    assert_eq!(disk.write(file, 100 << 20, b"x", 1), Ok(1));
    assert!(budget.taken.get() - before < 1000, "the end of the file was the end of a chunk");
    assert_eq!(disk.write(file, 5, b"x", 1), Ok(1));
    assert!(budget.taken.get() - before < 2 * CHUNK as u64);
    let mut bytes = [0; 7];
    assert_eq!((disk.read(file, 0, &mut bytes), bytes), (Ok(7), *b"\x01\x01\x01\x01\x01x\x01"));
}

#[test]
fn a_full_disk_takes_what_fits_and_nothing_after() {
    let budget = Counted::new(4 * CHUNK as u64);
    let mut disk = RamDisk::new(&[], budget.clone(), 0).unwrap();
    let file = disk.open(ROOT, "f", true, oflags::CREAT, true, 1).unwrap();
    assert_eq!(disk.write(file, 0, &vec![1; 10 * CHUNK], 2), Ok(3 * CHUNK));
    let (stat, taken) = (disk.stat(file).unwrap(), budget.taken.get());
    assert_eq!(stat.bytes, 3 * CHUNK as u64);
    assert_eq!(disk.write(file, 3 * CHUNK as u64, &vec![1; CHUNK], 3), Err(Errno::Nospc));
    assert_eq!(disk.allocate(file, 0, 1 << 62, 3), Err(Errno::Nospc));
    assert_eq!((disk.stat(file).unwrap(), budget.taken.get()), (stat, taken));
    // Names want room as well.
    let name = "n".repeat(255);
    let mut made = 0;
    while disk.create_directory(ROOT, &std::format!("{made:0>255}"), 4).is_ok() {
        made += 1;
    }
    let mut linked = 0;
    while disk.link(ROOT, "f", ROOT, &std::format!("{linked:a>255}"), 4).is_ok() {
        linked += 1;
    }
    let stat = disk.stat(ROOT).unwrap();
    assert!(made > 10 && stat.links == made + 2);
    assert_eq!(disk.open(ROOT, &name, true, oflags::CREAT, true, 5), Err(Errno::Nospc));
    assert_eq!(disk.symlink("x", ROOT, &name, 5), Err(Errno::Nospc));
    assert_eq!(disk.link(ROOT, "f", ROOT, &name, 5), Err(Errno::Nospc));
    assert_eq!(disk.rename(ROOT, "f", ROOT, &name, 5), Err(Errno::Nospc));
    assert_eq!(disk.lookup(ROOT, "f", true), Ok(file));
    assert_eq!(disk.stat(ROOT), Ok(stat));
}

#[test]
fn an_unlinked_file_keeps_its_data_until_it_is_released() {
    let budget = Counted::new(1 << 20);
    let mut disk = RamDisk::new(&[], budget.clone(), 0).unwrap();
    let file = disk.open(ROOT, "f", true, oflags::CREAT, true, 1).unwrap();
    disk.retain(file).unwrap();
    disk.write(file, 0, b"data", 2).unwrap();
    disk.unlink_file(ROOT, "f", 3).unwrap();
    assert_eq!(disk.stat(file).unwrap().links, 0);
    disk.release(file);
    assert_eq!(contents(&disk, file), b"data");
    disk.release(file);
    assert_eq!(budget.taken.get(), 0);
    assert_eq!(disk.stat(file), Err(Errno::Badf));
    assert_eq!(disk.read(file, 0, &mut [0]), Err(Errno::Badf));
    disk.release(file);
    // Its number is not used again.
    assert_ne!(disk.open(ROOT, "f", true, oflags::CREAT, true, 4), Ok(file));
}

#[test]
fn offsets_end_where_linux_ends_them() {
    const MAX: u64 = i64::MAX.cast_unsigned();
    let mut disk = empty();
    let file = disk.open(ROOT, "f", true, oflags::CREAT, true, 1).unwrap();
    assert_eq!(disk.write(file, MAX + 1, b"", 1), Err(Errno::Inval));
    assert_eq!(disk.write(file, MAX, b"x", 1), Err(Errno::Inval));
    assert_eq!(disk.write(file, u64::MAX, b"x", 1), Err(Errno::Inval));
    assert_eq!(disk.read(file, u64::MAX, &mut [0]), Err(Errno::Inval));
    assert_eq!(disk.set_bytes(file, MAX + 1, 1), Err(Errno::Inval));
    assert_eq!(disk.allocate(file, MAX, 1, 1), Err(Errno::Fbig));
    assert_eq!(disk.allocate(file, MAX + 1, 1, 1), Err(Errno::Inval));
    assert_eq!(disk.allocate(file, 0, u64::MAX, 1), Err(Errno::Inval));
    assert_eq!(disk.allocate(file, 0, 0, 1), Err(Errno::Inval));
    assert_eq!(disk.write(file, MAX - 1, b"x", 1), Ok(1));
    assert_eq!(disk.stat(file).unwrap().bytes, MAX);
    let mut bytes = [7; 3];
    assert_eq!((disk.read(file, MAX - 2, &mut bytes[..2]), bytes), (Ok(2), [0, b'x', 7]));
    assert_eq!(disk.allocate(file, 0, MAX, 1), Err(Errno::Nospc));
    disk.set_bytes(file, MAX, 1).unwrap();
    disk.set_bytes(file, 1, 1).unwrap();
    assert_eq!(contents(&disk, file), [0]);
}

#[test]
fn a_directory_has_no_data() {
    let mut disk = empty();
    assert_eq!(disk.read(ROOT, 0, &mut [0]), Err(Errno::Isdir));
    assert_eq!(disk.write(ROOT, 0, &[0], 1), Err(Errno::Isdir));
    assert_eq!(disk.set_bytes(ROOT, 0, 1), Err(Errno::Inval));
    assert_eq!(disk.allocate(ROOT, 0, 1, 1), Err(Errno::Isdir));
}
