//! Holds: `batchin ledger check`.

use std::io::Write;

use anyhow::Result;
use batchin_batch_cli::{Outcome, counted};
use batchin_config::Config;
use serde_json::json;

/// Recomputes the ledger and says what does not add up.
pub(super) async fn run(config: &Config, as_json: bool, out: &mut impl Write) -> Result<Outcome> {
    let report = super::store(config).await?.check().await?;
    let clean = report.faults.is_empty();
    if as_json {
        let faults: Vec<_> = report
            .faults
            .iter()
            .map(|fault| {
                json!({ "rule": fault.rule, "subject": fault.subject,
                    "expected_nano": fault.expected.to_string(), "found_nano": fault.found.to_string() })
            })
            .collect();
        let report = json!({ "ok": clean, "accounts": report.accounts, "transfers": report.transfers,
            "usage_rows": report.usage_rows, "capped_rows": report.capped_rows, "leased_nano": report.leased_nanos.to_string(),
            "late_nano": report.late_nanos.to_string(), "faults": faults });
        writeln!(out, "{report}")?;
    } else {
        for fault in &report.faults {
            writeln!(out, "FAULT {}: {} should be {}, is {}", fault.rule, fault.subject, fault.expected, fault.found)?;
        }
        writeln!(
            out,
            "{}, {}, {}: {}",
            counted(report.accounts, "account"),
            counted(report.transfers, "transfer"),
            counted(report.usage_rows, "usage row"),
            if clean { "everything adds up" } else { "the ledger does NOT add up" }
        )?;
        if report.capped_rows > 0 {
            writeln!(out, "{} usage rows were capped at what was held for them", report.capped_rows)?;
        }
        if report.late_nanos > 0 {
            writeln!(out, "{} nano-dollars of usage came too late and are ours to bear", report.late_nanos)?;
        }
    }
    Ok(if clean { Outcome::Done } else { Outcome::Failed })
}
