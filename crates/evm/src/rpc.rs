//! Holds: five methods of an endpoint's JSON-RPC, with answers that were held against the questions. Never an URL in a text.

mod client;
mod error;
mod filter;
mod log;
mod refusal;
mod wire;

use std::sync::atomic::{AtomicU64, Ordering};

pub use client::{Endpoint, EndpointError};
pub use error::{Lie, RpcError};
pub(crate) use filter::Filter;
pub use log::Log;
pub(crate) use log::TRANSFER;
pub(crate) use wire::Receipt;

use crate::{
    hash::Hash,
    header::{BlockRef, Header, Heads},
};
use client::{Call, Client};
use serde_json::json;
use wire::{RawHeader, RawLog, RawReceipt, parse, quantity};

/// Addresses that the filters of one request have in all: more makes requests of megabytes, which endpoints refuse.
const MAX_FILTERED: usize = 5_000;
/// Blocks that one request for a range asks for at first and at most; endpoints that allow fewer halve it.
const MAX_RANGE: u64 = 2_000;

/// An endpoint of one chain. Cheap to ask often: its connections are kept.
#[derive(Debug)]
pub struct Rpc {
    client: Client,
    /// Blocks that a range may have, as learnt.
    range: AtomicU64,
}

impl Rpc {
    /// An endpoint. The process has installed a provider for rustls by now: without one this panics.
    pub fn new(endpoint: Endpoint) -> Result<Self, EndpointError> {
        Ok(Self { client: Client::new(endpoint)?, range: AtomicU64::new(MAX_RANGE) })
    }

    /// What it is called in texts.
    pub fn name(&self) -> &str {
        self.client.name()
    }

    /// Calls made so far; a batch of several counts them all.
    pub fn calls(&self) -> u64 {
        self.client.calls()
    }

    /// Requests made so far; a batch counts as one.
    pub fn requests(&self) -> u64 {
        self.client.requests()
    }

    /// The chain that it serves.
    pub async fn chain_id(&self) -> Result<u64, RpcError> {
        let answer = self.client.one(Call { method: "eth_chainId", params: json!([]) }).await??;
        quantity(&parse::<String>(&answer)?)
    }

    /// That it serves this chain. To be asked at start, and whenever another endpoint is taken.
    pub async fn check_chain(&self, expected: u64) -> Result<(), RpcError> {
        let found = self.chain_id().await?;
        if found == expected { Ok(()) } else { Err(RpcError::WrongChain { expected, found }) }
    }

    /// How far the chain has come.
    pub async fn heads(&self) -> Result<Heads, RpcError> {
        let calls = ["latest", "safe", "finalized"].map(|tag| by_number(json!(tag)));
        let mut answers = self.client.all(&calls).await?.into_iter();
        let mut next = || answers.next().unwrap_or(Err(RpcError::Unreadable));
        let latest = parse::<Option<RawHeader>>(&next()?)?.ok_or(RpcError::Lags)?.check()?;
        let (safe, finalized) = (tagged(next())?, tagged(next())?);
        let heights = [finalized, safe, Some(latest.block())].map(|head| head.map(|block| block.number));
        if !heights.iter().flatten().is_sorted() {
            return Err(RpcError::Lies(Lie::Heads));
        }
        Ok(Heads { latest, safe, finalized })
    }

    /// The block of this number; none where the chain is shorter.
    pub async fn header(&self, number: u64) -> Result<Option<Header>, RpcError> {
        Ok(self.headers(&[number]).await?.into_iter().next().flatten())
    }

    /// The blocks of these numbers, in their order.
    pub async fn headers(&self, numbers: &[u64]) -> Result<Vec<Option<Header>>, RpcError> {
        let calls: Vec<_> = numbers.iter().map(|number| by_number(json!(format!("{number:#x}")))).collect();
        let answers = self.client.all(&calls).await?;
        numbers.iter().zip(answers).map(|(number, answer)| header_of(*number, &answer?)).collect()
    }

    /// The block of this hash; none where the endpoint does not have it, or no more.
    pub async fn header_by_hash(&self, hash: Hash) -> Result<Option<Header>, RpcError> {
        let call = Call { method: "eth_getBlockByHash", params: json!([hash, false]) };
        let answer = match self.client.one(call).await? {
            Err(RpcError::UnknownBlock) => return Ok(None),
            answer => answer?,
        };
        let Some(header) = parse::<Option<RawHeader>>(&answer)? else { return Ok(None) };
        let header = header.check()?;
        if header.hash == hash { Ok(Some(header)) } else { Err(RpcError::Lies(Lie::OtherBlock)) }
    }

    /// The logs of each of these blocks, asked for by hash. Ends before the first block that the endpoint does not know,
    /// and is an error only if that is the first.
    pub(crate) async fn logs_of(&self, blocks: &[BlockRef], filter: &Filter) -> Result<Vec<Vec<Log>>, RpcError> {
        if filter.is_idle() {
            return Ok(blocks.iter().map(|_| Vec::new()).collect());
        }
        let mut at_once = (MAX_FILTERED / filter.recipients().max(1)).max(1);
        let mut all = Vec::with_capacity(blocks.len());
        while all.len() < blocks.len() {
            let rest = blocks.get(all.len()..).unwrap_or_default();
            let now = rest.get(..at_once).unwrap_or(rest);
            match self.logs_of_some(now, filter).await {
                // Together they are too large; one block's is as large as it is.
                Err(RpcError::TooMany) if now.len() > 1 => at_once = now.len() / 2,
                Err(RpcError::UnknownBlock) if !all.is_empty() => break,
                Err(error) => return Err(error),
                Ok(logs) => {
                    let is_end = logs.len() < now.len();
                    all.extend(logs);
                    if is_end {
                        break;
                    }
                }
            }
        }
        Ok(all)
    }

    async fn logs_of_some(&self, blocks: &[BlockRef], filter: &Filter) -> Result<Vec<Vec<Log>>, RpcError> {
        let calls: Vec<_> = blocks.iter().map(|block| logs_call(filter.of_block(&block.hash))).collect();
        let mut all = Vec::with_capacity(blocks.len());
        for (block, answer) in blocks.iter().zip(self.client.all(&calls).await?) {
            match answer.and_then(|answer| filter::check_of(filter, *block, parse::<Vec<RawLog>>(&answer)?)) {
                Err(RpcError::UnknownBlock) if !all.is_empty() => break,
                logs => all.push(logs?),
            }
        }
        Ok(all)
    }

    /// The logs from one block to another, or to as far as the endpoint gives at once, with the last one's header. Both
    /// come in one request, so that the endpoint has shown to have the last block: asked for more than it has,
    /// endpoints answer with less and say nothing.
    pub(crate) async fn logs_between(
        &self,
        from: u64,
        to: u64,
        filter: &Filter,
    ) -> Result<(Header, Vec<Log>), RpcError> {
        if filter.is_idle() {
            return Ok((self.header(to).await?.ok_or(RpcError::Lags)?, Vec::new()));
        }
        loop {
            let range = self.range.load(Ordering::Relaxed).max(1);
            let last = to.min(from.saturating_add(range - 1));
            match self.try_between(from, last, filter).await {
                Err(RpcError::TooMany) if last > from => {
                    self.range.store((last - from).div_ceil(2).max(1), Ordering::Relaxed);
                }
                Ok(found) => {
                    // A shorter one tells nothing of what the endpoint would allow.
                    if last < to {
                        let more = range.saturating_add(range / 4 + 1).min(MAX_RANGE);
                        self.range.store(more, Ordering::Relaxed);
                    }
                    return Ok(found);
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn try_between(&self, from: u64, to: u64, filter: &Filter) -> Result<(Header, Vec<Log>), RpcError> {
        let calls = [logs_call(filter.of_range(from, to)), by_number(json!(format!("{to:#x}")))];
        let mut answers = self.client.all(&calls).await?.into_iter();
        let mut next = || answers.next().unwrap_or(Err(RpcError::Unreadable));
        let (logs, header) = (next()?, next()?);
        let header = header_of(to, &header)?.ok_or(RpcError::Lags)?;
        let logs = filter::check_between(filter, from, &header, parse::<Vec<RawLog>>(&logs)?)?;
        Ok((header, logs))
    }

    /// The receipts of these transactions, in their order; none where a transaction is in no block.
    pub(crate) async fn receipts(&self, transactions: &[Hash]) -> Result<Vec<Option<Receipt>>, RpcError> {
        let call = |hash: &Hash| Call { method: "eth_getTransactionReceipt", params: json!([hash]) };
        let answers = self.client.all(&transactions.iter().map(call).collect::<Vec<_>>()).await?;
        let read = |(hash, answer): (&Hash, Result<String, RpcError>)| {
            let Some(receipt) = parse::<Option<RawReceipt>>(&answer?)? else { return Ok(None) };
            receipt.check(hash).map(Some)
        };
        transactions.iter().zip(answers).map(read).collect()
    }
}

fn by_number(number: serde_json::Value) -> Call {
    Call { method: "eth_getBlockByNumber", params: json!([number, false]) }
}

fn logs_call(filter: serde_json::Value) -> Call {
    Call { method: "eth_getLogs", params: json!([filter]) }
}

fn header_of(number: u64, answer: &str) -> Result<Option<Header>, RpcError> {
    let Some(header) = parse::<Option<RawHeader>>(answer)? else { return Ok(None) };
    let header = header.check()?;
    if header.number == number { Ok(Some(header)) } else { Err(RpcError::Lies(Lie::OtherBlock)) }
}

/// A chain without the tag says null, or that it is no block, or no parameter.
fn tagged(answer: Result<String, RpcError>) -> Result<Option<BlockRef>, RpcError> {
    match answer {
        Ok(answer) => Ok(parse::<Option<RawHeader>>(&answer)?
            .map(|header| header.check())
            .transpose()?
            .map(|header| header.block())),
        Err(RpcError::Refused { .. } | RpcError::UnknownBlock | RpcError::Lags) => Ok(None),
        Err(error) => Err(error),
    }
}
