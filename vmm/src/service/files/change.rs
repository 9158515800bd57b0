//! Changes of open files: size, space, times, and getting data to the storage.

use std::{num::NonZeroU64, os::fd::AsFd};

use mote_abi::{errno::Errno, hypercall::files::fstflags};
use rustix::fs::{Advice, FallocateFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

use super::{Open, Refusal};
use crate::request::{Change, Times};

pub(super) fn change(open: &Open, change: Change) -> Result<(), Refusal> {
    if let Change::SetTimes(times) = change {
        let writable = match open {
            Open::Directory(directory) => directory.writable,
            Open::File(file) => file.writable,
            Open::Listener(_) | Open::Connection(_) => return Err(Errno::Badf.into()),
        };
        return if writable { Ok(rustix::fs::futimens(open.fd(), &timestamps(times)?)?) } else { Err(Errno::Perm.into()) };
    }
    if let (Change::Sync, Open::Directory(directory)) = (change, open) {
        return Ok(rustix::fs::fsync(&directory.dir)?);
    }
    if let (Change::DataSync, Open::Directory(directory)) = (change, open) {
        return Ok(rustix::fs::fdatasync(&directory.dir)?);
    }
    let file = open.file()?;
    let fd = file.file.as_fd();
    match change {
        Change::SetBytes(_) | Change::Allocate { .. } if !file.writable => Err(Errno::Perm.into()),
        Change::SetBytes(bytes) => Ok(rustix::fs::ftruncate(fd, bytes)?),
        Change::Allocate { offset, bytes } => Ok(rustix::fs::fallocate(fd, FallocateFlags::empty(), offset, bytes)?),
        Change::Advise { offset, bytes, advice } => {
            Ok(rustix::fs::fadvise(fd, offset, NonZeroU64::new(bytes), to_advice(advice)?)?)
        }
        Change::Sync => {
            let synced = rustix::fs::fsync(fd);
            file.take_failure()?;
            Ok(synced?)
        }
        Change::DataSync => {
            let synced = rustix::fs::fdatasync(fd);
            file.take_failure()?;
            Ok(synced?)
        }
        Change::SetTimes(_) => Err(Errno::Inval.into()),
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
