//! Latencies: any number of them in little room, their percentiles, and a histogram for people.

use std::{fmt::Write, time::Duration};

use serde::Serialize;

/// A power of two is divided into so many buckets, so that percentiles are right within a hundredth.
const STEPS: usize = 128;
const STEP_BITS: u32 = STEPS.ilog2();

/// Counts by size; nanoseconds.
#[derive(Debug, Clone)]
pub(crate) struct Latencies {
    buckets: Vec<u64>,
    count: u64,
    sum_ns: u128,
    min_ns: u64,
    max_ns: u64,
}

/// What is told of them, in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Summary {
    pub(crate) min: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    #[serde(rename = "p99.9")]
    pub(crate) p99_9: f64,
    pub(crate) max: f64,
    pub(crate) mean: f64,
}

/// A row of a histogram: latencies from one bound, in microseconds, to below the next.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Row {
    pub(crate) from_us: f64,
    pub(crate) to_us: f64,
    pub(crate) count: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { buckets: Vec::new(), count: 0, sum_ns: 0, min_ns: u64::MAX, max_ns: 0 }
    }
}

impl Latencies {
    pub(crate) fn add(&mut self, latency: Duration) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        let index = bucket(ns);
        if self.buckets.len() <= index {
            self.buckets.resize(index + 1, 0);
        }
        if let Some(count) = self.buckets.get_mut(index) {
            *count += 1;
        }
        self.count += 1;
        self.sum_ns += u128::from(ns);
        (self.min_ns, self.max_ns) = (self.min_ns.min(ns), self.max_ns.max(ns));
    }

    /// Adds those of another.
    pub(crate) fn merge(&mut self, other: &Self) {
        if self.buckets.len() < other.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(here, there)| *here += there);
        self.count += other.count;
        self.sum_ns += other.sum_ns;
        (self.min_ns, self.max_ns) = (self.min_ns.min(other.min_ns), self.max_ns.max(other.max_ns));
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// `None` if there are none.
    pub(crate) fn summary(&self) -> Option<Summary> {
        let at = |per_mille: u64| us(self.percentile(per_mille));
        (self.count > 0).then(|| Summary {
            min: us(self.min_ns),
            p50: at(500),
            p90: at(900),
            p99: at(990),
            p99_9: at(999),
            max: us(self.max_ns),
            mean: us(u64::try_from(self.sum_ns / u128::from(self.count)).unwrap_or(u64::MAX)),
        })
    }

    /// The latency, in nanoseconds, that so many of a thousand do not exceed.
    fn percentile(&self, per_mille: u64) -> u64 {
        let rank = (u128::from(self.count) * u128::from(per_mille)).div_ceil(1000).max(1);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += u128::from(*count);
            if seen >= rank {
                // The middle of the bucket, which may lie beyond what there is.
                let (first, next) = (first_of(index), first_of(index + 1));
                return (first + (next - first) / 2).clamp(self.min_ns, self.max_ns);
            }
        }
        self.max_ns
    }

    /// Rows from the least to the largest latency. Up to the one that nine of ten do not exceed they have about the same ratio
    /// of bounds, as fine as fits; beyond, each reaches to twice its beginning, and the last to the end.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let used = self.buckets.iter().enumerate().filter(|(_, count)| **count > 0).map(|(index, _)| index);
        let (Some(first), Some(last)) = (used.clone().min(), used.max()) else { return Vec::new() };
        let most = bucket(self.percentile(900));
        // In buckets; powers of two, so that rows begin at powers of two.
        let mut width = STEPS / 16;
        while most / width - first / width >= FINE_ROWS {
            width *= 2;
        }
        let mut bounds: Vec<_> = (first / width..=most / width + 1).map(|index| index * width).collect();
        let mut end = (most / width + 1) * width;
        for row in 1..=TAIL_ROWS {
            if end <= last {
                end = if row == TAIL_ROWS { last + 1 } else { end + STEPS };
                bounds.push(end);
            }
        }
        let row = |(from, to): (&usize, &usize)| Row {
            from_us: us(first_of(*from)),
            to_us: us(first_of(*to)),
            count: self.buckets.iter().take(*to).skip(*from).sum(),
        };
        bounds.iter().zip(bounds.iter().skip(1)).map(row).collect()
    }
}

const FINE_ROWS: usize = 10;
const TAIL_ROWS: usize = 6;

/// Rows with bars whose length shows the count.
pub(crate) fn draw(rows: &[Row]) -> String {
    const LONGEST: u64 = 40;
    let most = rows.iter().map(|row| row.count).max().unwrap_or(1).max(1);
    let mut text = String::new();
    for Row { from_us, to_us, count } in rows {
        // One that is there at all has a bar.
        let length = usize::try_from((u128::from(*count) * u128::from(LONGEST)).div_ceil(u128::from(most))).unwrap_or(0);
        // Writing to a string cannot fail.
        let _written = writeln!(text, "{from_us:>10.1} – {to_us:>10.1}  {:<40} {count}", "#".repeat(length));
    }
    text
}

/// Microseconds. Latencies are short enough for this to be exact.
fn us(ns: u64) -> f64 {
    ns as f64 / 1e3
}

/// The bucket of a value. Small ones have buckets of their own; above that each power of two has [`STEPS`].
fn bucket(ns: u64) -> usize {
    let index = match ns.checked_ilog2() {
        Some(power) if power >= STEP_BITS => {
            let shift = power - STEP_BITS;
            u64::from(shift) * STEPS as u64 + (ns >> shift)
        }
        _ => ns,
    };
    usize::try_from(index).unwrap_or(usize::MAX)
}

/// The least value of a bucket.
fn first_of(index: usize) -> u64 {
    match (index / STEPS).checked_sub(1) {
        None => index as u64,
        Some(shift) => {
            let base = (index - shift * STEPS) as u64;
            u32::try_from(shift).ok().and_then(|shift| base.checked_mul(1u64.checked_shl(shift)?)).unwrap_or(u64::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(values: &[u64]) -> Latencies {
        let mut latencies = Latencies::default();
        values.iter().for_each(|ns| latencies.add(Duration::from_nanos(*ns)));
        latencies
    }

    proptest! {
        #[test]
        fn a_bucket_holds_what_is_close_together(ns in 0..u64::MAX / 2) {
            let index = bucket(ns);
            let (first, next) = (first_of(index), first_of(index + 1));
            prop_assert!(first <= ns && ns < next, "{first} <= {ns} < {next}");
            prop_assert!(next - first == 1 || (next - first) as f64 <= first as f64 / 100.0);
        }

        #[test]
        fn percentiles_are_right_within_a_hundredth(mut values in prop::collection::vec(1u64..10_000_000_000, 1..300), split in any::<prop::sample::Index>()) {
            let (left, right) = values.split_at(split.index(values.len()));
            let mut latencies = of(left);
            latencies.merge(&of(right));
            values.sort_unstable();
            let exact = |per_mille: usize| values[(values.len() * per_mille).div_ceil(1000).max(1) - 1] as f64 / 1e3;
            let summary = latencies.summary().unwrap();
            let close = |found: f64, per_mille| (found - exact(per_mille)).abs() <= exact(per_mille) / 100.0 + 1e-3;
            prop_assert!(close(summary.p50, 500) && close(summary.p90, 900) && close(summary.p99, 990) && close(summary.p99_9, 999));
            prop_assert_eq!((summary.min, summary.max), (exact(0), exact(1000)));
            let rows = latencies.rows();
            prop_assert!(rows.len() <= FINE_ROWS + TAIL_ROWS);
            prop_assert_eq!(rows.iter().map(|row| row.count).sum::<u64>(), values.len() as u64);
            prop_assert!(rows[0].from_us <= summary.min && summary.max <= rows.last().unwrap().to_us);
            prop_assert!(rows.windows(2).all(|pair| pair[0].to_us == pair[1].from_us));
        }
    }

    #[test]
    fn bars_are_as_long_as_counts_are_large() {
        let row = |from_us, count| Row { from_us, to_us: from_us * 2.0, count };
        let text = draw(&[row(1.0, 100), row(2.0, 0), row(4.0, 1), row(8.0, 50)]);
        let bars: Vec<_> = text.lines().map(|line| line.matches('#').count()).collect();
        assert_eq!(bars, [40, 0, 1, 20]);
        assert!(of(&[]).summary().is_none() && of(&[]).rows().is_empty());
    }
}
