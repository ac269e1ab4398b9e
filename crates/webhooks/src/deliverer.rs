//! Holds: the delivery worker: claims what is due, tries it, and writes down what came of it.

use std::{error::Error, sync::Arc, time::Duration};

use batchin_domain::webhook::{FailureKind, Next, TryResult, after_try, mail_address};
use batchin_store::{ClaimedDelivery, FencedError, FinishedTry, NodeIdentity};
use batchin_tasks::Tasks;
use metrics::counter;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::{
    in_flight::{InFlight, Place},
    letter::{News, letter},
    mail::Mailer,
    payload::{Message, body},
    sender::Sender,
    webhooks::{SecretError, Webhooks},
};

/// Between two looks for what is due; the first try comes within one. A look that finds nothing is one index probe.
const POLL: Duration = Duration::from_millis(200);
/// Between two looks at whether this node's lease still holds while something is being sent.
const LEASE_LOOK: Duration = Duration::from_millis(250);
/// Between two looks for claims that the store counts as ours and nobody here knows of: a claim whose commit was not
/// heard of, or a try that was cut off or could not begin.
const STRAY_LOOK: Duration = Duration::from_secs(10);
/// Before what came of a try is written again, when the database did not take it.
const WRITE_PAUSE: Duration = Duration::from_secs(1);
/// How long tries under way may go on once the node is to stop; below the patience of a shutdown.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// This node in its present epoch, while its lease holds.
pub type Identity = Arc<dyn Fn() -> Option<NodeIdentity> + Send + Sync>;

/// What the worker is made of.
pub struct DelivererParts {
    /// Secrets, store, clock and ids.
    pub webhooks: Webhooks,
    /// Sends.
    pub sender: Sender,
    /// Sends mail, where this node can.
    pub mailer: Option<Mailer>,
    /// Whose claims these are.
    pub identity: Identity,
}

/// Delivers events from this node.
pub struct Deliverer {
    parts: DelivererParts,
    in_flight: Arc<InFlight>,
    tries: Tasks,
}

impl Deliverer {
    /// Starts to deliver. `tasks` is asked to stop before the node gives its lease back.
    pub fn start(parts: DelivererParts, tasks: &Tasks) {
        let deliverer = Arc::new(Self { parts, in_flight: Arc::default(), tries: tasks.clone() });
        tasks.spawn("webhook_deliverer", move |stop| deliverer.run(stop));
    }

    async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut strays_looked = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = poll.tick() => {}
                () = self.in_flight.freed() => {}
            }
            let Some(node) = (self.parts.identity)() else { continue };
            if strays_looked.elapsed() >= STRAY_LOOK {
                strays_looked = Instant::now();
                self.release_strays(node).await;
            }
            self.look(node).await;
        }
    }

    /// Nothing is claimed while this looks, so what is in flight is all that is ours.
    async fn release_strays(&self, node: NodeIdentity) {
        match self.parts.webhooks.outbox().release_deliveries(node, &self.in_flight.deliveries()).await {
            Ok(0) => {}
            Ok(released) => warn!("{released} webhook(s) that this node had lost sight of wait again"),
            Err(cause) => warn!(error = &cause as &dyn Error, "lost webhooks could not be looked for"),
        }
    }

    /// Claims what is due and starts its tries.
    async fn look(self: &Arc<Self>, node: NodeIdentity) {
        let webhooks = &self.parts.webhooks;
        let claimed = match webhooks.outbox().claim_deliveries(node, self.in_flight.room(), webhooks.now()).await {
            Ok(claimed) => claimed,
            // The next look has a new epoch.
            Err(FencedError::Fenced) => return,
            Err(FencedError::Store(cause)) => {
                return warn!(error = &cause as &dyn Error, "due webhooks could not be claimed");
            }
        };
        for delivery in claimed {
            let place = self.in_flight.take(delivery.id, delivery.endpoint, delivery.account);
            let this = Arc::clone(self);
            self.tries.spawn("webhook_try", move |stop| this.deliver(delivery, node, stop, place));
        }
    }

    async fn deliver(
        self: Arc<Self>,
        delivery: ClaimedDelivery,
        node: NodeIdentity,
        stop: CancellationToken,
        _place: Place,
    ) {
        let webhooks = &self.parts.webhooks;
        let (at, began) = (webhooks.now(), Instant::now());
        let trying = async {
            let Some(result) = self.attempt(&delivery).await else { return };
            let now = webhooks.now();
            let next = after_try(&result, delivery.tries, now, webhooks.jitter());
            let (id, epoch, took) = (delivery.id, delivery.epoch, began.elapsed());
            self.write_down(FinishedTry { id, epoch, at, took, result, next, now }).await;
        };
        let id = delivery.id;
        tokio::select! {
            () = trying => {}
            // Somebody else has it by now, or will.
            () = self.lost(node) => warn!("{id} was being sent when this node's lease ended"),
            () = after(&stop, STOP_GRACE) => info!("{id} was being sent when this node stopped; it is sent again"),
        }
    }

    /// One try; nothing when it could not begin, which costs the receiver none.
    async fn attempt(&self, delivery: &ClaimedDelivery) -> Option<TryResult> {
        match mail_address(&delivery.url) {
            Some(address) => Some(self.mail(delivery, address).await),
            None => self.post(delivery).await,
        }
    }

    async fn mail(&self, delivery: &ClaimedDelivery, address: &str) -> TryResult {
        let failed = |kind| TryResult { status: None, failure: Some(kind), retry_after: None };
        // Another node may have a mail server, or this one after its next start.
        let Some(mailer) = &self.parts.mailer else { return failed(FailureKind::MailOff) };
        let ClaimedDelivery { id, account, kind, subject, created_at: at, .. } = *delivery;
        let code = self.parts.webhooks.email_code(account, address);
        let news = News { kind, subject, at, service: mailer.service(), code: &code };
        let Some(letter) = letter(&news) else { return failed(FailureKind::MailRefused) };
        mailer.send(id, address, letter, at).await
    }

    async fn post(&self, delivery: &ClaimedDelivery) -> Option<TryResult> {
        let now = self.parts.webhooks.now();
        let secrets = match self.parts.webhooks.secrets(delivery.account, now).await {
            Ok(secrets) => secrets,
            Err(cause @ SecretError::WrongKey) => {
                error!(error = &cause as &dyn Error, "{} cannot be signed", delivery.id);
                return Some(TryResult { status: None, failure: Some(FailureKind::Unsigned), retry_after: None });
            }
            Err(cause @ SecretError::Store(_)) => {
                // The claim has no try any more, and goes back with the next look for such.
                warn!(error = &cause as &dyn Error, "{} could not be signed", delivery.id);
                return None;
            }
        };
        let text = body(delivery.id, delivery.kind, delivery.subject, delivery.created_at);
        let message = Message::new(&delivery.url, delivery.id, text, &secrets, now);
        Some(self.parts.sender.send(&message, now).await)
    }

    /// Goes on until it is written: the claim would stay as long as this node lives.
    async fn write_down(&self, ended: FinishedTry) {
        let id = ended.id;
        loop {
            match self.parts.webhooks.outbox().finish_try(ended).await {
                Ok(true) => break,
                Ok(false) => return warn!("what came of sending {id} is out of date"),
                Err(cause) => warn!(error = &cause as &dyn Error, "what came of sending {id} could not be stored"),
            }
            sleep(WRITE_PAUSE).await;
        }
        let outcome = match ended.next {
            Next::Delivered => "delivered",
            Next::Off => "off",
            Next::RetryAt(_) => "retried",
            Next::Failed => "failed",
        };
        counter!("batchin_webhook_tries_total", "outcome" => outcome).increment(1);
        let failure = ended.result.failure.map(FailureKind::name);
        debug!(status = ended.result.status, failure, "{id}: {outcome}");
    }

    /// Returns once this node's epoch is over or its lease does not hold.
    async fn lost(&self, node: NodeIdentity) {
        while (self.parts.identity)() == Some(node) {
            sleep(LEASE_LOOK).await;
        }
    }
}

async fn after(stop: &CancellationToken, grace: Duration) {
    stop.cancelled().await;
    sleep(grace).await;
}
