//! Entries of a tar archive: ustar, with the extensions of GNU tar and pax. The archive's bytes are not trusted.
//!
//! Nothing is copied: paths and data are slices. What the entries mean for a tree of files is not said here.

use alloc::format;
use alloc::string::String;
use core::fmt;
use core::ops::Range;

use mote_abi::file::{MAX_NAME_BYTES, MAX_PATH_BYTES};

use super::pax::Extension;

const BLOCK_BYTES: usize = 512;

/// Fields of a header (POSIX, pax: ustar Interchange Format).
mod field {
    use super::Range;

    pub(super) const NAME: Range<usize> = 0..100;
    pub(super) const SIZE: Range<usize> = 124..136;
    pub(super) const MTIME: Range<usize> = 136..148;
    pub(super) const CHECKSUM: Range<usize> = 148..156;
    pub(super) const TYPE: usize = 156;
    pub(super) const LINK_NAME: Range<usize> = 157..257;
    /// With the NUL that GNU's own format does not have.
    pub(super) const MAGIC: Range<usize> = 257..263;
    pub(super) const PREFIX: Range<usize> = 345..500;
}

/// Why an archive is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarError {
    /// Where the header of the entry lies in the archive, in bytes.
    pub offset: u64,
    /// The entry's path, as far as it is known.
    pub entry: String,
    /// What is wrong with it.
    pub problem: TarProblem,
}

/// What can be wrong with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TarProblem {
    /// The archive ends within it.
    Truncated {
        /// Bytes that should be there.
        needed_bytes: u64,
        /// Bytes that are.
        left_bytes: u64,
    },
    /// The header's sum is wrong: damaged, or no tar archive.
    Checksum,
    /// A header field is no number, or one out of range.
    Number(&'static str),
    /// A pax header is not made of `LENGTH KEY=VALUE` lines.
    PaxRecord,
    /// A path or a link's target is not UTF-8.
    NotUtf8,
    /// A path or a link's target is empty or holds a NUL.
    BadPath,
    /// A path or a name in it is too long.
    LongPath,
    /// A path has a component `..`.
    DotDot,
    /// A directory of the path is a file, or a symbolic link that leads to no directory.
    NotDirectory,
    /// A directory that is not empty has the path.
    Occupied,
    /// A hard link to what no entry before made, or to a directory.
    LinkTarget,
    /// The disk's budget has no room for it.
    NoSpace,
}

impl fmt::Display for TarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry {:?} at byte {} of the archive: {}", self.entry, self.offset, self.problem)
    }
}

impl fmt::Display for TarProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { needed_bytes, left_bytes } => {
                write!(f, "the archive is cut off: {needed_bytes} bytes should follow, {left_bytes} do")
            }
            Self::Checksum => f.write_str("the header's checksum is wrong: it is damaged, or this is no tar archive"),
            Self::Number(field) => write!(f, "its {field} is not a number, or out of range"),
            Self::PaxRecord => f.write_str("its pax header is malformed"),
            Self::NotUtf8 => f.write_str("its path or link target is not UTF-8"),
            Self::BadPath => f.write_str("its path or link target is empty or holds a NUL"),
            Self::LongPath => {
                write!(f, "its path or link target has more than {MAX_PATH_BYTES} bytes, or a name of more than {MAX_NAME_BYTES}")
            }
            Self::DotDot => f.write_str("its path has a component \"..\""),
            Self::NotDirectory => f.write_str("a component of its path is not a directory"),
            Self::Occupied => f.write_str("a directory that is not empty has its path"),
            Self::LinkTarget => f.write_str("a hard link to no file that came before"),
            Self::NoSpace => f.write_str("no memory is left for it"),
        }
    }
}

impl core::error::Error for TarError {}

/// An entry to be made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) offset: usize,
    pub(super) path: Path<'a>,
    pub(super) kind: EntryKind<'a>,
    pub(super) modified_ns: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum EntryKind<'a> {
    File(&'a [u8]),
    Directory,
    Symlink(&'a str),
    HardLink(Path<'a>),
}

impl Entry<'_> {
    pub(super) fn error(&self, problem: TarProblem) -> TarError {
        let Path { prefix, name } = self.path;
        let entry = if prefix.is_empty() { name.into() } else { format!("{prefix}/{name}") };
        TarError { offset: self.offset as u64, entry, problem }
    }
}

/// A path, in the two parts that ustar has. Both are relative to the root, even with a slash at the front.
#[derive(Debug, Clone, Copy)]
pub(super) struct Path<'a> {
    prefix: &'a str,
    name: &'a str,
}

impl<'a> Path<'a> {
    fn new(prefix: &'a [u8], name: &'a [u8]) -> Result<Self, TarProblem> {
        let path = Self { prefix: text(prefix)?, name: text(name)? };
        if path.components().any(|component| component == "..") {
            return Err(TarProblem::DotDot);
        }
        let long = path.components().any(|component| component.len() > MAX_NAME_BYTES);
        if long || prefix.len() + name.len() > MAX_PATH_BYTES { Err(TarProblem::LongPath) } else { Ok(path) }
    }

    /// Its components; none is the root.
    pub(super) fn components(self) -> impl Iterator<Item = &'a str> {
        let both = self.prefix.split('/').chain(self.name.split('/'));
        both.filter(|component| !matches!(*component, "" | "."))
    }
}

/// Reads an archive entry by entry.
#[derive(Debug)]
pub(super) struct Entries<'a> {
    archive: &'a [u8],
    /// What comes next.
    at: usize,
    skipped: u64,
    /// The header that is being read, for errors: where it is, and whose.
    header_at: usize,
    name: &'a [u8],
}

impl<'a> Entries<'a> {
    pub(super) const fn new(archive: &'a [u8]) -> Self {
        Self { archive, at: 0, skipped: 0, header_at: 0, name: &[] }
    }

    /// Entries passed over until now: devices, pipes, sparse files and unknown types.
    pub(super) const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The next entry; `None` at the end, which is a block of zeros or the end of the bytes.
    pub(super) fn next(&mut self) -> Result<Option<Entry<'a>>, TarError> {
        self.name = &[];
        self.read().map_err(|problem| TarError {
            offset: self.header_at as u64,
            entry: String::from_utf8_lossy(self.name).into_owned(),
            problem,
        })
    }

    fn read(&mut self) -> Result<Option<Entry<'a>>, TarProblem> {
        let mut extension = Extension::default();
        while let Some(header) = self.header()? {
            self.name = extension.path.unwrap_or_else(|| until_nul(header.field(field::NAME)));
            header.check_sum()?;
            let in_header = header.number(field::SIZE).and_then(|bytes| u64::try_from(bytes).ok());
            let bytes = extension.bytes.or(in_header).ok_or(TarProblem::Number("size"))?;
            match header.kind() {
                b'x' => extension.add_pax(self.data(bytes)?)?,
                b'L' => extension.path = Some(until_nul(self.data(bytes)?)),
                b'K' => extension.link = Some(until_nul(self.data(bytes)?)),
                // Defaults for all entries behind: comments, in practice.
                b'g' => drop(self.data(bytes)?),
                _ => {
                    if let Some(entry) = self.entry(header, &extension, bytes)? {
                        return Ok(Some(entry));
                    }
                    self.skipped += 1;
                    extension = Extension::default();
                }
            }
        }
        Ok(None)
    }

    /// What a header stands for, if a disk has a use for it.
    fn entry(&mut self, header: Header<'a>, extension: &Extension<'a>, bytes: u64) -> Result<Option<Entry<'a>>, TarProblem> {
        let (prefix, name) = match extension.path {
            Some(path) => (&[][..], path),
            None => (header.prefix(), until_nul(header.field(field::NAME))),
        };
        let link = extension.link.unwrap_or_else(|| until_nul(header.field(field::LINK_NAME)));
        // Some archivers say the size of the file that a link leads to; no data follows.
        let data = if matches!(header.kind(), b'1' | b'2') { &[] } else { self.data(bytes)? };
        let kind = match header.kind() {
            // Sparse files keep a map in their data, which would be shown as contents.
            _ if extension.is_sparse => return Ok(None),
            // Before ustar, a slash made a directory.
            b'\0' | b'0' | b'7' if name.ends_with(b"/") => EntryKind::Directory,
            b'\0' | b'0' | b'7' => EntryKind::File(data),
            b'1' => EntryKind::HardLink(Path::new(&[], link)?),
            b'2' => EntryKind::Symlink(text(link).and_then(|target| {
                let long = target.len() > MAX_PATH_BYTES;
                if long { Err(TarProblem::LongPath) } else { Ok(target) }
            })?),
            b'5' => EntryKind::Directory,
            _ => return Ok(None),
        };
        if name.is_empty() {
            return Err(TarProblem::BadPath);
        }
        let modified_ns = match extension.modified_ns {
            Some(ns) => ns,
            None => nanoseconds(header.number(field::MTIME).ok_or(TarProblem::Number("modification time"))?),
        };
        Ok(Some(Entry { offset: self.header_at, path: Path::new(prefix, name)?, kind, modified_ns }))
    }

    /// The next header; `None` at the end.
    fn header(&mut self) -> Result<Option<Header<'a>>, TarProblem> {
        self.header_at = self.at;
        if self.at == self.archive.len() {
            return Ok(None);
        }
        let block = self.take(BLOCK_BYTES)?;
        Ok(block.iter().any(|byte| *byte != 0).then_some(Header(block)))
    }

    /// Data behind a header, without what fills its last block.
    fn data(&mut self, bytes: u64) -> Result<&'a [u8], TarProblem> {
        let whole = usize::try_from(bytes).ok().and_then(|bytes| bytes.checked_next_multiple_of(BLOCK_BYTES));
        let blocks = self.take(whole.ok_or(TarProblem::Number("size"))?)?;
        Ok(blocks.get(..bytes as usize).unwrap_or(blocks))
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], TarProblem> {
        let rest = self.archive.get(self.at..).unwrap_or(&[]);
        let truncated = TarProblem::Truncated { needed_bytes: bytes as u64, left_bytes: rest.len() as u64 };
        let taken = rest.get(..bytes).ok_or(truncated)?;
        self.at += bytes;
        Ok(taken)
    }
}

/// A block that is a header.
#[derive(Debug, Clone, Copy)]
struct Header<'a>(&'a [u8]);

impl<'a> Header<'a> {
    fn field(self, range: Range<usize>) -> &'a [u8] {
        self.0.get(range).unwrap_or(&[])
    }

    fn kind(self) -> u8 {
        self.0.get(field::TYPE).copied().unwrap_or(0)
    }

    /// The front of the path. GNU's own format has other things there.
    fn prefix(self) -> &'a [u8] {
        if self.field(field::MAGIC) == b"ustar\0" { until_nul(self.field(field::PREFIX)) } else { &[] }
    }

    /// The sum of all bytes, those of the sum itself taken as spaces. Old archivers added signed bytes.
    fn check_sum(self) -> Result<(), TarProblem> {
        let spaces = field::CHECKSUM.len() as i64 * i64::from(b' ');
        let unsigned = |bytes: &[u8]| bytes.iter().map(|byte| i64::from(*byte)).sum::<i64>();
        let signed = |bytes: &[u8]| bytes.iter().map(|byte| i64::from(byte.cast_signed())).sum::<i64>();
        let own = self.field(field::CHECKSUM);
        let written = self.number(field::CHECKSUM).ok_or(TarProblem::Checksum)?;
        let is_right = written == i128::from(unsigned(self.0) - unsigned(own) + spaces)
            || written == i128::from(signed(self.0) - signed(own) + spaces);
        if is_right { Ok(()) } else { Err(TarProblem::Checksum) }
    }

    /// A number of at most 12 bytes: octal digits, or GNU's binary form, which sets the first bit.
    fn number(self, range: Range<usize>) -> Option<i128> {
        let field = self.field(range);
        let (first, rest) = field.split_first()?;
        if first & 0x80 != 0 {
            // The second bit is the sign.
            let high = i128::from(first & 0x3f) - i128::from(first & 0x40);
            return Some(rest.iter().fold(high, |value, byte| (value << 8) | i128::from(*byte)));
        }
        let digits = core::str::from_utf8(field).ok()?.trim_matches([' ', '\0']);
        if digits.is_empty() { Some(0) } else { i128::from_str_radix(digits, 8).ok() }
    }
}

/// Times before 1970 become 1970; those that no number of nanoseconds can say, the last it can.
fn nanoseconds(seconds: i128) -> u64 {
    u64::try_from(seconds.max(0)).unwrap_or(u64::MAX).saturating_mul(1_000_000_000)
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or(field)
}

/// A path or a target as text.
fn text(bytes: &[u8]) -> Result<&str, TarProblem> {
    match core::str::from_utf8(bytes) {
        Ok(text) if text.contains('\0') => Err(TarProblem::BadPath),
        Ok(text) => Ok(text),
        Err(_) => Err(TarProblem::NotUtf8),
    }
}
