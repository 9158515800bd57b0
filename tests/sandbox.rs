//! The library's sandboxes: calls, host functions, limits, states, snapshots, pools; and that none of them leaks anything, to
//! another sandbox, to the next call or to the host.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the numbers of tests are small")]

mod sandboxes {
    mod calls;
    mod guests;
    mod host;
    mod instances;
    mod interrupts;
    mod isolation;
    mod lifecycle;
    mod limits;
    mod memory;
    mod pool;
    mod snapshots;
    mod soak;
    mod state;
    mod streams;
    mod wasi;
}
mod support {
    pub(crate) mod engine;
    pub(crate) mod kvm;
}
