//! Comparing two things on a machine whose speed changes: both are measured in turns, and each turn gives a ratio.

#![allow(dead_code, reason = "no benchmark needs all of it")]

use std::time::{Duration, Instant};

/// What came of a comparison, in microseconds: medians of all turns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Compared {
    pub(crate) floor_us: f64,
    pub(crate) candidate_us: f64,
    /// The median of the ratios of the turns.
    pub(crate) ratio: f64,
}

/// Measures `floor` and `candidate` alternately, in `turns` turns of `times` times each. Both return how long they took, so
/// that they can leave out what is not to be counted.
pub(crate) fn compare(
    turns: usize,
    times: usize,
    mut floor: impl FnMut() -> Duration,
    mut candidate: impl FnMut() -> Duration,
) -> Compared {
    let (mut floors, mut candidates, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..turns {
        let floor_us = median((0..times).map(|_| micros(floor())).collect());
        let candidate_us = median((0..times).map(|_| micros(candidate())).collect());
        floors.push(floor_us);
        candidates.push(candidate_us);
        ratios.push(candidate_us / floor_us);
    }
    Compared { floor_us: median(floors), candidate_us: median(candidates), ratio: median(ratios) }
}

/// How long it takes.
pub(crate) fn time<R>(what: impl FnOnce() -> R) -> Duration {
    let started = Instant::now();
    let result = what();
    let elapsed = started.elapsed();
    // Not counted, unless `what` drops it.
    drop(result);
    elapsed
}

pub(crate) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The middle one; of an even number the upper one of both.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}
