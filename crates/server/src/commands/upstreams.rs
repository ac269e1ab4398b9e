//! Holds: `batchin upstreams`.

use std::{collections::BTreeMap, io::Write};

use anyhow::{Result, bail};
use batchin_batch_cli::{Outcome, counted};
use batchin_config::Config;
use batchin_domain::NodeId;
use batchin_store::{Drain, Drains};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::cli::Upstreams;

/// A model server as the command shows it.
struct Shown {
    name: String,
    /// `None`: it has left the configuration.
    kind: Option<&'static str>,
    models: Vec<String>,
    drain: Option<Drain>,
    films: u64,
}

/// `batchin upstreams …`
pub(super) async fn run(command: &Upstreams, config: &Config, out: &mut impl Write) -> Result<Outcome> {
    let store = super::store(config).await?;
    let drains = store.drains();
    let (name, as_json) = match command {
        Upstreams::List(report) => (None, report.json),
        Upstreams::Drain { name, json } => {
            expect_configured(config, name)?;
            drains.drain(name, None, super::now()).await?;
            (Some(name), *json)
        }
        Upstreams::Resume { name, json } => {
            if !all(config, &drains).await?.iter().any(|one| one.name == *name) {
                expect_configured(config, name)?;
            }
            drains.resume(name).await?;
            (Some(name), *json)
        }
    };
    for upstream in all(config, &drains).await? {
        if name.is_none_or(|name| *name == upstream.name) {
            show(&upstream, as_json, out)?;
        }
    }
    Ok(Outcome::Done)
}

fn expect_configured(config: &Config, name: &str) -> Result<()> {
    if config.upstreams.iter().any(|upstream| upstream.name() == name) {
        return Ok(());
    }
    bail!("the configuration has no upstream {name}; `batchin upstreams list` shows those that it has")
}

/// The configured ones in the order of the file, then those that are drained and have left it.
async fn all(config: &Config, drains: &Drains) -> Result<Vec<Shown>> {
    // No node: what all of them have under way is elsewhere.
    let found = drains.drains(NodeId::new(Uuid::nil())).await?;
    let mut found: BTreeMap<String, Drain> = found.into_iter().map(|one| (one.upstream.clone(), one)).collect();
    let films: BTreeMap<String, u64> = drains.films_made().await?.into_iter().collect();
    let films = |name: &str| films.get(name).copied().unwrap_or_default();
    let mut shown: Vec<Shown> = Vec::new();
    for upstream in &config.upstreams {
        let name = upstream.name();
        let models = config.models.iter().filter(|model| model.upstreams.iter().any(|one| one == name));
        shown.push(Shown {
            name: name.to_owned(),
            kind: Some(upstream.kind().name),
            models: models.map(|model| model.id.clone()).collect(),
            drain: found.remove(name),
            films: films(name),
        });
    }
    let left = found.into_iter().map(|(name, drain)| {
        let films = films(&name);
        Shown { name, kind: None, models: Vec::new(), drain: Some(drain), films }
    });
    shown.extend(left);
    Ok(shown)
}

fn show(upstream: &Shown, as_json: bool, out: &mut impl Write) -> Result<()> {
    if as_json {
        writeln!(out, "{}", in_json(upstream))?;
        return Ok(());
    }
    let Shown { name, kind, models, drain, films } = upstream;
    let kind = kind.unwrap_or("not in the configuration");
    let state = match drain {
        None => "in service".to_owned(),
        Some(drain) => {
            let by = drain.by.as_deref().unwrap_or("the command line");
            let rest = match (drain.elsewhere, *films) {
                (None, _) => "not every node has taken notice yet".to_owned(),
                (Some(0), 0) => "idle: it can be stopped".to_owned(),
                (Some(calls), films) => format!("{}, {} under way", counted(calls, "call"), counted(films, "film")),
            };
            format!("drained since {} by {by}, {rest}", drain.since)
        }
    };
    writeln!(out, "{name}  {kind}  {}  {state}", models.join(", "))?;
    Ok(())
}

/// With the names that the API has for it.
fn in_json(upstream: &Shown) -> Value {
    let Shown { name, kind, models, drain, films } = upstream;
    let outstanding = drain.as_ref().and_then(|drain| drain.elsewhere);
    json!({
        "name": name,
        "kind": kind,
        "models": models,
        "outstanding": outstanding,
        "films": films,
        "drained": drain.is_some(),
        "drained_at": drain.as_ref().map(|drain| drain.since.to_string()),
        "drained_by": drain.as_ref().and_then(|drain| drain.by.as_deref()),
        "idle": (outstanding, *films) == (Some(0), 0),
        "removed": kind.is_none(),
    })
}
