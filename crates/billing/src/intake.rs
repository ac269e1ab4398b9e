//! Holds: where reports of Stripe wait to be stored.
//!
//! One writer stores what has come together in one transaction, since each costs the disk a wait. What it cannot store, or
//! has no room for, is refused: Stripe sends it again.

use std::{error::Error, sync::Arc, time::Duration};

use batchin_domain::{Clock, Timestamp};
use batchin_store::{Inbox, NewStripeEvent, StoreError};
use batchin_tasks::{Bounds, Gather, NotWritten, Tasks};
use tokio::{sync::Notify, time::sleep};
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

/// Where reports wait to be stored.
pub(crate) struct Intake(Gather<NewStripeEvent>);

impl Intake {
    pub(crate) fn start(inbox: Inbox, clock: Arc<dyn Clock>, bell: Arc<Notify>, tasks: &Tasks) -> Self {
        let bounds = Bounds { waiting: WAITING, together: TOGETHER };
        Self(Gather::start("stripe_intake", bounds, tasks, move |events: Vec<NewStripeEvent>| {
            let (inbox, bell, now) = (inbox.clone(), Arc::clone(&bell), clock.now());
            async move {
                let kept = inbox.keep_events(&events, now).await;
                if let Err(cause) = &kept {
                    error!(error = cause as &dyn Error, "{} report(s) of Stripe could not be stored", events.len());
                }
                batchin_faults::point("stripe_event.kept");
                bell.notify_one();
                kept.is_ok()
            }
        }))
    }

    /// Stores a report; it is durable where this returns.
    pub(crate) async fn keep(&self, event: NewStripeEvent) -> Result<(), NotKept> {
        self.0.written(event).await.map_err(|cause| match cause {
            NotWritten::Full => NotKept::Full { retry_after: PAUSE },
            NotWritten::Failed => NotKept::NotStored,
        })
    }
}

/// Forgets reports that were dealt with long ago.
pub(crate) async fn sweep(inbox: &Inbox, now: Timestamp) -> Result<(), StoreError> {
    while inbox.sweep_events(now.before(KEPT)).await? {
        sleep(PIECE_PAUSE).await;
    }
    Ok(())
}
