//! Holds: looking for reports that never came, in Stripe's own list.

use std::{error::Error, time::Duration};

use batchin_store::{NewStripeEvent, StoreError};
use tracing::warn;

use crate::{Billing, billing::Cards};

/// Names the turn.
const TURN: &str = "stripe_events";
/// How long whoever takes the turn has for it.
const TURN_TIME: Duration = Duration::from_secs(120);
/// So far before the last look another one begins: events come to be listed a little later than they say.
const OVERLAP: Duration = Duration::from_secs(900);
/// So far back goes the first look of all.
const FIRST_LOOK: Duration = Duration::from_secs(3 * 24 * 3_600);
/// Stripe lists events for so long.
const LISTED: Duration = Duration::from_secs(29 * 24 * 3_600);

impl Billing {
    /// Stores every report that Stripe lists since the last look and that has not come, if a look is due; whether there were any.
    pub(crate) async fn catch_up(&self, cards: &Cards, every: Duration) -> Result<bool, StoreError> {
        let now = self.now();
        let Some(last) = self.inbox().take_turn(TURN, now, now.after(TURN_TIME)).await? else { return Ok(false) };
        let first = if last == 0 { now.before(FIRST_LOOK).seconds() } else { last };
        let from = first.max(now.before(LISTED).seconds());
        match cards.stripe.events(from).await {
            Ok(events) => {
                let events: Vec<_> = events
                    .into_iter()
                    .map(|event| NewStripeEvent { id: event.id, kind: event.kind, body: event.body, is_due: true })
                    .collect();
                self.inbox().keep_events(&events, now).await?;
                self.inbox().end_turn(TURN, now.before(OVERLAP).seconds(), now.after(every)).await?;
                Ok(!events.is_empty())
            }
            Err(cause) => {
                warn!(error = &cause as &dyn Error, "Stripe's list of events could not be read");
                Ok(false)
            }
        }
    }
}
