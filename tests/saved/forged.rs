//! Metadata made to do harm, with digests that are right.

use std::path::Path;

use mote_abi::{
    ABI_VERSION,
    layout::{
        BASE, BOOT_INFO, CHUNK_BYTES, CONFIG, HEAP, HOST_STATUS, LARGE, LARGE_SLOT_BYTES, MAX_RAM_BYTES, MEDIUM, MODULE,
        PAGE_BYTES, POOL_FAR, POOL_NEAR, RAMDISK, SYSTEM, SYSTEM_VIEW,
    },
};
use mote_vmm::{BuildError, LoadError, Sandbox, Snapshot};
use serde_json::{Value, json};

use super::{
    forgery::{Forgery, write},
    programs::{Folder, SMALL_RAM_BYTES, assert_works, builder, small, with_functions},
};
use crate::support::kvm;

/// What a file is refused for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Damaged(&'static str),
    Unfit(&'static str),
}
use Refusal::{Damaged, Unfit};

type Harmless<'a> = &'a dyn Fn(&mut Forgery);
type Change<'a> = (&'a str, &'a dyn Fn(&mut Forgery), Refusal);

#[track_caller]
fn assert_refused(name: &str, path: &Path, expected: Refusal) {
    let error = Snapshot::load(path).err();
    let (text, about) = match (&error, expected) {
        (Some(LoadError::Damaged { what, .. }), Damaged(about)) => (what, about),
        (Some(LoadError::Unfit { what, .. }), Unfit(about)) => (what, about),
        _ => panic!("{name}: {error:?}, not {expected:?}"),
    };
    assert!(text.contains(about), "{name}: {about:?} is not in {text:?}");
    let whole = error.map(|error| error.to_string()).unwrap_or_default();
    assert!(whole.len() < 2000 && !whole.chars().any(char::is_control), "{name}: {whole:?}");
}

/// Makes each change to a good file.
fn check(good: &Forgery, changes: &[Change<'_>]) {
    let folder = Folder::new();
    let path = folder.file("forged");
    good.write(&path);
    Snapshot::load(&path).unwrap();
    for (name, change, expected) in changes {
        let mut forgery = good.clone();
        change(&mut forgery);
        forgery.write(&path);
        assert_refused(name, &path, *expected);
    }
}

fn good() -> Forgery {
    let folder = Folder::new();
    Forgery::of(&folder.save(&small(), "good"))
}

fn segment(start: u64, bytes: u64, from: u64) -> Value {
    json!({ "start": start, "bytes": bytes, "from": from })
}

const RAM: Refusal = Damaged("its RAM has a size that no guest can have");
const SEGMENT: Refusal = Damaged("its segment of");
const CHUNK: Refusal = Damaged("its RAM is mapped at");
const NEXT: Refusal = Damaged("its next chunk of RAM is none");

#[test]
fn sizes_of_ram() {
    if !kvm::usable() {
        return;
    }
    let set = |bytes: u64| move |forgery: &mut Forgery| forgery.set("/ram_bytes", bytes);
    check(
        &good(),
        &[
            ("none", &set(0), RAM),
            ("too little", &set(SMALL_RAM_BYTES - CHUNK_BYTES), RAM),
            ("no whole chunks", &set(SMALL_RAM_BYTES + PAGE_BYTES), RAM),
            ("odd", &set(SMALL_RAM_BYTES + 1), RAM),
            ("too much", &set(MAX_RAM_BYTES + CHUNK_BYTES), RAM),
            ("all there is", &set(u64::MAX), RAM),
            ("half of that", &set(1 << 63), RAM),
            ("negative", &|forgery| forgery.set("/ram_bytes", -1), Damaged("its metadata is none")),
            ("a fraction", &|forgery| forgery.set("/ram_bytes", 1.5e7), Damaged("its metadata is none")),
        ],
    );
}

/// As much as there can be, with chunks so far from each other that their tables have no room.
#[test]
fn page_tables_that_have_no_room() {
    if !kvm::usable() {
        return;
    }
    const APART_BYTES: u64 = 1 << 30;
    let folder = Folder::new();
    let path = folder.file("a");
    let mut forgery = good();
    forgery.set("/ram_bytes", MAX_RAM_BYTES);
    let chunks = 1000u64;
    forgery.set("/next_chunk", POOL_FAR.start + chunks * CHUNK_BYTES);
    forgery.set("/chunks", json!([]));
    for index in 0..chunks {
        forgery.push("/chunks", json!([LARGE.start + index * APART_BYTES, POOL_FAR.start + index * CHUNK_BYTES]));
    }
    forgery.write(&path);
    assert_refused("thin", &path, Damaged("no room for another page table"));
}

#[test]
fn segments() {
    if !kvm::usable() {
        return;
    }
    let forgery = good();
    let bytes = forgery.data.len() as u64;
    // One segment with all data, at `start`.
    let at = |start: u64| move |forgery: &mut Forgery| forgery.set("/segments", json!([segment(start, bytes, 0)]));
    // Two of a page each, and the rest far away from both.
    let two = |first: u64, second: u64| {
        move |forgery: &mut Forgery| {
            let rest = segment(POOL_NEAR.start, bytes - 2 * PAGE_BYTES, 2 * PAGE_BYTES);
            forgery.set("/segments", json!([segment(first, PAGE_BYTES, 0), segment(second, PAGE_BYTES, PAGE_BYTES), rest]));
        }
    };
    let end = POOL_NEAR.start + SMALL_RAM_BYTES - BASE.bytes();
    check(
        &forgery,
        &[
            ("at zero", &at(0), SEGMENT),
            ("before RAM", &at(BASE.start - PAGE_BYTES), SEGMENT),
            ("over boot information", &two(BOOT_INFO.start, BASE.end - PAGE_BYTES), SEGMENT),
            ("over host status", &two(HOST_STATUS.start, BASE.end - PAGE_BYTES), SEGMENT),
            ("over boot information from before", &at(BOOT_INFO.start - PAGE_BYTES), SEGMENT),
            ("over the end of boot information", &at(BOOT_INFO.end - PAGE_BYTES), SEGMENT),
            ("over the system area", &at(SYSTEM.start), SEGMENT),
            ("into the system area", &at(SYSTEM.start - PAGE_BYTES), SEGMENT),
            ("out of the system area", &at(SYSTEM.end - PAGE_BYTES), SEGMENT),
            ("beyond RAM", &at(end), SEGMENT),
            ("over the end of RAM", &at(end - bytes + PAGE_BYTES), SEGMENT),
            ("in the far pool, which is not there", &at(POOL_FAR.start), SEGMENT),
            ("in the module", &at(MODULE.start), SEGMENT),
            ("in the ramdisk", &at(RAMDISK.start), SEGMENT),
            ("not aligned", &at(POOL_NEAR.start + 8), SEGMENT),
            ("overflowing", &at(u64::MAX - PAGE_BYTES + 1), SEGMENT),
            ("twice", &two(BASE.start, BASE.start), SEGMENT),
            ("not in order", &two(BASE.start + PAGE_BYTES, BASE.start), SEGMENT),
            ("huge", &|forgery| forgery.set("/segments/0/bytes", u64::MAX - PAGE_BYTES + 1), SEGMENT),
            ("empty", &|forgery| forgery.set("/segments/0/bytes", 0), SEGMENT),
            ("not aligned in size", &|forgery| forgery.set("/segments/0/bytes", PAGE_BYTES + 1), SEGMENT),
            ("beyond the file", &|forgery| forgery.set("/segments/0/from", bytes), SEGMENT),
            ("overflowing in the file", &|forgery| forgery.set("/segments/0/from", u64::MAX - PAGE_BYTES + 1), SEGMENT),
            ("not aligned in the file", &|forgery| forgery.set("/segments/0/from", 512), SEGMENT),
            ("of data of another", &|forgery| forgery.set("/segments/1/from", 0), SEGMENT),
            ("none", &|forgery| forgery.set("/segments", json!([])), Damaged("data that belong to nothing")),
            (
                "too many",
                &|forgery| {
                    let pages = 2000;
                    forgery.data = vec![0; (pages * PAGE_BYTES) as usize];
                    forgery.digest_data();
                    forgery.set("/ram_bytes", 64u64 << 20);
                    let page = |index: u64| segment(POOL_NEAR.start + 2 * index * PAGE_BYTES, PAGE_BYTES, index * PAGE_BYTES);
                    forgery.set("/segments", (0..pages).map(page).collect::<Vec<_>>());
                },
                Damaged("more segments than any snapshot"),
            ),
            (
                "of data that are cut short",
                &|forgery| {
                    forgery.data.truncate(forgery.data.len() - PAGE_BYTES as usize);
                    forgery.digest_data();
                },
                SEGMENT,
            ),
            (
                "of data of which there are more",
                &|forgery| {
                    forgery.data.extend([0; PAGE_BYTES as usize]);
                    forgery.digest_data();
                },
                Damaged("data that belong to nothing"),
            ),
        ],
    );
}

#[test]
fn chunks() {
    if !kvm::usable() {
        return;
    }
    let mut forgery = good();
    // With some RAM in both parts of the pool, of which one chunk of the far one was handed out.
    forgery.set("/ram_bytes", 64u64 << 20);
    forgery.set("/next_chunk", POOL_FAR.start + CHUNK_BYTES);
    let add = |address: u64, chunk: u64| move |forgery: &mut Forgery| forgery.push("/chunks", json!([address, chunk]));
    let set_next = |next: u64| move |forgery: &mut Forgery| forgery.set("/next_chunk", next);
    let free = POOL_NEAR.end - CHUNK_BYTES;
    let [taken_address, taken_chunk] = [0, 1].map(|index| forgery.number(&format!("/chunks/0/{index}")));
    check(
        &forgery,
        &[
            ("address twice", &add(taken_address, free), CHUNK),
            ("chunk twice", &add(HEAP.start + 100 * CHUNK_BYTES, taken_chunk), CHUNK),
            ("far chunk that was not handed out", &add(LARGE.start, POOL_FAR.start + CHUNK_BYTES), CHUNK),
            ("beyond the far pool", &add(LARGE.start, POOL_FAR.end), CHUNK),
            ("base RAM", &add(LARGE.start, BASE.start), CHUNK),
            ("system area", &add(LARGE.start, SYSTEM.start), CHUNK),
            ("module", &add(LARGE.start, MODULE.start), CHUNK),
            ("null", &add(LARGE.start, 0), CHUNK),
            ("last chunk there is", &add(LARGE.start, u64::MAX - CHUNK_BYTES + 1), CHUNK),
            ("chunk not aligned", &add(LARGE.start, free + PAGE_BYTES), CHUNK),
            ("address not aligned", &add(LARGE.start + PAGE_BYTES, free), CHUNK),
            ("at null", &add(0, free), CHUNK),
            ("over base RAM", &add(BASE.start, free), CHUNK),
            ("over the system area", &add(SYSTEM.start, free), CHUNK),
            ("over the view of the system area", &add(SYSTEM_VIEW.start, free), CHUNK),
            ("behind the heap", &add(HEAP.end, free), CHUNK),
            ("behind the medium region", &add(MEDIUM.end, free), CHUNK),
            ("behind the large region", &add(LARGE.start + 256 * LARGE_SLOT_BYTES, free), CHUNK),
            ("at the end of all addresses", &add(u64::MAX - CHUNK_BYTES + 1, free), CHUNK),
            ("next chunk is odd", &set_next(POOL_FAR.start + 1), NEXT),
            ("next chunk is no chunk", &set_next(POOL_FAR.start + PAGE_BYTES), NEXT),
            ("next chunk is null", &set_next(0), NEXT),
            ("next chunk is base RAM", &set_next(BASE.start), NEXT),
            ("next chunk is between the parts", &set_next(POOL_NEAR.end + CHUNK_BYTES), NEXT),
            ("next chunk is beyond RAM", &set_next(POOL_FAR.start + (64 << 20)), NEXT),
            ("next chunk is the largest", &set_next(u64::MAX - CHUNK_BYTES + 1), NEXT),
            ("next chunk is before what is mapped", &set_next(POOL_NEAR.start), CHUNK),
        ],
    );
}

#[test]
fn everything_else() {
    if !kvm::usable() {
        return;
    }
    const NONE: Refusal = Damaged("its metadata is none");
    const DIGESTS: Refusal = Damaged("another number of digests than its data need");
    let long = "x\u{1b}[31m\n\0".repeat(1 << 16);
    let export = |name: &str, kind: &str, ty: &str| json!({ "name": name, "kind": kind, "ty": ty, "flag": false, "minimum": 0, "maximum": null });
    let add_export = |kind: &'static str, ty: &'static str| {
        move |forgery: &mut Forgery| forgery.push("/instances/0/exports", export("\u{1b}]0;name\0", kind, ty))
    };
    check(
        &good(),
        &[
            ("another kernel", &|forgery| forgery.set("/kernel", "0".repeat(64)), Unfit("another kernel image")),
            ("a long kernel", &|forgery| forgery.set("/kernel", long.as_str()), Unfit("another kernel image")),
            ("another ABI", &|forgery| forgery.set("/abi_version", ABI_VERSION + 1), Unfit("ABI version")),
            ("a huge ABI", &|forgery| forgery.set("/abi_version", u64::MAX), NONE),
            ("features", &|forgery| forgery.push("/cpu_features", "avx\u{1b}[2J"), Unfit("taken where the processor has")),
            ("long features", &|forgery| forgery.push("/cpu_features", long.as_str()), Unfit("taken where the processor has")),
            ("long strings", &|forgery| forgery.set("/config_bytes", CONFIG.bytes() + 1), Damaged("its strings do not fit")),
            ("longest strings", &|forgery| forgery.set("/config_bytes", u64::MAX), Damaged("its strings do not fit")),
            ("ramdisk without data", &|forgery| forgery.set("/ramdisk_bytes", 1 << 30), Damaged("its ramdisk is too large")),
            ("longest ramdisk", &|forgery| forgery.set("/ramdisk_bytes", u64::MAX), Damaged("its ramdisk is too large")),
            ("a segment as ramdisk", &|forgery| forgery.set("/ramdisk_bytes", 1), SEGMENT),
            ("no instance", &|forgery| forgery.set("/instances", json!([])), Damaged("it has no instance")),
            ("a function without type", &|forgery| forgery.push("/functions", json!(["", "", ""])), Damaged("has no type")),
            ("a function of no type", &|forgery| forgery.push("/functions", json!(["a", "b", "i:?"])), Damaged("has no type")),
            ("half a function", &|forgery| forgery.push("/functions", json!(["a", "b"])), NONE),
            ("no digest", &|forgery| forgery.set("/digests", json!([])), DIGESTS),
            ("too many digests", &|forgery| forgery.push("/digests", "0".repeat(64)), DIGESTS),
            ("an export without type", &add_export("func", ""), Damaged("has no type")),
            ("an export of half a type", &add_export("func", "i"), Damaged("has no type")),
            ("a global of two types", &add_export("global", "ii"), Damaged("has no type")),
            ("a table of no type", &add_export("table", "?"), Damaged("has no type")),
            ("an export of no kind", &add_export("label", ""), NONE),
            ("a short seed", &|forgery| forgery.set("/seed", json!([1, 2, 3])), NONE),
            ("a seed of large numbers", &|forgery| forgery.set("/seed", vec![256; 32]), NONE),
            ("unknown field", &|forgery| forgery.metadata["registers"] = json!({ "rip": 0 }), NONE),
            ("unknown field with a long name", &|forgery| forgery.metadata[long.as_str()] = json!(1), NONE),
            ("missing field", &|forgery| drop(forgery.metadata.as_object_mut().unwrap().remove("ring_tail")), NONE),
            ("a list in place of an object", &|forgery| forgery.metadata = json!([]), NONE),
        ],
    );
}

/// What is not written as a whole by a program of ours.
#[test]
fn metadata_that_are_no_metadata() {
    if !kvm::usable() {
        return;
    }
    const NONE: Refusal = Damaged("its metadata is none");
    let folder = Folder::new();
    let path = folder.file("a");
    let Forgery { metadata, data } = good();
    let text = serde_json::to_string(&metadata).unwrap();
    let twice = text.replacen('{', "{\"fuel\":null,", 1);
    let deep = format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20));
    let deep_inside = text.replacen("\"functions\":[]", &format!("\"functions\":{deep}"), 1);
    assert_ne!(deep_inside, text);
    let cases = [
        ("empty", String::new()),
        ("blank", " ".repeat(100)),
        ("no JSON", "motesnap".into()),
        ("half", text[..text.len() / 2].into()),
        ("more", format!("{text}{text}")),
        ("field twice", twice),
        ("deep", deep),
        ("deep inside", deep_inside),
        ("a huge number", text.replacen("\"ring_tail\":", "\"ring_tail\":1e999", 1)),
    ];
    for (name, text) in cases {
        write(&path, text.as_bytes(), &data);
        assert_refused(name, &path, NONE);
    }
    write(&path, b"{\"kernel\":\"\xff\"}", &data);
    assert_refused("no UTF-8", &path, NONE);
}

/// As long as metadata can be: lists end where they are longer than a guest can have them, before they take memory.
#[test]
fn the_longest_metadata_take_little_memory() {
    if !kvm::usable() {
        return;
    }
    const LONGEST_BYTES: usize = 64 << 20;
    /// Far more than such lists take, far less than they would.
    const MOST_BYTES: u64 = 400 << 20;
    let folder = Folder::new();
    let path = folder.file("a");
    let Forgery { metadata, data } = good();
    let text = serde_json::to_string(&metadata).unwrap();
    let fill = |list: &str, element: &str| {
        let (before, after) = text.split_once(&format!("\"{list}\":[")).unwrap();
        let room = LONGEST_BYTES - text.len() - 100;
        let elements = format!("{element},").repeat(room / (element.len() + 1));
        let long = format!("{before}\"{list}\":[{elements}{element},{after}");
        assert!(long.len() <= LONGEST_BYTES && long.len() > LONGEST_BYTES / 2);
        long
    };
    let before = peak_resident_bytes();
    for (list, element) in [
        ("cpu_features", "\"\""),
        ("chunks", "[0,0]"),
        ("functions", r#"["","",":"]"#),
        ("directories", "\"\""),
        ("instances", r#"{"exports":[]}"#),
        ("segments", r#"{"start":0,"bytes":0,"from":0}"#),
        ("digests", "\"\""),
    ] {
        // A list that was empty must not end in a comma.
        let long = fill(list, element).replace(",]", "]");
        write(&path, long.as_bytes(), &data);
        drop(long);
        assert_refused(list, &path, Damaged("a list is longer than that of any snapshot"));
    }
    write(&path, &vec![b' '; LONGEST_BYTES + 1], &data);
    assert_refused("longer", &path, Damaged("longer than that of any snapshot"));
    let grown = peak_resident_bytes() - before;
    // The test itself holds what it writes, twice.
    assert!(grown < MOST_BYTES + 3 * LONGEST_BYTES as u64, "{grown} bytes");
}

/// The most that this process ever had of RAM.
fn peak_resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Names of all kinds, and numbers that mean something to the guest alone: such a file works as far as it can.
#[test]
fn what_does_no_harm_is_taken() {
    if !kvm::usable() {
        return;
    }
    let folder = Folder::new();
    let path = folder.file("a");
    let good = good();
    let harmless: &[(&str, Harmless<'_>)] = &[
        ("numbers of seeds", &|forgery| forgery.set("/seed_generation", u64::MAX)),
        ("a late clock", &|forgery| forgery.set("/monotonic_ns", u64::MAX)),
        ("a late real time", &|forgery| forgery.set("/fixed_clock_ns", u64::MAX)),
        ("a long deadline", &|forgery| forgery.set("/deadline_ns", u64::MAX)),
        ("an instance more", &|forgery| forgery.push("/instances", json!({ "exports": [] }))),
        ("exports that are not there", &|forgery| {
            for name in ["add", "add", "\0", ""] {
                let export = json!({ "name": name, "kind": "func", "ty": "ii:i", "flag": true, "minimum": 1, "maximum": 0 });
                forgery.push("/instances/0/exports", export);
            }
        }),
    ];
    for (name, change) in harmless {
        let mut forgery = good.clone();
        change(&mut forgery);
        forgery.write(&path);
        let snapshot = Snapshot::load(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut copy = Sandbox::from_snapshot(&snapshot).unwrap();
        for _ in 0..3 {
            assert_eq!(copy.call::<_, i32>("load", super::programs::MARK.0).unwrap(), super::programs::MARK.1, "{name}");
            copy.restore(&snapshot).unwrap();
        }
        let added = copy.call::<_, i32>("add", (1, 2));
        assert!(matches!(added, Ok(3) | Err(mote_vmm::CallError::Rejected(_))), "{name}: {added:?}");
    }
}

/// The ring is the guest's: where it ends is found out by the first call, which is told what is wrong.
#[test]
fn an_output_ring_that_cannot_be_is_a_fault_of_the_guest() {
    if !kvm::usable() {
        return;
    }
    let folder = Folder::new();
    let path = folder.file("a");
    let mut forgery = good();
    for tail in [1, 3, 1 << 18, u64::MAX, u64::MAX - 7] {
        forgery.set("/ring_tail", tail);
        forgery.write(&path);
        let snapshot = Snapshot::load(&path).unwrap();
        let mut copy = Sandbox::from_snapshot(&snapshot).unwrap();
        let error = copy.call::<_, i32>("add", (1, 2)).unwrap_err();
        assert!(
            matches!(&error, mote_vmm::CallError::Guest(fault) if matches!(**fault, mote_vmm::GuestFault::BadOutput(_))),
            "{error}"
        );
        assert_eq!(copy.state(), mote_vmm::SandboxState::Poisoned(mote_vmm::Poison::Fault));
        copy.restore(&snapshot).unwrap();
    }
    assert_works(&small());
}

#[test]
fn names_of_functions_do_nothing_to_terminals() {
    if !kvm::usable() {
        return;
    }
    let folder = Folder::new();
    let snapshot = with_functions(builder(super::programs::CALLS_HOST)).build().unwrap().snapshot().unwrap();
    let path = folder.save(&snapshot, "a");
    let mut forgery = Forgery::of(&path);
    forgery.set("/functions/0/1", "\u{1b}[31m\0\n");
    forgery.write(&path);
    let error = with_copy(&path).unwrap_err();
    assert!(matches!(&error, BuildError::MissingFunction { name, .. } if name == "env::\u{1b}[31m\0\n"), "{error:?}");
    assert!(!error.to_string().contains(char::is_control), "{error}");
}

fn with_copy(path: &Path) -> Result<Sandbox, BuildError> {
    Sandbox::from_snapshot(&Snapshot::load(path).unwrap())
}

/// A file that says that it waits for input goes on with what lies in its mailbox, whatever that is.
#[test]
fn going_on_with_a_request_that_is_none_is_a_fault() {
    if !kvm::usable() {
        return;
    }
    let folder = Folder::new();
    let path = folder.file("a");
    let mut forgery = good();
    forgery.set("/at_input", true);
    forgery.write(&path);
    let snapshot = Snapshot::load(&path).unwrap();
    let mut copy = Sandbox::from_snapshot(&snapshot).unwrap();
    assert!(matches!(copy.call::<_, i32>("add", (1, 2)), Err(mote_vmm::CallError::AtInput)));
    assert!(matches!(copy.resume(), Err(mote_vmm::CallError::Guest(_))));
    copy.restore(&snapshot).unwrap();
    assert_eq!(copy.state(), mote_vmm::SandboxState::AtInput);
}
