//! Holds: looking for reports that never came, in Stripe's own list.

use std::{error::Error, time::Duration};

use batchin_domain::Timestamp;
use batchin_store::{NewStripeEvent, StoreError};
use batchin_stripe::{ListedEvent, StripeError};
use metrics::counter;
use tracing::{error, warn};

use crate::{Billing, billing::Cards};

/// Names the turn.
const TURN: &str = "stripe_events";
/// How long whoever takes the turn has for a stretch of the list.
const TURN_TIME: Duration = Duration::from_secs(120);
/// So far before the last look another one begins: events come to be listed a little later than they say.
const OVERLAP: Duration = Duration::from_secs(900);
/// So far back goes the first look of all.
const FIRST_LOOK: Duration = Duration::from_secs(3 * 24 * 3_600);
/// Stripe lists events for so long.
const LISTED: Duration = Duration::from_secs(29 * 24 * 3_600);
/// What is read as one: behind each is written down how far that came.
const STRETCH_SECONDS: i64 = 6 * 3_600;
/// Pages of a stretch that has more are not read: it is cut in two. A page takes Stripe about half a second.
const PAGES: usize = 100;
/// An operator is told once reports have not been looked for so long.
const LATE: Duration = Duration::from_secs(3_600);

/// Why the list was not read.
#[derive(Debug, thiserror::Error)]
enum ListError {
    #[error(transparent)]
    Stripe(#[from] StripeError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Billing {
    /// Stores every report that Stripe lists since the last look and that has not come, if a look is due; whether there were any.
    pub(crate) async fn catch_up(&self, cards: &Cards, every: Duration) -> Result<bool, StoreError> {
        let now = self.now();
        let Some(last) = self.inbox().take_turn(TURN, now, now.after(TURN_TIME)).await? else { return Ok(false) };
        let first = if last == 0 { now.before(FIRST_LOOK).seconds() } else { last };
        let from = first.max(now.before(LISTED).seconds());
        match self.read_list(cards, from, (now, every)).await {
            Ok(any) => Ok(any),
            Err(ListError::Store(cause)) => Err(cause),
            Err(ListError::Stripe(cause)) => {
                let late = now.before(OVERLAP + LATE + every).seconds();
                if last != 0 && last < late {
                    counter!("batchin_money_alarms_total", "what" => "reports_not_listed").increment(1);
                    error!(error = &cause as &dyn Error, "Stripe's list of events has not been read for over an hour");
                } else {
                    warn!(error = &cause as &dyn Error, "Stripe's list of events could not be read");
                }
                Ok(false)
            }
        }
    }

    /// Stores what is listed between a time, in seconds since 1970, and now, the oldest first; it is written down how far that came.
    async fn read_list(
        &self,
        cards: &Cards,
        mut from: i64,
        (now, every): (Timestamp, Duration),
    ) -> Result<bool, ListError> {
        let (end, again_from) = (now.seconds(), now.before(OVERLAP).seconds());
        let mut any = false;
        while from <= end {
            let mut to = from.saturating_add(STRETCH_SECONDS).min(end);
            while !self.read_stretch(cards, (from, to), (now, &mut any)).await? {
                // What was stored of it is there already when it comes again.
                to = from.midpoint(to);
            }
            from = to.saturating_add(1);
            let due_at = if from > end { now.after(every) } else { self.now().after(TURN_TIME) };
            self.inbox().end_turn(TURN, from.min(again_from), due_at).await?;
        }
        Ok(any)
    }

    /// Stores what is listed between two times; `false`: that is too much for one turn. All of a second is read, however much it is.
    async fn read_stretch(
        &self,
        cards: &Cards,
        (from, to): (i64, i64),
        (now, any): (Timestamp, &mut bool),
    ) -> Result<bool, ListError> {
        let (mut after, mut pages) = (None, 0);
        while pages < PAGES || from == to {
            let page = cards.stripe.events(from..=to, after.as_deref()).await?;
            *any |= !page.events.is_empty();
            let reports: Vec<_> = page.events.into_iter().map(report).collect();
            self.inbox().keep_events(&reports, now).await?;
            after = page.next;
            pages += 1;
            if after.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn report(event: ListedEvent) -> NewStripeEvent {
    NewStripeEvent { id: event.id, kind: event.kind, body: event.body, is_due: true }
}
