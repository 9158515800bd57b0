//! What loaders leave in memory: the start info of PVH and the boot information of Multiboot2.
//!
//! Sources: Xen, "x86/HVM direct boot ABI" and `public/arch-x86/hvm/start_info.h`, version 1; Multiboot2 Specification 2.0, section
//! 3.6.

use core::fmt;

use super::{
    integers::{long, word},
    memory::FreeMemory,
};

/// What Multiboot2 loaders leave in `eax`.
pub const MULTIBOOT2_MAGIC: u32 = 0x36d7_6289;
/// First field of the start info.
pub const PVH_MAGIC: u32 = 0x336e_c578;

/// Boot modules that are looked at: there are three kinds.
const MAX_MODULES: usize = 8;
/// Guest-physical addresses that are used stay below; so the pages of the far pool do, for which there are tables.
const PHYSICAL_END: u64 = mote_abi::layout::POOL_FAR.end;
/// Longest text of a loader.
const MAX_TEXT_BYTES: u64 = 64 << 10;
/// Usable memory, in both maps (that of ACPI: AddressRangeMemory).
const USABLE: u32 = 1;

/// Guest-physical memory as bytes; `None` for what cannot be reached.
pub trait Physical<'a>: Copy {
    /// So many bytes from an address on.
    fn bytes(self, address: u64, bytes: u64) -> Option<&'a [u8]>;
}

/// A file that the loader put into memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BootModule<'a> {
    /// Guest-physical address.
    pub start: u64,
    /// Size.
    pub bytes: u64,
    /// The text that came with it.
    pub string: &'a [u8],
}

/// All of it.
#[derive(Debug, Clone)]
pub struct Loaded<'a> {
    /// The memory that is there, modules and kernel included.
    pub memory: FreeMemory,
    modules: [BootModule<'a>; MAX_MODULES],
    module_count: usize,
    /// Text for the kernel.
    pub command_line: &'a [u8],
    /// Where ACPI's root pointer lies, if the loader knows.
    pub rsdp: Option<u64>,
}

/// What a loader left makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoaderError {
    /// No loader of a kind that is known.
    Unknown {
        /// What was in `eax`.
        magic: u32,
    },
    /// Something does not lie in memory, or not in its structure.
    Malformed {
        /// What.
        what: &'static str,
    },
    /// There is no memory map.
    NoMemoryMap,
    /// More parts of memory, or modules, than are looked at.
    TooMany {
        /// Of what.
        what: &'static str,
    },
}

impl fmt::Display for LoaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { magic } => {
                write!(f, "started by no loader that is known (eax {magic:#x}); it has to be one for PVH or Multiboot2")
            }
            Self::Malformed { what } => write!(f, "the loader's {what} cannot be read"),
            Self::NoMemoryMap => f.write_str("the loader gave no memory map"),
            Self::TooMany { what } => write!(f, "the loader gave more {what} than can be used"),
        }
    }
}

impl<'a> Loaded<'a> {
    /// Reads what lies at `address`, by what was in `eax`.
    pub fn read(physical: impl Physical<'a>, magic: u32, address: u64) -> Result<Self, LoaderError> {
        let is_pvh = || physical.bytes(address, 4).and_then(|bytes| word(bytes, 0)) == Some(PVH_MAGIC);
        if magic == MULTIBOOT2_MAGIC {
            Self::multiboot2(physical, address)
        } else if is_pvh() {
            Self::pvh(physical, address)
        } else {
            Err(LoaderError::Unknown { magic })
        }
    }

    /// The boot modules.
    pub fn modules(&self) -> &[BootModule<'a>] {
        self.modules.get(..self.module_count).unwrap_or(&[])
    }

    const fn new() -> Self {
        let none = BootModule { start: 0, bytes: 0, string: &[] };
        Self { memory: FreeMemory::new(), modules: [none; MAX_MODULES], module_count: 0, command_line: &[], rsdp: None }
    }

    #[inline(never)]
    fn pvh(physical: impl Physical<'a>, address: u64) -> Result<Self, LoaderError> {
        const INFO: LoaderError = LoaderError::Malformed { what: "start info" };
        let info = physical.bytes(address, 56).ok_or(INFO)?;
        let field = |offset| long(info, offset).ok_or(INFO);
        let mut loaded = Self::new();
        if word(info, 4) == Some(0) {
            return Err(LoaderError::NoMemoryMap);
        }
        let count = u64::from(word(info, 12).ok_or(INFO)?);
        let list = table(physical, field(16)?, count, 32).ok_or(LoaderError::Malformed { what: "list of modules" })?;
        for entry in list.as_chunks::<32>().0 {
            let string = long(entry, 16).filter(|at| *at != 0).map_or(Some(&[][..]), |at| text(physical, at));
            let string = string.ok_or(LoaderError::Malformed { what: "string of a module" })?;
            loaded.add_module(long(entry, 0), long(entry, 8), string)?;
        }
        loaded.command_line = match field(24)? {
            0 => &[],
            at => text(physical, at).ok_or(LoaderError::Malformed { what: "command line" })?,
        };
        loaded.rsdp = Some(field(32)?).filter(|at| *at != 0);
        let count = u64::from(word(info, 48).ok_or(INFO)?);
        if count == 0 {
            return Err(LoaderError::NoMemoryMap);
        }
        let map = table(physical, field(40)?, count, 24).ok_or(LoaderError::Malformed { what: "memory map" })?;
        loaded.add_memory(map.as_chunks::<24>().0.iter().map(|entry| &entry[..]))?;
        Ok(loaded)
    }

    #[inline(never)]
    fn multiboot2(physical: impl Physical<'a>, address: u64) -> Result<Self, LoaderError> {
        const INFO: LoaderError = LoaderError::Malformed { what: "boot information" };
        let total = physical.bytes(address, 8).and_then(|bytes| word(bytes, 0)).ok_or(INFO)?;
        let info = physical.bytes(address, u64::from(total)).ok_or(INFO)?;
        let mut loaded = Self::new();
        let (mut at, mut has_map) = (8, false);
        // A tag of type 0 is the last one.
        while let (Some(kind @ 1..), Some(bytes)) = (word(info, at), word(info, at + 4)) {
            let tag = info.get(at..).and_then(|rest| rest.get(..bytes as usize)).filter(|tag| tag.len() >= 8).ok_or(INFO)?;
            match kind {
                1 => loaded.command_line = tag.get(8..).unwrap_or(&[]),
                3 => {
                    let (start, end) = (word(tag, 8).ok_or(INFO)?, word(tag, 12).ok_or(INFO)?);
                    let bytes = end.checked_sub(start).ok_or(LoaderError::Malformed { what: "list of modules" })?;
                    loaded.add_module(Some(u64::from(start)), Some(u64::from(bytes)), tag.get(16..).unwrap_or(&[]))?;
                }
                6 => {
                    let entry_bytes = word(tag, 8).map(|bytes| bytes as usize).filter(|bytes| *bytes >= 24);
                    let entry_bytes = entry_bytes.ok_or(LoaderError::Malformed { what: "memory map" })?;
                    loaded.add_memory(tag.get(16..).unwrap_or(&[]).chunks_exact(entry_bytes))?;
                    has_map = true;
                }
                // ACPI's root pointer, the old one and the new one, which counts.
                14 if loaded.rsdp.is_some() => {}
                14 | 15 => loaded.rsdp = Some(address + at as u64 + 8),
                _ => {}
            }
            at += tag.len().next_multiple_of(8);
        }
        if has_map { Ok(loaded) } else { Err(LoaderError::NoMemoryMap) }
    }

    fn add_module(&mut self, start: Option<u64>, bytes: Option<u64>, string: &'a [u8]) -> Result<(), LoaderError> {
        let lies_in_memory = |(start, bytes): &(u64, u64)| start.checked_add(*bytes).is_some_and(|end| end <= PHYSICAL_END);
        let place = start.zip(bytes).filter(lies_in_memory);
        let (start, bytes) = place.ok_or(LoaderError::Malformed { what: "list of modules" })?;
        let free = self.modules.get_mut(self.module_count).ok_or(LoaderError::TooMany { what: "modules" })?;
        let end = string.iter().position(|byte| *byte == 0).unwrap_or(string.len());
        *free = BootModule { start, bytes, string: string.get(..end).unwrap_or(string) };
        self.module_count += 1;
        Ok(())
    }

    /// Both maps have entries that begin with address, size and type. What is not usable wins where parts overlap.
    fn add_memory<'e>(&mut self, entries: impl Iterator<Item = &'e [u8]> + Clone) -> Result<(), LoaderError> {
        let parts = entries.filter_map(|entry| {
            let (start, bytes) = (long(entry, 0)?, long(entry, 8)?);
            Some((start.min(PHYSICAL_END)..start.saturating_add(bytes).min(PHYSICAL_END), word(entry, 16)? == USABLE))
        });
        let too_many = |_| LoaderError::TooMany { what: "parts of memory" };
        for (part, _) in parts.clone().filter(|(_, is_usable)| *is_usable) {
            self.memory.add(part).map_err(too_many)?;
        }
        for (part, _) in parts.filter(|(part, is_usable)| !is_usable && !part.is_empty()) {
            self.memory.remove(part).map_err(too_many)?;
        }
        Ok(())
    }
}

fn table<'a>(physical: impl Physical<'a>, address: u64, count: u64, entry_bytes: u64) -> Option<&'a [u8]> {
    if count == 0 { Some(&[]) } else { physical.bytes(address, count.checked_mul(entry_bytes)?) }
}

/// A text that ends with a NUL, without it.
fn text<'a>(physical: impl Physical<'a>, address: u64) -> Option<&'a [u8]> {
    // A text at the end of what can be reached is cut off there, and not missing.
    let most = (0..).map(|shift| MAX_TEXT_BYTES >> shift).take_while(|bytes| *bytes > 0);
    let bytes = most.filter_map(|bytes| physical.bytes(address, bytes)).next()?;
    bytes.get(..bytes.iter().position(|byte| *byte == 0)?)
}

#[cfg(test)]
mod tests;
