//! What one more sandbox costs in memory, and a thousand of them alive in one process.
//!
//! Copies of one snapshot are made in batches, each called once. What a batch adds to the process's own memory comes from
//! /proc/self/smaps_rollup, what it adds in the host's kernel from /proc/meminfo, which counts whatever else runs too: medians
//! over batches, on a quiet machine. Beside it, from the same run, what a bare VM takes that exited once. Then each of the
//! sandboxes is called in turn.
//!
//! `cargo bench -p mote-vmm --bench density`; needs `/dev/kvm`.

#![expect(clippy::expect_used, reason = "a benchmark that fails has nothing to go on with")]

#[path = "support/bare.rs"]
mod bare;
#[path = "support/rounds.rs"]
mod rounds;

use std::{
    fmt, fs,
    time::{Duration, Instant},
};

use bare::{Bare, Mode};
use mote_vmm::{Sandbox, open_kvm};
use rounds::{median, micros};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const BATCHES: usize = 10;
const BATCH: usize = 100;
const ROUNDS: usize = 5;
/// What one more sandbox may take of user memory, in KiB.
const TARGET_KIB: f64 = 300.0;

const MODULE: &str = r#"(module
    (memory (export "memory") 2)
    (global $calls (mut i32) (i32.const 0))
    (func (export "count") (result i32)
      (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
      (global.get $calls)))"#;

/// Lines of /proc/meminfo that VMs add to, in this order in [`Memory`]. Kernel stacks are part of what is allocated by
/// vmalloc, and so not of the sum.
const KERNEL: [&str; 6] = ["Slab", "PageTables", "SecPageTables", "Percpu", "VmallocUsed", "KernelStack"];
const SUMMED: usize = 5;

fn main() {
    let kvm = match open_kvm() {
        Ok(kvm) => kvm,
        Err(error) => {
            eprintln!("skipped: {error}");
            return;
        }
    };
    raise_descriptor_limit();
    let mut bare = batches(BATCHES, || {
        let mut bare = Bare::new(&kvm, Mode::Ring3);
        bare.run_to_exit();
        bare
    });
    let started = Instant::now();
    (0..ROUNDS).for_each(|_| bare.alive.iter_mut().for_each(Bare::run_to_exit));
    let bare_calls = started.elapsed();
    let bare_drop = Spent::by(|| drop(bare.alive));

    let mut first = Sandbox::builder().module_bytes(MODULE).build().expect("the module can be instantiated");
    assert_eq!(first.call::<_, i32>("count", ()).expect("it returns"), 1);
    let snapshot = first.snapshot().expect("a snapshot can be taken");
    let mut sandboxes = batches(BATCHES, || {
        let mut sandbox = Sandbox::from_snapshot(&snapshot).expect("a sandbox can be made");
        assert_eq!(sandbox.call::<_, i32>("count", ()).expect("it returns"), 2);
        sandbox
    });

    println!("\nOne more idle VM, KiB; medians of batches of {BATCH}\n");
    println!("| | private memory | {} | kernel, all |", KERNEL.join(" | "));
    println!("| --- | ---: |{} ---: |", " ---: |".repeat(KERNEL.len()));
    for (name, each) in [("bare VM, exited once", &bare.each), ("sandbox from a snapshot, called once", &sandboxes.each)] {
        let of = |value: &dyn Fn(&Memory) -> f64| median(each.iter().map(value).collect());
        let kernel: String = (0..KERNEL.len()).map(|line| format!("{:.1} | ", of(&|memory| memory.kernel(line)))).collect();
        let sum = of(&|memory| (0..SUMMED).map(|line| memory.kernel(line)).sum());
        println!("| {name} | {:.1} | {kernel}{sum:.1} |", of(&|memory| memory.private));
    }
    let private = median(sandboxes.each.iter().map(|memory| memory.private).collect());
    let verdict = if private <= TARGET_KIB { "met" } else { "missed" };
    println!("\nprivate memory of one more sandbox: {private:.0} KiB, target ≤ {TARGET_KIB:.0} KiB {verdict}");

    let alive = sandboxes.alive.len();
    let started = Instant::now();
    for round in 0..ROUNDS {
        for sandbox in &mut sandboxes.alive {
            let count = sandbox.call::<_, i32>("count", ()).expect("it returns");
            assert_eq!(usize::try_from(count), Ok(3 + round), "each sandbox counts for itself");
        }
    }
    let calls = started.elapsed();
    let after = Memory::now();
    println!(
        "\n{alive} of them alive in one process, each called in turn {ROUNDS} times; the bare ones are entered to their next exit\n"
    );
    println!(
        "| | calls per second | made and called once: first batch | last batch | dropped |\n| --- | ---: | ---: | ---: | ---: |"
    );
    let row = |name: &str, calls: Duration, first: Spent, last: Spent, dropped: Spent| {
        let per_second = (alive * ROUNDS) as f64 / calls.as_secs_f64();
        println!("| {name} | {per_second:.0} | {first} | {last} | {} |", dropped.each(alive));
    };
    let (resident, own) = (resident_kib() / 1024.0, after.private / 1024.0);
    row("bare VM", bare_calls, bare.first, bare.last, bare_drop);
    row("sandbox", calls, sandboxes.first, sandboxes.last, Spent::by(|| drop(sandboxes.alive)));
    println!("\nwith {alive} sandboxes the process has {resident:.1} MiB resident, {own:.1} MiB of it its own");
}

/// Wall-clock time, and CPU time of this process.
#[derive(Debug, Clone, Copy, Default)]
struct Spent {
    wall: Duration,
    cpu: Duration,
}

impl Spent {
    fn by(what: impl FnOnce()) -> Self {
        let (wall, cpu) = (Instant::now(), cpu_time());
        what();
        Self { wall: wall.elapsed(), cpu: cpu_time().saturating_sub(cpu) }
    }

    /// For each of so many.
    fn each(self, members: usize) -> Self {
        let each = |time: Duration| time.div_f64(members as f64);
        Self { wall: each(self.wall), cpu: each(self.cpu) }
    }
}

impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} µs, {:.0} µs of CPU", micros(self.wall), micros(self.cpu))
    }
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Things that are alive, and what each of them took.
struct Batches<T> {
    alive: Vec<T>,
    each: Vec<Memory>,
    first: Spent,
    last: Spent,
}

fn batches<T>(count: usize, mut make: impl FnMut() -> T) -> Batches<T> {
    // What the first one alone takes does not count.
    let mut alive = vec![make()];
    let (mut each, mut times) = (Vec::new(), Vec::new());
    for batch in 0..count {
        let before = Memory::now();
        let members = if batch == 0 { BATCH - 1 } else { BATCH };
        let spent = Spent::by(|| alive.extend((0..members).map(|_| make())));
        times.push(spent.each(members));
        each.push(Memory::now().since(&before, members as f64));
    }
    let at = |time: Option<&Spent>| time.copied().unwrap_or_default();
    let (first, last) = (at(times.first()), at(times.last()));
    Batches { alive, each, first, last }
}

/// Memory in KiB.
#[derive(Debug, Clone, Copy, Default)]
struct Memory {
    /// Pages that only this process has.
    private: f64,
    kernel: [f64; KERNEL.len()],
}

impl Memory {
    fn now() -> Self {
        let own = read("/proc/self/smaps_rollup");
        let all = read("/proc/meminfo");
        Self { private: line(&own, "Private_Dirty") + line(&own, "Private_Clean"), kernel: KERNEL.map(|name| line(&all, name)) }
    }

    /// What a line of [`KERNEL`] says.
    fn kernel(&self, line: usize) -> f64 {
        self.kernel.get(line).copied().unwrap_or_default()
    }

    /// What each of so many added.
    fn since(&self, before: &Self, members: f64) -> Self {
        let mut kernel = self.kernel;
        for (now, before) in kernel.iter_mut().zip(before.kernel) {
            *now = (*now - before) / members;
        }
        Self { private: (self.private - before.private) / members, kernel }
    }
}

fn resident_kib() -> f64 {
    line(&read("/proc/self/status"), "VmRSS")
}

fn read(path: &str) -> String {
    fs::read_to_string(path).expect("procfs is there")
}

/// The value of a line `name:   123 kB`; 0 where this kernel has none of that name.
fn line(text: &str, name: &str) -> f64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.split_whitespace().next()?.parse().ok());
    value.unwrap_or(0.0)
}

/// A copy takes three descriptors.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    raised.expect("the soft limit may be as high as the hard one");
}
