//! Requests: what the mailbox holds, copied out once and checked into a type.

mod files;

use std::time::Duration;

use mote_abi::{
    hypercall::{
        self, CopyModuleArgs, ExitArgs, FOREVER_NS, HostCallArgs, LinearMemory, NO_FUEL, ReadStdinArgs, ReturnArgs, WaitArgs,
        exit_kind,
        files::{Interest, MAX_INTERESTS},
        return_kind,
    },
    layout::MAILBOX_DATA,
    mailbox::{DATA_BYTES, REQUEST, Request as RawRequest},
    value::{MAX_VALUES, RawValue},
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::ending::{Ending, Frame, GuestFault, Rejection, Trap, TrapKind};

pub(crate) use files::{Area, Change, FileRequest, Open, PathOperation, Times, Transfer};

/// Most frames of a backtrace.
const MAX_FRAMES: usize = 100;
/// Longest text that is taken from a guest.
const MAX_TEXT_BYTES: usize = 16 << 10;

/// A checked request.
#[derive(Debug)]
pub(crate) enum Request {
    Exit(Box<ExitReport>),
    DrainOutput,
    ReadStdin { max_bytes: usize },
    Wait { timeout: Option<Duration>, interests: Vec<Interest> },
    ReadClock,
    File(FileRequest),
    Return(Box<Returned>),
    HostCall(HostCall),
    CopyModule(CopyModuleArgs),
}

/// What came of a command.
#[derive(Debug)]
pub(crate) struct Returned {
    pub(crate) outcome: Outcome,
    /// Fuel that a call left, if it had any.
    pub(crate) fuel_left: Option<u64>,
    pub(crate) memory: LinearMemory,
    /// Time-stamp counter: entry, parsed, instantiated.
    pub(crate) tsc: [u64; 3],
}

/// How a command ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Done: a number and bytes, which mean what the command says.
    Done {
        code: u32,
        payload: Vec<u8>,
    },
    Trapped(Box<Trap>),
    Exited(u32),
    /// A function of the host failed.
    HostError,
    Rejected(Rejection),
}

/// A call of a function of the host.
#[derive(Debug)]
pub(crate) struct HostCall {
    pub(crate) function: usize,
    pub(crate) arguments: Vec<RawValue>,
    pub(crate) fuel_left: Option<u64>,
    pub(crate) memory: LinearMemory,
}

/// What the guest says of its end.
#[derive(Debug)]
pub(crate) struct ExitReport {
    pub(crate) ending: Ending,
    pub(crate) fuel_used: u64,
    /// Time-stamp counter: entry, parsed, instantiated, end.
    pub(crate) tsc: [u64; 4],
}

impl Request {
    /// Takes the request out of the mailbox: what the guest changes afterwards does not matter.
    pub(crate) fn take(memory: &GuestMemoryMmap) -> Result<Self, GuestFault> {
        let unreadable = |error: vm_memory::GuestMemoryError| GuestFault::BadRequest(error.to_string());
        let mut raw = RawRequest::new_zeroed();
        memory.read_slice(raw.as_mut_bytes(), GuestAddress(REQUEST)).map_err(unreadable)?;
        memory.write_obj(0u32, GuestAddress(REQUEST)).map_err(unreadable)?;
        Self::decode(&raw, |offset, bytes| {
            let mut data = vec![0; bytes];
            let address = GuestAddress(MAILBOX_DATA.start + offset as u64);
            memory.read_slice(&mut data, address).map(|()| data).map_err(unreadable)
        })
    }

    /// `data` reads bytes of the data area; it is only asked for what lies in it.
    fn decode(raw: &RawRequest, data: impl Fn(usize, usize) -> Result<Vec<u8>, GuestFault>) -> Result<Self, GuestFault> {
        let bad = |what: String| GuestFault::BadRequest(what);
        let no_arguments = || bad("arguments that cannot be".into());
        match raw.number {
            0 => Err(bad("the doorbell rang without one".into())),
            hypercall::EXIT => {
                let arguments: ExitArgs = raw.arguments().ok_or_else(no_arguments)?;
                ExitReport::decode(&arguments, data).map(|report| Self::Exit(Box::new(report)))
            }
            hypercall::DRAIN_OUTPUT => Ok(Self::DrainOutput),
            hypercall::READ_STDIN => {
                let arguments: ReadStdinArgs = raw.arguments().ok_or_else(no_arguments)?;
                match usize::try_from(arguments.max_bytes) {
                    Ok(max_bytes) if max_bytes <= DATA_BYTES => Ok(Self::ReadStdin { max_bytes }),
                    _ => Err(bad(format!("a read of {} bytes, more than the mailbox holds", arguments.max_bytes))),
                }
            }
            hypercall::WAIT => {
                let arguments: WaitArgs = raw.arguments().ok_or_else(no_arguments)?;
                let timeout = (arguments.timeout_ns != FOREVER_NS).then(|| Duration::from_nanos(arguments.timeout_ns));
                Ok(Self::Wait { timeout, interests: interests(arguments.interests, data)? })
            }
            hypercall::READ_CLOCK => Ok(Self::ReadClock),
            hypercall::COPY_MODULE => Ok(Self::CopyModule(raw.arguments().ok_or_else(no_arguments)?)),
            hypercall::RETURN => {
                let arguments: ReturnArgs = raw.arguments().ok_or_else(no_arguments)?;
                Returned::decode(&arguments, data).map(|returned| Self::Return(Box::new(returned)))
            }
            hypercall::HOST_CALL => {
                let arguments: HostCallArgs = raw.arguments().ok_or_else(no_arguments)?;
                HostCall::decode(&arguments, data).map(Self::HostCall)
            }
            number => match FileRequest::decode(raw, data)? {
                Some(request) => Ok(Self::File(request)),
                None => Err(bad(format!("unknown number {number:#x}"))),
            },
        }
    }
}

fn interests(count: u32, data: impl Fn(usize, usize) -> Result<Vec<u8>, GuestFault>) -> Result<Vec<Interest>, GuestFault> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if count > MAX_INTERESTS {
        return Err(GuestFault::BadRequest(format!("a wait for {count} events")));
    }
    let mut interests = vec![Interest::default(); count];
    let bytes = data(0, count * size_of::<Interest>())?;
    for (to, from) in interests.as_mut_bytes().iter_mut().zip(bytes) {
        *to = from;
    }
    Ok(interests)
}

/// Texts that lie one behind the other in the data area.
struct Texts<D> {
    at: usize,
    data: D,
}

impl<D: Fn(usize, usize) -> Result<Vec<u8>, GuestFault>> Texts<D> {
    /// The next one, of `bytes` bytes.
    fn next(&mut self, bytes: u32) -> Result<String, GuestFault> {
        self.bytes(bytes).map(|bytes| printable(&bytes))
    }

    /// The same for a backtrace.
    fn backtrace(&mut self, bytes: u32) -> Result<Vec<Frame>, GuestFault> {
        let bytes = self.bytes(bytes)?;
        let frames = bytes.split_inclusive(|byte| *byte == 0).filter_map(|text| frame(text.strip_suffix(&[0])?));
        Ok(frames.take(MAX_FRAMES).collect())
    }

    fn bytes(&mut self, bytes: u32) -> Result<Vec<u8>, GuestFault> {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let end = self.at.checked_add(bytes).filter(|end| *end <= DATA_BYTES);
        let end = end.ok_or_else(|| GuestFault::BadRequest("texts longer than the mailbox".into()))?;
        let contents = (self.data)(self.at, bytes.min(MAX_TEXT_BYTES))?;
        self.at = end;
        Ok(contents)
    }
}

/// A frame of a backtrace; `None` if this is none.
fn frame(text: &[u8]) -> Option<Frame> {
    let text = std::str::from_utf8(text).ok()?;
    let (function, rest) = text.split_once(' ')?;
    let (offset, name) = rest.split_once(' ')?;
    let name = Some(printable(name.as_bytes())).filter(|name| !name.is_empty());
    Some(Frame { function: function.parse().ok()?, module_offset: offset.parse().ok(), name })
}

fn trap_kind(code: u32) -> Result<TrapKind, GuestFault> {
    TrapKind::from_code(code).ok_or_else(|| GuestFault::BadRequest(format!("unknown trap {code:#x}")))
}

impl Returned {
    fn decode(arguments: &ReturnArgs, data: impl Fn(usize, usize) -> Result<Vec<u8>, GuestFault>) -> Result<Self, GuestFault> {
        let payload_bytes = usize::try_from(arguments.payload_bytes).unwrap_or(usize::MAX);
        if payload_bytes > DATA_BYTES {
            return Err(GuestFault::BadRequest("a result longer than the mailbox".into()));
        }
        let mut texts = Texts { at: payload_bytes, data: &data };
        let message = texts.next(arguments.message_bytes)?;
        let last_call = texts.next(arguments.last_call_bytes)?;
        let backtrace = texts.backtrace(arguments.backtrace_bytes)?;
        let outcome = match arguments.kind {
            return_kind::DONE => Outcome::Done { code: arguments.code, payload: data(0, payload_bytes)? },
            return_kind::TRAPPED => {
                let (kind, export) = (trap_kind(arguments.code)?, String::new());
                Outcome::Trapped(Box::new(Trap { kind, message, export, last_call, backtrace }))
            }
            return_kind::EXITED => Outcome::Exited(arguments.code),
            return_kind::HOST_ERROR => Outcome::HostError,
            return_kind::INVALID => Outcome::Rejected(Rejection::Invalid(message)),
            return_kind::REFUSED => Outcome::Rejected(Rejection::CannotRun(message)),
            kind => return Err(GuestFault::BadRequest(format!("unknown outcome {kind:#x}"))),
        };
        Ok(Self { outcome, fuel_left: fuel(arguments.fuel_left), memory: arguments.memory, tsc: arguments.tsc })
    }
}

impl HostCall {
    fn decode(arguments: &HostCallArgs, data: impl Fn(usize, usize) -> Result<Vec<u8>, GuestFault>) -> Result<Self, GuestFault> {
        let number = |value: u32| usize::try_from(value).unwrap_or(usize::MAX);
        let count = number(arguments.count);
        if count > MAX_VALUES {
            return Err(GuestFault::BadRequest(format!("a call of the host with {count} arguments")));
        }
        let values = values(&data(0, count * size_of::<RawValue>())?);
        let HostCallArgs { function, fuel_left, memory, .. } = *arguments;
        Ok(Self { function: number(function), arguments: values, fuel_left: fuel(fuel_left), memory })
    }
}

/// The values that lie in these bytes; what is left of the last one is dropped.
pub(crate) fn values(bytes: &[u8]) -> Vec<RawValue> {
    let read = |bytes: &[u8; size_of::<RawValue>()]| RawValue::read_from_bytes(bytes).unwrap_or_default();
    bytes.as_chunks().0.iter().map(read).collect()
}

fn fuel(amount: u64) -> Option<u64> {
    (amount != NO_FUEL).then_some(amount)
}

impl ExitReport {
    pub(crate) fn decode(
        arguments: &ExitArgs,
        data: impl Fn(usize, usize) -> Result<Vec<u8>, GuestFault>,
    ) -> Result<Self, GuestFault> {
        let mut texts = Texts { at: 0, data };
        let message = texts.next(arguments.message_bytes)?;
        let export = texts.next(arguments.export_bytes)?;
        let last_call = texts.next(arguments.last_call_bytes)?;
        let backtrace = texts.backtrace(arguments.backtrace_bytes)?;
        let ending = match arguments.kind {
            exit_kind::EXITED => Ending::Exited(arguments.code),
            exit_kind::TRAPPED => {
                Ending::Trapped(Box::new(Trap { kind: trap_kind(arguments.code)?, message, export, last_call, backtrace }))
            }
            exit_kind::INVALID_MODULE => Ending::Rejected(Rejection::Invalid(message)),
            exit_kind::CANNOT_RUN => Ending::Rejected(Rejection::CannotRun(message)),
            exit_kind::PANIC => Ending::GuestFault(Box::new(GuestFault::Panic(message))),
            exit_kind::OUT_OF_MEMORY => Ending::GuestFault(Box::new(GuestFault::OutOfMemory(message))),
            kind => return Err(GuestFault::BadRequest(format!("unknown end {kind:#x}"))),
        };
        Ok(Self { ending, fuel_used: arguments.fuel_used, tsc: arguments.tsc })
    }
}

/// A guest's text for a terminal: valid UTF-8 without control characters.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let show = |character: char| match character {
        '\n' => "; ".into(),
        character if character.is_control() => character.escape_default().to_string(),
        character => character.to_string(),
    };
    text.trim_end().chars().map(show).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_abi::mailbox::ARGUMENT_BYTES;
    use proptest::prelude::*;

    fn decode(raw: &RawRequest) -> Result<Request, GuestFault> {
        Request::decode(raw, |offset, bytes| {
            assert!(offset + bytes <= DATA_BYTES, "asked beyond the mailbox");
            Ok(vec![b'x'; bytes])
        })
    }

    proptest! {
        #[test]
        fn any_request_is_decoded_or_refused(number in 0u32..32, arguments in prop::array::uniform32(any::<u8>()), more in prop::array::uniform32(any::<u8>())) {
            let mut raw = RawRequest { number, data_bytes: 0, arguments: [0; ARGUMENT_BYTES] };
            raw.arguments[..32].copy_from_slice(&arguments);
            raw.arguments[32..64].copy_from_slice(&more);
            let _ = decode(&raw);
        }

        #[test]
        fn texts_never_reach_beyond_the_mailbox(a in 0..1u32 << 20, b: u32, c: u32) {
            let arguments = ExitArgs { message_bytes: a, export_bytes: b, last_call_bytes: c, ..ExitArgs::default() };
            let fits = u64::from(a) + u64::from(b) + u64::from(c) <= DATA_BYTES as u64;
            prop_assert_eq!(decode(&RawRequest::new(hypercall::EXIT, &arguments, 0)).is_ok(), fits);
        }

        #[test]
        fn printable_text_has_no_control_characters(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(!printable(&bytes).chars().any(char::is_control));
        }
    }

    #[test]
    fn a_ring_without_a_request_is_a_fault() {
        let fault = decode(&RawRequest::new(0, &0u32, 0)).unwrap_err();
        assert!(matches!(fault, GuestFault::BadRequest(_)));
    }
}
