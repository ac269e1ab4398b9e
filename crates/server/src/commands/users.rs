//! Holds: `batchin user`.

use std::io::{Read as _, Write};

use anyhow::{Context as _, Result, bail};
use batchin_api::{contact, password};
use batchin_batch_cli::{Outcome, counted};
use batchin_config::Config;
use batchin_domain::{AccountId, IdSource as _};
use batchin_store::{CreateUserError, NewUser, Role};
use serde_json::{Value, json};

use super::{cents_number, keys};
use crate::{
    cli::{Report, User},
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
            let user = match store.accounts().create_user(new).await {
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
        User::Show { email, json } => show(email, *json, config, out).await,
        User::Disable { email } => set_disabled(email, true, config, out).await,
        User::Enable { email } => set_disabled(email, false, config, out).await,
    }
}

async fn set_disabled(email: &str, disabled: bool, config: &Config, out: &mut impl Write) -> Result<Outcome> {
    let store = super::store(config).await?;
    let user = super::user_of(&store, email).await?;
    store.accounts().set_user_disabled(user.id, disabled).await?;
    writeln!(out, "{} is {}", user.email, if disabled { "disabled" } else { "enabled" })?;
    Ok(Outcome::Done)
}

async fn list(config: &Config, as_json: bool, out: &mut impl Write) -> Result<Outcome> {
    for user in super::store(config).await?.accounts().users(MAX_LISTED).await? {
        if as_json {
            writeln!(out, "{}", in_json(&user)?)?;
        } else {
            let admin = if user.role == Role::Admin { " admin" } else { "" };
            let disabled = if user.disabled { " disabled" } else { "" };
            writeln!(out, "{} {} {}¢{admin}{disabled}", user.id, user.email, user.balance.to_cents_text())?;
        }
    }
    Ok(Outcome::Done)
}

async fn show(email: &str, as_json: bool, config: &Config, out: &mut impl Write) -> Result<Outcome> {
    let store = super::store(config).await?;
    let user = super::user_of(&store, email).await?;
    let keys = store.accounts().keys(user.id, super::now()).await?;
    let available = store.balances().available(user.id).await?.to_cents_text();
    if as_json {
        let mut row = in_json(&user)?;
        row["available_cents"] = cents_number(&available)?.into();
        row["keys"] = keys.iter().map(keys::in_json).collect::<Result<Vec<_>>>()?.into();
        writeln!(out, "{row}")?;
        return Ok(Outcome::Done);
    }
    let state = if user.disabled { "disabled" } else { "enabled" };
    writeln!(out, "{} {}", user.id, user.email)?;
    writeln!(out, "{}, {}, {state}, since {}", user.name, role(&user), user.created_at)?;
    writeln!(out, "{}¢, {available}¢ of it not set aside for requests", user.balance.to_cents_text())?;
    writeln!(out, "{}", counted(keys.len(), "key"))?;
    keys.iter().try_for_each(|key| keys::show(key, false, out))?;
    Ok(Outcome::Done)
}

fn role(user: &batchin_store::User) -> &'static str {
    if user.role == Role::Admin { "admin" } else { "user" }
}

fn in_json(user: &batchin_store::User) -> Result<Value> {
    let balance = cents_number(&user.balance.to_cents_text())?;
    Ok(json!({ "id": user.id.to_string(), "email": user.email, "name": user.name, "role": role(user),
        "disabled": user.disabled, "created_at": user.created_at.to_string(), "credit_balance_cents": balance }))
}
