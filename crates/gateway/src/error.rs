//! Holds: how a request can fail.

use std::time::Duration;

use batchin_domain::Amount;
use batchin_openai::{InvalidRequest, UpstreamError};
use batchin_store::StoreError;

use crate::{Capability, RateInfo};

/// Why a request got no answer. Nothing was charged.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The body is not what the call takes.
    #[error("the request is invalid")]
    Invalid(InvalidRequest),
    /// No model of that name is served.
    #[error("the model is not served here")]
    ModelNotFound {
        /// The name asked for.
        model: String,
    },
    /// The model cannot do this.
    #[error("the model cannot do this")]
    NotCapable {
        /// The model's id.
        model: String,
        /// What it would need.
        needs: Capability,
    },
    /// The prompt, or prompt and output together, are over the model's limits.
    #[error("the request is over the model's limits")]
    OverModelLimit {
        /// The field at fault.
        param: &'static str,
        /// What it asks for.
        asked: u64,
        /// What the model has.
        limit: u64,
    },
    /// The key has made its requests of this minute.
    #[error("the key's rate limit is used up")]
    RateLimited(RateInfo),
    /// The account does not cover the highest possible cost.
    #[error("the balance does not cover the request")]
    BalanceTooLow {
        /// The highest possible cost.
        needed: Amount,
        /// What could be set aside.
        available: Amount,
        /// The `max_tokens` that could be paid for, where there is one.
        affordable_output: Option<u64>,
    },
    /// The key's monthly budget does not cover the highest possible cost.
    #[error("the key's budget does not cover the request")]
    BudgetTooLow {
        /// The highest possible cost.
        needed: Amount,
        /// What is left of the month.
        available: Amount,
    },
    /// What is left of the batch's highest cost does not cover the task's.
    #[error("the batch's highest cost does not cover the request")]
    CapTooLow,
    /// The account or the key is gone.
    #[error("the account or the key is gone")]
    CallerGone,
    /// Every upstream that could serve it is at its cap.
    #[error("all upstreams are busy")]
    Busy {
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// The account has its part of the requests that this node bears.
    #[error("the account has its part of the places")]
    OverShare {
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// No upstream can serve it now.
    #[error("no upstream can serve this now")]
    NoUpstream {
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// The upstream says that the request itself is at fault.
    #[error("the model server refused the request")]
    Refused {
        /// What the client is told: 400, 413 or 422.
        status: u16,
        /// What it says, without its address.
        error: Box<UpstreamError>,
    },
    /// The upstreams failed.
    #[error("the model server failed")]
    UpstreamFailed,
    /// The upstreams took too long.
    #[error("the model server did not answer in time")]
    UpstreamTimeout,
    /// A batch task was stopped in favour of interactive work, or because its batch was cancelled.
    #[error("the task was stopped")]
    Stopped,
    /// The Idempotency-Key was used for another request.
    #[error("the Idempotency-Key was used for another request")]
    IdempotencyMismatch,
    /// The first request under this Idempotency-Key is still running after a long wait.
    #[error("the first request with this Idempotency-Key is still running")]
    IdempotencyRunning,
    /// As many requests as may already wait for the answer under this Idempotency-Key, or under this account's keys.
    #[error("too many requests wait under Idempotency-Keys")]
    IdempotencyCrowded,
    /// The first request under this Idempotency-Key was charged and its answer cannot be given again.
    #[error("the first answer with this Idempotency-Key cannot be given again")]
    IdempotencyCut,
    /// This node may not spend now: it lost touch with the database.
    #[error("this node cannot reach its ledger")]
    Fenced,
    /// The ledger refused the request's end, and would again: nothing was charged.
    #[error("the ledger refused the request's end")]
    NotStorable,
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] StoreError),
}
