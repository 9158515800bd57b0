extern crate std;
use super::*;
use proptest::prelude::*;
use std::vec::Vec;

/// Memory that begins at an address.
#[derive(Clone, Copy)]
struct Memory<'a>(u64, &'a [u8]);

impl<'a> Physical<'a> for Memory<'a> {
    fn bytes(self, address: u64, bytes: u64) -> Option<&'a [u8]> {
        let start = usize::try_from(address.checked_sub(self.0)?).ok()?;
        self.1.get(start..)?.get(..usize::try_from(bytes).ok()?)
    }
}

const AT: u64 = 0x9000;

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_le_bytes()).collect()
}

/// Start info, module list, map, strings, one behind the other.
fn pvh() -> Vec<u8> {
    let (modules, map, line, string) = (AT + 56, AT + 88, AT + 136, AT + 140);
    let mut bytes = [words(&[PVH_MAGIC, 1, 0, 1]), longs(&[modules, line, 0xe0000, map]), words(&[2, 0])].concat();
    bytes.extend(longs(&[0x200_0000, 5000, string, 0]));
    bytes.extend(longs(&[0, 0x400_0000, 1, 0x3f0_0000, 0x1000, 2]));
    bytes.extend(b"a b\0module\0");
    bytes.resize(256, 0);
    bytes
}

fn tag(kind: u32, contents: &[u8]) -> Vec<u8> {
    let mut bytes = words(&[kind, 8 + contents.len() as u32]);
    bytes.extend(contents);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

fn multiboot2() -> Vec<u8> {
    let map = [words(&[24, 0]), longs(&[0, 0x400_0000, 1, 0x3f0_0000, 0x1000, 2])].concat();
    let tags = [
        tag(1, b"a b\0"),
        tag(3, &[words(&[0x200_0000, 0x200_1388]), b"module\0".to_vec()].concat()),
        tag(6, &map),
        tag(15, b"RSD PTR "),
        tag(0, b""),
    ]
    .concat();
    [words(&[8 + tags.len() as u32, 0]), tags].concat()
}

fn check(loaded: &Loaded<'_>) {
    assert_eq!(loaded.modules(), [BootModule { start: 0x200_0000, bytes: 5000, string: b"module" }]);
    assert_eq!(loaded.command_line.strip_suffix(b"\0").unwrap_or(loaded.command_line), b"a b");
    assert!(loaded.memory.parts().eq([0..0x3f0_0000, 0x3f0_1000..0x400_0000]));
}

#[test]
fn start_info_is_read() {
    let info = pvh();
    let loaded = Loaded::read(Memory(AT, &info), 0, AT).unwrap();
    check(&loaded);
    assert_eq!(loaded.rsdp, Some(0xe0000));
}

#[test]
fn boot_information_is_read() {
    let info = multiboot2();
    let loaded = Loaded::read(Memory(AT, &info), MULTIBOOT2_MAGIC, AT).unwrap();
    check(&loaded);
    let rsdp = loaded.rsdp.unwrap() - AT;
    assert_eq!(&info[rsdp as usize..][..8], b"RSD PTR ");
}

#[test]
fn what_is_no_loader_is_refused() {
    assert_eq!(Loaded::read(Memory(AT, &[0; 64]), 7, AT).unwrap_err(), LoaderError::Unknown { magic: 7 });
    let mut old = pvh();
    old[4] = 0;
    assert_eq!(Loaded::read(Memory(AT, &old), 0, AT).unwrap_err(), LoaderError::NoMemoryMap);
    let empty = [words(&[16, 0]), tag(0, b"")].concat();
    assert_eq!(Loaded::read(Memory(AT, &empty), MULTIBOOT2_MAGIC, AT).unwrap_err(), LoaderError::NoMemoryMap);
}

proptest! {
    #[test]
    fn changed_information_is_read_or_refused(is_pvh: bool, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8)) {
        let (mut info, magic) = if is_pvh { (pvh(), 0) } else { (multiboot2(), MULTIBOOT2_MAGIC) };
        for (index, byte) in changes {
            let index = index.index(info.len());
            info[index] = byte;
        }
        if let Ok(loaded) = Loaded::read(Memory(AT, &info), magic, AT) {
            prop_assert!(loaded.modules().iter().all(|module| module.start + module.bytes <= PHYSICAL_END));
        }
    }
}
