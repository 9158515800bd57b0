//! Directory entries (witx: `dirent`) as `fd_readdir` puts them into a buffer.
//!
//! The host sends batches in the same layout, but with cookies of its own. Cookie 0 of the module stands before `.`, 1 before
//! `..`, and 2 and more before what the host's file system has, so that its cookies are moved by [`FIRST_COOKIE`].

/// Bytes of an entry without its name.
pub const DIRENT_BYTES: usize = 24;
/// The module's cookie for the host's 0.
pub const FIRST_COOKIE: u64 = 2;

/// An entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dirent<'a> {
    /// Cookie of the entry behind it.
    pub next_cookie: u64,
    /// Inode.
    pub inode: u64,
    /// One of [`mote_abi::file::file_type`].
    pub file_type: u8,
    /// Name.
    pub name: &'a [u8],
}

impl<'a> Dirent<'a> {
    /// The first entry of `batch` and the rest; `None` if there is no whole one.
    pub fn split(batch: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (head, rest) = batch.split_first_chunk::<DIRENT_BYTES>()?;
        let word = |at: usize| head.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        let length_and_type = word(16)?;
        let (name, rest) = rest.split_at_checked((length_and_type & 0xffff_ffff) as usize)?;
        Some((Self { next_cookie: word(0)?, inode: word(8)?, file_type: (length_and_type >> 32) as u8, name }, rest))
    }

    /// Everything before the name.
    pub fn head(&self) -> [u8; DIRENT_BYTES] {
        let mut head = [0; DIRENT_BYTES];
        let words = [self.next_cookie, self.inode, self.name.len() as u64 & 0xffff_ffff | u64::from(self.file_type) << 32];
        for (to, from) in head.iter_mut().zip(words.iter().flat_map(|word| word.to_le_bytes())) {
            *to = from;
        }
        head
    }

    /// Puts as much as fits at `used` into `buffer`; `false` if that was not all.
    pub fn put(&self, buffer: &mut [u8], used: &mut usize) -> bool {
        let head = self.head();
        let bytes = head.iter().chain(self.name);
        let room = buffer.get_mut(*used..).unwrap_or(&mut []);
        let mut written = 0;
        for (to, from) in room.iter_mut().zip(bytes) {
            *to = *from;
            written += 1;
        }
        *used += written;
        written == DIRENT_BYTES + self.name.len()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn entries_come_back(cookie: u64, inode: u64, file_type in 0u8..8, name in prop::collection::vec(any::<u8>(), 0..300), cut in 0usize..400) {
            let entry = Dirent { next_cookie: cookie, inode, file_type, name: &name };
            let mut buffer = vec![0; cut];
            let mut used = 0;
            let whole = entry.put(&mut buffer, &mut used);
            prop_assert_eq!(whole, cut >= DIRENT_BYTES + name.len());
            prop_assert_eq!(used, cut.min(DIRENT_BYTES + name.len()));
            let back = Dirent::split(&buffer[..used]);
            prop_assert_eq!(back, whole.then_some((entry, &[][..])));
        }

        #[test]
        fn any_bytes_split_or_not(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Some((entry, rest)) = Dirent::split(&bytes) {
                prop_assert_eq!(DIRENT_BYTES + entry.name.len() + rest.len(), bytes.len());
            }
        }
    }
}
