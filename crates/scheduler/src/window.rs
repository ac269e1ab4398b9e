//! Holds: what a replica showed since the last control decision.

use std::time::Duration;

use batchin_domain::Timestamp;

use crate::policy::MIN_EVIDENCE;

/// What was seen since the last control decision.
#[derive(Debug)]
pub(crate) struct Window {
    pub due: Timestamp,
    gaps: u32,
    gap_micros: u64,
    completions: u32,
    /// Most in flight, by class.
    pub peak: [u32; 4],
    /// The class reached its limit.
    pub used_up: [bool; 4],
    /// The limits were already cut for an error.
    pub cut: bool,
}

impl Window {
    pub fn new(due: Timestamp, in_flight: [u32; 4]) -> Self {
        Self { due, gaps: 0, gap_micros: 0, completions: 0, peak: in_flight, used_up: [false; 4], cut: false }
    }

    pub fn gap(&mut self, gap: Duration) {
        self.gaps = self.gaps.saturating_add(1);
        self.gap_micros = self.gap_micros.saturating_add(u64::try_from(gap.as_micros()).unwrap_or(u64::MAX));
    }

    pub fn completed(&mut self) {
        self.completions = self.completions.saturating_add(1);
    }

    /// Completions count, because some work (embeddings) has no gaps at all.
    pub fn has_evidence(&self) -> bool {
        self.gaps.saturating_add(self.completions) >= MIN_EVIDENCE
    }

    pub fn mean_gap(&self) -> Option<Duration> {
        (self.gaps >= MIN_EVIDENCE).then(|| Duration::from_micros(self.gap_micros / u64::from(self.gaps)))
    }
}
