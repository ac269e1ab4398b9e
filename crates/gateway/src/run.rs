//! Holds: the pipeline: admit → reserve → dispatch → meter → settle.

use std::{sync::Arc, time::Duration};

use batchin_domain::{AccountId, Amount, Class, Timestamp, TransferId};
use batchin_openai::{ChunkHead, Endpoint, Usage, with_usage};
use batchin_scheduler::{Gate, Outcome as Ended};
use batchin_shares::{NoShare, Share};
use batchin_store::{CommitError, IdempotencyScope, Outcome, Settlement, StoredAnswer, TaskFinish, UsageRecord};
use batchin_upstream::{Answer, Call, CallError, CallErrorKind, Events, Kind, Retry};
use bytes::Bytes;
use metrics::counter;
use tokio::time::Instant;
use tracing::{debug, info};

use crate::{
    Caller, Catalog, Dispatcher, Epoch, Gateway, Inbound, MeteredStream, RateInfo, RequestError,
    admit::{Admitted, admit},
    dispatch::{Running, Work},
    idempotent::{IdempotencyGuard, Keyed, Turn},
    leaving::{Client, SeenThrough},
    meter::Meter,
    meters,
    reserve::{Reservation, reserve, take_request},
    task::choices_of,
};

/// Upstreams tried for one request: enough to step over two dead ones, few enough that a request that kills servers
/// does not go round them all.
pub(crate) const MAX_ATTEMPTS: usize = 3;
/// What a refused client is told to wait when nobody knows better.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long a request under an Idempotency-Key waits for the first one's answer: as long as clients wait.
const IDEMPOTENT_PATIENCE: Duration = Duration::from_secs(600);
/// The largest answer that is kept for an Idempotency-Key.
pub(crate) const MAX_KEPT_ANSWER: usize = 1024 * 1024;

/// What is known of an answer once its request is admitted.
#[derive(Clone, Copy, Debug)]
pub struct Promise {
    /// It will be a stream.
    pub streams: bool,
    /// For the `x-ratelimit-*` headers.
    pub rate: Option<RateInfo>,
}

/// An answer and how the key stands.
pub struct Reply {
    /// For the `x-ratelimit-*` headers.
    pub rate: Option<RateInfo>,
    /// The answer.
    pub body: ReplyBody,
}

/// An answer.
pub enum ReplyBody {
    /// Whole, as JSON; its charge is durable.
    Whole(Bytes),
    /// Server-sent events; the last of them wait until the charge is durable.
    Stream(Box<MeteredStream>),
    /// The first answer to the same Idempotency-Key.
    Replay(StoredAnswer),
}

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

/// A whole answer whose charge is not yet durable. Dropped, nothing is charged.
pub struct Unsettled {
    pub(crate) bill: Bill,
    pub(crate) reservation: Reservation,
    /// The answer, as the client is to get it.
    pub body: Bytes,
}

/// When a request came in, and what was in force then.
pub(crate) struct Arrival {
    pub(crate) epoch: Arc<Epoch>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) came_in: Timestamp,
    began: Instant,
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
                endpoint: endpoint_code(self.inbound.endpoint),
                class: self.inbound.class,
                task: self.inbound.task,
                units: self.meter.units(),
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
            cap_held: month_of.on_cap(),
            answer: None,
            now,
        }
    }

    /// The answer with the usage that is billed, where the upstream says something else or nothing.
    pub(crate) fn corrected(&self, body: Bytes) -> Bytes {
        match self.meter.corrected() {
            Some(usage) => with_usage(&body, &usage, self.inbound.endpoint.generates()),
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
        let (endpoint, model) = (self.inbound.endpoint, self.admitted.model.id.as_str());
        ChunkHead { endpoint, id, model, created: self.came_in.micros() / 1_000_000 }
    }

    /// Counts the request in the metrics, and logs it without content.
    pub(crate) fn note(&self, outcome: Outcome) {
        let (units, elapsed, class) = (self.meter.units(), self.began.elapsed(), self.inbound.class);
        let ended = meters::Ended { class, outcome, units, elapsed, ttft: self.ttft };
        self.gateway.meters().note(&self.admitted.model.id, &ended);
        // The usage log has every request durably; a second line for each is for whoever looks for a fault.
        debug!(
            target: "batchin::requests",
            request = %self.inbound.request, model = %self.admitted.model.id, class = class.name(), outcome = outcome.name(),
            prompt_tokens = units.input, completion_tokens = units.output,
            "{} answered in {elapsed:?}", self.inbound.endpoint.name()
        );
    }
}

/// The stored number of a kind of call.
pub const fn endpoint_code(endpoint: Endpoint) -> i16 {
    match endpoint {
        Endpoint::Chat => 0,
        Endpoint::Completions => 1,
        Endpoint::Embeddings => 2,
    }
}

/// The kind of call of a stored number.
pub const fn endpoint_of(code: i16) -> Option<Endpoint> {
    match code {
        0 => Some(Endpoint::Chat),
        1 => Some(Endpoint::Completions),
        2 => Some(Endpoint::Embeddings),
        _ => None,
    }
}

/// A request that could be served.
pub struct Checked {
    /// The model that would serve it.
    pub model: Arc<crate::Model>,
    /// Whether its answer is to be streamed.
    pub streams: bool,
    /// The most prompt tokens it can have.
    pub prompt_bound: u64,
    /// The most it can cost.
    pub cost: Amount,
    /// What it will consume, roughly: see [`Admitted::expected`].
    pub expected: batchin_domain::Units,
    /// What that costs.
    pub expected_cost: Amount,
}

/// A request that may run.
struct One {
    arrival: Arrival,
    caller: Caller,
    inbound: Inbound,
    admitted: Admitted,
    reservation: Reservation,
    guard: Option<IdempotencyGuard>,
    place: Share<AccountId>,
}

/// What the upstream gave, with everything that belongs to the request.
struct Dispatched {
    answer: Answer,
    running: Running,
}

impl Gateway {
    /// Answers an interactive request. `promised` is told once what is known before the answer, which may take long.
    pub async fn answer(
        &self,
        caller: &Caller,
        inbound: Inbound,
        promised: impl FnOnce(Promise),
    ) -> Result<Reply, RequestError> {
        let arrival = self.arrival()?;
        let (epoch, came_in) = (Arc::clone(&arrival.epoch), arrival.came_in);
        let rate = take_request(&epoch, caller, came_in).await?;
        let admitted = admit(&arrival.catalog, &inbound)?;
        promised(Promise { streams: admitted.peek.stream, rate });
        let guard = match &inbound.idempotency {
            Some(key) => {
                let scope = IdempotencyScope { account: caller.account, key: key.0.clone() };
                let route = inbound.endpoint.path();
                let keyed = Keyed { scope, route, body: &inbound.body, patience: IDEMPOTENT_PATIENCE };
                match Box::pin(self.begin_idempotent(|| epoch.identity, keyed)).await? {
                    Turn::Replay(answer) => return Ok(Reply { rate, body: ReplyBody::Replay(answer) }),
                    Turn::First(guard) => Some(guard),
                }
            }
            None => None,
        };
        let reservation = reserve(&epoch, caller, admitted.ceiling, came_in).await?;
        // After the money: who cannot pay, and who waits for another's answer, takes nobody's place.
        let place = self.in_flight().take(caller.account, 1).map_err(|why| match why {
            NoShare::Full => RequestError::Busy { retry_after: RETRY_AFTER },
            NoShare::OverPart => RequestError::OverShare { retry_after: RETRY_AFTER },
        })?;
        let one = One { arrival, caller: caller.clone(), inbound, admitted, reservation, guard, place };
        // A stream that nobody takes any more settles as one whose client left.
        let body = SeenThrough::new(self.tasks(), |client| Box::pin(self.clone().give(one, client))).await?;
        Ok(Reply { rate, body })
    }

    /// Has the answer made, and charges for it.
    async fn give(self, one: One, client: Arc<Client>) -> Result<ReplyBody, RequestError> {
        let One { arrival, caller, inbound, admitted, reservation, guard, place } = one;
        let dispatched = self.dispatch(caller.account, &inbound, &admitted, &client).await?;
        let bill = Bill::open(self, arrival, &caller, (inbound, admitted), reservation.amount());
        match dispatched.answer {
            Answer::Events(events) => {
                let stream = open(bill, reservation, (events, dispatched.running), guard, place);
                Ok(ReplyBody::Stream(Box::new(stream)))
            }
            Answer::Whole { body, usage, text_bytes, .. } => {
                let mut bill = bill;
                take_whole(&mut bill.meter, dispatched.running.replica.kind(), usage, text_bytes);
                let unsettled = whole(bill, reservation, body, dispatched.running);
                let outcome = if client.is_gone() { Outcome::ClientGone } else { Outcome::Completed };
                Ok(ReplyBody::Whole(unsettled.settle(outcome, guard.map(IdempotencyGuard::keep), None).await?))
            }
        }
    }

    /// Ends a task that has no answer; nothing is charged.
    pub async fn fail_task(&self, caller: &Caller, finish: TaskFinish) -> Result<(), RequestError> {
        let (epoch, now) = (self.live_epoch()?, self.clock().now());
        let settlement = Settlement {
            charge_id: TransferId::new(self.ids().uuid()),
            account: caller.account,
            key: caller.key,
            month: now.month(),
            budget_held: false,
            charge: Amount::ZERO,
            given_back: Amount::ZERO,
            usage: None,
            task: Some(finish),
            cap_held: false,
            answer: None,
            now,
        };
        epoch.committer.commit(settlement).await.map_err(|cause| unsettled(&cause))
    }

    /// Checks a body against the catalogue, without running it: the upper bound of its prompt's tokens.
    pub fn check(&self, inbound: &Inbound) -> Result<Checked, RequestError> {
        let admitted = admit(&self.catalog(), inbound)?;
        let expected = admitted.expected(inbound.endpoint);
        let cost = admitted.ceiling.cost;
        Ok(Checked {
            streams: admitted.peek.stream,
            prompt_bound: admitted.ceiling.input,
            expected,
            expected_cost: admitted.price.cost(expected).min(cost),
            cost,
            model: admitted.model,
        })
    }

    pub(crate) fn arrival(&self) -> Result<Arrival, RequestError> {
        let (began, came_in) = (Instant::now(), self.clock().now());
        Ok(Arrival { epoch: self.live_epoch()?, catalog: self.catalog(), came_in, began })
    }

    fn live_epoch(&self) -> Result<Arc<Epoch>, RequestError> {
        let epoch = self.epoch();
        if epoch.holds() { Ok(epoch) } else { Err(RequestError::Fenced) }
    }

    /// Sends the request to one upstream after another until one answers.
    async fn dispatch(
        &self,
        account: AccountId,
        inbound: &Inbound,
        admitted: &Admitted,
        client: &Client,
    ) -> Result<Dispatched, RequestError> {
        let [mut candidates, mut spare] = self.replicas_for(&admitted.model, inbound.endpoint);
        let mut last: Option<CallError> = None;
        let unseen = !admitted.peek.stream && inbound.endpoint.generates();
        let work = Work { class: inbound.class, prompt_bound: admitted.ceiling.input, task: None, unseen, account };
        let mut tries = 0;
        while tries < MAX_ATTEMPTS {
            let running = match self.dispatcher().begin(&candidates, work) {
                Ok(running) => running,
                Err(_) if !spare.is_empty() => {
                    candidates.append(&mut spare);
                    continue;
                }
                Err(Gate::Unavailable) if last.is_none() => {
                    let retry_after = Dispatcher::pause(&candidates, work).unwrap_or(RETRY_AFTER);
                    return Err(RequestError::NoUpstream { retry_after });
                }
                Err(gate) => return Err(no_room(gate, last)),
            };
            let call = call_of(inbound, admitted, &running);
            client.is_called_for(running.replica.kind());
            batchin_faults::point("upstream.calling");
            let called = running.replica.call(call).await;
            match called {
                Ok(answer) => {
                    batchin_faults::point("upstream.answered");
                    if !unseen {
                        running.first_byte();
                    }
                    return Ok(Dispatched { answer, running });
                }
                Err(error) => {
                    let upstream = running.replica.name().to_owned();
                    let outcome = ended(&error, &running);
                    running.finish(outcome);
                    note_failure(&upstream, inbound.class, &error);
                    if error.retry == Retry::Never || client.is_gone() {
                        return Err(final_error(error));
                    }
                    // What the server itself refuses at once costs nothing, and the one that would answer may be the last.
                    tries += usize::from(!error.is_of_server());
                    // Another request made its trial in between: as a last resort it may still be asked.
                    if error.kind == CallErrorKind::Unavailable {
                        last.get_or_insert(error);
                        continue;
                    }
                    candidates.retain(|other| other.name() != upstream);
                    // That others have too much to do says more than that this one does not have the model.
                    if last.is_none() || !error.is_of_server() {
                        last = Some(error);
                    }
                }
            }
        }
        Err(last.map_or(RequestError::NoUpstream { retry_after: RETRY_AFTER }, final_error))
    }
}

/// Counts and logs a failure of a server; what the request is to blame for is none. Tasks are tried again, and fail by
/// the thousand: the breaker and the metric say so, and each of them only who asks for it.
pub(crate) fn note_failure(upstream: &str, class: Class, error: &CallError) {
    if error.client_error.is_none() {
        counter!("batchin_upstream_failures_total", "upstream" => upstream.to_owned()).increment(1);
        match class {
            Class::Interactive => info!(upstream, error = %error.kind, "upstream {upstream} failed"),
            Class::High | Class::Low | Class::Fill => {
                debug!(upstream, error = %error.kind, "upstream {upstream} failed");
            }
        }
    }
}

pub(crate) fn call_of<'a>(inbound: &Inbound, admitted: &'a Admitted, running: &Running) -> Call<'a> {
    let model = &*admitted.model;
    Call {
        endpoint: inbound.endpoint,
        body: inbound.body.clone(),
        upstream_model: Some(model.upstream_model.as_ref().unwrap_or(&model.id)),
        public_id: public_id(inbound),
        public_model: &model.id,
        stream: admitted.peek.stream,
        include_usage: admitted.peek.include_usage,
        continuous_usage: admitted.peek.continuous_usage,
        answers: choices_of(admitted, running.replica.kind()),
        request_id: inbound.request.to_string(),
        class_priority: i32::try_from(inbound.class.index()).ok().filter(|_| inbound.class != Class::Interactive),
        max_tokens: admitted.max_tokens,
        held: admitted.most_of_each(),
        asker: running.asker,
    }
}

fn public_id(inbound: &Inbound) -> String {
    let request = inbound.request.uuid().simple();
    match inbound.endpoint {
        Endpoint::Chat => format!("chatcmpl_{request}"),
        Endpoint::Completions => format!("cmpl_{request}"),
        // OpenAI's have none, and Mistral's packages demand one.
        Endpoint::Embeddings => format!("embd_{request}"),
    }
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
pub(crate) fn whole(bill: Bill, reservation: Reservation, body: Bytes, running: Running) -> Unsettled {
    bill.note_marks(running.replica.name());
    running.finish_whole(bill.meter.units().output, bill.began.elapsed());
    let body = bill.corrected(body);
    Unsettled { bill, reservation, body }
}

/// Meters a stream.
fn open(
    mut bill: Bill,
    reservation: Reservation,
    upstream: (Box<Events>, Running),
    guard: Option<IdempotencyGuard>,
    place: Share<AccountId>,
) -> MeteredStream {
    let (events, running) = upstream;
    bill.ttft = Some(bill.began.elapsed());
    bill.meter.streams_from(running.replica.kind());
    MeteredStream::new(bill, reservation, *events, running, (guard, place))
}

impl Unsettled {
    /// What was consumed.
    pub fn units(&self) -> batchin_domain::Units {
        self.bill.meter.units()
    }

    /// Charges and, once that is durable, hands the answer over.
    async fn settle(
        self,
        outcome: Outcome,
        scope: Option<IdempotencyScope>,
        task: Option<TaskFinish>,
    ) -> Result<Bytes, RequestError> {
        let mut settlement = self.bill.settlement(outcome, &self.reservation);
        settlement.task = task;
        settlement.answer = scope.map(|scope| {
            let body = (self.body.len() <= MAX_KEPT_ANSWER).then(|| self.body.to_vec());
            (scope, StoredAnswer { status: 200, content_type: "application/json".to_owned(), body })
        });
        let charge = settlement.charge;
        // From here on the charge stands whether or not anybody waits for it.
        self.reservation.settle(charge);
        self.bill.epoch.committer.commit(settlement).await.map_err(|cause| unsettled(&cause))?;
        batchin_faults::point("answer.charged");
        self.bill.note(outcome);
        Ok(self.body)
    }

    /// Charges and ends the task in one transaction; the answer's body must lie in its blob before.
    pub async fn settle_task(self, finish: TaskFinish) -> Result<(), RequestError> {
        self.settle(Outcome::Completed, None, Some(finish)).await.map(drop)
    }
}

/// What a settlement's failure means to the request.
pub(crate) fn unsettled(cause: &CommitError) -> RequestError {
    match cause {
        CommitError::StaleTask => RequestError::Stopped,
        CommitError::Fenced | CommitError::Unavailable => RequestError::Fenced,
        CommitError::Refused => RequestError::NotStorable,
    }
}

pub(crate) fn no_room(gate: Gate, last: Option<CallError>) -> RequestError {
    match (last, gate) {
        (Some(error), _) => final_error(error),
        (None, Gate::Unavailable) => RequestError::NoUpstream { retry_after: RETRY_AFTER },
        (None, _) => RequestError::Busy { retry_after: RETRY_AFTER },
    }
}

/// What the scheduler is told of a failed call.
pub(crate) fn ended(error: &CallError, running: &Running) -> Ended {
    match (error.kind, error.retry) {
        (CallErrorKind::Timeout, _) => Ended::Timeout,
        // One account's overload lowers what runs there, and is no pause for others that are answered.
        (CallErrorKind::Status(429 | 503), Retry::Later(_)) if running.replica.answers_others(running.asker) => {
            Ended::Timeout
        }
        (CallErrorKind::Status(429 | 503), Retry::Later(retry_after)) => Ended::Overloaded { retry_after },
        _ => Ended::Failed,
    }
}

fn final_error(error: CallError) -> RequestError {
    let status = error.shown_status();
    match (error.kind, error.retry, error.client_error) {
        (_, Retry::Never, Some(cause)) => RequestError::Refused { status, error: cause },
        (CallErrorKind::Status(429 | 503), Retry::Later(after), _) => {
            RequestError::Busy { retry_after: after.unwrap_or(RETRY_AFTER) }
        }
        (CallErrorKind::Timeout, ..) => RequestError::UpstreamTimeout,
        (CallErrorKind::Unavailable | CallErrorKind::Connect(_), retry, _) => {
            let retry_after = if let Retry::Later(Some(after)) = retry { after } else { RETRY_AFTER };
            RequestError::NoUpstream { retry_after }
        }
        _ => RequestError::UpstreamFailed,
    }
}
