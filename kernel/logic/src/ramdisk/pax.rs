//! What headers before an entry say of it: pax records (POSIX, pax Header Block) and GNU's long names.

use super::tar::TarProblem;

/// What replaces fields of an entry's own header.
#[derive(Debug, Default)]
pub(super) struct Extension<'a> {
    pub(super) path: Option<&'a [u8]>,
    pub(super) link: Option<&'a [u8]>,
    pub(super) bytes: Option<u64>,
    pub(super) modified_ns: Option<u64>,
    pub(super) is_sparse: bool,
}

impl<'a> Extension<'a> {
    /// Adds the records of a pax header. A record with an empty value takes back those before.
    pub(super) fn add_pax(&mut self, records: &'a [u8]) -> Result<(), TarProblem> {
        let mut rest = records;
        while !rest.is_empty() {
            let (key, value, behind) = record(rest).ok_or(TarProblem::PaxRecord)?;
            rest = behind;
            let present = Some(value).filter(|value| !value.is_empty());
            match key {
                b"path" => self.path = present,
                b"linkpath" => self.link = present,
                b"size" => self.bytes = present.map(size).transpose()?,
                b"mtime" => self.modified_ns = present.map(time).transpose()?,
                _ => self.is_sparse |= key.starts_with(b"GNU.sparse."),
            }
        }
        Ok(())
    }
}

/// The first record, as key and value, and what is behind it. Its length, in front, counts all of it.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(bytes.get(..space)?)?).ok()?;
    let (record, behind) = bytes.split_at_checked(length)?;
    let text = record.get(space.checked_add(1)?..)?.strip_suffix(b"\n")?;
    let equals = text.iter().position(|byte| *byte == b'=')?;
    Some((text.get(..equals)?, text.get(equals + 1..)?, behind))
}

fn size(value: &[u8]) -> Result<u64, TarProblem> {
    decimal(value).ok_or(TarProblem::Number("size"))
}

/// Nanoseconds, from seconds that may have a fraction. Times before 1970 become 1970.
fn time(value: &[u8]) -> Result<u64, TarProblem> {
    let (is_before_1970, value) = value.strip_prefix(b"-").map_or((false, value), |value| (true, value));
    let mut halves = value.splitn(2, |byte| *byte == b'.');
    let seconds = halves.next().and_then(decimal).ok_or(TarProblem::Number("modification time"))?;
    let fraction = halves.next().unwrap_or(&[]);
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(TarProblem::Number("modification time"));
    }
    let nine = fraction.iter().chain(core::iter::repeat(&b'0')).take(9);
    let below_second = nine.fold(0, |sum: u64, digit| sum * 10 + u64::from(digit.saturating_sub(b'0')));
    Ok(if is_before_1970 { 0 } else { seconds.saturating_mul(1_000_000_000).saturating_add(below_second) })
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let text = core::str::from_utf8(digits).ok()?;
    // `parse` takes a sign.
    if digits.first().is_some_and(u8::is_ascii_digit) { text.parse().ok() } else { None }
}
