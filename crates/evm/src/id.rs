//! Holds: the name of a payment, which stays the same wherever its transaction is included.

use std::{fmt, str::FromStr};

use crate::{address::Address, hash::Hash};

/// One transfer of a token to an address, by what stays when its transaction is included again in another block. All
/// five members together are the key under which it is credited once; `nth` alone tells nothing.
///
/// `nth` counts the transfers *of this token to this address* within the transaction, in the order of their logs, from 0.
/// So it depends neither on `log_index`, which changes with the block, nor on which other addresses and tokens were
/// watched at the time, which would give the same payment another number in a later scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransferId {
    /// The chain.
    pub chain_id: u64,
    /// The transaction.
    pub transaction: Hash,
    /// The token's contract.
    pub token: Address,
    /// Who was paid.
    pub to: Address,
    /// Which of the transaction's transfers of this token to this address, from 0.
    pub nth: u32,
}

/// A text names no payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a payment is named by chain/transaction/token/address/number")]
pub struct TransferIdError;

impl fmt::Display for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}/{}", self.chain_id, self.transaction, self.token, self.to, self.nth)
    }
}

impl FromStr for TransferId {
    type Err = TransferIdError;

    fn from_str(text: &str) -> Result<Self, TransferIdError> {
        let mut parts = text.split('/');
        let id = Self {
            chain_id: part(&mut parts)?,
            transaction: part(&mut parts)?,
            token: part(&mut parts)?,
            to: part(&mut parts)?,
            nth: part(&mut parts)?,
        };
        parts.next().is_none().then_some(id).ok_or(TransferIdError)
    }
}

fn part<'a, T: FromStr>(parts: &mut impl Iterator<Item = &'a str>) -> Result<T, TransferIdError> {
    parts.next().and_then(|part| part.parse().ok()).ok_or(TransferIdError)
}
