//! The contract between mote's kernel and whoever runs it.
//!
//! Everything that both sides must agree on is here and nowhere else: the guest's address map ([`layout`]), what the
//! kernel finds at its entry ([`boot`], [`cpu`]) and tells of itself ([`announce`]), the mailbox through which it asks for
//! services ([`mailbox`], [`hypercall`]), what it is told to do with a module that it holds ([`command`], [`value`]), the ring
//! that carries its output ([`ring`]), what it tells where no VMM listens ([`record`]), the error numbers of files and sockets
//! ([`errno`]), and the ELF note that tells which version of all this a kernel image was built for ([`note`]).
//!
//! It is not a place for behaviour: no allocation, no `unsafe`, no policy. All integers are little-endian, as the only
//! machine this runs on is x86-64; all structures are `repr(C)` without implicit padding.

#![no_std]
#![forbid(unsafe_code)]
#![allow(
    clippy::cast_possible_truncation,
    reason = "x86-64 only, where usize has 64 bits; narrower casts are of small constants"
)]

pub mod announce;
pub mod boot;
pub mod command;
pub mod cpu;
pub mod errno;
pub mod file;
pub mod hypercall;
pub mod layout;
pub mod mailbox;
pub mod note;
pub mod record;
pub mod ring;
pub mod value;

/// Version of the contract. Any change that an old kernel or an old VMM would misread gets a new number.
pub const ABI_VERSION: u32 = 5;
