//! Holds: taking reports of Stripe: verified, stored, and only then acknowledged.
//!
//! One writer stores what has come together in one transaction, since each costs the disk a wait. What it cannot store, or
//! has no room for, is refused: Stripe sends it again.

use std::{error::Error, sync::Arc, time::Duration};

use batchin_domain::{Clock, Timestamp};
use batchin_store::{Inbox, NewStripeEvent, StoreError};
use batchin_stripe::{BadEvent, Event, SignatureError, TOLERANCE_SECONDS, verify};
use batchin_tasks::Tasks;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::Billing;

/// Reports that wait to be stored, at most.
const WAITING: usize = 2_048;
/// Reports of one transaction, at most.
const TOGETHER: usize = 256;
/// Before reports that did not all fit are taken again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a report is kept after it was dealt with: longer than Stripe repeats one.
const KEPT: Duration = Duration::from_secs(35 * 24 * 3_600);
/// Between two pieces of one sweep, for others to write.
const PIECE_PAUSE: Duration = Duration::from_millis(200);

/// Why a report was not taken. It is not stored.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The operator has not set up Stripe.
    #[error("no payments by card are set up")]
    NotSetUp,
    /// It is not signed as Stripe signs.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// It is signed and no event.
    #[error(transparent)]
    Event(#[from] BadEvent),
    /// It is signed and no text.
    #[error("the event is no UTF-8")]
    NotText,
    /// Too many come at once.
    #[error("too many reports come at once")]
    Full {
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// The store failed.
    #[error("the report could not be stored")]
    NotStored,
}

type Waiting = (NewStripeEvent, oneshot::Sender<bool>);

/// Where reports wait to be stored.
pub(crate) struct Intake(mpsc::Sender<Waiting>);

impl Intake {
    pub(crate) fn start(inbox: Inbox, clock: Arc<dyn Clock>, bell: Arc<Notify>, tasks: &Tasks) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        tasks.spawn("stripe_intake", |stop| store_all(inbox, clock, (receiver, bell), stop));
        Self(sender)
    }

    /// Stores a report; it is durable where this returns.
    async fn keep(&self, event: NewStripeEvent) -> Result<(), ReportError> {
        let (stored, outcome) = oneshot::channel();
        self.0.try_send((event, stored)).map_err(|_| ReportError::Full { retry_after: PAUSE })?;
        if outcome.await.unwrap_or(false) { Ok(()) } else { Err(ReportError::NotStored) }
    }
}

impl Billing {
    /// Takes a report as it came, with its header `Stripe-Signature`. It is stored where this returns.
    pub async fn take_report(&self, body: &[u8], signature: &str) -> Result<(), ReportError> {
        let cards = self.cards().ok_or(ReportError::NotSetUp)?;
        let now = self.now().seconds();
        verify(body, signature, &cards.options.webhook_secrets, now, TOLERANCE_SECONDS)?;
        let event = Event::parse(body)?;
        let text = std::str::from_utf8(body).map_err(|_| ReportError::NotText)?;
        let kind = event.kind.as_str().to_owned();
        cards.intake.keep(NewStripeEvent { id: event.id, kind, body: text.to_owned() }).await
    }
}

/// Stores what has come together, until nobody is left who could bring anything.
async fn store_all(
    inbox: Inbox,
    clock: Arc<dyn Clock>,
    (mut waiting, bell): (mpsc::Receiver<Waiting>, Arc<Notify>),
    stop: CancellationToken,
) {
    let mut together = Vec::with_capacity(TOGETHER);
    loop {
        let came = tokio::select! {
            came = waiting.recv_many(&mut together, TOGETHER) => came,
            () = stop.cancelled() => {
                // Whoever waits already is served; nobody else comes in.
                waiting.close();
                waiting.recv_many(&mut together, TOGETHER).await
            }
        };
        if came == 0 {
            return;
        }
        let (events, heard): (Vec<_>, Vec<_>) = together.drain(..).unzip();
        let kept = inbox.keep_events(&events, clock.now()).await;
        if let Err(cause) = &kept {
            error!(error = cause as &dyn Error, "{} report(s) of Stripe could not be stored", events.len());
        }
        batchin_faults::point("stripe_event.kept");
        for heard in heard {
            // Whoever left is sent it again.
            let _ = heard.send(kept.is_ok());
        }
        bell.notify_one();
    }
}

/// Forgets reports that were dealt with long ago.
pub(crate) async fn sweep(inbox: &Inbox, now: Timestamp) -> Result<(), StoreError> {
    while inbox.sweep_events(now.before(KEPT)).await? {
        sleep(PIECE_PAUSE).await;
    }
    Ok(())
}
