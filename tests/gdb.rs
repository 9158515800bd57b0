//! `mote gdb`, and the library below it: by a small client that speaks GDB's remote protocol, in all that a debugger can ask for and
//! in what none would say; and by GDB itself.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]
#![allow(clippy::cast_possible_truncation, reason = "kernel images of tests are small")]

mod debugging {
    mod client;
    mod ends;
    mod hostile;
    mod machine_code;
    mod memory;
    mod real;
    mod registers;
    mod stops;
    mod unshared;
    mod waiting;
}
mod support {
    pub(crate) mod command;
    pub(crate) mod engine;
    #[allow(dead_code, reason = "shared with other tests")]
    pub(crate) mod guest;
    #[allow(dead_code, reason = "shared with other tests")]
    pub(crate) mod image;
    pub(crate) mod kvm;
    #[allow(dead_code, reason = "shared with other tests")]
    pub(crate) mod verdict;
}
