//! Holds: `batchin credits`.

use std::{collections::HashMap, io::Write};

use anyhow::{Context as _, Result, bail};
use batchin_batch_cli::Outcome;
use batchin_config::Config;
use batchin_domain::{AccountId, IdSource as _, TransferId};
use batchin_store::{AdminAction, CorrectError, CreditGrant, Store, WantedActions};
use serde_json::json;

use super::{COMMAND_LINE, cents_number};
use crate::{
    cli::{Credit, Credits},
    world::World,
};

/// `batchin credits …`
pub(super) async fn run(command: &Credits, config: &Config, out: &mut impl Write) -> Result<Outcome> {
    let store = super::store(config).await?;
    match command {
        Credits::Grant { email, cents, reason, json } => grant(&store, (email, *cents, reason), (*json, out)).await,
        Credits::Log { account, limit, json } => log(&store, (account.as_deref(), *limit), (*json, out)).await,
    }
}

async fn grant(
    store: &Store,
    (email, cents, reason): (&str, Credit, &str),
    (as_json, out): (bool, &mut impl Write),
) -> Result<Outcome> {
    let user = super::user_of(store, email).await?;
    let (Credit::Given(amount) | Credit::TakenBack(amount)) = cents;
    let grant = CreditGrant {
        id: TransferId::new(World.uuid()),
        account: user.id,
        amount,
        actor: COMMAND_LINE.to_owned(),
        reason: reason.to_owned(),
        reference: None,
        reverses: None,
        now: super::now(),
    };
    let booked = match cents {
        Credit::Given(_) => store.credit().grant_credit(grant).await?,
        Credit::TakenBack(_) => take_back(store, grant, &user.email).await?,
    };
    let balance = store.accounts().user(user.id).await?.context("the user is gone")?.balance.to_cents_text();
    if as_json {
        writeln!(out, "{}", json!({ "id": booked.to_string(), "credit_balance_cents": cents_number(&balance)? }))?;
    } else {
        writeln!(out, "{} has {balance}¢", user.email)?;
    }
    Ok(Outcome::Done)
}

async fn take_back(store: &Store, correction: CreditGrant, email: &str) -> Result<TransferId> {
    let asked = correction.amount;
    match store.credit().correct_credit(correction).await {
        Err(CorrectError::Insufficient { available }) => bail!(
            "{}¢ cannot be taken back: {email} has {}¢ that are not spent and not set aside for requests",
            asked.to_cents_text(),
            available.to_cents_text()
        ),
        other => Ok(other?),
    }
}

/// Newest first.
async fn log(
    store: &Store,
    (email, limit): (Option<&str>, u32),
    (as_json, out): (bool, &mut impl Write),
) -> Result<Outcome> {
    let account = match email {
        Some(email) => Some(super::user_of(store, email).await?.id),
        None => None,
    };
    let mut emails: HashMap<AccountId, String> = HashMap::new();
    for action in store.admin_log().actions(WantedActions { limit, after: None, account }).await? {
        let known = action.account.and_then(|id| emails.get(&id).cloned());
        let email = match (known, action.account) {
            (None, Some(id)) => store.accounts().user(id).await?.map(|user| user.email),
            (known, _) => known,
        };
        if let Some((id, email)) = action.account.zip(email.clone()) {
            emails.insert(id, email);
        }
        show(&action, email.as_deref(), as_json, out)?;
    }
    Ok(Outcome::Done)
}

/// A line about an action; with the names that the API has for it, and the email beside them.
fn show(entry: &AdminAction, email: Option<&str>, as_json: bool, out: &mut impl Write) -> Result<()> {
    let AdminAction { id, actor, action, account, subject: _, amount, reason, created_at } = entry;
    let cents = amount.map(|amount| amount.to_cents_text());
    if as_json {
        let cents = cents.map(|text| cents_number(&text)).transpose()?;
        let account = account.map(|account| account.to_string());
        let line = json!({ "id": id, "actor": actor, "action": action, "account_id": account, "email": email,
            "amount_cents": cents, "reason": reason, "created_at": created_at.to_string() });
        writeln!(out, "{line}")?;
        return Ok(());
    }
    let cents = cents.map_or_else(|| "-".to_owned(), |cents| format!("{cents}¢"));
    // A reason is what somebody typed, and one line here.
    let reason = reason.replace(char::is_control, " ");
    writeln!(out, "{created_at}  {action}  {cents}  {}  by {actor}  {reason}", email.unwrap_or("-"))?;
    Ok(())
}
