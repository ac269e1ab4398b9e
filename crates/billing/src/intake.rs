//! Holds: where reports of Stripe wait to be stored.
//!
//! One writer stores what has come together in one transaction, since each costs the disk a wait. What it cannot store, or
//! has no room for, is refused: Stripe sends it again.

use std::{error::Error, sync::Arc, time::Duration};

use batchin_domain::{Clock, Timestamp};
use batchin_store::{Inbox, NewStripeEvent, StoreError};
use batchin_tasks::Tasks;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::error;

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

/// Why a report is not stored.
pub(crate) enum NotKept {
    /// Too many wait.
    Full {
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// The store failed.
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
    pub(crate) async fn keep(&self, event: NewStripeEvent) -> Result<(), NotKept> {
        let (stored, outcome) = oneshot::channel();
        self.0.try_send((event, stored)).map_err(|_| NotKept::Full { retry_after: PAUSE })?;
        if outcome.await.unwrap_or(false) { Ok(()) } else { Err(NotKept::NotStored) }
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
