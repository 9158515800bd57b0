//! Where a processor tells of the features that compiled code may use.

use mote_abi::cpu;

/// A register of `cpuid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Register {
    /// `eax`.
    Eax,
    /// `ebx`.
    Ebx,
    /// `ecx`.
    Ecx,
}

/// Where `cpuid` tells of a feature (AMD64 Architecture Programmer's Manual, volume 3, appendix D).
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Value of `eax` that asks.
    pub function: u32,
    /// Value of `ecx` that asks.
    pub index: u32,
    /// Where the answer has it.
    pub register: Register,
    /// Which bit of that.
    pub bit: u32,
}

/// Function that tells of features first.
pub const BASIC: u32 = 1;
/// Of later ones.
pub const STRUCTURED: u32 = 7;
/// Of those that AMD had first.
pub const EXTENDED: u32 = 0x8000_0001;
/// Of registers to be saved.
pub const STATE: u32 = 0xd;

/// In the order of [`cpu::FEATURES`].
pub const PLACES: [Place; cpu::FEATURES.len()] = {
    const fn place(function: u32, index: u32, register: Register, bit: u32) -> Place {
        Place { function, index, register, bit }
    }
    use Register::{Eax, Ebx, Ecx};
    [
        place(BASIC, 0, Ecx, 0),
        place(BASIC, 0, Ecx, 9),
        place(BASIC, 0, Ecx, 13),
        place(BASIC, 0, Ecx, 19),
        place(BASIC, 0, Ecx, 20),
        place(BASIC, 0, Ecx, 23),
        place(BASIC, 0, Ecx, 28),
        place(STRUCTURED, 0, Ebx, 5),
        place(STRUCTURED, 0, Ebx, 3),
        place(STRUCTURED, 0, Ebx, 8),
        place(BASIC, 0, Ecx, 12),
        place(EXTENDED, 0, Ecx, 5),
        place(STRUCTURED, 0, Ebx, 16),
        place(STRUCTURED, 0, Ebx, 17),
        place(STRUCTURED, 0, Ebx, 31),
        place(STRUCTURED, 0, Ecx, 12),
        place(STRUCTURED, 0, Ecx, 1),
        place(STRUCTURED, 0, Ecx, 11),
        place(STRUCTURED, 1, Eax, 4),
    ]
};

/// The features that a processor tells of, without those whose registers it does not have. `register` gives what `cpuid` answers,
/// by function, index and register.
pub fn told_by(register: impl Fn(u32, u32, Register) -> u32) -> u64 {
    let is_told = |place: &Place| register(place.function, place.index, place.register) >> place.bit & 1 == 1;
    let told = PLACES.iter().enumerate().filter(|(_, place)| is_told(place)).fold(0, |told, (index, _)| told | 1 << index);
    let state = u64::from(register(STATE, 0, Register::Eax));
    let has_state = |feature: u64| cpu::extended_state(needed_state(feature)) & !state == 0;
    (0..cpu::FEATURES.len())
        .map(|index| 1 << index)
        .filter(|bit| told & bit != 0 && has_state(*bit))
        .fold(0, |all, bit| all | bit)
}

/// The feature that brings the registers which a feature needs.
fn needed_state(feature: u64) -> u64 {
    let name = cpu::FEATURES.iter().map(|feature| feature.name).find(|name| cpu::bit(name) == feature).unwrap_or_default();
    match name {
        _ if name.starts_with("avx512") => cpu::bit("avx") | cpu::bit("avx512f"),
        _ if name.starts_with("avx") || name == "fma" => cpu::bit("avx"),
        _ => 0,
    }
}

/// The bits that tell of these features in a register of `cpuid`.
pub fn bits(features: u64, function: u32, index: u32, register: Register) -> u32 {
    let here = |place: &Place| (place.function, place.index, place.register) == (function, index, register);
    let places = PLACES.iter().enumerate().filter(|(number, place)| features >> number & 1 == 1 && here(place));
    places.fold(0, |bits, (_, place)| bits | 1 << place.bit)
}
