//! The parts of the kernel that need no guest to be tested: pure logic, compiled into the kernel and tested on the host.
//!
//! Nothing here touches the machine: no hypercall, no raw memory.

#![no_std]
#![forbid(unsafe_code)]
#![allow(
    clippy::cast_possible_truncation,
    reason = "x86-64 only, where usize has 64 bits; narrower casts are of small constants"
)]

extern crate alloc;

pub mod boot;
pub mod classes;
pub mod dirent;
pub mod fd;
pub mod large;
pub mod medium;
pub mod number;
pub mod poll;
pub mod ramdisk;
pub mod window;
