//! Holds: what is written of a request that consumed something.

use std::time::Duration;

use batchin_domain::{Amount, BatchId, CallKind, Class, Counts, PriceVersion, RequestId, TaskId, Timestamp};

/// A row of the usage log.
#[derive(Clone, Debug)]
pub struct UsageRecord {
    /// Names the request.
    pub request: RequestId,
    /// The model as asked for.
    pub model: String,
    /// The kind of call.
    pub call: CallKind,
    /// The class that it ran and was priced in.
    pub class: Class,
    /// The batch and task that it ran for.
    pub task: Option<(BatchId, TaskId)>,
    /// What it consumed so far.
    pub counts: Counts,
    /// What it cost so far, all charges together.
    pub cost: Amount,
    /// The price list that it was charged by.
    pub price_version: PriceVersion,
    /// How it ended, or that it goes on.
    pub outcome: Outcome,
    /// Whether we counted because the upstream did not.
    pub estimated: bool,
    /// What is odd about the counts.
    pub marks: UsageMarks,
    /// When it came in: the same in every flush, since the account, this and the request name the row.
    pub created_at: Timestamp,
    /// Time from admission to the end.
    pub latency: Duration,
    /// Time to first token.
    pub ttft: Option<Duration>,
}

/// What is odd about a row's counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageMarks {
    /// More was counted than was held for: the counts are what was held for, and so is the cost.
    pub capped: bool,
    /// The upstream counted less than the pieces of its own stream.
    pub below_pieces: bool,
    /// The upstream went on beyond the limit and was cut off.
    pub cut: bool,
}

impl UsageMarks {
    const CAPPED: i16 = 1;
    const BELOW_PIECES: i16 = 2;
    const CUT: i16 = 4;

    /// The number they are stored as.
    pub const fn code(self) -> i16 {
        let mut code = 0;
        if self.capped {
            code |= Self::CAPPED;
        }
        if self.below_pieces {
            code |= Self::BELOW_PIECES;
        }
        if self.cut {
            code |= Self::CUT;
        }
        code
    }

    /// From the number they are stored as.
    pub const fn from_code(code: i16) -> Self {
        Self {
            capped: code & Self::CAPPED != 0,
            below_pieces: code & Self::BELOW_PIECES != 0,
            cut: code & Self::CUT != 0,
        }
    }

    /// Their names in the API.
    pub fn names(self) -> Vec<&'static str> {
        let all = [(self.capped, "capped"), (self.below_pieces, "below_pieces"), (self.cut, "cut")];
        all.into_iter().filter_map(|(is, name)| is.then_some(name)).collect()
    }
}

batchin_domain::stored! {
    /// How a request ended.
    pub enum Outcome {
        /// It goes on; this is a flush.
        Running = 0 => "running",
        /// The answer was delivered whole.
        Completed = 1 => "completed",
        /// The client went away.
        ClientGone = 2 => "client_gone",
        /// The upstream failed in the middle.
        UpstreamFailed = 3 => "upstream_failed",
    }
}
