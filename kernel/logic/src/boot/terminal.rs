//! What stands between a program and a person at a serial terminal: line ends, echo, the end of the input.

/// End of transmission, Ctrl-D.
const END: u8 = 4;
/// What terminals send for the key that deletes.
const DELETE: u8 = 0x7f;
const BACKSPACE: u8 = 8;
/// Longest line: what is typed beyond it is dropped.
const LINE_BYTES: usize = 1024;

/// The line that is typed.
#[derive(Debug, Clone)]
pub struct Terminal {
    line: [u8; LINE_BYTES],
    length: usize,
    /// Bytes of the line that were handed over, once it is complete.
    taken: usize,
    is_complete: bool,
    has_ended: bool,
}

impl Terminal {
    /// Nothing typed.
    pub const fn new() -> Self {
        Self { line: [0; LINE_BYTES], length: 0, taken: 0, is_complete: false, has_ended: false }
    }

    /// Takes a byte that was typed; what it shows goes to `show`.
    pub fn type_byte(&mut self, byte: u8, mut show: impl FnMut(&[u8])) {
        if self.is_ready() {
            return;
        }
        match byte {
            b'\r' | b'\n' => {
                show(b"\r\n");
                self.push(b'\n');
                self.is_complete = true;
            }
            END if self.length == 0 => self.has_ended = true,
            END => self.is_complete = true,
            BACKSPACE | DELETE if self.length > 0 => {
                // A character of several bytes goes as a whole.
                while self.length > 1 && self.line.get(self.length - 1).is_some_and(|byte| byte & 0xc0 == 0x80) {
                    self.length -= 1;
                }
                self.length -= 1;
                show(b"\x08 \x08");
            }
            BACKSPACE | DELETE => {}
            // The last place is for the end of the line.
            byte if self.length < LINE_BYTES - 1 => {
                self.push(byte);
                if byte >= b' ' || byte == b'\t' {
                    show(&[byte]);
                }
            }
            _ => {}
        }
    }

    /// Whether there is something to take, the end included: until then more has to be typed.
    pub fn is_ready(&self) -> bool {
        self.is_complete || self.has_ended
    }

    /// Moves what is ready into `to`; how much. Nothing is the end of the input, for this time.
    pub fn take(&mut self, to: &mut [u8]) -> usize {
        let ready = self.line.get(self.taken..self.length).unwrap_or(&[]);
        let bytes = ready.len().min(to.len());
        to.iter_mut().zip(ready).for_each(|(to, from)| *to = *from);
        self.taken += bytes;
        if self.taken == self.length {
            *self = Self::new();
        }
        bytes
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.line.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        }
    }
}

impl Default for Terminal {
    fn default() -> Self {
        Self::new()
    }
}

/// Calls `send` with pieces of `text` in which each line ends in CR LF.
pub fn with_carriage_returns(text: &[u8], mut send: impl FnMut(&[u8])) {
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_suffix(b"\n") {
            Some(line) => {
                send(line);
                send(b"\r\n");
            }
            None => send(line),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn typed(terminal: &mut Terminal, text: &[u8]) -> Vec<u8> {
        let mut shown = Vec::new();
        text.iter().for_each(|byte| terminal.type_byte(*byte, |text| shown.extend(text)));
        shown
    }

    #[test]
    fn a_line_is_taken_when_it_is_complete() {
        let mut terminal = Terminal::new();
        assert_eq!(typed(&mut terminal, b"ab\x7fc"), b"ab\x08 \x08c");
        assert!(!terminal.is_ready());
        assert_eq!(typed(&mut terminal, b"\r"), b"\r\n");
        let mut buffer = [0; 2];
        assert_eq!((terminal.take(&mut buffer), buffer), (2, *b"ac"));
        assert!(terminal.is_ready());
        assert_eq!((terminal.take(&mut buffer), buffer[0]), (1, b'\n'));
        assert!(!terminal.is_ready());
    }

    #[test]
    fn control_d_ends() {
        let mut terminal = Terminal::new();
        typed(&mut terminal, b"a\x04");
        let mut buffer = [0; 8];
        assert_eq!(terminal.take(&mut buffer), 1);
        typed(&mut terminal, b"\x04");
        assert!(terminal.is_ready());
        assert_eq!(terminal.take(&mut buffer), 0);
        assert!(!terminal.is_ready());
    }

    #[test]
    fn characters_are_deleted_whole() {
        let mut terminal = Terminal::new();
        typed(&mut terminal, "ä€\x7f\x7f\x7fb\n".as_bytes());
        let mut buffer = [0; 8];
        assert_eq!(terminal.take(&mut buffer), 2);
        assert_eq!(&buffer[..2], b"b\n");
    }

    proptest! {
        #[test]
        fn all_that_is_typed_has_room(text: Vec<u8>) {
            let mut terminal = Terminal::new();
            typed(&mut terminal, &text);
            typed(&mut terminal, &[b'x'; 2000]);
            typed(&mut terminal, b"\n");
            prop_assert!(terminal.is_ready());
        }

        #[test]
        fn line_ends(lines in prop::collection::vec("[a-z]{0,5}", 0..5)) {
            let mut sent: Vec<u8> = Vec::new();
            with_carriage_returns(lines.join("\n").as_bytes(), |piece| sent.extend(piece));
            prop_assert_eq!(sent, lines.join("\r\n").into_bytes());
        }
    }
}
