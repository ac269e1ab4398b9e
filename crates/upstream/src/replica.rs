//! Holds: one model server as it is now: its connections, its calls under way, its breaker and its health.
//!
//! It sends a call and classifies what comes back; it never picks a server and never retries by itself.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use batchin_openai::{AnswerError, Assembler, Endpoint, Relay, WholeAnswer, read_answer};
use batchin_tasks::Tasks;
use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, timeout, timeout_at};

use crate::{
    assembly::Assembly,
    breaker::{Admission, Breaker, Outcome},
    call::{Answer, Call, CallError, CallErrorKind, MAX_ANSWER_BYTES, Retry, request_body},
    config::UpstreamConfig,
    dialect::Kind,
    events::{Events, Reader},
    fleet::FleetError,
    health::{self, Health, Pulse},
    learnt::{Lessons, Manner},
    meters::Meters,
    mixed,
    transport::{AnswerBody, BodyError, SendError, Targets, Transport},
};

/// Most bytes of a refusal that are read; its message lies within.
const MAX_REFUSAL_BYTES: usize = 64 * 1024;

/// How long a body may take to end after its last event. Opening a connection costs less than waiting longer.
const DRAIN_PATIENCE: Duration = Duration::from_millis(500);

/// Headers of a call, room for which is made at once.
const CALL_HEADERS: usize = 8;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// One model server.
pub struct Replica {
    config: UpstreamConfig,
    transport: Transport,
    targets: Targets,
    authorization: Option<HeaderValue>,
    outstanding: AtomicU32,
    /// std mutex: held for one transition, never across an await.
    breaker: Mutex<Breaker>,
    pulse: Pulse,
    lessons: Lessons,
    pub(crate) meters: Meters,
    chance: AtomicU64,
    tasks: Tasks,
}

/// A replica at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// The configured name.
    pub name: String,
    /// The program behind it.
    pub kind: Kind,
    /// Calls at once that it works on, when configured.
    pub slots: Option<u32>,
    /// Calls under way.
    pub outstanding: u32,
    /// The breaker.
    pub breaker: BreakerState,
    /// The last probes.
    pub health: Health,
    /// Whether a call made now would be sent: the breaker admits it and no probe speaks against it.
    pub accepting: bool,
}

/// The breaker, for people and pickers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Works.
    Closed,
    /// Asked for a pause.
    Cooling,
    /// Failed repeatedly.
    Open,
    /// One trial is under way.
    Trying,
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica").field("name", &self.config.name).finish_non_exhaustive()
    }
}

impl Replica {
    /// `seed` spreads the probations of many nodes.
    pub(crate) fn new(config: UpstreamConfig, seed: u64, tasks: Tasks) -> Result<Self, FleetError> {
        let name = || config.name.clone();
        config.validate().map_err(|fault| FleetError::Config { upstream: name(), fault })?;
        let authorization = config.authorization().map_err(|fault| FleetError::Config { upstream: name(), fault })?;
        let transport = Transport::new(&config).map_err(|_| FleetError::Tls { upstream: name() })?;
        let targets = Targets::of(&config).ok_or_else(|| FleetError::Address { upstream: name() })?;
        Ok(Self {
            meters: Meters::of(&config.name),
            transport,
            targets,
            authorization,
            outstanding: AtomicU32::new(0),
            breaker: Mutex::new(Breaker::default()),
            pulse: Pulse::new(),
            lessons: Lessons::default(),
            chance: AtomicU64::new(seed),
            tasks,
            config,
        })
    }

    /// The configured name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// The program behind it.
    pub fn kind(&self) -> Kind {
        self.config.kind
    }

    /// Its settings.
    pub fn config(&self) -> &UpstreamConfig {
        &self.config
    }

    /// Calls under way.
    pub fn outstanding(&self) -> u32 {
        self.outstanding.load(Ordering::Relaxed)
    }

    /// Whether a call made now would be sent. Cheaper than [`status`](Self::status).
    pub fn accepting(&self) -> bool {
        self.pulse.health() != Health::Ill && !matches!(self.breaker().admit(Instant::now()).1, Admission::No { .. })
    }

    /// The replica at this moment.
    pub fn status(&self) -> ReplicaStatus {
        let breaker = *self.breaker();
        let state = match breaker {
            Breaker::Closed { .. } => BreakerState::Closed,
            Breaker::Cooling { .. } => BreakerState::Cooling,
            Breaker::Open { .. } => BreakerState::Open,
            Breaker::Trying { .. } => BreakerState::Trying,
        };
        ReplicaStatus {
            name: self.config.name.clone(),
            kind: self.config.kind,
            slots: self.config.slots,
            outstanding: self.outstanding(),
            breaker: state,
            health: self.pulse.health(),
            accepting: self.accepting(),
        }
    }

    /// Sends a call. Returns with the whole answer, or with a stream once its first event has come.
    ///
    /// Nothing of an answer has reached anybody when this fails, so the call may be made again elsewhere. Dropping
    /// the future, or the stream, closes the connection and thereby cancels the work.
    pub async fn call(self: &Arc<Self>, call: Call<'_>) -> Result<Answer, CallError> {
        let relay = || Relay::new(&call.public_id, call.public_model, call.include_usage);
        self.send(&call, || Reader::PassOn(Box::new(relay()))).await
    }

    /// Sends a call whose answer is streamed here and put together. Returns once the first event has come.
    ///
    /// The call must say `stream`, and its body must be one whose streams say as much as a whole answer.
    pub async fn assemble(self: &Arc<Self>, call: Call<'_>) -> Result<Assembly, CallError> {
        let answer = Assembler::new(call.endpoint, &call.public_id, call.public_model, MAX_ANSWER_BYTES);
        match self.send(&call, || Reader::Assemble(Box::new(answer))).await? {
            Answer::Events(events) => Ok(Assembly::new(*events)),
            Answer::Whole { .. } => Err(CallError::other_replica(CallErrorKind::BadAnswer)),
        }
    }

    async fn send(self: &Arc<Self>, call: &Call<'_>, reader: impl FnOnce() -> Reader) -> Result<Answer, CallError> {
        let started = Instant::now();
        let mut lease = self.lease(started)?;
        match self.exchange(call, started).await {
            Ok(Reply::Whole(answer)) => {
                lease.succeeded();
                Ok(answer)
            }
            Ok(Reply::Head(response)) => {
                let deadline = started + self.config.first_byte_timeout;
                // Boxed: whole answers, which are most, need no room for it in their futures.
                let events = Box::pin(Events::open(response.into_body(), call, reader(), lease, deadline)).await?;
                Ok(Answer::Events(Box::new(events)))
            }
            Err(error) => {
                lease.failed(&error);
                Err(error)
            }
        }
    }

    async fn exchange(&self, call: &Call<'_>, started: Instant) -> Result<Reply, CallError> {
        let mut tries = self.lessons.tries(call, &self.config);
        let response = loop {
            let response = self.ask(call, tries.manner, started).await?;
            if response.status().is_success() {
                break response;
            }
            let refusal = Box::pin(self.refusal(response)).await;
            if !tries.again(call, &refusal) {
                return Err(refusal.renamed(call));
            }
        };
        self.lessons.note(call, &tries, &self.config.name);
        if call.stream && call.endpoint.generates() {
            return Ok(Reply::Head(response));
        }
        let body = collect(response.into_body(), MAX_ANSWER_BYTES, self.config.idle_timeout).await?;
        let id = (call.endpoint != Endpoint::Embeddings).then_some(call.public_id.as_str());
        let read = match read_answer(&body, id, call.public_model) {
            Err(AnswerError::NotAnAnswer) if call.endpoint.generates() && mixed::is_events(&body) => {
                Ok(mixed::put_together(body, call).map_err(|error| error.renamed(call))?)
            }
            read => read,
        };
        match read {
            Ok(WholeAnswer { body, usage, text_bytes }) => {
                Ok(Reply::Whole(Answer::Whole { status: StatusCode::OK, body, usage, text_bytes }))
            }
            Err(AnswerError::NotAnAnswer) => Err(CallError::other_replica(CallErrorKind::BadAnswer)),
            Err(AnswerError::Refused(error)) => Err(CallError::reported(error).renamed(call)),
        }
    }

    /// Sends a call once; returns with the head of its answer.
    async fn ask(&self, call: &Call<'_>, manner: Manner, started: Instant) -> Result<Response<AnswerBody>, CallError> {
        let sent = self.transport.send(self.request(call, manner), started);
        let timed_out = |_| CallError::other_replica(CallErrorKind::Timeout);
        let deadline = started + self.config.first_byte_timeout;
        let response = timeout_at(deadline, sent).await.map_err(timed_out)?.map_err(unsent)?;
        self.meters.first_byte(started.elapsed());
        Ok(response)
    }

    async fn refusal(&self, response: Response<AnswerBody>) -> CallError {
        let (head, body) = response.into_parts();
        // A refusal is one even when its text cannot be read.
        let text = collect(body, MAX_REFUSAL_BYTES, self.config.idle_timeout).await.unwrap_or_default();
        CallError::refused(head.status, &head.headers, &text)
    }

    fn request(&self, call: &Call<'_>, manner: Manner) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(request_body(call, &self.config, manner)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.targets.call(call.endpoint);
        let headers = request.headers_mut();
        headers.reserve(CALL_HEADERS);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // Unpacking would cost both sides more than the bytes that it saves.
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Ok(id) = HeaderValue::try_from(call.request_id.as_str()) {
            headers.insert(X_REQUEST_ID, id);
        }
        if let Some(authorization) = &self.authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        request
    }

    /// Asks whether the server lives and remembers the answer. Returns the health when it changed.
    pub(crate) async fn probe(&self) -> Option<Health> {
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.uri_mut() = self.targets.health.clone();
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
        }
        let answered = health::answered(async {
            let Ok(response) = self.transport.send(request, Instant::now()).await else { return false };
            let status = response.status();
            // Reading the body to its end keeps the connection for calls.
            let read = collect(response.into_body(), MAX_REFUSAL_BYTES, self.config.idle_timeout).await;
            // Hosted servers without a list of models answer 404 and live.
            let refused = matches!(status.as_u16(), 401..=403) || status.is_server_error();
            !refused && !matches!(read, Err(CallError { kind: CallErrorKind::Reset, .. }))
        });
        let changed = self.pulse.note(answered.await);
        self.meters.healthy.set(if self.pulse.health() == Health::Well { 1.0 } else { 0.0 });
        changed
    }

    fn lease(self: &Arc<Self>, now: Instant) -> Result<Lease, CallError> {
        let mut breaker = self.breaker();
        let (next, admission) = breaker.admit(now);
        *breaker = next;
        drop(breaker);
        let trial = match admission {
            Admission::Yes => false,
            Admission::Trial => true,
            Admission::No { until } => {
                let retry = Retry::Later(until.map(|until| until.saturating_duration_since(now)));
                return Err(CallError { kind: CallErrorKind::Unavailable, retry, client_error: None });
            }
        };
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        self.meters.outstanding.increment(1.0);
        Ok(Lease { replica: Arc::clone(self), trial, settled: false })
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, outcome: Outcome) {
        let mut breaker = self.breaker();
        if *breaker == Breaker::default() && outcome == Outcome::Success {
            return;
        }
        let next = breaker.after(outcome, Instant::now(), self.next_chance());
        *breaker = next;
    }

    /// SplitMix64: enough to spread probations, and the same for the same seed.
    fn next_chance(&self) -> u32 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut mixed = self.chance.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from(mixed >> 32).unwrap_or_default()
    }
}

enum Reply {
    Whole(Answer),
    Head(Response<AnswerBody>),
}

/// A call under way. It counts while it lives and reports how the call went exactly once.
pub(crate) struct Lease {
    replica: Arc<Replica>,
    trial: bool,
    settled: bool,
}

impl Lease {
    pub(crate) fn idle_timeout(&self) -> Duration {
        self.replica.config.idle_timeout
    }

    pub(crate) fn succeeded(&mut self) {
        self.settle(Outcome::Success);
        self.replica.meters.succeeded();
    }

    pub(crate) fn failed(&mut self, error: &CallError) {
        self.settle(error.outcome());
        self.replica.meters.failed(error);
    }

    pub(crate) fn stream_broke(&mut self) {
        self.settle(Outcome::Failure);
        self.replica.meters.stream_broke();
    }

    /// A stream's first event closes a trial: waiting for its end would keep the server shut for minutes.
    pub(crate) fn began(&mut self) {
        if self.trial {
            self.trial = false;
            self.replica.note(Outcome::Success);
        }
    }

    /// Reads a finished stream's body to its end, so that its connection can be used again.
    pub(crate) fn drain(&self, body: AnswerBody) {
        // A stream can be dropped after its runtime; then there is no connection left to save.
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        self.replica.tasks.spawn("upstream_drain", |stop| async move {
            let drained = collect(body, MAX_REFUSAL_BYTES, DRAIN_PATIENCE);
            // When it does not end, the connection is closed instead; nothing is lost either way.
            drop(stop.run_until_cancelled(drained).await);
        });
    }

    fn settle(&mut self, outcome: Outcome) {
        if !self.settled {
            self.settled = true;
            self.replica.note(outcome);
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("upstream", &self.replica.config.name).finish_non_exhaustive()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.settled {
            if self.trial {
                self.replica.note(Outcome::Abandoned);
            }
            self.replica.meters.cancelled();
        }
        self.replica.outstanding.fetch_sub(1, Ordering::Relaxed);
        self.replica.meters.outstanding.decrement(1.0);
    }
}

/// The whole body. One that comes in one piece is not copied.
async fn collect(mut body: AnswerBody, most: usize, idle: Duration) -> Result<Bytes, CallError> {
    let mut first = Bytes::new();
    let mut all: Option<BytesMut> = None;
    loop {
        let frame = timeout(idle, body.frame()).await;
        let frame = frame.map_err(|_| CallError::other_replica(CallErrorKind::Timeout))?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| match error {
            BodyError::Broken(_) => CallError::other_replica(CallErrorKind::Reset),
            BodyError::Encoding(_) => CallError::other_replica(CallErrorKind::Encoding),
        })?;
        let Ok(data) = frame.into_data() else { continue };
        let so_far = all.as_ref().map_or(first.len(), BytesMut::len);
        if so_far + data.len() > most {
            return Err(CallError { kind: CallErrorKind::TooLarge, retry: Retry::Never, client_error: None });
        }
        if let Some(all) = &mut all {
            all.extend_from_slice(&data);
        } else if first.is_empty() {
            first = data;
        } else {
            let expected = body.size_hint().lower().min(most as u64);
            let mut joined = BytesMut::with_capacity(first.len() + data.len() + usize::try_from(expected).unwrap_or(0));
            joined.extend_from_slice(&first);
            joined.extend_from_slice(&data);
            all = Some(joined);
        }
        if body.is_end_stream() {
            break;
        }
    }
    Ok(all.map_or(first, BytesMut::freeze))
}

fn unsent(error: SendError) -> CallError {
    CallError::other_replica(match error {
        SendError::Connect(kind) => CallErrorKind::Connect(kind),
        SendError::Broken => CallErrorKind::Reset,
    })
}
