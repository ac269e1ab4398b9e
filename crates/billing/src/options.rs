//! Holds: what an operator may set of money in, and whole cents.

use std::time::Duration;

use batchin_domain::Amount;
use batchin_evm::{
    Chain, Xpub,
    x402::{FacilitatorOptions, TokenDomain},
};
use secrecy::{ExposeSecret as _, SecretString};

/// What payments by card are made in.
pub(crate) const CURRENCY: &str = "usd";
/// When a payment that is open is looked at for the first time, should nothing be heard of it; later ever more rarely.
pub(crate) const OPEN_LOOK: Duration = Duration::from_secs(120);

/// How keys of Stripe's begin that move real money, and those that do not.
const LIVE: [&str; 2] = ["sk_live_", "rk_live_"];
const TEST: [&str; 2] = ["sk_test_", "rk_test_"];

/// `[stripe]`, checked.
#[derive(Clone, Debug)]
pub struct StripeOptions {
    /// Where Stripe is, and the key to it.
    pub client: batchin_stripe::Options,
    /// What Stripe signs its reports with; several while one replaces another.
    pub webhook_secrets: Vec<SecretString>,
    /// The smallest payment, in whole cents.
    pub min_cents: i64,
    /// The largest payment, in whole cents.
    pub max_cents: i64,
    /// What a buyer reads that it is.
    pub product: String,
    /// Where a buyer who has paid comes back to.
    pub success_url: String,
    /// Where a buyer who has not comes back to.
    pub cancel_url: String,
}

impl StripeOptions {
    /// Whether the key moves real money; `None` where that cannot be told by it.
    pub(crate) fn is_live(&self) -> Option<bool> {
        let key = self.client.secret_key.expose_secret();
        let begins = |with: [&str; 2]| with.iter().any(|prefix| key.starts_with(prefix));
        if begins(LIVE) { Some(true) } else { begins(TEST).then_some(false) }
    }
}

/// `[usdc]`, checked.
#[derive(Clone, Debug)]
pub struct UsdcOptions {
    /// Where addresses come from: the account's extended public key, m/44'/60'/0'.
    pub xpub: Xpub,
    /// Less than this waits for more.
    pub min: Amount,
    /// From here on two endpoints must say the same.
    pub agree_from: Amount,
    /// The chains.
    pub chains: Vec<ChainOptions>,
    /// Without it, nobody pays by x402.
    pub x402: Option<X402Options>,
}

/// `[usdc.x402]`, checked.
#[derive(Clone, Debug)]
pub struct X402Options {
    /// Where the facilitator is, and what it knows us by.
    pub facilitator: FacilitatorOptions,
    /// The least that is offered and taken; not below the least payment in USDC.
    pub amount: Amount,
}

/// A chain that payments come on.
#[derive(Clone, Debug)]
pub struct ChainOptions {
    /// What is true of it.
    pub chain: Chain,
    /// Where it is asked: the first, and the next where that fails.
    pub rpc_urls: Vec<SecretString>,
    /// Calls that go in one request.
    pub max_batch: usize,
    /// Between two looks.
    pub every: Duration,
    /// What its token is called where it is signed for; `None`: nobody pays by x402 there.
    pub domain: Option<TokenDomain>,
}

/// Whole cents as money; `None` below zero or where a ledger cannot count it.
pub(crate) fn amount_of(cents: i64) -> Option<Amount> {
    cents.checked_mul(batchin_domain::money::NANOS_PER_CENT).and_then(Amount::from_nanos)
}

/// Money as whole cents; `None` where it is none.
pub(crate) fn cents_of(amount: Amount) -> Option<i64> {
    let per_cent = batchin_domain::money::NANOS_PER_CENT;
    (amount.nanos() % per_cent == 0).then_some(amount.nanos() / per_cent)
}
