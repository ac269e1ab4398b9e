//! Holds: what comes back of a payment: refunds, and disputes.

use crate::{
    client::{Stripe, is_id},
    failure::StripeError,
    form::Form,
    members::{Members, Missing},
    words::words,
};

/// Most refunds of one payment; each is at least a cent, and an operator makes few.
const MAX_REFUNDS: usize = 1_000;
/// Most disputes of one payment; banks open one, rarely two.
const MAX_DISPUTES: usize = 100;

words! {
    /// How far a refund is.
    RefundStatus {
        /// Under way.
        Pending = "pending",
        /// The buyer must do something to get it.
        RequiresAction = "requires_action",
        /// The money has left.
        Succeeded = "succeeded",
        /// It came back: the money is the merchant's again.
        Failed = "failed",
        /// It was called off.
        Canceled = "canceled",
    }
}

/// Money given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refund {
    /// `re_…` or `pyr_…`.
    pub id: String,
    /// In the currency's smallest unit.
    pub amount: i64,
    /// In lower case.
    pub currency: String,
    /// How far it is.
    pub status: RefundStatus,
    /// Seconds since 1970.
    pub created: i64,
    /// `duplicate`, `fraudulent`, `requested_by_customer` and the like.
    pub reason: Option<String>,
}

words! {
    /// How far a dispute is.
    DisputeStatus {
        /// An inquiry, no money moved: evidence is asked for.
        WarningNeedsResponse = "warning_needs_response",
        /// An inquiry, no money moved: the bank looks at it.
        WarningUnderReview = "warning_under_review",
        /// An inquiry that ended.
        WarningClosed = "warning_closed",
        /// Evidence is asked for.
        NeedsResponse = "needs_response",
        /// The bank looks at it.
        UnderReview = "under_review",
        /// Lost, and there may be an appeal.
        AppealNeedsResponse = "appeal_needs_response",
        /// The appeal is looked at.
        AppealUnderReview = "appeal_under_review",
        /// The merchant was right.
        Won = "won",
        /// The buyer was.
        Lost = "lost",
        /// Settled before it became one.
        Prevented = "prevented",
    }
}

/// One movement of the merchant's balance at Stripe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalanceTransaction {
    /// `txn_…`.
    pub id: String,
    /// Below zero where it was withdrawn, in the currency of the merchant's balance.
    pub amount: i64,
    /// In lower case.
    pub currency: String,
    /// What Stripe keeps for it.
    pub fee: i64,
    /// Seconds since 1970.
    pub created: Option<i64>,
    /// `dispute`, `dispute_reversal` and the like.
    pub reporting_category: Option<String>,
}

/// A payment that its buyer disputes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispute {
    /// `du_…` or `dp_…`.
    pub id: String,
    /// What is disputed, in the currency's smallest unit.
    pub amount: i64,
    /// In lower case.
    pub currency: String,
    /// How far it is.
    pub status: DisputeStatus,
    /// Seconds since 1970.
    pub created: i64,
    /// `fraudulent`, `product_not_received` and the like.
    pub reason: Option<String>,
    /// What it took from the merchant's balance, and gave back. Inquiries have none.
    pub balance_transactions: Vec<BalanceTransaction>,
}

impl Refund {
    fn of(refund: Members<'_>) -> Result<Self, Missing> {
        Ok(Self {
            id: refund.needed_text("id")?,
            amount: refund.needed_integer("amount")?,
            currency: refund.currency("currency").ok_or(Missing("currency"))?,
            status: RefundStatus::parse(refund.word("status")),
            created: refund.needed_integer("created")?,
            reason: refund.text("reason"),
        })
    }
}

impl Dispute {
    fn of(dispute: Members<'_>) -> Result<Self, Missing> {
        Ok(Self {
            id: dispute.needed_text("id")?,
            amount: dispute.needed_integer("amount")?,
            currency: dispute.currency("currency").ok_or(Missing("currency"))?,
            status: DisputeStatus::parse(dispute.word("status")),
            created: dispute.needed_integer("created")?,
            reason: dispute.text("reason"),
            balance_transactions: dispute
                .list("balance_transactions")
                .map(BalanceTransaction::of)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl BalanceTransaction {
    fn of(moved: Members<'_>) -> Result<Self, Missing> {
        Ok(Self {
            id: moved.needed_text("id")?,
            amount: moved.needed_integer("amount")?,
            currency: moved.currency("currency").ok_or(Missing("currency"))?,
            fee: moved.integer("fee")?.unwrap_or(0),
            created: moved.integer("created")?,
            reporting_category: moved.text("reporting_category"),
        })
    }
}

impl Stripe {
    /// Every refund of a payment, newest first.
    pub async fn refunds(&self, payment_intent: &str) -> Result<Vec<Refund>, StripeError> {
        self.of_payment("/v1/refunds", payment_intent, MAX_REFUNDS, Refund::of).await
    }

    /// Every dispute of a payment, newest first.
    pub async fn disputes(&self, payment_intent: &str) -> Result<Vec<Dispute>, StripeError> {
        self.of_payment("/v1/disputes", payment_intent, MAX_DISPUTES, Dispute::of).await
    }

    async fn of_payment<T>(
        &self,
        path: &str,
        payment_intent: &str,
        most: usize,
        read: impl Fn(Members<'_>) -> Result<T, Missing>,
    ) -> Result<Vec<T>, StripeError> {
        if !is_id(payment_intent) {
            return Err(StripeError::NoId);
        }
        let mut all = Vec::new();
        let query = || Form::new().with("payment_intent", payment_intent);
        let pick = |object: Members<'_>| {
            all.push(read(object)?);
            Ok(None::<()>)
        };
        self.walk(path, query, most, pick).await?;
        Ok(all)
    }
}
