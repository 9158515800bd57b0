//! What calls of sandboxes cost, each beside the floor of the same run: what KVM takes on this host for a bare VM, in the same
//! processor state, that does nothing.
//!
//! Floor A is one MMIO exit and the next entry, floor B is making and dropping a VM with one vCPU, one memory slot and its
//! registers. After Criterion's figures comes a summary for which floor and candidate are measured in turns. Times are
//! wall-clock times.
//!
//! `cargo bench -p mote-vmm --bench sandbox`; needs `/dev/kvm`.

#![expect(clippy::expect_used, reason = "a benchmark that fails has nothing to go on with")]

#[path = "support/bare.rs"]
mod bare;
#[path = "support/rounds.rs"]
mod rounds;

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use bare::{Bare, Mode};
use criterion::Criterion;
use kvm_ioctls::Kvm;
use mote_vmm::{
    Caller, Checkout, CompiledOptions, Engine, Func, Phases, Pool, PoolOptions, Sandbox, Snapshot, Translation, open_kvm,
};
use rounds::{Compared, compare, median, micros, time};

/// Pages that `touch` writes, each time something else.
const TOUCHED_PAGES: u32 = 16;
/// Memory in which the pages that `touch` writes are in use.
const SMALL_MEMORY: &str = r#"(memory (export "memory") 2)"#;
/// Memory large enough for 2 MiB pages of its own: nothing of it is there until it is touched.
const UNTOUCHED_MEMORY: &str = r#"(memory (export "memory") 64)"#;
/// The same where a byte behind the pages that `touch` writes is in use: they are there, and zeros.
const ZEROS_MEMORY: &str = r#"(memory (export "memory") 64) (data (i32.const 2097151) "x")"#;
/// The size of the module that is started cold.
const COLD_MODULE_BYTES: usize = 10 << 10;

fn main() {
    let kvm = match open_kvm() {
        Ok(kvm) => kvm,
        Err(error) => {
            eprintln!("skipped: {error}");
            return;
        }
    };
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let subject = Subject::new(&Engine::interpreter());
    let cold_module = cold_module();
    floors(&mut criterion, &kvm);
    sandboxes(&mut criterion, &subject, &cold_module);
    criterion.final_summary();
    if !std::env::args().any(|argument| argument == "--list" || argument == "--test") {
        summarize(&kvm, &subject);
        compare_engines(&subject, &Subject::new(&Engine::compiled(CompiledOptions::default())));
        phases(&cold_module);
    }
}

/// What all is measured with.
struct Subject {
    snapshot: Snapshot,
    /// The same with other memories, before any call.
    zeros: Snapshot,
    untouched: Snapshot,
    empty: Func<(), ()>,
    host: Func<i32, i32>,
    touch: Func<(), ()>,
}

impl Subject {
    fn new(engine: &Engine) -> Self {
        let text = |memory: &str| {
            format!(
                r#"(module
                 (import "env" "twice" (func $twice (param i32) (result i32)))
                 {memory}
                 (func (export "empty"))
                 (func (export "host") (param i32) (result i32) local.get 0 call $twice)
                 (global $calls (mut i32) (i32.const 0))
                 (func (export "touch") (local $page i32)
                   (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
                   loop
                     (i32.store8 (i32.mul (local.get $page) (i32.const 4096)) (global.get $calls))
                     (br_if 0 (i32.lt_u (local.tee $page (i32.add (local.get $page) (i32.const 1))) (i32.const {TOUCHED_PAGES})))
                   end))"#
            )
        };
        let build = |memory, translation| {
            let builder = Sandbox::builder().engine(engine).module_bytes(text(memory)).translation(translation);
            let builder = builder.func("env", "twice", |_: Caller<'_>, value: i32| 2 * value);
            builder.build().expect("the module can be instantiated")
        };
        let mut sandbox = build(SMALL_MEMORY, Translation::Lazy);
        let func = |name| sandbox.func::<(), ()>(name).expect("it is exported");
        let (empty, touch) = (func("empty"), func("touch"));
        let host = sandbox.func("host").expect("it is exported");
        // The engine translates a function at its first call.
        call(&mut sandbox, empty);
        call(&mut sandbox, touch);
        sandbox.call_func(host, 1).expect("it returns");
        let snapshot = |mut sandbox: Sandbox| sandbox.snapshot().expect("a snapshot can be taken");
        Self {
            snapshot: snapshot(sandbox),
            zeros: snapshot(build(ZEROS_MEMORY, Translation::Eager)),
            untouched: snapshot(build(UNTOUCHED_MEMORY, Translation::Eager)),
            empty,
            host,
            touch,
        }
    }

    fn copy(&self) -> Sandbox {
        Sandbox::from_snapshot(&self.snapshot).expect("a sandbox can be made")
    }

    fn pool(&self) -> Pool {
        pool_of(&self.snapshot)
    }
}

fn pool_of(snapshot: &Snapshot) -> Pool {
    Pool::new(snapshot, PoolOptions { max_sandboxes: 1, prewarmed: 1 }).expect("a pool can be made")
}

fn call(sandbox: &mut Sandbox, func: Func<(), ()>) {
    sandbox.call_func(func, ()).expect("it returns");
}

fn clean_call(pool: &Pool, func: Func<(), ()>) {
    call(&mut pool.checkout(Checkout::Fail).expect("the pool's sandbox is idle"), func);
}

/// A module of [`COLD_MODULE_BYTES`]: functions of some size, and one that is called.
fn cold_module() -> Vec<u8> {
    let module = |functions: usize, padding: usize| {
        let mut text = String::from("(module (memory 1) (func (export \"first\"))");
        for function in 0..functions {
            let body = "(i32.store (local.get 0) (i32.mul (i32.load offset=4 (local.get 0)) (local.get 1)))".repeat(16);
            let _infallible = write!(text, "(func (param i32 i32) (result i32) {body} i32.const {function})");
        }
        let _infallible = write!(text, "(data (i32.const 0) \"{}\"))", "x".repeat(padding));
        wat::parse_str(text).expect("the text is a module")
    };
    let functions = (0..).take_while(|functions| module(*functions, 64).len() <= COLD_MODULE_BYTES).last().unwrap_or(0);
    let padding = (0..).take_while(|padding| module(functions, *padding).len() <= COLD_MODULE_BYTES).last().unwrap_or(0);
    module(functions, padding)
}

/// From the bytes to the first call done.
fn cold(module: &[u8]) -> Sandbox {
    let mut sandbox = Sandbox::builder().module_bytes(module).build().expect("the module can be instantiated");
    sandbox.call::<_, ()>("first", ()).expect("it returns");
    sandbox
}

fn floors(criterion: &mut Criterion, kvm: &Kvm) {
    let mut group = criterion.benchmark_group("floor");
    for (mode, exit, vm) in [(Mode::Ring3, "A_exit", "B_vm"), (Mode::Real, "A0_exit_real_mode", "B0_vm_real_mode")] {
        group.bench_function(exit, |bencher| {
            let mut bare = Bare::new(kvm, mode);
            bencher.iter(|| bare.run_to_exit());
        });
        group.bench_function(vm, |bencher| bencher.iter(|| drop(Bare::new(kvm, mode))));
    }
    group.finish();
}

fn sandboxes(criterion: &mut Criterion, subject: &Subject, cold_module: &[u8]) {
    let mut group = criterion.benchmark_group("sandbox");
    let mut sandbox = subject.copy();
    group.bench_function("warm_call", |bencher| bencher.iter(|| call(&mut sandbox, subject.empty)));
    group.bench_function("host_call", |bencher| bencher.iter(|| sandbox.call_func(subject.host, 1).expect("it returns")));
    let pool = subject.pool();
    group.bench_function("clean_call_empty", |bencher| bencher.iter(|| clean_call(&pool, subject.empty)));
    group.bench_function("clean_call_touch", |bencher| bencher.iter(|| clean_call(&pool, subject.touch)));
    group.bench_function("copy_call_drop", |bencher| bencher.iter(|| call(&mut subject.copy(), subject.empty)));
    group.bench_function("cold_call_drop", |bencher| bencher.iter(|| drop(cold(cold_module))));
    group.finish();
}

/// Compares with the floors, in turns.
fn summarize(kvm: &Kvm, subject: &Subject) {
    let mut bare = Bare::new(kvm, Mode::Ring3);
    let mut a = |candidate: &mut dyn FnMut() -> Duration| compare(100, 20, || time(|| bare.run_to_exit()), candidate);
    let b = |candidate: &mut dyn FnMut() -> Duration| compare(50, 8, || time(|| drop(Bare::new(kvm, Mode::Ring3))), candidate);
    let mut real = Bare::new(kvm, Mode::Real);
    let mut sandbox = subject.copy();
    let (pool, zeros, untouched) = (subject.pool(), pool_of(&subject.zeros), pool_of(&subject.untouched));
    let pages = |pool: &Pool, func| {
        let calls = 100;
        let restored = || pool.checkout(Checkout::Fail).expect("it is idle").counters().restored_pages;
        let before = restored();
        (0..calls).for_each(|_| clean_call(pool, func));
        (restored() - before) as f64 / f64::from(calls)
    };
    let (empty_pages, touch_pages) = (pages(&pool, subject.empty), pages(&pool, subject.touch));
    let (zeros_pages, untouched_pages) = (pages(&zeros, subject.touch), pages(&untouched, subject.touch));
    let row_of_empty = format!("clean call of an empty function ({empty_pages:.0} copied back)");
    let row_of_touch = format!("clean call that writes {TOUCHED_PAGES} pages ({touch_pages:.0} copied back)");
    let row_of_zeros = format!("the same, pages that were zeros in a memory of 4 MiB ({zeros_pages:.0} copied back)");
    let row_of_untouched = format!("the same, nothing of that memory touched before ({untouched_pages:.0} copied back)");

    println!("\nA: bare VM in ring 3, one exit and entry. B: bare VM in ring 3 made and dropped. Microseconds, medians.\n");
    println!("| what | median | floor | ratio | target |\n| --- | ---: | ---: | ---: | --- |");
    let row = |what: &str, floor: char, target: Option<f64>, compared: Compared| {
        let Compared { floor_us, candidate_us, ratio } = compared;
        let verdict = target.map_or("–".into(), |most| format!("≤ {most} {}", if ratio <= most { "met" } else { "missed" }));
        println!("| {what} | {candidate_us:.1} | {floor} {floor_us:.1} | {ratio:.2} | {verdict} |");
    };
    row("A0: exit in real mode, which KVM may emulate", 'A', None, a(&mut || time(|| real.run_to_exit())));
    row("warm call of an empty function", 'A', Some(1.3), a(&mut || time(|| call(&mut sandbox, subject.empty))));
    row("call with a host function inside", 'A', Some(2.5), a(&mut || time(|| sandbox.call_func(subject.host, 1))));
    row(&row_of_empty, 'A', Some(3.0), a(&mut || time(|| clean_call(&pool, subject.empty))));
    row(&row_of_touch, 'A', Some(3.0), a(&mut || time(|| clean_call(&pool, subject.touch))));
    row(&row_of_zeros, 'A', None, a(&mut || time(|| clean_call(&zeros, subject.touch))));
    row(&row_of_untouched, 'A', None, a(&mut || time(|| clean_call(&untouched, subject.touch))));
    row("B0: VM in real mode", 'B', None, b(&mut || time(|| drop(Bare::new(kvm, Mode::Real)))));
    row("bare VM, one exit, dropped", 'B', None, b(&mut || time(|| Bare::new(kvm, Mode::Ring3).run_to_exit())));
    row("new sandbox from a snapshot, first call done", 'B', Some(2.0), b(&mut || first_call(subject)));
    row("the same and dropped", 'B', Some(2.0), b(&mut || time(|| drop(first_call_of(subject)))));
}

/// Compares compiled code with the interpreter, in turns.
fn compare_engines(interpreted: &Subject, compiled: &Subject) {
    println!("\nThe same, compiled against interpreted.\n");
    println!("| what | compiled | interpreted | ratio | target |\n| --- | ---: | ---: | ---: | --- |");
    let row = |what: &str, compared: Compared| {
        let Compared { floor_us, candidate_us, ratio } = compared;
        // Both take the same exits: what is left is noise.
        let verdict = if ratio <= 1.05 { "met" } else { "missed" };
        println!("| {what} | {candidate_us:.1} | {floor_us:.1} | {ratio:.2} | ≤ 1.05 {verdict} |");
    };
    let mut sandboxes = [interpreted.copy(), compiled.copy()];
    let pools = [interpreted.pool(), compiled.pool()];
    let [slow, fast] = &mut sandboxes;
    let warm = compare(100, 20, || time(|| call(slow, interpreted.empty)), || time(|| call(fast, compiled.empty)));
    row("warm call of an empty function", warm);
    let host = |sandbox: &mut Sandbox, subject: &Subject| time(|| sandbox.call_func(subject.host, 1));
    row("call with a host function inside", compare(100, 20, || host(slow, interpreted), || host(fast, compiled)));
    let clean = |pool: &Pool, func| time(|| clean_call(pool, func));
    let [slow, fast] = &pools;
    let empty = compare(100, 20, || clean(slow, interpreted.empty), || clean(fast, compiled.empty));
    row("clean call of an empty function", empty);
    let touch = compare(100, 20, || clean(slow, interpreted.touch), || clean(fast, compiled.touch));
    row(&format!("clean call that writes {TOUCHED_PAGES} pages"), touch);
    row("new sandbox from a snapshot, first call done", compare(50, 8, || first_call(interpreted), || first_call(compiled)));
}

fn first_call(subject: &Subject) -> Duration {
    time(|| first_call_of(subject))
}

fn first_call_of(subject: &Subject) -> Sandbox {
    let mut sandbox = subject.copy();
    call(&mut sandbox, subject.empty);
    sandbox
}

/// Where the time of a cold start goes.
fn phases(module: &[u8]) {
    const TIMES: usize = 50;
    let mut rows: Vec<(&str, Vec<f64>)> = Vec::new();
    let mut add = |what, took: Duration| match rows.iter_mut().find(|(known, _)| *known == what) {
        Some((_, all)) => all.push(micros(took)),
        None => rows.push((what, vec![micros(took)])),
    };
    for _ in 0..TIMES {
        let started = Instant::now();
        let mut sandbox = Sandbox::builder().module_bytes(module).build().expect("the module can be instantiated");
        let built = started.elapsed();
        sandbox.call::<_, ()>("first", ()).expect("it returns");
        let all = started.elapsed();
        let Phases { create, enter, parse, instantiate, .. } = sandbox.stats().phases;
        add("check the bytes, open KVM, read the exports", built.saturating_sub(create + enter + parse + instantiate));
        add("create: memory, tables, VM, vCPU", create);
        add("enter: the guest kernel starts", enter);
        add("parse and validate", parse);
        add("instantiate", instantiate);
        add("first call", all - built);
        add("all", all);
    }
    println!("\nCold start of a module of {} bytes, microseconds, medians of {TIMES}\n", module.len());
    println!("| phase | median |\n| --- | ---: |");
    for (what, all) in rows {
        println!("| {what} | {:.0} |", median(all));
    }
}
