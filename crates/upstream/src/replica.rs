//! Holds: one model server as it is now: its connections, its calls under way, its breaker and its health.
//!
//! It sends a call and classifies what comes back; it never picks a server and never retries by itself.

mod asking;
mod lease;

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
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
use tracing::{info, warn};

pub use asking::Check;
pub(crate) use lease::Lease;

use crate::{
    absent::Absent,
    assembly::Assembly,
    breaker::{Asker, Breaker, Outcome, Phase, Shut, Ticket, Trouble, Whose},
    call::{
        Answer, Call, CallError, CallErrorKind, MAX_ANSWER_BYTES, Retry, Unanswered, counts_all_along, request_body,
    },
    config::UpstreamConfig,
    dialect::Kind,
    events::{Events, Feed, Reader},
    fleet::FleetError,
    health::{Health, Pulse},
    learnt::{Lessons, Manner, Tries},
    meters::Meters,
    mixed,
    transport::{AnswerBody, BodyError, SendError, Targets, Transport},
};

/// Most bytes of a refusal that are read; its message lies within.
const MAX_REFUSAL_BYTES: usize = 64 * 1024;

/// Headers of a call, room for which is made at once.
const CALL_HEADERS: usize = 8;

/// Unpacking would cost both sides more than the bytes that it saves.
const PLAIN: HeaderValue = HeaderValue::from_static("identity");

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
    absent: Absent,
    /// A call was refused for our key, and no look has shown that it works since.
    suspect_key: AtomicBool,
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
    /// What holds calls back, if anything does.
    pub trouble: Option<Trouble>,
    /// The last probes, and whether calls are refused for our key or our account there.
    pub health: Health,
}

/// How much a server is to be preferred for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It would not be sent.
    Refuses,
    /// Only where no other one takes it.
    LastResort,
    /// As any other.
    Takes,
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

impl BreakerState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Closed, Self::Cooling, Self::Open, Self::Trying];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Cooling => "cooling",
            Self::Open => "open",
            Self::Trying => "trying",
        }
    }
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
            absent: Absent::default(),
            suspect_key: AtomicBool::new(false),
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

    /// Whether a call made now would be sent.
    pub fn standing(&self, asker: Asker) -> Standing {
        if self.pulse.health() == Health::Ill {
            return Standing::Refuses;
        }
        let (now, breaker) = (Instant::now(), self.breaker());
        if breaker.would_admit(Asker { last_resort: false, ..asker }, now) {
            Standing::Takes
        } else if breaker.would_admit(Asker { last_resort: true, ..asker }, now) {
            Standing::LastResort
        } else {
            Standing::Refuses
        }
    }

    /// How long such a call is held back still, where that is known.
    pub fn pause(&self, asker: Asker) -> Option<Duration> {
        self.breaker().pause(Asker { last_resort: true, ..asker }, Instant::now())
    }

    /// Whether others are to be preferred for this model: the server said that it does not have it.
    pub fn avoids(&self, model: &str, endpoint: Endpoint) -> bool {
        self.absent.avoid(model, endpoint, Instant::now())
    }

    /// Whether it passes its health check, works as far as is known, and has this model for one of these kinds of call.
    /// Changes only with what is found out, not with time.
    pub fn serves(&self, model: &str, mut endpoints: impl Iterator<Item = Endpoint>) -> bool {
        self.status().health != Health::Ill
            && !self.breaker().shut().is_some_and(|shut| shut.whose == Whose::Everybody)
            && endpoints.any(|endpoint| !self.absent.lacks(model, endpoint))
    }

    /// Whether the health check passes, or has never been asked. The engine that ships with us is loading until it first
    /// answers, which is no outage.
    pub fn passes_health_check(&self) -> bool {
        self.pulse.health() != Health::Ill || (self.config.kind == Kind::Embedded && !self.pulse.was_well())
    }

    /// Whether it answered another account in the last half minute.
    pub fn answers_others(&self, asker: Asker) -> bool {
        self.breaker().answers_others(asker.account, Instant::now())
    }

    /// Whether it answered anybody in the last half minute.
    pub fn answered_lately(&self) -> bool {
        self.breaker().answered_lately(Instant::now())
    }

    /// The replica at this moment.
    pub fn status(&self) -> ReplicaStatus {
        let (phase, shut) = {
            let breaker = self.breaker();
            (breaker.phase(), breaker.shut())
        };
        let state = match phase {
            Phase::Closed => BreakerState::Closed,
            Phase::Cooling { .. } => BreakerState::Cooling,
            Phase::Open(_) => BreakerState::Open,
            Phase::Trying(_) => BreakerState::Trying,
        };
        let trouble = shut.map(|shut| shut.trouble);
        let refused = trouble.is_some_and(Trouble::is_about_us);
        ReplicaStatus {
            name: self.config.name.clone(),
            kind: self.config.kind,
            slots: self.config.slots,
            outstanding: self.outstanding(),
            breaker: state,
            trouble,
            health: if refused { Health::Ill } else { self.pulse.health() },
        }
    }

    /// Sends a call. Returns with the whole answer, or with a stream once its first event has come.
    ///
    /// Nothing of an answer has reached anybody when this fails, so the call may be made again elsewhere. Dropping
    /// the future, or the stream, closes the connection and thereby cancels the work.
    pub async fn call(self: &Arc<Self>, call: Call<'_>) -> Result<Answer, CallError> {
        let hides = counts_all_along(&call, self.kind()) && !call.continuous_usage;
        let relay = || Relay::new(&call.public_id, call.public_model, call.include_usage).hiding_counts(hides);
        self.send(&call, || Reader::PassOn(Box::new(relay()))).await
    }

    /// Sends a call whose answer is streamed here and put together. Returns once the first event has come.
    ///
    /// The call must say `stream`, and its body must be one whose streams say as much as a whole answer.
    pub async fn assemble(self: &Arc<Self>, call: Call<'_>) -> Result<Assembly, CallError> {
        let answer = || Assembler::new(call.endpoint, &call.public_id, call.public_model, MAX_ANSWER_BYTES);
        match self.send(&call, || Reader::Assemble(Box::new(answer()))).await? {
            Answer::Events(events) => Ok(Assembly::new(*events)),
            Answer::Whole { .. } => Err(CallError::other_replica(CallErrorKind::BadAnswer)),
        }
    }

    async fn send(self: &Arc<Self>, call: &Call<'_>, reader: impl Fn() -> Reader) -> Result<Answer, CallError> {
        let started = Instant::now();
        let mut lease = self.lease(call.asker, started)?;
        let mut tries = self.lessons.tries(call, &self.config);
        let failed = loop {
            match self.exchange(call, &mut tries, started).await {
                Ok(Reply::Whole(answer)) => {
                    lease.succeeded();
                    self.served(call, &tries);
                    return Ok(answer);
                }
                Ok(Reply::Head(response)) => {
                    let (idle, deadline) = (self.config.idle_timeout, started + self.config.first_byte_timeout);
                    // Boxed: whole answers, which are most, need no room for it in their futures.
                    match Box::pin(Feed::open(response.into_body(), call, reader(), idle, deadline)).await {
                        Ok((feed, first)) => {
                            self.served(call, &tries);
                            return Ok(Answer::Events(Box::new(Events::new(feed, first, lease))));
                        }
                        Err(Unanswered::Said(said)) if tries.again_after(call, &said) => {}
                        Err(none) => break CallError::from(none).renamed(call),
                    }
                }
                Err(error) => break error,
            }
        };
        lease.failed(&failed);
        self.not_served(call, &failed);
        Err(failed)
    }

    /// What it does not have is told once, and so is that it has it again.
    fn not_served(&self, call: &Call<'_>, error: &CallError) {
        if error.is_not_served()
            // A 501 may be about one request: it goes elsewhere, and says nothing about the next.
            && error.kind != CallErrorKind::Status(501)
            && self.absent.refused(call.public_model, call.endpoint, Instant::now())
        {
            let (upstream, model, call) = (self.name(), call.public_model, call.endpoint.name());
            warn!(upstream, model, call, error = %error.kind, "upstream {upstream} does not serve {call} of {model}");
            self.meters.model_missing.set(1.0);
        }
    }

    fn served(&self, call: &Call<'_>, tries: &Tries) {
        self.lessons.note(call, tries, &self.config.name);
        if self.absent.answered(call.public_model, call.endpoint) {
            let (upstream, model, call) = (self.name(), call.public_model, call.endpoint.name());
            info!(upstream, model, call, "upstream {upstream} serves {call} of {model} again");
            self.meters.model_missing.set(if self.absent.any() { 1.0 } else { 0.0 });
        }
    }

    /// After a change of the configuration, what was absent may be there, or asked for no more.
    pub(crate) fn forget_absent(&self) {
        self.absent.forget();
        self.meters.model_missing.set(0.0);
    }

    /// Sends a call, again without what is refused, up to the whole answer or a stream's head.
    async fn exchange(&self, call: &Call<'_>, tries: &mut Tries, started: Instant) -> Result<Reply, CallError> {
        loop {
            let response = self.sent(call, tries.manner, started).await?;
            if !response.status().is_success() {
                let refusal = Box::pin(self.refusal(response)).await;
                if tries.again(call, &refusal) {
                    continue;
                }
                return Err(refusal.renamed(call));
            }
            if call.stream && call.endpoint.generates() {
                return Ok(Reply::Head(response));
            }
            match self.whole(call, response).await {
                Ok(answer) => return Ok(Reply::Whole(answer)),
                Err(Unanswered::Said(said)) if tries.again_after(call, &said) => {}
                Err(none) => return Err(CallError::from(none).renamed(call)),
            }
        }
    }

    async fn whole(&self, call: &Call<'_>, response: Response<AnswerBody>) -> Result<Answer, Unanswered> {
        let body = collect(response.into_body(), MAX_ANSWER_BYTES, self.config.idle_timeout).await?;
        let WholeAnswer { body, usage, text_bytes } = match read_answer(&body, &call.public_id, call.public_model) {
            Ok(answer) => answer,
            Err(AnswerError::Refused(said)) => return Err(Unanswered::Said(said)),
            Err(AnswerError::NotAnAnswer) if call.endpoint.generates() && mixed::is_events(&body) => {
                mixed::put_together(body, call)?
            }
            Err(AnswerError::NotAnAnswer) => return Err(CallError::other_replica(CallErrorKind::BadAnswer).into()),
        };
        Ok(Answer::Whole { status: StatusCode::OK, body, usage, text_bytes })
    }

    /// Sends a call once; returns with the head of its answer.
    async fn sent(&self, call: &Call<'_>, manner: Manner, started: Instant) -> Result<Response<AnswerBody>, CallError> {
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
        headers.insert(header::ACCEPT_ENCODING, PLAIN);
        if let Ok(id) = HeaderValue::try_from(call.request_id.as_str()) {
            headers.insert(X_REQUEST_ID, id);
        }
        if let Some(authorization) = &self.authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        request
    }

    /// Shows in the metrics what is believed.
    fn show(&self) {
        let ReplicaStatus { health, breaker, trouble, .. } = self.status();
        self.meters.healthy.set(if health == Health::Well { 1.0 } else { 0.0 });
        let key_refused = self.pulse.is_key_refused();
        let trouble = if key_refused { Some(Trouble::KeyRefused) } else { trouble };
        self.meters.show(breaker, trouble, self.pulse.health() == Health::Ill && !key_refused);
    }

    fn lease(self: &Arc<Self>, asker: Asker, now: Instant) -> Result<Lease, CallError> {
        let mut breaker = self.breaker();
        let before = breaker.phase();
        let admitted = breaker.admit(asker, now);
        let moved = breaker.phase() != before;
        drop(breaker);
        if moved {
            self.show();
        }
        let ticket = admitted.map_err(|until| {
            let retry = Retry::Later(until.map(|until| until.saturating_duration_since(now)));
            CallError { kind: CallErrorKind::Unavailable, retry, client_error: None }
        })?;
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        self.meters.outstanding.increment(1.0);
        Ok(Lease { replica: Arc::clone(self), ticket, began: false, settled: false })
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, ticket: Ticket, outcome: Outcome) {
        let mut breaker = self.breaker();
        let (before, was) = (breaker.phase(), breaker.shut());
        breaker.after(ticket, outcome, Instant::now(), self.next_chance());
        let (after, is) = (breaker.phase(), breaker.shut());
        drop(breaker);
        if matches!(outcome, Outcome::KeyRefused | Outcome::Forbidden) {
            self.suspect_key.store(true, Ordering::Relaxed);
        }
        if before != after {
            self.show();
            self.tell(was, is);
        }
    }

    /// Tells the operator of a change, once.
    fn tell(&self, was: Option<Shut>, is: Option<Shut>) {
        let seen = |shut: Option<Shut>| {
            shut.map(|shut| (shut.trouble, shut.whose == Whose::Everybody || shut.trouble.is_about_us()))
        };
        let upstream = self.name();
        match (seen(was), seen(is)) {
            (was, is) if was == is => {}
            // The health check has met it, and that was told.
            (_, Some((Trouble::KeyRefused, _))) if self.pulse.is_key_refused() => {}
            (_, Some((trouble, everybody))) => {
                let for_whom = if everybody { "" } else { ", as far as the one account that asks can tell" };
                warn!(upstream, cause = trouble.name(), "upstream {upstream} {}{for_whom}", said(trouble));
            }
            (_, None) => info!(upstream, "upstream {upstream} works again"),
        }
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

/// What an operator is told.
fn said(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::Unreachable => "cannot be reached",
        Trouble::Failing => "fails",
        Trouble::KeyRefused => "refuses our key",
        Trouble::QuotaUsedUp => "wants to be paid: our account there is used up",
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
            BodyError::Encoding => CallError::other_replica(CallErrorKind::Encoding),
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
