//! Standard input with a buffer, so that reading it byte by byte does not cost an exit for each.

use alloc::{boxed::Box, vec};
use core::ops::Range;

use mote_abi::errno::Errno;

use crate::{guest::BootInfo, hypercall};

/// How far is read ahead at most.
const BUFFER_BYTES: usize = 64 << 10;

/// What was read ahead.
#[derive(Default)]
pub(super) struct Stdin {
    buffer: Box<[u8]>,
    unread: Range<usize>,
    /// Which input that is of: see [`BootInfo::input_generation`].
    generation: u64,
}

impl Stdin {
    /// Bytes that can be read without asking the host.
    pub(super) fn buffered_bytes(&self) -> usize {
        if self.generation == BootInfo::read().input_generation() { self.unread.len() } else { 0 }
    }

    /// Reads into `target`; 0 bytes mean the end of the stream. Blocks if nothing was read ahead.
    pub(super) fn read(&mut self, target: &mut [u8]) -> Result<usize, Errno> {
        if target.is_empty() {
            return Ok(0);
        }
        if self.buffered_bytes() == 0 {
            if target.len() >= BUFFER_BYTES {
                return hypercall::read_stdin(target);
            }
            if self.buffer.is_empty() {
                self.buffer = vec![0; BUFFER_BYTES].into();
            }
            self.unread = 0..hypercall::read_stdin(&mut self.buffer)?;
            self.generation = BootInfo::read().input_generation();
        }
        let source = self.buffer.get(self.unread.clone()).unwrap_or(&[]);
        let bytes = source.len().min(target.len());
        for (to, from) in target.iter_mut().zip(source) {
            *to = *from;
        }
        self.unread.start += bytes;
        Ok(bytes)
    }
}
