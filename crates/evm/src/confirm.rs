//! Holds: asking an endpoint whether what another one showed is true.

use std::collections::{BTreeSet, HashSet};

use crate::{
    chain::Chain,
    hash::Hash,
    rpc::{Receipt, Rpc, RpcError},
    transfer::{Seen, transfers},
    watch::Watch,
};

/// What an endpoint says of a transfer that was seen elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// The transaction succeeded, in this block, and this transfer of this value to this address is in it.
    Agrees,
    /// The transaction is in no block that it knows: it lags, or the transaction was dropped.
    Unknown,
    /// The transaction is in another block: it is on another fork, or one of both is.
    OtherBlock,
    /// The transaction failed, or there is no such transfer in it. One of both endpoints lies: an alarm.
    Contradicts,
}

/// What an endpoint says of these transfers, by its transactions' receipts: one call for each transaction. In the transfers'
/// order. Before anything is credited, the endpoint's chain must have been checked ([`Rpc::check_chain`]).
pub async fn confirm(rpc: &Rpc, chain: &Chain, seen: &[Seen]) -> Result<Vec<Confirmation>, RpcError> {
    let transactions: Vec<Hash> =
        seen.iter().map(|seen| seen.id.transaction).collect::<BTreeSet<_>>().into_iter().collect();
    let watch = Watch::new(chain, seen.iter().map(|seen| seen.id.to).collect::<HashSet<_>>());
    let receipts = rpc.receipts(&transactions).await?;
    let of = |seen: &Seen| {
        let place = transactions.binary_search(&seen.id.transaction).ok()?;
        receipts.get(place)?.as_ref()
    };
    Ok(seen
        .iter()
        .map(|seen| of(seen).map_or(Confirmation::Unknown, |receipt| compare(&watch, seen, receipt)))
        .collect())
}

fn compare(watch: &Watch, seen: &Seen, receipt: &Receipt) -> Confirmation {
    if receipt.block != seen.block {
        return Confirmation::OtherBlock;
    }
    let (there, _) = transfers(watch, &receipt.logs);
    if receipt.succeeded && there.contains(seen) { Confirmation::Agrees } else { Confirmation::Contradicts }
}
