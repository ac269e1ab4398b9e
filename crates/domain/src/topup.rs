//! Holds: payments of customers: where they come from and where they stand.

use crate::stored;

stored! {
    /// How a payment comes.
    pub enum TopupSource {
        /// By card, on Stripe's page.
        Checkout = 0 => "stripe",
        /// By a card that was saved for it, when the balance went low.
        Automatic = 1 => "stripe",
        /// In USDC, to an address of the account's own.
        Usdc = 2 => "usdc",
    }
}

stored! {
    /// Where a payment stands.
    pub enum TopupStatus {
        /// It is asked for; whether Stripe knows of it is not known.
        Created = 0 => "pending",
        /// It can be paid, or is on its way.
        Pending = 1 => "pending",
        /// It was credited. Of what went back since, movements tell.
        Completed = 2 => "completed",
        /// It was refused, or what came is not what was asked for; nothing was credited.
        Failed = 3 => "failed",
        /// Nobody paid in time.
        Expired = 4 => "expired",
    }
}

stored! {
    /// Where a payment on a chain stands.
    pub enum DepositStatus {
        /// It is in a block that may still go.
        Confirming = 0 => "confirming",
        /// It is final, and too little to be credited alone: the next ones are added to it.
        Held = 1 => "held",
        /// It was credited.
        Credited = 2 => "credited",
        /// Its block has gone, and what was credited for it was taken back. It may come again.
        Orphaned = 3 => "orphaned",
        /// It is of a token that is not credited.
        Unsupported = 4 => "unsupported_token",
    }
}

impl TopupStatus {
    /// Whether it may still be credited without anybody doing anything about it.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Created | Self::Pending)
    }
}
