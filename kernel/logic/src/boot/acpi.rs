//! How a machine is switched off and reset, by its ACPI tables (Advanced Configuration and Power Interface Specification 6.5,
//! sections 4.8, 5.2.5 to 5.2.9, 7.4.2 and 19.6).

use core::ops::Range;

use super::{
    integers::{long, word},
    loader::Physical,
};

/// Where firmware of a BIOS keeps the root pointer.
const BIOS_AREA: Range<u64> = 0xe_0000..0x10_0000;
/// Of tables: more is not looked at.
const MAX_TABLE_BYTES: u64 = 4 << 20;
const MAX_TABLES: usize = 256;
const HEADER_BYTES: usize = 36;

/// Ports and values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Power {
    /// Control registers of power management, and the type of sleep that is soft-off; 0 for a port that is not there.
    pub control: [(u16, u16); 2],
    /// Where what is written makes firmware hand power management over.
    pub enable: Option<(u16, u8)>,
    /// Where what is written resets the machine.
    pub reset: Option<(u16, u8)>,
    /// The register and value that switch a machine off whose hardware is reduced: one that has no control registers.
    pub sleep: Option<(Register, u8)>,
}

/// Where a register is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Register {
    /// A port.
    Port(u16),
    /// A byte of memory.
    Memory(u64),
}

/// The lists of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tables {
    /// With addresses of eight bytes, if there is such a list.
    new: Option<u64>,
    /// With four.
    old: u64,
}

impl Tables {
    /// By the root pointer that lies where the loader says.
    pub fn at<'a>(physical: impl Physical<'a>, root: u64) -> Option<Self> {
        let root = physical.bytes(root, 36).or_else(|| physical.bytes(root, 20));
        Self::of_root(root.filter(|bytes| is_root(bytes))?)
    }

    /// By the root pointer where a BIOS keeps it, which takes a search.
    pub fn search<'a>(physical: impl Physical<'a>) -> Option<Self> {
        let area = physical.bytes(BIOS_AREA.start, BIOS_AREA.end - BIOS_AREA.start)?;
        // The new root pointer has 36 bytes.
        let mut all = (0..area.len()).step_by(16).filter_map(|at| area.get(at..)?.get(..36));
        Self::of_root(all.find(|bytes| is_root(bytes))?)
    }

    fn of_root(root: &[u8]) -> Option<Self> {
        let new = long(root, 24).filter(|list| *list != 0 && root.get(15) >= Some(&2));
        Some(Self { new, old: u64::from(word(root, 16)?) })
    }

    fn table<'a>(&self, physical: impl Physical<'a>, signature: &[u8; 4]) -> Option<&'a [u8]> {
        let find = |list: u64, width: usize| {
            let entries = table(physical, list)?.get(HEADER_BYTES..)?;
            let address = |entry: &[u8]| if width == 8 { long(entry, 0) } else { word(entry, 0).map(u64::from) };
            let mut tables = entries.chunks_exact(width).take(MAX_TABLES).filter_map(|entry| table(physical, address(entry)?));
            tables.find(|table| table.starts_with(signature))
        };
        self.new.and_then(|list| find(list, 8)).or_else(|| find(self.old, 4))
    }

    /// Where the registers of the high-precision event timer are (IA-PC HPET Specification 1.0a, section 3.2.4).
    pub fn hpet<'a>(&self, physical: impl Physical<'a>) -> Option<u64> {
        let table = self.table(physical, b"HPET")?;
        // In memory.
        long(table, 44).filter(|_| table.get(40) == Some(&0))
    }
}

impl Power {
    /// Reads the tables.
    pub fn read<'a>(physical: impl Physical<'a>, tables: &Tables) -> Option<Self> {
        let fadt = tables.table(physical, b"FACP")?;
        let dsdt = long(fadt, 140).filter(|at| *at != 0).or(word(fadt, 40).map(u64::from))?;
        let sleep = soft_off(table(physical, dsdt)?);
        let port = |offset| word(fadt, offset).and_then(|port| u16::try_from(port).ok()).unwrap_or(0);
        let control = sleep.map_or([(0, 0); 2], |[a, b]| [(port(64), a), (port(68), b)]);
        let enable = Some((port(48), *fadt.get(52)?)).filter(|(port, value)| *port != 0 && *value != 0);
        let (supports_reset, is_reduced) = (word(fadt, 112)? >> 10 & 1 == 1, word(fadt, 112)? >> 20 & 1 == 1);
        // The type of sleep in three bits, and one that enters it (section 4.8.3.7).
        let sleep_value = sleep.map(|[kind, _]| (kind >> 10 << 2) as u8 | 1 << 5);
        let sleep = register(fadt, 244).zip(sleep_value).filter(|_| is_reduced);
        // In the space of I/O ports, a byte wide.
        let reset = (fadt.get(116..119) == Some(&[1, 8, 0])).then(|| long(fadt, 120)).flatten();
        let reset = reset.filter(|_| supports_reset).and_then(|port| Some((u16::try_from(port).ok()?, *fadt.get(128)?)));
        Some(Self { control, enable, reset, sleep })
    }
}

fn is_root(bytes: &[u8]) -> bool {
    let sum = bytes.get(..20).map(|bytes| bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)));
    bytes.starts_with(b"RSD PTR ") && sum == Some(0)
}

fn table<'a>(physical: impl Physical<'a>, address: u64) -> Option<&'a [u8]> {
    let bytes = u64::from(word(physical.bytes(address, HEADER_BYTES as u64)?, 4)?);
    (HEADER_BYTES as u64..=MAX_TABLE_BYTES).contains(&bytes).then(|| physical.bytes(address, bytes))?
}

/// A generic address (section 5.2.3.2) of a byte.
fn register(table: &[u8], offset: usize) -> Option<Register> {
    let address = long(table, offset + 4).filter(|address| *address != 0)?;
    match *table.get(offset)? {
        0 => Some(Register::Memory(address)),
        1 => u16::try_from(address).ok().map(Register::Port),
        _ => None,
    }
}

/// What `_S5_` says, in place: `Name (_S5_, Package () { a, b, ... })`. To find it there is no need to interpret all of AML.
fn soft_off(dsdt: &[u8]) -> Option<[u16; 2]> {
    const PACKAGE: u8 = 0x12;
    let at = dsdt.windows(5).position(|bytes| bytes == [b'_', b'S', b'5', b'_', PACKAGE])?;
    let package = dsdt.get(at + 5..)?;
    // The first byte of the length tells how many follow; then comes the number of elements.
    let length_bytes = 1 + usize::from(package.first()? >> 6);
    let mut elements = package.get(length_bytes + 1..)?.iter();
    let mut element = || match *elements.next()? {
        value @ (0 | 1) => Some(u16::from(value)),
        // ByteConst
        0x0a => elements.next().map(|value| u16::from(*value)),
        _ => None,
    };
    // Where hardware is reduced there may be one element alone.
    Some([element()?, element().unwrap_or(0)].map(|kind| (kind & 7) << 10))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::{vec, vec::Vec};

    #[derive(Clone, Copy)]
    struct Memory<'a>(&'a [u8]);

    impl<'a> Physical<'a> for Memory<'a> {
        fn bytes(self, address: u64, bytes: u64) -> Option<&'a [u8]> {
            self.0.get(usize::try_from(address).ok()?..)?.get(..usize::try_from(bytes).ok()?)
        }
    }

    /// Root pointer at 0, old list at 0x100, fixed description at 0x200, code at 0x400.
    fn tables() -> Vec<u8> {
        let mut memory = vec![0; 0x500];
        let mut put = |at: usize, bytes: &[u8]| memory[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"RSD PTR ");
        put(16, &0x100u32.to_le_bytes());
        let sum = b"RSD PTR ".iter().fold(1u8, |sum, byte| sum.wrapping_add(*byte));
        put(8, &[sum.wrapping_neg()]);
        put(0x100, b"RSDT");
        put(0x104, &(36u32 + 4).to_le_bytes());
        put(0x124, &0x200u32.to_le_bytes());
        put(0x200, b"FACP");
        put(0x204, &244u32.to_le_bytes());
        put(0x200 + 40, &0x400u32.to_le_bytes());
        put(0x200 + 48, &0xb2u32.to_le_bytes());
        put(0x200 + 52, &[0xf1]);
        put(0x200 + 64, &0x604u32.to_le_bytes());
        put(0x200 + 112, &(1u32 << 10).to_le_bytes());
        put(0x200 + 116, &[1, 8, 0, 1]);
        put(0x200 + 120, &0xcf9u64.to_le_bytes());
        put(0x200 + 128, &[6]);
        put(0x400, b"DSDT");
        put(0x404, &100u32.to_le_bytes());
        put(0x430, b"\x08_S5_\x12\x06\x04\x0a\x05\x01\x00\x00");
        memory
    }

    #[test]
    fn tables_are_read() {
        let wanted =
            Power { control: [(0x604, 5 << 10), (0, 1 << 10)], enable: Some((0xb2, 0xf1)), reset: Some((0xcf9, 6)), sleep: None };
        let memory = tables();
        let tables = Tables::at(Memory(&memory), 0).unwrap();
        assert_eq!(Power::read(Memory(&memory), &tables), Some(wanted));
        assert_eq!(tables.hpet(Memory(&memory)), None);
        assert_eq!(Tables::at(Memory(&memory), 1), None);
    }

    #[test]
    fn reduced_hardware_has_a_register_for_sleep() {
        let mut memory = tables();
        let mut put = |at: usize, bytes: &[u8]| memory[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x204, &276u32.to_le_bytes());
        put(0x200 + 112, &(1u32 << 10 | 1 << 20).to_le_bytes());
        put(0x200 + 244, &[1, 8, 0, 1]);
        put(0x200 + 248, &0x600u64.to_le_bytes());
        let read = |memory: &[u8]| Power::read(Memory(memory), &Tables::at(Memory(memory), 0)?)?.sleep;
        assert_eq!(read(&memory), Some((Register::Port(0x600), 5 << 2 | 1 << 5)));
        memory[0x200 + 244] = 0;
        assert_eq!(read(&memory), Some((Register::Memory(0x600), 5 << 2 | 1 << 5)));
    }

    #[test]
    fn the_root_pointer_is_found_in_the_area_of_the_bios() {
        let mut memory = tables();
        memory.resize(0x10_0000, 0);
        memory.copy_within(0..36, 0xf_5ad0);
        assert!(Tables::search(Memory(&memory)).is_some());
    }

    proptest! {
        #[test]
        fn any_tables(changes in prop::collection::vec((20..0x500usize, any::<u8>()), 0..8)) {
            let mut memory = tables();
            for (at, byte) in changes {
                memory[at] = byte;
            }
            let tables = Tables::at(Memory(&memory), 0);
            if let Some(power) = tables.and_then(|tables| Power::read(Memory(&memory), &tables)) {
                prop_assert!(power.control.iter().all(|(_, kind)| kind & !(7 << 10) == 0));
            }
        }
    }
}
