//! Four-level page tables (AMD64 Architecture Programmer's Manual, volume 2, section 5.3).
//!
//! Mapping only ever adds: an entry that is present is never changed, as shadow paging may go on using what it saw. The
//! rights are an enumeration in which nothing is writable and executable.

use core::fmt;

use mote_abi::layout::{CHUNK_BYTES, PAGE_BYTES};
use x86_64::structures::paging::PageTableFlags as Flags;

/// What may be done with a page, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Ring 3 may read.
    UserRead,
    /// Ring 3 may read and write.
    UserReadWrite,
    /// Ring 3 may read and execute.
    UserReadExecute,
    /// Only ring 0 may read.
    SupervisorRead,
    /// Only ring 0 may read and write.
    SupervisorReadWrite,
    /// Only ring 0 may read and execute.
    SupervisorReadExecute,
}

impl Access {
    /// The bits of a leaf entry. Accessed and dirty are set, so that the processor has no reason to write the tables.
    fn flags(self) -> Flags {
        let rights = match self {
            Self::UserRead => Flags::USER_ACCESSIBLE | Flags::NO_EXECUTE,
            Self::UserReadWrite => Flags::USER_ACCESSIBLE | Flags::NO_EXECUTE | Flags::WRITABLE,
            Self::UserReadExecute => Flags::USER_ACCESSIBLE,
            Self::SupervisorRead => Flags::NO_EXECUTE,
            Self::SupervisorReadWrite => Flags::NO_EXECUTE | Flags::WRITABLE,
            Self::SupervisorReadExecute => Flags::empty(),
        };
        rights | Flags::PRESENT | Flags::ACCESSED | Flags::DIRTY
    }
}

/// Bits of an entry that points to a table: all rights, which the leaf narrows.
const TABLE: Flags = Flags::PRESENT.union(Flags::WRITABLE).union(Flags::USER_ACCESSIBLE).union(Flags::ACCESSED);

/// Address bits of an entry.
const ADDRESS_MASK: u64 = 0x000f_ffff_ffff_f000;

/// Where page tables live.
pub trait TableMemory {
    /// What can go wrong.
    type Error;
    /// Reads the entry at guest-physical `address`.
    fn load(&self, address: u64) -> Result<u64, Self::Error>;
    /// Writes the entry at guest-physical `address`.
    fn store(&mut self, address: u64, entry: u64) -> Result<(), Self::Error>;
    /// Guest-physical address of a new table, all zero.
    fn allocate(&mut self) -> Result<u64, Self::Error>;
}

/// Why a mapping could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapError<E> {
    /// Addresses or length are no multiples of the page size, or not canonical user addresses.
    Misaligned {
        /// The guest-virtual address that was asked for.
        virtual_address: u64,
    },
    /// The page is mapped already.
    Present {
        /// The guest-virtual address that was asked for.
        virtual_address: u64,
    },
    /// The table memory refused.
    Memory(E),
}

impl<E: fmt::Display> fmt::Display for MapError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Misaligned { virtual_address } => {
                write!(f, "cannot map guest address {virtual_address:#x}: not aligned, or out of range")
            }
            Self::Present { virtual_address } => write!(f, "guest address {virtual_address:#x} is mapped already"),
            Self::Memory(error) => error.fmt(f),
        }
    }
}

impl<E> From<E> for MapError<E> {
    fn from(error: E) -> Self {
        Self::Memory(error)
    }
}

/// A run of pages of one kind.
#[derive(Debug, Clone, Copy)]
pub struct Mapping {
    /// First guest-virtual address.
    pub virtual_address: u64,
    /// First guest-physical address.
    pub physical_address: u64,
    /// Bytes, a multiple of the page size.
    pub bytes: u64,
    /// Rights.
    pub access: Access,
}

/// Maps with pages of 4 KiB.
pub fn map_pages<M: TableMemory>(memory: &mut M, root: u64, mapping: Mapping) -> Result<(), MapError<M::Error>> {
    map(memory, root, mapping, PAGE_BYTES, 1, Flags::empty(), Present::Refuse)
}

/// Maps with pages of 4 KiB where nothing is mapped, and leaves alone what is.
pub fn map_missing_pages<M: TableMemory>(memory: &mut M, root: u64, mapping: Mapping) -> Result<(), MapError<M::Error>> {
    map(memory, root, mapping, PAGE_BYTES, 1, Flags::empty(), Present::Keep)
}

/// Maps with pages of 2 MiB.
pub fn map_chunks<M: TableMemory>(memory: &mut M, root: u64, mapping: Mapping) -> Result<(), MapError<M::Error>> {
    map(memory, root, mapping, CHUNK_BYTES, 2, Flags::HUGE_PAGE, Present::Refuse)
}

/// Whether `address` is mapped. `load` reads the entry at a guest-physical address; an address that it cannot read counts
/// as mapped.
pub fn is_mapped(load: impl Fn(u64) -> Option<u64>, root: u64, address: u64) -> bool {
    let mut table = root;
    for level in (1..=4).rev() {
        match load(table + 8 * index(address, level)) {
            Some(entry) if !is_present(entry) => return false,
            Some(entry) if entry & Flags::HUGE_PAGE.bits() == 0 => table = entry & ADDRESS_MASK,
            _ => return true,
        }
    }
    true
}

/// The guest-physical chunk that the chunk of addresses with `address` has pages of, by its first page that is mapped.
pub fn chunk_behind(load: impl Fn(u64) -> Option<u64>, root: u64, address: u64) -> Option<u64> {
    let (entry, _) = entry_on_the_way(&load, root, address, 2)?;
    let page = match entry & Flags::HUGE_PAGE.bits() {
        0 => (0..512).find_map(|page| load((entry & ADDRESS_MASK) + 8 * page).filter(|entry| is_present(*entry)))?,
        _ => entry,
    };
    Some(page & ADDRESS_MASK & !(CHUNK_BYTES - 1))
}

/// Where an address lies, and what ring 3 may do with its page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Translation {
    /// Guest-physical address.
    pub physical_address: u64,
    /// From there to the end of the page.
    pub bytes_left: u64,
    /// Whether ring 3 may write there.
    pub writable: bool,
    /// Whether ring 3 may execute what is there.
    pub executable: bool,
}

/// What a processor makes of `address`; `None` if it is not mapped, or if `load` cannot read an entry. The rights are those of the
/// leaf, as tables give all.
pub fn translate(load: impl Fn(u64) -> Option<u64>, root: u64, address: u64) -> Option<Translation> {
    if address >= 1 << 47 {
        return None;
    }
    let (entry, level) = entry_on_the_way(load, root, address, 1)?;
    let flags = Flags::from_bits_truncate(entry);
    let page_bytes = PAGE_BYTES << (9 * (level - 1));
    let offset = address % page_bytes;
    let user = flags.contains(Flags::USER_ACCESSIBLE);
    Some(Translation {
        physical_address: (entry & ADDRESS_MASK & !(page_bytes - 1)) + offset,
        bytes_left: page_bytes - offset,
        writable: user && flags.contains(Flags::WRITABLE),
        executable: user && !flags.contains(Flags::NO_EXECUTE),
    })
}

/// The entry that maps `address`, or if none does before that of level `last`, and its level. `None` if one on the way there is not
/// present.
fn entry_on_the_way(load: impl Fn(u64) -> Option<u64>, root: u64, address: u64, last: u32) -> Option<(u64, u32)> {
    let mut table = root;
    for level in (last..=4).rev() {
        let entry = load(table + 8 * index(address, level)).filter(|entry| is_present(*entry))?;
        if level == last || entry & Flags::HUGE_PAGE.bits() != 0 {
            return Some((entry, level));
        }
        table = entry & ADDRESS_MASK;
    }
    None
}

const fn is_present(entry: u64) -> bool {
    entry & Flags::PRESENT.bits() != 0
}

/// What to do about a page that is mapped already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Present {
    Refuse,
    Keep,
}

/// `leaf` is the level whose entries map pages of `page_bytes`: 1 for 4 KiB, 2 for 2 MiB.
fn map<M: TableMemory>(
    memory: &mut M,
    root: u64,
    mapping: Mapping,
    page_bytes: u64,
    leaf: u32,
    size: Flags,
    present: Present,
) -> Result<(), MapError<M::Error>> {
    let Mapping { virtual_address, physical_address, bytes, access } = mapping;
    let aligned = (virtual_address | physical_address | bytes).is_multiple_of(page_bytes);
    let end = virtual_address.checked_add(bytes);
    if !aligned || end.is_none_or(|end| end > 1 << 47) || physical_address & !(ADDRESS_MASK) != 0 {
        return Err(MapError::Misaligned { virtual_address });
    }
    let flags = access.flags() | size;
    let mut table = None;
    for offset in (0..bytes).step_by(page_bytes as usize) {
        let at = virtual_address + offset;
        // The leaf table serves until its range ends.
        let leaf_table = match table {
            Some(table) if index(at, leaf) != 0 => table,
            _ => leaf_table(memory, root, at, leaf)?,
        };
        table = Some(leaf_table);
        let entry = leaf_table + 8 * index(at, leaf);
        if is_present(memory.load(entry)?) {
            if present == Present::Keep {
                continue;
            }
            return Err(MapError::Present { virtual_address: at });
        }
        memory.store(entry, (physical_address + offset) | flags.bits())?;
    }
    Ok(())
}

/// Walks from the root to the table of level `leaf` that covers `address`, making the tables that are missing.
fn leaf_table<M: TableMemory>(memory: &mut M, root: u64, address: u64, leaf: u32) -> Result<u64, MapError<M::Error>> {
    let mut table = root;
    for level in (leaf + 1..=4).rev() {
        let at = table + 8 * index(address, level);
        let entry = memory.load(at)?;
        table = if !is_present(entry) {
            let new = memory.allocate()?;
            memory.store(at, new | TABLE.bits())?;
            new
        } else if entry & Flags::HUGE_PAGE.bits() != 0 {
            return Err(MapError::Present { virtual_address: address });
        } else {
            entry & ADDRESS_MASK
        };
    }
    Ok(table)
}

/// Index into the table of `level`, 4 being the root.
const fn index(address: u64, level: u32) -> u64 {
    (address >> (12 + 9 * (level - 1))) & 0x1ff
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::vec::Vec;

    const ROOT: u64 = 0x1000;

    /// Tables in a map; reading an address that was never stored gives 0, as new tables are.
    #[derive(Default)]
    struct Tables {
        entries: BTreeMap<u64, u64>,
        allocated: u64,
    }

    impl TableMemory for Tables {
        type Error = &'static str;
        fn load(&self, address: u64) -> Result<u64, Self::Error> {
            Ok(self.entries.get(&address).copied().unwrap_or(0))
        }
        fn store(&mut self, address: u64, entry: u64) -> Result<(), Self::Error> {
            self.entries.insert(address, entry);
            Ok(())
        }
        fn allocate(&mut self) -> Result<u64, Self::Error> {
            self.allocated += 1;
            if self.allocated > 1000 { Err("out of tables") } else { Ok(ROOT + PAGE_BYTES * self.allocated) }
        }
    }

    /// What a processor does: physical address and leaf entry.
    fn translate(tables: &Tables, address: u64) -> Option<(u64, u64)> {
        let mut table = ROOT;
        for level in (1..=4).rev() {
            let entry = tables.load(table + 8 * index(address, level)).unwrap();
            if entry & Flags::PRESENT.bits() == 0 {
                return None;
            }
            if level == 1 || entry & Flags::HUGE_PAGE.bits() != 0 {
                let page_bytes = 1u64 << (12 + 9 * (level - 1));
                return Some(((entry & ADDRESS_MASK) + address % page_bytes, entry));
            }
            table = entry & ADDRESS_MASK;
        }
        None
    }

    fn access() -> impl Strategy<Value = Access> {
        prop::sample::select(Vec::from([
            Access::UserRead,
            Access::UserReadWrite,
            Access::UserReadExecute,
            Access::SupervisorRead,
            Access::SupervisorReadWrite,
            Access::SupervisorReadExecute,
        ]))
    }

    proptest! {
        #[test]
        fn pages_translate_and_neighbours_do_not(page in 1u64..1 << 34, frame in 0u64..1 << 24, pages in 1u64..600, access in access()) {
            let mut tables = Tables::default();
            let mapping = Mapping { virtual_address: page << 12, physical_address: frame << 12, bytes: pages << 12, access };
            map_pages(&mut tables, ROOT, mapping).unwrap();
            for i in 0..pages {
                let address = (page + i) << 12 | 0x123;
                let (physical, entry) = translate(&tables, address).unwrap();
                let user = entry & Flags::USER_ACCESSIBLE.bits() != 0;
                let expected = Translation {
                    physical_address: physical,
                    bytes_left: PAGE_BYTES - 0x123,
                    writable: user && access == Access::UserReadWrite,
                    executable: user && access == Access::UserReadExecute,
                };
                let found = super::translate(|at| tables.load(at).ok(), ROOT, address);
                prop_assert_eq!(found, Some(expected).filter(|_| address < 1 << 47));
                prop_assert_eq!(physical, (frame + i) << 12 | 0x123);
                let flags = Flags::from_bits_truncate(entry);
                prop_assert!(!flags.contains(Flags::WRITABLE) || flags.contains(Flags::NO_EXECUTE));
            }
            let mapped = |page: u64| is_mapped(|at| tables.load(at).ok(), ROOT, page << 12);
            prop_assert!(mapped(page) && mapped(page + pages - 1) && !mapped(page - 1) && !mapped(page + pages));
            let behind = |page: u64| chunk_behind(|at| tables.load(at).ok(), ROOT, page << 12);
            prop_assert_eq!(behind(page), Some((frame << 12) / CHUNK_BYTES * CHUNK_BYTES));
            prop_assert_eq!(behind(page + pages + 512), None);
            prop_assert_eq!(translate(&tables, (page - 1) << 12), None);
            prop_assert_eq!(translate(&tables, (page + pages) << 12), None);
        }

        #[test]
        fn what_is_mapped_stays(page in 0u64..1 << 20, frame in 0u64..1 << 20) {
            let mut tables = Tables::default();
            let chunk = Mapping { virtual_address: page << 21, physical_address: frame << 21, bytes: CHUNK_BYTES, access: Access::UserRead };
            map_chunks(&mut tables, ROOT, chunk).unwrap();
            let before = translate(&tables, page << 21);
            let found = super::translate(|at| tables.load(at).ok(), ROOT, page << 21 | 0x1234);
            let expected = (frame << 21 | 0x1234, CHUNK_BYTES - 0x1234, false, false);
            prop_assert_eq!(found.map(|it| (it.physical_address, it.bytes_left, it.writable, it.executable)), Some(expected));
            let again = Mapping { access: Access::UserReadWrite, ..chunk };
            prop_assert_eq!(map_chunks(&mut tables, ROOT, again), Err(MapError::Present { virtual_address: page << 21 }));
            let small = Mapping { bytes: PAGE_BYTES, ..again };
            prop_assert_eq!(map_pages(&mut tables, ROOT, small), Err(MapError::Present { virtual_address: page << 21 }));
            prop_assert_eq!(translate(&tables, page << 21), before);
        }
    }

    #[test]
    fn bad_addresses_are_refused() {
        let good = Mapping { virtual_address: 0, physical_address: 0, bytes: CHUNK_BYTES, access: Access::UserRead };
        for bad in [
            Mapping { virtual_address: 1, ..good },
            Mapping { physical_address: PAGE_BYTES, ..good },
            Mapping { bytes: 1, ..good },
            Mapping { virtual_address: 1 << 47, ..good },
            Mapping { virtual_address: u64::MAX - CHUNK_BYTES + 1, ..good },
            Mapping { physical_address: 1 << 52, ..good },
        ] {
            let result = map_chunks(&mut Tables::default(), ROOT, bad);
            assert_eq!(result, Err(MapError::Misaligned { virtual_address: bad.virtual_address }));
        }
    }

    #[test]
    fn no_more_tables_is_an_error() {
        let mut tables = Tables { allocated: 999, ..Tables::default() };
        let mapping = Mapping { virtual_address: 0, physical_address: 0, bytes: PAGE_BYTES, access: Access::UserRead };
        assert_eq!(map_pages(&mut tables, ROOT, mapping), Err(MapError::Memory("out of tables")));
    }
}
