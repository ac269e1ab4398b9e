//! Holds: `batchin models check`, and what it shares with `batchin doctor`: asking every upstream what it has.

use std::{io::Write, time::Duration};

use anyhow::Result;
use batchin_batch_cli::Outcome;
use batchin_config::Config;
use batchin_domain::IdSource as _;
use batchin_tasks::Tasks;
use batchin_upstream::{Check, Fleet, Kind};
use serde_json::json;

use crate::world::World;

/// Nothing is under way by then but the connections' ends.
const PATIENCE: Duration = Duration::from_secs(1);

/// What an upstream says when it is asked with our key.
pub(super) struct Asked {
    /// Its configured name.
    pub(super) name: String,
    /// The program behind it.
    pub(super) kind: Kind,
    /// What it said.
    pub(super) check: Check,
    /// The models that it is to serve and that it does not list, by its own names for them.
    pub(super) missing: Vec<String>,
}

impl Asked {
    /// Whether calls can be expected to work.
    pub(super) fn is_well(&self) -> bool {
        matches!(self.check, Check::Lists(_) | Check::NoList) && self.missing.is_empty()
    }

    /// What was found, for people.
    pub(super) fn verdict(&self) -> String {
        match &self.check {
            Check::Silent => "does not answer".to_owned(),
            Check::KeyRefused => "refuses our key".to_owned(),
            Check::QuotaUsedUp => "wants to be paid: our account there is used up".to_owned(),
            Check::Refuses(status) => format!("answers with status {status}"),
            Check::NoList => "answers, and has no list of its models".to_owned(),
            Check::Lists(_) if self.missing.is_empty() => "answers, and has its models".to_owned(),
            Check::Lists(_) => format!("answers, and does not list {}", self.missing.join(", ")),
        }
    }
}

/// Asks every upstream of these kinds for its models.
pub(super) async fn ask(config: &Config, wanted: impl Fn(Kind) -> bool) -> Result<Vec<Asked>> {
    let tasks = Tasks::new();
    let seed = u64::from(World.uuid().as_fields().0);
    let upstreams = config.upstreams.iter().filter(|upstream| wanted(upstream.kind())).cloned().collect();
    let fleet = Fleet::new(upstreams, &tasks, seed)?;
    let asked = fleet.replicas().into_iter().map(|replica| async move {
        let (name, kind, check) = (replica.name().to_owned(), replica.kind(), replica.check().await);
        let missing = match &check {
            Check::Lists(listed) => missing(config, &name, |model| kind.has(listed, model)),
            _ => Vec::new(),
        };
        Asked { name, kind, check, missing }
    });
    let asked = futures::future::join_all(asked).await;
    tasks.shutdown(PATIENCE).await;
    Ok(asked)
}

/// The upstream's own names of the models that it is to serve and does not have.
fn missing(config: &Config, upstream: &str, has: impl Fn(&str) -> bool) -> Vec<String> {
    let served = config.models.iter().filter(|model| model.upstreams.iter().any(|name| name == upstream));
    let names = served.map(|model| model.upstream_name());
    let mut missing: Vec<String> = names.filter(|name| !has(name)).map(str::to_owned).collect();
    missing.sort();
    missing.dedup();
    missing
}

/// Asks every upstream whether it lives, takes our key and has the models that it is to serve.
pub(super) async fn run(config: &Config, as_json: bool, out: &mut impl Write) -> Result<Outcome> {
    let mut outcome = Outcome::Done;
    for asked in ask(config, |_| true).await? {
        if !asked.is_well() {
            outcome = Outcome::Failed;
        }
        let verdict = asked.verdict();
        let Asked { name, kind, check, missing } = &asked;
        if as_json {
            let answers = *check != Check::Silent;
            let row = json!({ "upstream": name, "kind": kind.to_string(), "answers": answers, "ok": asked.is_well(),
                "verdict": verdict, "missing_models": missing });
            writeln!(out, "{row}")?;
        } else {
            writeln!(out, "{name} ({kind}) {verdict}")?;
        }
    }
    Ok(outcome)
}
