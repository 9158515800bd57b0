//! A seed for the kernel's random numbers.

use core::{arch::asm, fmt};

use mote_kernel_logic::boot::options::Options;

use super::{clock::timestamp, cpu};

/// How often an instruction is asked that has nothing at the moment (Intel's guide to digital random numbers: ten for RDRAND; RDSEED
/// can take longer).
const ATTEMPTS: u32 = 1000;

/// 32 bytes, and how good they are.
pub(super) struct Seed {
    pub(super) bytes: [u8; 32],
    /// Somebody who knows when the machine started could guess them.
    pub(super) is_weak: bool,
}

/// No random numbers.
#[derive(Debug)]
pub(super) struct NoRandom;

impl fmt::Display for NoRandom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "this processor gives no random numbers (RDSEED, RDRAND), and programs rely on them; random=weak on the command line \
             takes guessable ones",
        )
    }
}

/// A new seed.
pub(super) fn seed(options: &Options) -> Result<Seed, NoRandom> {
    let (has_seed, has_random) = cpu::random_instructions();
    let of_hardware = has_seed.then(|| words(rdseed)).flatten().or_else(|| has_random.then(|| words(rdrand)).flatten());
    match of_hardware {
        Some(bytes) => Ok(Seed { bytes, is_weak: false }),
        None if options.allows_weak_random => Ok(Seed { bytes: jitter(), is_weak: true }),
        None => Err(NoRandom),
    }
}

fn words(instruction: fn() -> Option<u64>) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    for word in bytes.as_chunks_mut::<8>().0 {
        *word = (0..ATTEMPTS).find_map(|_| instruction())?.to_le_bytes();
    }
    // Some processors gave ones for ever after they slept.
    (bytes != [0xff; 32]).then_some(bytes)
}

fn rdseed() -> Option<u64> {
    let (value, is_valid): (u64, u8);
    // SAFETY: only called where the processor has the instruction; it touches no memory.
    unsafe { asm!("rdseed {}", "setc {}", out(reg) value, out(reg_byte) is_valid, options(nomem, nostack)) };
    (is_valid == 1).then_some(value)
}

fn rdrand() -> Option<u64> {
    let (value, is_valid): (u64, u8);
    // SAFETY: as above.
    unsafe { asm!("rdrand {}", "setc {}", out(reg) value, out(reg_byte) is_valid, options(nomem, nostack)) };
    (is_valid == 1).then_some(value)
}

/// What differs from start to start: when each of many readings of the counter came, mixed by the finalizer of SplitMix64.
fn jitter() -> [u8; 32] {
    let (mut bytes, mut state) = ([0; 32], 0u64);
    for word in bytes.as_chunks_mut::<8>().0 {
        for _ in 0..4096 {
            state = mixed(state.wrapping_add(0x9e37_79b9_7f4a_7c15) ^ timestamp());
        }
        *word = state.to_le_bytes();
    }
    bytes
}

const fn mixed(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}
