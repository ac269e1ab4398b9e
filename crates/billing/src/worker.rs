//! Holds: the worker: deals with reports, and looks at payments of which nothing was heard.
//!
//! Any number of nodes may run one. What one takes the others leave alone for a while; what two should do at once all the
//! same is refused to the later.

use std::{error::Error, time::Duration};

use batchin_domain::{TopupId, TopupStatus};
use batchin_store::{DueStripeEvent, StoreError, TopupKey};
use batchin_stripe::{Event, StripeError, Subject};
use batchin_tasks::Tasks;
use metrics::counter;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};
use uuid::Uuid;

use crate::{
    Billing,
    billing::Cards,
    reconcile::{Named, ReconcileError, pause},
};

/// Reports and payments that are taken at once.
const AT_ONCE: u32 = 32;
/// How long whoever takes one has for it.
const CLAIM: Duration = Duration::from_secs(60);
/// The first pause before a report is tried again; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest.
const LAST_PAUSE: Duration = Duration::from_secs(3_600);
/// Tries after which a report is set aside: some three days.
const MAX_TRIES: u64 = 80;

/// How often the worker looks.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// For reports that other nodes have stored, and payments that are due.
    pub look: Duration,
    /// For reports that never came.
    pub catch_up: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { look: Duration::from_secs(2), catch_up: Duration::from_secs(300) }
    }
}

/// Why a report is not dealt with yet.
#[derive(Debug, thiserror::Error)]
enum DealError {
    #[error(transparent)]
    Reconcile(#[from] ReconcileError),
    #[error(transparent)]
    Stripe(#[from] StripeError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Deals with what comes in.
pub(crate) struct Worker {
    billing: Billing,
    pace: Pace,
}

impl Worker {
    pub(crate) fn start(billing: Billing, pace: Pace, tasks: &Tasks) {
        let lister = Self { billing: billing.clone(), pace };
        // Reading a long list holds nobody up.
        tasks.spawn("stripe_events", |stop| lister.list(stop));
        let worker = Self { billing, pace };
        tasks.spawn("billing", |stop| worker.run(stop));
    }

    async fn list(self, stop: CancellationToken) {
        let Some(cards) = self.billing.cards() else { return };
        loop {
            match stop.run_until_cancelled(self.billing.catch_up(cards, self.pace.catch_up)).await {
                None => return,
                Some(Ok(true)) => cards.bell.notify_one(),
                Some(Ok(false)) => {}
                Some(Err(cause)) => {
                    warn!(error = &cause as &dyn Error, "what Stripe lists could not be stored");
                }
            }
            if stop.run_until_cancelled(tokio::time::sleep(self.pace.look)).await.is_none() {
                return;
            }
        }
    }

    async fn run(self, stop: CancellationToken) {
        let Some(cards) = self.billing.cards() else { return };
        loop {
            let more = match stop.run_until_cancelled(self.billing.deal_with_due(cards)).await {
                None => return,
                Some(Ok(more)) => more,
                Some(Err(cause)) => {
                    warn!(error = &cause as &dyn Error, "money that comes in could not be looked for");
                    false
                }
            };
            if more {
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = cards.bell.notified() => {}
                () = tokio::time::sleep(self.pace.look) => {}
            }
        }
    }
}

impl Billing {
    /// Deals with everything that is due, as the worker does, and asks Stripe for reports that never came, if that was longer
    /// ago than `catch_up`; whether there may be more.
    pub async fn look(&self, catch_up: Duration) -> Result<bool, StoreError> {
        let Some(cards) = self.cards() else { return Ok(false) };
        Ok(self.deal_with_due(cards).await? | self.catch_up(cards, catch_up).await?)
    }

    async fn deal_with_due(&self, cards: &Cards) -> Result<bool, StoreError> {
        let now = self.now();
        let events = self.inbox().due_events(now, now.after(CLAIM), AT_ONCE).await?;
        // One that cannot be read is due again after the pause of one that brings nothing new.
        let topups = self.topups().due_topups(now, |checks| now.after(pause(checks)), AT_ONCE).await?;
        let mut more = !events.is_empty() || !topups.is_empty();
        for event in events {
            self.deal(cards, event).await?;
        }
        for topup in topups {
            match self.reconcile(TopupKey::Id(topup.id), Named::default()).await {
                Ok(_) => {}
                Err(ReconcileError::Stripe(StripeError::Refused(refusal))) => {
                    counter!("batchin_money_alarms_total", "what" => "stripe_refuses").increment(1);
                    error!(topup = %topup.id, error = %refusal, "Stripe refuses to tell of a payment, or to charge for it");
                }
                Err(cause) => {
                    debug!(topup = %topup.id, error = &cause as &dyn Error, "a payment could not be looked at");
                }
            }
        }
        more |= self.top_up_low().await?;
        Ok(more)
    }

    async fn deal(&self, cards: &Cards, due: DueStripeEvent) -> Result<(), StoreError> {
        let inbox = self.inbox();
        let cause = match self.deal_with(cards, &due).await {
            Ok(outcome) => {
                batchin_faults::point("stripe_event.dealt");
                return inbox.event_done(&due.id, outcome).await;
            }
            Err(DealError::Store(cause) | DealError::Reconcile(ReconcileError::Store(cause))) => return Err(cause),
            Err(cause) => cause,
        };
        if due.tries >= MAX_TRIES {
            counter!("batchin_money_alarms_total", "what" => "event_set_aside").increment(1);
            error!(
                event = due.id,
                error = &cause as &dyn Error,
                "a report of Stripe is set aside after {MAX_TRIES} tries"
            );
            return inbox.event_done(&due.id, "set aside").await;
        }
        warn!(event = due.id, error = &cause as &dyn Error, "a report of Stripe could not be dealt with yet");
        let doublings = u32::try_from(due.tries).unwrap_or(u32::MAX).min(16);
        let pause = FIRST_PAUSE.saturating_mul(1 << doublings).min(LAST_PAUSE);
        inbox.event_again(&due.id, self.now().after(pause), &cause.to_string()).await
    }

    /// Has the payment that a report is of read anew; how that went, for operators.
    async fn deal_with(&self, cards: &Cards, due: &DueStripeEvent) -> Result<&'static str, DealError> {
        // Only what could be read was stored.
        let Ok(event) = Event::parse(due.body.as_bytes()) else { return Ok("unreadable") };
        let status = match &event.subject {
            Subject::None => return Ok("not ours"),
            Subject::Checkout(session) => match self.reconcile(TopupKey::Session(session), Named::default()).await? {
                Some(status) => Some(status),
                None => self.by_session(cards, session).await?,
            },
            Subject::Payment(payment) => self.by_payment(cards, payment).await?,
            Subject::Charge(charge) => match missing(cards.stripe.charge(charge).await)? {
                Some(charge) => match charge.payment_intent {
                    Some(payment) => self.by_payment(cards, &payment).await?,
                    None => None,
                },
                None => None,
            },
        };
        Ok(status.map_or("not ours", TopupStatus::name))
    }

    /// A page whose opening nobody heard of names its payment itself.
    async fn by_session(&self, cards: &Cards, session: &str) -> Result<Option<TopupStatus>, DealError> {
        let Some(checkout) = missing(cards.stripe.checkout(session).await)? else { return Ok(None) };
        if self.take_setup(&checkout).await? {
            return Ok(Some(TopupStatus::Completed));
        }
        self.by_name(checkout.topup.as_deref(), Named { session: Some(session), payment: None }).await
    }

    async fn by_payment(&self, cards: &Cards, payment: &str) -> Result<Option<TopupStatus>, DealError> {
        if let Some(status) = self.reconcile(TopupKey::Payment(payment), Named::default()).await? {
            return Ok(Some(status));
        }
        let Some(read) = missing(cards.stripe.payment(payment).await)? else { return Ok(None) };
        self.by_name(read.topup.as_deref(), Named { session: None, payment: Some(payment) }).await
    }

    async fn by_name(&self, name: Option<&str>, named: Named<'_>) -> Result<Option<TopupStatus>, DealError> {
        let Some(id) = name.and_then(|name| Uuid::try_parse(name).ok()) else { return Ok(None) };
        Ok(self.reconcile(TopupKey::Id(TopupId::new(id)), named).await?)
    }
}

/// What Stripe does not know is nobody's.
fn missing<T>(read: Result<T, StripeError>) -> Result<Option<T>, StripeError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(cause) if cause.refusal().is_some_and(batchin_stripe::Refusal::is_missing) => Ok(None),
        Err(cause) => Err(cause),
    }
}
