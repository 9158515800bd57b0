//! Where records go, and the end of input comes from: see [`mote_abi::record`].

use mote_abi::record::{Crc32, INPUT_END_MAGIC, InputEnd, Phases, RECORD_MAGIC, RecordHeader, kind};
use mote_kernel_logic::boot::options::{Channel, Options};
use x86_64::instructions::port::Port;
use zerocopy::{FromBytes, IntoBytes};

use super::{console::Line, watchdog::Watchdog};

/// Port of QEMU's debug console.
const DEBUG_CONSOLE: u16 = 0xe9;

/// A channel, or nothing.
pub(super) enum RecordChannel {
    None,
    /// With what came of an [`InputEnd`], and how much.
    Serial(Line, [u8; size_of::<InputEnd>()], usize),
    DebugConsole(Port<u8>),
}

impl RecordChannel {
    /// The channel that the command line asks for; nothing if no UART answers there.
    pub(super) fn open(options: &Options) -> Self {
        match options.record {
            None => Self::None,
            Some(Channel::DebugConsole) => Self::DebugConsole(Port::new(DEBUG_CONSOLE)),
            Some(Channel::Serial(serial)) => match Line::open(serial, Watchdog::new(options.watchdog_s)) {
                Some(line) => Self::Serial(line, [0; size_of::<InputEnd>()], 0),
                None => Self::None,
            },
        }
    }

    /// Whether anything is at its other end, as far as it is known here.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self, Self::None)
    }

    /// Sends the phases of the start.
    pub(super) fn send_phases(&mut self, phases: &Phases) {
        self.send(kind::PHASES, &[phases.as_bytes()]);
    }

    /// Sends a record of these parts.
    pub(super) fn send(&mut self, kind: u32, parts: &[&[u8]]) {
        let payload_bytes = parts.iter().map(|part| part.len()).sum::<usize>() as u32;
        let checksum = parts.iter().fold(Crc32::new(), |checksum, part| checksum.with(part)).finish();
        let header = RecordHeader { magic: RECORD_MAGIC, kind, payload_bytes, checksum, reserved: 0 };
        self.put(header.as_bytes());
        parts.iter().for_each(|part| self.put(part));
        if let Self::Serial(line, ..) = self {
            line.flush();
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        match self {
            Self::None => {}
            Self::Serial(line, ..) => line.send(bytes),
            Self::DebugConsole(port) => {
                for byte in bytes {
                    // SAFETY: the command line says that QEMU's debug console is here.
                    unsafe { port.write(*byte) };
                }
            }
        }
    }

    /// How many bytes of input there are in all, if that was told now.
    pub(super) fn input_end(&mut self) -> Option<u64> {
        let Self::Serial(line, buffer, filled) = self else { return None };
        while let Some(byte) = line.receive() {
            *buffer.get_mut(*filled)? = byte;
            *filled += 1;
            let magic = INPUT_END_MAGIC.len().min(*filled);
            if buffer.get(..magic) != INPUT_END_MAGIC.get(..magic) {
                // Not one; it may begin at this byte.
                *filled = usize::from(INPUT_END_MAGIC.first() == Some(&byte));
                buffer[0] = byte;
            } else if *filled == buffer.len() {
                *filled = 0;
                return InputEnd::read_from_bytes(&*buffer).ok().map(|end| end.total_bytes);
            }
        }
        None
    }
}
