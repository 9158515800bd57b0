//! The console: a 16550 UART, with a person or a program at its other end.

use core::fmt;

use mote_kernel_logic::boot::{
    options::{Options, Serial},
    terminal::{Terminal, with_carriage_returns},
};
use uart_16550::{BaudRate, Config, Uart16550, backend::PioBackend, spec::registers::LSR};

use super::watchdog::Watchdog;

/// How often a transmitter is asked, before anything is sent, that does not get ready: some seconds, in which the slowest line sends what
/// firmware left in it.
const PATIENCE: u32 = 8 << 20;

/// A serial line.
pub(super) struct Line {
    uart: Uart16550<PioBackend>,
    /// Who is fed whenever the line takes something.
    watchdog: Watchdog,
}

impl Line {
    /// Sets a port up; `None` where no UART answers, or one that does not send, or for a rate that it cannot have.
    pub(super) fn open(serial: Serial, watchdog: Watchdog) -> Option<Self> {
        // SAFETY: in ring 0 every port can be used, and the command line says that a UART is here. Only its status is read before
        // `init`, which writes to the scratch register first, and to no other if that keeps nothing.
        let mut uart = unsafe { Uart16550::new_port(serial.port) }.ok()?;
        let config = Config { baud_rate: BaudRate::from_integer(serial.baud), ..Config::DEFAULT };
        // `init` waits for that without a bound. Where there is no UART, ones are read.
        (0..PATIENCE).find(|_| uart.lsr().contains(LSR::TRANSMITTER_EMPTY))?;
        uart.init(config).ok()?;
        Some(Self { uart, watchdog })
    }

    /// Sends all of it. A line sends whether anybody listens or not; where one is emulated and its reader is slow, that is waited for.
    pub(super) fn send(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let sent = self.uart.send_bytes(bytes);
            bytes = bytes.get(sent..).unwrap_or(&[]);
            if sent > 0 {
                self.watchdog.feed();
            } else {
                core::hint::spin_loop();
            }
        }
    }

    /// A byte that came, if one did.
    pub(super) fn receive(&mut self) -> Option<u8> {
        self.uart.try_receive_byte().ok()
    }

    /// Waits until all is on the wire: what is in the device is lost when the machine is switched off.
    pub(super) fn flush(&mut self) {
        while !self.uart.lsr().contains(LSR::TRANSMITTER_EMPTY) {
            core::hint::spin_loop();
        }
    }
}

/// A line, or nothing, and how what goes through it is treated.
pub(super) struct Console {
    line: Option<Line>,
    terminal: Option<Terminal>,
    /// Bytes of input that came, ever.
    received: u64,
    /// How many there are, once somebody told.
    pub(super) total: Option<u64>,
    /// A byte that came and was not taken.
    next: Option<u8>,
}

impl Console {
    pub(super) const fn none() -> Self {
        Self { line: None, terminal: None, received: 0, total: None, next: None }
    }

    /// The console of these options; nothing if no UART answers.
    pub(super) fn open(options: &Options) -> Self {
        let line = options.console.and_then(|serial| Line::open(serial, Watchdog::new(options.watchdog_s)));
        Self { line, terminal: options.is_terminal.then(Terminal::new), ..Self::none() }
    }

    /// Whether a person sits there.
    pub(super) fn is_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// Writes what the program prints.
    pub(super) fn write(&mut self, text: &[u8]) {
        let Some(line) = &mut self.line else { return };
        match self.terminal {
            Some(_) => with_carriage_returns(text, |piece| line.send(piece)),
            None => line.send(text),
        }
    }

    /// Writes a line of mote's own.
    pub(super) fn line(&mut self, text: fmt::Arguments<'_>) {
        // Writing to a serial line does not fail.
        let _always_ok = fmt::write(self, format_args!("mote: {text}\n"));
    }

    /// What a reader of standard input finds at this moment.
    pub(super) fn poll(&mut self) -> Input {
        let Some(line) = &mut self.line else { return Input::Ended };
        if let Some(terminal) = &mut self.terminal {
            while !terminal.is_ready() {
                let Some(byte) = line.receive() else {
                    // Where a machine types, it can say that it has done.
                    return if self.total.is_some_and(|total| self.received >= total) { Input::Ended } else { Input::Nothing };
                };
                self.received += 1;
                terminal.type_byte(byte, |text| line.send(text));
            }
            return Input::Ready;
        }
        if self.next.is_none() {
            self.next = line.receive();
            self.received += u64::from(self.next.is_some());
        }
        match self.next {
            Some(_) => Input::Ready,
            None if self.total.is_some_and(|total| self.received >= total) => Input::Ended,
            None => Input::Nothing,
        }
    }

    /// Takes what is there, at most as much as `to` has room for; nothing at the end of the input.
    pub(super) fn take(&mut self, to: &mut [u8]) -> usize {
        if let Some(terminal) = &mut self.terminal {
            return terminal.take(to);
        }
        let mut bytes = 0;
        while let Some(place) = to.get_mut(bytes)
            && self.poll() == Input::Ready
            && let Some(byte) = self.next.take()
        {
            *place = byte;
            bytes += 1;
        }
        bytes
    }

    /// See [`Line::flush`].
    pub(super) fn flush(&mut self) {
        if let Some(line) = &mut self.line {
            line.flush();
        }
    }
}

/// What a reader finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// Nothing yet.
    Nothing,
    /// Something.
    Ready,
    /// The end.
    Ended,
}

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.write(text.as_bytes());
        Ok(())
    }
}
