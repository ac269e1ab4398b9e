//! Holds: what `batchin doctor` says of payments by card and on chains. Neither keys nor endpoints are in it.

use std::time::Duration;

use batchin_billing::{probe_chains, probe_stripe, probe_x402};
use batchin_config::Config;
use batchin_store::Store;

use crate::{
    cli::{self, doctor},
    commands,
};

/// A report that waits for longer meets something that lasts.
const DEALT_WITH: Duration = Duration::from_secs(600);

/// Asks Stripe, every endpoint and the facilitator, as far as they are set up.
pub(super) async fn look(config: &Config) -> Vec<doctor::Finding> {
    let mut findings = Vec::new();
    if let Some(stripe) = &config.stripe {
        let asked = probe_stripe(stripe, commands::now()).await;
        findings.push(doctor::cards(&asked.map_err(|cause| cause.to_string())));
    }
    let Some(usdc) = &config.usdc else { return findings };
    match probe_chains(usdc).await {
        Ok(probed) => findings.extend(probed.iter().map(|one| doctor::chain(&one.name, &one.block))),
        Err(cause) => findings.push(doctor::chain("all", &Err(cli::explain(&cause)))),
    }
    let from = usdc.agree_from.to_cents_text();
    let lone = usdc.chains.iter().filter(|chain| chain.rpc_urls.len() == 1);
    findings.extend(lone.map(|chain| doctor::lone_endpoint(&chain.chain.name, &from)));
    if usdc.x402.is_some() {
        findings.push(doctor::facilitator(&probe_x402(usdc).await.map_err(|cause| cause.to_string())));
    }
    findings
}

/// Looks whether reports of Stripe's lie about. What cannot be asked is told of as the database's fault.
pub(super) async fn reports(config: &Config, store: &Store) -> Option<doctor::Finding> {
    config.stripe.as_ref()?;
    let (waiting, oldest) = store.inbox().waiting_events().await.ok()?;
    let is_late = oldest.is_some_and(|oldest| oldest < commands::now().before(DEALT_WITH));
    doctor::reports(if is_late { waiting } else { 0 })
}
