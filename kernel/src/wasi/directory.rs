//! fd_readdir: listings in batches.

use alloc::vec::Vec;

use mote_abi::{
    errno::Errno,
    file::{FileStat, file_type},
    hypercall::{
        self as abi,
        files::{HandleArgs, MAILBOX_BUFFER, TransferArgs, TransferResult},
    },
    mailbox::DATA_BYTES,
};
use mote_kernel_logic::{
    dirent::{Dirent, FIRST_COOKIE},
    fd::rights,
    ramdisk::NodeId,
};

use super::{
    Wasi,
    descriptor::{Object, Place},
    linear::Linear,
};
use crate::hypercall;

/// How much of a listing is fetched at once.
const BATCH_BYTES: usize = 32 << 10;

/// The last batch that the host sent, of whatever directory: one for all, so that open directories cost nothing.
#[derive(Default)]
pub(super) struct Listing {
    /// Entries as the host lays them out.
    batch: Vec<u8>,
    /// Of which directory they are.
    handle: Option<u32>,
    /// The host's cookie of the first.
    cookie: u64,
    /// Whether none follow.
    at_end: bool,
}

pub(super) fn readdir(
    wasi: &mut Wasi,
    memory: &mut Linear<'_>,
    fd: u32,
    buffer: u32,
    bytes: u32,
    cookie: u64,
    used: u32,
) -> Result<(), Errno> {
    memory.check(used, 4)?;
    wasi.descriptor(fd, rights::FD_READDIR)?;
    let listing = &mut wasi.files.listing;
    let Object::Directory(directory) = &mut wasi.fds.get_mut(fd)?.object else { return Err(Errno::Badf) };
    let target = memory.slice_mut(buffer, bytes)?;
    let mut filled = 0;
    match directory.place {
        Place::Host(handle) => {
            if cookie >= FIRST_COOKIE || dots(handle, &mut directory.inode, target, &mut filled, cookie)? {
                listing.put(handle, target, &mut filled, cookie.max(FIRST_COOKIE) - FIRST_COOKIE)?;
            }
        }
        Place::Ram(node) => ram(wasi, node, target, &mut filled, cookie)?,
    }
    memory.write_u32(used, filled as u32)
}

/// Puts `.` and `..`; the latter has the same inode, as what is outside is nobody's business. Whether all of it fitted.
fn dots(handle: u32, inode: &mut Option<u64>, target: &mut [u8], filled: &mut usize, cookie: u64) -> Result<bool, Errno> {
    let inode = match *inode {
        Some(inode) => inode,
        None => {
            let stat: FileStat = hypercall::file(abi::FILE_STAT, &HandleArgs { handle, reserved: 0 }, &[])?;
            *inode.insert(stat.inode)
        }
    };
    for (next_cookie, name) in [(1, &b"."[..]), (FIRST_COOKIE, b"..")].into_iter().skip(cookie as usize) {
        let entry = Dirent { next_cookie, inode, file_type: file_type::DIRECTORY, name };
        if !entry.put(target, filled) {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Listing {
    /// The handle is given back, and may be that of another directory soon.
    pub(super) fn forget(&mut self, handle: u32) {
        if self.handle == Some(handle) {
            *self = Self::default();
        }
    }

    /// Puts the entries from the host's cookie `cookie` on, as far as they fit.
    fn put(&mut self, handle: u32, target: &mut [u8], filled: &mut usize, mut cookie: u64) -> Result<(), Errno> {
        // A listing from its beginning is a new one.
        if cookie == 0 {
            self.fetch(handle, 0)?;
        }
        loop {
            let mut rest = match self.position(handle, cookie) {
                Some(position) => self.batch.get(position..).unwrap_or(&[]),
                None => {
                    self.fetch(handle, cookie)?;
                    &self.batch[..]
                }
            };
            while let Some((entry, behind)) = Dirent::split(rest) {
                let next_cookie = entry.next_cookie.saturating_add(FIRST_COOKIE);
                if !(Dirent { next_cookie, ..entry }).put(target, filled) {
                    return Ok(());
                }
                cookie = entry.next_cookie;
                rest = behind;
            }
            if self.at_end {
                return Ok(());
            }
            self.fetch(handle, cookie)?;
            if self.batch.is_empty() && !self.at_end {
                return Err(Errno::Io);
            }
        }
    }

    /// Where in the batch the entry with the host's cookie `cookie` begins.
    fn position(&self, handle: u32, cookie: u64) -> Option<usize> {
        if self.handle != Some(handle) {
            return None;
        }
        let mut rest = &self.batch[..];
        if cookie == self.cookie {
            return Some(0);
        }
        while let Some((entry, behind)) = Dirent::split(rest) {
            if entry.next_cookie == cookie {
                return Some(self.batch.len() - behind.len());
            }
            rest = behind;
        }
        None
    }

    fn fetch(&mut self, handle: u32, cookie: u64) -> Result<(), Errno> {
        let bytes = BATCH_BYTES.min(DATA_BYTES);
        let arguments = TransferArgs { handle, buffer: MAILBOX_BUFFER, bytes: bytes as u32, flags: 0, offset: cookie };
        (self.handle, self.at_end) = (None, false);
        self.batch.clear();
        let result: TransferResult = hypercall::file(abi::DIRECTORY_LIST, &arguments, &[])?;
        self.batch.resize((result.bytes as usize).min(bytes), 0);
        hypercall::copy_out(MAILBOX_BUFFER, 0, &mut self.batch);
        (self.handle, self.cookie, self.at_end) = (Some(handle), cookie, result.at_end == 1);
        Ok(())
    }
}

fn ram(wasi: &Wasi, node: NodeId, target: &mut [u8], filled: &mut usize, cookie: u64) -> Result<(), Errno> {
    let ram = wasi.ram.as_ref().ok_or(Errno::Badf)?;
    for entry in ram.list(node, cookie)? {
        let entry = Dirent {
            next_cookie: entry.next_cookie,
            inode: entry.inode,
            file_type: entry.file_type,
            name: entry.name.as_bytes(),
        };
        if !entry.put(target, filled) {
            break;
        }
    }
    Ok(())
}
