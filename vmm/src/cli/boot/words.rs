//! The command line of a kernel that boots by itself (docs/boot.md): words with blanks between them.

use mote_kernel_logic::boot::{command_line::words, options::Options};

use super::super::failure::Failure;

/// Words that are put together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Words(Vec<String>);

impl Words {
    /// Those in a text that somebody wrote, if the kernel will take them. Arguments of the program have another place, so `--` is
    /// refused.
    pub(crate) fn parse(option: &str, text: &str) -> Result<Self, Failure> {
        if let (_, Err(error)) = Options::parse([text.as_bytes(), b""]) {
            return Err(Failure::usage(format!("{option}: {error} (docs/boot.md lists what there is)")));
        }
        let words = split(text);
        match words.iter().any(|word| word == "--") {
            true => Err(Failure::usage(format!("{option}: arguments of the program belong behind MODULE"))),
            false => Ok(Self(words)),
        }
    }

    /// Adds `name`, or `name=value`.
    pub(crate) fn push(&mut self, name: &str, value: Option<&str>) {
        self.0.push(value.map_or_else(|| name.into(), |value| format!("{name}={value}")));
    }

    /// Adds `name=value`, unless a word of that name is there.
    pub(crate) fn push_default(&mut self, name: &str, value: &str) {
        if !self.has(name) {
            self.push(name, Some(value));
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|word| word.split('=').next() == Some(name))
    }

    pub(crate) fn extend(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    /// As text, with the program's arguments.
    pub(crate) fn text(&self, arguments: &[String]) -> String {
        let separator = (!arguments.is_empty()).then_some("--");
        let words = self.0.iter().map(String::as_str).chain(separator).chain(arguments.iter().map(String::as_str));
        words.map(quote).collect::<Vec<_>>().join(" ")
    }
}

/// A word as it is to be written so that it comes back as it was.
fn quote(word: &str) -> String {
    let plain = |character: char| character.is_alphanumeric() || "=-_.,:/@%+".contains(character);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into();
    }
    let escaped =
        word.chars().flat_map(|character| matches!(character, '"' | '\\').then_some('\\').into_iter().chain([character]));
    format!("\"{}\"", escaped.collect::<String>())
}

/// The words of a text, by the kernel's own parser.
fn split(text: &str) -> Vec<String> {
    let word = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    words(text.as_bytes()).map(|found| word(found.bytes().collect())).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_words_stay_readable() {
        let mut words = Words::parse("--cmdline", r#"terminal  "env=A=b c" exit=halt"#).unwrap();
        words.push_default("exit", "poweroff");
        words.push_default("record", "com2");
        assert!(words.has("terminal") && words.has("env") && !words.has("env=A"));
        let text = words.text(&["--".into(), "a \"b\\".into(), String::new()]);
        assert_eq!(text, r#"terminal "env=A=b c" exit=halt record=com2 -- -- "a \"b\\" """#);
    }

    #[test]
    fn what_is_no_command_line_is_refused() {
        for text in ["bogus", "exit=never", "terminal -- b"] {
            assert_eq!(Words::parse("--cmdline", text).unwrap_err().status, 2, "{text}");
        }
        assert_eq!(Words::parse("--cmdline", " \t\n").unwrap(), Words::default());
    }

    proptest! {
        #[test]
        fn what_is_quoted_comes_back(words in prop::collection::vec("[^\0]*|[ \"\\\\a\n-]*", 0..6)) {
            let text = Words::default().text(&words);
            let mut expected = words;
            if !expected.is_empty() {
                expected.insert(0, "--".into());
            }
            prop_assert_eq!(split(&text), expected);
        }
    }
}
