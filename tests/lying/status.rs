//! What the host counts for one guest, and tells it: nothing of that is there when the sandbox was restored.

use iced_x86::code_asm::*;
use mote_abi::{
    boot::status_offset,
    command::export_kind,
    hypercall::{
        FILE_OPEN, ReturnArgs,
        files::{OpenArgs, PostedWrite, access},
    },
    layout::{HOST_STATUS, MAILBOX_DATA, RING_DATA, RING_HEAD},
    mailbox::{RESPONSE, Request},
    ring::{Header, Stream},
    value::RawValue,
};
use mote_vmm::{Access, Directory, Sandbox};
use zerocopy::IntoBytes;

use super::server::{bare_builder, done, export, give_back, jump_if_resumed, kernel_of_engine};
use crate::support::{
    guest::{CONSTANTS, call, copy},
    kvm,
};

const FILE: &[u8; 4] = b"file";

/// The record of a write that no file takes: it ends behind the largest offset. The directory has the handle 0.
fn failing_write() -> Vec<u8> {
    let posted = PostedWrite { handle: 1, flags: 0, offset: i64::MAX as u64 };
    let payload = [posted.as_bytes(), b"x"].concat();
    let header = Header { stream: Stream::Write, payload_bytes: payload.len() as u32 };
    let mut record = [&header.encode().to_le_bytes()[..], &payload].concat();
    record.resize(header.record_bytes() as usize, 0);
    record
}

/// A sandbox with two functions: `failures` returns how many failed writes the host tells of, and `fail` makes one more.
fn sandbox(directory: &std::path::Path) -> Sandbox {
    let exports = [export(export_kind::FUNCTION, b"failures", b":I"), export(export_kind::FUNCTION, b"fail", b":")].concat();
    let record = failing_write();
    let (record_bytes, exports_bytes) = (record.len() as u64, exports.len() as u64);
    let constants = [&record_bytes.to_le_bytes()[..], FILE, &record, &exports].concat();
    let file_at = CONSTANTS + 8;
    let record_at = file_at + FILE.len() as u64;
    let open = OpenArgs { path_bytes: FILE.len() as u32, access: access::WRITE, ..OpenArgs::default() };
    let kernel = kernel_of_engine(&constants, |a| {
        let (mut obey, mut fail) = (a.create_label(), a.create_label());
        jump_if_resumed(a, obey)?;
        copy(a, record_at + record_bytes, MAILBOX_DATA.start, exports_bytes)?;
        give_back(a, &ReturnArgs { code: 2, payload_bytes: exports_bytes as u32, ..done() })?;
        a.set_label(&mut obey)?;
        // The number of the export (see `CallArgs`).
        a.cmp(dword_ptr(RESPONSE + 12), 0)?;
        a.jne(fail)?;
        a.mov(rbx, MAILBOX_DATA.start)?;
        a.mov(rax, qword_ptr(HOST_STATUS.start + status_offset::FAILED_WRITES))?;
        a.mov(qword_ptr(rbx), rax)?;
        a.mov(qword_ptr(rbx + 8), 0)?;
        give_back(a, &ReturnArgs { payload_bytes: size_of::<RawValue>() as u32, ..done() })?;
        a.jmp(obey)?;
        a.set_label(&mut fail)?;
        copy(a, file_at, MAILBOX_DATA.start, FILE.len() as u64)?;
        call(a, &Request::new(FILE_OPEN, &open, FILE.len() as u32))?;
        copy(a, record_at, RING_DATA.start, record_bytes)?;
        copy(a, CONSTANTS, RING_HEAD.start, 8)?;
        give_back(a, &done())?;
        a.jmp(obey)
    });
    let directory = Directory::open(directory, "/", Access::ReadWrite).unwrap();
    bare_builder(&kernel).directory(directory).build().unwrap()
}

#[test]
fn failed_writes_are_not_told_after_a_restore() {
    if !kvm::usable() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file"), "text").unwrap();
    let mut sandbox = sandbox(directory.path());
    let snapshot = sandbox.snapshot().unwrap();
    let failures = |sandbox: &mut Sandbox| sandbox.call::<_, u64>("failures", ()).unwrap();
    assert_eq!(failures(&mut sandbox), 0);
    for _ in 0..2 {
        sandbox.call::<_, ()>("fail", ()).unwrap();
        assert_eq!(failures(&mut sandbox), 1);
        sandbox.restore(&snapshot).unwrap();
        assert_eq!(failures(&mut sandbox), 0);
    }
    assert_eq!(failures(&mut Sandbox::from_snapshot(&snapshot).unwrap()), 0);
}
