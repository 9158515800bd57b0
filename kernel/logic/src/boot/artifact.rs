//! Where in a compiled module its code lies: an ELF file as wasmtime makes it, with a section `.text`.

use core::ops::Range;

use mote_abi::layout::PAGE_BYTES;

use super::integers::{half, long};

/// Whether a file begins as one.
pub fn is_artifact(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF")
}

/// The offsets of the code, in whole pages; `None` for a file that has none, or is none. The fields are those of the ELF-64 object
/// file format, figures 2 and 3.
pub fn text(file: &[u8]) -> Option<Range<u64>> {
    if !is_artifact(file) {
        return None;
    }
    let sections = usize::try_from(long(file, 0x28)?).ok()?;
    let (size, count, names) = (usize::from(half(file, 0x3a)?), half(file, 0x3c)?, half(file, 0x3e)?);
    let section = |index: u16| {
        let at = sections.checked_add(usize::from(index).checked_mul(size)?)?;
        file.get(at..)?.get(..64)
    };
    let names = usize::try_from(long(section(names)?, 0x18)?).ok()?;
    let is_text = |header: &&[u8]| {
        let at = half(header, 0).zip(half(header, 2)).map(|(low, high)| usize::from(low) | usize::from(high) << 16);
        let name = at.and_then(|at| file.get(names.checked_add(at)?..));
        name.is_some_and(|name| name.starts_with(b".text\0"))
    };
    let header = (0..count).filter_map(section).find(is_text)?;
    let (start, bytes) = (long(header, 0x18)?, long(header, 0x20)?);
    let end = start.checked_add(bytes).filter(|end| *end <= file.len() as u64)?;
    (start.is_multiple_of(PAGE_BYTES) && end.is_multiple_of(PAGE_BYTES)).then_some(start..end)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::{vec, vec::Vec};

    /// A file with names at 64, three headers behind them, and code in the second page.
    fn file() -> Vec<u8> {
        let mut file = vec![0; 0x2000];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"\x7fELF");
        put(0x28, &128u64.to_le_bytes());
        put(0x3a, &[64, 0, 3, 0, 1, 0]);
        put(64, b"\0.names\0.text\0");
        put(128 + 64, &1u32.to_le_bytes());
        put(128 + 64 + 0x18, &64u64.to_le_bytes());
        put(256, &8u32.to_le_bytes());
        put(256 + 0x18, &0x1000u64.to_le_bytes());
        put(256 + 0x20, &0x1000u64.to_le_bytes());
        file
    }

    #[test]
    fn code_is_found() {
        assert_eq!(text(&file()), Some(0x1000..0x2000));
        assert_eq!(text(&file()[..0x1fff]), None);
        assert_eq!(text(b"\0asm"), None);
        assert_eq!(text(b"\x7fELF"), None);
    }

    proptest! {
        #[test]
        fn changed_files_have_code_inside_or_none(changes in prop::collection::vec((0..512usize, any::<u8>()), 0..8)) {
            let mut file = file();
            for (at, byte) in changes {
                file[at] = byte;
            }
            if let Some(text) = text(&file) {
                prop_assert!(text.start <= text.end && text.end <= file.len() as u64);
            }
        }
    }
}
