//! Changes of open files: size, space, times, and getting data to the storage.

use std::{fs::File, num::NonZeroU64, os::fd::BorrowedFd};

use mote_abi::{errno::Errno, hypercall::files::fstflags};
use rustix::fs::{Advice, FallocateFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

use super::{Open, OpenFile, Refusal};
use crate::request::{Change, Times};

pub(super) fn change(open: &Open, change: Change) -> Result<(), Refusal> {
    match change {
        Change::SetTimes(times) => {
            match open {
                Open::Directory(directory) => directory.check_writable()?,
                _ => {
                    writable(open)?;
                }
            }
            Ok(rustix::fs::futimens(open.fd(), &timestamps(times)?)?)
        }
        Change::Sync => sync(open, rustix::fs::fsync),
        Change::DataSync => sync(open, rustix::fs::fdatasync),
        Change::SetBytes(bytes) => Ok(rustix::fs::ftruncate(writable(open)?, bytes)?),
        Change::Allocate { offset, bytes } => Ok(rustix::fs::fallocate(writable(open)?, FallocateFlags::empty(), offset, bytes)?),
        Change::Advise { offset, bytes, advice } => {
            Ok(rustix::fs::fadvise(&open.file()?.file, offset, NonZeroU64::new(bytes), to_advice(advice)?)?)
        }
    }
}

/// The file, if it may be changed.
fn writable(open: &Open) -> Result<&File, Errno> {
    let OpenFile { file, writable, .. } = open.file()?;
    if *writable { Ok(file) } else { Err(Errno::Perm) }
}

/// Gets a file or a directory to the storage, and tells what a posted write met.
fn sync<'a>(open: &'a Open, how: fn(BorrowedFd<'a>) -> rustix::io::Result<()>) -> Result<(), Refusal> {
    match open {
        Open::Directory(_) => Ok(how(open.fd())?),
        _ => {
            let file = open.file()?;
            let synced = how(open.fd());
            file.take_failure()?;
            Ok(synced?)
        }
    }
}

/// witx `advice`.
fn to_advice(number: u32) -> Result<Advice, Errno> {
    Ok(match number {
        0 => Advice::Normal,
        1 => Advice::Sequential,
        2 => Advice::Random,
        3 => Advice::WillNeed,
        4 => Advice::DontNeed,
        5 => Advice::NoReuse,
        _ => return Err(Errno::Inval),
    })
}

/// What utimensat(2) wants.
pub(super) fn timestamps(times: Times) -> Result<Timestamps, Errno> {
    let asked = |flag: u32| times.which & flag != 0;
    let one = |set: bool, now: bool, time_ns: u64| match (set, now) {
        (true, true) => Err(Errno::Inval),
        (true, false) => timespec(time_ns),
        (false, true) => Ok(Timespec { tv_sec: 0, tv_nsec: UTIME_NOW }),
        (false, false) => Ok(Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }),
    };
    Ok(Timestamps {
        last_access: one(asked(fstflags::ATIM), asked(fstflags::ATIM_NOW), times.accessed_ns)?,
        last_modification: one(asked(fstflags::MTIM), asked(fstflags::MTIM_NOW), times.modified_ns)?,
    })
}

fn timespec(time_ns: u64) -> Result<Timespec, Errno> {
    const SECOND_NS: u64 = 1_000_000_000;
    let seconds = i64::try_from(time_ns / SECOND_NS).map_err(|_| Errno::Overflow)?;
    let nanoseconds = i64::try_from(time_ns % SECOND_NS).map_err(|_| Errno::Overflow)?;
    Ok(Timespec { tv_sec: seconds, tv_nsec: nanoseconds })
}
