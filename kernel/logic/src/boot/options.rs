//! What the words of the command line say: how the machine is used, and what the program is given.

use core::fmt;

use super::command_line::{Bytes, Word, words};

/// The texts in which words stand, one behind the other: that of a bundle, and the loader's.
pub type Texts<'a> = [&'a [u8]; 2];

/// How the machine is used. What the program is given are [`arguments`] and [`values`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Where output goes and input comes from.
    pub console: Option<Serial>,
    /// Whether a person sits at the console.
    pub is_terminal: bool,
    /// Where records go.
    pub record: Option<Channel>,
    /// What is done at the end.
    pub exit: Exit,
    /// Seconds before the machine is reset or the module runs again.
    pub delay_s: u32,
    /// Whether random numbers may be weak.
    pub allows_weak_random: bool,
    /// Seconds after which a watchdog resets the machine.
    pub watchdog_s: Option<u32>,
    /// Fuel for the program.
    pub fuel: Option<u64>,
    /// Bytes that all linear memories together may have.
    pub max_wasm_memory_bytes: Option<u64>,
    /// Most verbose level that is logged: 0 none … 5 trace.
    pub log_level: u32,
}

/// A serial port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serial {
    /// First of its I/O ports.
    pub port: u16,
    /// Bits a second.
    pub baud: u32,
}

/// What carries records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// A serial port.
    Serial(Serial),
    /// QEMU's debug console, which only takes.
    DebugConsole,
}

/// What is done at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The machine is switched off.
    PowerOff,
    /// QEMU ends.
    Debug,
    /// The machine is reset.
    Reboot,
    /// The processor stops.
    Halt,
    /// The module runs again.
    Restart,
}

/// The longest delay, and that before a module that failed again and again runs once more.
pub const MAX_DELAY_S: u32 = 60;
/// Least and most seconds of a watchdog.
const WATCHDOG_S: core::ops::RangeInclusive<u64> = 2..=30;
const DEFAULT_BAUD: u32 = 115_200;
/// Numbers and names are shorter.
const MAX_VALUE_BYTES: usize = 48;

impl Default for Options {
    fn default() -> Self {
        Self {
            console: Some(Serial { port: 0x3f8, baud: DEFAULT_BAUD }),
            is_terminal: false,
            record: None,
            exit: Exit::PowerOff,
            delay_s: 1,
            allows_weak_random: false,
            watchdog_s: None,
            fuel: None,
            max_wasm_memory_bytes: None,
            log_level: 2,
        }
    }
}

/// A word that says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionError<'a> {
    word: Word<'a>,
    /// What it would have to be.
    wanted: &'static str,
}

impl fmt::Display for OptionError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command line: `{}` is {}", self.word, self.wanted)
    }
}

/// The arguments of the program: what stands behind `--`.
pub fn arguments<'a>(texts: Texts<'a>) -> impl Iterator<Item = Word<'a>> + Clone {
    texts.into_iter().flat_map(|text| words(text).skip_while(|word| !word.is("--")).skip(1))
}

/// The values of an option, in their order.
pub fn values<'a>(texts: Texts<'a>, name: &'static str) -> impl Iterator<Item = Bytes<'a>> + Clone {
    options(texts).filter_map(move |word| word.value_of(name))
}

fn options<'a>(texts: Texts<'a>) -> impl Iterator<Item = Word<'a>> + Clone {
    texts.into_iter().flat_map(|text| words(text).take_while(|word| !word.is("--")))
}

impl Options {
    /// What both texts say; the last word about something counts. Stops at the first word that says nothing, with what the words
    /// before it said: so that it is known where to complain.
    #[inline(never)]
    pub fn parse(texts: Texts<'_>) -> (Self, Result<(), OptionError<'_>>) {
        let mut parsed = Self::default();
        for word in options(texts) {
            if let Err(error) = parsed.apply(word) {
                return (parsed, Err(error));
            }
        }
        (parsed, Ok(()))
    }

    #[inline(never)]
    fn apply<'a>(&mut self, word: Word<'a>) -> Result<(), OptionError<'a>> {
        let given = |name| word.value_of(name);
        let wanted = |wanted| OptionError { word, wanted };
        if word.is("terminal") {
            self.is_terminal = true;
        } else if let Some(value) = given("console") {
            self.console =
                serial(value).ok_or(wanted("not `com1` to `com4`, a port as 0x3f8, or `none`, perhaps with `,BAUD`"))?;
        } else if let Some(value) = given("record") {
            self.record = channel(value).ok_or(wanted("not `com1` to `com4`, a port as 0x2f8, `debugcon` or `none`"))?;
        } else if let Some(value) = given("exit") {
            self.exit = exit(value).ok_or(wanted("not `poweroff`, `debug`, `reboot`, `halt` or `restart`"))?;
        } else if let Some(value) = given("delay") {
            let seconds = number(value).filter(|seconds| *seconds <= u64::from(MAX_DELAY_S));
            self.delay_s = seconds.ok_or(wanted("not a number of seconds, 60 at most"))? as u32;
        } else if let Some(value) = given("random") {
            let is_weak = value.clone().is("weak");
            self.allows_weak_random =
                (is_weak || value.is("hardware")).then_some(is_weak).ok_or(wanted("neither `hardware` nor `weak`"))?;
        } else if let Some(value) = given("watchdog") {
            self.watchdog_s = watchdog(value).ok_or(wanted("neither `none` nor `ib700,SECONDS` with 2 to 30 seconds"))?;
        } else if let Some(value) = given("fuel") {
            self.fuel = Some(number(value).ok_or(wanted("not a number"))?);
        } else if let Some(value) = given("max-wasm-memory") {
            self.max_wasm_memory_bytes = Some(size(value).ok_or(wanted("not a size, as 64MiB"))?);
        } else if let Some(value) = given("log") {
            self.log_level = level(value).ok_or(wanted("not `off`, `error`, `warn`, `info`, `debug` or `trace`"))?;
        } else if let Some(value) = given("env") {
            variable(value).ok_or(wanted("not NAME=VALUE"))?;
        } else if given("argv0").or(given("invoke")).is_none() {
            return Err(wanted(
                "no option; those of the kernel are in docs/boot.md, and arguments of the program stand behind `--`",
            ));
        }
        Ok(())
    }
}

fn serial(value: Bytes<'_>) -> Option<Option<Serial>> {
    let mut buffer = [0; MAX_VALUE_BYTES];
    let text = value.text(&mut buffer)?;
    let (port, baud) = match text.split_once(',') {
        Some((port, baud)) => (port, baud.parse().ok().filter(|baud| (50..=4_000_000).contains(baud))?),
        None => (text, DEFAULT_BAUD),
    };
    let port = match port {
        "none" => return Some(None),
        "com1" => 0x3f8,
        "com2" => 0x2f8,
        "com3" => 0x3e8,
        "com4" => 0x2e8,
        // A serial port has eight.
        other => u16::from_str_radix(other.strip_prefix("0x")?, 16).ok().filter(|port| (8..=0xfff8).contains(port))?,
    };
    Some(Some(Serial { port, baud }))
}

fn channel(value: Bytes<'_>) -> Option<Option<Channel>> {
    if value.clone().is("debugcon") {
        return Some(Some(Channel::DebugConsole));
    }
    serial(value).map(|serial| serial.map(Channel::Serial))
}

fn exit(value: Bytes<'_>) -> Option<Exit> {
    let mut buffer = [0; MAX_VALUE_BYTES];
    match value.text(&mut buffer)? {
        "poweroff" => Some(Exit::PowerOff),
        "debug" => Some(Exit::Debug),
        "reboot" => Some(Exit::Reboot),
        "halt" => Some(Exit::Halt),
        "restart" => Some(Exit::Restart),
        _ => None,
    }
}

fn watchdog(value: Bytes<'_>) -> Option<Option<u32>> {
    let mut buffer = [0; MAX_VALUE_BYTES];
    match value.text(&mut buffer)? {
        "none" => Some(None),
        text => {
            let seconds = text.strip_prefix("ib700,")?.parse().ok().filter(|seconds| WATCHDOG_S.contains(seconds))?;
            Some(Some(seconds as u32))
        }
    }
}

fn level(value: Bytes<'_>) -> Option<u32> {
    let mut buffer = [0; MAX_VALUE_BYTES];
    let text = value.text(&mut buffer)?;
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    levels.iter().position(|level| *level == text).map(|level| level as u32)
}

fn number(value: Bytes<'_>) -> Option<u64> {
    let mut buffer = [0; MAX_VALUE_BYTES];
    value.text(&mut buffer)?.parse().ok()
}

fn size(value: Bytes<'_>) -> Option<u64> {
    let mut buffer = [0; MAX_VALUE_BYTES];
    let text = value.text(&mut buffer)?;
    let (digits, unit) = text.split_at(text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len()));
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn variable(mut value: Bytes<'_>) -> Option<()> {
    let name = value.next()?;
    (name != b'=' && value.any(|byte| byte == b'=')).then_some(())
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::{format, string::String, string::ToString, vec::Vec};

    fn parse(text: &str) -> Result<Options, String> {
        let (options, result) = Options::parse([b"", text.as_bytes()]);
        result.map(|()| options).map_err(|error| error.to_string())
    }

    #[test]
    fn each_word_sets_what_it_says() {
        let default = Options::default();
        let com2 = Serial { port: 0x2f8, baud: 9600 };
        for (word, wanted) in [
            ("", default),
            ("terminal", Options { is_terminal: true, ..default }),
            ("console=none", Options { console: None, ..default }),
            ("console=com2,9600", Options { console: Some(com2), ..default }),
            ("console=0x2f8,9600", Options { console: Some(com2), ..default }),
            ("record=com2,9600", Options { record: Some(Channel::Serial(com2)), ..default }),
            ("record=debugcon", Options { record: Some(Channel::DebugConsole), ..default }),
            ("record=debugcon record=none", default),
            ("exit=debug", Options { exit: Exit::Debug, ..default }),
            ("exit=reboot delay=60", Options { exit: Exit::Reboot, delay_s: 60, ..default }),
            ("random=weak", Options { allows_weak_random: true, ..default }),
            ("watchdog=ib700,30", Options { watchdog_s: Some(30), ..default }),
            ("fuel=18446744073709551615", Options { fuel: Some(u64::MAX), ..default }),
            ("max-wasm-memory=64MiB", Options { max_wasm_memory_bytes: Some(64 << 20), ..default }),
            ("log=trace", Options { log_level: 5, ..default }),
            ("env=A=B argv0=x invoke=f -- bogus", default),
        ] {
            assert_eq!(parse(word), Ok(wanted), "{word}");
        }
    }

    #[test]
    fn words_that_say_nothing_are_refused() {
        for word in [
            "bogus",
            "console=",
            "console=com5",
            "console=com1,1",
            "console=0x1",
            "record=x",
            "exit=never",
            "delay=61",
            "random=",
            "watchdog=ib700,31",
            "fuel=-1",
            "max-wasm-memory=1TB",
            "max-wasm-memory=99999999999GiB",
            "log=loud",
            "env=A",
            "env==B",
            "terminal=",
        ] {
            let message = parse(word).unwrap_err();
            assert!(message.starts_with(&format!("command line: `{word}` is ")), "{message}");
        }
        assert_eq!(Options::parse([b"exit=debug", b"bogus"]).0.exit, Exit::Debug);
    }

    #[test]
    fn both_texts_have_options_and_arguments() {
        let texts: Texts<'_> = [b"env=A=1 -- one \"two three\"", b"env=B=2 -- four"];
        let bytes = |bytes: Bytes<'_>| bytes.collect::<Vec<_>>();
        let all: Vec<_> = arguments(texts).map(|word| bytes(word.bytes())).collect();
        assert_eq!(all, [&b"one"[..], b"two three", b"four"]);
        let all: Vec<_> = values(texts, "env").map(bytes).collect();
        assert_eq!(all, [b"A=1", b"B=2"]);
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(one: Vec<u8>, other: Vec<u8>) {
            let (_, result) = Options::parse([&one, &other]);
            if let Err(error) = result {
                prop_assert!(error.to_string().len() < 500);
            }
        }
    }
}
