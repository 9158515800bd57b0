//! The guest machine as data: page tables, descriptor tables, exception stubs.
//!
//! Whoever starts the kernel writes these into guest memory: the VMM from outside, a boot stub from inside. So this
//! crate neither allocates nor executes anything privileged; it computes words and hands them to a
//! [`paging::TableMemory`] or returns bytes.

#![no_std]
#![forbid(unsafe_code)]
#![allow(
    clippy::cast_possible_truncation,
    reason = "x86-64 only, where usize has 64 bits; narrower casts are of small constants"
)]

pub mod cpu;
pub mod descriptor;
pub mod names;
pub mod paging;
pub mod space;
pub mod stub;
