//! Holds: how chains are watched, for operators.

use batchin_domain::Timestamp;
use batchin_store::StoreError;

use crate::{Billing, chains::LastLook};

/// How a chain is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainHealth {
    /// Its name.
    pub name: String,
    /// Its number.
    pub chain_id: u64,
    /// The newest block whose payments were read, and when that was, by whichever node; none where none was.
    pub read: Option<(u64, Timestamp)>,
    /// The last look of this node; none where another one watches, or none yet.
    pub look: Option<ChainLook>,
}

/// A look at a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainLook {
    /// The endpoint that was asked: the chain and its place in `rpc_urls`, such as `base #1`; never its URL.
    pub endpoint: String,
    /// Why it brought nothing, in a word.
    pub trouble: Option<&'static str>,
    /// Blocks that were still to be read; none where that was not found out.
    pub behind: Option<u64>,
    /// When.
    pub at: Timestamp,
}

impl Billing {
    /// How every chain is watched that is set up, in the order of the configuration.
    pub async fn chain_health(&self) -> Result<Vec<ChainHealth>, StoreError> {
        let mut all = Vec::new();
        for watched in self.usdc().iter().flat_map(|usdc| &usdc.chains) {
            let chain = &watched.options.chain;
            let progress = self.deposits().chain_progress(chain.id).await?;
            all.push(ChainHealth {
                name: chain.name.to_string(),
                chain_id: chain.id,
                read: progress.map(|progress| (progress.read_to, progress.updated_at)),
                look: watched.last_look().map(|look| {
                    let LastLook { endpoint, failure, behind, at } = look;
                    ChainLook { endpoint, trouble: failure, behind, at }
                }),
            });
        }
        Ok(all)
    }
}
