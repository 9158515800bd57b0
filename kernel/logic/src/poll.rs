//! Subscriptions and events of `poll_oneoff`, in their layout in linear memory (witx: `subscription`, `event`).

/// Bytes of a subscription.
pub const SUBSCRIPTION_BYTES: usize = 48;
/// Bytes of an event.
pub const EVENT_BYTES: usize = 32;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// A time on a clock.
    Clock {
        /// witx `clockid`.
        id: u32,
        /// Nanoseconds.
        timeout_ns: u64,
        /// Whether the timeout is a time of that clock; else it counts from now.
        absolute: bool,
    },
    /// A descriptor can be read.
    Read(u32),
    /// A descriptor can be written.
    Write(u32),
}

/// One thing to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscription {
    /// Given back in the event.
    pub userdata: u64,
    /// What for.
    pub interest: Interest,
}

impl Subscription {
    /// Reads a subscription; `None` if its tag or flags are none that exist.
    pub fn decode(bytes: &[u8; SUBSCRIPTION_BYTES]) -> Option<Self> {
        let word = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
        let long = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        let [tag, flags_low, flags_high] = [8, 40, 41].map(|at: usize| bytes.get(at).copied().unwrap_or(u8::MAX));
        let interest = match tag {
            0 if flags_low <= 1 && flags_high == 0 => {
                Interest::Clock { id: word(16)?, timeout_ns: long(24)?, absolute: flags_low == 1 }
            }
            1 => Interest::Read(word(16)?),
            2 => Interest::Write(word(16)?),
            _ => return None,
        };
        Some(Self { userdata: long(0)?, interest })
    }
}

/// One thing that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// That of the subscription.
    pub userdata: u64,
    /// witx `errno`, 0 for success.
    pub errno: u16,
    /// witx `eventtype`: 0 clock, 1 read, 2 write.
    pub kind: u8,
    /// Bytes that can be read or written, for descriptors.
    pub available_bytes: u64,
    /// Whether the other end is closed.
    pub hangup: bool,
}

impl Event {
    /// The event as it lies in memory.
    pub fn encode(&self) -> [u8; EVENT_BYTES] {
        let mut bytes = [0; EVENT_BYTES];
        let fields: [(usize, &[u8]); 5] = [
            (0, &self.userdata.to_le_bytes()),
            (8, &self.errno.to_le_bytes()),
            (10, &[self.kind]),
            (16, &self.available_bytes.to_le_bytes()),
            (24, &[u8::from(self.hangup)]),
        ];
        for (at, field) in fields {
            for (to, from) in bytes.iter_mut().skip(at).zip(field) {
                *to = *from;
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_decode_or_not(bytes in prop::array::uniform32(any::<u8>()), rest in prop::array::uniform16(any::<u8>())) {
            let mut whole = [0; SUBSCRIPTION_BYTES];
            whole[..32].copy_from_slice(&bytes);
            whole[32..].copy_from_slice(&rest);
            if let Some(subscription) = Subscription::decode(&whole) {
                prop_assert_eq!(&subscription.userdata.to_le_bytes()[..], &whole[..8]);
                prop_assert!(whole[8] <= 2);
            }
        }
    }

    #[test]
    fn a_clock_subscription_decodes() {
        let mut bytes = [0; SUBSCRIPTION_BYTES];
        bytes[0] = 7;
        bytes[16] = 1;
        bytes[24..32].copy_from_slice(&500u64.to_le_bytes());
        bytes[40] = 1;
        let interest = Interest::Clock { id: 1, timeout_ns: 500, absolute: true };
        assert_eq!(Subscription::decode(&bytes), Some(Subscription { userdata: 7, interest }));
        bytes[40] = 2;
        assert_eq!(Subscription::decode(&bytes), None);
        bytes[8] = 3;
        assert_eq!(Subscription::decode(&bytes), None);
    }

    #[test]
    fn an_event_encodes() {
        let event = Event { userdata: 1, errno: 8, kind: 1, available_bytes: 3, hangup: true };
        let bytes = event.encode();
        assert_eq!((bytes[0], bytes[8], bytes[10], bytes[16], bytes[24]), (1, 8, 1, 3, 1));
    }
}
