//! Lists of exports.

use std::time::Duration;

use iced_x86::code_asm::CodeAssembler;
use mote_abi::{
    command::{ExportHeader, export_kind},
    hypercall::{ReturnArgs, return_kind},
    layout::MAILBOX_DATA,
    mailbox::DATA_BYTES,
};
use mote_vmm::{BuildError, CallError, Rejection, Sandbox};
use zerocopy::IntoBytes;

use super::server::{bad_request, bare_builder, done, export, give_back, in_time, kernel_of_engine};
use crate::support::{
    guest::{Assembled, CONSTANTS, copy, spin},
    kvm,
};

/// A kernel that gives this list to every command, and says that there are `count` exports.
fn listing(list: &[u8], count: u32) -> Result<Sandbox, CallError> {
    let returned = ReturnArgs { code: count, payload_bytes: list.len() as u32, ..done() };
    built(list, move |a| for_ever(a, list.len(), &returned))
}

fn for_ever(a: &mut CodeAssembler, list_bytes: usize, returned: &ReturnArgs) -> Assembled {
    let mut again = a.create_label();
    a.set_label(&mut again)?;
    copy(a, CONSTANTS, MAILBOX_DATA.start, list_bytes as u64)?;
    give_back(a, returned)?;
    a.jmp(again)
}

fn built(constants: &[u8], code: impl FnOnce(&mut CodeAssembler) -> Assembled) -> Result<Sandbox, CallError> {
    let kernel = kernel_of_engine(constants, code);
    in_time(move || bare_builder(&kernel).deadline(Duration::from_secs(20)).build()).map_err(|error| match error {
        BuildError::Instantiate(error) => error,
        other => panic!("{other}"),
    })
}

#[test]
fn lists_that_are_none_are_faults() {
    if !kvm::usable() {
        return;
    }
    let header = |name_bytes, type_bytes| {
        let header = ExportHeader { name_bytes, type_bytes, kind: export_kind::MEMORY, ..ExportHeader::default() };
        [header.as_bytes(), b"name"].concat()
    };
    let good = export(export_kind::FUNCTION, b"f", b":");
    for list in [
        vec![0],
        vec![0xff; 31],
        vec![0xff; 32],
        header(5, 0),
        header(0, 5),
        header(u32::MAX, 0),
        header(u32::MAX, u32::MAX),
        header(4, u32::MAX),
        [&good[..], &[0]].concat(),
        export(export_kind::FUNCTION, b"\xff", b":"),
        export(export_kind::FUNCTION, b"f", b""),
        export(export_kind::FUNCTION, b"f", b"i"),
        export(export_kind::FUNCTION, b"f", b"?:"),
        export(export_kind::GLOBAL, b"g", b""),
        export(export_kind::GLOBAL, b"g", b"ii"),
        export(export_kind::TABLE, b"t", b"?"),
        export(export_kind::TAG + 1, b"x", b""),
        export(u32::MAX, b"x", b""),
    ] {
        let error = listing(&list, 1).unwrap_err();
        assert!(bad_request(&error).is_some_and(|what| what.contains("a list of exports")), "{list:?}: {error}");
    }
}

#[test]
fn any_number_may_be_said_but_not_any_be_listed() {
    if !kvm::usable() {
        return;
    }
    let one = export(export_kind::FUNCTION, b"f", b":");
    // Fewer than are listed.
    assert_eq!(listing(&one, 0).unwrap().exports().len(), 1);
    for count in [1, 1000, u32::MAX] {
        let error = listing(&[], count).unwrap_err();
        assert_eq!(bad_request(&error), Some("fewer exports than it said"), "{count}");
    }
    // As many at a time as there is room for, which never comes to an end.
    let many = one.repeat(DATA_BYTES / one.len());
    let long = export(export_kind::FUNCTION, &vec![b'x'; DATA_BYTES - 64], b":");
    let wide = export(export_kind::FUNCTION, b"f", &[&vec![b'i'; DATA_BYTES - 64][..], b":"].concat());
    for list in [many, long, wide] {
        let error = listing(&list, u32::MAX).unwrap_err();
        let too_many = matches!(&error, CallError::Rejected(rejection) if matches!(**rejection, Rejection::CannotRun(_)));
        assert!(too_many && error.to_string().contains("exports"), "{error}");
    }
}

/// All that it takes to list exports is one call: the deadline does not begin anew.
#[test]
fn a_list_without_end_meets_the_deadline_of_the_whole() {
    if !kvm::usable() {
        return;
    }
    let one = export(export_kind::FUNCTION, b"f", b":");
    let returned = ReturnArgs { code: u32::MAX, payload_bytes: one.len() as u32, ..done() };
    let kernel = kernel_of_engine(&one, |a| for_ever(a, one.len(), &returned));
    let error = in_time(move || bare_builder(&kernel).deadline(Duration::from_millis(100)).build().unwrap_err());
    assert!(matches!(error, BuildError::Instantiate(CallError::DeadlineExceeded)), "{error}");
}

#[test]
fn a_kernel_that_does_not_get_so_far_is_told_as_what_it_is() {
    if !kvm::usable() {
        return;
    }
    let spinning = kernel_of_engine(&[], spin);
    let error = in_time(move || bare_builder(&spinning).deadline(Duration::from_millis(50)).build().unwrap_err());
    assert!(matches!(error, BuildError::Instantiate(CallError::DeadlineExceeded)), "{error}");
    let first = |kind, code| built(&[], move |a| give_back(a, &ReturnArgs { kind, code, ..done() })).unwrap_err();
    assert!(matches!(first(return_kind::TRAPPED, 1), CallError::Trap(_)));
    assert!(matches!(first(return_kind::EXITED, 7), CallError::Exit(7)));
    assert!(matches!(first(return_kind::REFUSED, 0), CallError::Rejected(_)));
    assert!(bad_request(&first(return_kind::HOST_ERROR, 0)).is_some());
    assert!(bad_request(&first(99, 0)).is_some());
}
