//! Kernels made to do harm. Whatever they do, the run ends in time, with the verdict that it deserves, and the host is
//! none the worse for it.
//!
//! Each is a few instructions in an image of its own; none has anything of our kernel. Where flavours of KVM differ in
//! what a processor does, the test names the alternatives.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    missing_docs,
    unreachable_pub,
    reason = "a test fails by panicking, and its modules are nobody's interface"
)]

mod support {
    pub mod guest;
    pub mod image;
    pub mod kvm;
}

mod hostile {
    mod probe;
}
