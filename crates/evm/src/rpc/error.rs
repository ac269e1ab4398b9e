//! Holds: how asking an endpoint fails, by what is to be done about it.

use std::time::Duration;

/// Why an endpoint's answer is not to be had, or not to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// There is no connection, or it broke.
    #[error("the endpoint cannot be reached")]
    Unreachable,
    /// There is no answer in time.
    #[error("the endpoint did not answer in time")]
    TimedOut,
    /// It has too much to do, or we ask too much. Later again.
    #[error("the endpoint refuses for now: too many requests")]
    Busy {
        /// When it says to come back.
        retry_after: Option<Duration>,
    },
    /// It does not know our key, or not any more.
    #[error("the endpoint does not accept its key or this server's address")]
    Unauthorised,
    /// It has not come as far as the chain, or as itself a moment ago. Later again, or another.
    #[error("the endpoint is behind the chain")]
    Lags,
    /// It has no block of this hash: the block was dropped in a reorganisation. No fault of the endpoint.
    #[error("the endpoint does not have this block, or not any more")]
    UnknownBlock,
    /// The answer would be too large: to be asked for less.
    #[error("the answer would be too large")]
    TooMany,
    /// It serves another chain.
    #[error("the endpoint serves the chain {found}, not {expected}")]
    WrongChain {
        /// The chain that was wanted.
        expected: u64,
        /// The chain that it serves.
        found: u64,
    },
    /// Its answer contradicts itself, or the question.
    #[error("the endpoint's answer is not believed: {0}")]
    Lies(Lie),
    /// It refuses the call for a reason of its own.
    #[error("the endpoint refuses the call (JSON-RPC {code:?}, HTTP {status})")]
    Refused {
        /// JSON-RPC's code, where it sent one.
        code: Option<i64>,
        /// HTTP's status.
        status: u16,
    },
    /// Its answer cannot be read: cut off, no JSON, or not what the method answers.
    #[error("the endpoint's answer cannot be read")]
    Unreadable,
}

/// What gives an answer away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lie {
    /// Another block than the one that was asked for.
    #[error("it is about another block")]
    OtherBlock,
    /// Another transaction than the one that was asked for.
    #[error("it is about another transaction")]
    OtherTransaction,
    /// A log of a contract that was not asked for.
    #[error("it has a log of another contract")]
    OtherContract,
    /// A log with topics that were not asked for.
    #[error("it has a log with other topics")]
    OtherTopics,
    /// A log that is said to be removed, of a block that was asked for.
    #[error("it has a log that was removed")]
    Removed,
    /// One place among a block's logs twice, or two blocks of one number.
    #[error("it says two things of one place")]
    Twice,
    /// A number or bytes that are none.
    #[error("it has hexadecimal digits that are none")]
    Digits,
    /// A block that follows neither the last one nor any that is known, though the last one is still there.
    #[error("its blocks do not follow each other")]
    Parent,
    /// `finalized`, `safe` and `latest` in another order, or on other forks than its blocks.
    #[error("its finalized, safe and latest blocks contradict each other")]
    Heads,
}
