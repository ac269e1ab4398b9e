//! Holds: events, the states of their deliveries, and how a try can fail.

use std::{fmt, str::FromStr};

use uuid::Uuid;

use crate::{BatchStatus, stored};

/// What an id of an event begins with.
const PREFIX: &str = "evt_";

/// One event; the `webhook-id` of every try to deliver it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(Uuid);

impl EventId {
    /// Wraps a UUID that is known to name an event.
    pub const fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The bare UUID, for storage.
    pub const fn uuid(self) -> Uuid {
        self.0
    }
}

/// `evt_` and 32 hex digits.
impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.0.simple())
    }
}

/// The text is no id of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event's id is {PREFIX} and 32 hex digits")]
pub struct NoEventId;

impl FromStr for EventId {
    type Err = NoEventId;

    fn from_str(text: &str) -> Result<Self, NoEventId> {
        let hex = text.strip_prefix(PREFIX).filter(|hex| hex.len() == uuid::fmt::Simple::LENGTH).ok_or(NoEventId)?;
        Uuid::try_parse(hex).map(Self).map_err(|_| NoEventId)
    }
}

stored! {
    /// What has happened.
    pub enum EventKind {
        /// A batch ended and at least one of its tasks completed.
        BatchCompleted = 0 => "batch.completed",
        /// A batch ended and none of its tasks completed.
        BatchFailed = 1 => "batch.failed",
        /// A batch's window passed.
        BatchExpired = 2 => "batch.expired",
        /// A batch was stopped by its owner.
        BatchCancelled = 3 => "batch.cancelled",
        /// Credit was bought.
        TopupSucceeded = 4 => "topup.succeeded",
        /// The balance went below what its owner wants to be told of.
        BalanceLow = 5 => "balance.low",
        /// A key's month passed a part of its budget.
        BudgetThreshold = 6 => "budget.threshold",
        /// Credit that was to be bought was not.
        TopupFailed = 7 => "topup.failed",
        /// Credit that was bought went back, or a part of it.
        TopupReversed = 8 => "topup.reversed",
        /// An owner wants to be told by e-mail, and is to show that the address is theirs.
        EmailCode = 9 => "email.code",
    }
}

impl EventKind {
    /// What it means that a batch stands at `status`; nothing while it may change.
    pub const fn of_batch(status: BatchStatus) -> Option<Self> {
        match status {
            BatchStatus::Completed => Some(Self::BatchCompleted),
            BatchStatus::Failed => Some(Self::BatchFailed),
            BatchStatus::Expired => Some(Self::BatchExpired),
            BatchStatus::Cancelled => Some(Self::BatchCancelled),
            _ => None,
        }
    }

    /// Whether its subject is a batch.
    pub const fn is_of_batch(self) -> bool {
        matches!(self, Self::BatchCompleted | Self::BatchFailed | Self::BatchExpired | Self::BatchCancelled)
    }
}

stored! {
    /// Where a delivery stands.
    pub enum DeliveryState {
        /// Waits for its next try.
        Pending = 0 => "pending",
        /// A node is trying.
        Sending = 1 => "pending",
        /// The receiver took it.
        Delivered = 2 => "delivered",
        /// Every try failed.
        Failed = 3 => "failed",
        /// The receiver said that it wants no more.
        Off = 4 => "off",
    }
}

stored! {
    /// Why a try got no status, or none that counts.
    pub enum FailureKind {
        /// The URL, or every address of its host, is one that nothing is sent to.
        Forbidden = 0 => "forbidden_address",
        /// The host has no address.
        Unresolved = 1 => "host_not_found",
        /// No connection, or no trust in the receiver's certificate.
        Unreachable = 2 => "connection_failed",
        /// No answer in time.
        TimedOut = 3 => "timeout",
        /// The connection broke, or what came was no HTTP.
        Broken = 4 => "connection_broken",
        /// The answer leads elsewhere; it is not followed.
        Redirected = 5 => "redirect",
        /// The account's secret could not be used, so nothing was sent.
        Unsigned = 6 => "not_signed",
        /// A mail server refused this mail for good.
        MailRefused = 7 => "mail_refused",
        /// A mail server took no mail now.
        MailDeferred = 8 => "mail_deferred",
        /// This node sends no mail.
        MailOff = 9 => "mail_off",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_round_trips_and_nothing_else_parses() {
        let id = EventId::new(Uuid::from_u128(7));
        assert_eq!(id.to_string(), "evt_00000000000000000000000000000007");
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "evt_", "00000000000000000000000000000007", "evt_00000000-0000-0000-0000-000000000007", "wh_x"]
        {
            assert_eq!(text.parse::<EventId>(), Err(NoEventId), "{text}");
        }
    }
}
