//! Holds: reading a payment's state at Stripe, and having it written.

use std::{error::Error, time::Duration};

use batchin_domain::{Timestamp, TopupSource, TopupStatus};
use batchin_store::{Reading, SettleTopupError, StoreError, TopupDetails, TopupKey, TopupRow};
use batchin_stripe::StripeError;
use metrics::counter;
use tracing::{error, info};

use crate::{
    Billing,
    billing::Cards,
    options::OPEN_LOOK,
    reading::{Comes, Snapshot, comes_to},
};

/// The longest pause between two looks at one that is open.
const OPEN_LOOK_MOST: Duration = Duration::from_secs(2 * 3_600);
/// Between two looks at one that was credited: reports of refunds and disputes come by themselves, and what was not
/// reported stands in Stripe's list of events for thirty days.
const COMPLETED_LOOK: Duration = Duration::from_secs(7 * 24 * 3_600);
/// For so long after it was asked for is it looked at: card holders may dispute for some months.
const COMPLETED_FOR: Duration = Duration::from_secs(180 * 24 * 3_600);
/// Under one Idempotency-Key Stripe opens one page for so long; a page that it does not know then was never opened.
const KEY_LIFE: Duration = Duration::from_secs(24 * 3_600);
/// Clocks differ by so much at most, for looking for a page by its time.
const CLOCKS: Duration = Duration::from_secs(600);
/// How often a reading is begun anew since another one was written meanwhile.
const TRIES: u32 = 5;

/// Why a payment was not brought up to date; it is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    #[error(transparent)]
    Stripe(#[from] StripeError),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Others write it all the time.
    #[error("the payment changes all the time")]
    Busy,
    /// The ledger will not: a person has to see to it.
    #[error("the ledger refuses what Stripe says")]
    Ledger(#[source] SettleTopupError),
}

impl Billing {
    /// Reads a payment anew and has what it comes to written; where it stands then.
    pub(crate) async fn reconcile(&self, key: TopupKey<'_>) -> Result<Option<TopupStatus>, ReconcileError> {
        for _ in 0..TRIES {
            let Some(topup) = self.topups().topup(key).await? else { return Ok(None) };
            let Some(cards) = self.cards() else { return Ok(Some(topup.status)) };
            let Some(comes) = self.read(cards, &topup).await? else { return Ok(Some(topup.status)) };
            batchin_faults::point("topup.read");
            let status = comes.status;
            match self.write(&topup, comes).await {
                Ok(()) => return Ok(Some(status)),
                Err(SettleTopupError::Stale) => {}
                Err(SettleTopupError::Store(cause)) => return Err(cause.into()),
                Err(cause @ (SettleTopupError::Conflict { .. } | SettleTopupError::Overflow)) => {
                    counter!("batchin_money_alarms_total", "what" => "ledger_refuses").increment(1);
                    error!(topup = %topup.id, error = &cause as &dyn Error, "what Stripe says of a payment cannot be booked");
                    return Err(ReconcileError::Ledger(cause));
                }
            }
        }
        Err(ReconcileError::Busy)
    }

    async fn write(&self, topup: &TopupRow, comes: Comes) -> Result<(), SettleTopupError> {
        let now = self.now();
        let Comes { status, entries, details, alarms } = comes;
        // One whose alarm stands told of it when it began.
        if !alarms.is_empty() && (topup.details.failure != details.failure || status == TopupStatus::Completed) {
            for what in alarms {
                counter!("batchin_money_alarms_total", "what" => "odd_payment").increment(1);
                error!(topup = %topup.id, what, "a payment needs a person: {what}");
            }
        }
        let due_at = next_look(topup, status, now);
        let reading = Reading { topup: topup.id, version: topup.version, status, entries, details, due_at, now };
        let settled = self.topups().settle_topup(&reading).await?;
        batchin_faults::point("topup.settled");
        if settled.fresh > 0 {
            info!(topup = %topup.id, account = %topup.account, "a payment moved {} time(s)", settled.fresh);
        }
        if settled.frozen {
            counter!("batchin_money_alarms_total", "what" => "account_frozen").increment(1);
            error!(account = %topup.account, topup = %topup.id, "an account has spent what went back, and is frozen");
        }
        Ok(())
    }

    /// Everything that Stripe says of it; `None` where there is nothing to be said yet.
    async fn read(&self, cards: &Cards, topup: &TopupRow) -> Result<Option<Comes>, ReconcileError> {
        if topup.source == TopupSource::Automatic && topup.details.payment.is_none() {
            return self.charge(cards, topup).await;
        }
        let mut checkout = match &topup.details.session {
            Some(session) => Some(cards.stripe.checkout(session).await?),
            None => None,
        };
        if checkout.is_none() && topup.details.payment.is_none() {
            let Some(found) = self.find(cards, topup).await? else { return Ok(self.never_opened(topup)) };
            checkout = Some(cards.stripe.checkout(&found).await?);
        }
        let payment = match checkout.as_mut().and_then(|checkout| checkout.payment.take()) {
            Some(payment) => Some(payment),
            None => match (&checkout, &topup.details.payment) {
                (None, Some(payment)) => Some(cards.stripe.payment(payment).await?),
                _ => None,
            },
        };
        let (mut refunds, mut disputes) = (Vec::new(), Vec::new());
        // What is not paid has nothing to give back.
        if let Some(payment) = &payment {
            refunds = cards.stripe.refunds(&payment.id).await?;
            disputes = cards.stripe.disputes(&payment.id).await?;
        }
        let snapshot = Snapshot { checkout, payment, refunds, disputes };
        Ok(Some(comes_to(topup, &snapshot, cards.options.is_live(), || self.ids().uuid())))
    }

    /// The page of a payment of which it is not known whether it was opened.
    async fn find(&self, cards: &Cards, topup: &TopupRow) -> Result<Option<String>, StripeError> {
        let from = topup.created_at.before(CLOCKS).seconds();
        let to = topup.created_at.after(KEY_LIFE).after(CLOCKS).seconds();
        let found = cards.stripe.find_checkout(&topup.id.uuid().to_string(), from..=to).await?;
        Ok(found.map(|checkout| checkout.id))
    }

    /// A payment whose page Stripe does not know; in time that means that there is none.
    fn never_opened(&self, topup: &TopupRow) -> Option<Comes> {
        let is_over = self.now().since(topup.created_at) > KEY_LIFE;
        let status = if is_over { TopupStatus::Expired } else { topup.status };
        Some(Comes { status, entries: Vec::new(), details: TopupDetails::default(), alarms: Vec::new() })
    }
}

/// When a payment is looked at again, should nothing be heard of it.
fn next_look(topup: &TopupRow, status: TopupStatus, now: Timestamp) -> Option<Timestamp> {
    match status {
        TopupStatus::Created | TopupStatus::Pending => {
            let doublings = u32::try_from(topup.checks).unwrap_or(u32::MAX).min(16);
            Some(now.after(OPEN_LOOK.saturating_mul(1 << doublings).min(OPEN_LOOK_MOST)))
        }
        TopupStatus::Completed if now.since(topup.created_at) < COMPLETED_FOR => Some(now.after(COMPLETED_LOOK)),
        TopupStatus::Completed | TopupStatus::Failed | TopupStatus::Expired => None,
    }
}
