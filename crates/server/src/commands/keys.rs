//! Holds: `batchin key`.

use std::io::Write;

use anyhow::{Context as _, Result};
use batchin_api::Secret;
use batchin_batch_cli::Outcome;
use batchin_config::Config;
use batchin_domain::{IdSource as _, KeyId};
use batchin_store::{KeyChange, KeyRow, NewKey, Store};
use serde_json::{Value, json};

use super::cents_number;
use crate::{
    cli::{Key, KeyLimits},
    world::World,
};

/// `batchin key …`
pub(super) async fn run(command: &Key, config: &Config, out: &mut impl Write) -> Result<Outcome> {
    match command {
        Key::Create { .. } => create(command, config, out).await,
        Key::List { email, json } => {
            let store = super::store(config).await?;
            let user = super::user_of(&store, email).await?;
            for key in store.accounts().keys(user.id, super::now()).await? {
                show(&key, *json, out)?;
            }
            Ok(Outcome::Done)
        }
        Key::Revoke { id, json } => {
            let store = super::store(config).await?;
            let account = store.keys().key_record(*id).await?.with_context(|| unknown(*id))?.account;
            store.accounts().delete_key(account, *id, super::now()).await.with_context(|| unknown(*id))?;
            if *json {
                writeln!(out, "{}", json!({ "id": id.to_string(), "revoked": true }))?;
            } else {
                writeln!(out, "{id} is revoked")?;
            }
            Ok(Outcome::Done)
        }
        Key::Limits { id, limits, json } => limit(&super::store(config).await?, *id, *limits, (*json, out)).await,
    }
}

async fn create(command: &Key, config: &Config, out: &mut impl Write) -> Result<Outcome> {
    let Key::Create { email, name, rpm, budget_cents, json } = command else { return Ok(Outcome::Misused) };
    let store = super::store(config).await?;
    let user = super::user_of(&store, email).await?;
    let id = KeyId::new(World.uuid());
    let secret = Secret::api_key(World.secret());
    let new = NewKey {
        id,
        account: user.id,
        hash: secret.hash,
        last4: secret.last4(),
        name: name.clone(),
        rate_limit_rpm: rpm.unwrap_or(config.keys.default_rate_limit_rpm),
        monthly_budget: *budget_cents,
        now: super::now(),
    };
    store.accounts().create_key(new).await?;
    let secret = secret.text;
    if *json {
        writeln!(out, "{}", json!({ "id": id.to_string(), "key": secret }))?;
    } else {
        writeln!(out, "{secret}")?;
    }
    Ok(Outcome::Done)
}

async fn limit(
    store: &Store,
    id: KeyId,
    limits: KeyLimits,
    (as_json, out): (bool, &mut impl Write),
) -> Result<Outcome> {
    let account = store.keys().key_record(id).await?.with_context(|| unknown(id))?.account;
    let budget = limits.no_budget.then_some(None).or_else(|| limits.budget_cents.map(Some));
    let change = KeyChange { rate_limit_rpm: limits.rpm, monthly_budget: budget, ..KeyChange::default() };
    store.accounts().update_key(account, id, change).await.with_context(|| unknown(id))?;
    let keys = store.accounts().keys(account, super::now()).await?;
    let key = keys.iter().find(|key| key.id == id).with_context(|| unknown(id))?;
    show(key, as_json, out)?;
    Ok(Outcome::Done)
}

fn unknown(id: KeyId) -> String {
    format!("no key {id} that works; `batchin key list EMAIL` shows a user's keys")
}

/// A line about a key.
pub(super) fn show(key: &KeyRow, as_json: bool, out: &mut impl Write) -> Result<()> {
    if as_json {
        writeln!(out, "{}", in_json(key)?)?;
        return Ok(());
    }
    let state = if key.is_active { "on" } else { "off" };
    let spent = key.spent_this_month.to_cents_text();
    let budget = key.monthly_budget.map_or_else(String::new, |budget| format!(" of {}¢", budget.to_cents_text()));
    let used = key.last_used_at.map_or_else(|| "never used".to_owned(), |at| format!("last used {at}"));
    let name = key.name.as_ref().map_or_else(String::new, |name| format!("  {name}"));
    let (id, last4, rpm) = (key.id, &key.last4, key.rate_limit_rpm);
    writeln!(out, "{id}  …{last4}  {state}  {rpm}/min  {spent}¢{budget} this month  {used}{name}")?;
    Ok(())
}

/// With the names that the API has for it.
pub(super) fn in_json(key: &KeyRow) -> Result<Value> {
    Ok(json!({
        "id": key.id.to_string(),
        "last_four": key.last4,
        "name": key.name,
        "rate_limit_rpm": key.rate_limit_rpm,
        "monthly_budget_cents": key.monthly_budget.map(|budget| cents_number(&budget.to_cents_text())).transpose()?,
        "spent_this_month_cents": cents_number(&key.spent_this_month.to_cents_text())?,
        "is_active": key.is_active,
        "created_at": key.created_at.to_string(),
        "last_used_at": key.last_used_at.map(|at| at.to_string()),
    }))
}
