//! Snapshot files: what is saved comes back, in this process and in others; what is damaged, forged or changed while it is in
//! use is an error, and never more than that.

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
    pub(crate) mod kvm;
}

mod saved {
    mod changed;
    mod damaged;
    mod forged;
    mod forgery;
    mod pages;
    mod programs;
    mod round_trips;
}
