//! The services that a guest can ask for, one file each.

pub(crate) mod clock;
pub(crate) mod demand;
pub(crate) mod errno;
pub(crate) mod files;
pub(crate) mod output;
mod sockets;
pub(crate) mod stdin;
pub(crate) mod wait;
