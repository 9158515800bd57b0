//! Listing directories in batches.
//!
//! A cookie is where the host's file system continues (getdents64(2), `d_off`), so it stays good whatever is added or removed
//! between two batches. `.` and `..` are left to the guest's kernel.

use std::mem::MaybeUninit;

use mote_abi::{
    errno::Errno,
    hypercall::{files::TransferResult, status},
    mailbox::Response,
};
use rustix::fs::{AtFlags, FileType, RawDir, SeekFrom};
use vm_memory::{Bytes, GuestMemoryMmap};

use super::{Directory, Refusal, type_of};
use crate::request::Transfer;

/// Bytes of a witx `dirent` without its name: next cookie, inode, length of the name, type, padding.
const DIRENT_BYTES: usize = 24;
/// How much is taken from the host at once: a name takes less room there than in the answer.
const HOST_BYTES: usize = 16 << 10;

/// Entries from cookie `transfer.offset` on, as many whole ones as fit.
pub(super) fn list(directory: &Directory, transfer: &Transfer, memory: &GuestMemoryMmap) -> Result<Response, Refusal> {
    rustix::fs::seek(&directory.dir, SeekFrom::Start(transfer.offset))?;
    let mut buffer = [MaybeUninit::uninit(); HOST_BYTES];
    let mut entries = RawDir::new(&directory.dir, &mut buffer);
    let mut batch = Vec::new();
    let mut at_end = true;
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        // The bytes already in the batch are told first; a name that WASI cannot say is met again then.
        if std::str::from_utf8(name).is_err() && batch.is_empty() {
            return Err(Errno::Ilseq.into());
        }
        if std::str::from_utf8(name).is_err() || batch.len() + DIRENT_BYTES + name.len() > transfer.area.bytes {
            at_end = false;
            break;
        }
        let file_type = match entry.file_type() {
            FileType::Unknown => rustix::fs::statat(&directory.dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)
                .map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode)),
            known => known,
        };
        batch.extend(entry.next_entry_cookie().to_le_bytes());
        batch.extend(entry.ino().to_le_bytes());
        batch.extend(u32::try_from(name.len()).map_err(|_| Errno::Nametoolong)?.to_le_bytes());
        batch.extend([type_of(file_type), 0, 0, 0]);
        batch.extend(name);
    }
    memory.write_slice(&batch, transfer.area.start).map_err(|_| Errno::Io)?;
    let bytes = u32::try_from(batch.len()).map_err(|_| Errno::Overflow)?;
    Ok(Response::new(status::OK, &TransferResult { bytes, at_end: u32::from(at_end), file_bytes: 0 }, 0))
}
