//! What is saved comes back.

use std::{env, fs, path::Path, process::Command, time::Duration};

use mote_vmm::{
    Access, BuildError, Caller, ClockSource, Directory, Input, Output, Progress, Ramdisk, Sandbox, SandboxState, SharedBuffer,
    Snapshot, SnapshotError, Value,
};

use super::programs::{
    ASKS_CHANCE, CALLS_HOST, ECHO, Folder, MARK, PATIENCE, PLAIN, READS_FILE, SMALL_RAM_BYTES, assert_works, builder, small,
    with_functions,
};
use crate::support::kvm;

/// Tells a process that runs this test's binary what to load.
const TO_LOAD: &str = "MOTE_TEST_SNAPSHOT";

#[test]
fn memory_globals_and_exports_come_back() {
    if !kvm::usable() {
        return;
    }
    let folder = Folder::new();
    for ram_bytes in [SMALL_RAM_BYTES, 1 << 30] {
        let mut sandbox = builder(PLAIN).ram_bytes(ram_bytes).build().unwrap();
        sandbox.call::<_, ()>("store", MARK).unwrap();
        sandbox.set_global("counter", Value::I32(-5)).unwrap();
        let path = folder.save(&sandbox.snapshot().unwrap(), "a");
        assert!(fs::metadata(&path).unwrap().len() < 4 << 20, "a file holds what was written, and little else");
        let loaded = Snapshot::load(&path).unwrap();
        assert_eq!((loaded.ram_bytes(), loaded.is_at_input()), (ram_bytes, false));
        let mut copy = Sandbox::from_snapshot(&loaded).unwrap();
        assert_eq!(copy.exports(), sandbox.exports());
        assert_eq!(copy.global("counter").unwrap(), Value::I32(-5));
        assert_works(&loaded);
        let info = Snapshot::verify(&path).unwrap();
        assert_eq!((info.ram_bytes, info.at_input, info.exports.as_slice()), (ram_bytes, false, copy.exports()));
        let file_bytes = fs::metadata(&path).unwrap().len();
        assert!(info.stored_bytes > 0 && info.stored_bytes < file_bytes, "{info:?}");
    }
}

#[test]
fn copies_of_a_file_do_not_see_each_other_and_change_nothing_in_it() {
    if !kvm::usable() {
        return;
    }
    let folder = Folder::new();
    let path = folder.save(&small(), "a");
    let before = fs::read(&path).unwrap();
    let loaded = Snapshot::load(&path).unwrap();
    let mut copies: Vec<_> = (0..4).map(|_| Sandbox::from_snapshot(&loaded).unwrap()).collect();
    for (index, copy) in copies.iter_mut().enumerate() {
        copy.call::<_, ()>("store", (MARK.0, index as i32)).unwrap();
        copy.write_memory(2000, &[index as u8; 3000]).unwrap();
    }
    for (index, copy) in copies.iter_mut().enumerate() {
        assert_eq!(copy.call::<_, i32>("load", MARK.0).unwrap(), index as i32);
        let mut read = [0xff; 3001];
        copy.read_memory(2000, &mut read).unwrap();
        assert!(read[..3000].iter().all(|byte| *byte == index as u8) && read[3000] == 0);
    }
    assert_works(&loaded);
    assert!(fs::read(&path).unwrap() == before);
}

#[test]
fn another_process_goes_on_with_it() {
    if !kvm::usable() {
        return;
    }
    if let Some(path) = env::var_os(TO_LOAD) {
        assert_works(&Snapshot::load(Path::new(&path)).unwrap());
        return;
    }
    let folder = Folder::new();
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--exact", "saved::round_trips::another_process_goes_on_with_it"]);
    let output = child.env(TO_LOAD, folder.save(&small(), "a")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
}

#[test]
fn host_functions_are_asked_for_by_name_and_type() {
    if !kvm::usable() {
        return;
    }
    let folder = Folder::new();
    let snapshot = with_functions(builder(CALLS_HOST)).build().unwrap().snapshot().unwrap();
    let loaded = Snapshot::load(&folder.save(&snapshot, "a")).unwrap();
    let missing = |error: BuildError| match error {
        BuildError::MissingFunction { name, ty } => (name, ty),
        other => panic!("{other}"),
    };
    let none = loaded.sandbox().build().unwrap_err();
    assert_eq!(missing(none), ("env::twice".into(), "i:i".into()));
    let one = loaded.sandbox().func("env", "twice", |_: Caller<'_>, value: i32| value).build().unwrap_err();
    assert_eq!(one.to_string(), "the snapshot needs the host function env::note of type I:");
    let other_type = loaded
        .sandbox()
        .func("env", "twice", |_: Caller<'_>, value: i64| value)
        .func("env", "note", |_: Caller<'_>, _: i64| ())
        .build()
        .unwrap_err();
    assert_eq!(missing(other_type), ("env::twice".into(), "i:i".into()));
    // In another order, with one more, and with other bodies.
    let mut copy = loaded
        .sandbox()
        .func("env", "more", |_: Caller<'_>| ())
        .func("env", "note", |_: Caller<'_>, _: i64| ())
        .func("env", "twice", |_: Caller<'_>, value: i32| 3 * value)
        .build()
        .unwrap();
    assert_eq!(copy.call::<_, i32>("twice", 5).unwrap(), 15);
    copy.call::<_, ()>("note", 5i64).unwrap();
    copy.restore(&loaded).unwrap();
    assert_eq!(copy.call::<_, i32>("twice", 6).unwrap(), 18);
}

#[test]
fn a_ramdisk_is_in_the_file() {
    if !kvm::usable() {
        return;
    }
    let folder = Folder::new();
    let archive = folder.file("archive.tar");
    let mut writer = tar::Builder::new(fs::File::create(&archive).unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o644);
    writer.append_data(&mut header, "a", b"disk".as_slice()).unwrap();
    writer.finish().unwrap();
    drop(writer);
    let ramdisk = Ramdisk::from_file(&archive).unwrap();
    let expected = i32::from_le_bytes(*b"disk");
    let mut sandbox = builder(READS_FILE).ramdisk(&ramdisk).build().unwrap();
    assert_eq!(sandbox.call::<_, i32>("read", ()).unwrap(), expected);
    let path = folder.save(&sandbox.snapshot().unwrap(), "a");
    fs::remove_file(&archive).unwrap();
    Snapshot::verify(&path).unwrap();
    let loaded = Snapshot::load(&path).unwrap();
    let mut copy = Sandbox::from_snapshot(&loaded).unwrap();
    assert_eq!(copy.call::<_, i32>("read", ()).unwrap(), expected);
    // From a file into a file.
    let again = folder.save(&copy.snapshot().unwrap(), "again");
    Snapshot::verify(&again).unwrap();
    let mut copy = Sandbox::from_snapshot(&Snapshot::load(&again).unwrap()).unwrap();
    assert_eq!(copy.call::<_, i32>("read", ()).unwrap(), expected);
}

#[test]
fn directories_are_given_anew() {
    if !kvm::usable() {
        return;
    }
    let folder = Folder::new();
    let open = |name: &str, guest: &str| {
        let path = folder.file(name);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("a"), format!("{name}....")).unwrap();
        Directory::open(&path, guest, Access::ReadOnly).unwrap()
    };
    let mut sandbox = builder(READS_FILE).directory(open("one.", "/data")).build().unwrap();
    assert_eq!(sandbox.call::<_, i32>("read", ()).unwrap(), i32::from_le_bytes(*b"one."));
    let loaded = Snapshot::load(&folder.save(&sandbox.snapshot().unwrap(), "a.snap")).unwrap();
    let mut copy = loaded.sandbox().directory(open("two.", "/data")).build().unwrap();
    assert_eq!(copy.call::<_, i32>("read", ()).unwrap(), i32::from_le_bytes(*b"two."));
    let other = loaded.sandbox().directory(open("two.", "/other")).build().unwrap_err();
    assert!(
        matches!(&other, BuildError::OtherDirectories { expected, given } if expected == &["/data"] && given == &["/other"]),
        "{other}"
    );
    let none = Sandbox::from_snapshot(&loaded).unwrap_err();
    assert!(matches!(&none, BuildError::OtherDirectories { given, .. } if given.is_empty()), "{none}");
}

#[test]
fn fixed_clocks_and_seeds_are_the_same_in_each_copy() {
    if !kvm::usable() {
        return;
    }
    const REALTIME_NS: u64 = 1_000_000_000_000_000_000;
    let folder = Folder::new();
    let clock = ClockSource::Fixed { realtime_ns: REALTIME_NS };
    let mut sandbox = builder(ASKS_CHANCE).clock(clock).random_seed([7; 32]).build().unwrap();
    sandbox.call::<_, i64>("random", ()).unwrap();
    let path = folder.save(&sandbox.snapshot().unwrap(), "a");
    let look = |sandbox: &mut Sandbox| {
        let random = sandbox.call::<_, i64>("random", ()).unwrap();
        let clocks = [0, 1].map(|clock| sandbox.call::<_, i64>("clock", clock).unwrap());
        (random, clocks)
    };
    let expected = look(&mut sandbox);
    assert!((REALTIME_NS as i64..REALTIME_NS as i64 + 1_000_000_000).contains(&expected.1[0]), "{expected:?}");
    for _ in 0..2 {
        let loaded = Snapshot::load(&path).unwrap();
        let mut copy = Sandbox::from_snapshot(&loaded).unwrap();
        assert_eq!(look(&mut copy), expected);
        copy.restore(&loaded).unwrap();
        assert_eq!(look(&mut copy), expected);
    }
}

#[test]
fn clocks_go_on_and_random_numbers_differ_where_nothing_is_fixed() {
    if !kvm::usable() {
        return;
    }
    let folder = Folder::new();
    let mut sandbox = builder(ASKS_CHANCE).build().unwrap();
    let before = sandbox.call::<_, i64>("clock", 1).unwrap();
    let loaded = Snapshot::load(&folder.save(&sandbox.snapshot().unwrap(), "a")).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let mut copy = Sandbox::from_snapshot(&loaded).unwrap();
        assert!(seen.insert(copy.call::<_, i64>("random", ()).unwrap()));
        assert!(copy.call::<_, i64>("clock", 1).unwrap() >= before);
        copy.restore(&loaded).unwrap();
        assert!(seen.insert(copy.call::<_, i64>("random", ()).unwrap()));
    }
}

#[test]
fn a_program_that_waits_for_input_is_given_it_in_each_copy() {
    if !kvm::usable() {
        return;
    }
    let folder = Folder::new();
    let mut sandbox = builder(ECHO).build().unwrap();
    assert_eq!(sandbox.start_until_input().unwrap(), Progress::AtInput);
    let path = folder.save(&sandbox.snapshot().unwrap(), "a");
    assert!(Snapshot::verify(&path).unwrap().at_input);
    let loaded = Snapshot::load(&path).unwrap();
    assert!(loaded.is_at_input());
    for text in ["one", "another"] {
        let output = SharedBuffer::new(1000);
        let mut copy = loaded.sandbox().stdin(Input::Bytes(text.into())).stdout(Output::Buffer(output.clone())).build().unwrap();
        assert_eq!(copy.state(), SandboxState::AtInput);
        assert_eq!(copy.resume().unwrap(), 0);
        assert_eq!(output.contents(), text.as_bytes());
    }
}

#[test]
fn memory_beyond_the_first_part_of_the_pool_comes_back() {
    if !kvm::usable() {
        return;
    }
    const PAGES: i32 = 1600;
    let folder = Folder::new();
    let mut sandbox = builder(PLAIN).ram_bytes(1 << 30).build().unwrap();
    sandbox.call::<_, i32>("grow", PAGES).unwrap();
    let places = || (0..PAGES).step_by(50).map(|page| (page << 16) + 8);
    for at in places() {
        sandbox.call::<_, ()>("store", (at, at + 1)).unwrap();
    }
    let path = folder.save(&sandbox.snapshot().unwrap(), "a");
    Snapshot::verify(&path).unwrap();
    let loaded = Snapshot::load(&path).unwrap();
    let mut copy = Sandbox::from_snapshot(&loaded).unwrap();
    for round in 0..2 {
        for at in places() {
            assert_eq!(copy.call::<_, i32>("load", at).unwrap(), at + 1, "round {round}");
            copy.call::<_, ()>("store", (at, 0)).unwrap();
        }
        let mut last = [0; 4];
        let at = places().next_back().unwrap();
        copy.write_memory(at as u64, &[9; 4]).unwrap();
        copy.read_memory(at as u64, &mut last).unwrap();
        assert_eq!(last, [9; 4]);
        assert_eq!(copy.call::<_, i32>("grow", 100).unwrap(), PAGES + 1);
        copy.restore(&loaded).unwrap();
    }
}

#[test]
fn snapshots_of_copies_hold_all_and_can_be_gone_back_to() {
    if !kvm::usable() {
        return;
    }
    let folder = Folder::new();
    let mut first = Snapshot::load(&folder.save(&small(), "0")).unwrap();
    for generation in 1..5 {
        let mut copy = Sandbox::from_snapshot(&first).unwrap();
        copy.call::<_, ()>("store", (4096 * generation, generation)).unwrap();
        let taken = copy.snapshot().unwrap();
        copy.call::<_, ()>("store", (4096 * generation, -1)).unwrap();
        copy.restore(&first).unwrap();
        assert_eq!(copy.call::<_, i32>("load", 4096 * generation).unwrap(), 0);
        copy.restore(&taken).unwrap();
        let path = folder.save(&taken, &generation.to_string());
        Snapshot::verify(&path).unwrap();
        first = Snapshot::load(&path).unwrap();
        for sandbox in [&mut copy, &mut Sandbox::from_snapshot(&first).unwrap()] {
            for earlier in 1..=generation {
                assert_eq!(sandbox.call::<_, i32>("load", 4096 * earlier).unwrap(), earlier);
            }
        }
        assert_works(&first);
    }
}

#[test]
fn limits_are_those_of_the_snapshot_unless_others_are_chosen() {
    if !kvm::usable() {
        return;
    }
    let folder = Folder::new();
    let sandbox = builder(PLAIN).fuel(100_000).deadline(PATIENCE).build();
    let loaded = Snapshot::load(&folder.save(&sandbox.unwrap().snapshot().unwrap(), "a")).unwrap();
    let mut copy = Sandbox::from_snapshot(&loaded).unwrap();
    let error = copy.call::<_, ()>("spin", ()).unwrap_err();
    assert!(error.trap().is_some_and(|trap| trap.kind == mote_vmm::TrapKind::OutOfFuel), "{error}");
    let mut copy = loaded.sandbox().fuel(u64::MAX).deadline(Duration::from_millis(50)).build().unwrap();
    assert!(matches!(copy.call::<_, ()>("spin", ()), Err(mote_vmm::CallError::DeadlineExceeded)));
}

/// The files of both have the same kernel, but not the same RAM.
#[test]
fn a_sandbox_does_not_go_back_to_another_size_of_ram() {
    if !kvm::usable() {
        return;
    }
    let folder = Folder::new();
    let small = Snapshot::load(&folder.save(&small(), "small")).unwrap();
    let mut large = builder(PLAIN).ram_bytes(32 << 20).build().unwrap();
    assert!(matches!(large.restore(&small), Err(SnapshotError::Other(_))));
    assert_eq!(large.call::<_, i32>("add", (1, 2)).unwrap(), 3, "it is as it was");
}
