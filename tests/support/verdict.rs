//! The end of a run in a form that tests compare.

use mote_vmm::{Ending, GuestFault};

use super::guest::{self, Assembled};
use iced_x86::code_asm::CodeAssembler;

/// How a run ended, without the texts and registers that are for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Exited(u32),
    DeadlineExceeded,
    Interrupted,
    /// Vector 14, which alone has an address.
    PageFault {
        address: u64,
        error_code: u64,
    },
    Exception {
        vector: u64,
        error_code: u64,
    },
    OutOfMemory,
    BadRequest,
    BadOutput,
    StrayAccess(u64),
    Stopped,
    /// What only a kernel of ours, or a host in trouble, brings about.
    Other(String),
}

/// Bits of a page fault's error code (AMD64 Architecture Programmer's Manual, volume 2, section 8.4.2).
pub(crate) const PRESENT: u64 = 1 << 0;
pub(crate) const WRITE: u64 = 1 << 1;
pub(crate) const USER: u64 = 1 << 2;
pub(crate) const RESERVED: u64 = 1 << 3;
pub(crate) const FETCH: u64 = 1 << 4;

impl Verdict {
    pub(crate) fn of(ending: &Ending) -> Self {
        match ending {
            Ending::Exited(code) => Self::Exited(*code),
            Ending::DeadlineExceeded => Self::DeadlineExceeded,
            Ending::Interrupted => Self::Interrupted,
            Ending::GuestFault(fault) => match fault.as_ref() {
                GuestFault::Exception(it) if it.vector == 14 => {
                    Self::PageFault { address: it.address, error_code: it.error_code }
                }
                GuestFault::Exception(it) => Self::Exception { vector: it.vector, error_code: it.error_code },
                GuestFault::OutOfMemory(_) => Self::OutOfMemory,
                GuestFault::BadRequest(_) => Self::BadRequest,
                GuestFault::BadOutput(_) => Self::BadOutput,
                GuestFault::StrayAccess { address } => Self::StrayAccess(*address),
                GuestFault::Stopped(_) => Self::Stopped,
                GuestFault::Panic(_) => Self::Other(format!("{fault:?}")),
            },
            other => Self::Other(format!("{other:?}")),
        }
    }
}

/// A guest, and the verdicts that it may get: more than one where flavours of KVM differ.
pub(crate) type Row<'a> = (&'a str, fn(&mut CodeAssembler) -> Assembled, &'a [Verdict]);

/// Runs each guest in a VM of its own and tells all that got another verdict.
///
/// # Panics
///
/// If there is one.
pub(crate) fn check(rows: &[Row<'_>]) {
    let judged = rows.iter().map(|(name, code, expected)| (name, guest::run(code), expected));
    let wrong: Vec<_> = judged.filter(|(_, verdict, expected)| !expected.contains(verdict)).collect();
    assert!(wrong.is_empty(), "name, verdict, expected: {wrong:#x?}");
}
