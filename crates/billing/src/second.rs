//! Holds: what a second endpoint says of payments that are large, alone or together.

use std::{
    collections::{BTreeMap, HashSet},
    error::Error,
};

use batchin_domain::{AccountId, Amount};
use batchin_evm::{BlockRef, Confirmation, Hash, RpcError, Seen, TokenKind, confirm};
use batchin_store::DepositRow;
use metrics::{counter, gauge};
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::chains::WatchedChain;

/// A second endpoint's word. It remembers what it told of, so that what lasts for many looks is told once.
#[derive(Debug, Default)]
pub(crate) struct SecondWord {
    /// In the last look, and in this one.
    was: Told,
    is: Told,
}

#[derive(Debug, Default)]
struct Told {
    /// No second endpoint could be asked.
    missing: bool,
    /// Payments that two endpoints say different things of.
    contradicted: HashSet<Uuid>,
}

impl SecondWord {
    /// Those of which nothing more is asked, and those that a second endpoint says the same of. It is asked of each payment from
    /// an amount on, and of all others of an account that come to as much together: so no endpoint alone has more than that
    /// credited at once, in however many parts it tells of it.
    pub(crate) async fn agreed(
        &mut self,
        (watched, asked): (&WatchedChain, usize),
        from: Amount,
        rows: Vec<DepositRow>,
    ) -> Vec<DepositRow> {
        let (large, mut agreed) = parted(from, rows);
        let large: Vec<(DepositRow, Seen)> =
            large.into_iter().filter_map(|row| seen_of(&row).map(|seen| (row, seen))).collect();
        if large.is_empty() {
            return agreed;
        }
        let chain = &watched.options.chain.name;
        let Some((endpoint, said)) = self.ask((watched, asked), &large).await else {
            self.is.missing = true;
            return agreed;
        };
        for ((row, _), said) in large.into_iter().zip(said) {
            match said {
                Confirmation::Agrees => agreed.push(row),
                Confirmation::Unknown | Confirmation::OtherBlock => {}
                Confirmation::Contradicts => {
                    if !self.was.contradicted.contains(&row.id) {
                        counter!("batchin_money_alarms_total", "what" => "endpoints_disagree").increment(1);
                        error!(
                            chain = &**chain,
                            payment = row.seen.name,
                            endpoint,
                            "two endpoints say different things of a payment; it is not credited"
                        );
                    }
                    self.is.contradicted.insert(row.id);
                }
            }
        }
        agreed
    }

    /// What the first of the other endpoints says that can be asked, and what it is called.
    async fn ask<'a>(
        &self,
        (watched, asked): (&'a WatchedChain, usize),
        large: &[(DepositRow, Seen)],
    ) -> Option<(&'a str, Vec<Confirmation>)> {
        let chain = &watched.options.chain;
        let all = watched.endpoints.len();
        let others = (1..all).filter_map(|step| watched.endpoints.get((asked + step) % all));
        let seen: Vec<Seen> = large.iter().map(|(_, seen)| seen.clone()).collect();
        for rpc in others {
            let said: Result<_, RpcError> = match rpc.check_chain(chain.id).await {
                Ok(()) => confirm(rpc, chain, &seen).await,
                Err(cause) => Err(cause),
            };
            match said {
                Ok(said) => return Some((rpc.name(), said)),
                Err(cause) if !self.was.missing => {
                    let (chain, endpoint, error) = (&*chain.name, rpc.name(), &cause as &dyn Error);
                    warn!(chain, endpoint, error, "a second endpoint could not be asked");
                }
                Err(_) => {}
            }
        }
        None
    }

    /// Ends a look: says what is otherwise than in the one before.
    pub(crate) fn end_look(&mut self, chain: &str) {
        let missing = if self.is.missing { 1.0 } else { 0.0 };
        gauge!("batchin_chain_second_endpoint_missing", "chain" => chain.to_owned()).set(missing);
        match self.turned() {
            Some(Turn::Missing) => {
                counter!("batchin_money_alarms_total", "what" => "no_second_endpoint").increment(1);
                error!(chain, "a large payment waits: no second endpoint of this chain could be asked about it");
            }
            Some(Turn::Found) => info!(chain, "no payment waits for a second endpoint of this chain any more"),
            None => {}
        }
    }

    /// What has changed since the look before; the next one begins.
    fn turned(&mut self) -> Option<Turn> {
        let turned = match (self.was.missing, self.is.missing) {
            (false, true) => Some(Turn::Missing),
            (true, false) => Some(Turn::Found),
            (false, false) | (true, true) => None,
        };
        self.was = std::mem::take(&mut self.is);
        turned
    }
}

/// Whether payments wait because no second endpoint can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Missing,
    Found,
}

/// Those that are asked about, and those that are not.
fn parted(from: Amount, rows: Vec<DepositRow>) -> (Vec<DepositRow>, Vec<DepositRow>) {
    let (mut large, small): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.seen.amount >= from);
    let mut of: BTreeMap<AccountId, Amount> = BTreeMap::new();
    for row in &small {
        let sum = of.entry(row.seen.account).or_insert(Amount::ZERO);
        *sum = sum.saturating_add(row.seen.amount);
    }
    let is_much = |row: &DepositRow| of.get(&row.seen.account).is_some_and(|sum| *sum >= from);
    let (together, small) = small.into_iter().partition::<Vec<_>, _>(is_much);
    large.extend(together);
    (large, small)
}

/// A stored payment as a scan would see it.
fn seen_of(row: &DepositRow) -> Option<Seen> {
    let hash: Hash = row.seen.block_hash.parse().ok()?;
    Some(Seen {
        id: row.seen.name.parse().ok()?,
        kind: TokenKind::Usdc,
        from: row.seen.payer.parse().ok()?,
        value: row.seen.base_units,
        block: BlockRef { number: row.seen.block_number, hash },
        log_index: row.seen.log_index,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_is_told_once() {
        let mut word = SecondWord::default();
        let told = [false, true, true, true, false, false, true].map(|missing| {
            word.is.missing = missing;
            word.turned()
        });
        let (missing, found) = (Some(Turn::Missing), Some(Turn::Found));
        assert_eq!(told, [None, missing, None, None, found, None, missing]);
    }
}
