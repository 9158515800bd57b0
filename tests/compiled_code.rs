//! Compiled code in a VM: its traps are those of WebAssembly, in their places and with their names; its memories end where they
//! end, also after a restore; its registers are its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the numbers of tests are small")]

mod aot {
    mod bounds;
    mod guests;
    mod modules;
    mod registers;
    mod restores;
    mod stack;
    mod traps;
}
mod support {
    pub(crate) mod kvm;
}
