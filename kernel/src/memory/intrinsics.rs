//! `memcpy` and its family, which the compiler calls and a C library would bring.
//!
//! Short lengths take two overlapping loads and stores of one size, as most calls are short and a loop would
//! mispredict; long ones take `rep movsb` and `rep stosb`, which processors since 2012 run at cache-line speed.
//! Intermediate lengths take 16-byte steps. Nothing here may be compiled into a call of itself: loads and stores are
//! explicit, loops step by SSE registers.

use core::arch::{
    asm,
    x86_64::{__m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_set1_epi8, _mm_storeu_si128},
};

/// From here on the string instructions win over 16-byte steps.
const STRING_BYTES: usize = 2048;

/// From here on zeros are not written over memory that is still untouched: half a page of WebAssembly.
const LAZY_BYTES: usize = 32 << 10;

/// C standard, 7.24.2.1.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8 {
    // SAFETY: by the contract of C, `bytes` bytes can be read at `from` and written at `to`, which do not overlap. A
    // forward copy is right for that.
    unsafe {
        match bytes {
            ..=32 => copy_short(to, from, bytes),
            33..STRING_BYTES => copy_steps(to, from, bytes),
            STRING_BYTES.. => {
                asm!("rep movsb", inout("rcx") bytes => _, inout("rdi") to => _, inout("rsi") from => _, options(nostack, preserves_flags))
            }
        }
    }
    to
}

/// C standard, 7.24.2.2.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8 {
    if bytes > 32 && (to as usize).wrapping_sub(from as usize) < bytes {
        // SAFETY: by the contract of C all accesses are in bounds. The destination begins inside the source, so the
        // copy goes from the end to the front: each step reads 16 bytes before it writes them, and writes only over
        // source bytes that were read already; the front is read before the first write.
        unsafe {
            let front = [load(from), load(from.add(16))];
            let mut at = bytes;
            while at > 32 {
                at -= 16;
                store(to.add(at), load(from.add(at)));
            }
            let [first, second] = front;
            store(to.add(16), second);
            store(to, first);
        }
        to
    } else {
        // SAFETY: short copies load all before they store; otherwise the destination lies before the source or apart,
        // for which a forward copy is right.
        unsafe { memcpy(to, from, bytes) }
    }
}

/// C standard, 7.24.6.1.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, bytes: usize) -> *mut u8 {
    let [value, ..] = byte.to_le_bytes(); // as C has it: converted to an unsigned char
    let pattern = u64::from(value).wrapping_mul(0x0101_0101_0101_0101);
    // SAFETY: by the contract of C, `bytes` bytes can be written at `to`; every store below stays within them.
    unsafe {
        match bytes {
            0 => {}
            1..4 => {
                to.write(value);
                to.add(bytes / 2).write(value);
                to.add(bytes - 1).write(value);
            }
            4..8 => {
                to.cast::<u32>().write_unaligned(pattern as u32);
                to.add(bytes - 4).cast::<u32>().write_unaligned(pattern as u32);
            }
            8..16 => {
                to.cast::<u64>().write_unaligned(pattern);
                to.add(bytes - 8).cast::<u64>().write_unaligned(pattern);
            }
            16..STRING_BYTES => {
                let wide = _mm_set1_epi8(value.cast_signed());
                let mut at = 0;
                while at + 64 < bytes {
                    store(to.add(at), wide);
                    store(to.add(at + 16), wide);
                    store(to.add(at + 32), wide);
                    store(to.add(at + 48), wide);
                    at += 64;
                }
                while at + 16 < bytes {
                    store(to.add(at), wide);
                    at += 16;
                }
                store(to.add(bytes - 16), wide);
            }
            LAZY_BYTES.. if value == 0 => super::untouched::for_each_touched(to as u64, bytes as u64, |start, bytes| {
                fill(start as *mut u8, 0, bytes as usize)
            }),
            _ => fill(to, value, bytes),
        }
    }
    to
}

/// # Safety
///
/// The caller may write `bytes` bytes at `to`.
unsafe fn fill(to: *mut u8, value: u8, bytes: usize) {
    // SAFETY: by the contract of this function.
    unsafe {
        asm!("rep stosb", inout("rcx") bytes => _, inout("rdi") to => _, in("al") value, options(nostack, preserves_flags))
    };
}

/// C standard, 7.24.4.1.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, bytes: usize) -> i32 {
    let mut at = 0;
    // SAFETY: by the contract of C, `bytes` bytes can be read at both; every load stays within them.
    unsafe {
        while at + 16 <= bytes {
            let equal = _mm_movemask_epi8(_mm_cmpeq_epi8(load(left.add(at)), load(right.add(at))));
            if equal != 0xffff {
                let differs = at + equal.trailing_ones() as usize;
                return i32::from(left.add(differs).read()) - i32::from(right.add(differs).read());
            }
            at += 16;
        }
        while at < bytes {
            let (l, r) = (left.add(at).read(), right.add(at).read());
            if l != r {
                return i32::from(l) - i32::from(r);
            }
            at += 1;
        }
    }
    0
}

/// As `memcmp`, but only whether there is a difference.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, bytes: usize) -> i32 {
    // SAFETY: the same contract.
    unsafe { memcmp(left, right, bytes) }
}

/// At most 32 bytes: all are loaded before any is stored, so the areas may overlap.
#[inline(always)]
unsafe fn copy_short(to: *mut u8, from: *const u8, bytes: usize) {
    // SAFETY: each pair of accesses covers the first and the last bytes of a length in its range.
    unsafe {
        match bytes {
            0 => {}
            1..4 => {
                let (first, middle, last) = (from.read(), from.add(bytes / 2).read(), from.add(bytes - 1).read());
                to.write(first);
                to.add(bytes / 2).write(middle);
                to.add(bytes - 1).write(last);
            }
            4..8 => {
                let (first, last) = (from.cast::<u32>().read_unaligned(), from.add(bytes - 4).cast::<u32>().read_unaligned());
                to.cast::<u32>().write_unaligned(first);
                to.add(bytes - 4).cast::<u32>().write_unaligned(last);
            }
            8..16 => {
                let (first, last) = (from.cast::<u64>().read_unaligned(), from.add(bytes - 8).cast::<u64>().read_unaligned());
                to.cast::<u64>().write_unaligned(first);
                to.add(bytes - 8).cast::<u64>().write_unaligned(last);
            }
            _ => {
                let (first, last) = (load(from), load(from.add(bytes - 16)));
                store(to, first);
                store(to.add(bytes - 16), last);
            }
        }
    }
}

/// More than 32 bytes, forward. The last 16 bytes are loaded first, so that a destination shortly before the source is
/// right too.
#[inline(always)]
unsafe fn copy_steps(to: *mut u8, from: *const u8, bytes: usize) {
    // SAFETY: `at + 64` and `at + 16` are less than `bytes` in the loops, and the last step covers the last 16 bytes. A
    // step loads all before it stores, so what it overwrites of the source, as in a move downwards, was loaded.
    unsafe {
        let last = load(from.add(bytes - 16));
        let mut at = 0;
        while at + 64 < bytes {
            let (a, b) = (load(from.add(at)), load(from.add(at + 16)));
            let (c, d) = (load(from.add(at + 32)), load(from.add(at + 48)));
            store(to.add(at), a);
            store(to.add(at + 16), b);
            store(to.add(at + 32), c);
            store(to.add(at + 48), d);
            at += 64;
        }
        while at + 16 < bytes {
            store(to.add(at), load(from.add(at)));
            at += 16;
        }
        store(to.add(bytes - 16), last);
    }
}

#[inline(always)]
unsafe fn load(from: *const u8) -> __m128i {
    // SAFETY: the caller may read 16 bytes there; unaligned loads are meant. SSE2 is part of x86-64.
    unsafe { _mm_loadu_si128(from.cast()) }
}

#[inline(always)]
unsafe fn store(to: *mut u8, value: __m128i) {
    // SAFETY: the caller may write 16 bytes there; unaligned stores are meant.
    unsafe { _mm_storeu_si128(to.cast(), value) };
}
