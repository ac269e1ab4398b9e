//! Holds: money in for tests: a server that takes payments by card from a fake Stripe, and in USDC on a chain that a test steers.

use std::{sync::Arc, time::Duration};

use batchin_billing::{Billing, BillingParts, ChainOptions, StripeOptions, UsdcOptions, X402Options, probe_x402};
use batchin_domain::Amount;
use batchin_evm::{
    BASE, Chain, Finality, Xpub,
    x402::{FacilitatorOptions, TokenDomain},
};
use batchin_store::Store;
use batchin_tasks::Tasks;

use crate::world::{RealIds, TestClock};

/// Of a call to Stripe: short, since some tests wait for it.
const STRIPE_TIMEOUT: Duration = Duration::from_secs(2);
/// The first account of the wallet of the recovery phrase `abandon … about`, which every tool's tests know.
const XPUB: &str =
    "xpub6DCoCpSuQZB2jawqnGMEPS63ePKWkwWPH4TU45Q7LPXWuNd8TMtVxRrgjtEshuqpK3mdhaWHPFsBngh5GFZaM6si3yZdUsT8ddYM3PwnATt";

/// The chain of tests: Base's number and contracts.
pub const CHAIN_ID: u64 = BASE.id;
/// What facilitators know the server by.
pub const FACILITATOR_KEY: &str = "quiet-facilitator-key";
/// Blocks that a payment needs there.
pub const CONFIRMATIONS: u32 = 4;

/// USDC's contract there.
pub fn usdc() -> String {
    BASE.usdc.to_string()
}

/// The contract of a token that looks like it.
pub fn bridged() -> String {
    BASE.unsupported.first().map(ToString::to_string).unwrap()
}

/// A Stripe at this address that has the fake's key and secret.
pub(crate) fn stripe(base: &str) -> StripeOptions {
    StripeOptions {
        client: batchin_stripe::Options {
            api_base: base.to_owned(),
            secret_key: batchin_sim::stripe::STRIPE_KEY.to_owned().into(),
            timeout: STRIPE_TIMEOUT,
        },
        webhook_secrets: vec![batchin_sim::stripe::STRIPE_WEBHOOK_SECRET.to_owned().into()],
        min_cents: 100,
        max_cents: 1_000_000,
        product: "Prepaid credit".to_owned(),
        success_url: "http://127.0.0.1/paid".to_owned(),
        cancel_url: "http://127.0.0.1/not-paid".to_owned(),
    }
}

/// The chain, asked at these endpoints: a dollar at least, and two endpoints agree from a thousand on.
pub(crate) fn chain(urls: Vec<String>) -> UsdcOptions {
    let chain = Chain { required_confirmations: CONFIRMATIONS, finality: Finality::Confirmations, ..BASE };
    let rpc_urls = urls.into_iter().map(Into::into).collect();
    UsdcOptions {
        xpub: Xpub::parse(XPUB).unwrap(),
        min: Amount::from_cents(100),
        agree_from: Amount::from_cents(100_000),
        chains: vec![ChainOptions {
            domain: TokenDomain::of_known(chain.id),
            chain,
            rpc_urls,
            max_batch: 20,
            every: Duration::from_secs(1),
        }],
        x402: None,
    }
}

/// A facilitator at this address, and a dollar at least.
pub(crate) fn x402(url: &str) -> X402Options {
    let facilitator = FacilitatorOptions { url: url.to_owned(), api_key: Some(FACILITATOR_KEY.to_owned().into()) };
    X402Options { facilitator, amount: Amount::from_cents(100) }
}

/// What `doctor` finds of the facilitator at this address: the chains, and whether it carries payments out there.
pub async fn facilitator_serves(url: &str) -> Vec<(String, bool)> {
    probe_x402(&UsdcOptions { x402: Some(x402(url)), ..chain(Vec::new()) }).await.unwrap()
}

pub(crate) fn billing(
    store: &Store,
    clock: &Arc<TestClock>,
    tasks: &Tasks,
    (stripe, usdc): (Option<StripeOptions>, Option<UsdcOptions>),
) -> Billing {
    let parts = BillingParts {
        topups: store.topups(),
        inbox: store.inbox(),
        deposits: store.deposits(),
        auto: store.auto_topups(),
        clock: Arc::<TestClock>::clone(clock),
        ids: Arc::new(RealIds),
        tasks: tasks.clone(),
        stripe,
        usdc,
    };
    Billing::new(parts).unwrap()
}
