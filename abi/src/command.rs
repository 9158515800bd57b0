//! Commands: what a kernel that serves ([`crate::boot::flags::SERVE`]) is told to do.
//!
//! A command is the answer to [`crate::hypercall::RETURN`]: its number stands where an answer has its status, its arguments
//! where an answer has its results, its data in the mailbox. What comes of it is the next `RETURN`.
//!
//! Instances are counted from 0, which is the module that the VM was made with; exports are named by their index in the list
//! that [`EXPORTS`] gives, which stays the same for the life of an instance.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Call an exported function: [`CallArgs`], its arguments as data ([`crate::value::RawValue`]). Payload: the results.
pub const CALL: u32 = 1;
/// List exports: [`ExportsArgs`]. Payload: as many [`ExportHeader`]s with names and types as fit; code: how many exports there
/// are in all.
pub const EXPORTS: u32 = 2;
/// Read an exported global: [`ExportArgs`]. Payload: its value.
pub const GLOBAL_GET: u32 = 3;
/// Set an exported global that is mutable: [`ExportArgs`], the value as data.
pub const GLOBAL_SET: u32 = 4;
/// Tell where an exported memory is: [`ExportArgs`]; the answer is [`crate::hypercall::ReturnArgs::memory`].
pub const MEMORY: u32 = 5;
/// Take the data as the next part of a module: [`StageArgs`].
pub const STAGE: u32 = 6;
/// Instantiate a module that was staged or mapped: [`InstantiateArgs`]. Code: the number of the instance.
pub const INSTANTIATE: u32 = 7;
/// Offer the exports of an instance to the imports of those that come after it: [`RegisterArgs`], the name as data.
pub const REGISTER: u32 = 8;

/// Arguments of [`CALL`].
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CallArgs {
    /// Which instance.
    pub instance: u32,
    /// Which of its exports.
    pub export: u32,
    /// How many arguments.
    pub count: u32,
    /// Zero.
    pub reserved: u32,
    /// Fuel for the call, or [`crate::hypercall::NO_FUEL`].
    pub fuel: u64,
}

/// Arguments of [`EXPORTS`].
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ExportsArgs {
    /// Which instance.
    pub instance: u32,
    /// First export wanted.
    pub from: u32,
}

/// Arguments of commands about one export.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ExportArgs {
    /// Which instance.
    pub instance: u32,
    /// Which of its exports.
    pub export: u32,
}

/// Arguments of [`STAGE`].
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct StageArgs {
    /// Bytes of this part.
    pub bytes: u32,
    /// 1 for the first part: what was staged before is dropped.
    pub first: u32,
    /// Bytes of the whole module.
    pub whole_bytes: u64,
}

/// Arguments of [`INSTANTIATE`].
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct InstantiateArgs {
    /// Fuel for its start function, or [`crate::hypercall::NO_FUEL`].
    pub fuel: u64,
    /// Where in [`crate::layout::MODULE`] the host has mapped the module, if it was not staged.
    pub address: u64,
    /// Bytes of a module that was mapped; 0 for one that was staged.
    pub bytes: u64,
}

/// Arguments of [`REGISTER`].
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RegisterArgs {
    /// Which instance.
    pub instance: u32,
    /// Bytes of the name.
    pub name_bytes: u32,
}

/// In front of each export in the answer to [`EXPORTS`]; the name and the type follow.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ExportHeader {
    /// Bytes of the name.
    pub name_bytes: u32,
    /// Bytes of the type: of a function its signature ([`crate::value::signature`]), of a global or table the letter of its
    /// value type, of a memory or tag nothing.
    pub type_bytes: u32,
    /// One of [`export_kind`].
    pub kind: u32,
    /// 1 for a global that is mutable, and for a memory with 64-bit addresses.
    pub flag: u32,
    /// Least size of a table in elements, of a memory in pages.
    pub minimum: u64,
    /// Largest size of the same, `u64::MAX` for no bound.
    pub maximum: u64,
}

/// Values of [`ExportHeader::kind`].
pub mod export_kind {
    /// A function.
    pub const FUNCTION: u32 = 0;
    /// A table.
    pub const TABLE: u32 = 1;
    /// A linear memory.
    pub const MEMORY: u32 = 2;
    /// A global.
    pub const GLOBAL: u32 = 3;
    /// A tag of exceptions.
    pub const TAG: u32 = 4;
}

const _: () = {
    assert!(size_of::<CallArgs>() == 24 && size_of::<ExportsArgs>() == 8 && size_of::<ExportArgs>() == 8);
    assert!(
        size_of::<InstantiateArgs>() == 24
            && size_of::<StageArgs>() == 16
            && size_of::<RegisterArgs>() == 8
            && size_of::<ExportHeader>() == 32
    );
};
