//! Snapshots: what they hold, and going back to them.

use std::fs;

use mote_vmm::{
    Access, BuildError, Checkout, Directory, Pool, PoolOptions, Sandbox, SandboxState, SnapshotError, TrapKind, Value,
};

use super::guests::{MEMORY, Random, build, builder};
use crate::support::kvm;

fn count(sandbox: &mut Sandbox) -> i32 {
    sandbox.call("count", ()).unwrap()
}

#[test]
fn a_chain_of_snapshots_has_each_of_its_states() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = build(MEMORY);
    let mut snapshots = Vec::new();
    for number in 0..10 {
        // One page of its own for each state, one global, and one byte that all of them change.
        sandbox.call::<_, i32>("grow", 1).unwrap();
        sandbox.write_memory(65536 * (number + 1), &[number as u8 + 1; 5000]).unwrap();
        sandbox.write_memory(100, &[number as u8]).unwrap();
        sandbox.set_global("g", Value::I32(number as i32)).unwrap();
        snapshots.push(sandbox.snapshot().unwrap());
    }
    let check = |sandbox: &mut Sandbox, number: u64| {
        assert_eq!(sandbox.memory_bytes().unwrap(), 65536 * (number + 2));
        assert_eq!(sandbox.global("g").unwrap(), Value::I32(number as i32));
        assert_eq!(sandbox.call::<_, i32>("load", 100).unwrap(), number as i32);
        for page in 0..=number {
            let mut bytes = [0; 5001];
            sandbox.read_memory(65536 * (page + 1), &mut bytes).unwrap();
            assert!(bytes[..5000].iter().all(|byte| *byte == page as u8 + 1) && bytes[5000] == 0, "page {page} of {number}");
        }
        let trap = sandbox.call::<_, i32>("load", 65536 * (number as i32 + 2)).unwrap_err();
        assert_eq!(trap.trap().unwrap().kind, TrapKind::MemoryOutOfBounds);
        sandbox.clear_poison().unwrap();
    };
    for (number, snapshot) in snapshots.iter().enumerate() {
        let mut copy = Sandbox::from_snapshot(snapshot).unwrap();
        check(&mut copy, number as u64);
        // And it goes on from there.
        assert_eq!(copy.call::<_, i32>("grow", 1).unwrap(), number as i32 + 2);
    }
    // To older and newer ones, in any order, twice to the same.
    let mut random = Random::new(3);
    for _ in 0..30 {
        let number = random.below(10) as usize;
        for _ in 0..=random.below(2) {
            sandbox.restore(&snapshots[number]).unwrap();
            check(&mut sandbox, number as u64);
        }
    }
    // Those that are left need none of those that are gone.
    let last = snapshots.pop().unwrap();
    drop((snapshots, sandbox));
    check(&mut Sandbox::from_snapshot(&last).unwrap(), 9);
}

#[test]
fn any_copy_can_be_the_base_of_others() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = build(MEMORY);
    for generation in 1..=10 {
        assert_eq!(count(&mut sandbox), generation);
        let snapshot = sandbox.snapshot().unwrap();
        assert_eq!(count(&mut sandbox), generation + 1);
        sandbox = Sandbox::from_snapshot(&snapshot).unwrap();
    }
}

#[test]
fn a_snapshot_changes_nothing() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = build(MEMORY);
    let mut snapshots = Vec::new();
    for expected in 1..=20 {
        assert_eq!(count(&mut sandbox), expected);
        snapshots.push(sandbox.snapshot().unwrap());
    }
    assert_eq!(sandbox.counters().snapshots, 20);
    let stored = snapshots.last().unwrap().stored_bytes();
    assert!(stored < snapshots[0].stored_bytes() + (1 << 20), "they share what they have in common: {stored}");
}

#[test]
fn it_outlives_the_sandbox_that_it_was_taken_of() {
    if !kvm::usable() {
        return;
    }
    let snapshot = build(MEMORY).snapshot().unwrap();
    let clone = snapshot.clone();
    let mut copies: Vec<_> = (0..4).map(|_| Sandbox::from_snapshot(&snapshot).unwrap()).collect();
    drop((snapshot, clone));
    for copy in &mut copies {
        assert_eq!((count(copy), count(copy)), (1, 2));
    }
}

/// The guest's RAM is given back by a restore, however often.
#[test]
fn growth_is_given_back() {
    if !kvm::usable() {
        return;
    }
    const PAGES: i32 = 1600;
    let mut sandbox = builder(MEMORY).ram_bytes(192 << 20).build().unwrap();
    let snapshot = sandbox.snapshot().unwrap();
    let before = sandbox.stats().touched_bytes;
    for round in 0..50 {
        assert_eq!(sandbox.call::<_, i32>("grow", PAGES).unwrap(), 1, "round {round}");
        if round == 0 {
            sandbox.call::<_, ()>("fill", (0, 1, PAGES << 16)).unwrap();
        } else {
            sandbox.call::<_, ()>("store", ((PAGES << 16) - 1, 1)).unwrap();
        }
        sandbox.restore(&snapshot).unwrap();
        assert_eq!(sandbox.memory_bytes().unwrap(), 65536);
    }
    // Pages that are no longer used are given up in time, too.
    for _ in 0..10 {
        sandbox.call::<_, ()>("nothing", ()).unwrap();
        sandbox.restore(&snapshot).unwrap();
    }
    let after = sandbox.stats().touched_bytes;
    assert!(after < before + (16 << 20), "{} MiB more", (after - before) >> 20);
}

#[test]
fn a_memory_that_shrank_by_a_restore_traps_where_it_did() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = builder(MEMORY).ram_bytes(192 << 20).build().unwrap();
    let small = sandbox.snapshot().unwrap();
    sandbox.call::<_, i32>("grow", 99).unwrap();
    sandbox.call::<_, ()>("fill", (0, 0x55, 100 << 16)).unwrap();
    let large = sandbox.snapshot().unwrap();
    let mut other = Sandbox::from_snapshot(&small).unwrap();
    for _ in 0..3 {
        for sandbox in [&mut sandbox, &mut other] {
            sandbox.restore(&small).unwrap();
            for at in [65536, 65537, 1 << 20, (100 << 16) - 1, 100 << 16] {
                let error = sandbox.call::<_, i32>("load", at).unwrap_err();
                assert_eq!(error.trap().unwrap().kind, TrapKind::MemoryOutOfBounds, "{at}");
                sandbox.clear_poison().unwrap();
            }
            assert_eq!(sandbox.call::<_, i32>("load", 65535).unwrap(), 0);
            // What grows there again is zeros.
            assert_eq!(sandbox.call::<_, i32>("grow", 99).unwrap(), 1);
            for at in [65536, 3 << 20, (100 << 16) - 1] {
                assert_eq!(sandbox.call::<_, i32>("load", at).unwrap(), 0, "{at}");
            }
            sandbox.restore(&large).unwrap();
            assert_eq!(sandbox.call::<_, i32>("load", (100 << 16) - 1).unwrap(), 0x55);
            assert_eq!(sandbox.call::<_, i32>("load", 100 << 16).unwrap_err().trap().unwrap().kind, TrapKind::MemoryOutOfBounds);
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_and_harms_nothing() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = build(MEMORY);
    assert_eq!(count(&mut sandbox), 1);
    let larger = builder(MEMORY).ram_bytes(128 << 20).build().unwrap().snapshot().unwrap();
    let functions = builder(MEMORY).func("env", "f", |_: mote_vmm::Caller<'_>| {}).build().unwrap().snapshot().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let given = |name: &str| Directory::open(directory.path(), name, Access::ReadOnly).unwrap();
    let directories = builder(MEMORY).directory(given("/d")).build().unwrap().snapshot().unwrap();
    for other in [&larger, &functions, &directories] {
        assert!(matches!(sandbox.restore(other), Err(SnapshotError::Other(_))));
        assert_eq!(sandbox.state(), SandboxState::Ready);
    }
    assert_eq!(count(&mut sandbox), 2);
    let other = directories.sandbox().directory(given("/other")).build();
    assert!(matches!(other, Err(BuildError::OtherDirectories { .. })), "{other:?}");
    directories.sandbox().directory(given("/d")).build().unwrap();
}

/// The engine counts fuel or does not, which is in its RAM, and the sandbox must know.
#[test]
fn a_snapshot_with_fuel_does_not_fit_a_sandbox_without_nor_the_other_way_round() {
    if !kvm::usable() {
        return;
    }
    let (mut counting, mut plain) = (builder(MEMORY).fuel(100_000).build().unwrap(), build(MEMORY));
    let (with_fuel, without) = (counting.snapshot().unwrap(), plain.snapshot().unwrap());
    for (sandbox, own, other) in [(&mut counting, &with_fuel, &without), (&mut plain, &without, &with_fuel)] {
        assert_eq!(count(sandbox), 1);
        let refused = sandbox.restore(other);
        assert!(matches!(refused, Err(SnapshotError::Other(_))), "{refused:?}");
        assert_eq!((sandbox.state(), count(sandbox)), (SandboxState::Ready, 2));
        sandbox.restore(own).unwrap();
        assert_eq!(count(sandbox), 1);
    }
    // How much it is does not matter.
    let other_amount = builder(MEMORY).fuel(50_000).build().unwrap().snapshot().unwrap();
    counting.restore(&other_amount).unwrap();
    assert_eq!(count(&mut counting), 1);
}

/// Another module is no hindrance: all of RAM becomes that of the snapshot.
#[test]
fn a_sandbox_can_become_another() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = build(MEMORY);
    let own = sandbox.snapshot().unwrap();
    let other = build(r#"(module (func (export "f") (result i32) (i32.const 5)))"#).snapshot().unwrap();
    for _ in 0..3 {
        sandbox.restore(&other).unwrap();
        assert_eq!(sandbox.call::<_, i32>("f", ()).unwrap(), 5);
        assert!(sandbox.call::<_, i32>("count", ()).is_err());
        sandbox.restore(&own).unwrap();
        assert_eq!(count(&mut sandbox), 1);
        assert!(sandbox.call::<_, i32>("f", ()).is_err());
    }
}

/// Opens, reads and closes `file` in the directory 3.
const FILES: &str = r#"(module
    (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 100) "file")
    (func (export "open") (result i32)
        (drop (call $open (i32.const 3) (i32.const 0) (i32.const 100) (i32.const 4) (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 0)))
        (i32.load (i32.const 0)))
    (func (export "read") (param i32) (result i32 i32)
        (i32.store (i32.const 8) (i32.const 200)) (i32.store (i32.const 12) (i32.const 1))
        (i32.store8 (i32.const 200) (i32.const 0))
        (call $read (local.get 0) (i32.const 8) (i32.const 1) (i32.const 16))
        (i32.load8_u (i32.const 200)))
    (func (export "close") (param i32) (result i32) (call $close (local.get 0))))"#;

#[test]
fn open_files_are_refused_and_given_directories_come_back() {
    if !kvm::usable() {
        return;
    }
    const BADF: i32 = 8;
    let [first, second] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    fs::write(first.path().join("file"), "1").unwrap();
    fs::write(second.path().join("file"), "2").unwrap();
    let directory = |at: &tempfile::TempDir| Directory::open(at.path(), "/d", Access::ReadOnly).unwrap();
    let mut sandbox = builder(FILES).directory(directory(&first)).build().unwrap();
    let snapshot = sandbox.snapshot().unwrap();
    let open = |sandbox: &mut Sandbox| sandbox.call::<_, i32>("open", ()).unwrap();
    let read = |sandbox: &mut Sandbox, fd: i32| sandbox.call::<_, (i32, i32)>("read", fd).unwrap();
    let close = |sandbox: &mut Sandbox, fd: i32| sandbox.call::<_, i32>("close", fd).unwrap();

    let fd = open(&mut sandbox);
    assert!(matches!(sandbox.snapshot(), Err(SnapshotError::OpenFiles(1))));
    assert_eq!(read(&mut sandbox, fd), (0, i32::from(b'1')), "it goes on after that");
    assert_eq!(close(&mut sandbox, fd), 0);
    let closed = sandbox.snapshot().unwrap();
    // A directory that was given and closed cannot be had in a copy.
    assert_eq!(close(&mut sandbox, 3), 0);
    assert!(matches!(sandbox.snapshot(), Err(SnapshotError::OpenFiles(1))));
    // A restore closes files and opens directories.
    for back in [&snapshot, &closed] {
        sandbox.restore(back).unwrap();
        let fd = open(&mut sandbox);
        sandbox.restore(back).unwrap();
        assert_eq!(read(&mut sandbox, fd).0, BADF);
        let fd = open(&mut sandbox);
        assert_eq!(read(&mut sandbox, fd), (0, i32::from(b'1')));
    }
    // Copies have the same directory, or another one of that name.
    let mut copy = Sandbox::from_snapshot(&closed).unwrap();
    let fd = open(&mut copy);
    assert_eq!(read(&mut copy, fd), (0, i32::from(b'1')));
    let mut copy = closed.sandbox().directory(directory(&second)).build().unwrap();
    let fd = open(&mut copy);
    assert_eq!(read(&mut copy, fd), (0, i32::from(b'2')));
    drop(sandbox);
}

/// Two directories, of which the second can be written to and has a directory `sub`. `swap` closes the first one, and opens
/// `sub` where that was; `peek` tells the first byte of `file` in the directory 3, or what opening it failed with, as a negative
/// number; `make` makes `new` there.
const SWAP: &str = r#"(module
    (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 100) "file") (data (i32.const 110) "sub") (data (i32.const 120) "new")
    (data (i32.const 8) "\c8\00\00\00\01\00\00\00")
    (func (export "swap") (result i32 i32)
        (call $close (i32.const 3))
        (call $open (i32.const 4) (i32.const 0) (i32.const 110) (i32.const 3) (i32.const 2) (i64.const 0x242400) (i64.const 0x242442) (i32.const 0) (i32.const 0)))
    (func (export "peek") (result i32) (local $errno i32)
        (local.set $errno (call $open (i32.const 3) (i32.const 0) (i32.const 100) (i32.const 4) (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 0)))
        (if (local.get $errno) (then (return (i32.sub (i32.const 0) (local.get $errno)))))
        (drop (call $read (i32.load (i32.const 0)) (i32.const 8) (i32.const 1) (i32.const 16)))
        (drop (call $close (i32.load (i32.const 0))))
        (i32.load8_u (i32.const 200)))
    (func (export "make") (result i32)
        (call $open (i32.const 3) (i32.const 0) (i32.const 120) (i32.const 3) (i32.const 1) (i64.const 0x40) (i64.const 0) (i32.const 0) (i32.const 0))))"#;

/// The directories of [`SWAP`].
struct Swapped {
    first: tempfile::TempDir,
    second: tempfile::TempDir,
}

impl Swapped {
    fn new() -> Self {
        let [first, second] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        fs::write(first.path().join("file"), "1").unwrap();
        fs::create_dir(second.path().join("sub")).unwrap();
        fs::write(second.path().join("sub/file"), "2").unwrap();
        Self { first, second }
    }

    fn sandbox(&self) -> Sandbox {
        let open = |at: &tempfile::TempDir, name, access| Directory::open(at.path(), name, access).unwrap();
        let first = open(&self.first, "/first", Access::ReadOnly);
        builder(SWAP).directory(first).directory(open(&self.second, "/second", Access::ReadWrite)).build().unwrap()
    }

    /// Puts `sub` in the place of the first directory.
    fn swap(sandbox: &mut Sandbox) {
        assert_eq!(sandbox.call::<_, (i32, i32)>("swap", ()).unwrap(), (0, 0));
    }

    /// Checks that the descriptor 3 is the first directory, and that this cannot be changed.
    fn check(&self, sandbox: &mut Sandbox) {
        assert_eq!(sandbox.call::<_, i32>("peek", ()).unwrap(), i32::from(b'1'), "another directory has its place");
        assert_ne!(sandbox.call::<_, i32>("make", ()).unwrap(), 0, "it became writable");
        for directory in [self.first.path(), &self.second.path().join("sub")] {
            assert_eq!(fs::read_dir(directory).unwrap().count(), 1, "something was made in {}", directory.display());
        }
    }
}

#[test]
fn a_directory_in_the_place_of_a_given_one_is_gone_after_a_restore() {
    if !kvm::usable() {
        return;
    }
    let directories = Swapped::new();
    let mut sandbox = directories.sandbox();
    let snapshot = sandbox.snapshot().unwrap();
    directories.check(&mut sandbox);
    for _ in 0..2 {
        sandbox.restore(&snapshot).unwrap();
        Swapped::swap(&mut sandbox);
        assert!(matches!(sandbox.snapshot(), Err(SnapshotError::OpenFiles(_))));
        sandbox.restore(&snapshot).unwrap();
        directories.check(&mut sandbox);
    }
    // The other way round the swap is the first thing that happens.
    let mut copy = Sandbox::from_snapshot(&snapshot).unwrap();
    Swapped::swap(&mut copy);
    copy.restore(&snapshot).unwrap();
    directories.check(&mut copy);
}

#[test]
fn nor_does_the_next_user_of_a_pool_find_it() {
    if !kvm::usable() {
        return;
    }
    let directories = Swapped::new();
    let snapshot = directories.sandbox().snapshot().unwrap();
    let pool = Pool::new(&snapshot, PoolOptions { max_sandboxes: 1, prewarmed: 1 }).unwrap();
    for _ in 0..2 {
        Swapped::swap(&mut pool.checkout(Checkout::Fail).unwrap());
        directories.check(&mut pool.checkout(Checkout::Fail).unwrap());
    }
    assert_eq!((pool.stats().created, pool.stats().replaced), (1, 0), "it is the same sandbox");
}

/// Sandboxes that go back to one snapshot at the same time, each on a thread of its own.
#[test]
fn a_snapshot_can_be_used_by_many_threads() {
    if !kvm::usable() {
        return;
    }
    let snapshot = build(MEMORY).snapshot().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let snapshot = &snapshot;
            scope.spawn(move || {
                let mut sandbox = Sandbox::from_snapshot(snapshot).unwrap();
                for round in 0..100 {
                    assert_eq!(count(&mut sandbox), 1, "thread {thread}, round {round}");
                    sandbox.restore(snapshot).unwrap();
                }
            });
        }
    });
}
