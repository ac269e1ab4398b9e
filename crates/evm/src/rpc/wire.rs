//! Holds: answers as they come, and checked: members that are read, numbers that are numbers.

use serde::{Deserialize, de::DeserializeOwned};

use super::{
    error::{Lie, RpcError},
    log::Log,
};
use crate::{
    address::Address,
    hash::Hash,
    header::{BlockRef, Header},
};

/// A quantity of 64 bits.
const MAX_QUANTITY_DIGITS: usize = 16;
const SUCCEEDED: u64 = 1;
/// No chain comes near; above it numbers could neither be counted on nor stored.
const MAX_BLOCK: u64 = i64::MAX.unsigned_abs();

pub(super) fn parse<T: DeserializeOwned>(answer: &str) -> Result<T, RpcError> {
    serde_json::from_str(answer).map_err(|_| RpcError::Unreadable)
}

/// `0x…`, as a number of at most 64 bits.
pub(super) fn quantity(text: &str) -> Result<u64, RpcError> {
    let digits = text.strip_prefix("0x").filter(|digits| (1..=MAX_QUANTITY_DIGITS).contains(&digits.len()));
    // from_str_radix takes a sign.
    let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
    digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).ok_or(RpcError::Lies(Lie::Digits))
}

/// A block's height.
fn height(text: &str) -> Result<u64, RpcError> {
    let number = quantity(text)?;
    if number < MAX_BLOCK { Ok(number) } else { Err(RpcError::Lies(Lie::Digits)) }
}

fn hash(text: &str) -> Result<Hash, RpcError> {
    text.parse().map_err(|_| RpcError::Lies(Lie::Digits))
}

/// A block without its transactions.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawHeader {
    number: String,
    hash: String,
    parent_hash: String,
}

impl RawHeader {
    pub(super) fn check(&self) -> Result<Header, RpcError> {
        Ok(Header { number: height(&self.number)?, hash: hash(&self.hash)?, parent: hash(&self.parent_hash)? })
    }
}

/// A log.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawLog {
    address: String,
    topics: Vec<String>,
    data: String,
    block_number: String,
    block_hash: String,
    transaction_hash: String,
    log_index: String,
    #[serde(default)]
    removed: bool,
}

impl RawLog {
    pub(super) fn check(&self) -> Result<Log, RpcError> {
        if self.removed {
            return Err(RpcError::Lies(Lie::Removed));
        }
        let digits = RpcError::Lies(Lie::Digits);
        // Some endpoints write addresses with a checksum, some without; a wrong one is a wrong digit.
        let token: Address = self.address.parse().map_err(|_| digits)?;
        let data = self.data.strip_prefix("0x").and_then(|data| hex::decode(data).ok()).ok_or(digits)?;
        Ok(Log {
            token,
            topics: self.topics.iter().map(|topic| hash(topic)).collect::<Result<_, _>>()?,
            data,
            block: BlockRef { number: height(&self.block_number)?, hash: hash(&self.block_hash)? },
            transaction: hash(&self.transaction_hash)?,
            index: quantity(&self.log_index)?,
        })
    }
}

/// A transaction's receipt.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawReceipt {
    transaction_hash: String,
    block_number: String,
    block_hash: String,
    status: String,
    logs: Vec<RawLog>,
}

/// What became of a transaction.
#[derive(Debug)]
pub(crate) struct Receipt {
    /// The block that it is in.
    pub(crate) block: BlockRef,
    /// Whether it did what it was to do.
    pub(crate) succeeded: bool,
    /// Its logs, in their order.
    pub(crate) logs: Vec<Log>,
}

impl RawReceipt {
    pub(super) fn check(&self, asked: &Hash) -> Result<Receipt, RpcError> {
        if hash(&self.transaction_hash)? != *asked {
            return Err(RpcError::Lies(Lie::OtherTransaction));
        }
        let block = BlockRef { number: height(&self.block_number)?, hash: hash(&self.block_hash)? };
        let logs: Vec<Log> = self.logs.iter().map(RawLog::check).collect::<Result<_, _>>()?;
        if logs.iter().any(|log| log.transaction != *asked) {
            return Err(RpcError::Lies(Lie::OtherTransaction));
        }
        if logs.iter().any(|log| log.block != block) {
            return Err(RpcError::Lies(Lie::OtherBlock));
        }
        if !logs.is_sorted_by(|one, next| one.index < next.index) {
            return Err(RpcError::Lies(Lie::Twice));
        }
        Ok(Receipt { block, succeeded: quantity(&self.status)? == SUCCEEDED, logs })
    }
}
