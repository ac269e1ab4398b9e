//! Holds: the sockets of the simulated server, its scripts and what it has seen.
//!
//! A real HTTP/1 server; every connection is a task that ends with the server.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering},
    },
    time::Duration,
};

use batchin_domain::{CallKind, Makes};
use batchin_openai::peek;
use batchin_tasks::Tasks;
use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt, stream};
use http::{Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Notify,
};

use crate::{
    answer::{Events, Job},
    behaviour::{Answer, Behaviour, End, Refusal},
    comfyui::{Shown, Workflows},
    films::{FilmJob, FilmScript, Films, Told, pieces, status_of},
    form::ReceivedForm,
    native::{Talk, model_of},
    pictures::{self, PictureScript},
    received::ReceivedRequest,
    reply::{CutError, SimBody, refusal, respond, whole},
    voice,
};

/// Requests kept for a test to look at; later ones are only counted.
const MAX_RECORDED: usize = 1000;

/// How long a stopping server waits for its connections.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// A running simulated server. It ends when [`stop`](Self::stop) is called or the runtime ends.
#[derive(Debug)]
pub struct SimServer {
    shared: Arc<Shared>,
    address: Option<SocketAddr>,
    tasks: Tasks,
}

#[derive(Debug, Default)]
struct Shared {
    /// std mutex: held for look-ups, never across an await.
    script: Mutex<Script>,
    records: bool,
    health: AtomicU16,
    calls: AtomicU64,
    connections: AtomicU64,
    aborted: AtomicU64,
    changed: Notify,
    films: Films,
    /// Whether it has the Responses and the Messages protocol.
    speaks_natively: AtomicBool,
    workflows: Workflows,
}

#[derive(Debug, Default)]
struct Script {
    next: VecDeque<Behaviour>,
    by_model: HashMap<String, Behaviour>,
    by_text: Vec<(String, Behaviour)>,
    default: Behaviour,
    pictures: PictureScript,
    received: Vec<ReceivedRequest>,
}

impl SimServer {
    /// Listens on a free port of the loopback address.
    pub async fn start() -> std::io::Result<Self> {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Listens on this address and keeps requests for tests.
    pub async fn start_on(address: SocketAddr) -> std::io::Result<Self> {
        Self::listen(address, true).await
    }

    /// Listens on this address and keeps nothing, for benchmarks.
    pub async fn start_unrecorded(address: SocketAddr) -> std::io::Result<Self> {
        Self::listen(address, false).await
    }

    /// Listens on a Unix socket, which must not exist yet.
    pub async fn start_unix(path: &Path) -> std::io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        let (server, tasks) = (Self::new(None, true), Tasks::new());
        server.tasks.spawn("sim", |stop| {
            let (shared, connections) = (Arc::clone(&server.shared), tasks);
            async move {
                while let Some(Ok((socket, _))) = stop.run_until_cancelled(listener.accept()).await {
                    serve(&connections, &shared, socket);
                }
                connections.shutdown(Duration::ZERO).await;
            }
        });
        Ok(server)
    }

    async fn listen(address: SocketAddr, records: bool) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let (server, tasks) = (Self::new(Some(listener.local_addr()?), records), Tasks::new());
        server.tasks.spawn("sim", |stop| {
            let (shared, connections) = (Arc::clone(&server.shared), tasks);
            async move {
                while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
                    let Ok((socket, _)) = accepted else { continue };
                    if socket.set_nodelay(true).is_ok() {
                        serve(&connections, &shared, socket);
                    }
                }
                connections.shutdown(Duration::ZERO).await;
            }
        });
        Ok(server)
    }

    fn new(address: Option<SocketAddr>, records: bool) -> Self {
        let shared = Shared { records, health: AtomicU16::new(200), ..Shared::default() };
        Self { shared: Arc::new(shared), address, tasks: Tasks::new() }
    }

    /// `http://HOST:PORT/v1`; empty for a Unix socket.
    pub fn base_url(&self) -> String {
        self.address.map(|address| format!("http://{address}/v1")).unwrap_or_default()
    }

    /// The address it listens on; `None` for a Unix socket.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// What happens to every request for this model, as the server is asked for it.
    pub fn script(&self, model: &str, behaviour: Behaviour) {
        self.shared.script().by_model.insert(model.to_owned(), behaviour);
    }

    /// What happens to every request whose body has this text in it, whatever its model; the first such script counts.
    pub fn script_text(&self, text: &str, behaviour: Behaviour) {
        self.shared.script().by_text.push((text.to_owned(), behaviour));
    }

    /// What happens to every request without a script of its own.
    pub fn script_all(&self, behaviour: Behaviour) {
        self.shared.script().default = behaviour;
    }

    /// What happens to the next request, before any other script; several calls line up.
    pub fn queue(&self, behaviour: Behaviour) {
        self.shared.script().next.push_back(behaviour);
    }

    /// Whether it has the Responses and the Messages protocol itself; it does not unless it is told.
    pub fn speak_natively(&self, speaks: bool) {
        self.shared.speaks_natively.store(speaks, Ordering::Relaxed);
    }

    /// How pictures are given from now on.
    pub fn script_pictures(&self, script: PictureScript) {
        self.shared.script().pictures = script;
    }

    /// What it is as a ComfyUI.
    pub fn workflows(&self) -> &Workflows {
        &self.shared.workflows
    }

    /// What becomes of films that are asked for from now on.
    pub fn script_films(&self, script: FilmScript) {
        self.shared.films.script(script);
    }

    /// Knows nothing of any film any more, as after a restart.
    pub fn forget_films(&self) {
        self.shared.films.forget();
    }

    /// Is done with every film that was asked for.
    pub fn finish_films(&self) {
        self.shared.films.finish();
    }

    /// Every film that was asked for.
    pub fn films(&self) -> Vec<FilmJob> {
        self.shared.films.jobs()
    }

    /// Waits until so many films have been asked for.
    pub async fn until_films(&self, count: u64) {
        self.shared.until(&self.shared.films.begun, count).await;
    }

    /// Waits until so many of them have been deleted.
    pub async fn until_films_deleted(&self, count: usize) {
        loop {
            let changed = self.shared.changed.notified();
            if self.films().iter().filter(|film| film.deleted).count() >= count {
                return;
            }
            changed.await;
        }
    }

    /// The status that `/health` and its like answer with.
    pub fn set_health(&self, status: u16) {
        self.shared.health.store(status, Ordering::Relaxed);
    }

    /// Inference calls received.
    pub fn calls(&self) -> u64 {
        self.shared.calls.load(Ordering::Acquire)
    }

    /// Inference calls that the client left before their end.
    pub fn aborted(&self) -> u64 {
        self.shared.aborted.load(Ordering::Acquire)
    }

    /// Connections that carried at least one inference call.
    pub fn inference_connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Acquire)
    }

    /// The first thousand inference calls.
    pub fn requests(&self) -> Vec<ReceivedRequest> {
        self.shared.script().received.clone()
    }

    /// Waits until so many calls have been received.
    pub async fn until_calls(&self, count: u64) {
        self.shared.until(&self.shared.calls, count).await;
    }

    /// Waits until clients have left so many calls.
    pub async fn until_aborted(&self, count: u64) {
        self.shared.until(&self.shared.aborted, count).await;
    }

    /// Closes the socket and all connections.
    pub async fn stop(self) {
        self.tasks.shutdown(STOP_PATIENCE).await;
    }
}

impl Shared {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::AcqRel);
        self.changed.notify_waiters();
    }

    async fn until(&self, counter: &AtomicU64, count: u64) {
        loop {
            let changed = self.changed.notified();
            if counter.load(Ordering::Acquire) >= count {
                return;
            }
            changed.await;
        }
    }

    fn behaviour(&self, model: &str, body: &[u8]) -> Behaviour {
        let mut script = self.script();
        if let Some(next) = script.next.pop_front() {
            return next;
        }
        let has = |text: &str| body.windows(text.len()).any(|part| part == text.as_bytes());
        if let Some((_, behaviour)) = script.by_text.iter().find(|(text, _)| has(text)) {
            return behaviour.clone();
        }
        let scripted = script.by_model.get(model).cloned();
        scripted.or_else(|| Behaviour::of_model(model)).unwrap_or_else(|| script.default.clone())
    }

    fn record(&self, request: ReceivedRequest) {
        let mut script = self.script();
        if self.records && script.received.len() < MAX_RECORDED {
            script.received.push(request);
        }
    }
}

/// Notices when a call ends before it is done.
struct Abandon {
    shared: Arc<Shared>,
    done: bool,
}

impl Drop for Abandon {
    fn drop(&mut self) {
        if !self.done {
            self.shared.count(&self.shared.aborted);
        }
    }
}

fn serve(connections: &Tasks, shared: &Arc<Shared>, socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let shared = Arc::clone(shared);
    connections.spawn("sim_connection", |stop| async move {
        let used = AtomicBool::new(false);
        let service = service_fn(|request: Request<Incoming>| {
            let infers = asked_at(&shared, request.uri().path()).is_some();
            if infers && !used.swap(true, Ordering::Relaxed) {
                shared.count(&shared.connections);
            }
            handle(Arc::clone(&shared), request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .pipeline_flush(true)
            .serve_connection(TokioIo::new(socket), service);
        // An error here is the client's leaving or the script's cutting, and both are counted elsewhere.
        stop.run_until_cancelled(connection.map(drop)).await;
    });
}

/// Which call is asked at this path. Protocols beside OpenAI's chats are there where the script says so.
fn asked_at(shared: &Shared, path: &str) -> Option<CallKind> {
    let speaks = shared.speaks_natively.load(Ordering::Relaxed);
    let is_there = |call: &CallKind| !call.is_retold() || (speaks && call.native().is_some());
    let known = CallKind::from_url(path).filter(is_there);
    // CosyVoice's forms.
    known.or_else(|| path.starts_with("/inference_").then_some(CallKind::Speech))
}

async fn handle(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<SimBody>, CutError> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    if path.starts_with("/v1/videos") || path.starts_with("/sdcpp/v1/") {
        let body = body.collect().await.map_err(|_| CutError)?.to_bytes();
        let told = shared.films.answer((&head.method, path), &head.headers, body);
        shared.changed.notify_waiters();
        return Ok(film_told(told));
    }
    let Some(call) = asked_at(&shared, path) else {
        let body = body.collect().await.map_err(|_| CutError)?.to_bytes();
        let shown = shared.workflows.answer(&head.method, &head.uri, &body);
        return Ok(shown.map_or_else(|| housekeeping(&shared, path), workflow_shown));
    };
    let body = body.collect().await.map_err(|_| CutError)?.to_bytes();
    let mut abandon = Abandon { shared: Arc::clone(&shared), done: false };
    let members = match call.hears() || call.shows() {
        true => ReceivedForm::of(&head.headers, body.clone()).await.unwrap_or_default().members(),
        false => body.clone(),
    };
    if shared.records {
        shared.record(ReceivedRequest { path: head.uri.path().to_owned(), headers: head.headers, body: body.clone() });
    }
    shared.count(&shared.calls);
    if call == CallKind::Speech {
        return speak(&shared, head.uri.path(), &body, abandon).await;
    }
    if call.is_retold() {
        return natively(&shared, call, &body, abandon).await;
    }
    let peeked = match peek(call, &members) {
        Ok(peeked) => peeked,
        Err(fault) => {
            abandon.done = true;
            return Ok(refusal(&Refusal::vllm(400, &fault.message)));
        }
    };
    match shared.behaviour(&peeked.model, &body) {
        Behaviour::Answer(answer) => {
            if !answer.first_byte.is_zero() {
                tokio::time::sleep(answer.first_byte).await;
            }
            if call.makes() == Makes::Pictures {
                abandon.done = true;
                let script = shared.script().pictures.clone();
                return Ok(match pictures::answered(&script, &peeked, &members) {
                    Ok(told) => respond("application/json", whole(told.to_string().into())),
                    Err(refused) => refusal(&refused),
                });
            }
            let job = Job { call, peek: &peeked, body: &members, answer: &answer };
            Ok(answered(&job, abandon))
        }
        other => scripted(other, abandon).await,
    }
}

/// An answer in the request's own protocol, as the script for its model says.
async fn natively(
    shared: &Shared,
    call: CallKind,
    body: &[u8],
    mut abandon: Abandon,
) -> Result<Response<SimBody>, CutError> {
    match shared.behaviour(&model_of(body), body) {
        Behaviour::Answer(answer) => {
            if !answer.first_byte.is_zero() {
                tokio::time::sleep(answer.first_byte).await;
            }
            let talk = Talk::new(call, body, &answer);
            if talk.is_streamed() {
                let Events { deltas, end } = talk.events();
                let pieces = deltas.into_iter().chain(end).collect();
                let (gap, end) = (answer.gap, answer.end.clone());
                return Ok(respond("text/event-stream", streamed(Pieces { pieces, gap, end, abandon })));
            }
            abandon.done = true;
            Ok(respond("application/json", whole(talk.whole())))
        }
        other => scripted(other, abandon).await,
    }
}

/// A tone for a text, as the script for its model says.
async fn speak(shared: &Shared, path: &str, body: &[u8], mut abandon: Abandon) -> Result<Response<SimBody>, CutError> {
    let asked: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    match shared.behaviour(asked["model"].as_str().unwrap_or_default(), body) {
        Behaviour::Answer(Answer { first_byte, gap, end, .. }) => {
            if !first_byte.is_zero() {
                tokio::time::sleep(first_byte).await;
            }
            match voice::spoken(path, body) {
                Ok((kind, pieces)) => {
                    let mut response = respond(kind, streamed(Pieces { pieces: pieces.into(), gap, end, abandon }));
                    if kind.is_empty() {
                        response.headers_mut().remove(header::CONTENT_TYPE);
                    }
                    Ok(response)
                }
                Err(refused) => {
                    abandon.done = true;
                    Ok(refusal(&refused))
                }
            }
        }
        other => scripted(other, abandon).await,
    }
}

/// What a script says whatever was asked; an answer is somebody else's.
async fn scripted(behaviour: Behaviour, mut abandon: Abandon) -> Result<Response<SimBody>, CutError> {
    match behaviour {
        Behaviour::Refuse(scripted) => {
            abandon.done = true;
            Ok(refusal(&scripted))
        }
        Behaviour::Drop | Behaviour::Answer(_) => {
            abandon.done = true;
            Err(CutError)
        }
        Behaviour::Raw { content_type, pieces, gap, end } => {
            Ok(respond(content_type, streamed(Pieces { pieces: pieces.into(), gap, end, abandon })))
        }
        Behaviour::Hang => std::future::pending().await,
    }
}

fn film_told(told: Told) -> Response<SimBody> {
    match told {
        Told::Json(status, body) => {
            let mut response = respond("application/json", whole(body.to_string().into()));
            *response.status_mut() = status_of(status);
            response
        }
        Told::Film(padding) => {
            let frames = stream::iter(pieces(padding).map(|piece| Ok(Frame::data(piece))));
            respond("video/mp4", BodyExt::boxed_unsync(StreamBody::new(frames)))
        }
    }
}

fn workflow_shown(shown: Shown) -> Response<SimBody> {
    let empty = |status| {
        let mut response = respond("text/plain", whole(Bytes::new()));
        *response.status_mut() = status_of(status);
        response
    };
    match shown {
        Shown::Json(status, body) => film_told(Told::Json(status, body)),
        Shown::Empty(status) => empty(status),
        Shown::Picture(bytes) => respond("image/png", whole(bytes.into())),
        Shown::Film => film_told(Told::Film(0)),
    }
}

fn answered(job: &Job<'_>, mut abandon: Abandon) -> Response<SimBody> {
    let Answer { gap, end, .. } = job.answer.clone();
    if job.peek.stream {
        let events = job.events();
        let pieces = events.deltas.into_iter().chain(events.end).collect();
        return respond("text/event-stream", streamed(Pieces { pieces, gap, end, abandon }));
    }
    if matches!(end, End::Cut | End::Hang) {
        let whole = job.whole();
        let pieces = [whole.slice(..whole.len() / 2)].into();
        return respond("application/json", streamed(Pieces { pieces, gap, end, abandon }));
    }
    abandon.done = true;
    respond("application/json", whole(job.whole()))
}

fn housekeeping(shared: &Shared, path: &str) -> Response<SimBody> {
    let (content_type, body) = match path {
        "/health" | "/ready" | "/" => ("application/json", "{\"status\":\"ok\"}"),
        "/v1/models" => return listed(shared),
        "/metrics" => ("text/plain", "vllm:num_requests_running 0\nvllm:num_requests_waiting 0\n"),
        _ => return refusal(&Refusal::fast_api(404, "Not Found")),
    };
    well(shared, respond(content_type, whole(Bytes::from_static(body.as_bytes()))))
}

/// The models: `sim`, and those that have a script.
fn listed(shared: &Shared) -> Response<SimBody> {
    let mut names: Vec<String> = shared.script().by_model.keys().cloned().collect();
    names.push("sim".to_owned());
    let model = |id| serde_json::json!({ "id": id, "object": "model", "created": 1, "owned_by": "sim" });
    let data: Vec<_> = names.into_iter().map(model).collect();
    let body = serde_json::json!({ "object": "list", "data": data }).to_string();
    well(shared, respond("application/json", whole(body.into())))
}

/// With the status that the server's health has.
fn well(shared: &Shared, mut response: Response<SimBody>) -> Response<SimBody> {
    if let Ok(status) = StatusCode::from_u16(shared.health.load(Ordering::Relaxed)) {
        *response.status_mut() = status;
    }
    response
}

struct Pieces {
    pieces: VecDeque<Bytes>,
    gap: Duration,
    end: End,
    abandon: Abandon,
}

fn streamed(pieces: Pieces) -> SimBody {
    let frames = frames(pieces).map(|piece| piece.map(Frame::data));
    BodyExt::boxed_unsync(StreamBody::new(frames))
}

fn frames(pieces: Pieces) -> impl Stream<Item = Result<Bytes, CutError>> {
    stream::unfold(pieces, |mut state| async move {
        if !state.gap.is_zero() {
            tokio::time::sleep(state.gap).await;
        }
        let piece = state.pieces.pop_front();
        let last = state.pieces.is_empty();
        state.abandon.done |= last && !matches!(state.end, End::Hang);
        match (piece, &state.end) {
            (Some(piece), _) => Some((Ok(piece), state)),
            (None, End::Hang) => std::future::pending().await,
            (None, End::Cut) => {
                state.end = End::Done;
                // Lets the pieces before it leave, as a broken network would.
                tokio::task::yield_now().await;
                Some((Err(CutError), state))
            }
            (None, _) => None,
        }
    })
}
