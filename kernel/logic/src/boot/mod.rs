//! What a loader gives to a kernel that starts without a VMM: documented in docs/boot.md.
//!
//! Nothing here allocates, as it is used before there is a heap. All of it comes from outside: numbers are checked, and what makes no
//! sense is an error that says where.

pub mod acpi;
pub mod artifact;
pub mod bundle;
pub mod command_line;
mod integers;
pub mod loader;
pub mod memory;
pub mod options;
pub mod realtime;
pub mod terminal;
