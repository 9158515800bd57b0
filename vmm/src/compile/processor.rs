//! Which instructions compiled code may use.

use std::{fmt, str::FromStr};

use mote_abi::cpu::FEATURES;
use thiserror::Error;

use crate::cpu;

/// Features of the processor that Cranelift makes use of, as a set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct CpuFeatures(u64);

/// Those of the levels of the x86-64 psABI, each the first so many.
const V2: CpuFeatures = CpuFeatures::first(6);
const V3: CpuFeatures = CpuFeatures::first(12);
const V4: CpuFeatures = CpuFeatures::first(15);

impl CpuFeatures {
    /// None but those that every x86-64 processor has.
    pub const NONE: Self = Self(0);

    const fn first(count: u32) -> Self {
        Self((1 << count) - 1)
    }

    /// Those that this processor has, and its operating system lets programs use.
    pub fn of_host() -> Self {
        Self(cpu::features())
    }

    /// Those of them that guests of this machine may use: KVM may support fewer.
    pub fn of_guests() -> Self {
        Self::from_names(crate::cpu::flags())
    }

    /// Those with such names in Cranelift, as `has_avx2`; names that it does not know are left out.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let bit = |name| FEATURES.iter().position(|feature| feature.flag == name);
        Self(names.into_iter().filter_map(bit).fold(0, |bits, bit| bits | 1 << bit))
    }

    /// Their names in Cranelift.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        FEATURES.iter().enumerate().filter(move |(bit, _)| self.0 >> bit & 1 == 1).map(|(_, feature)| feature.flag)
    }

    /// What is in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in this one and not in the other.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of the other are in this one.
    pub fn contains(self, other: Self) -> bool {
        other.without(self) == Self::NONE
    }

    /// Whether it is none.
    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }
}

/// Without the prefix that all their flags have.
impl fmt::Display for CpuFeatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.names().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{}", name.strip_prefix("has_").unwrap_or(name))?;
        }
        Ok(())
    }
}

/// For which processors code is compiled: this one, or any from some level of the x86-64 psABI on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum TargetCpu {
    /// With what this processor has, as far as guests may use it.
    #[default]
    Native,
    /// Every x86-64 processor.
    X86_64,
    /// With SSE4.2 and POPCNT: since 2009.
    X86_64V2,
    /// With AVX2, BMI2 and FMA: since 2013.
    X86_64V3,
    /// With AVX-512 F, DQ and VL.
    X86_64V4,
}

impl TargetCpu {
    /// All that there are.
    pub const ALL: [Self; 5] = [Self::Native, Self::X86_64, Self::X86_64V2, Self::X86_64V3, Self::X86_64V4];

    /// What the code may use. `native` is what guests of this machine may use.
    pub fn features(self, native: CpuFeatures) -> CpuFeatures {
        match self {
            Self::Native => native,
            Self::X86_64 => CpuFeatures::NONE,
            Self::X86_64V2 => V2,
            Self::X86_64V3 => V3,
            Self::X86_64V4 => V4,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::X86_64 => "x86-64",
            Self::X86_64V2 => "x86-64-v2",
            Self::X86_64V3 => "x86-64-v3",
            Self::X86_64V4 => "x86-64-v4",
        }
    }
}

impl fmt::Display for TargetCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// No target processor.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("there is no target processor {name:?}; take native, x86-64, x86-64-v2, x86-64-v3 or x86-64-v4")]
pub struct UnknownTargetCpu {
    /// What was asked for.
    pub name: String,
}

impl FromStr for TargetCpu {
    type Err = UnknownTargetCpu;

    /// A level can stand without `x86-64-`.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let is_it = |target: &Self| name == target.name() || target.name().strip_prefix("x86-64-") == Some(name);
        Self::ALL.into_iter().find(is_it).ok_or_else(|| UnknownTargetCpu { name: name.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_out_as_they_went_in() {
        for target in TargetCpu::ALL {
            assert_eq!(target.to_string().parse(), Ok(target));
        }
        assert_eq!("v3".parse(), Ok(TargetCpu::X86_64V3));
        assert!("x86-64-v5".parse::<TargetCpu>().is_err());
        assert!("".parse::<TargetCpu>().is_err());
        let host = CpuFeatures::of_host();
        assert_eq!(CpuFeatures::from_names(host.names()), host);
        assert!(host.contains(CpuFeatures::of_guests()));
        assert_eq!(CpuFeatures::from_names(["has_magic"]), CpuFeatures::NONE);
    }

    #[test]
    fn each_level_has_what_the_one_below_has() {
        assert!(V4.contains(V3) && V3.contains(V2) && !V2.contains(V3) && !V3.contains(V4));
        assert_eq!(V2.to_string(), "sse3, ssse3, cmpxchg16b, sse41, sse42, popcnt");
        assert_eq!(V3.without(V2).to_string(), "avx, avx2, bmi1, bmi2, fma, lzcnt");
        assert_eq!(V4.without(V3).to_string(), "avx512f, avx512dq, avx512vl");
        assert_eq!(TargetCpu::Native.features(V2), V2);
        assert!(TargetCpu::X86_64.features(V4).is_empty());
    }
}
