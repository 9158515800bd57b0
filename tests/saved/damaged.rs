//! Files that are no snapshots, and snapshots of which a byte is another.

use std::{fs, io, os::unix::fs::FileTypeExt, path::Path};

use mote_vmm::{LoadError, Snapshot};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{
    forgery::{Forgery, header, with_header},
    programs::{Folder, assert_works, small},
};
use crate::support::kvm;

/// Both ways to open a file say the same; the error of the second.
#[track_caller]
fn refused(path: &Path) -> LoadError {
    let verify = Snapshot::verify(path).unwrap_err();
    let load = Snapshot::load(path).unwrap_err();
    assert_eq!(verify.to_string(), load.to_string());
    load
}

#[track_caller]
fn assert_damaged(path: &Path, about: &str) {
    match refused(path) {
        LoadError::Damaged { what, .. } => assert!(what.contains(about), "{about:?} is not in {what:?}"),
        other => panic!("{other}"),
    }
}

#[test]
fn what_is_no_regular_file_is_told_so_at_once() {
    if !kvm::usable() {
        return;
    }
    let folder = Folder::new();
    let kind = |path: &Path| match refused(path) {
        LoadError::Read { source, .. } => source.kind(),
        other => panic!("{other}"),
    };
    assert_eq!(kind(&folder.file("none")), io::ErrorKind::NotFound);
    assert_eq!(kind(folder.path()), io::ErrorKind::IsADirectory);
    assert_eq!(kind(Path::new("/dev/zero")), io::ErrorKind::InvalidInput);
    let pipe = folder.file("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
    assert_eq!(kind(&pipe), io::ErrorKind::InvalidInput);
}

#[test]
fn files_of_other_kinds_and_versions_are_told_apart() {
    if !kvm::usable() {
        return;
    }
    let folder = Folder::new();
    let path = folder.save(&small(), "good");
    let good = fs::read(&path).unwrap();
    let write = |bytes: &[u8]| fs::write(&path, bytes).unwrap();
    for other in [&b""[..], b"m", b"motesna", b"\0asm\x01\0\0\0", &[0; 4096]] {
        write(other);
        assert!(matches!(refused(&path), LoadError::NotSnapshot { .. }), "{other:?}");
    }
    for length in [8, 127] {
        write(&good[..length]);
        assert_damaged(&path, "it ends in its header");
    }
    for length in [128, 200, 4096, good.len() - 4096, good.len() - 1] {
        write(&good[..length]);
        assert_damaged(&path, "another size than it says");
    }
    write(&[&good[..], &[0]].concat());
    assert_damaged(&path, "another size than it says");
    for version in [0, 2, u32::MAX] {
        let mut bytes = good.clone();
        header::version(&mut bytes, version);
        write(&bytes);
        assert!(matches!(refused(&path), LoadError::Version { found, .. } if found == version));
    }
}

#[test]
fn sizes_and_offsets_of_a_header_are_not_believed() {
    if !kvm::usable() {
        return;
    }
    let folder = Folder::new();
    let path = folder.save(&small(), "good");
    let Forgery { metadata, data } = Forgery::of(&path);
    let metadata = serde_json::to_vec(&metadata).unwrap();
    let with = |change: &dyn Fn(&mut [u8])| fs::write(&path, with_header(&metadata, &data, change)).unwrap();
    with(&|_| ());
    assert_works(&Snapshot::load(&path).unwrap());
    const NUMBERS: [u64; 7] = [0, 1, 1 << 20, 1 << 40, 1 << 63, u64::MAX - 4095, u64::MAX];
    for number in NUMBERS {
        with(&|bytes| header::data_offset(bytes, number));
        assert_damaged(&path, "do not begin behind its metadata");
        with(&|bytes| header::data_bytes(bytes, number));
        assert_damaged(&path, "another size than it says");
        with(&|bytes| header::metadata_bytes(bytes, number));
        let about = match number {
            // Still in front of the first page of data, but of another length.
            0 | 1 => "do",
            1048576 => "do not begin behind its metadata",
            _ => "longer than that of any snapshot",
        };
        assert_damaged(&path, about);
        // With a sum that is right, if only modulo 2^64.
        with(&|bytes| {
            header::data_offset(bytes, number);
            header::data_bytes(bytes, (data.len() as u64).wrapping_sub(number));
        });
        assert_damaged(&path, "do not begin behind its metadata");
    }
}

/// Neither is read, nor does anybody make room for it.
#[test]
fn huge_files_without_contents_are_refused_at_once() {
    if !kvm::usable() {
        return;
    }
    const HUGE_BYTES: u64 = 1 << 40;
    let folder = Folder::new();
    let path = folder.save(&small(), "good");
    let Forgery { metadata, data } = Forgery::of(&path);
    let metadata = serde_json::to_vec(&metadata).unwrap();
    let offset = (128 + metadata.len() as u64).next_multiple_of(4096);
    let grow = |path: &Path| fs::File::options().write(true).open(path).unwrap().set_len(HUGE_BYTES).unwrap();
    fs::write(&path, with_header(&metadata, &data, |bytes| header::data_bytes(bytes, HUGE_BYTES - offset))).unwrap();
    grow(&path);
    assert_damaged(&path, "another number of digests");
    fs::write(&path, b"").unwrap();
    grow(&path);
    assert!(matches!(refused(&path), LoadError::NotSnapshot { .. }));
}

#[test]
fn a_flipped_bit_anywhere_is_found() {
    if !kvm::usable() {
        return;
    }
    // Not too near to each other: each takes the digest of the whole file.
    const STEP: usize = 61;
    let folder = Folder::new();
    let path = folder.save(&small(), "a");
    let mut bytes = fs::read(&path).unwrap();
    let data = Forgery::of(&path).data.len();
    let everywhere_before_data = 0..bytes.len() - data;
    let places: Vec<_> =
        everywhere_before_data.chain((bytes.len() - data..bytes.len()).step_by(STEP)).chain([bytes.len() - 1]).collect();
    for at in places {
        bytes[at] ^= 1 << (at % 8);
        fs::write(&path, &bytes).unwrap();
        let found = Snapshot::verify(&path);
        let typed = matches!(found, Err(LoadError::Damaged { .. } | LoadError::NotSnapshot { .. } | LoadError::Version { .. }));
        assert!(typed, "byte {at}: {found:?}");
        bytes[at] ^= 1 << (at % 8);
    }
    fs::write(&path, &bytes).unwrap();
    Snapshot::verify(&path).unwrap();
}

/// Loading does not read the pages: it is for those who trust where the file comes from.
#[test]
fn which_part_of_the_data_is_damaged_is_told() {
    if !kvm::usable() {
        return;
    }
    let folder = Folder::new();
    let path = folder.save(&small(), "a");
    let mut forgery = Forgery::of(&path);
    *forgery.data.last_mut().unwrap() ^= 1;
    forgery.write(&path);
    let error = Snapshot::verify(&path).unwrap_err();
    let offset = fs::metadata(&path).unwrap().len() - forgery.data.len() as u64;
    assert!(error.to_string().contains(&format!("its data from byte {offset} on")), "{error}");
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    Snapshot::load(&path).unwrap();
    forgery.digest_data();
    forgery.write(&path);
    Snapshot::verify(&path).unwrap();
}
