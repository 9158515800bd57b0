//! The command line as words: blanks between them, `"` around what has blanks, `\` before what is taken as it is.
//!
//! Here and in `options` and `loader` what runs once is not inlined: otherwise the image has each of these many times.

use core::fmt;

/// The words of a text.
#[derive(Debug, Clone)]
pub struct Words<'a> {
    rest: &'a [u8],
}

/// A word as it stands in the text, quotes and all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word<'a>(&'a [u8]);

/// The bytes that a word means.
#[derive(Debug, Clone)]
pub struct Bytes<'a> {
    rest: &'a [u8],
}

/// The words of `text`, which ends at its first NUL.
pub fn words(text: &[u8]) -> Words<'_> {
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    Words { rest: text.get(..end).unwrap_or(text) }
}

impl<'a> Iterator for Words<'a> {
    type Item = Word<'a>;

    #[inline(never)]
    fn next(&mut self) -> Option<Word<'a>> {
        let start = self.rest.iter().position(|byte| !is_blank(*byte))?;
        let text = self.rest.get(start..)?;
        let (mut is_quoted, mut is_escaped) = (false, false);
        let end = text.iter().position(|byte| match (is_escaped, byte) {
            (true, _) => {
                is_escaped = false;
                false
            }
            (false, b'\\') => {
                is_escaped = true;
                false
            }
            (false, b'"') => {
                is_quoted = !is_quoted;
                false
            }
            (false, byte) => !is_quoted && is_blank(*byte),
        });
        let (word, rest) = text.split_at_checked(end.unwrap_or(text.len()))?;
        self.rest = rest;
        Some(Word(word))
    }
}

impl<'a> Word<'a> {
    /// The bytes that it means.
    pub fn bytes(self) -> Bytes<'a> {
        Bytes { rest: self.0 }
    }

    /// What stands behind `name` and an equals sign, if the word begins so.
    #[inline(never)]
    pub fn value_of(self, name: &str) -> Option<Bytes<'a>> {
        let mut bytes = self.bytes();
        name.bytes().chain([b'=']).all(|wanted| bytes.next() == Some(wanted)).then_some(bytes)
    }

    /// Whether it means exactly this.
    #[inline(never)]
    pub fn is(self, text: &str) -> bool {
        self.bytes().eq(text.bytes())
    }
}

impl Bytes<'_> {
    /// Whether these bytes are exactly those of `text`.
    #[inline(never)]
    pub fn is(self, text: &str) -> bool {
        self.eq(text.bytes())
    }

    /// The bytes in a buffer; `None` if they do not fit or are no UTF-8.
    #[inline(never)]
    pub fn text(self, buffer: &mut [u8]) -> Option<&str> {
        let mut length = 0;
        for byte in self {
            *buffer.get_mut(length)? = byte;
            length += 1;
        }
        core::str::from_utf8(buffer.get(..length)?).ok()
    }
}

impl Iterator for Bytes<'_> {
    type Item = u8;

    #[inline(never)]
    fn next(&mut self) -> Option<u8> {
        loop {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            match byte {
                b'"' => {}
                // A backslash at the very end means itself.
                b'\\' => match self.rest.split_first() {
                    Some((byte, rest)) => {
                        self.rest = rest;
                        return Some(*byte);
                    }
                    None => return Some(b'\\'),
                },
                byte => return Some(*byte),
            }
        }
    }
}

/// In the words' own bytes, as far as a terminal can show them.
impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 64;
        for byte in self.bytes().take(SHOWN) {
            write!(f, "{}", byte.escape_ascii())?;
        }
        f.write_str(if self.bytes().nth(SHOWN).is_some() { "..." } else { "" })
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::{string::ToString, vec::Vec};

    fn parsed(text: &[u8]) -> Vec<Vec<u8>> {
        words(text).map(|word| word.bytes().collect()).collect()
    }

    proptest! {
        #[test]
        fn quoted_words_come_back(all in prop::collection::vec(prop::collection::vec(1u8.., 0..20), 0..6)) {
            let mut text = Vec::new();
            for word in &all {
                text.push(b'"');
                for byte in word {
                    if matches!(byte, b'"' | b'\\') {
                        text.push(b'\\');
                    }
                    text.push(*byte);
                }
                text.extend(b"\" ");
            }
            prop_assert_eq!(parsed(&text), all);
        }

        #[test]
        fn any_text_has_words(text: Vec<u8>) {
            for word in words(&text) {
                prop_assert!(word.to_string().bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '));
            }
        }
    }

    #[test]
    fn quotes_and_escapes() {
        assert_eq!(parsed(br#" a  b\ c "d e"f "" \" g\"#), [&b"a"[..], b"b c", b"d ef", b"", b"\"", b"g\\"]);
        assert_eq!(parsed(b"a\0b"), [b"a"]);
        assert_eq!(parsed(b"\"open end"), [b"open end"]);
        assert!(parsed(b" \t\n").is_empty());
    }

    #[test]
    fn values_stand_behind_their_names() {
        let word = words(br#""env=A=b c""#).next().unwrap();
        assert!(word.value_of("env").unwrap().is("A=b c"));
        assert!(word.value_of("en").is_none() && word.value_of("env=A=b c").is_none());
        assert!(words(b"exit").next().unwrap().value_of("exit").is_none());
    }
}
