//! Holds: the token gap that interactive requests see when no batch work disturbs them, by load.

use std::time::Duration;

/// Loads are told apart by their power of two; the last holds all above.
const LOADS: usize = 12;
/// Eight bins an octave: a bin's middle is within 6 % of any gap in it.
const BITS_PER_OCTAVE: u32 = 3;
/// Gaps are counted from 1 ms (2^10 µs) …
const LOWEST_OCTAVE: u32 = 10;
/// … to 17 s (2^24 µs).
const OCTAVES: u32 = 14;
const BINS: usize = (OCTAVES << BITS_PER_OCTAVE) as usize;
/// Fewer say nothing about a median.
const MIN_SAMPLES: u32 = 20;
/// At this many all counts are halved, so that a changed engine is learned anew within as many tokens.
const MAX_SAMPLES: u32 = 1_024;

/// Median gaps by interactive load, in constant memory.
#[derive(Clone, Debug)]
pub(crate) struct Baseline {
    loads: Box<[Histogram; LOADS]>,
}

#[derive(Clone, Debug)]
struct Histogram {
    counts: [u16; BINS],
    total: u32,
}

impl Default for Baseline {
    fn default() -> Self {
        let empty = Histogram { counts: [0; BINS], total: 0 };
        Self { loads: Box::new(std::array::from_fn(|_| empty.clone())) }
    }
}

impl Baseline {
    /// Records a gap seen with `load` requests and no low or fill work in flight.
    pub fn record(&mut self, load: u32, gap: Duration) {
        self.loads[bucket(load)].record(gap);
    }

    /// The median at this load, else at the next lower load that is known, which can only be stricter.
    pub fn median(&self, load: u32) -> Option<Duration> {
        self.loads[..=bucket(load)].iter().rev().find_map(Histogram::median)
    }
}

impl Histogram {
    fn record(&mut self, gap: Duration) {
        if self.total >= MAX_SAMPLES {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().map(|count| u32::from(*count)).sum();
        }
        self.counts[bin(gap)] += 1;
        self.total += 1;
    }

    fn median(&self) -> Option<Duration> {
        if self.total < MIN_SAMPLES {
            return None;
        }
        let mut below = 0;
        let middle = self.counts.iter().position(|count| {
            below += u32::from(*count);
            below * 2 >= self.total
        });
        middle.map(bin_middle)
    }
}

fn bucket(load: u32) -> usize {
    (load.max(1).ilog2() as usize).min(LOADS - 1)
}

fn bin(gap: Duration) -> usize {
    let micros = u64::try_from(gap.as_micros()).unwrap_or(u64::MAX).max(1 << LOWEST_OCTAVE);
    let octave = micros.ilog2();
    let fraction = (micros >> (octave - BITS_PER_OCTAVE)) & ((1 << BITS_PER_OCTAVE) - 1);
    let index = ((octave - LOWEST_OCTAVE) << BITS_PER_OCTAVE) as usize + fraction as usize;
    index.min(BINS - 1)
}

fn bin_middle(bin: usize) -> Duration {
    let (octave, fraction) = (bin >> BITS_PER_OCTAVE, bin as u64 & ((1 << BITS_PER_OCTAVE) - 1));
    let step = 1u64 << (octave + (LOWEST_OCTAVE - BITS_PER_OCTAVE) as usize);
    Duration::from_micros(step * ((1 << BITS_PER_OCTAVE) + fraction) + step / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_within_a_bin_and_follows_a_changed_engine() {
        for micros in [1_100, 7_000, 23_456, 50_000, 999_999, 9_000_000] {
            let mut baseline = Baseline::default();
            (0..MIN_SAMPLES).for_each(|_| baseline.record(3, Duration::from_micros(micros)));
            let median = baseline.median(2).unwrap().as_micros() as f64;
            assert!((median / micros as f64 - 1.0).abs() <= 0.07, "{micros} → {median}");
            (0..2 * MAX_SAMPLES).for_each(|_| baseline.record(3, Duration::from_micros(4_000)));
            assert!(baseline.median(3).unwrap() < Duration::from_micros(4_400));
        }
    }

    #[test]
    fn an_unknown_load_uses_a_lower_one_and_never_a_higher() {
        let mut baseline = Baseline::default();
        (0..MIN_SAMPLES).for_each(|_| baseline.record(4, Duration::from_millis(20)));
        assert_eq!(baseline.median(3), None);
        assert_eq!(baseline.median(64), baseline.median(4));
        assert!(baseline.median(u32::MAX).is_some());
    }

    #[test]
    fn extreme_gaps_stay_inside_the_histogram() {
        for gap in [Duration::ZERO, Duration::from_micros(1), Duration::from_secs(60), Duration::MAX] {
            assert!(bin(gap) < BINS);
        }
    }
}
