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
    descriptor::{Directory, Object, Place},
    linear::Linear,
};
use crate::hypercall;

/// How much of a listing is fetched at once.
const BATCH_BYTES: usize = 32 << 10;

/// The last batch that the host sent.
#[derive(Default)]
pub(super) struct Listing {
    /// Entries as the host lays them out.
    batch: Vec<u8>,
    /// The host's cookie of the first.
    cookie: u64,
    /// Whether none follow.
    at_end: bool,
    /// Of the directory itself, once it is known.
    inode: Option<u64>,
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
    let directory = match &mut wasi.descriptor(fd, rights::FD_READDIR)?.object {
        Object::Directory(directory) => directory,
        _ => return Err(Errno::Badf),
    };
    let target = memory.slice_mut(buffer, bytes)?;
    let mut filled = 0;
    match directory.place {
        Place::Host(handle) => host(handle, directory, target, &mut filled, cookie)?,
        Place::Ram(node) => ram(wasi, node, target, &mut filled, cookie)?,
    }
    memory.write_u32(used, filled as u32)
}

fn host(handle: u32, directory: &mut Directory, target: &mut [u8], filled: &mut usize, cookie: u64) -> Result<(), Errno> {
    if cookie < FIRST_COOKIE && !directory.listing.dots(handle, target, filled, cookie)? {
        return Ok(());
    }
    let listing = &mut directory.listing;
    let mut cookie = cookie.max(FIRST_COOKIE) - FIRST_COOKIE;
    // A listing from its beginning is a new one.
    if cookie == 0 {
        listing.fetch(handle, 0)?;
    }
    loop {
        let mut rest = match listing.position(cookie) {
            Some(position) => listing.batch.get(position..).unwrap_or(&[]),
            None => {
                listing.fetch(handle, cookie)?;
                &listing.batch[..]
            }
        };
        if rest.is_empty() && listing.at_end {
            return Ok(());
        }
        while let Some((entry, behind)) = Dirent::split(rest) {
            let next_cookie = entry.next_cookie.saturating_add(FIRST_COOKIE);
            if !(Dirent { next_cookie, ..entry }).put(target, filled) {
                return Ok(());
            }
            cookie = entry.next_cookie;
            rest = behind;
        }
        if listing.at_end {
            return Ok(());
        }
        listing.fetch(handle, cookie)?;
        if listing.batch.is_empty() && !listing.at_end {
            return Err(Errno::Io);
        }
    }
}

impl Listing {
    /// Of a directory with this inode.
    pub(super) fn of(inode: u64) -> Self {
        Self { inode: Some(inode), ..Self::default() }
    }

    /// Puts `.` and `..`; the latter has the same inode, as what is outside is nobody's business.
    fn dots(&mut self, handle: u32, target: &mut [u8], filled: &mut usize, cookie: u64) -> Result<bool, Errno> {
        let inode = match self.inode {
            Some(inode) => inode,
            None => {
                let arguments = HandleArgs { handle, reserved: 0 };
                let stat: FileStat = hypercall::file(abi::FILE_STAT, &arguments, &[])?;
                *self.inode.insert(stat.inode)
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

    /// Where in the batch the entry with the host's cookie `cookie` begins.
    fn position(&self, cookie: u64) -> Option<usize> {
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
        self.batch.clear();
        let result: TransferResult = hypercall::file(abi::DIRECTORY_LIST, &arguments, &[])?;
        self.batch.resize((result.bytes as usize).min(bytes), 0);
        hypercall::copy_out(MAILBOX_BUFFER, 0, &mut self.batch);
        (self.cookie, self.at_end) = (cookie, result.at_end == 1);
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
