//! The ELF note by which a kernel image tells which version of this contract it speaks.
//!
//! Format: ELF specification, "Note Section": name size, descriptor size, type, name, descriptor, each padded to four
//! bytes. The descriptor is two 32-bit integers: the version, and one of
//! [`engine`].

/// Owner name of the note, with its terminating NUL.
pub const NOTE_NAME: [u8; 5] = *b"mote\0";
/// Type of the note that holds [`crate::ABI_VERSION`].
pub const NOTE_TYPE_ABI: u32 = 1;

/// Engines that an image can have.
pub mod engine {
    /// It runs modules as they are.
    pub const INTERPRETER: u32 = 0;
    /// It runs what the host compiled.
    pub const COMPILED: u32 = 1;
}

/// The note as it lies in the kernel image's PT_NOTE segment.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct AbiNote {
    name_bytes: u32,
    descriptor_bytes: u32,
    note_type: u32,
    name: [u8; 8],
    version: u32,
    engine: u32,
}

impl AbiNote {
    /// The note for `version`, with one of [`engine`].
    pub const fn new(version: u32, engine: u32) -> Self {
        let [m, o, t, e, nul] = NOTE_NAME;
        Self {
            name_bytes: NOTE_NAME.len() as u32,
            descriptor_bytes: 8,
            note_type: NOTE_TYPE_ABI,
            name: [m, o, t, e, nul, 0, 0, 0],
            version,
            engine,
        }
    }
}

const _: () = assert!(size_of::<AbiNote>() == 28);
