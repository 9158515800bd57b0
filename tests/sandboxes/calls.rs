//! Calls, globals and exports.

use mote_vmm::{CallError, ExportType, FuncType, SandboxState, Value, ValueType};

use super::guests::{MEMORY, build};
use crate::support::kvm;

const VALUES: &str = r#"(module
    (func $none (export "none"))
    (func (export "i32") (param i32) (result i32) (local.get 0))
    (func (export "i64") (param i64) (result i64) (local.get 0))
    (func (export "f32") (param f32) (result f32) (local.get 0))
    (func (export "f64") (param f64) (result f64) (local.get 0))
    (func (export "v128") (param v128) (result v128) (local.get 0))
    (func (export "mixed") (param i32 i64 f32 f64 v128) (result v128 f64 f32 i64 i32)
        (local.get 4) (local.get 3) (local.get 2) (local.get 1) (local.get 0))
    (func (export "sixteen") (param i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64)
        (result i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64 i64)
        (local.get 15) (local.get 14) (local.get 13) (local.get 12) (local.get 11) (local.get 10) (local.get 9) (local.get 8)
        (local.get 7) (local.get 6) (local.get 5) (local.get 4) (local.get 3) (local.get 2) (local.get 1) (local.get 0))
    (func (export "refs") (param externref funcref) (result funcref externref) (local.get 1) (local.get 0))
    (func (export "function") (result funcref) (ref.func $none))
    (global (export "counter") (mut i64) (i64.const 5))
    (global (export "pi") f64 (f64.const 3.5))
    (global (export "vector") (mut v128) (v128.const i64x2 1 2))
    (global (export "extern") (mut externref) (ref.null extern))
    (global (export "func") (mut funcref) (ref.null func))
    (memory (export "memory") 1 4)
    (table (export "table") 3 10 funcref)
    (table (export "externs") 0 externref)
    (func (export "count") (global.set 0 (i64.add (global.get 0) (i64.const 1))))
)"#;

#[track_caller]
fn is_mismatch<T: std::fmt::Debug>(result: Result<T, CallError>, about: &str) {
    match result {
        Err(CallError::Mismatch(message)) => assert!(message.contains(about), "{about:?} is not in {message:?}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn values_of_each_type_go_there_and_back() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = build(VALUES);
    for value in [0, 1, -1, i32::MIN, i32::MAX] {
        assert_eq!(sandbox.call::<_, i32>("i32", value).unwrap(), value);
        assert_eq!(sandbox.call::<_, u32>("i32", value.cast_unsigned()).unwrap(), value.cast_unsigned());
    }
    for value in [0, -1, i64::MIN, i64::MAX, 1 << 32] {
        assert_eq!(sandbox.call::<_, i64>("i64", value).unwrap(), value);
        assert_eq!(sandbox.call::<_, u64>("i64", value.cast_unsigned()).unwrap(), value.cast_unsigned());
    }
    // NaNs with all of their bits.
    for bits in [0, 1, 0x8000_0000, 0x7f80_0000, 0x7fc0_0001, 0xffff_ffff, 0x7f80_0001] {
        assert_eq!(sandbox.call::<_, f32>("f32", f32::from_bits(bits)).unwrap().to_bits(), bits);
    }
    for bits in [0, 1, 1 << 63, 0x7ff0 << 48, 0x7ff8 << 48 | 1, u64::MAX, 0x7ff0 << 48 | 1] {
        assert_eq!(sandbox.call::<_, f64>("f64", f64::from_bits(bits)).unwrap().to_bits(), bits);
    }
    for value in [0, 1, u128::MAX, 1 << 64, 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210] {
        assert_eq!(sandbox.call::<_, u128>("v128", value).unwrap(), value);
    }
    let returned: (u128, f64, f32, i64, u32) = sandbox.call("mixed", (1u32, 2i64, 3f32, 4f64, 5u128)).unwrap();
    assert_eq!(returned, (5, 4.0, 3.0, 2, 1));
    assert_eq!(sandbox.call::<_, ()>("none", ()).unwrap(), ());
}

#[test]
fn sixteen_values_fit_into_a_tuple() {
    if !kvm::usable() {
        return;
    }
    type Sixteen = (i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64);
    let mut sandbox = build(VALUES);
    // Tuples as long as this can be compared only part by part.
    let (a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p): Sixteen = sandbox
        .call("sixteen", (0i64, 1i64, 2i64, 3i64, 4i64, 5i64, 6i64, 7i64, 8i64, 9i64, 10i64, 11i64, 12i64, 13i64, 14i64, -15i64))
        .unwrap();
    let returned = [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p];
    assert_eq!(returned, [-15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
}

#[test]
fn a_thousand_values_fit_into_a_dynamic_call() {
    if !kvm::usable() {
        return;
    }
    let many = |word: &str| word.repeat(1000);
    let gets: String = (0..1000).rev().map(|index| format!("(local.get {index})")).collect();
    let text = format!(r#"(module (func (export "f") (param {}) (result {}) {gets}))"#, many("i64 "), many("i64 "));
    let mut sandbox = build(&text);
    let given: Vec<_> = (0..1000).map(|number| Value::I64(number * number - 7)).collect();
    let returned = sandbox.call_dynamic("f", &given).unwrap();
    assert!(returned.iter().eq(given.iter().rev()));
}

#[test]
fn calls_that_do_not_fit_are_refused_and_nothing_runs() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = build(VALUES);
    let calls = sandbox.counters().calls;
    is_mismatch(sandbox.call::<_, i32>("i32", 1i64), "(i32) -> (i32), not (i64) -> (i32)");
    is_mismatch(sandbox.call::<_, i64>("i32", 1i32), "(i32) -> (i32), not (i32) -> (i64)");
    is_mismatch(sandbox.call::<_, i32>("i32", ()), "not () -> (i32)");
    is_mismatch(sandbox.call::<_, i32>("i32", (1, 2)), "not (i32, i32)");
    is_mismatch(sandbox.call::<_, ()>("i32", 1), "not (i32) -> ()");
    is_mismatch(sandbox.call::<_, f32>("f32", 1f64), "`f32`");
    is_mismatch(sandbox.call::<_, ()>("missing", ()), "no function `missing`");
    is_mismatch(sandbox.call::<_, ()>("", ()), "no function ``");
    is_mismatch(sandbox.call::<_, ()>("memory", ()), "`memory` is no function");
    is_mismatch(sandbox.func::<(), i64>("counter"), "`counter` is no function");
    is_mismatch(sandbox.call_dynamic("i32", &[Value::F32(1.0)]), "arguments (f32) were given");
    is_mismatch(sandbox.call_dynamic("i32", &[]), "arguments () were given");
    is_mismatch(sandbox.call_dynamic("refs", &[Value::FuncRef(None), Value::ExternRef(None)]), "(funcref, externref)");
    is_mismatch(sandbox.global("none"), "no global");
    is_mismatch(sandbox.global("missing"), "no global");
    assert_eq!((sandbox.state(), sandbox.counters().calls), (SandboxState::Ready, calls));
    assert_eq!(sandbox.call::<_, i32>("i32", 3).unwrap(), 3);
}

#[test]
fn references_are_numbers_of_the_host_or_null() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = build(VALUES);
    for given in [None, Some(0), Some(1), Some(u32::MAX), Some(1)] {
        let arguments = [Value::ExternRef(given), Value::FuncRef(None)];
        let returned = sandbox.call_dynamic("refs", &arguments).unwrap();
        assert_eq!(returned, [Value::FuncRef(None), Value::ExternRef(given)]);
    }
    let returned = sandbox.call_dynamic("function", &[]).unwrap();
    assert!(matches!(returned[..], [Value::FuncRef(Some(_))]), "{returned:?}");
    // It means nothing outside, so it is not taken back.
    is_mismatch(sandbox.call_dynamic("refs", &[Value::ExternRef(None), returned[0]]), "cannot be given from outside");
    assert!(sandbox.set_global("func", returned[0]).is_err());
    assert_eq!(sandbox.state(), SandboxState::Ready);
    assert_eq!(sandbox.global("func").unwrap(), Value::FuncRef(None));
}

#[test]
fn globals_are_read_and_set_by_their_types() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = build(VALUES);
    assert_eq!(sandbox.global("counter").unwrap(), Value::I64(5));
    sandbox.call::<_, ()>("count", ()).unwrap();
    assert_eq!(sandbox.global("counter").unwrap(), Value::I64(6));
    sandbox.set_global("counter", Value::I64(i64::MIN)).unwrap();
    sandbox.call::<_, ()>("count", ()).unwrap();
    assert_eq!(sandbox.global("counter").unwrap(), Value::I64(i64::MIN + 1));
    assert_eq!(sandbox.global("pi").unwrap(), Value::F64(3.5));
    is_mismatch(sandbox.set_global("pi", Value::F64(3.1)), "`pi` is immutable");
    is_mismatch(sandbox.set_global("counter", Value::I32(1)), "of type i64; i32 was given");
    is_mismatch(sandbox.set_global("none", Value::I32(1)), "no global");
    assert_eq!(sandbox.global("pi").unwrap(), Value::F64(3.5));
    assert_eq!(sandbox.global("vector").unwrap(), Value::V128(2 << 64 | 1));
    sandbox.set_global("vector", Value::V128(u128::MAX - 1)).unwrap();
    assert_eq!(sandbox.global("vector").unwrap(), Value::V128(u128::MAX - 1));
    for value in [Value::ExternRef(Some(9)), Value::ExternRef(None)] {
        sandbox.set_global("extern", value).unwrap();
        assert_eq!(sandbox.global("extern").unwrap(), value);
    }
    sandbox.set_global("func", Value::FuncRef(None)).unwrap();
}

#[test]
fn exports_have_names_and_types() {
    if !kvm::usable() {
        return;
    }
    let sandbox = build(VALUES);
    let find = |name: &str| sandbox.exports().iter().find(|export| export.name == name).map(|export| &export.ty);
    assert_eq!(sandbox.exports().len(), 19);
    let mixed = [ValueType::I32, ValueType::I64, ValueType::F32, ValueType::F64, ValueType::V128];
    let results = mixed.iter().rev().copied().collect();
    assert_eq!(find("mixed"), Some(&ExportType::Func(FuncType { params: mixed.to_vec(), results })));
    assert_eq!(find("none"), Some(&ExportType::Func(FuncType { params: Vec::new(), results: Vec::new() })));
    assert_eq!(find("counter"), Some(&ExportType::Global { ty: ValueType::I64, mutable: true }));
    assert_eq!(find("pi"), Some(&ExportType::Global { ty: ValueType::F64, mutable: false }));
    assert_eq!(find("memory"), Some(&ExportType::Memory { minimum: 1, maximum: Some(4), memory64: false }));
    assert_eq!(find("table"), Some(&ExportType::Table { ty: ValueType::FuncRef, minimum: 3, maximum: Some(10) }));
    assert_eq!(find("externs"), Some(&ExportType::Table { ty: ValueType::ExternRef, minimum: 0, maximum: None }));
    assert_eq!(find("missing"), None);
    assert!(build("(module)").exports().is_empty());
}

/// More than the mailbox holds at a time, and names of all kinds.
#[test]
fn a_list_of_exports_may_be_long() {
    if !kvm::usable() {
        return;
    }
    let long = "n".repeat(300);
    let name = |number: i32| format!("{long}-{number}");
    let functions: String =
        (0..2000).map(|number| format!(r#"(func (export "{}") (result i32) (i32.const {number}))"#, name(number))).collect();
    let text = format!(
        r#"(module (func (export "") (result i32) (i32.const -1)) (func (export "ünï\00cødé 🦀") (result i32) (i32.const -2)) {functions})"#
    );
    let mut sandbox = build(&text);
    assert_eq!(sandbox.exports().len(), 2002);
    for number in [0, 1, 999, 1234, 1999] {
        assert_eq!(sandbox.call::<_, i32>(&name(number), ()).unwrap(), number);
    }
    assert_eq!(sandbox.call::<_, i32>("", ()).unwrap(), -1);
    assert_eq!(sandbox.call::<_, i32>("ünï\0cødé 🦀", ()).unwrap(), -2);
}

#[test]
fn a_handle_is_good_for_copies_and_checked_by_others() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = build(MEMORY);
    let add = sandbox.func::<(i32, i32), i32>("add").unwrap();
    assert_eq!(sandbox.call_func(add, (2, 3)).unwrap(), 5);
    let snapshot = sandbox.snapshot().unwrap();
    let mut copy = mote_vmm::Sandbox::from_snapshot(&snapshot).unwrap();
    assert_eq!(copy.call_func(add, (20, 30)).unwrap(), 50);
    sandbox.restore(&snapshot).unwrap();
    assert_eq!(sandbox.call_func(add, (4, 5)).unwrap(), 9);
    let mut other = build(r#"(module (func (export "add") (param i64) (result i64) (local.get 0)))"#);
    is_mismatch(other.call_func(add, (2, 3)), "another sandbox");
    is_mismatch(build("(module)").call_func(add, (2, 3)), "another sandbox");
    assert_eq!(other.state(), SandboxState::Ready);
}

#[test]
fn a_sandbox_can_be_sent_to_another_thread_and_dropped_there() {
    if !kvm::usable() {
        return;
    }
    let mut sandbox = build(MEMORY);
    for expected in 1..=4 {
        sandbox = std::thread::spawn(move || {
            assert_eq!(sandbox.call::<_, i32>("count", ()).unwrap(), expected);
            sandbox
        })
        .join()
        .unwrap();
    }
    assert_eq!(sandbox.call::<_, i32>("count", ()).unwrap(), 5);
    std::thread::spawn(move || drop(sandbox)).join().unwrap();
}
