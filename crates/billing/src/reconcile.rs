//! Holds: reading a payment's state at Stripe, and having it written.

use std::{error::Error, time::Duration};

use batchin_domain::{Timestamp, TopupSource, TopupStatus};
use batchin_store::{Entry, Reading, SettleTopupError, StoreError, TopupDetails, TopupKey, TopupRow};
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
const LOOKED_FOR: Duration = Duration::from_secs(180 * 24 * 3_600);
/// Under one Idempotency-Key Stripe opens one page for so long; a page that it does not know then was never opened.
pub(crate) const KEY_LIFE: Duration = Duration::from_secs(24 * 3_600);
/// Clocks differ by so much at most, for looking for a page by its time.
pub(crate) const CLOCKS: Duration = Duration::from_secs(600);
/// An open payment that Stripe does not know any more is looked for so long.
const GONE_FOR: Duration = Duration::from_secs(30 * 24 * 3_600);
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

/// What a report names, which may not be written down of its payment yet: it names the payment by its metadata.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Named<'a> {
    /// Stripe's session.
    pub(crate) session: Option<&'a str>,
    /// Stripe's payment intent.
    pub(crate) payment: Option<&'a str>,
}

impl Billing {
    /// Reads a payment anew and has what it comes to written; where it stands then.
    pub(crate) async fn reconcile(
        &self,
        key: TopupKey<'_>,
        named: Named<'_>,
    ) -> Result<Option<TopupStatus>, ReconcileError> {
        for _ in 0..TRIES {
            let Some(topup) = self.topups().topup(key).await? else { return Ok(None) };
            let Some(cards) = self.cards() else { return Ok(Some(topup.status)) };
            let comes = match self.read(cards, &topup, named).await {
                Ok(Some(comes)) => comes,
                Ok(None) => return Ok(Some(topup.status)),
                Err(ReconcileError::Stripe(cause)) => gone(&topup, cause, self.now())?,
                Err(other) => return Err(other),
            };
            batchin_faults::point("topup.read");
            let status = comes.status;
            match self.write_all(&topup, comes).await {
                Ok(()) => return Ok(Some(status)),
                Err(SettleTopupError::Stale) => {}
                Err(SettleTopupError::Store(cause)) => return Err(cause.into()),
                Err(cause @ (SettleTopupError::Conflict { .. } | SettleTopupError::Overflow)) => {
                    return Err(ReconcileError::Ledger(cause));
                }
            }
        }
        Err(ReconcileError::Busy)
    }

    /// Writes what a payment comes to. What the ledger knows as something else is left out, with an alarm, and does not keep the
    /// rest from being booked.
    async fn write_all(&self, topup: &TopupRow, mut comes: Comes) -> Result<(), SettleTopupError> {
        loop {
            let before = comes.entries.len();
            let cause = match self.write(topup, comes.clone()).await {
                Err(cause @ (SettleTopupError::Conflict { .. } | SettleTopupError::Overflow)) => cause,
                written => return written,
            };
            counter!("batchin_money_alarms_total", "what" => "ledger_refuses").increment(1);
            error!(topup = %topup.id, error = &cause as &dyn Error, "what Stripe says of a payment cannot be booked");
            let SettleTopupError::Conflict { reference } = &cause else { return Err(cause) };
            let is_apart =
                |entry: &Entry| entry.reference != *reference && entry.reverses.as_deref() != Some(&**reference);
            comes.entries.retain(is_apart);
            // Without the payment itself there is nothing that could go back.
            if comes.entries.is_empty() || comes.entries.len() == before {
                return Err(cause);
            }
        }
    }

    async fn write(&self, topup: &TopupRow, comes: Comes) -> Result<(), SettleTopupError> {
        let now = self.now();
        let Comes { status, entries, details, alarms, is_last } = comes;
        // One whose alarm stands told of it when it began.
        if !alarms.is_empty() && (topup.details.failure != details.failure || status == TopupStatus::Completed) {
            for what in alarms {
                counter!("batchin_money_alarms_total", "what" => "odd_payment").increment(1);
                error!(topup = %topup.id, what, "a payment needs a person: {what}");
            }
        }
        let due_at = if is_last { None } else { next_look(topup, status, now) };
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
    async fn read(&self, cards: &Cards, topup: &TopupRow, named: Named<'_>) -> Result<Option<Comes>, ReconcileError> {
        let mut snapshot = Snapshot::default();
        match topup.source {
            TopupSource::Automatic => match topup.details.payment.as_deref().or(named.payment) {
                Some(payment) => snapshot.payment = Some(cards.stripe.payment(payment).await?),
                None => return self.charge(cards, topup).await.map(Some),
            },
            TopupSource::Checkout => {
                let known = match topup.details.session.as_deref().or(named.session) {
                    Some(session) => Some(session.to_owned()),
                    None => self.find(cards, topup, named).await?,
                };
                let Some(session) = known else { return Ok(Some(self.never_opened(topup))) };
                let mut checkout = cards.stripe.checkout(&session).await?;
                snapshot.payment = checkout.payment.take();
                snapshot.checkout = Some(checkout);
            }
            TopupSource::Usdc => return Ok(None),
        }
        // What is not paid has nothing to give back.
        if let Some(payment) = &snapshot.payment {
            snapshot.refunds = cards.stripe.refunds(&payment.id).await?;
            snapshot.disputes = cards.stripe.disputes(&payment.id).await?;
        }
        Ok(Some(comes_to(topup, &snapshot, cards.options.is_live(), || self.ids().uuid())))
    }

    /// The page of a payment of which it is not known whether it was opened.
    async fn find(&self, cards: &Cards, topup: &TopupRow, named: Named<'_>) -> Result<Option<String>, StripeError> {
        if let Some(payment) = named.payment
            && let Some(found) = cards.stripe.checkout_of(payment).await?
        {
            return Ok(Some(found.id));
        }
        let from = topup.created_at.before(CLOCKS).seconds();
        let to = topup.created_at.after(KEY_LIFE).after(CLOCKS).seconds();
        let found = cards.stripe.find_checkout(&topup.id.uuid().to_string(), from..=to).await?;
        Ok(found.map(|checkout| checkout.id))
    }

    /// A payment whose page Stripe does not know; in time that means that there is none.
    fn never_opened(&self, topup: &TopupRow) -> Comes {
        let is_over = self.now().since(topup.created_at) > KEY_LIFE;
        Comes::only(if is_over { TopupStatus::Expired } else { topup.status }, TopupDetails::default())
    }
}

/// A payment could not be read. One that Stripe does not know any more is of another account of Stripe's, or of the other mode:
/// looking again and again brings nothing.
fn gone(topup: &TopupRow, cause: StripeError, now: Timestamp) -> Result<Comes, ReconcileError> {
    let is_gone = cause.refusal().is_some_and(batchin_stripe::Refusal::is_missing);
    let status = match topup.status {
        _ if !is_gone => return Err(cause.into()),
        TopupStatus::Created | TopupStatus::Pending if now.since(topup.created_at) < GONE_FOR => {
            return Err(cause.into());
        }
        TopupStatus::Created | TopupStatus::Pending => TopupStatus::Expired,
        ended @ (TopupStatus::Completed | TopupStatus::Failed | TopupStatus::Expired) => ended,
    };
    let details = TopupDetails { failure: topup.details.failure.clone(), ..TopupDetails::default() };
    let alarms = vec!["Stripe does not know a payment any more"];
    Ok(Comes { alarms, is_last: true, ..Comes::only(status, details) })
}

/// When a payment is looked at again, should nothing be heard of it.
fn next_look(topup: &TopupRow, status: TopupStatus, now: Timestamp) -> Option<Timestamp> {
    match status {
        _ if now.since(topup.created_at) >= LOOKED_FOR => None,
        TopupStatus::Created | TopupStatus::Pending => Some(now.after(pause(topup.checks))),
        TopupStatus::Completed => Some(now.after(COMPLETED_LOOK)),
        TopupStatus::Failed | TopupStatus::Expired => None,
    }
}

/// Between two looks that bring nothing new, the more of them there were.
pub(crate) fn pause(checks: u64) -> Duration {
    let doublings = u32::try_from(checks).unwrap_or(u32::MAX).min(16);
    OPEN_LOOK.saturating_mul(1 << doublings).min(OPEN_LOOK_MOST)
}
