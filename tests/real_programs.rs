//! Real programs with files and sockets, in `mote run` and in `wasmtime run`.
//!
//! Each runs unchanged in both, on fixture directories of their own: standard output, exit status and the files left
//! behind must be the same. `scripts/fetch-programs` brings the programs and wasmtime; without them the tests are skipped,
//! or fail where `MOTE_REQUIRE_PROGRAMS` is set. Programs that have no files are in `differential.rs`.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support {
    pub(crate) mod command;
    pub(crate) mod engine;
    pub(crate) mod kvm;
    pub(crate) mod programs;
}

mod real {
    mod both;
    mod clang;
    mod cpython;
    mod go;
    mod http;
    mod tools;
    mod tree;
}
