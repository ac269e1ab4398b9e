//! Holds: `batchin models check`.

use std::io::Write;

use anyhow::Result;
use batchin_domain::IdSource as _;
use batchin_tasks::Tasks;
use batchin_upstream::{Fleet, Health};
use serde_json::json;

use crate::{cli::Outcome, config::Config, wiring, world::World};

/// Asks every upstream whether it lives.
pub(super) async fn run(config: &Config, as_json: bool, out: &mut impl Write) -> Result<Outcome> {
    let tasks = Tasks::new();
    let seed = u64::from(World.uuid().as_fields().0);
    let fleet = Fleet::new(wiring::upstreams(config)?, &tasks, seed)?;
    fleet.probe_all().await;
    let mut outcome = Outcome::Done;
    for replica in fleet.replicas() {
        let status = replica.status();
        let well = status.health == Health::Well;
        if !well {
            outcome = Outcome::Failed;
        }
        if as_json {
            writeln!(out, "{}", json!({ "upstream": status.name, "kind": status.kind.to_string(), "answers": well }))?;
        } else {
            let word = if well { "answers" } else { "does not answer" };
            writeln!(out, "{} ({}) {word}", status.name, status.kind)?;
        }
    }
    tasks.shutdown(std::time::Duration::from_secs(1)).await;
    Ok(outcome)
}
