//! Holds: what a request owes: its counts on the way, and its settlement with the answer that waits for it.

use std::{sync::Arc, time::Duration};

use batchin_domain::{Amount, Measure, Timestamp, TransferId};
use batchin_files::WriteFileError;
use batchin_openai::{ChunkHead, Names, Telling, Usage, Wanted, with_tier, with_usage};
use batchin_store::{CommitError, IdempotencyScope, Outcome, Settlement, StoredAnswer, TaskFinish, UsageRecord};
use batchin_upstream::Kind;
use bytes::Bytes;
use metrics::counter;
use tokio::time::Instant;
use tracing::debug;

use crate::{
    Caller, Catalog, Epoch, Fenced, Gateway, Inbound,
    admit::Admitted,
    dispatch::Running,
    made::Made,
    meter::Meter,
    meters,
    picture::MadePictures,
    reserve::Reservation,
    shelf::{Kept, Order},
};

/// The largest answer that is kept for an Idempotency-Key.
pub(crate) const MAX_KEPT_ANSWER: usize = 1024 * 1024;

/// What a request's settlement is made of.
pub(crate) struct Bill {
    pub(crate) gateway: Gateway,
    pub(crate) epoch: Arc<Epoch>,
    pub(crate) caller: Caller,
    pub(crate) inbound: Inbound,
    pub(crate) admitted: Admitted,
    pub(crate) version: batchin_domain::PriceVersion,
    pub(crate) meter: Meter,
    pub(crate) came_in: Timestamp,
    pub(crate) began: Instant,
    pub(crate) ttft: Option<Duration>,
    /// What was charged by flushes.
    pub(crate) charged: Amount,
}

/// A whole answer whose charge is not yet durable. Dropped, nothing is charged. It is boxed wherever it goes: futures that
/// wait with it would be copied with all of it.
pub struct Unsettled {
    pub(crate) bill: Bill,
    pub(crate) reservation: Reservation,
    /// The answer, as the client is to get it.
    pub body: Bytes,
    /// What it brings as files that are not kept yet; the answer is made when they are.
    pub(crate) made: Option<Made>,
    /// Those that are. They go again unless this is charged for.
    pub(crate) kept: Option<Kept>,
}

/// Why a request's end is not in the ledger. Nothing was charged.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// The task was claimed anew, cancelled or has ended.
    #[error("the task was stopped")]
    Stopped,
    /// This node may not spend now.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// The ledger refused the request's end, and would again.
    #[error("the ledger refused the request's end")]
    NotStorable,
}

/// When a request came in, and what was in force then.
pub(crate) struct Arrival {
    pub(crate) epoch: Arc<Epoch>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) came_in: Timestamp,
    pub(crate) began: Instant,
}

impl Bill {
    /// A bill for a request that may cost at most `hold`.
    pub(crate) fn open(
        gateway: Gateway,
        arrival: Arrival,
        caller: &Caller,
        (inbound, admitted): (Inbound, Admitted),
        hold: Amount,
    ) -> Self {
        Self {
            gateway,
            epoch: arrival.epoch,
            caller: caller.clone(),
            version: arrival.catalog.version(),
            meter: Meter::new(&admitted, hold),
            came_in: arrival.came_in,
            began: arrival.began,
            ttft: None,
            charged: Amount::ZERO,
            inbound,
            admitted,
        }
    }

    /// The usage so far, and the charge for what was consumed since the last one. What flushes charged is provisional: in
    /// the end the request costs what its counts cost, and what was too much is given back.
    pub(crate) fn settlement(&self, outcome: Outcome, month_of: &Reservation) -> Settlement {
        let now = self.gateway.clock().now();
        let goes_on = outcome == Outcome::Running;
        let cost = if goes_on { self.meter.cost().max(self.charged) } else { self.meter.cost() };
        Settlement {
            charge_id: TransferId::new(self.gateway.ids().uuid()),
            account: self.caller.account,
            key: self.caller.key,
            month: month_of.month,
            budget_held: month_of.on_budget(),
            charge: cost.saturating_sub(self.charged),
            given_back: self.charged.saturating_sub(cost),
            usage: Some(UsageRecord {
                request: self.inbound.request,
                model: self.admitted.model.id.clone(),
                call: self.inbound.call,
                class: self.admitted.class,
                task: self.inbound.task,
                counts: self.meter.counts(),
                cost,
                price_version: self.version,
                outcome,
                estimated: goes_on || self.meter.is_estimated(),
                marks: self.meter.marks(),
                created_at: self.came_in,
                latency: self.began.elapsed(),
                ttft: self.ttft,
            }),
            task: None,
            film: None,
            cap_held: month_of.on_cap(),
            answer: None,
            now,
        }
    }

    /// The answer with the usage that is billed and the tier that was asked for, in the protocol of the request.
    pub(crate) fn told(&self, body: Bytes) -> Bytes {
        if let Some(native) = &self.admitted.asked.native {
            return native.whole(&body, self.names(&self.public_id()), self.meter.corrected());
        }
        let body = self.corrected(body);
        match (&self.admitted.asked.retelling, self.admitted.tier(&self.inbound)) {
            (Some(retelling), _) => retelling.whole(&body, self.names(&self.public_id())),
            (None, Some(tier)) => with_tier(&body, tier),
            (None, None) => body,
        }
    }

    /// A stream in the protocol of the request, where that is another one than OpenAI's chats have.
    pub(crate) fn telling(&self) -> Option<Box<dyn Telling>> {
        let (asked, id) = (&self.admitted.asked, self.public_id());
        let native = asked.native.as_ref().map(|native| native.stream(self.names(&id)));
        native.or_else(|| Some(asked.retelling.as_ref()?.stream(self.names(&id))))
    }

    fn names<'a>(&'a self, id: &'a str) -> Names<'a> {
        let tier = self.admitted.tier(&self.inbound);
        Names { id, model: &self.admitted.model.id, created: self.created(), tier }
    }

    /// Seconds since 1970.
    fn created(&self) -> i64 {
        self.came_in.micros() / 1_000_000
    }

    /// What a whole answer is, in the protocol of the request.
    pub(crate) fn content_type(&self) -> &'static str {
        self.admitted.asked.retelling.as_ref().map_or("application/json", |retelling| retelling.content_type())
    }

    /// The answer with the usage that is billed, where the upstream says something else or nothing.
    fn corrected(&self, body: Bytes) -> Bytes {
        match self.meter.corrected() {
            // Its usage is no tokens.
            _ if self.inbound.call.hears() => body,
            Some(usage) => with_usage(&body, &usage, self.inbound.call.generates()),
            None => body,
        }
    }

    /// Tells the operator of an upstream whose counts are odd.
    pub(crate) fn note_marks(&self, upstream: &str) {
        for mark in self.meter.marks().names() {
            counter!("batchin_usage_discrepancies_total", "upstream" => upstream.to_owned(), "mark" => mark)
                .increment(1);
        }
    }

    /// What the client knows the answer by.
    pub(crate) fn public_id(&self) -> String {
        public_id(&self.inbound)
    }

    /// What chunks begin with that are added to a stream here.
    pub(crate) fn chunk_head<'a>(&'a self, id: &'a str) -> ChunkHead<'a> {
        let (call, model) = (self.inbound.call, self.admitted.model.id.as_str());
        ChunkHead { call, id, model, created: self.created(), tier: self.admitted.tier(&self.inbound) }
    }

    /// Counts the request in the metrics, and logs it without content.
    pub(crate) fn note(&self, outcome: Outcome) {
        let (counts, elapsed, class) = (self.meter.counts(), self.began.elapsed(), self.admitted.class);
        let ended = meters::Ended { class, outcome, counts, elapsed, ttft: self.ttft };
        self.gateway.meters().note(&self.admitted.model.id, &ended);
        // The usage log has every request durably; a second line for each is for whoever looks for a fault.
        debug!(
            target: "batchin::requests",
            request = %self.inbound.request, model = %self.admitted.model.id, class = class.name(), outcome = outcome.name(),
            prompt_tokens = counts.of(Measure::PromptTokens), completion_tokens = counts.of(Measure::CompletionTokens),
            "{} answered in {elapsed:?}", self.inbound.call.name()
        );
    }
}

pub(crate) fn public_id(inbound: &Inbound) -> String {
    format!("{}{}", inbound.call.id_prefix(), inbound.request.uuid().simple())
}

/// Meters a whole answer of such a server.
pub(crate) fn take_whole(meter: &mut Meter, kind: Kind, usage: Option<Usage>, text_bytes: u64) {
    meter.comes_from(kind);
    if text_bytes > 0 {
        meter.said(1, text_bytes);
    }
    if let Some(usage) = usage {
        meter.report(usage);
    }
}

/// A whole answer that has been metered.
pub(crate) fn whole(bill: Bill, reservation: Reservation, body: Bytes, running: Running) -> Box<Unsettled> {
    bill.note_marks(running.replica.name());
    running.finish_whole(bill.meter.counts().of(Measure::CompletionTokens));
    let body = bill.told(body);
    Box::new(Unsettled { bill, reservation, body, made: None, kept: None })
}

/// Pictures that have been metered.
pub(crate) fn pictured(
    mut bill: Bill,
    reservation: Reservation,
    made: MadePictures,
    running: Running,
) -> Box<Unsettled> {
    bill.meter.made_all(made.counts());
    running.finish_whole(0);
    let Wanted::Pictures(wanted) = bill.admitted.peek.wanted else {
        // Nothing else asks for any.
        return Box::new(Unsettled { bill, reservation, body: Bytes::new(), made: None, kept: None });
    };
    let made = Some(Made::Pictures(made, wanted));
    Box::new(Unsettled { bill, reservation, body: Bytes::new(), made, kept: None })
}

impl Unsettled {
    /// Keeps the sound or the pictures that it brings, if any, as files that begin with this name, and makes its answer of them.
    pub async fn keep(&mut self, name: &str) -> Result<(), WriteFileError> {
        let Some(made) = self.made.take() else { return Ok(()) };
        let order = Order {
            account: self.bill.caller.account,
            name,
            of_batch: self.bill.inbound.task.is_some(),
            in_both: self.bill.inbound.pictures_in_both,
            created: self.bill.created(),
        };
        let (body, kept) = made.keep(&self.bill.gateway, &order).await?;
        (self.body, self.kept) = (body, Some(kept));
        Ok(())
    }

    /// What the client knows the answer by.
    pub(crate) fn name(&self) -> String {
        self.bill.public_id()
    }

    /// Bytes that it keeps in memory.
    pub fn bytes(&self) -> usize {
        self.body.len() + self.made.as_ref().map_or(0, Made::bytes)
    }

    /// Completion tokens of what was consumed that were hidden reasoning.
    pub fn reasoning_tokens(&self) -> u64 {
        self.bill.meter.usage().reasoning_tokens
    }

    /// Charges and, once that is durable, hands the answer over.
    pub(crate) async fn settle(
        mut self: Box<Self>,
        outcome: Outcome,
        scope: Option<IdempotencyScope>,
        task: Option<TaskFinish>,
    ) -> Result<Bytes, SettleError> {
        let mut settlement = self.bill.settlement(outcome, &self.reservation);
        settlement.task = task;
        settlement.answer = scope.map(|scope| {
            let body = (self.body.len() <= MAX_KEPT_ANSWER).then(|| self.body.to_vec());
            (scope, StoredAnswer { status: 200, content_type: self.bill.content_type().to_owned(), body })
        });
        // From here on the charge stands whether or not anybody waits for it, and with it what it pays for: what is not known to
        // be refused may be in the ledger, and somebody may read of it.
        let charging = self.reservation.charging(settlement.charge);
        let mut kept = self.kept.take();
        if let Some(kept) = &mut kept {
            kept.stay(true);
        }
        let committed = self.bill.epoch.committer.commit(settlement).await;
        if let Some(kept) = &mut kept {
            kept.stay(!matches!(committed, Err(CommitError::StaleTask | CommitError::Refused)));
        }
        charging.end(committed)?;
        batchin_faults::point("answer.charged");
        self.bill.note(outcome);
        Ok(self.body)
    }

    /// Charges and ends the task in one transaction; the answer's body must lie in its blob before.
    pub async fn settle_task(self: Box<Self>, finish: TaskFinish) -> Result<(), SettleError> {
        self.settle(Outcome::Completed, None, Some(finish)).await.map(drop)
    }
}

impl From<CommitError> for SettleError {
    fn from(cause: CommitError) -> Self {
        match cause {
            CommitError::StaleTask => Self::Stopped,
            CommitError::Fenced | CommitError::Unavailable => Fenced.into(),
            CommitError::Refused => Self::NotStorable,
        }
    }
}
