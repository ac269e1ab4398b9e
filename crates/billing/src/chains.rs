//! Holds: the chains that are watched, their endpoints, and the addresses that were handed out.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex as StdMutex, PoisonError},
    time::Duration,
};

use batchin_domain::{AccountId, Amount, Timestamp};
use batchin_evm::{
    Address, EndpointError, Reached, Rpc,
    x402::{Facilitator, FacilitatorError},
};
use batchin_store::ChainProgress;
use secrecy::SecretString;
use tokio::sync::Mutex;

use crate::options::{ChainOptions, UsdcOptions, X402Options};

/// Nano-dollars in USDC's smallest unit.
const NANOS_PER_UNIT: u128 = 1_000;
/// What one request to an endpoint may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Payments in USDC cannot be set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsdcError {
    /// An endpoint cannot be asked.
    #[error("an endpoint of a chain cannot be used: {0}")]
    Endpoint(#[from] EndpointError),
    /// The facilitator cannot be.
    #[error("the facilitator of x402 cannot be used: {0}")]
    Facilitator(#[from] FacilitatorError),
}

/// Payments in USDC.
pub(crate) struct Usdc {
    pub(crate) options: UsdcOptions,
    pub(crate) chains: Vec<WatchedChain>,
    /// Names the key in the database; tells nothing of it.
    pub(crate) fingerprint: String,
    pub(crate) addresses: Mutex<Addresses>,
    pub(crate) x402: Option<X402>,
}

/// Paying by x402.
pub(crate) struct X402 {
    pub(crate) facilitator: Facilitator,
    /// The least that is offered and taken.
    pub(crate) least: Amount,
}

/// A chain and its endpoints.
pub(crate) struct WatchedChain {
    pub(crate) options: ChainOptions,
    pub(crate) endpoints: Vec<Rpc>,
    /// std mutex: held to copy a few words, never across an await.
    last: StdMutex<Option<LastLook>>,
}

/// The last look at a chain from this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LastLook {
    /// What the endpoint that was asked is called; never its URL.
    pub(crate) endpoint: String,
    /// Why it brought nothing, in a word.
    pub(crate) failure: Option<&'static str>,
    /// Blocks that were still to be read; none where that was not found out.
    pub(crate) behind: Option<u64>,
    pub(crate) at: Timestamp,
}

/// Every address that was handed out, as far as it was read. Looks share it, and it is copied only where one comes to it
/// while somebody looks.
#[derive(Clone, Default)]
pub(crate) struct Addresses {
    pub(crate) next: u64,
    pub(crate) of: Arc<HashMap<Address, AccountId>>,
    /// The same without their owners.
    pub(crate) all: Arc<HashSet<Address>>,
}

impl Addresses {
    pub(crate) fn add(&mut self, address: Address, account: AccountId) {
        Arc::make_mut(&mut self.of).insert(address, account);
        Arc::make_mut(&mut self.all).insert(address);
    }
}

impl WatchedChain {
    /// Remembers a look, or that another node looks now.
    pub(crate) fn note(&self, look: Option<LastLook>) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = look;
    }

    pub(crate) fn last_look(&self) -> Option<LastLook> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Usdc {
    pub(crate) fn new(options: UsdcOptions) -> Result<Self, UsdcError> {
        let watched = |options: &ChainOptions| -> Result<WatchedChain, EndpointError> {
            let endpoint = |(place, url): (usize, &SecretString)| {
                Rpc::new(batchin_evm::Endpoint {
                    name: format!("{} #{}", options.chain.name, place + 1),
                    url: url.clone(),
                    timeout: TIMEOUT,
                    max_batch: options.max_batch,
                })
            };
            let endpoints = options.rpc_urls.iter().enumerate().map(endpoint).collect::<Result<_, _>>()?;
            Ok(WatchedChain { options: options.clone(), endpoints, last: StdMutex::default() })
        };
        let chains = options.chains.iter().map(watched).collect::<Result<_, _>>()?;
        // The first address, which is public once anybody pays there.
        let fingerprint = options.xpub.address(0).map(|address| address.to_string()).unwrap_or_default();
        let x402 = |options: &X402Options| -> Result<X402, FacilitatorError> {
            Ok(X402 { facilitator: Facilitator::new(options.facilitator.clone())?, least: options.amount })
        };
        let x402 = options.x402.as_ref().map(x402).transpose()?;
        Ok(Self { options, chains, fingerprint, addresses: Mutex::default(), x402 })
    }
}

/// How far a chain was read, as its rules want it.
pub(crate) fn reached_of(progress: &ChainProgress) -> Reached {
    Reached { read_to: progress.read_to, safe: progress.safe, finalized: progress.finalized }
}

/// USDC's smallest units as money; `None` where a ledger cannot count it.
pub(crate) fn amount_of_units(units: u128) -> Option<Amount> {
    let nanos = units.checked_mul(NANOS_PER_UNIT)?;
    i64::try_from(nanos).ok().and_then(Amount::from_nanos)
}

/// Money in USDC's smallest units, rounded up.
pub(crate) fn units_of(amount: Amount) -> u128 {
    u128::from(amount.nanos().unsigned_abs()).div_ceil(NANOS_PER_UNIT)
}
