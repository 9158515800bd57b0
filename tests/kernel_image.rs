//! Kernel images: a good one runs, and a bad one is refused before anything of it is loaded.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

use std::process::Command;

use assert_cmd::prelude::*;
use mote_abi::{
    ABI_VERSION,
    layout::{BASE, CHUNK_BYTES, IMAGE, KERNEL_DATA, MODULE, PAGE_BYTES, SYSTEM},
};
use mote_vmm::{ImageError, KernelImage};
use object::elf;
use proptest::prelude::*;

mod support {
    #[allow(dead_code, reason = "shared with other tests")]
    pub(crate) mod guest;
    pub(crate) mod image;
    pub(crate) mod kvm;
    #[allow(dead_code, reason = "shared with other tests")]
    pub(crate) mod verdict;
}

use support::{
    guest, image,
    image::{HEADER_BYTES, Image, PROGRAM_HEADER_BYTES, R, RW, RWX, RX, Segment},
    kvm,
    verdict::Verdict,
};

/// `ud2`, in an image of text, constants and data.
fn good() -> Image {
    let mut image = Image::new(&[0x0f, 0x0b]);
    image.segments.push(Segment::new(R, IMAGE.start + CHUNK_BYTES, b"constants"));
    image.segments.push(Segment { memory_bytes: 2 * PAGE_BYTES, ..Segment::new(RW, KERNEL_DATA.start, b"data") });
    image
}

/// A good image but for what `spoil` does.
fn spoilt(spoil: impl FnOnce(&mut Image)) -> Result<KernelImage, ImageError> {
    let mut image = good();
    spoil(&mut image);
    KernelImage::from_bytes(&image.build())
}

/// The message of a refused segment: its index among the program headers, of which the note is the first, and why.
fn segment_error(spoil: impl FnOnce(&mut Image)) -> (usize, &'static str) {
    match spoilt(spoil) {
        Err(ImageError::Segment { index, what, .. }) => (index, what),
        other => panic!("not refused for a segment: {other:?}"),
    }
}

fn is_malformed(result: &Result<KernelImage, ImageError>) -> bool {
    matches!(result, Err(ImageError::Malformed(_)))
}

#[test]
fn a_good_image_runs() {
    if !kvm::usable() {
        return;
    }
    assert_eq!(guest::run(|a| guest::exit(a, 7)), Verdict::Exited(7));
}

#[test]
fn good_images_are_accepted() {
    assert!(KernelImage::embedded().is_ok());
    assert!(spoilt(|_| {}).is_ok());
    // Nothing but text, entered at its last byte.
    assert!(KernelImage::from_bytes(&Image::new(&[0xf4]).build()).is_ok());
    assert!(spoilt(|image| image.entry += 1).is_ok());
    // Segments that fill their regions, and some that are empty.
    assert!(spoilt(|image| image.segments[1].memory_bytes = IMAGE.end - IMAGE.start - CHUNK_BYTES).is_ok());
    assert!(spoilt(|image| image.segments[2].memory_bytes = KERNEL_DATA.bytes()).is_ok());
    assert!(spoilt(|image| image.segments.push(Segment::new(R, IMAGE.start + 2 * CHUNK_BYTES, &[]))).is_ok());
}

#[test]
fn only_this_version_of_the_contract_is_spoken() {
    for version in [0, ABI_VERSION - 1, ABI_VERSION + 1, u32::MAX] {
        let refused = spoilt(|image| image.version = Some(version));
        assert!(matches!(refused, Err(ImageError::Version { found }) if found == version), "{version}: {refused:?}");
    }
    assert!(matches!(spoilt(|image| image.version = None), Err(ImageError::NoVersion)));
    // A note of the right type with another name, and one with the name and another type.
    let file = good().build();
    let note = HEADER_BYTES + 4 * PROGRAM_HEADER_BYTES;
    for (offset, byte) in [(note + 12, b'M'), (note + 8, 2)] {
        let mut other = file.clone();
        other[offset] = byte;
        assert!(matches!(KernelImage::from_bytes(&other), Err(ImageError::NoVersion)), "{offset}");
    }
}

#[test]
fn only_static_executables_for_this_machine_are_loaded() {
    assert!(is_malformed(&spoilt(|image| image.class = 1)));
    assert!(is_malformed(&spoilt(|image| image.byte_order = 2)));
    assert!(is_malformed(&spoilt(|image| image.machine = elf::EM_AARCH64.0)));
    assert!(is_malformed(&spoilt(|image| image.machine = elf::EM_386.0)));
    for kind in [elf::ET_NONE, elf::ET_REL, elf::ET_DYN, elf::ET_CORE] {
        assert!(is_malformed(&spoilt(|image| image.file_type = kind.0)), "{kind:?}");
    }
    for file in [b"".as_slice(), b"\x7fELF", b"\0asm\x01\0\0\0", b"#!/bin/sh\n", &[0; 4096]] {
        assert!(is_malformed(&KernelImage::from_bytes(file)), "{file:?}");
    }
}

#[test]
fn nothing_is_writable_and_executable() {
    let wrong = "is writable and executable";
    assert_eq!(segment_error(|image| image.segments[0].flags = RWX), (1, wrong));
    assert_eq!(segment_error(|image| image.segments[2].flags = RWX), (3, wrong));
    assert_eq!(segment_error(|image| image.segments[1].flags = RWX & !R), (2, wrong));
}

#[test]
fn every_segment_lies_in_its_region() {
    let text = |address: u64| move |image: &mut Image| image.segments[0] = Segment::new(RX, address, &[0x0f, 0x0b]);
    for address in [0, IMAGE.start - PAGE_BYTES, IMAGE.end, BASE.end - PAGE_BYTES, SYSTEM.start, MODULE.start, 1 << 32, 1 << 47] {
        assert_eq!(segment_error(text(address)), (1, "is not in the image region"), "{address:#x}");
    }
    let one_too_many = IMAGE.end - IMAGE.start - CHUNK_BYTES + 1;
    assert_eq!(segment_error(|image| image.segments[1].memory_bytes = one_too_many), (2, "is not in the image region"));
    for address in [IMAGE.start + 2 * CHUNK_BYTES, KERNEL_DATA.start + PAGE_BYTES, SYSTEM.start, 1 << 47] {
        let data = Segment::new(RW, address, b"data");
        assert_eq!(
            segment_error(|image| image.segments[2] = data),
            (3, "is writable and not at the start of the data region"),
            "{address:#x}"
        );
    }
    let one_too_many = KERNEL_DATA.bytes() + 1;
    assert_eq!(segment_error(|image| image.segments[2].memory_bytes = one_too_many), (3, "does not fit into the data region"));
}

#[test]
fn sizes_and_places_must_make_sense() {
    let overlaps = "overlaps another";
    assert_eq!(segment_error(|image| image.segments[1] = Segment::new(R, IMAGE.start, b"constants")), (2, overlaps));
    assert_eq!(segment_error(|image| image.segments[0].memory_bytes = CHUNK_BYTES + 1), (2, overlaps));
    assert_eq!(segment_error(|image| image.segments.push(image.segments[2].clone())), (4, overlaps));
    for memory_bytes in [0, 1, 8] {
        let refused = segment_error(|image| image.segments[1].memory_bytes = memory_bytes);
        assert_eq!(refused, (2, "is larger in the file than in memory"), "{memory_bytes}");
    }
    let physical = "has a physical address other than its virtual one";
    for address in [0, IMAGE.start + PAGE_BYTES, u64::MAX] {
        assert_eq!(segment_error(|image| image.segments[0].physical_address = address), (1, physical), "{address:#x}");
    }
    let unaligned = |image: &mut Image| image.segments[1] = Segment::new(R, IMAGE.start + CHUNK_BYTES + 8, b"constants");
    assert_eq!(segment_error(unaligned), (2, "does not begin on a page"));
    for memory_bytes in [u64::MAX, u64::MAX - PAGE_BYTES, 0u64.wrapping_sub(IMAGE.start + CHUNK_BYTES)] {
        let refused = segment_error(|image| image.segments[1].memory_bytes = memory_bytes);
        assert_eq!(refused, (2, "overflows the address space"), "{memory_bytes:#x}");
    }
    assert_eq!(segment_error(|image| image.segments[1].memory_bytes = 1 << 40), (2, "is not in the image region"));
}

#[test]
fn contents_lie_in_the_file() {
    let beyond = "lies beyond the end of the file";
    for bytes in [1 << 20, 1 << 40, u64::MAX] {
        let refused = segment_error(|image| image.segments[1].file_bytes = Some(bytes));
        assert_eq!(refused, (2, beyond), "{bytes:#x}");
    }
    for offset in [1 << 20, u64::MAX, u64::MAX - 8] {
        assert_eq!(segment_error(|image| image.segments[1].offset = Some(offset)), (2, beyond), "{offset:#x}");
    }
}

#[test]
fn the_entry_is_text() {
    for entry in [0, IMAGE.start - 1, IMAGE.start + PAGE_BYTES, IMAGE.start + CHUNK_BYTES, KERNEL_DATA.start, u64::MAX] {
        let refused = spoilt(|image| image.entry = entry);
        assert!(matches!(refused, Err(ImageError::Entry { entry: found }) if found == entry), "{entry:#x}: {refused:?}");
    }
    assert!(matches!(spoilt(|image| image.segments.clear()), Err(ImageError::Entry { .. })));
    assert!(matches!(spoilt(|image| image.segments[0].flags = R), Err(ImageError::Entry { .. })));
}

/// Everything is needed but what lies behind the last segment.
#[test]
fn a_truncated_image_is_refused_at_every_length() {
    let file = good().build();
    for length in 0..file.len() {
        let refused = KernelImage::from_bytes(&file[..length]);
        assert!(refused.is_err(), "{length} of {} bytes", file.len());
    }
    assert!(KernelImage::from_bytes(&file).is_ok());
}

/// What the checks promise of any image that passes them, read from the file by other code than theirs.
fn is_harmless(file: &[u8]) -> bool {
    let word = |offset: usize| u64::from_le_bytes(file[offset..offset + 8].try_into().unwrap());
    let half = |offset: usize| u16::from_le_bytes(file[offset..offset + 2].try_into().unwrap());
    let headers = word(32) as usize;
    (0..usize::from(half(56))).map(|index| headers + index * PROGRAM_HEADER_BYTES).all(|at| {
        let (kind, flags) = (word(at) as u32, (word(at) >> 32) as u32);
        let (start, bytes) = (word(at + 16), word(at + 40));
        let in_region = match flags & (RWX & !R) {
            0 => IMAGE.contains_range(start, bytes),
            writable if writable == RW & !R => KERNEL_DATA.contains_range(start, bytes),
            executable if executable == RX & !R => IMAGE.contains_range(start, bytes),
            _ => false,
        };
        kind != elf::PT_LOAD.0 || in_region
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn an_image_with_damaged_headers_is_refused_or_harmless(
        damage in prop::collection::vec((0usize..HEADER_BYTES + 4 * PROGRAM_HEADER_BYTES + 24, any::<u8>()), 1..4),
        length in 0usize..4096,
    ) {
        let mut file = good().build();
        for (offset, byte) in damage {
            file[offset] = byte;
        }
        file.truncate(length.max(1));
        if KernelImage::from_bytes(&file).is_ok() {
            prop_assert!(is_harmless(&file));
        }
    }

    #[test]
    fn words_of_headers_may_be_anything(index in 0usize..4, field in 0usize..7, value in prop_oneof![
        any::<u64>(),
        (0u32..64).prop_map(|shift| 1 << shift),
        (0u64..16).prop_map(|below| u64::MAX - below),
        (0u64..0x1000).prop_map(|page| page * PAGE_BYTES),
    ]) {
        let mut file = good().build();
        let at = HEADER_BYTES + index * PROGRAM_HEADER_BYTES + 8 * field;
        file[at..at + 8].copy_from_slice(&value.to_le_bytes());
        if KernelImage::from_bytes(&file).is_ok() {
            prop_assert!(is_harmless(&file));
        }
    }

    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(KernelImage::from_bytes(&bytes).is_err());
        let with_magic: Vec<u8> = b"\x7fELF\x02\x01\x01".iter().chain(&bytes).copied().collect();
        prop_assert!(KernelImage::from_bytes(&with_magic).is_err());
    }
}

/// The command line says what is wrong, in a line, and runs nothing.
#[test]
fn the_command_line_refuses_a_bad_image() {
    let directory = tempfile::tempdir().unwrap();
    let module = directory.path().join("empty.wasm");
    std::fs::write(&module, b"\0asm\x01\0\0\0").unwrap();
    let kernel = directory.path().join("kernel");
    let mut other_version = good();
    other_version.version = Some(ABI_VERSION + 1);
    let mut executable_data = good();
    executable_data.segments[2].flags = image::RWX;
    for (contents, says) in [
        (Some(b"#!/bin/sh\n".to_vec()), "no complete x86-64 ELF executable"),
        (Some(other_version.build()), "ABI version"),
        (Some(executable_data.build()), "is writable and executable"),
        (Some(good().build()[..200].to_vec()), "no complete x86-64 ELF executable"),
        (None, "cannot read kernel image"),
    ] {
        match &contents {
            Some(contents) => std::fs::write(&kernel, contents).unwrap(),
            None => std::fs::remove_file(&kernel).unwrap(),
        }
        let output = Command::new(env!("CARGO_BIN_EXE_mote")).args(["run", "--kernel"]).arg(&kernel).arg(&module).unwrap_err();
        let output = output.as_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{says}: {stderr}");
        assert!(stderr.starts_with("mote: ") && stderr.contains(says) && stderr.lines().count() == 1, "{says}: {stderr}");
        assert!(output.stdout.is_empty());
    }
}
