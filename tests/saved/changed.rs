//! Files that are cut short or overwritten while copies use them. A page that is not there any more is an error for whoever
//! needs it, in the guest and in the host; a signal would end this process.

use std::{
    fs::{self, File},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use mote_vmm::{AccessError, CallError, HostFailure, Poison, Ramdisk, Sandbox, SandboxState, Snapshot, SnapshotError};

use super::programs::{Folder, MARK, PLAIN, READS_FILE, assert_works, builder, small_in_file};
use crate::support::kvm;

fn cut(path: &Path, bytes: u64) {
    File::options().write(true).open(path).unwrap().set_len(bytes).unwrap();
}

#[track_caller]
fn assert_memory_is_gone(error: &CallError) {
    let gone = matches!(error, CallError::HostFailure(failure) if matches!(**failure, HostFailure::MemoryGone));
    assert!(gone, "{error:?}");
}

#[test]
fn calls_find_that_memory_is_gone() {
    if !kvm::usable() {
        return;
    }
    let (_folder, good, path, snapshot) = small_in_file();
    let mut used = Sandbox::from_snapshot(&snapshot).unwrap();
    used.call::<_, ()>("store", (MARK.0, 1)).unwrap();
    let mut fresh = Sandbox::from_snapshot(&snapshot).unwrap();
    cut(&path, 0);
    let mut late = Sandbox::from_snapshot(&snapshot).unwrap();
    for sandbox in [&mut used, &mut fresh, &mut late] {
        assert_memory_is_gone(&sandbox.call::<_, i32>("add", (1, 2)).unwrap_err());
        assert_eq!(sandbox.state(), SandboxState::Poisoned(Poison::Fault));
    }
    assert_works(&good);
}

#[test]
fn accesses_of_the_host_find_that_memory_is_gone() {
    if !kvm::usable() {
        return;
    }
    let (_folder, good, path, snapshot) = small_in_file();
    let mut sandbox = Sandbox::from_snapshot(&snapshot).unwrap();
    assert_eq!(sandbox.call::<_, i32>("load", MARK.0).unwrap(), MARK.1);
    sandbox.write_memory(0, b"written before").unwrap();
    cut(&path, 4096);
    let mut bytes = [0; 4096];
    let read = sandbox.read_memory(0, &mut bytes);
    assert!(matches!(read, Err(AccessError::Unreachable(_))), "{read:?}");
    let written = sandbox.write_memory(0, &bytes);
    assert!(matches!(written, Err(AccessError::Unreachable(_))), "{written:?}");
    assert!(sandbox.stats().ram_bytes > 0);
    assert_works(&good);
}

/// The guest's own pages are gone with the file, too, or will be found to be when they are compared with it.
#[test]
fn a_restore_finds_that_the_file_was_cut_short() {
    if !kvm::usable() {
        return;
    }
    let (_folder, good, path, snapshot) = small_in_file();
    let whole = fs::read(&path).unwrap();
    let mut sandbox = Sandbox::from_snapshot(&snapshot).unwrap();
    sandbox.call::<_, ()>("store", MARK).unwrap();
    cut(&path, 0);
    // There may be nothing left to be restored; a call tells.
    let restored = sandbox.restore(&snapshot);
    if restored.is_ok() {
        assert_memory_is_gone(&sandbox.call::<_, i32>("add", (1, 2)).unwrap_err());
    }
    // With zeros in the place of its contents, which are there when they are asked for.
    cut(&path, whole.len() as u64);
    sandbox.restore(&snapshot).unwrap();
    sandbox.set_deadline(Some(Duration::from_millis(100)));
    let ended = sandbox.call::<_, i32>("load", MARK.0);
    assert!(ended.as_ref().map_or(true, |value| *value == 0), "{ended:?}");
    // And with the contents that it had.
    fs::write(&path, &whole).unwrap();
    sandbox.restore(&snapshot).unwrap();
    sandbox.set_deadline(Some(super::programs::PATIENCE));
    assert_eq!(sandbox.call::<_, i32>("load", MARK.0).unwrap(), MARK.1);
    assert_works(&good);
}

#[test]
fn snapshots_of_copies_are_not_saved_without_their_file() {
    if !kvm::usable() {
        return;
    }
    let (folder, good, path, snapshot) = small_in_file();
    let mut sandbox = Sandbox::from_snapshot(&snapshot).unwrap();
    sandbox.call::<_, ()>("store", (MARK.0, 1)).unwrap();
    let taken_before = sandbox.snapshot().unwrap();
    sandbox.call::<_, ()>("store", (MARK.0, 2)).unwrap();
    cut(&path, 4096);
    let taken_after = sandbox.snapshot();
    for snapshot in [Some(&snapshot), Some(&taken_before), taken_after.as_ref().ok()].into_iter().flatten() {
        let error = snapshot.save(&folder.file("b")).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "{error}");
    }
    assert!(!folder.file("b").exists(), "nothing is left of what was not saved");
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["a"]);
    assert_works(&good);
}

#[test]
fn a_ramdisk_in_a_file_that_is_cut_short_is_gone() {
    if !kvm::usable() {
        return;
    }
    let folder = Folder::new();
    let archive = folder.file("archive.tar");
    let mut writer = tar::Builder::new(File::create(&archive).unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o644);
    writer.append_data(&mut header, "a", b"disk".as_slice()).unwrap();
    writer.finish().unwrap();
    drop(writer);
    let ramdisk = Ramdisk::from_file(&archive).unwrap();
    let taken = builder(READS_FILE).ramdisk(&ramdisk).build().unwrap().snapshot().unwrap();
    let path = folder.save(&taken, "a");
    let snapshot = Snapshot::load(&path).unwrap();
    let mut sandbox = Sandbox::from_snapshot(&snapshot).unwrap();
    // All of RAM is there, the archive behind it is not.
    cut(&path, fs::metadata(&path).unwrap().len() - 3 * 4096);
    assert_memory_is_gone(&sandbox.call::<_, i32>("read", ()).unwrap_err());
    snapshot.save(&folder.file("b")).unwrap_err();
    // The same for an archive that is a file of its own.
    taken.save(&folder.file("c")).unwrap();
    cut(&archive, 0);
    taken.save(&folder.file("c")).unwrap_err();
    Snapshot::verify(&folder.file("c")).unwrap();
}

/// Cut short and made whole again at any moment, by a thread that does nothing else.
#[test]
fn a_file_that_never_rests_ends_in_errors_alone() {
    if !kvm::usable() {
        return;
    }
    const ROUNDS: usize = 300;
    let (_folder, good, path, snapshot) = small_in_file();
    let whole = fs::read(&path).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                cut(&path, 4096);
                fs::write(&path, &whole).unwrap();
            }
        });
        let failures = count_failures(ROUNDS, || !use_once(&snapshot));
        is_over.store(true, Ordering::Relaxed);
        assert!(failures > 0, "it rested");
    });
    fs::write(&path, &whole).unwrap();
    assert_works(&snapshot);
    assert_works(&good);
}

/// A page that the guest wrote is there when the host finds out which ones these are, and gone when it looks at what is in it.
#[test]
fn pages_that_vanish_in_the_middle_of_a_restore_are_errors() {
    if !kvm::usable() {
        return;
    }
    const ROUNDS: usize = 4000;
    let (_folder, _, path, snapshot) = small_in_file();
    let whole = fs::read(&path).unwrap();
    let mut sandbox = Sandbox::from_snapshot(&snapshot).unwrap();
    let is_over = AtomicBool::new(false);
    let failures = thread::scope(|scope| {
        scope.spawn(|| {
            let file = File::options().write(true).open(&path).unwrap();
            while !is_over.load(Ordering::Relaxed) {
                file.set_len(4096).unwrap();
                file.set_len(whole.len() as u64).unwrap();
            }
        });
        let failures = count_failures(ROUNDS, || write_and_restore(&mut sandbox, &snapshot).is_err());
        is_over.store(true, Ordering::Relaxed);
        failures
    });
    assert!(failures > 0, "it rested");
    fs::write(&path, &whole).unwrap();
    sandbox.restore(&snapshot).unwrap();
    assert_works(&snapshot);
}

/// How often `fails` says so in at least so many rounds: in more if there was none, as on a machine with much else to do the two threads
/// can miss each other for long.
fn count_failures(rounds: usize, mut fails: impl FnMut() -> bool) -> usize {
    const LONGEST: Duration = Duration::from_secs(30);
    let started = Instant::now();
    let mut failures = 0;
    for round in 0.. {
        if round >= rounds && (failures > 0 || started.elapsed() > LONGEST) {
            break;
        }
        failures += usize::from(fails());
    }
    failures
}

fn write_and_restore(sandbox: &mut Sandbox, snapshot: &Snapshot) -> Result<(), SnapshotError> {
    let _any = sandbox.write_memory(0, &[1; 64 << 10]);
    sandbox.restore(snapshot)
}

/// Whether all went well.
fn use_once(snapshot: &Snapshot) -> bool {
    let Ok(mut sandbox) = snapshot.sandbox().deadline(Duration::from_millis(100)).build() else { return false };
    let mut bytes = [1; 64 << 10];
    let mut well = true;
    for _ in 0..3 {
        well &= sandbox.call::<_, ()>("store", (MARK.0, 1)).is_ok();
        well &= sandbox.read_memory(0, &mut bytes).is_ok();
        well &= sandbox.write_memory(0, &bytes).is_ok();
        well &= sandbox.restore(snapshot).is_ok();
    }
    well &= sandbox.write_memory(0, &bytes).is_ok();
    match sandbox.snapshot() {
        Ok(taken) => well & Sandbox::from_snapshot(&taken).is_ok(),
        Err(SnapshotError::NotQuiet(_) | SnapshotError::Memory(_) | SnapshotError::Vm(_)) => false,
        Err(other) => panic!("{other}"),
    }
}

/// What is mapped need not be what was loaded; that is the guest's business.
#[test]
fn a_file_that_is_overwritten_can_harm_its_copies_alone() {
    if !kvm::usable() {
        return;
    }
    let (_folder, good, path, snapshot) = small_in_file();
    let length = fs::metadata(&path).unwrap().len() as usize;
    for filling in [0u8, 0xff, 0x41] {
        fs::write(&path, vec![filling; length]).unwrap();
        let mut sandbox = snapshot.sandbox().deadline(Duration::from_millis(100)).build().unwrap();
        let ended = sandbox.call::<_, i32>("load", MARK.0);
        assert!(ended.as_ref().map_or(true, |value| value.to_le_bytes() == [filling; 4]), "{ended:?}");
        sandbox.restore(&snapshot).unwrap();
        assert_works(&good);
    }
    let mut fresh = builder(PLAIN).build().unwrap();
    assert_eq!(fresh.call::<_, i32>("add", (1, 2)).unwrap(), 3);
}
