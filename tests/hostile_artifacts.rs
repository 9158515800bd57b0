//! Artifacts that were damaged, and such that somebody made to do harm. Each ends as an error that says so, or as a fault of its
//! own VM, in time; the process goes on, and so do other sandboxes in it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the numbers of tests are small")]

mod artifacts {
    mod damaged;
    mod files;
    mod native;
}
mod support {
    pub(crate) mod kvm;
}
