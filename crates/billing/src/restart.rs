//! Holds: having a chain read from a block that an operator names.

use batchin_domain::Timestamp;
use batchin_evm::{Header, RpcError, State};
use batchin_store::{ChainRestart, DepositError, Deposits, RestartedPayments, StoreError};
use uuid::Uuid;

use crate::{
    chains::{Usdc, UsdcError, WatchedChain},
    options::UsdcOptions,
};

/// What an operator wants.
#[derive(Clone, Debug)]
pub struct RestartOrder {
    /// The chain's name.
    pub chain: String,
    /// The first block that is read; 1 or more.
    pub from: u64,
    /// Names the act.
    pub id: Uuid,
    /// Who does it, such as `command line`.
    pub actor: String,
    /// When.
    pub now: Timestamp,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restarted {
    /// How far the chain had been read; none where it was never read.
    pub was_read_to: Option<u64>,
    /// The hash of the block before the first that is read.
    pub hash_before: String,
    /// What became of payments.
    pub payments: RestartedPayments,
}

/// Why a chain is not read from another block; nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum RestartError {
    /// There is no such chain.
    #[error("there is no chain {name}: {known}")]
    NoChain {
        /// What was asked for.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// Blocks would be left out.
    #[error(
        "--from {from} would leave blocks out: the chain is read to {read_to}, so it can be {} at most",
        read_to.saturating_add(1)
    )]
    Ahead {
        /// What was asked for.
        from: u64,
        /// How far the chain was read.
        read_to: u64,
    },
    /// No endpoint could be asked.
    #[error("no endpoint of the chain has block {block}; the last one that was asked, {endpoint}, says: {cause}")]
    Endpoint {
        /// The block before the first that is read.
        block: u64,
        /// What it is called.
        endpoint: String,
        /// What it says.
        cause: RpcError,
    },
    /// Endpoints are on different forks.
    #[error(
        "{one} and {other} have different blocks {block}: name an earlier one, or take the endpoint out that is wrong"
    )]
    Disagree {
        /// The block before the first that is read.
        block: u64,
        /// An endpoint.
        one: String,
        /// Another.
        other: String,
    },
    /// A node has read the chain in this moment.
    #[error("a node has read the chain in this moment: do it again")]
    Stale,
    /// Endpoints cannot be asked.
    #[error(transparent)]
    Setup(#[from] UsdcError),
    /// What would be stored cannot be written down.
    #[error("the chain's state cannot be written")]
    State(#[source] serde_json::Error),
    /// The store failed.
    #[error("it could not be stored")]
    Store(#[from] StoreError),
}

/// Has a chain read from a block on. Nodes that watch it go on from there at their next look. Payments of these blocks that are not
/// credited count again once they are seen again; of those that are, nothing is changed.
pub async fn restart_chain(
    options: &UsdcOptions,
    deposits: &Deposits,
    order: RestartOrder,
) -> Result<Restarted, RestartError> {
    let usdc = Usdc::new(options.clone())?;
    let named = usdc.chains.iter().find(|watched| watched.options.chain.name == order.chain.as_str());
    let watched = named.ok_or_else(|| RestartError::NoChain { name: order.chain.clone(), known: known(&usdc) })?;
    let chain = &watched.options.chain;
    let progress = deposits.chain_progress(chain.id).await?;
    let was_read_to = progress.as_ref().map(|progress| progress.read_to);
    if let Some(read_to) = was_read_to.filter(|read_to| order.from > read_to.saturating_add(1)) {
        return Err(RestartError::Ahead { from: order.from, read_to });
    }
    let header = header(watched, order.from.saturating_sub(1)).await?;
    let was = was_read_to.map_or_else(|| "it was never read".to_owned(), |block| format!("it was read to {block}"));
    let restart = ChainRestart {
        chain_id: chain.id,
        version: progress.map_or(0, |progress| progress.version),
        state: serde_json::to_string(&State::at(chain.id, &header)).map_err(RestartError::State)?,
        read_to: header.number,
        id: order.id,
        actor: order.actor,
        reason: format!("{} is read from block {} on; {was}", chain.name, order.from),
        now: order.now,
    };
    match deposits.restart_chain(&restart).await {
        Ok(payments) => Ok(Restarted { was_read_to, hash_before: header.hash.to_string(), payments }),
        Err(DepositError::Store(cause)) => Err(cause.into()),
        Err(DepositError::Stale | DepositError::Overflow) => Err(RestartError::Stale),
    }
}

fn known(usdc: &Usdc) -> String {
    let names: Vec<&str> = usdc.chains.iter().map(|watched| &*watched.options.chain.name).collect();
    if names.is_empty() { "none is set up".to_owned() } else { format!("known are {}", names.join(", ")) }
}

/// The block of this number, of which all endpoints that have it say the same.
async fn header(watched: &WatchedChain, block: u64) -> Result<Header, RestartError> {
    let mut found: Option<(Header, &str)> = None;
    let mut failed = RestartError::Endpoint { block, endpoint: String::new(), cause: RpcError::Lags };
    for rpc in &watched.endpoints {
        let asked = match rpc.check_chain(watched.options.chain.id).await {
            Ok(()) => rpc.header(block).await.and_then(|header| header.ok_or(RpcError::Lags)),
            Err(cause) => Err(cause),
        };
        match (asked, found) {
            (Ok(header), Some((first, one))) if header.hash != first.hash => {
                return Err(RestartError::Disagree { block, one: one.to_owned(), other: rpc.name().to_owned() });
            }
            (Ok(header), None) => found = Some((header, rpc.name())),
            (Ok(_), Some(_)) => {}
            (Err(cause), _) => failed = RestartError::Endpoint { block, endpoint: rpc.name().to_owned(), cause },
        }
    }
    found.map(|(header, _)| header).ok_or(failed)
}
