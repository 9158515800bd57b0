//! How long a restore takes: against the pages that a call wrote, and against the size of RAM.
//!
//! `cargo bench -p mote-vmm --bench restore` prints the figures; with `-- --write-docs` the plots in `docs/` are made anew.
//! Needs `/dev/kvm`.

#![expect(clippy::expect_used, reason = "a benchmark that fails has nothing to go on with")]

#[path = "support/plot.rs"]
mod plot;
#[path = "support/rounds.rs"]
mod rounds;

use std::{error::Error, path::Path};

use mote_vmm::{Sandbox, Snapshot, open_kvm};
use plot::{Plot, Series};
use rounds::{median, micros, time};

const MIB: u64 = 1 << 20;
/// Pages that are written where that is not what is varied.
const FEW_PAGES: u32 = 16;
const MOST_PAGES: u32 = 4096;
/// All points are measured in turns, so that what disturbs the machine disturbs all of them. Each turn begins with rounds that
/// do not count: in the first one pages become the sandbox's own, in later ones the processor's caches get warm again.
const TURNS: usize = 7;
const ROUNDS_BEFORE: usize = 3;
const ROUNDS: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    if let Err(error) = open_kvm() {
        eprintln!("skipped: {error}");
        return Ok(());
    }
    let docs = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs"));
    let writes_docs = std::env::args().any(|argument| argument == "--write-docs");
    by_pages(writes_docs.then_some(docs))?;
    by_ram(writes_docs.then_some(docs))
}

/// Whether memory holds something when the snapshot is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Zeros,
    Filled,
}

fn by_pages(docs: Option<&Path>) -> Result<(), Box<dyn Error>> {
    let pages: Vec<u32> = (0..=MOST_PAGES.ilog2()).map(|power| 1 << power).collect();
    let measured = |before| {
        let snapshot = snapshot(64 * MIB, u64::from(MOST_PAGES) * 4096, before);
        let subjects = pages.iter().map(|pages| Subject::new(&snapshot, *pages, f64::from(*pages))).collect();
        measure(subjects)
    };
    let (filled, zeros) = (measured(Before::Filled), measured(Before::Zeros));
    let fixed_us = filled.iter().map(|(_, us)| *us).fold(f64::INFINITY, f64::min);
    let each_us = filled.last().map_or(0.0, |(pages, us)| (us - fixed_us) / pages);
    let series = [
        Series { name: "memory that held something".into(), points: filled.clone() },
        Series { name: "memory that was zeros".into(), points: zeros },
        Series {
            name: format!("{fixed_us:.0} us + {each_us:.2} us a page"),
            points: filled.iter().map(|(pages, _)| (*pages, fixed_us + each_us * pages)).collect(),
        },
    ];
    let plot = Plot {
        title: "Restore of a sandbox by pages written since the snapshot",
        notes: &[
            format!(
                "Sandbox::restore alone, median of {} rounds of call and restore, a fresh copy for each point, 64 MiB of RAM.",
                TURNS * ROUNDS
            ),
            "The call writes one byte in each of so many pages of 4 KiB that lie side by side in linear memory; the guest's"
                .into(),
            "own pages (stack, mailbox) come on top. Pages that a copy wrote once stay its own.".into(),
        ],
        x: "pages written",
        y: "restore in microseconds",
        series: &series,
    };
    print(&plot);
    match docs {
        Some(docs) => plot.write_logarithmic(&docs.join("restore-by-pages")),
        None => Ok(()),
    }
}

fn by_ram(docs: Option<&Path>) -> Result<(), Box<dyn Error>> {
    let measured = |sizes: &[u64], memory_bytes: fn(u64) -> u64, before| {
        let subject = |mib: &u64| {
            let snapshot = snapshot(mib * MIB, memory_bytes(mib * MIB), before);
            Subject::new(&snapshot, FEW_PAGES, *mib as f64)
        };
        measure(sizes.iter().map(subject).collect())
    };
    let series = [
        Series {
            name: "1 MiB of memory in use".into(),
            points: measured(&[64, 128, 256, 512, 1024, 2048, 4096], |_| MIB, Before::Filled),
        },
        Series {
            name: "half of RAM filled before the snapshot".into(),
            points: measured(&[64, 128, 256, 512, 1024], |ram_bytes| ram_bytes / 2, Before::Filled),
        },
    ];
    let plot = Plot {
        title: "Restore of a sandbox by size of RAM",
        notes: &[
            format!(
                "Sandbox::restore alone, median of {} rounds of call and restore, a fresh copy for each point.",
                TURNS * ROUNDS
            ),
            format!("The call writes one byte in each of {FEW_PAGES} pages of 4 KiB, whatever the size of RAM."),
        ],
        x: "RAM in MiB",
        y: "restore in microseconds",
        series: &series,
    };
    print(&plot);
    match docs {
        Some(docs) => plot.write_linear(&docs.join("restore-by-ram")),
        None => Ok(()),
    }
}

/// A snapshot of a sandbox with so much RAM and so much linear memory.
fn snapshot(ram_bytes: u64, memory_bytes: u64, before: Before) -> Snapshot {
    let text = format!(
        r#"(module
             (memory (export "memory") {})
             (func (export "fill") (memory.fill (i32.const 0) (i32.const 7) (i32.mul (memory.size) (i32.const 65536))))
             (func (export "write") (param $pages i32)
               (if (local.get $pages) (then
                 loop
                   (local.set $pages (i32.sub (local.get $pages) (i32.const 1)))
                   (i32.store8 (i32.mul (local.get $pages) (i32.const 4096)) (i32.const 1))
                   (br_if 0 (local.get $pages))
                 end))))"#,
        memory_bytes >> 16
    );
    let builder = Sandbox::builder().module_bytes(text).ram_bytes(ram_bytes).without_deadline();
    let mut sandbox = builder.build().expect("the module can be instantiated");
    // The engine translates a function at its first call.
    sandbox.call::<_, ()>("write", 0).expect("it returns");
    if before == Before::Filled {
        sandbox.call::<_, ()>("fill", ()).expect("it returns");
    }
    sandbox.snapshot().expect("a snapshot can be taken")
}

/// A copy of a snapshot whose calls write so many pages.
struct Subject {
    snapshot: Snapshot,
    sandbox: Sandbox,
    pages: u32,
    x: f64,
}

impl Subject {
    fn new(snapshot: &Snapshot, pages: u32, x: f64) -> Self {
        let sandbox = Sandbox::from_snapshot(snapshot).expect("a sandbox can be made");
        Self { snapshot: snapshot.clone(), sandbox, pages, x }
    }

    /// Calls, and restores in so many microseconds.
    fn round(&mut self) -> f64 {
        self.sandbox.call::<_, ()>("write", self.pages.cast_signed()).expect("it returns");
        let took = time(|| self.sandbox.restore(&self.snapshot).expect("it can be restored"));
        micros(took)
    }
}

/// The median of each, all measured in turns.
fn measure(mut subjects: Vec<Subject>) -> Vec<(f64, f64)> {
    let mut all = vec![Vec::new(); subjects.len()];
    for _ in 0..TURNS {
        for (subject, times) in subjects.iter_mut().zip(&mut all) {
            times.extend((0..ROUNDS_BEFORE + ROUNDS).map(|_| subject.round()).skip(ROUNDS_BEFORE));
        }
    }
    subjects.iter().zip(all).map(|(subject, times)| (subject.x, median(times))).collect()
}

fn print(plot: &Plot<'_>) {
    println!("\n{}\n", plot.title);
    for Series { name, points } in plot.series {
        println!("| {} | {name}: {} |\n| ---: | ---: |", plot.x, plot.y);
        for (x, y) in points {
            println!("| {x} | {y:.1} |");
        }
        println!();
    }
}
