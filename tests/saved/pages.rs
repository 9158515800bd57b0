//! RAM of a file that is not what a kernel left: copies may fault, trap, or meet their deadline, and the host is none the worse
//! for it.

use std::{fs, path::Path, sync::mpsc, thread, time::Duration};

use mote_abi::layout::{HEAP, KERNEL_DATA, MAILBOX, POOL_NEAR, RING_HEAD, STACK};
use mote_vmm::{CallError, Caller, Input, Sandbox, SandboxState, Snapshot};
use proptest::{prelude::*, sample::Index};
use serde_json::{Value, json};

use super::{
    forgery::Forgery,
    programs::{ECHO, Folder, MARK, PLAIN, assert_works, builder, small},
};
use crate::support::kvm;

const PAGE_BYTES: usize = 4096;
/// Of a call of a copy that may not end.
const DEADLINE: Duration = Duration::from_millis(25);
/// Longer than all that one file leads to, however busy the machine is.
const WATCHDOG: Duration = Duration::from_secs(120);

/// Makes a copy of a file, if it can be loaded, and does all kinds of things with it; whether it could be loaded.
///
/// # Panics
///
/// If the host panics or hangs, or if an error and the state of the sandbox do not fit each other.
fn try_out(path: &Path) -> bool {
    let (sender, receiver) = mpsc::channel();
    let path = path.to_owned();
    let work = move || Snapshot::load(&path).is_ok_and(|snapshot| use_copies(&snapshot));
    let runner = thread::spawn(move || sender.send(work()).is_ok());
    match receiver.recv_timeout(WATCHDOG) {
        Ok(loaded) => loaded,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the host hangs: no end after {WATCHDOG:?}"),
        Err(mpsc::RecvTimeoutError::Disconnected) => panic!("the host panicked: {:?}", runner.join()),
    }
}

fn use_copies(snapshot: &Snapshot) -> bool {
    let copy = || {
        let builder = snapshot.sandbox().stdin(Input::Bytes(b"input".to_vec())).deadline(DEADLINE);
        builder.func("env", "twice", |_: Caller<'_>, value: i32| value).build()
    };
    let Ok(mut sandbox) = copy() else { return true };
    for _ in 0..2 {
        let ended = match sandbox.state() {
            SandboxState::AtInput => sandbox.resume().map(drop),
            _ => sandbox.call::<_, i32>("add", (1, 2)).map(drop),
        };
        assert_fits(&sandbox, ended.as_ref().err());
        let loaded = sandbox.call::<_, i32>("load", MARK.0);
        assert_fits(&sandbox, loaded.as_ref().err());
        let mut bytes = [0; 3 * PAGE_BYTES];
        let _any = (sandbox.read_memory(60_000, &mut bytes), sandbox.write_memory(60_000, &bytes), sandbox.global("counter"));
        if let Ok(taken) = sandbox.snapshot() {
            let _any = Sandbox::from_snapshot(&taken).map(|mut copy| copy.call::<_, i32>("grow", 1));
        }
        sandbox.restore(snapshot).unwrap();
    }
    true
}

#[track_caller]
fn assert_fits(sandbox: &Sandbox, error: Option<&CallError>) {
    let poisoned = matches!(sandbox.state(), SandboxState::Poisoned(_));
    let expected = match error {
        None => false,
        Some(CallError::Mismatch(_) | CallError::Rejected(_) | CallError::Poisoned(_) | CallError::AtInput) => return,
        Some(_) => true,
    };
    assert_eq!(poisoned, expected, "{error:?}");
}

/// Files with one page after the other filled with something else.
#[test]
fn each_page_may_hold_anything() {
    if !kvm::usable() {
        return;
    }
    let (folder, good) = (Folder::new(), small());
    let mut waiting = builder(ECHO).build().unwrap();
    waiting.start_until_input().unwrap();
    let mut contents = vec![[0; PAGE_BYTES], [0xff; PAGE_BYTES]];
    // Numbers that are addresses of the kernel's data and of the heap.
    contents.extend([KERNEL_DATA.start, HEAP.start].map(|address| {
        let words: Vec<u8> = (0..PAGE_BYTES as u64 / 8).flat_map(|index| (address + index * 40).to_le_bytes()).collect();
        <[u8; PAGE_BYTES]>::try_from(words).unwrap()
    }));
    for snapshot in [&good, &waiting.snapshot().unwrap()] {
        let path = folder.save(snapshot, "a");
        let whole = Forgery::of(&path);
        for at in (0..whole.data.len()).step_by(PAGE_BYTES) {
            for filling in &contents {
                let mut forgery = whole.clone();
                forgery.data[at..at + PAGE_BYTES].copy_from_slice(filling);
                forgery.digest_data();
                forgery.write(&path);
                assert!(try_out(&path), "such a file is good as far as the host can tell");
            }
        }
        assert_works(&good);
    }
}

/// The pages that matter most, in all their bits.
#[test]
fn one_bit_of_what_the_kernel_goes_on_with_may_be_another() {
    if !kvm::usable() {
        return;
    }
    const BITS: usize = 24;
    let (folder, good) = (Folder::new(), small());
    let path = folder.save(&good, "a");
    let whole = Forgery::of(&path);
    for start in [MAILBOX.start, RING_HEAD.start, STACK.end - PAGE_BYTES as u64, KERNEL_DATA.start, POOL_NEAR.start] {
        let Some(at) = whole.offset_of(start) else { continue };
        let used: Vec<_> = (at..at + PAGE_BYTES).filter(|at| whole.data[*at] != 0).collect();
        for at in used.iter().step_by(used.len().div_ceil(BITS).max(1)) {
            let mut forgery = whole.clone();
            forgery.data[*at] ^= 1 << (at % 8);
            forgery.write(&path);
            assert!(try_out(&path));
        }
    }
    assert_works(&good);
}

/// What is done to a file.
#[derive(Debug, Clone)]
enum Change {
    /// A number, string or truth value of the metadata becomes another value.
    Leaf(Index, Value),
    /// An element of a list comes twice.
    Double(Index),
    /// An element of a list goes away.
    Remove(Index),
    /// Bytes of the data become others.
    Data(Index, Vec<u8>),
    /// The data become shorter.
    Cut(Index),
}

fn value() -> impl Strategy<Value = Value> {
    let near = |number: u64| (number.saturating_sub(4096)..=number.saturating_add(4096)).prop_map(Value::from);
    prop_oneof![
        any::<u64>().prop_map(Value::from),
        (0..64u32).prop_map(|bit| Value::from(1u64 << bit)),
        near(POOL_NEAR.start),
        near(STACK.start),
        (0..64u64).prop_map(|chunk| Value::from(POOL_NEAR.start + (chunk << 21))),
        (0..64u64).prop_map(|chunk| Value::from(0x1000_0000_0000 + (chunk << 21))),
        any::<bool>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        Just(Value::Null),
        Just(json!([])),
        Just(json!("i:")),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => (any::<Index>(), value()).prop_map(|(which, value)| Change::Leaf(which, value)),
        1 => any::<Index>().prop_map(Change::Double),
        1 => any::<Index>().prop_map(Change::Remove),
        6 => (any::<Index>(), prop::collection::vec(any::<u8>(), 1..64)).prop_map(|(at, bytes)| Change::Data(at, bytes)),
        1 => any::<Index>().prop_map(Change::Cut),
    ]
}

/// Pointers to all values that are no lists and no objects, and to all elements of lists.
fn places(value: &Value, here: &str, leaves: &mut Vec<String>, elements: &mut Vec<(String, usize)>) {
    match value {
        Value::Array(list) => {
            for (index, element) in list.iter().enumerate() {
                elements.push((here.into(), index));
                places(element, &format!("{here}/{index}"), leaves, elements);
            }
        }
        Value::Object(fields) => {
            fields.iter().for_each(|(name, field)| places(field, &format!("{here}/{name}"), leaves, elements));
        }
        _ => leaves.push(here.into()),
    }
}

fn apply(forgery: &mut Forgery, change: &Change) {
    let (mut leaves, mut elements) = (Vec::new(), Vec::new());
    places(&forgery.metadata, "", &mut leaves, &mut elements);
    // Digests are put right anyway.
    leaves.retain(|pointer| !pointer.starts_with("/digests"));
    match change {
        Change::Leaf(which, value) => forgery.set(which.get::<String>(&leaves), value.clone()),
        Change::Double(which) => {
            let (pointer, index) = which.get(&elements);
            let list = forgery.metadata.pointer_mut(pointer).unwrap().as_array_mut().unwrap();
            list.insert(*index, list[*index].clone());
        }
        Change::Remove(which) => {
            let (pointer, index) = which.get(&elements);
            forgery.metadata.pointer_mut(pointer).unwrap().as_array_mut().unwrap().remove(*index);
        }
        Change::Data(at, bytes) => {
            let at = at.index(forgery.data.len());
            forgery.data[at..].iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        }
        Change::Cut(at) => forgery.data.truncate(at.index(forgery.data.len()).max(1)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn any_file_is_refused_or_does_no_harm(changes in prop::collection::vec(change(), 1..4)) {
        if kvm::usable() {
            let folder = Folder::new();
            let path = folder.save(&small(), "a");
            let mut forgery = Forgery::of(&path);
            changes.iter().for_each(|change| apply(&mut forgery, change));
            if forgery.metadata["digests"].is_array() {
                forgery.digest_data();
            }
            forgery.write(&path);
            let loaded = try_out(&path);
            prop_assert!(!loaded || Snapshot::verify(&path).is_ok(), "what is loaded is whole");
        }
    }
}

/// Many bad ones between calls of a good one that lives all the while.
#[test]
fn bad_files_do_nothing_to_good_copies() {
    if !kvm::usable() {
        return;
    }
    let folder = Folder::new();
    let (good, bad) = (folder.save(&small(), "good"), folder.file("bad"));
    let snapshot = Snapshot::load(&good).unwrap();
    let mut sandbox = Sandbox::from_snapshot(&snapshot).unwrap();
    let whole = Forgery::of(&good);
    for round in 0..20 {
        let mut forgery = whole.clone();
        for byte in forgery.data.iter_mut().skip(round * 1000).step_by(97) {
            *byte = byte.wrapping_add(1);
        }
        forgery.write(&bad);
        assert!(try_out(&bad));
        assert_eq!(sandbox.call::<_, i32>("load", MARK.0).unwrap(), MARK.1);
        sandbox.call::<_, ()>("store", (MARK.0, 0)).unwrap();
        sandbox.restore(&snapshot).unwrap();
    }
    fs::remove_file(&bad).unwrap();
    let mut fresh = builder(PLAIN).build().unwrap();
    assert_eq!(fresh.call::<_, i32>("add", (1, 2)).unwrap(), 3);
}
