//! Several boot modules in one file (docs/boot.md): a tar archive.

use std::io::{self, Write};

use mote_abi::layout::PAGE_BYTES;
use tar::{EntryType, Header};

/// Size of a header, and what members are padded to.
const BLOCK_BYTES: usize = 512;
/// What the contents of members begin on.
const ALIGNMENT: usize = 4096;
const _: () = assert!(ALIGNMENT as u64 == PAGE_BYTES);

/// Writes a bundle with members of these names and contents. Those but `cmdline` begin on a page of the file.
pub(crate) fn write(members: &[(&str, &[u8])], to: impl Write) -> io::Result<()> {
    let mut archive = Archive { to, at: 0 };
    for (name, contents) in members {
        // What is short is copied at less cost than a page.
        if *name != "cmdline" {
            archive.pad()?;
        }
        archive.append(name, contents)?;
    }
    let end = [0; 2 * BLOCK_BYTES];
    archive.to.write_all(&end)?;
    archive.to.flush()
}

struct Archive<W> {
    to: W,
    /// Bytes so far, in whole blocks.
    at: usize,
}

impl<W: Write> Archive<W> {
    /// Lets the contents of the next member begin on a page.
    fn pad(&mut self) -> io::Result<()> {
        let behind_header = self.at + BLOCK_BYTES;
        match behind_header.next_multiple_of(ALIGNMENT) - behind_header {
            0 => Ok(()),
            gap => self.append("pad", &vec![0; gap.saturating_sub(BLOCK_BYTES)]),
        }
    }

    /// With nothing in it that depends on who writes it, or when.
    fn append(&mut self, name: &str, contents: &[u8]) -> io::Result<()> {
        let mut header = Header::new_ustar();
        header.set_path(name)?;
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(contents.len() as u64);
        header.set_cksum();
        self.to.write_all(header.as_bytes())?;
        self.to.write_all(contents)?;
        let padded = contents.len().next_multiple_of(BLOCK_BYTES);
        self.to.write_all(&vec![0; padded - contents.len()])?;
        self.at += BLOCK_BYTES + padded;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use mote_kernel_logic::boot::bundle::Bundle;
    use proptest::prelude::*;

    use super::*;

    fn contents() -> impl Strategy<Value = Vec<u8>> {
        let sizes = prop::sample::select(vec![0usize, 1, 511, 512, 3071, 3072, 3073, 3584, 4096, 9000]);
        (sizes, any::<u8>()).prop_map(|(size, byte)| vec![byte; size])
    }

    proptest! {
        #[test]
        fn the_kernel_finds_the_members_and_on_pages(
            text in prop::option::of(".{0,700}"),
            module in contents(),
            ramdisk in prop::option::of(contents()),
        ) {
            let mut members: Vec<(&str, &[u8])> = Vec::new();
            members.extend(text.as_ref().map(|text| ("cmdline", text.as_bytes())));
            members.push(("module", &module));
            members.extend(ramdisk.as_ref().map(|ramdisk| ("ramdisk", ramdisk.as_slice())));
            let mut bundle = Vec::new();
            write(&members, &mut bundle).unwrap();

            let found = Bundle::read(&bundle).unwrap();
            let at = |range: &Option<std::ops::Range<usize>>| range.clone().and_then(|range| bundle.get(range));
            prop_assert_eq!(at(&found.command_line), text.as_ref().map(|text| text.as_bytes()));
            prop_assert_eq!(at(&found.module), Some(module.as_slice()));
            prop_assert_eq!(at(&found.ramdisk), ramdisk.as_deref());
            for place in [found.module, found.ramdisk].into_iter().flatten() {
                prop_assert_eq!(place.start % ALIGNMENT, 0);
            }

            // Any other program can read it, too.
            let mut archive = tar::Archive::new(bundle.as_slice());
            let names = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string());
            let names: Vec<String> = names.filter(|name| name != "pad").collect();
            prop_assert_eq!(names, members.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>());
        }
    }
}
