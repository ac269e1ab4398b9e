//! Holds: one model server as it is now: its connections, its record, what it lacks and what it has taught.
//!
//! It sends a call and classifies what comes back; it never picks a server and never retries by itself.

mod asking;
mod errands;
mod filming;
mod parts;
mod speaking;
mod workflows;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use batchin_domain::CallKind;
use batchin_openai::{
    AnswerError, Assembler, GivenPictures, Pictures, Relay, Usage, Wanted, WholeAnswer, answer_bytes,
    infill_as_completion, peek, read_pictures, read_wanted,
};
use batchin_tasks::Tasks;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

pub use asking::Check;
pub use filming::FilmBytes;

use crate::{
    absent::Absent,
    adapters::Kind,
    assembly::Assembly,
    body::{Manner, check_pictured, counts_all_along, request_body},
    breaker::{Asker, BreakerState, Trouble, Whose},
    call::{Call, MAX_ANSWER_BYTES},
    config::{FleetError, UpstreamConfig},
    events::{Events, Feed, Native, Reader},
    failure::{CallError, CallErrorKind, Unanswered},
    health::Health,
    learnt::{Lessons, Tries},
    lease::Lease,
    middle::{Middle, no_middle},
    mixed,
    record::Record,
    sound::Sound,
    transport::{AnswerBody, MAX_REFUSAL_BYTES, SendError, Targets, Transport, collect},
    upload::SentBody,
};

/// Headers of a call, room for which is made at once.
const CALL_HEADERS: usize = 8;

/// Unpacking would cost both sides more than the bytes that it saves.
const PLAIN: HeaderValue = HeaderValue::from_static("identity");

/// llama.cpp's status for a model whose vocabulary has no marks around a gap.
const NO_MARKS: u16 = 501;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// One model server.
pub struct Replica {
    config: UpstreamConfig,
    transport: Arc<Transport>,
    targets: Targets,
    authorization: Option<HeaderValue>,
    record: Arc<Record>,
    lessons: Lessons,
    absent: Absent,
    /// It gets nothing new.
    drained: AtomicBool,
    /// Workflows that were ordered.
    orders: AtomicU64,
}

/// What a successful call brings.
#[derive(Debug)]
pub enum Answer {
    /// The whole answer.
    Whole {
        /// Always a success.
        status: StatusCode,
        /// With the public id and model.
        body: Bytes,
        /// What the server counted, when it says so.
        usage: Option<Usage>,
        /// Bytes of text in it, as in [`WholeAnswer`].
        text_bytes: u64,
    },
    /// A stream whose first event has arrived and is no error.
    Events(Box<Events>),
    /// Sound whose first bytes have arrived.
    Sound(Box<Sound>),
    /// Pictures, all of them. Whether they are any is not looked at.
    Pictures(Box<GivenPictures>),
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
            record: Arc::new(Record::new(&config.name, seed, tasks)),
            transport: Arc::new(transport),
            targets,
            authorization,
            lessons: Lessons::default(),
            absent: Absent::default(),
            drained: AtomicBool::new(false),
            orders: AtomicU64::new(0),
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
        self.record.outstanding()
    }

    /// Whether an operator has taken it out: it gets nothing new, and what is under way goes on.
    pub fn is_drained(&self) -> bool {
        self.drained.load(Ordering::Relaxed)
    }

    /// Returns what was so before.
    pub(crate) fn set_drained(&self, drained: bool) -> bool {
        self.drained.swap(drained, Ordering::Relaxed)
    }

    /// Whether a call made now would be sent.
    pub fn standing(&self, asker: Asker) -> Standing {
        if self.is_drained() || self.record.pulse.health() == Health::Ill {
            return Standing::Refuses;
        }
        let (now, breaker) = (Instant::now(), self.record.breaker());
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
        self.record.breaker().pause(Asker { last_resort: true, ..asker }, Instant::now())
    }

    /// Whether others are to be preferred for this model: the server said that it does not have it.
    pub fn avoids(&self, model: &str, kind: CallKind) -> bool {
        self.absent.avoid(model, kind, Instant::now())
    }

    /// Whether it is in service, passes its health check, works as far as is known, and has this model for one of these
    /// kinds of call. Changes only with what is found out, not with time.
    pub fn serves(&self, model: &str, mut kinds: impl Iterator<Item = CallKind>) -> bool {
        let (_, _, health) = self.record.state();
        !self.is_drained()
            && health != Health::Ill
            && !self.record.breaker().shut().is_some_and(|shut| shut.whose == Whose::Everybody)
            && kinds.any(|kind| !self.absent.lacks(model, kind))
    }

    /// Whether the health check passes, or has never been asked. A server that we start is loading until it first answers,
    /// which is no outage.
    pub fn passes_health_check(&self) -> bool {
        self.record.pulse.health() != Health::Ill || (self.config.kind.is_ours && !self.record.pulse.was_well())
    }

    /// Whether it answered another account in the last half minute.
    pub fn answers_others(&self, asker: Asker) -> bool {
        self.record.breaker().answers_others(asker.account, Instant::now())
    }

    /// Whether it answered anybody in the last half minute.
    pub fn answered_lately(&self) -> bool {
        self.record.breaker().answered_lately(Instant::now())
    }

    /// The replica at this moment.
    pub fn status(&self) -> ReplicaStatus {
        let (breaker, trouble, health) = self.record.state();
        ReplicaStatus {
            name: self.config.name.clone(),
            kind: self.config.kind,
            slots: self.config.slots,
            outstanding: self.outstanding(),
            breaker,
            trouble,
            health,
        }
    }

    /// Sends a call. Returns with the whole answer, or with a stream once its first event has come.
    ///
    /// Nothing of an answer has reached anybody when this fails, so the call may be made again elsewhere. Dropping
    /// the future, or the stream, closes the connection and thereby cancels the work.
    pub async fn call(&self, call: Call<'_>) -> Result<Answer, CallError> {
        if let Some(speech) = &call.speech {
            // Boxed: other calls need no room for it.
            return Box::pin(self.speak(&call, speech)).await.map(|sound| Answer::Sound(Box::new(sound)));
        }
        if let Some(native) = call.native {
            return self.send(&call, || Reader::Native(native.events())).await;
        }
        if let (Wanted::Pictures(wanted), Some(workflow)) = (call.wanted, &self.config.workflow) {
            let given = Box::pin(self.draw(&call, (workflow, wanted))).await?;
            return Ok(Answer::Pictures(Box::new(given)));
        }
        let hides = counts_all_along(&call, self.kind()) && !call.continuous_usage;
        let relay = || Relay::new(&call.public_id, call.public_model, call.include_usage);
        let relay = || relay().hiding_counts(hides).in_tier(call.tier);
        self.send(&call, || Reader::PassOn(Box::new(relay()))).await
    }

    /// Sends a call whose answer is streamed here and put together. Returns once the first event has come.
    ///
    /// The call must say `stream`, and its body must be one whose streams say as much as a whole answer.
    pub async fn assemble(&self, call: Call<'_>) -> Result<Assembly, CallError> {
        let answer = || Assembler::new(call.kind, &call.public_id, call.public_model, MAX_ANSWER_BYTES);
        match self.send(&call, || Reader::Assemble(Box::new(answer()))).await? {
            Answer::Events(events) => Ok(Assembly::new(*events)),
            Answer::Whole { .. } | Answer::Sound(_) | Answer::Pictures(_) => {
                Err(CallError::other_replica(CallErrorKind::BadAnswer))
            }
        }
    }

    async fn send(&self, call: &Call<'_>, reader: impl Fn() -> Reader) -> Result<Answer, CallError> {
        let started = Instant::now();
        let middle = Middle::of(call, self.kind())?;
        check_pictured(call, self.kind())?;
        let mut lease = Lease::take(&self.record, call.asker, started)?;
        let mut tries = self.lessons.tries(call, &self.config);
        let failed = loop {
            let reply = match self.splits(call) {
                // Boxed: nearly no call is split.
                Some(split) => Box::pin(self.in_parts(call, split, &mut tries)).await,
                None => self.exchange((call, &middle), &mut tries, started).await,
            };
            match reply {
                Ok(Reply::Whole(answer)) => {
                    lease.succeeded();
                    self.served(call, &tries);
                    return Ok(answer);
                }
                Ok(Reply::Head(response)) => {
                    let (idle, deadline) = (self.config.idle_timeout, started + self.config.first_byte_timeout);
                    let native = if middle.is_infill {
                        Native::Infill { created: call.created }
                    } else if call.kind.hears() {
                        Native::Transcript
                    } else {
                        Native::None
                    };
                    let told = (call, native, self.counts_one_of(call));
                    let feed = Feed::open(response.into_body(), told, reader(), idle, deadline);
                    // Boxed: whole answers, which are most, need no room for it in their futures.
                    match Box::pin(feed).await {
                        Ok((feed, first)) => {
                            self.served(call, &tries);
                            return Ok(Answer::Events(Box::new(Events::new(feed, first, lease))));
                        }
                        Err(Unanswered::Said(said)) if tries.again_after(call, &said) => {}
                        Err(none) => {
                            break CallError::from(none).renamed(call);
                        }
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
            // A 501 may be about one request: it goes elsewhere, and says nothing about the next. A server without a whole
            // protocol has it for none.
            && (error.kind != CallErrorKind::Status(501) || call.native.is_some())
            && self.absent.refused(call.public_model, call.kind, Instant::now())
        {
            let (upstream, model, call) = (self.name(), call.public_model, call.kind.name());
            warn!(upstream, model, call, error = %error.kind, "upstream {upstream} does not serve {call} of {model}");
            self.record.meters.model_missing.set(1.0);
        }
    }

    fn served(&self, call: &Call<'_>, tries: &Tries) {
        self.lessons.note(call, tries, &self.config.name);
        self.has_it(call);
    }

    /// That it has what it was asked for is told where it did not before.
    fn has_it(&self, call: &Call<'_>) {
        if self.absent.answered(call.public_model, call.kind) {
            let (upstream, model, call) = (self.name(), call.public_model, call.kind.name());
            info!(upstream, model, call, "upstream {upstream} serves {call} of {model} again");
            self.record.meters.model_missing.set(if self.absent.any() { 1.0 } else { 0.0 });
        }
    }

    /// After a change of the configuration, what was absent may be there, or asked for no more.
    pub(crate) fn forget_absent(&self) {
        self.absent.forget();
        self.record.meters.model_missing.set(0.0);
    }

    /// Sends a call, again without what is refused, up to the whole answer or a stream's head.
    async fn exchange(
        &self,
        (call, middle): (&Call<'_>, &Middle),
        tries: &mut Tries,
        started: Instant,
    ) -> Result<Reply, CallError> {
        loop {
            let response = self.sent(self.request(call, tries.manner, middle), started).await?;
            if !response.status().is_success() {
                let refusal = Box::pin(self.refusal(response)).await;
                if middle.is_infill && refusal.kind == CallErrorKind::Status(NO_MARKS) {
                    return Err(CallError::unfit(no_middle()));
                }
                if tries.again(call, &refusal) {
                    continue;
                }
                return Err(refusal.renamed(call));
            }
            if call.stream && call.kind.tells_events() {
                return Ok(Reply::Head(response));
            }
            match self.whole((call, middle), response).await {
                Ok(answer) => return Ok(Reply::Whole(answer)),
                Err(Unanswered::Said(said)) if tries.again_after(call, &said) => {}
                Err(none) => {
                    return Err(CallError::from(none).renamed(call));
                }
            }
        }
    }

    async fn whole(
        &self,
        (call, middle): (&Call<'_>, &Middle),
        response: Response<AnswerBody>,
    ) -> Result<Answer, Unanswered> {
        let mut body = collect(response.into_body(), MAX_ANSWER_BYTES, self.config.idle_timeout).await?;
        if middle.is_infill {
            body = infill_as_completion(&body, call.created);
        }
        if let Wanted::Pictures(Pictures { most, .. }) = call.wanted {
            return match read_pictures(&body, most) {
                Ok(given) => Ok(Answer::Pictures(Box::new(given))),
                Err(AnswerError::Refused(said)) => Err(Unanswered::Said(said)),
                Err(AnswerError::NotAnAnswer) => Err(CallError::other_replica(CallErrorKind::BadAnswer).into()),
            };
        }
        let read = match call.native {
            Some(native) => native.read(&body),
            None => read_wanted(&body, (&call.public_id, call.public_model), (call.wanted, &call.body)),
        };
        let WholeAnswer { body, usage, text_bytes } = match read {
            Ok(answer) => answer,
            Err(AnswerError::Refused(said)) => return Err(Unanswered::Said(said)),
            Err(AnswerError::NotAnAnswer)
                if call.kind.generates() && call.native.is_none() && mixed::is_events(&body) =>
            {
                mixed::put_together(body, call)?
            }
            Err(AnswerError::NotAnAnswer) => return Err(CallError::other_replica(CallErrorKind::BadAnswer).into()),
        };
        let (usage, text_bytes) = match self.counts_one_of(call) {
            Some(prompts) => (usage.map(|usage| usage.of_one_answer(prompts)), answer_bytes(&body)),
            None => (usage, text_bytes),
        };
        Ok(Answer::Whole { status: StatusCode::OK, body, usage, text_bytes })
    }

    /// How many prompts a call has of whose answers, of which there are several, the server counts one.
    fn counts_one_of(&self, call: &Call<'_>) -> Option<u32> {
        if !(self.kind().counts_one_answer && call.kind.generates() && call.answers > 1) || call.native.is_some() {
            return None;
        }
        // It was read before.
        Some(peek(call.kind, &call.body).map_or(2, |peeked| peeked.bound.items.max(1)))
    }

    /// Sends a call once; returns with the head of its answer.
    async fn sent(&self, request: Request<SentBody>, started: Instant) -> Result<Response<AnswerBody>, CallError> {
        let sent = self.transport.send(request, started);
        let timed_out = |_| CallError::other_replica(CallErrorKind::Timeout);
        let deadline = started + self.config.first_byte_timeout;
        let response = timeout_at(deadline, sent).await.map_err(timed_out)?.map_err(unsent)?;
        self.record.meters.first_byte(started.elapsed());
        Ok(response)
    }

    async fn refusal(&self, response: Response<AnswerBody>) -> CallError {
        let (head, body) = response.into_parts();
        // A refusal is one even when its text cannot be read.
        let text = collect(body, MAX_REFUSAL_BYTES, self.config.idle_timeout).await.unwrap_or_default();
        CallError::refused(head.status, &head.headers, &text)
    }

    fn request(&self, call: &Call<'_>, manner: Manner, middle: &Middle) -> Request<SentBody> {
        let body = request_body(call, &self.config, manner, middle);
        let (body, content_type) = sent(call, body);
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = if middle.is_infill { self.targets.infill.clone() } else { self.targets.call(call.kind) };
        self.set_headers(request.headers_mut(), call, content_type);
        request
    }

    fn set_headers(&self, headers: &mut HeaderMap, call: &Call<'_>, content_type: HeaderValue) {
        headers.reserve(CALL_HEADERS);
        headers.insert(header::CONTENT_TYPE, content_type);
        headers.insert(header::ACCEPT_ENCODING, PLAIN);
        if let Ok(id) = HeaderValue::try_from(call.request_id.as_str()) {
            headers.insert(X_REQUEST_ID, id);
        }
        if let Some(authorization) = &self.authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
    }
}

/// The body as it is sent, and its content type.
fn sent(call: &Call<'_>, body: Bytes) -> (SentBody, HeaderValue) {
    const JSON: HeaderValue = HeaderValue::from_static("application/json");
    if call.uploads.is_empty() {
        return (SentBody::of(body), JSON);
    }
    // A client learns the request's id with the answer: its file cannot have it in it on purpose.
    let boundary = format!("batchin-{}", call.request_id);
    match HeaderValue::try_from(format!("multipart/form-data; boundary={boundary}")) {
        Ok(content_type) => (SentBody::form(&body, &call.uploads, &boundary), content_type),
        // Ids have nothing in them that a header may not have.
        Err(_) => (SentBody::of(body), JSON),
    }
}

enum Reply {
    Whole(Answer),
    Head(Response<AnswerBody>),
}

fn unsent(error: SendError) -> CallError {
    CallError::other_replica(match error {
        SendError::Connect(kind) => CallErrorKind::Connect(kind),
        SendError::Broken => CallErrorKind::Reset,
    })
}
