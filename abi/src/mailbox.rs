//! The mailbox: one request of the kernel and its answer.
//!
//! The header page holds a [`Request`] and, behind it, a [`Response`]; [`crate::layout::MAILBOX_DATA`] holds bytes of
//! variable number that belong to either. The kernel writes the request and rings; the host answers before it lets the
//! kernel go on, so one mailbox serves one vCPU and needs no lock.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::layout::{MAILBOX, MAILBOX_DATA};

/// Room for the arguments of a request, and for the results in an answer.
pub const ARGUMENT_BYTES: usize = 96;

/// A request as it lies at the start of the mailbox.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Request {
    /// One of the numbers in [`crate::hypercall`]; the host writes 0 back when it took the request.
    pub number: u32,
    /// Bytes used in the data area.
    pub data_bytes: u32,
    /// The argument structure of the number, then zeros.
    pub arguments: [u8; ARGUMENT_BYTES],
}

/// An answer.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Response {
    /// One of [`crate::hypercall::status`].
    pub status: u32,
    /// Bytes used in the data area.
    pub data_bytes: u32,
    /// The result structure of the number, then zeros.
    pub results: [u8; ARGUMENT_BYTES],
}

/// Address of the [`Request`].
pub const REQUEST: u64 = MAILBOX.start;
/// Address of the [`Response`].
pub const RESPONSE: u64 = MAILBOX.start + size_of::<Request>() as u64;
/// Bytes of the data area.
pub const DATA_BYTES: usize = MAILBOX_DATA.bytes() as usize;

impl Request {
    /// A request with `arguments` in front of zeros; arguments beyond [`ARGUMENT_BYTES`] cannot be, by the assertions
    /// beside the structures.
    pub fn new<T: IntoBytes + Immutable>(number: u32, arguments: &T, data_bytes: u32) -> Self {
        Self { number, data_bytes, arguments: padded(arguments) }
    }

    /// The argument structure at the front.
    pub fn arguments<T: FromBytes>(&self) -> Option<T> {
        T::read_from_prefix(&self.arguments).ok().map(|(arguments, _)| arguments)
    }
}

impl Response {
    /// An answer with `results` in front of zeros.
    pub fn new<T: IntoBytes + Immutable>(status: u32, results: &T, data_bytes: u32) -> Self {
        Self { status, data_bytes, results: padded(results) }
    }

    /// The result structure at the front.
    pub fn results<T: FromBytes>(&self) -> Option<T> {
        T::read_from_prefix(&self.results).ok().map(|(results, _)| results)
    }
}

fn padded<T: IntoBytes + Immutable>(value: &T) -> [u8; ARGUMENT_BYTES] {
    let mut bytes = [0; ARGUMENT_BYTES];
    for (to, from) in bytes.iter_mut().zip(value.as_bytes()) {
        *to = *from;
    }
    bytes
}

const _: () = {
    assert!(size_of::<Request>() == 104 && size_of::<Response>() == 104);
    assert!(RESPONSE + size_of::<Response>() as u64 <= MAILBOX_DATA.start);
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypercall::{WAIT, WaitArgs};

    #[test]
    fn arguments_come_back() {
        let sent = WaitArgs { timeout_ns: 7, interests: 3, reserved: 0 };
        let request = Request::new(WAIT, &sent, 0);
        let got: WaitArgs = request.arguments().unwrap();
        assert_eq!((got.timeout_ns, got.interests), (7, 3));
        assert!(request.arguments[size_of::<WaitArgs>()..].iter().all(|byte| *byte == 0));
    }
}
