//! The services that a guest can ask for, one file each.

pub(crate) mod clock;
pub(crate) mod demand;
pub(crate) mod output;
pub(crate) mod stdin;
