//! How far it is: functions that Cranelift is done with, of those that the module has.

use std::{
    any::Any,
    io::Write,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use cranelift_codegen::timing::{self, Pass, Profiler};

use crate::protocol::PROGRESS;

/// Lines that are written at most, but for one.
const STEPS: u64 = 200;
/// The section with the bodies of functions (WebAssembly specification, 5.5.2).
const CODE_SECTION: u8 = 10;
/// Magic number and version.
const PREAMBLE_BYTES: usize = 8;

static COMPILED: AtomicU64 = AtomicU64::new(0);
static TOTAL: AtomicU64 = AtomicU64::new(0);

struct Counter;

impl Profiler for Counter {
    fn start_pass(&self, pass: Pass) -> Box<dyn Any> {
        if pass == Pass::vcode_emit {
            count();
        }
        Box::new(())
    }
}

/// Counts what the calling thread compiles.
pub(crate) fn watch_thread() {
    let _default = timing::set_thread_profiler(Box::new(Counter));
}

/// From here on, lines are written about this module.
pub(crate) fn begin(module: &[u8]) {
    let total = functions(module).unwrap_or(0);
    TOTAL.store(total.into(), Relaxed);
    tell(0, total.into());
}

fn count() {
    let (compiled, total) = (COMPILED.fetch_add(1, Relaxed) + 1, TOTAL.load(Relaxed));
    if compiled.is_multiple_of(total / STEPS + 1) && compiled <= total {
        tell(compiled, total);
    }
}

fn tell(compiled: u64, total: u64) {
    // In one write, so that lines of two threads do not mix. Nobody may be there to read it.
    let _written = std::io::stderr().write_all(format!("{PROGRESS}{compiled} {total}\n").as_bytes());
}

/// Functions that a module has bodies of, if it is as it should be up to there.
fn functions(module: &[u8]) -> Option<u32> {
    let mut rest = module.get(PREAMBLE_BYTES..)?;
    loop {
        let (id, after) = rest.split_first()?;
        let (bytes, contents) = leb128(after)?;
        if *id == CODE_SECTION {
            return leb128(contents).map(|(count, _)| count);
        }
        rest = contents.get(usize::try_from(bytes).ok()?..)?;
    }
}

/// An unsigned number of 32 bits, and what follows it.
fn leb128(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate().take(5) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((u32::try_from(value).ok()?, bytes.get(index + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_counted_in_what_is_a_module_and_in_what_is_none() {
        let module = wat::parse_str("(module (memory 1) (func) (func) (func (call 0)))").unwrap();
        assert_eq!(functions(&module), Some(3));
        let without = wat::parse_str("(module (memory 1))").unwrap();
        assert_eq!(functions(&without), None);
        for bytes in 0..module.len() {
            let _none = functions(&module[..bytes]);
        }
        assert_eq!(functions(b"\0asm\x01\0\0\0\x01\xff\xff\xff\xff\x0f"), None);
        assert_eq!(functions(b"\0asm\x01\0\0\0\x01\xff\xff\xff\xff\x7f\0"), None);
    }

    #[test]
    fn numbers_are_read_as_the_specification_says() {
        assert_eq!(leb128(&[0xe5, 0x8e, 0x26, 7]), Some((624_485, &[7][..])));
        assert_eq!(leb128(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Some((u32::MAX, &[][..])));
        assert_eq!(leb128(&[0xff, 0xff, 0xff, 0xff, 0x1f]), None);
        assert_eq!(leb128(&[0x80; 9]), None);
        assert_eq!(leb128(&[0x80]), None);
    }
}
