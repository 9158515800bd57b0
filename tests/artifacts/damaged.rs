//! Damage of every kind, in every place.

use proptest::prelude::*;

use super::files::{Outcome, Witness, good, run, section, sections};
use crate::support::kvm;

fn refused(what: &str, artifact: &[u8]) -> String {
    match run(what, artifact) {
        Outcome::Refused(message) => message,
        other => panic!("{what}: {other:?}"),
    }
}

#[test]
fn a_good_one_runs() {
    if !kvm::usable() {
        return;
    }
    Witness::new().check();
    assert!(matches!(run("good", good()), Outcome::Called(Ok(_))));
}

#[test]
fn one_that_is_cut_off_is_refused_or_faults() {
    if !kvm::usable() {
        return;
    }
    let mut witness = Witness::new();
    let whole = good();
    let ends = sections(whole).into_iter().flat_map(|(_, range)| [range.start, range.start + 1, range.end - 1, range.end]);
    for bytes in ends.chain((0..whole.len()).step_by(997)).filter(|bytes| *bytes < whole.len()) {
        refused(&format!("{bytes} bytes"), &whole[..bytes]);
    }
    witness.check();
    // More than there should be.
    let _any = run("with a tail", &[whole, &[0x90; 5000]].concat());
    witness.check();
}

#[test]
fn other_versions_and_kinds_are_told_so() {
    let change = |at: usize, byte: u8| {
        let mut artifact = good().to_vec();
        assert_ne!(artifact[at], byte);
        artifact[at] = byte;
        artifact
    };
    let engine = section(good(), ".wasmtime.engine").start;
    assert_eq!(&good()[engine + 2..engine + 4], b"48");
    assert!(refused("version", &change(engine + 3, b'9')).contains("wasmtime 49"));
    assert!(refused("version of control characters", &change(engine + 2, 0x1b)).contains("\u{fffd}8"));
    // Flags of the header: a component.
    assert!(refused("component", &change(48, 2)).contains("component"));
    assert!(refused("neither", &change(48, 0)).contains("no module"));
    assert!(refused("machine", &change(18, 183)).contains("architecture"));
}

/// What its header says of the code: nothing that is not in pages of the file is ever executed.
#[test]
fn claims_about_the_code_are_checked() {
    if !kvm::usable() {
        return;
    }
    let mut witness = Witness::new();
    let whole = good();
    let text = section(whole, ".text");
    let headers = section(whole, "section headers");
    let header = headers
        .step_by(64)
        .find(|at| u64::from_le_bytes(whole[at + 24..at + 32].try_into().unwrap()) == text.start as u64 && whole[at + 4] == 1)
        .unwrap();
    let pages = whole.len() / 4096 * 4096;
    for (what, offset, bytes, may_run) in [
        ("everything", 0, pages, true),
        ("nothing", text.start, 0, true),
        ("nothing, at the start", 0, 0, true),
        ("less", text.start, 4096, true),
        ("no page", text.start + 1, 4096, false),
        ("no pages", text.start, 4095, false),
        ("a page more", pages, 4096, false),
        ("behind it", usize::MAX - 4095, 4096, false),
        ("around the end", usize::MAX - 4095, 8192, false),
        ("far more", 0, usize::MAX - 4095, false),
    ] {
        let mut artifact = whole.to_vec();
        artifact[header + 24..header + 32].copy_from_slice(&offset.to_le_bytes());
        artifact[header + 32..header + 40].copy_from_slice(&bytes.to_le_bytes());
        let outcome = run(what, &artifact);
        assert!(may_run || matches!(outcome, Outcome::Refused(_)), "{what}: {outcome:?}");
        witness.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    /// A few bytes changed in one section: any of them, so that small ones are hit as often as large ones.
    #[test]
    fn bytes_that_changed_harm_nobody_else(
        which: prop::sample::Index,
        changes in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..6),
    ) {
        if !kvm::usable() {
            return Ok(());
        }
        let mut artifact = good().to_vec();
        let sections = sections(&artifact);
        let (name, range) = &sections[which.index(sections.len())];
        for (place, change) in &changes {
            artifact[range.start + place.index(range.len())] ^= change;
        }
        let _any = run(name, &artifact);
    }

    /// All of a section is something else.
    #[test]
    fn sections_of_noise_harm_nobody_else(which: prop::sample::Index, seed: u64, fill: Option<u8>) {
        if !kvm::usable() {
            return Ok(());
        }
        let mut artifact = good().to_vec();
        let sections = sections(&artifact);
        let (name, range) = &sections[which.index(sections.len())];
        let mut random = seed | 1;
        for byte in &mut artifact[range.clone()] {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            *byte = fill.unwrap_or((random >> 33) as u8);
        }
        let _any = run(name, &artifact);
    }
}

#[test]
fn a_witness_of_much_damage_is_none_the_worse() {
    if !kvm::usable() {
        return;
    }
    let mut witness = Witness::new();
    let mut random: u64 = 11;
    for _ in 0..60 {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let mut artifact = good().to_vec();
        let text = section(&artifact, ".text");
        artifact[text.start + (random >> 33) as usize % text.len()] ^= (random >> 20) as u8 | 1;
        let _any = run("text", &artifact);
        witness.check();
    }
}
