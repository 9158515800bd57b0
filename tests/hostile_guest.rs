//! Kernels made to do harm. Whatever they do, the run ends in time, with the verdict that it deserves, and the host is
//! none the worse for it.
//!
//! Each is a few instructions in an image of its own; none has anything of our kernel. Where flavours of KVM differ in
//! what a processor does, the test names the alternatives.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test fails by panicking"
)]

mod support {
    pub(crate) mod guest;
    #[allow(dead_code, reason = "shared with other tests")]
    pub(crate) mod image;
    pub(crate) mod kvm;
    pub(crate) mod verdict;
}

mod hostile {
    mod addresses;
    mod announced;
    mod demand;
    mod doorbell;
    mod endless;
    mod files;
    mod instructions;
    mod output;
    mod requests;
}
