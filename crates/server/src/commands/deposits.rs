//! Holds: `batchin deposits`.

use std::{collections::HashMap, io::Write};

use anyhow::{Context as _, Result};
use batchin_batch_cli::Outcome;
use batchin_billing::{DepositName, RestartOrder, Restarted, restart_chain};
use batchin_config::Config;
use batchin_domain::{AccountId, DepositStatus, IdSource as _};
use batchin_store::{DepositAddress, DepositRow, Store};
use serde_json::json;
use uuid::Uuid;

use super::COMMAND_LINE;
use crate::world::World;

/// Rows of one look at the database.
const PAGE: u32 = 1_000;

/// Lists what lies where, for whoever has the wallet.
pub(super) async fn export(config: &Config, as_json: bool, out: &mut impl Write) -> Result<Outcome> {
    let store = super::store(config).await?;
    let (mut emails, mut after) = (HashMap::new(), Uuid::nil());
    let known = store.deposits().addresses_from(0).await?;
    let addresses = known.into_iter().map(|address| (address.address.clone(), address)).collect();
    loop {
        let page = store.deposits().all_deposits(after, PAGE).await?;
        for row in &page {
            if matches!(row.status, DepositStatus::Credited | DepositStatus::Held) {
                let email = email(&store, row.seen.account, &mut emails).await?;
                show(&Lying { config, row, addresses: &addresses, email: &email }, as_json, out)?;
            }
        }
        match page.last() {
            Some(last) => after = last.id,
            None => return Ok(Outcome::Done),
        }
    }
}

/// Has a chain read from a block on.
pub(super) async fn restart(
    config: &Config,
    (chain, from): (&str, u64),
    as_json: bool,
    out: &mut impl Write,
) -> Result<Outcome> {
    let options = config.usdc.as_ref().context("no chain is set up: there is no [usdc] in the configuration")?;
    let store = super::store(config).await?;
    let (id, actor) = (World.uuid(), COMMAND_LINE.to_owned());
    let order = RestartOrder { chain: chain.to_owned(), from, id, actor, now: super::now() };
    let Restarted { was_read_to, hash_before, payments } = restart_chain(options, &store.deposits(), order).await?;
    let (set_aside, credited) = (payments.set_aside, payments.credited);
    if as_json {
        let line = json!({ "id": id, "chain": chain, "from": from, "hash_before": hash_before, "was_read_to": was_read_to,
            "set_aside": set_aside, "credited": credited });
        writeln!(out, "{line}")?;
        return Ok(Outcome::Done);
    }
    let was = was_read_to.map_or_else(|| "it was never read".to_owned(), |block| format!("it was read to {block}"));
    writeln!(out, "{chain} is read from block {from} on, after {hash_before}; {was}")?;
    writeln!(out, "{set_aside} payment(s) from there on that are not credited count again once they are seen again")?;
    if credited > 0 {
        writeln!(out, "{credited} payment(s) from there on are credited and stay so: compare them with an explorer")?;
    }
    Ok(Outcome::Done)
}

/// A payment that lies at an address.
struct Lying<'a> {
    config: &'a Config,
    row: &'a DepositRow,
    addresses: &'a HashMap<String, DepositAddress>,
    email: &'a str,
}

fn show(lying: &Lying<'_>, as_json: bool, out: &mut impl Write) -> Result<()> {
    let row = lying.row;
    let chains = lying.config.usdc.iter().flat_map(|usdc| &usdc.chains);
    let named = chains.map(|options| &options.chain).find(|chain| chain.id == row.chain_id);
    let chain = named.map_or_else(|| row.chain_id.to_string(), |chain| chain.name.to_string());
    let DepositName { transaction, token, address } = DepositName::of(row);
    let given = lying.addresses.get(&address);
    let (units, status) = (row.seen.base_units.to_string(), row.status.name());
    if as_json {
        let line = json!({ "chain": chain, "chain_id": row.chain_id, "address": address,
            "index": given.map(|given| given.index), "wallet": given.map(|given| &given.xpub), "token": token,
            "base_units": units, "transaction": transaction, "block": row.seen.block_number, "status": status,
            "account": lying.email, "seen_at": row.seen_at.to_string() });
        writeln!(out, "{line}")?;
    } else {
        let index = given.map_or_else(|| "?".to_owned(), |given| given.index.to_string());
        writeln!(out, "{chain} {address} {index} {token} {units} {transaction} {status} {}", lying.email)?;
    }
    Ok(())
}

async fn email(store: &Store, account: AccountId, known: &mut HashMap<AccountId, String>) -> Result<String> {
    if let Some(email) = known.get(&account) {
        return Ok(email.clone());
    }
    let user = store.accounts().user(account).await?;
    let email = user.map_or_else(|| account.to_string(), |user| user.email);
    known.insert(account, email.clone());
    Ok(email)
}
