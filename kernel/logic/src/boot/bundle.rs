//! A bundle: several files in a tar archive, for loaders that take only one.

use core::{fmt, ops::Range};

/// Bytes of a header, and what contents are padded to (POSIX.1-2001, pax, "ustar Interchange Format").
const BLOCK_BYTES: usize = 512;
const NAME: Range<usize> = 0..100;
const SIZE: Range<usize> = 124..136;
const TYPE: usize = 156;
const MAGIC: Range<usize> = 257..262;

/// Where in an archive its members lie.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bundle {
    /// The module.
    pub module: Option<Range<usize>>,
    /// The archive for the ramdisk.
    pub ramdisk: Option<Range<usize>>,
    /// Text that comes before the loader's command line.
    pub command_line: Option<Range<usize>>,
}

/// An archive that is no bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BundleError {
    /// Offset of the header.
    at: usize,
    what: &'static str,
}

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the bundle, a tar archive, {} at offset {}", self.what, self.at)
    }
}

/// Whether a file begins as a tar archive.
pub fn is_archive(bytes: &[u8]) -> bool {
    bytes.get(MAGIC) == Some(b"ustar")
}

impl Bundle {
    /// Finds the members.
    pub fn read(archive: &[u8]) -> Result<Self, BundleError> {
        let mut bundle = Self::default();
        let mut at = 0;
        while let Some(header) =
            archive.get(at..).and_then(|rest| rest.get(..BLOCK_BYTES)).filter(|header| header.first() != Some(&0))
        {
            let error = |what| BundleError { at, what };
            if !is_archive(header) {
                return Err(error("has no header"));
            }
            let size = header.get(SIZE).and_then(octal).ok_or(error("has a member of no known size"))?;
            let start = at + BLOCK_BYTES;
            let end = start.checked_add(size).filter(|end| *end <= archive.len());
            let contents = start..end.ok_or(error("is cut off in the member"))?;
            let name = header.get(NAME).unwrap_or(&[]);
            let name = name.split(|byte| *byte == 0).next().unwrap_or(&[]);
            let is_file = matches!(header.get(TYPE), Some(b'0' | 0));
            let is_directory = header.get(TYPE) == Some(&b'5');
            let place = match name.strip_prefix(b"./").unwrap_or(name) {
                b"module" if is_file => &mut bundle.module,
                b"ramdisk" if is_file => &mut bundle.ramdisk,
                b"cmdline" if is_file => &mut bundle.command_line,
                b"pad" if is_file => &mut None,
                // `tar -cf bundle.tar .` has one.
                _ if is_directory => &mut None,
                _ => return Err(error("has a member that is not `module`, `ramdisk`, `cmdline` or `pad`")),
            };
            if place.replace(contents.clone()).is_some() {
                return Err(error("has a second member of a name"));
            }
            at = contents.end.next_multiple_of(BLOCK_BYTES);
        }
        Ok(bundle)
    }
}

fn octal(field: &[u8]) -> Option<usize> {
    let digits = field.split(|byte| matches!(byte, 0 | b' ')).find(|digits| !digits.is_empty())?;
    let digit = |value: usize, byte: &u8| Some(value.checked_mul(8)? | usize::from(*byte - b'0'));
    digits.iter().all(|byte| (b'0'..=b'7').contains(byte)).then(|| digits.iter().try_fold(0, digit))?
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::{string::ToString, vec::Vec};

    fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, contents) in members {
            let mut header = tar::Header::new_ustar();
            header.set_size(contents.len() as u64);
            header.set_cksum();
            builder.append_data(&mut header, name, *contents).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn members_are_found() {
        let archive =
            archive(&[("cmdline", b"a b"), ("pad", &[0; 700]), ("./module", b"\0asm"), ("pad", b""), ("ramdisk", b"tar")]);
        let bundle = Bundle::read(&archive).unwrap();
        assert_eq!(&archive[bundle.command_line.unwrap()], b"a b");
        assert_eq!(&archive[bundle.module.unwrap()], b"\0asm");
        assert_eq!(&archive[bundle.ramdisk.unwrap()], b"tar");
        assert_eq!(Bundle::read(&[]), Ok(Bundle::default()));
    }

    #[test]
    fn directories_mean_nothing() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        header.set_cksum();
        builder.append_data(&mut header, "./", &[][..]).unwrap();
        assert_eq!(Bundle::read(&builder.into_inner().unwrap()), Ok(Bundle::default()));
    }

    #[test]
    fn other_archives_are_refused() {
        let refused = |archive: &[u8], what: &str| {
            let message = Bundle::read(archive).unwrap_err().to_string();
            assert!(message.contains(what), "{message}");
        };
        refused(&archive(&[("module", b""), ("module", b"")]), "second member");
        refused(&archive(&[("other", b"")]), "is not `module`");
        refused(&archive(&[("module", &[1; 600])])[..1000], "cut off");
        refused(&[b'x'; 600], "no header at offset 0");
    }

    proptest! {
        #[test]
        fn changed_archives_are_read_or_refused(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8)) {
            let mut archive = archive(&[("cmdline", b"a b"), ("module", &[7; 600])]);
            for (index, byte) in changes {
                let index = index.index(archive.len());
                archive[index] = byte;
            }
            if let Ok(bundle) = Bundle::read(&archive) {
                for part in [bundle.module, bundle.ramdisk, bundle.command_line].into_iter().flatten() {
                    prop_assert!(archive.get(part).is_some());
                }
            }
        }
    }
}
