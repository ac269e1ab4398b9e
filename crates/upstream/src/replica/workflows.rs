//! Holds: workflows that one ComfyUI runs: pictures for a call, films as jobs.
//!
//! An order stays in the server's queue when its connection closes. So a task follows whoever leaves one, takes it out of
//! the queue, and stops it where it is the one that runs; never another one, which is somebody else's.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use batchin_domain::Frame;
use batchin_openai::{
    GivenPicture, GivenPictures, InvalidRequest, PictureAsked, Pictures, UpstreamError, picture_asked,
};
use batchin_tasks::Tasks;
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tracing::{debug, warn};

use super::{FilmBytes, Replica, X_REQUEST_ID, errands::Errands, unsent};
use crate::{
    call::{Call, MAX_ANSWER_BYTES},
    comfyui::{
        Fault, HISTORY, INTERRUPT, ORDER, Output, Past, QUEUE, Queued, VIEW, order, ordered, past, queued, refused,
    },
    failure::{CallError, CallErrorKind, Retry},
    film::{FilmAsk, FilmState, whole_frames},
    lease::Lease,
    transport::{MAX_REFUSAL_BYTES, collect},
    workflow::{Filling, Mark, Workflow},
};

/// First pause between two looks at an order; grows by half each time, up to [`LOOK_MAX`].
const LOOK: Duration = Duration::from_millis(50);
const LOOK_MAX: Duration = Duration::from_secs(1);
/// Of so many looks at what came of an order, one is at the queue as well: a server that was started again has it nowhere.
/// More would cost it, as each order stands there with its graph.
const LOOKS: u32 = 10;
/// The look that is the first of those.
const FIRST_LOOK_AT_QUEUE: u32 = 4;
/// Most bytes of what a server says of one order, in which its graph stands.
const MAX_PAST_BYTES: usize = 8 * 1024 * 1024;
/// Most bytes of a queue: a thousand orders of usual graphs have less.
const MAX_QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// How long it is tried to stop what nobody waits for.
const LEAVING: Duration = Duration::from_secs(30);

/// What ComfyUI's own nodes have where nobody says a number of steps.
const USUAL_STEPS: u32 = 20;
/// The largest seed: what every reader of JSON takes for the same number.
const MAX_SEED: u64 = (1 << 53) - 1;

/// An order that a server has. Dropped, it is stopped there.
struct Order {
    errands: Errands,
    tasks: Tasks,
    /// `None` once it is over.
    id: Option<String>,
}

impl Order {
    fn ended(mut self) {
        self.id = None;
    }
}

impl Drop for Order {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        // Dropped after its runtime, there is nobody left who could tell.
        if Handle::try_current().is_err() {
            return;
        }
        let errands = self.errands.clone();
        self.tasks.spawn("workflow_left", move |_| async move {
            if !matches!(timeout(LEAVING, stop(&errands, &id)).await, Ok(Ok(()))) {
                debug!("a server could not be told that nobody waits for a workflow");
            }
        });
    }
}

/// Takes an order out of the queue, or stops it where it runs. A server of this year stops what is named alone; an older one
/// stops whatever runs, which may have changed since it was asked.
async fn stop(errands: &Errands, id: &str) -> Result<(), CallError> {
    errands.tell((Method::POST, QUEUE, ""), json!({ "delete": [id] }).to_string().into()).await?;
    let queue = errands.read((QUEUE, ""), MAX_QUEUE_BYTES).await?;
    if queued(id, &queue) == Some(Queued::Runs) {
        errands.tell((Method::POST, INTERRUPT, ""), json!({ "prompt_id": id }).to_string().into()).await?;
    }
    Ok(())
}

impl Replica {
    /// Has pictures made. Returns once all of them are here.
    pub(super) async fn draw(
        &self,
        call: &Call<'_>,
        (workflow, wanted): (&Arc<Workflow>, Pictures),
    ) -> Result<GivenPictures, CallError> {
        let (false, Some(size)) = (call.kind.shows(), wanted.size) else {
            let message = "`image` cannot be changed with this model, which makes pictures of texts alone";
            return Err(CallError::unfit(InvalidRequest::at("image", message)));
        };
        let started = Instant::now();
        let asked = picture_asked(&call.body);
        let seed = self.seed(&asked.seed, &call.request_id)?;
        let mut lease = Lease::take(&self.record, call.asker, started)?;
        match self.drawn((call, workflow), (&asked, seed, (wanted, size)), started).await {
            Ok(given) => {
                self.record.meters.first_byte(started.elapsed());
                lease.succeeded();
                self.has_it(call);
                Ok(given)
            }
            Err(failed) => {
                let failed = failed.renamed(call);
                lease.failed(&failed);
                self.not_served(call, &failed);
                Err(failed)
            }
        }
    }

    async fn drawn(
        &self,
        (call, workflow): (&Call<'_>, &Workflow),
        (asked, seed, (wanted, (width, height))): (&PictureAsked, u64, (Pictures, (u32, u32))),
        started: Instant,
    ) -> Result<GivenPictures, CallError> {
        let deadline = started + self.config.first_byte_timeout;
        let (most, at_once) = (wanted.most as usize, workflow.takes(Mark::Pictures));
        let mut filling = Filling {
            prompt: &asked.prompt,
            negative_prompt: &asked.negative_prompt,
            seed,
            frame: Frame { width, height },
            steps: asked.steps.unwrap_or(USUAL_STEPS),
            pictures: if at_once { wanted.most } else { 1 },
            // A film of one picture.
            frames: 1,
            fps: 1,
            seconds: 1,
        };
        let (mut pictures, mut left) = (Vec::with_capacity(most), MAX_ANSWER_BYTES);
        while pictures.len() < most {
            for file in self.run(workflow, &filling, &call.request_id, deadline).await? {
                if pictures.len() == most {
                    break;
                }
                let bytes = self.file(&file, left, deadline).await?;
                left = left.saturating_sub(bytes.len());
                pictures.push(GivenPicture { bytes, revised_prompt: None });
            }
            if at_once {
                break;
            }
            filling.seed = (filling.seed + 1) & MAX_SEED;
        }
        Ok(GivenPictures { pictures, usage: None })
    }

    /// Runs a workflow to its end; the files that came of it, at least one.
    async fn run(
        &self,
        workflow: &Workflow,
        filling: &Filling<'_>,
        request_id: &str,
        deadline: Instant,
    ) -> Result<Vec<Output>, CallError> {
        let timed_out = |_| CallError::other_replica(CallErrorKind::Timeout);
        let ordered = timeout_at(deadline, self.order((workflow, filling), request_id)).await;
        let order = ordered.map_err(timed_out)??;
        let came = match &order.id {
            Some(id) => timeout_at(deadline, self.come_of(workflow, id)).await.map_err(timed_out)?,
            None => Err(CallError::other_replica(CallErrorKind::BadAnswer)),
        };
        match came? {
            Past::Done(files) => {
                order.ended();
                Ok(files)
            }
            Past::Failed(fault) => {
                order.ended();
                self.tell_fault(&fault);
                Err(CallError::other_replica(CallErrorKind::Workflow))
            }
            // By its operator, or because it was started again.
            Past::Interrupted => {
                order.ended();
                Err(CallError::other_replica(CallErrorKind::Reset))
            }
        }
    }

    /// Waits until something has come of an order. One that the server has nowhere was interrupted.
    async fn come_of(&self, workflow: &Workflow, id: &str) -> Result<Past, CallError> {
        let errands = self.errands();
        let (mut pause, mut looks, mut is_gone) = (LOOK, 0_u32, false);
        loop {
            match errands.read((HISTORY, &format!("/{id}")), MAX_PAST_BYTES).await {
                Ok(said) => match past(workflow, id, &said) {
                    Some(past) => return Ok(past),
                    None if is_gone => return Ok(Past::Interrupted),
                    None => {}
                },
                // While it loads a model, it may answer nobody.
                Err(error) if error.kind == CallErrorKind::Timeout => {}
                Err(error) => return Err(of_server(error)),
            }
            looks += 1;
            if looks % LOOKS == FIRST_LOOK_AT_QUEUE {
                let queue = errands.read((QUEUE, ""), MAX_QUEUE_BYTES).await.map_err(of_server)?;
                is_gone = queued(id, &queue) == Some(Queued::Not);
            }
            if !is_gone {
                sleep_until(Instant::now() + pause).await;
                pause = (pause * 3 / 2).min(LOOK_MAX);
            }
        }
    }

    /// Orders a workflow.
    async fn order(
        &self,
        (workflow, filling): (&Workflow, &Filling<'_>),
        request_id: &str,
    ) -> Result<Order, CallError> {
        let errands = self.errands();
        let id = self.order_id(request_id);
        let body = order(workflow.filled(filling), &id);
        let mut request = errands.request((Method::POST, ORDER, ""), body)?;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Ok(id) = HeaderValue::try_from(request_id) {
            headers.insert(X_REQUEST_ID, id);
        }
        let tasks = self.record.tasks.clone();
        // From here on the server may have it, heard of or not.
        let mut order = Order { errands, tasks, id: Some(id) };
        let sent = self.transport.send(request, Instant::now()).await;
        let (head, body) = sent.map_err(unsent)?.into_parts();
        if head.status.is_success() {
            let said = collect(body, MAX_REFUSAL_BYTES, self.config.idle_timeout).await?;
            // An older server has an id of its own for it.
            order.id = Some(ordered(&said).ok_or_else(|| CallError::other_replica(CallErrorKind::BadAnswer))?);
            return Ok(order);
        }
        order.ended();
        let said = collect(body, MAX_REFUSAL_BYTES, self.config.idle_timeout).await.unwrap_or_default();
        match refused(workflow, &said).filter(|_| head.status == StatusCode::BAD_REQUEST) {
            Some(fault) => {
                self.tell_fault(&fault);
                Err(CallError::other_replica(CallErrorKind::Workflow))
            }
            None => Err(of_server(CallError::refused(head.status, &head.headers, &said))),
        }
    }

    /// A file that came of an order, of at most so many bytes.
    async fn file(&self, file: &Output, most: usize, deadline: Instant) -> Result<Bytes, CallError> {
        let read = async {
            let errands = self.errands();
            errands.read((VIEW, &file.query()), most).await.map_err(of_server)
        };
        timeout_at(deadline, read).await.map_err(|_| CallError::other_replica(CallErrorKind::Timeout))?
    }

    /// Orders a film; returns the id of the order.
    pub(super) async fn order_film(&self, ask: &FilmAsk<'_>, now: Instant) -> Result<String, CallError> {
        let workflow = self.workflow()?;
        let filling = Filling {
            prompt: ask.prompt,
            negative_prompt: "",
            seed: self.seed(&Value::Null, ask.request_id)?,
            frame: ask.frame,
            steps: USUAL_STEPS,
            pictures: 1,
            frames: whole_frames(u64::from(ask.seconds) * u64::from(ask.fps)),
            fps: ask.fps,
            seconds: ask.seconds,
        };
        let deadline = now + self.config.first_byte_timeout;
        let ordered = timeout_at(deadline, self.order((workflow, &filling), ask.request_id)).await;
        let mut order = ordered.map_err(|_| CallError::other_replica(CallErrorKind::Timeout))??;
        self.record.meters.first_byte(now.elapsed());
        // It goes on without us.
        order.id.take().ok_or_else(|| CallError::other_replica(CallErrorKind::BadAnswer))
    }

    /// How an order of a film stands.
    pub(super) async fn ordered_film(&self, id: &str) -> Result<FilmState, CallError> {
        if let Some(state) = self.past_film(id).await? {
            return Ok(state);
        }
        let queue = self.errands().read((QUEUE, ""), MAX_QUEUE_BYTES).await?;
        match queued(id, &queue) {
            Some(Queued::Runs | Queued::Waits) => Ok(FilmState::Running { progress: 0 }),
            // It may have come to its end between the two.
            Some(Queued::Not) => Ok(self.past_film(id).await?.unwrap_or(FilmState::Lost)),
            None => Err(CallError::other_replica(CallErrorKind::BadAnswer)),
        }
    }

    async fn past_film(&self, id: &str) -> Result<Option<FilmState>, CallError> {
        Ok(self.past(id).await?.map(|past| match past {
            Past::Done(_) => FilmState::Done { ms: None },
            Past::Interrupted => FilmState::Lost,
            Past::Failed(fault) => {
                self.tell_fault(&fault);
                let (message, status) = (CallErrorKind::Workflow.to_string(), StatusCode::INTERNAL_SERVER_ERROR);
                let status = Some(status.as_u16());
                FilmState::Failed(Box::new(UpstreamError { message, param: None, code: None, kind: None, status }))
            }
        }))
    }

    /// Fetches the film that came of an order, wherever the server says now that it is.
    pub(super) async fn fetch_film(&self, id: &str) -> Result<Option<FilmBytes>, CallError> {
        let Some(Past::Done(files)) = self.past(id).await? else { return Ok(None) };
        let Some(file) = files.first() else { return Ok(None) };
        let errands = self.errands();
        let response = errands.sent(errands.request((Method::GET, VIEW, &file.query()), Bytes::new())?).await?;
        match response.status() {
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(None),
            status if status.is_success() => Ok(Some(FilmBytes::plain(response.into_body(), self.config.idle_timeout))),
            _ => Err(of_server(Box::pin(self.refusal(response)).await)),
        }
    }

    /// Stops an order, and has the server forget what came of it.
    pub(super) async fn forget_film(&self, id: &str) -> Result<(), CallError> {
        let errands = self.errands();
        stop(&errands, id).await?;
        errands.tell((Method::POST, HISTORY, ""), json!({ "delete": [id] }).to_string().into()).await
    }

    async fn past(&self, id: &str) -> Result<Option<Past>, CallError> {
        let workflow = self.workflow()?;
        let said = self.errands().read((HISTORY, &format!("/{id}")), MAX_PAST_BYTES).await?;
        Ok(past(workflow, id, &said))
    }

    fn workflow(&self) -> Result<&Workflow, CallError> {
        self.config.workflow.as_deref().ok_or_else(|| CallError::other_replica(CallErrorKind::Unfit))
    }

    /// That a server does not run a workflow is its operator's to mend, and no fault of whoever asks.
    fn tell_fault(&self, fault: &Fault) {
        let (upstream, Fault { node, class, word }) = (self.name(), fault);
        let at = if node.is_empty() { String::new() } else { format!(" at node {node} ({class})") };
        warn!(upstream, node, class, cause = word, "upstream {upstream} does not run its workflow{at}: {word}");
    }

    /// What is asked for, or by chance: of an equal graph a server makes nothing new.
    fn seed(&self, asked: &Value, request_id: &str) -> Result<u64, CallError> {
        if asked.is_null() {
            return Ok(self.chance(request_id, 0) & MAX_SEED);
        }
        asked.as_u64().filter(|seed| *seed <= MAX_SEED).ok_or_else(|| {
            let message = format!("`seed` must be a whole number from 0 to {MAX_SEED} with this model");
            CallError::unfit(InvalidRequest::at("seed", message))
        })
    }

    /// An id that no order has had: a UUID of version 4, as the server makes them.
    fn order_id(&self, request_id: &str) -> String {
        let wide = (u128::from(self.chance(request_id, 1)) << 64) | u128::from(self.chance(request_id, 2));
        let id = (wide & !(0xf000 << 64) & !(0xc << 60)) | (0x4000 << 64) | (0x8 << 60);
        let hex = format!("{id:032x}");
        [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
    }

    /// A number by chance: no two requests have one id, and none is asked for twice by one number.
    fn chance(&self, request_id: &str, of: u8) -> u64 {
        let mut hasher = DefaultHasher::new();
        (request_id, self.orders.fetch_add(1, Ordering::Relaxed), of).hash(&mut hasher);
        hasher.finish()
    }
}

/// What a server refuses beside an order is never the request's fault.
fn of_server(error: CallError) -> CallError {
    if error.retry == Retry::Never { CallError::other_replica(CallErrorKind::Workflow) } else { error }
}
