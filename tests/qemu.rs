//! Modules in machines without this VMM: `mote qemu` and `mote image`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod booted {
    mod debugger;
    mod dry_run;
    mod endings;
    mod images;
    mod kernel;
    mod programs;
    mod real;
    mod refused;
}
mod support {
    pub(crate) mod command;
    pub(crate) mod engine;
    pub(crate) mod kvm;
    pub(crate) mod programs;
    pub(crate) mod qemu;
}
