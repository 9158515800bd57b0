//! Archives: what each form of entry becomes, what is refused, and that no bytes do harm.

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use std::format;

use mote_abi::file::{file_type, oflags};
use proptest::prelude::*;

use super::*;

/// An entry, byte by byte, as ustar.
fn raw(kind: u8, name: &[u8], link: &[u8], data: &[u8]) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name);
    block[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
    block[136..147].copy_from_slice(b"00000000007");
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    seal(&mut block);
    block.extend_from_slice(data);
    block.resize(512 + data.len().next_multiple_of(512), 0);
    block
}

/// Makes the sum of a header right.
fn seal(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block[..512].iter().copied().map(u32::from).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut data = String::new();
    for (key, value) in records {
        let rest = format!(" {key}={value}\n");
        let length = (rest.len()..).find(|length| length.to_string().len() + rest.len() == *length).unwrap();
        data += &format!("{length}{rest}");
    }
    raw(b'x', b"pax", b"", data.as_bytes())
}

/// An archive of symbolic links, by path and target.
pub(super) fn links(links: &[(&str, &str)]) -> Vec<u8> {
    links.iter().flat_map(|(path, target)| raw(b'2', path.as_bytes(), target.as_bytes(), b"")).collect()
}

fn load(parts: &[Vec<u8>]) -> Disk<'static> {
    RamDisk::new(parts.concat().leak(), Counted::new(1 << 20), 3).unwrap()
}

fn refusal(parts: &[Vec<u8>]) -> TarError {
    RamDisk::new(&parts.concat(), Counted::new(1 << 20), 3).unwrap_err()
}

fn stat(disk: &Disk<'_>, path: &str) -> FileStat {
    disk.stat(disk.lookup(ROOT, path, false).unwrap()).unwrap()
}

fn text(disk: &Disk<'_>, path: &str) -> Vec<u8> {
    contents(disk, disk.lookup(ROOT, path, true).unwrap())
}

#[test]
fn entries_become_nodes() {
    let disk = load(&[
        raw(b'5', b"./", b"", b""),
        raw(b'0', b"./a/b/file", b"", b"text"),
        raw(0, b"/abs", b"", b"old"),
        raw(b'7', b"contiguous", b"", b""),
        raw(b'0', b"slash/", b"", b""),
        raw(b'2', b"link", b"a/b", b""),
        raw(b'1', b"hard", b"./a/b/file", b""),
        raw(b'1', b"hard2", b"/link", b""),
        raw(b'0', b"link/through", b"", b"t"),
        raw(b'3', b"device", b"", b""),
        raw(b'6', b"\xff", b"", b""),
        raw(b'S', b"sparse", b"", b"map"),
        vec![0; 1024],
        vec![1; 7],
    ]);
    assert_eq!(names(&disk, ROOT), ["a", "abs", "contiguous", "hard", "hard2", "link", "slash"]);
    assert_eq!(
        (text(&disk, "a/b/file"), text(&disk, "abs"), text(&disk, "a/b/through")),
        (b"text".into(), b"old".into(), b"t".into())
    );
    assert_eq!(disk.skipped(), 3);
    let (file, a, root) = (stat(&disk, "hard"), stat(&disk, "a"), stat(&disk, "."));
    assert_eq!((file.links, file.bytes, file.modified_ns, file.device), (2, 4, 7_000_000_000, DEVICE));
    assert_eq!((a.links, a.modified_ns, a.file_type), (3, 3, file_type::DIRECTORY), "made for what is in it");
    assert_eq!((root.links, root.modified_ns), (4, 7_000_000_000));
    assert_eq!(disk.readlink(ROOT, "hard2"), Ok("a/b"));
    assert_eq!(stat(&disk, "slash").file_type, file_type::DIRECTORY);
    assert_eq!(stat(&disk, "link").bytes, 3);
}

#[test]
fn no_archive_is_an_empty_disk() {
    for archive in [vec![], vec![0; 512], vec![0; 10240]] {
        let disk = load(&[archive]);
        assert_eq!(disk.list(ROOT, 0).unwrap().count(), 2);
    }
}

#[test]
fn later_entries_replace_earlier_ones() {
    let mut disk = load(&[
        raw(b'0', b"a", b"", b"old"),
        raw(b'1', b"b", b"a", b""),
        raw(b'0', b"a", b"", b"new"),
        raw(b'1', b"a", b"a", b""),
        raw(b'5', b"d", b"", b""),
        raw(b'0', b"d/f", b"", b""),
        raw(b'5', b"d", b"", b""),
        raw(b'5', b"e", b"", b""),
        raw(b'0', b"e", b"", b"file"),
        raw(b'0', b"f", b"", b""),
        raw(b'5', b"f", b"", b""),
        raw(b'2', b"l", b"d", b""),
        raw(b'5', b"l", b"", b""),
    ]);
    assert_eq!((text(&disk, "a"), text(&disk, "b"), text(&disk, "e")), (b"new".into(), b"old".into(), b"file".into()));
    assert_eq!((stat(&disk, "a").links, stat(&disk, "b").links), (1, 1));
    assert_eq!((names(&disk, ROOT), stat(&disk, ".").links), (["a", "b", "d", "e", "f", "l"].map(String::from).into(), 5));
    assert!(disk.lookup(ROOT, "d/f", true).is_ok());
    assert_eq!(stat(&disk, "l").file_type, file_type::DIRECTORY);
    remove_all(&mut disk);
}

#[test]
fn long_names_and_large_numbers_are_read() {
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(250));
    let mut prefixed = raw(b'0', b"file", b"", b"prefixed");
    prefixed[345..351].copy_from_slice(b"pre/fi");
    seal(&mut prefixed);
    // GNU's own format has times in that place.
    let mut gnu = raw(b'0', b"gnu", b"", b"");
    gnu[257..265].copy_from_slice(b"ustar  \0");
    gnu[345..348].copy_from_slice(b"123");
    seal(&mut gnu);
    let mut binary = raw(b'0', b"binary", b"", b"sixty-four");
    binary[124..136].copy_from_slice(b"\x80\0\0\0\0\0\0\0\0\0\0\x0a");
    binary[136..148].copy_from_slice(&[0xff; 12]);
    seal(&mut binary);
    let disk = load(&[
        raw(b'L', b"././@LongLink", b"", &[long.as_bytes(), b"\0"].concat()),
        raw(b'0', b"cut", b"", b"gnu"),
        raw(b'K', b"././@LongLink", b"", &[long.as_bytes(), b"\0"].concat()),
        raw(b'L', b"././@LongLink", b"", b"linked"),
        raw(b'1', b"cut", b"cut", b""),
        pax(&[("path", "über"), ("mtime", "12.5"), ("comment", "a=b\nc"), ("size", "3")]),
        raw(b'0', b"cut", b"", b"pax"),
        pax(&[("path", "no"), ("path", ""), ("linkpath", &long), ("mtime", "-3.5")]),
        raw(b'2', b"kept", b"cut", b""),
        raw(b'g', b"global", b"", b"16 path=ignored\n"),
        prefixed,
        gnu,
        binary,
        pax(&[("mtime", "99999999999999")]),
        raw(b'0', b"late", b"", b""),
        pax(&[("GNU.sparse.major", "1")]),
        raw(b'0', b"sparse", b"", b"map"),
        raw(b'0', b"plain", b"", b"x"),
    ]);
    assert_eq!((text(&disk, &long), stat(&disk, "linked").links), (b"gnu".into(), 2));
    assert_eq!((text(&disk, "über"), stat(&disk, "über").modified_ns), (b"pax".into(), 12_500_000_000));
    assert_eq!((disk.readlink(ROOT, "kept"), stat(&disk, "kept").modified_ns), (Ok(&*long), 0));
    assert_eq!((text(&disk, "pre/fi/file"), text(&disk, "gnu")), (b"prefixed".into(), vec![]));
    assert_eq!((text(&disk, "binary"), stat(&disk, "binary").modified_ns), (b"sixty-four".into(), 0));
    assert_eq!((stat(&disk, "late").modified_ns, stat(&disk, "plain").modified_ns), (u64::MAX, 7_000_000_000));
    assert_eq!((disk.skipped(), disk.lookup(ROOT, "sparse", true)), (1, Err(Errno::Noent)));
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    use TarProblem::*;
    let file = || raw(b'0', b"dir/file", b"", &[1; 600]);
    let bad_sum = || {
        let mut block = raw(b'0', b"bad", b"", b"");
        block[0] = b'B';
        block
    };
    let number = |at: usize| {
        let mut block = raw(b'0', b"bad", b"", b"");
        block[at] = b'9';
        seal(&mut block);
        block
    };
    let cases: [(Vec<Vec<u8>>, u64, &str, TarProblem); 24] = [
        (vec![file(), file()[..511].into()], 1536, "", Truncated { needed_bytes: 512, left_bytes: 511 }),
        (vec![file()[..1535].into()], 0, "dir/file", Truncated { needed_bytes: 1024, left_bytes: 1023 }),
        (vec![pax(&[("size", "18446744073709551615")]), file()], 1024, "dir/file", Number("size")),
        (
            vec![pax(&[("size", "9000000000000000000")]), file()],
            1024,
            "dir/file",
            Truncated { needed_bytes: 9_000_000_000_000_000_000, left_bytes: 1024 },
        ),
        (vec![bad_sum()], 0, "Bad", Checksum),
        (vec![vec![b'x'; 600]], 0, &"x".repeat(100), Checksum),
        (vec![number(130)], 0, "bad", Number("size")),
        (vec![number(140)], 0, "bad", Number("modification time")),
        (vec![raw(b'x', b"p", b"", b"7 a=b\n")], 0, "p", PaxRecord),
        (vec![raw(b'x', b"p", b"", b"6 a b\n")], 0, "p", PaxRecord),
        (vec![raw(b'x', b"p", b"", b"0 a=b\n")], 0, "p", PaxRecord),
        (vec![raw(b'x', b"p", b"", b"18446744073709551616 a=b\n")], 0, "p", PaxRecord),
        (vec![pax(&[("mtime", "1.x")]), file()], 0, "pax", Number("modification time")),
        (vec![raw(b'0', b"\xff", b"", b"")], 0, "\u{fffd}", NotUtf8),
        (vec![raw(b'2', b"link", b"\xff", b"")], 0, "link", NotUtf8),
        (vec![raw(b'0', b"", b"", b"")], 0, "", BadPath),
        (vec![raw(b'2', b"link", b"", b"")], 0, "link", BadPath),
        (vec![pax(&[("path", "a\0b")]), file()], 1024, "a\0b", BadPath),
        (vec![pax(&[("path", &"n".repeat(256))]), file()], 1024, &"n".repeat(256), LongPath),
        (vec![raw(b'0', b"a/../b", b"", b"")], 0, "a/../b", DotDot),
        (vec![raw(b'0', b"f", b"", b""), raw(b'0', b"f/g", b"", b"")], 512, "f/g", NotDirectory),
        (vec![links(&[("l", "../x")]), raw(b'0', b"l/g", b"", b"")], 512, "l/g", NotDirectory),
        (vec![file(), raw(b'0', b"dir", b"", b"")], 1536, "dir", Occupied),
        (vec![raw(b'1', b"hard", b"later", b"")], 0, "hard", LinkTarget),
    ];
    for (parts, offset, entry, problem) in cases {
        assert_eq!(refusal(&parts), TarError { offset, entry: entry.into(), problem });
    }
    let long = "d/".repeat(2048);
    assert_eq!(refusal(&[pax(&[("path", &long)]), file()]).problem, LongPath);
    assert_eq!(refusal(&[raw(b'0', b".", b"", b"")]).problem, Occupied);
    assert_eq!(refusal(&[raw(b'5', b"d", b"", b""), raw(b'1', b"e", b"d", b"")]).problem, LinkTarget);
    let message = refusal(&[file(), file()[..1024].into()]).to_string();
    assert_eq!(
        message,
        "entry \"dir/file\" at byte 1536 of the archive: the archive is cut off: 1024 bytes should follow, 512 do"
    );
}

#[test]
fn nodes_are_bounded_by_the_budget() {
    let deep = "d/".repeat(2000) + "f";
    let archive = [pax(&[("path", &deep)]), raw(b'0', b"cut", b"", b"")].concat();
    let error = RamDisk::new(&archive, Counted::new(100_000), 0).unwrap_err();
    assert_eq!(error.problem, TarProblem::NoSpace);
    let budget = Counted::new(10 << 20);
    let mut disk = RamDisk::new(&archive, budget.clone(), 0).unwrap();
    remove_all(&mut disk);
    assert_eq!(budget.taken.get(), 0);
}

/// Links that lead through links cost each entry no more than a path's worth of them.
#[test]
fn links_on_the_way_are_bounded() {
    let round = "./".repeat(2000) + ".";
    let path = "l/".repeat(100) + "f";
    let mut archive = [pax(&[("linkpath", &round)]), raw(b'2', b"l", b"", b"")].concat();
    archive.extend([pax(&[("path", &path)]), raw(b'0', b"cut", b"", b"")].concat());
    assert_eq!(refusal(&[archive]).problem, TarProblem::NotDirectory);
}

#[test]
fn many_files_load_in_a_moment() {
    let start = std::time::Instant::now();
    let mut archive = Vec::new();
    for at in 0..30_000 {
        archive.extend(raw(b'0', format!("dir/{:02}/file{at}", at % 7).as_bytes(), b"", b"x"));
    }
    let made = start.elapsed();
    let mut disk = RamDisk::new(&archive, Counted::new(64 << 20), 0).unwrap();
    let mut seen = 0;
    for dir in 0..7 {
        let dir = disk.open(ROOT, &format!("dir/{dir:02}"), true, oflags::DIRECTORY, false, 0).unwrap();
        // Entry by entry, as a module with a small buffer would.
        let mut cookie = 0;
        while let Some(entry) = disk.list(dir, cookie).unwrap().next() {
            (cookie, seen) = (entry.next_cookie, seen + 1);
        }
    }
    assert_eq!(seen, 30_000 + 14);
    remove_all(&mut disk);
    // Some 0.3 s unoptimized; anything quadratic would take minutes.
    assert!((start.elapsed() - made).as_secs() < 20);
}

/// Archives with all kinds of entries.
fn archive() -> impl Strategy<Value = Vec<u8>> {
    let name = || prop::sample::select(&["a", "b", "a/b", "a/b/c", "./", "b/../a", "/c/", "l/x", "l"][..]);
    let kind = prop::sample::select(&b"\x000125567gxLKS"[..]);
    let data = prop_oneof![
        Just(b"a/b\0".to_vec()),
        Just(b"12 path=a/b\n13 size=1000\n12 mtime=.5\n".to_vec()),
        prop::collection::vec(any::<u8>(), 0..600),
        Just(vec![]),
    ];
    let entry = (kind, name(), name(), data).prop_map(|(kind, path, link, data)| {
        raw(kind, path.as_bytes(), link.as_bytes(), if b"125".contains(&kind) { &[] } else { &data })
    });
    prop::collection::vec(entry, 0..12).prop_map(|entries| entries.concat())
}

/// Loads bytes if they are an archive, and takes everything down again.
fn survive(bytes: &[u8]) {
    const LIMIT: u64 = 1 << 20;
    let budget = Counted::new(LIMIT);
    match RamDisk::new(bytes, budget.clone(), 0) {
        Ok(mut disk) => {
            remove_all(&mut disk);
            assert_eq!(budget.taken.get(), 0);
        }
        Err(error) => {
            assert!(error.offset <= bytes.len() as u64);
            assert!(error.to_string().len() < 1000 + 10 * bytes.len());
        }
    }
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn any_bytes_are_an_archive_or_not(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        survive(&bytes);
    }

    #[test]
    fn any_valid_headers_are_an_archive_or_not(mut bytes in archive(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), cut: prop::sample::Index) {
        survive(&bytes);
        for (at, byte) in changes {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            bytes[at] = byte;
            // Past the sum, the parser has to look at everything else.
            let block = at / 512 * 512;
            if bytes[block..].len() >= 512 {
                seal(&mut bytes[block..]);
            }
        }
        survive(&bytes);
        bytes.truncate(cut.index(bytes.len() + 1));
        survive(&bytes);
    }
}
