//! Holds: what `batchin ledger check --json` says.

use serde_json::Value;

/// The ledger as it was recomputed.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// Nano-dollars that servers have leased.
    pub leased: i64,
    /// Nano-dollars of usage that came too late and are ours to bear.
    pub late: i64,
    /// Rows of usage.
    pub usage_rows: u64,
}

impl Ledger {
    /// Reads a report and fails on the first thing that does not add up.
    pub fn clean(report: &str) -> Self {
        let report: Value = serde_json::from_str(report).expect("the report is JSON");
        assert_eq!(report["ok"], true, "the ledger does not add up: {report}");
        let nanos = |field: &str| report[field].as_str().and_then(|text| text.parse().ok()).expect("nano-dollars");
        Self {
            leased: nanos("leased_nano"),
            late: nanos("late_nano"),
            usage_rows: report["usage_rows"].as_u64().expect("a count"),
        }
    }
}
