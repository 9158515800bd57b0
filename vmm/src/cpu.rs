//! Features of the processor that guests are told of.

use std::sync::OnceLock;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::Kvm;
use mote_abi::cpu::FEATURES;
use mote_machine::cpu::{self, Register};

use crate::kvm;

/// The features that guests may use, as [`FEATURES`] numbers them: those that this processor has, whose registers the
/// operating system saves, and that KVM gives to guests. KVM is asked once; where VMs run without hardware virtualization it is
/// not, as it leaves out features there that guests do have.
pub(crate) fn features() -> u64 {
    static FEATURES: OnceLock<u64> = OnceLock::new();
    *FEATURES.get_or_init(|| if kvm::is_pvm() { of_processor() } else { of_processor() & of_kvm() })
}

fn of_processor() -> u64 {
    let mut features = 0;
    macro_rules! note {
        ($($name:tt)*) => { $(if std::is_x86_feature_detected!($name) { features |= mote_abi::cpu::bit($name); })* };
    }
    note!(
        "cmpxchg16b" "sse3" "ssse3" "sse4.1" "sse4.2" "popcnt" "avx" "avx2" "fma" "avxvnni" "bmi1" "bmi2" "lzcnt"
        "avx512bitalg" "avx512dq" "avx512f" "avx512vl" "avx512vbmi" "avx512vnni"
    );
    features
}

/// Those that KVM supports. Where there is none, no guest will miss what it might leave out.
fn of_kvm() -> u64 {
    let supported = Kvm::new().and_then(|kvm| kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES));
    supported.map_or(u64::MAX, |leaves| told_by(&leaves))
}

/// The features that these leaves tell of.
fn told_by(leaves: &CpuId) -> u64 {
    cpu::told_by(|function, index, register| {
        let leaf = leaves.as_slice().iter().find(|leaf| leaf.function == function && leaf.index == index);
        leaf.map_or(0, |leaf| match register {
            Register::Eax => leaf.eax,
            Register::Ebx => leaf.ebx,
            Register::Ecx => leaf.ecx,
        })
    })
}

/// What Cranelift calls the features that guests may use.
#[cfg(feature = "compiled")]
pub(crate) fn flags() -> impl Iterator<Item = &'static str> {
    let features = features();
    FEATURES.iter().enumerate().filter(move |(number, _)| features >> number & 1 == 1).map(|(_, feature)| feature.flag)
}

#[cfg(test)]
mod tests {
    use std::arch::x86_64::__cpuid_count;

    use kvm_bindings::kvm_cpuid_entry2;

    use mote_machine::cpu::{BASIC, EXTENDED, PLACES, STATE, STRUCTURED, bits};

    use super::*;

    #[test]
    fn every_feature_of_the_contract_can_be_noted() {
        // A feature that is missing in the macro would never be announced.
        let source = include_str!("cpu.rs");
        for feature in FEATURES {
            assert!(source.contains(&format!("\"{}\"", feature.name)), "{}", feature.name);
        }
    }

    fn of_this_processor() -> Vec<kvm_cpuid_entry2> {
        [(BASIC, 0), (STRUCTURED, 0), (STRUCTURED, 1), (EXTENDED, 0), (STATE, 0)]
            .map(|(function, index)| {
                let leaf = __cpuid_count(function, index);
                let std::arch::x86_64::CpuidResult { eax, ebx, ecx, edx } = leaf;
                kvm_cpuid_entry2 { function, index, eax, ebx, ecx, edx, ..kvm_cpuid_entry2::default() }
            })
            .to_vec()
    }

    /// The standard library looks at the same bits.
    #[test]
    fn leaves_tell_what_is_detected() {
        let leaves = of_this_processor();
        let told = told_by(&CpuId::from_entries(&leaves).unwrap());
        assert_eq!(told & of_processor(), of_processor());
        for (number, place) in PLACES.iter().enumerate() {
            assert_eq!(bits(1 << number, place.function, place.index, place.register), 1 << place.bit);
            assert_eq!(
                PLACES
                    .iter()
                    .filter(|other| {
                        (other.function, other.index, other.register, other.bit)
                            == (place.function, place.index, place.register, place.bit)
                    })
                    .count(),
                1
            );
        }
    }

    #[test]
    fn what_kvm_does_not_support_is_left_out() {
        let all = |change: fn(&mut kvm_cpuid_entry2)| {
            let mut leaves = of_this_processor();
            for leaf in &mut leaves {
                (leaf.eax, leaf.ebx, leaf.ecx) = (u32::MAX, u32::MAX, u32::MAX);
                change(leaf);
            }
            told_by(&CpuId::from_entries(&leaves).unwrap())
        };
        let names = |names: &[&str]| names.iter().fold(0, |bits, name| bits | mote_abi::cpu::bit(name));
        let every = (1 << FEATURES.len()) - 1;
        assert_eq!(all(|_| ()), every);
        let without_bmi = all(|leaf| {
            if leaf.function == STRUCTURED && leaf.index == 0 {
                leaf.ebx &= !(1 << 3 | 1 << 8)
            }
        });
        assert_eq!(without_bmi, every & !names(&["bmi1", "bmi2"]));
        // Registers that are not saved, whatever else is told.
        let without_avx512 = all(|leaf| {
            if leaf.function == STATE {
                leaf.eax = 0b111
            }
        });
        let avx512 = names(&["avx512bitalg", "avx512dq", "avx512f", "avx512vl", "avx512vbmi", "avx512vnni"]);
        assert_eq!(without_avx512, every & !avx512);
        let without_avx = all(|leaf| {
            if leaf.function == STATE {
                leaf.eax = 0b11
            }
        });
        assert_eq!(without_avx, every & !(avx512 | names(&["avx", "avx2", "fma", "avxvnni"])));
        assert_eq!(told_by(&CpuId::from_entries(&[]).unwrap()), 0);
    }
}
