//! Modules that are large, deep or greedy: the engine runs them, or refuses them, or they trap. The guest kernel never
//! fails.

use std::time::{Duration, Instant};

use crate::{
    REJECTED, TRAP,
    support::{
        command::{run_module, run_payload},
        engine::{self, Engine, by_engine},
        kvm,
        wasm::{F64, I32, body, code, exports, function_type, functions, leb, module, sized, start, types},
    },
};

const NOP: u8 = 0x01;
const BLOCK: u8 = 0x02;
const LOOP: u8 = 0x03;
const END: u8 = 0x0b;
const BR_TABLE: u8 = 0x0e;
const DROP: u8 = 0x1a;
const I32_CONST: u8 = 0x41;
const I32_ADD: u8 = 0x6a;
const EMPTY_TYPE: u8 = 0x40;

/// Runs a module that is valid, and that the engine may still refuse: `REJECTED` with the engine's reason.
#[track_caller]
fn runs_or_is_refused(bytes: &[u8]) {
    let outcome = run_module(&["--timeout", "50s"], bytes);
    match outcome.status {
        Some(0) => assert_eq!(outcome.stderr, ""),
        _ => drop(outcome.complains(REJECTED, "the module")),
    }
}

#[test]
fn blocks_nest_as_deep_as_anybody_likes() {
    if !kvm::usable() {
        return;
    }
    for opcode in [BLOCK, LOOP] {
        for depth in [1000, 50_000] {
            let instructions = [[opcode, EMPTY_TYPE].repeat(depth), vec![END; depth]].concat();
            run_module(&["--timeout", "50s"], start(&[], &instructions)).expect_output("");
        }
    }
    // Blocks that are never closed.
    run_module(&[], start(&[], &[BLOCK, EMPTY_TYPE].repeat(50_000))).complains(REJECTED, "the module is not valid");
}

#[test]
fn a_deep_operand_stack_is_no_native_stack() {
    if !kvm::usable() {
        return;
    }
    let instructions = [[I32_CONST, 1].repeat(100_000), vec![I32_ADD; 99_999], vec![DROP]].concat();
    runs_or_is_refused(&start(&[], &instructions));
}

#[test]
fn functions_can_be_many_and_large() {
    if !kvm::usable() {
        return;
    }
    runs_or_is_refused(&start(&[(50_000, I32)], &[]));
    run_module(&[], start(&[(50_001, I32)], &[])).complains(REJECTED, "too many locals");
    runs_or_is_refused(&start(&[(25_000, I32), (25_000, F64)], &[]));
    runs_or_is_refused(&start(&[], &vec![NOP; 2 << 20]));
    runs_or_is_refused(&start(&[], &[I32_CONST, 1, DROP].repeat(700_000)));
    runs_or_is_refused(&module(&[
        types(&[function_type(&[], &[])]),
        functions(&[0; 100_000]),
        exports(&[("_start", 99_999)]),
        code(&vec![body(&[], &[]); 100_000]),
    ]));
    let parameters = |count: usize| {
        module(&[
            types(&[function_type(&[], &[]), function_type(&vec![I32; count], &[])]),
            functions(&[0, 1]),
            exports(&[("_start", 0)]),
            code(&[body(&[], &[[I32_CONST, 1].repeat(count), vec![0x10, 1]].concat()), body(&[], &[])]),
        ])
    };
    runs_or_is_refused(&parameters(500));
    runs_or_is_refused(&parameters(1000));
    run_module(&[], parameters(1001)).complains(REJECTED, "the module is not valid");
}

#[test]
fn branch_tables_can_be_large() {
    if !kvm::usable() {
        return;
    }
    for targets in [1000usize, 100_000] {
        let table =
            [&[BLOCK, EMPTY_TYPE, I32_CONST, 5, BR_TABLE][..], &leb(targets as u64), &vec![0; targets + 1], &[END]].concat();
        runs_or_is_refused(&start(&[], &table));
    }
}

#[test]
fn many_exports_and_long_names_are_no_problem() {
    if !kvm::usable() {
        return;
    }
    let names: Vec<String> = (0..20_000).map(|index| format!("export number {index}")).collect();
    let many: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 0)).chain([("_start", 0)]).collect();
    let with_exports = |list: &[(&str, u64)]| {
        module(&[types(&[function_type(&[], &[])]), functions(&[0]), exports(list), code(&[body(&[], &[])])])
    };
    runs_or_is_refused(&with_exports(&many));
    runs_or_is_refused(&with_exports(&[("n".repeat(99_000).as_str(), 0), ("_start", 0)]));
    // A custom section of 32 MiB is skipped.
    let custom = [&[0][..], &sized(&[sized(b"name of it"), vec![0; 32 << 20]].concat())].concat();
    let large = [start(&[], &[]), custom].concat();
    run_module(&[], large).expect_output("");
}

#[test]
fn memory_and_tables_larger_than_ram_are_refused() {
    if !kvm::usable() {
        return;
    }
    let run = |options: &[&str], fields: &str| run_module(options, format!(r#"(module {fields} (func (export "_start")))"#));
    let needed = (60_000u64 << 16).to_string();
    run(&[], "(memory 60000)").complains(REJECTED, &needed).complains(REJECTED, &(1u64 << 30).to_string());
    run(&["--memory", "64MiB"], "(memory 1024)").complains(REJECTED, "67108864 bytes");
    run(&["--max-wasm-memory", "1MiB"], "(memory 17)").complains(REJECTED, "1114112 bytes").complains(REJECTED, "1048576 bytes");
    // Together.
    run(&["--memory", "64MiB"], "(memory 500) (memory 500)").complains(REJECTED, "bytes");
    run(&["--max-wasm-memory", "1MiB"], "(memory 9) (memory 9)").complains(REJECTED, "589824 bytes");
    // 2 to the power of 64 bytes, which one engine does not even take for a memory, and the other rounds.
    run(&[], "(memory i64 0x1000000000000)").complains(REJECTED, by_engine("memory", "18446744073709486080 bytes"));
    run(&[], "(memory i64 0x100000000)").complains(REJECTED, "281474976710656 bytes");
    run(&[], "(table 0xffffffff funcref)").complains(REJECTED, "tables of");
    run(&[], "(table i64 0x7fffffffffffffff funcref)").complains(REJECTED, "tables of");
    let tables = "(table 1000000 funcref)".repeat(90);
    run(&["--memory", "64MiB"], &tables).complains(REJECTED, "tables of");
}

/// Denied growth costs nothing in WebAssembly's eyes, so it must not end the guest kernel however often it happens.
#[test]
fn endless_growth_never_fails_the_kernel() {
    if !kvm::usable() {
        return;
    }
    let endless = |fields: &str, grow: &str| {
        format!(r#"(module {fields} (func (export "_start") (loop $again (drop {grow}) (br $again))))"#)
    };
    let cases = [
        endless("(memory 1)", "(memory.grow (i32.const 1))"),
        endless("(memory 1)", "(memory.grow (i32.const -1))"),
        endless("(memory 1)", "(memory.grow (i32.const 0))"),
        // The memory's own maximum denies it.
        endless("(memory 1 1)", "(memory.grow (i32.const 1))"),
        endless("(table 1 funcref)", "(table.grow (ref.null func) (i32.const 1))"),
        endless("(table 1 1 funcref)", "(table.grow (ref.null func) (i32.const 1))"),
        endless("(table 1 externref)", "(table.grow (ref.null extern) (i32.const 100000))"),
    ];
    for module in &cases {
        for memory in ["16MiB", "1GiB"] {
            let outcome = run_module(&["--memory", memory, "--timeout", "1500ms"], module);
            assert!(matches!(outcome.status, Some(TRAP | 124)), "{memory}: {module}: {outcome:?}");
            outcome.complaint();
        }
    }
    run_payload(&["--memory", "16MiB"], "grow.wat", &[]).expect(0);
}

#[test]
fn endless_work_ends_at_its_bound() {
    if !kvm::usable() {
        return;
    }
    let started = Instant::now();
    run_payload(&["--timeout", "200ms"], "spin.wat", &[]).complains(124, "the deadline of --timeout passed");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    run_payload(&["--fuel", "1000000"], "spin.wat", &[]).complains(TRAP, "wasm trap: all fuel consumed, in a call of `_start`");
    run_payload(&["--fuel", "0"], "hello.wat", &[]).complains(TRAP, "all fuel consumed");
    let with_start = r#"(module (func $spin (loop (br 0))) (start $spin) (func (export "_start")))"#;
    run_module(&["--timeout", "200ms"], with_start).complains(124, "deadline");
    run_module(&["--fuel", "10000"], with_start).complains(TRAP, "all fuel consumed");
    // One instruction that works on much memory is work as well.
    let fill = r#"(module (memory 4000) (func (export "_start") (loop (memory.fill (i32.const 0) (i32.const 1) (i32.const 262144000)) (br 0))))"#;
    run_module(&["--fuel", "100000000"], fill).complains(TRAP, "all fuel consumed");
    run_module(&["--timeout", "500ms"], fill).complains(124, "deadline");
}

#[test]
fn a_module_that_takes_long_to_parse_ends_at_the_deadline() {
    if !kvm::usable() {
        return;
    }
    let large = start(&[], &[I32_CONST, 1, DROP].repeat(2_000_000));
    let started = Instant::now();
    let outcome = run_module(&["--timeout", "1ms"], large);
    // The deadline is for runs; when it is compiled, there is nothing left that takes long.
    let is_expected = match engine::under_test() {
        Engine::Interp => matches!(outcome.status, Some(124 | REJECTED)),
        Engine::Aot => matches!(outcome.status, Some(0 | 124)),
    };
    assert!(is_expected, "{outcome:?}");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[test]
fn recursion_ends_as_a_trap_with_any_frame() {
    if !kvm::usable() {
        return;
    }
    run_payload(&[], "recurse.wat", &[]).complains(TRAP, "call stack exhausted");
    for memory in ["16MiB", "64MiB"] {
        run_payload(&["--memory", memory], "recurse.wat", &[]).complains(TRAP, "call stack exhausted");
    }
    let with_locals = module(&[
        types(&[function_type(&[], &[])]),
        functions(&[0]),
        exports(&[("_start", 0)]),
        code(&[body(&[(10_000, I32)], &[0x10, 0])]),
    ]);
    run_module(&[], with_locals).complains(TRAP, "call stack exhausted");
}
