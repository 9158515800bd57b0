//! Standard streams.

use mote_abi::{errno::Errno, file::fdflags, ring};

use super::{
    host_file::Shared,
    linear::{IoVec, Linear},
    poll,
    stdin::Stdin,
};
use crate::{
    console,
    guest::{self, BootInfo},
    hypercall,
};

/// Reads standard input; only the first read may block: what came already is not held back for more.
pub(super) fn read(stdin: &mut Stdin, memory: &mut Linear<'_>, vectors: &[IoVec], flags: u16) -> Result<u32, Errno> {
    if flags & fdflags::NONBLOCK != 0 && !poll::stdin_is_ready(stdin) {
        return Err(Errno::Again);
    }
    let mut total = 0u32;
    for vector in vectors {
        if total > 0 && stdin.buffered_bytes() == 0 {
            break;
        }
        let bytes = stdin.read(memory.slice_mut(vector.pointer, vector.bytes)?)? as u32;
        total += bytes;
        if bytes < vector.bytes {
            break;
        }
    }
    Ok(total)
}

/// Writes to a stream whose number among the standard streams is `index`.
pub(super) fn write<'a>(
    files: &mut Shared,
    boot: BootInfo,
    stream: ring::Stream,
    index: u32,
    parts: impl Iterator<Item = &'a [u8]>,
) -> Result<u32, Errno> {
    if guest::is_broken(index) {
        return Err(Errno::Pipe);
    }
    // The module may read the same file.
    if let Some(file) = boot.output_file(index) {
        files.windows.forget(file);
        files.changes += 1;
    }
    let mut total = 0u32;
    for part in parts {
        console::write(stream, part);
        total = total.saturating_add(part.len() as u32);
    }
    if boot.is_prompt() {
        hypercall::drain_output();
    }
    Ok(total)
}
