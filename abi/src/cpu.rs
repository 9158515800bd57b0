//! Features of the processor that compiled code may use, beyond those that every x86-64 has.
//!
//! The kernel never executes `cpuid`: the boot information has a bit for each ([`crate::boot::BootInfo::cpu_features`]).

/// A feature: its name in Rust and in wasmtime, and that of Cranelift's setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature {
    /// As in `is_x86_feature_detected!`.
    pub name: &'static str,
    /// Cranelift's flag for x86-64.
    pub flag: &'static str,
}

const fn feature(name: &'static str, flag: &'static str) -> Feature {
    Feature { name, flag }
}

/// All features that can be announced; the place in this list is the number of the bit. Those of each level of the x86-64 psABI
/// stand before those of the next.
pub const FEATURES: [Feature; 19] = [
    feature("sse3", "has_sse3"),
    feature("ssse3", "has_ssse3"),
    feature("cmpxchg16b", "has_cmpxchg16b"),
    feature("sse4.1", "has_sse41"),
    feature("sse4.2", "has_sse42"),
    feature("popcnt", "has_popcnt"),
    feature("avx", "has_avx"),
    feature("avx2", "has_avx2"),
    feature("bmi1", "has_bmi1"),
    feature("bmi2", "has_bmi2"),
    feature("fma", "has_fma"),
    feature("lzcnt", "has_lzcnt"),
    feature("avx512f", "has_avx512f"),
    feature("avx512dq", "has_avx512dq"),
    feature("avx512vl", "has_avx512vl"),
    feature("avx512bitalg", "has_avx512bitalg"),
    feature("avx512vbmi", "has_avx512vbmi"),
    feature("avx512vnni", "has_avx512vnni"),
    feature("avxvnni", "has_avx_vnni"),
];

/// The bit of a feature by its name; 0 for one that is not in the list.
pub fn bit(name: &str) -> u64 {
    FEATURES.iter().position(|feature| feature.name == name).map_or(0, |index| 1 << index)
}

/// Extended state that the processor saves for code with these features (XCR0; AMD64 Architecture Programmer's Manual, volume 2,
/// section 11.5.2): x87, SSE, and with AVX the upper halves, with AVX-512 masks and the other registers.
pub fn extended_state(features: u64) -> u64 {
    const X87_SSE: u64 = 0b11;
    const AVX: u64 = 1 << 2;
    const AVX512: u64 = 0b111 << 5;
    let has = |name| features & bit(name) != 0;
    X87_SSE | if has("avx") { AVX } else { 0 } | if has("avx512f") { AVX512 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_others_are_not() {
        for (index, feature) in FEATURES.iter().enumerate() {
            assert_eq!(bit(feature.name), 1 << index);
        }
        assert_eq!(bit("amx"), 0);
        assert_eq!(extended_state(0), 3);
        assert_eq!(extended_state(bit("avx") | bit("avx512f")), 0xe7);
    }
}
