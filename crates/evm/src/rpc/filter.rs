//! Holds: how logs of transfers are asked for, and whether an answer is to the question.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use super::{
    error::{Lie, RpcError},
    log::{Log, TRANSFER},
    wire::RawLog,
};
use crate::{
    address::Address,
    hash::Hash,
    header::{BlockRef, Header},
    watch::Watch,
};

/// Recipients that are named to the endpoint. With more, it gives all of the tokens' transfers and ours are found here:
/// ten thousand would be 680 kB of question, which many endpoints refuse.
const MAX_NAMED: usize = 1_000;

/// Which logs are asked for.
#[derive(Debug)]
pub(crate) struct Filter {
    tokens: Vec<Address>,
    /// The third topic's allowed values; none allows all.
    recipients: Option<HashSet<Hash>>,
}

impl Filter {
    /// The transfers that are watched for, or more where these are too many to name.
    pub(crate) fn new(watch: &Watch) -> Self {
        let is_short = watch.addresses.len() <= MAX_NAMED;
        let topic = |address: &Address| Hash::from_bytes(address.to_topic());
        let recipients = is_short.then(|| watch.addresses.iter().map(topic).collect());
        Self { tokens: watch.tokens.clone(), recipients }
    }

    /// Whether there is nobody to look for. Such a filter is not to be sent: endpoints take an empty list of topics for any.
    pub(crate) fn is_idle(&self) -> bool {
        self.recipients.as_ref().is_some_and(HashSet::is_empty)
    }

    /// How many it names.
    pub(crate) fn recipients(&self) -> usize {
        self.recipients.as_ref().map_or(0, HashSet::len)
    }

    pub(super) fn of_block(&self, hash: &Hash) -> Value {
        json!({ "blockHash": hash, "address": self.tokens, "topics": self.topics() })
    }

    pub(super) fn of_range(&self, from: u64, to: u64) -> Value {
        let (from, to) = (format!("{from:#x}"), format!("{to:#x}"));
        json!({ "fromBlock": from, "toBlock": to, "address": self.tokens, "topics": self.topics() })
    }

    fn topics(&self) -> Value {
        match &self.recipients {
            // In order, so that equal questions are equal: endpoints keep answers.
            Some(recipients) => {
                let mut recipients: Vec<_> = recipients.iter().collect();
                recipients.sort_unstable();
                json!([TRANSFER, null, recipients])
            }
            None => json!([TRANSFER]),
        }
    }

    fn check(&self, log: &Log) -> Result<(), Lie> {
        if !self.tokens.contains(&log.token) {
            return Err(Lie::OtherContract);
        }
        let is_named = |recipients: &HashSet<Hash>| log.topics.get(2).is_some_and(|topic| recipients.contains(topic));
        let matches = log.topics.first() == Some(&TRANSFER) && self.recipients.as_ref().is_none_or(is_named);
        if matches { Ok(()) } else { Err(Lie::OtherTopics) }
    }
}

/// The logs of one block, in its order.
pub(super) fn check_of(filter: &Filter, block: BlockRef, logs: Vec<RawLog>) -> Result<Vec<Log>, RpcError> {
    let logs = in_order(filter, &logs)?;
    if logs.iter().any(|log| log.block != block) {
        return Err(RpcError::Lies(Lie::OtherBlock));
    }
    Ok(logs)
}

/// The logs of the blocks from one number up to a block, in the chain's order.
pub(super) fn check_between(filter: &Filter, from: u64, to: &Header, logs: Vec<RawLog>) -> Result<Vec<Log>, RpcError> {
    let logs = in_order(filter, &logs)?;
    let mut hashes = HashMap::from([(to.number, to.hash)]);
    for log in &logs {
        if !(from..=to.number).contains(&log.block.number) {
            return Err(RpcError::Lies(Lie::OtherBlock));
        }
        if *hashes.entry(log.block.number).or_insert(log.block.hash) != log.block.hash {
            return Err(RpcError::Lies(Lie::Twice));
        }
    }
    Ok(logs)
}

fn in_order(filter: &Filter, logs: &[RawLog]) -> Result<Vec<Log>, RpcError> {
    let mut logs: Vec<Log> = logs.iter().map(RawLog::check).collect::<Result<_, _>>()?;
    for log in &logs {
        filter.check(log).map_err(RpcError::Lies)?;
    }
    logs.sort_by_key(|log| (log.block.number, log.index));
    let place = |log: &Log| (log.block.number, log.index);
    if logs.is_sorted_by(|one, next| place(one) < place(next)) { Ok(logs) } else { Err(RpcError::Lies(Lie::Twice)) }
}
