//! Kernels that lie to the library: they serve as a good one does, until a call tells them to misbehave. Whatever they say, the
//! call ends in time with an error that tells what was wrong, and a restore brings the sandbox back.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test fails by panicking"
)]

mod support {
    pub(crate) mod engine;
    #[allow(dead_code, reason = "shared with other tests")]
    pub(crate) mod guest;
    #[allow(dead_code, reason = "shared with other tests")]
    pub(crate) mod image;
    pub(crate) mod kvm;
    #[allow(dead_code, reason = "shared with other tests")]
    pub(crate) mod verdict;
}

mod lying {
    mod doorbell;
    mod exports;
    mod host_calls;
    mod pending;
    mod processor;
    mod returns;
    mod server;
    mod status;
    #[cfg(feature = "compiled")]
    mod vectors;
}
