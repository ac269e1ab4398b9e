//! Holds: asking Stripe, chains and a facilitator whether they answer, for an operator. Nothing of it is stored.

use batchin_domain::Timestamp;
use batchin_evm::x402::{Facilitator, FacilitatorError, network};
use batchin_stripe::{Stripe, StripeError};

use crate::{
    chains::{Usdc, UsdcError, WatchedChain},
    options::{StripeOptions, UsdcOptions},
};

/// Statuses by which Stripe says that a key is none, and that it may not do this.
const UNKNOWN_KEY: u16 = 401;
const MAY_NOT: u16 = 403;

/// Why Stripe cannot be asked; none of its words, which repeat parts of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StripeProbeError {
    /// It does not know the key.
    #[error("Stripe does not know this key")]
    UnknownKey,
    /// The key may not do what is needed.
    #[error("Stripe does not let this key read events")]
    MayNot,
    /// It cannot be reached, or fails.
    #[error("Stripe cannot be reached, or does not answer as it should")]
    Unavailable,
}

/// An endpoint of a chain, asked.
#[derive(Clone, Debug)]
pub struct ProbedEndpoint {
    /// The chain and the endpoint's place in `rpc_urls`, such as `base #1`.
    pub name: String,
    /// The newest block; what is wrong where there is none.
    pub block: Result<u64, String>,
}

/// Whether Stripe answers to the key. `Some(true)`: with real money; `None` where the key does not tell.
pub async fn probe_stripe(options: &StripeOptions, now: Timestamp) -> Result<Option<bool>, StripeProbeError> {
    let stripe = Stripe::new(options.client.clone()).map_err(|_| StripeProbeError::Unavailable)?;
    match stripe.events(now.seconds()..=now.seconds(), None).await {
        Ok(_) => Ok(options.is_live()),
        Err(StripeError::Refused(refusal)) if refusal.status == UNKNOWN_KEY => Err(StripeProbeError::UnknownKey),
        Err(StripeError::Refused(refusal)) if refusal.status == MAY_NOT => Err(StripeProbeError::MayNot),
        Err(_) => Err(StripeProbeError::Unavailable),
    }
}

/// Whether each endpoint serves its chain.
pub async fn probe_chains(options: &UsdcOptions) -> Result<Vec<ProbedEndpoint>, UsdcError> {
    let usdc = Usdc::new(options.clone())?;
    let mut probed = Vec::new();
    for watched in &usdc.chains {
        probe_chain(watched, &mut probed).await;
    }
    Ok(probed)
}

/// On which of the chains that are offered over x402 the facilitator carries payments out, each by its name; nothing where nobody
/// pays so.
pub async fn probe_x402(options: &UsdcOptions) -> Result<Vec<(String, bool)>, FacilitatorError> {
    let Some(x402) = &options.x402 else { return Ok(Vec::new()) };
    let networks = Facilitator::new(x402.facilitator.clone())?.networks().await?;
    // Some name all chains at once.
    let is_there = |id| networks.iter().any(|named| *named == network(id) || named == "eip155:*");
    let offered = options.chains.iter().filter(|chain| chain.domain.is_some());
    Ok(offered.map(|chain| (chain.chain.name.to_string(), is_there(chain.chain.id))).collect())
}

async fn probe_chain(watched: &WatchedChain, probed: &mut Vec<ProbedEndpoint>) {
    for rpc in &watched.endpoints {
        let asked = match rpc.check_chain(watched.options.chain.id).await {
            Ok(()) => rpc.heads().await,
            Err(cause) => Err(cause),
        };
        let block = asked.map(|heads| heads.latest.number).map_err(|cause| cause.to_string());
        probed.push(ProbedEndpoint { name: rpc.name().to_owned(), block });
    }
}
