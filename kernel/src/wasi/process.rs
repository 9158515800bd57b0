//! Arguments, environment, random numbers.

use mote_abi::errno::Errno;
use rand_chacha::{
    ChaCha20Rng,
    rand_core::{RngCore, SeedableRng},
};

use super::{Wasi, linear::Linear};
use crate::guest::Strings;

pub(super) fn args_get(wasi: &mut Wasi, memory: &mut Linear<'_>, argv: u32, buffer: u32) -> Result<(), Errno> {
    get(wasi.boot.arguments(), memory, argv, buffer)
}

pub(super) fn args_sizes_get(wasi: &mut Wasi, memory: &mut Linear<'_>, count: u32, bytes: u32) -> Result<(), Errno> {
    sizes_get(wasi.boot.arguments(), memory, count, bytes)
}

pub(super) fn environ_get(wasi: &mut Wasi, memory: &mut Linear<'_>, environ: u32, buffer: u32) -> Result<(), Errno> {
    get(wasi.boot.environment(), memory, environ, buffer)
}

pub(super) fn environ_sizes_get(wasi: &mut Wasi, memory: &mut Linear<'_>, count: u32, bytes: u32) -> Result<(), Errno> {
    sizes_get(wasi.boot.environment(), memory, count, bytes)
}

pub(super) fn random_get(wasi: &mut Wasi, memory: &mut Linear<'_>, buffer: u32, bytes: u32) -> Result<(), Errno> {
    let target = memory.slice_mut(buffer, bytes)?;
    // A copy of this kernel must not draw the same numbers.
    if wasi.boot.seed_generation() != wasi.seed_generation {
        let (seed, generation) = wasi.boot.random_seed();
        (wasi.random, wasi.seed_generation) = (ChaCha20Rng::from_seed(seed), generation);
    }
    wasi.random.fill_bytes(target);
    Ok(())
}

/// Pointers to `pointers`, the strings with their NULs to `buffer`.
fn get(strings: Strings, memory: &mut Linear<'_>, mut pointers: u32, buffer: u32) -> Result<(), Errno> {
    memory.write(buffer, strings.bytes())?;
    let mut at = buffer;
    for string in strings.iter() {
        memory.write_u32(pointers, at)?;
        // Cannot overflow, as the buffer was just written; pointers can.
        at = at.saturating_add(string.len() as u32 + 1);
        pointers = pointers.checked_add(4).ok_or(Errno::Fault)?;
    }
    Ok(())
}

fn sizes_get(strings: Strings, memory: &mut Linear<'_>, count: u32, bytes: u32) -> Result<(), Errno> {
    memory.write_u32(count, strings.count())?;
    memory.write_u32(bytes, strings.bytes().len() as u32)
}
