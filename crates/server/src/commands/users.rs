//! Holds: `batchin user`, `batchin key` and `batchin credits`.

use std::io::{Read as _, Write};

use anyhow::{Context as _, Result, bail};
use batchin_api::{Secret, contact, password};
use batchin_domain::{AccountId, IdSource as _, KeyId, TransferId};
use batchin_store::{CreateUserError, CreditGrant, NewKey, NewUser, Role};
use serde_json::json;

use crate::{
    cli::{Credits, Key, Outcome, Report, User},
    config::Config,
    world::World,
};

/// Users listed at most; an operator with more asks the database.
const MAX_LISTED: u32 = 10_000;

/// `batchin user …`
pub(super) async fn user(command: &User, config: &Config, out: &mut impl Write) -> Result<Outcome> {
    match command {
        User::Create { email, name, password_stdin, admin, json } => {
            let email = contact::email(email)?;
            let secret = if *password_stdin {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text)?;
                text.trim_end_matches(['\r', '\n']).to_owned()
            } else {
                // Nobody knows it; the user can log in once a password is set.
                hex::encode(World.secret())
            };
            let name = name.clone().unwrap_or_else(|| email.split('@').next().unwrap_or(&email).to_owned());
            let new = NewUser {
                id: AccountId::new(World.uuid()),
                email,
                name,
                password_hash: password::hash(&secret, World.secret()).context("the password could not be hashed")?,
                role: if *admin { Role::Admin } else { Role::User },
                now: super::now(),
            };
            let store = super::store(config).await?;
            let user = match store.create_user(new).await {
                Ok(user) => user,
                Err(CreateUserError::EmailTaken) => bail!("the email is registered already"),
                Err(other) => return Err(other.into()),
            };
            if *json {
                writeln!(out, "{}", json!({ "id": user.id.to_string(), "email": user.email, "name": user.name }))?;
            } else {
                writeln!(out, "{} {}", user.id, user.email)?;
            }
            Ok(Outcome::Done)
        }
        User::List(Report { json }) => list(config, *json, out).await,
        User::Disable { email } => set_disabled(email, true, config, out).await,
        User::Enable { email } => set_disabled(email, false, config, out).await,
    }
}

async fn set_disabled(email: &str, disabled: bool, config: &Config, out: &mut impl Write) -> Result<Outcome> {
    let store = super::store(config).await?;
    let user = super::user_of(&store, email).await?;
    store.set_user_disabled(user.id, disabled).await?;
    writeln!(out, "{} is {}", user.email, if disabled { "disabled" } else { "enabled" })?;
    Ok(Outcome::Done)
}

async fn list(config: &Config, as_json: bool, out: &mut impl Write) -> Result<Outcome> {
    for user in super::store(config).await?.users(MAX_LISTED).await? {
        let (id, cents) = (user.id.to_string(), user.balance.to_cents_text());
        if as_json {
            let role = if user.role == Role::Admin { "admin" } else { "user" };
            let row = json!({ "id": id, "email": user.email, "name": user.name, "role": role, "disabled": user.disabled,
                "credit_balance_cents": serde_json::from_str::<serde_json::Number>(&cents)? });
            writeln!(out, "{row}")?;
        } else {
            writeln!(out, "{id} {} {cents}¢", user.email)?;
        }
    }
    Ok(Outcome::Done)
}

/// `batchin key …`
pub(super) async fn key(command: &Key, config: &Config, out: &mut impl Write) -> Result<Outcome> {
    let Key::Create { email, name, rpm, budget_cents, json } = command;
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
    store.create_key(new).await?;
    let secret = secret.text;
    if *json {
        writeln!(out, "{}", json!({ "id": id.to_string(), "key": secret }))?;
    } else {
        writeln!(out, "{secret}")?;
    }
    Ok(Outcome::Done)
}

/// `batchin credits …`
pub(super) async fn credits(command: &Credits, config: &Config, out: &mut impl Write) -> Result<Outcome> {
    let Credits::Grant { email, cents, reason, json } = command;
    let store = super::store(config).await?;
    let user = super::user_of(&store, email).await?;
    let id = TransferId::new(World.uuid());
    let who = format!("command line: {reason}");
    let grant = CreditGrant { id, account: user.id, amount: *cents, reason: who, reference: None, now: super::now() };
    store.grant_credit(grant).await?;
    let balance = store.user(user.id).await?.context("the user is gone")?.balance.to_cents_text();
    if *json {
        let balance: serde_json::Number = serde_json::from_str(&balance)?;
        writeln!(out, "{}", json!({ "id": id.to_string(), "credit_balance_cents": balance }))?;
    } else {
        writeln!(out, "{} has {balance}¢", user.email)?;
    }
    Ok(Outcome::Done)
}
