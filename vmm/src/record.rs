//! What a kernel that runs without this VMM tells of its run: records on a serial line (`mote_abi::record`).
//!
//! A line may carry anything between two records, as the firmware's text does, and a guest may send what it likes. So a record is
//! searched for by its magic, and is one only if its checksum is right.

use mote_abi::{
    hypercall::ExitArgs,
    record::{MAX_RECORD_BYTES, Phases, RECORD_MAGIC, RecordHeader, kind},
};
use zerocopy::FromBytes;

use crate::{
    ending::{Ending, GuestFault},
    request::{ExitReport, printable},
};

/// Longest text of a failure that is taken: a kernel has a kilobyte for it.
const MAX_FAILURE_BYTES: u32 = 16 << 10;
/// What a buffer can hold without a record in it.
const MOST_BUFFERED: usize = size_of::<RecordHeader>() + MAX_RECORD_BYTES as usize;

/// A record of a guest. What it says is an allegation.
#[derive(Debug)]
pub enum Record {
    /// The machine was started; time-stamp counter at the ends of its phases. The console takes input from now on.
    Started(Phases),
    /// Nothing could be run, or the kernel did what it must not, for this reason: one line, without control characters.
    Failed(String),
    /// The run ended.
    Ended(Box<EndRecord>),
}

/// How a run ended that this VMM did not see.
#[derive(Debug)]
pub struct EndRecord {
    /// As for any run.
    pub ending: Ending,
    /// Fuel that was used, 0 if none was given.
    pub fuel_used: u64,
    /// Time-stamp counter when the kernel was entered, the module parsed, it instantiated, and at the end.
    pub tsc: [u64; 4],
}

/// Finds records in bytes that come in parts.
#[derive(Debug, Default)]
pub struct RecordReader {
    buffer: Vec<u8>,
    /// What is before this is done with. It goes away when more comes, so that false beginnings cost little.
    at: usize,
    /// No more bytes come: what is not complete never will be.
    ended: bool,
    /// Bytes of which a checksum may still be made.
    budget: Budget,
}

/// Each byte that comes allows for a checksum of so many, so that false beginnings that claim much cost little. It is enough for a true
/// record behind some that were damaged.
const HASHED_PER_BYTE: u64 = 16;

#[derive(Debug, Default)]
struct Budget {
    bytes: u64,
    /// So many were used up.
    hashed: u64,
}

impl Budget {
    /// Takes so many from it, if they are there.
    fn allows(&mut self, bytes: usize) -> bool {
        let rest = self.bytes.checked_sub(bytes as u64);
        self.bytes = rest.unwrap_or(self.bytes);
        self.hashed += if rest.is_some() { bytes as u64 } else { 0 };
        rest.is_some()
    }
}

impl RecordReader {
    /// Without any bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes more bytes. Ask for [`RecordReader::next_record`] until there is none before the next ones.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.at);
        self.at = 0;
        self.buffer.extend_from_slice(bytes);
        self.budget.bytes = self.budget.bytes.saturating_add(HASHED_PER_BYTE * bytes.len() as u64);
    }

    /// There are no more bytes.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Whether [`RecordReader::end`] was called.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// The next record that is complete.
    pub fn next_record(&mut self) -> Option<Record> {
        loop {
            self.skip_to_magic();
            let rest = self.buffer.get(self.at..).unwrap_or_default();
            match parse(rest, &mut self.budget) {
                Parsed::Record(record, bytes) => {
                    self.at += bytes;
                    if record.is_some() {
                        return record;
                    }
                }
                Parsed::Incomplete if rest.is_empty() || !self.ended && rest.len() < MOST_BUFFERED => return None,
                // Behind a false beginning there can be a true one.
                Parsed::Incomplete | Parsed::Garbage => self.at += 1,
            }
        }
    }

    /// Passes over what cannot be the beginning of a record.
    fn skip_to_magic(&mut self) {
        let begins = |rest: &[u8]| rest.iter().zip(RECORD_MAGIC).all(|(byte, expected)| *byte == expected);
        let found = (self.at..self.buffer.len()).find(|at| self.buffer.get(*at..).is_some_and(begins));
        self.at = found.unwrap_or(self.buffer.len());
    }
}

enum Parsed {
    /// So many bytes; `None` says nothing.
    Record(Option<Record>, usize),
    Incomplete,
    Garbage,
}

/// Whether a record of this kind can be so long.
fn is_plausible(kind: u32, payload_bytes: u32) -> bool {
    match kind {
        kind::EXIT => payload_bytes <= MAX_RECORD_BYTES,
        kind::FAILURE => payload_bytes <= MAX_FAILURE_BYTES,
        kind::PHASES => payload_bytes as usize == size_of::<Phases>(),
        _ => false,
    }
}

/// What is at the beginning of these bytes.
fn parse(bytes: &[u8], budget: &mut Budget) -> Parsed {
    let Ok((header, rest)) = RecordHeader::read_from_prefix(bytes) else { return Parsed::Incomplete };
    if header.magic != RECORD_MAGIC || header.reserved != 0 || !is_plausible(header.kind, header.payload_bytes) {
        return Parsed::Garbage;
    }
    let length = usize::try_from(header.payload_bytes).unwrap_or(usize::MAX);
    let Some(payload) = rest.get(..length) else { return Parsed::Incomplete };
    if !budget.allows(length) || crc32fast::hash(payload) != header.checksum {
        return Parsed::Garbage;
    }
    let record = match header.kind {
        kind::EXIT => Some(Record::Ended(Box::new(EndRecord::decode(payload)))),
        kind::FAILURE => Some(Record::Failed(printable(payload))),
        kind::PHASES => Phases::read_from_bytes(payload).ok().map(Record::Started),
        _ => None,
    };
    Parsed::Record(record, size_of::<RecordHeader>() + length)
}

impl EndRecord {
    fn decode(payload: &[u8]) -> Self {
        let report = match ExitArgs::read_from_prefix(payload) {
            Ok((arguments, texts)) => ExitReport::decode(&arguments, |offset, bytes| {
                let text = texts.get(offset..).and_then(|rest| rest.get(..bytes));
                text.map(<[u8]>::to_vec).ok_or_else(|| GuestFault::BadRequest("texts longer than their record".into()))
            }),
            Err(_) => Err(GuestFault::BadRequest("a record of the end that is too short".into())),
        };
        match report {
            Ok(ExitReport { ending, fuel_used, tsc }) => Self { ending, fuel_used, tsc },
            Err(fault) => Self { ending: Ending::GuestFault(Box::new(fault)), fuel_used: 0, tsc: [0; 4] },
        }
    }
}

#[cfg(test)]
mod tests {
    use mote_abi::{
        hypercall::{exit_kind, trap},
        record::Crc32,
    };
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    use super::*;
    use crate::ending::TrapKind;

    fn record(kind: u32, payload: &[u8]) -> Vec<u8> {
        let (payload_bytes, checksum) = (u32::try_from(payload.len()).unwrap(), Crc32::new().with(payload).finish());
        let header = RecordHeader { magic: RECORD_MAGIC, kind, payload_bytes, checksum, reserved: 0 };
        [header.as_bytes(), payload].concat()
    }

    fn exit(arguments: &ExitArgs, texts: &[u8]) -> Vec<u8> {
        record(kind::EXIT, &[arguments.as_bytes(), texts].concat())
    }

    fn all(bytes: &[u8]) -> Vec<String> {
        let mut reader = RecordReader::new();
        reader.push(bytes);
        reader.end();
        std::iter::from_fn(|| reader.next_record()).map(|record| format!("{record:?}")).collect()
    }

    #[test]
    fn an_end_is_that_of_a_run() {
        let arguments = ExitArgs {
            kind: exit_kind::TRAPPED,
            code: trap::UNREACHABLE,
            message_bytes: 3,
            export_bytes: 6,
            last_call_bytes: 4,
            fuel_used: 7,
            tsc: [1, 2, 3, 4],
            ..ExitArgs::default()
        };
        let mut reader = RecordReader::new();
        reader.push(&exit(&arguments, b"why_startcall"));
        let Some(Record::Ended(end)) = reader.next_record() else { panic!("no end") };
        assert_eq!((end.fuel_used, end.tsc), (7, [1, 2, 3, 4]));
        let Ending::Trapped(trap) = end.ending else { panic!("no trap") };
        assert_eq!((trap.kind, &*trap.export, &*trap.last_call), (TrapKind::Unreachable, "_start", "call"));
        assert!(reader.next_record().is_none());
    }

    #[test]
    fn texts_that_are_not_there_are_a_fault_of_the_guest() {
        let arguments = ExitArgs { message_bytes: 3, ..ExitArgs::default() };
        for bytes in [exit(&arguments, b"no"), record(kind::EXIT, b"short")] {
            assert!(matches!(&*all(&bytes), [end] if end.contains("BadRequest")), "{bytes:?}");
        }
    }

    #[test]
    fn records_are_found_in_noise_and_behind_false_ones() {
        let good = record(kind::FAILURE, b"no\nmemory\x1b");
        let mut damaged = record(kind::FAILURE, b"not this");
        *damaged.last_mut().unwrap() ^= 1;
        // One that claims a payload which never comes.
        let unfinished = &record(kind::FAILURE, &[b'x'; 1000])[..40];
        let unknown = record(99, b"later");
        let bytes = [b"noise moteR", &*good, &damaged, b"mote", &unknown, unfinished, &good, b"moteREC\n"].concat();
        assert_eq!(all(&bytes), [r#"Failed("no; memory\\u{1b}")"#; 2]);
    }

    #[test]
    fn false_beginnings_that_claim_much_cost_little() {
        // By far more of them than could be looked at; each that is not there in full is not looked at at all.
        let claim = |kind, payload_bytes| RecordHeader { magic: RECORD_MAGIC, kind, payload_bytes, checksum: 1, reserved: 0 };
        let claims = [claim(kind::EXIT, MAX_RECORD_BYTES), claim(kind::FAILURE, MAX_FAILURE_BYTES), claim(kind::PHASES, 40)];
        let bytes: Vec<u8> = claims.iter().cycle().take(60_000).flat_map(|header| header.as_bytes().to_vec()).collect();
        let mut reader = RecordReader::new();
        for part in bytes.chunks(4096) {
            reader.push(part);
            assert!(reader.next_record().is_none());
        }
        reader.end();
        assert!(reader.next_record().is_none());
        assert!(reader.budget.hashed <= HASHED_PER_BYTE * bytes.len() as u64, "{:?}", reader.budget);

        // Such as no kernel sends are not looked at.
        let impossible = [claim(kind::PHASES, 39), claim(kind::FAILURE, MAX_FAILURE_BYTES + 1), claim(99, 8)];
        let bytes: Vec<u8> = impossible.iter().cycle().take(30_000).flat_map(|header| header.as_bytes().to_vec()).collect();
        let mut reader = RecordReader::new();
        reader.push(&bytes);
        assert!(reader.next_record().is_none() && reader.budget.hashed == 0, "{:?}", reader.budget);
        // And what is true behind them is found.
        reader.push(&record(kind::PHASES, Phases::default().as_bytes()));
        assert!(matches!(reader.next_record(), Some(Record::Started(_))));
    }

    proptest! {
        #[test]
        fn any_claims_are_looked_at_within_the_bound(
            claims in prop::collection::vec((0u32..5, prop::sample::select(vec![0u32, 24, 40, 1000, MAX_FAILURE_BYTES])), 0..300),
            piece in 1usize..5000,
        ) {
            let header = |(kind, payload_bytes)| {
                RecordHeader { magic: RECORD_MAGIC, kind, payload_bytes, checksum: 1, reserved: 0 }.as_bytes().to_vec()
            };
            let bytes: Vec<u8> = claims.into_iter().flat_map(header).collect();
            let mut reader = RecordReader::new();
            let mut so_far = 0;
            for part in bytes.chunks(piece) {
                so_far += part.len() as u64;
                reader.push(part);
                while reader.next_record().is_some() {}
                prop_assert!(reader.budget.hashed <= HASHED_PER_BYTE * so_far);
            }
            // One that comes whole, and that nothing before it claims, is found.
            reader.push(&vec![0; MOST_BUFFERED]);
            while reader.next_record().is_some() {}
            reader.push(&record(kind::FAILURE, b"true"));
            prop_assert!(matches!(reader.next_record(), Some(Record::Failed(text)) if text == "true"));
        }

        #[test]
        fn checksums_are_those_of_the_contract(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(crc32fast::hash(&bytes), Crc32::new().with(&bytes).finish());
        }

        #[test]
        fn any_parting_gives_the_same_records(noise in prop::collection::vec(any::<u8>(), 0..40), piece in 1usize..50) {
            let end = exit(&ExitArgs { code: 3, ..ExitArgs::default() }, b"");
            let phases = record(kind::PHASES, Phases::default().as_bytes());
            let bytes = [&*noise, &phases, &noise, &end].concat();
            let mut reader = RecordReader::new();
            let mut found = Vec::new();
            for part in bytes.chunks(piece) {
                reader.push(part);
                found.extend(std::iter::from_fn(|| reader.next_record()));
            }
            prop_assert!(matches!(&*found, [Record::Started(_), Record::Ended(_)]), "{found:?}");
        }

        #[test]
        fn any_bytes_are_taken(mut bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0usize..300) {
            let at = at.min(bytes.len());
            bytes.splice(at..at, RECORD_MAGIC);
            let _ = all(&bytes);
        }
    }
}
