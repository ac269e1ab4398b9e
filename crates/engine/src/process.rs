//! Holds: the engine's process: loads the models, serves the socket, and ends in good order.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, mpsc as std_mpsc},
    thread,
    time::Duration,
};

use batchin_tasks::Tasks;
use batchin_voices::Voice;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use llama_cpp_2::{
    LlamaContextLoadError, LlamaCppError, LlamaModelLoadError, LogOptions,
    llama_backend::LlamaBackend,
    model::{LlamaModel, params::LlamaModelParams},
    send_logs_to_tracing,
};
use tokio::{
    net::{UnixListener, UnixStream},
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    embed::{self, EmbedWorker},
    generate::{Queue, Worker, WorkerSettings},
    http::{Role, ServedModel, Service},
    instruction_sets, native,
    options::{EngineOptions, ModelKind, ModelOptions},
    speech::{self, ServedVoice},
    text::chat_template::ChatTemplate,
};

/// How long answers in progress may take to finish after SIGTERM.
const DRAIN: Duration = Duration::from_secs(20);

/// A client that has connected must send its request's head within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Embedding requests that may wait.
const EMBED_QUEUE: usize = 256;

/// After a connection that could not be accepted: out of file descriptors, most likely; at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why the engine could not start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No models were given.
    #[error("the engine needs at least one model")]
    NoModels,
    /// Two models have the same id.
    #[error("the model id `{id}` is given twice")]
    DuplicateModel {
        /// The id.
        id: String,
    },
    /// llama.cpp could not be initialised.
    #[error("llama.cpp could not be initialised")]
    Backend(#[source] LlamaCppError),
    /// A model's file could not be loaded.
    #[error("model `{id}` could not be loaded from {path}")]
    Load {
        /// The model's id.
        id: String,
        /// Its file.
        path: PathBuf,
        /// What llama.cpp said.
        #[source]
        source: LlamaModelLoadError,
    },
    /// A model's context could not be made, most often for lack of memory.
    #[error("no context could be made for model `{id}`")]
    Context {
        /// The model's id.
        id: String,
        /// What llama.cpp said.
        #[source]
        source: LlamaContextLoadError,
    },
    /// A thread or the runtime could not be started.
    #[error("the engine could not start its threads")]
    Threads(#[source] io::Error),
    /// The socket could not be opened.
    #[error("the socket {path} could not be opened")]
    Socket {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A model's thread ended although nobody asked it to.
    #[error("the thread of a model ended unexpectedly")]
    WorkerDied,
}

/// Runs an engine until SIGTERM, SIGINT or, with `watch_parent`, the end of standard input.
///
/// Blocks. Installs no log subscriber: the caller does, before.
///
/// # Errors
///
/// [`EngineError`] when it cannot start or a model's thread dies.
pub fn run(options: EngineOptions) -> Result<(), EngineError> {
    let watch_parent = options.watch_parent;
    let stop = CancellationToken::new();
    let abort = CancellationToken::new();
    if watch_parent {
        let abort = abort.clone();
        spawn_thread("parent-watch", move || {
            // Whatever the parent might send, only the end means something.
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            abort.cancel();
        })?;
    }
    serve(options, Stop { drain: stop, abort, on_signals: true })
}

/// Runs an engine inside another process until `stop`; then drains. Signals and standard input are left alone.
///
/// # Errors
///
/// As [`run`].
pub fn run_until(options: EngineOptions, stop: CancellationToken) -> Result<(), EngineError> {
    serve(options, Stop { drain: stop, abort: CancellationToken::new(), on_signals: false })
}

/// How the process may be ended.
struct Stop {
    drain: CancellationToken,
    abort: CancellationToken,
    on_signals: bool,
}

fn serve(options: EngineOptions, stop: Stop) -> Result<(), EngineError> {
    send_logs_to_tracing(LogOptions::default());
    let backend = Arc::new(LlamaBackend::init().map_err(EngineError::Backend)?);
    instruction_sets::report(&native::system_info());
    #[cfg(kernels)]
    if let Some(level) = crate::kernels::install() {
        info!("products with Q8_0 weights and attention run on the engine's own kernels for {}", level.name());
    }
    let died = CancellationToken::new();
    let mut served: Vec<ServedModel> = Vec::with_capacity(options.models.len());
    let mut voices: Vec<ServedVoice> = Vec::new();
    let mut threads = Vec::with_capacity(options.models.len());
    let compute_threads = options.threads.unwrap_or_else(default_threads);
    for model in &options.models {
        let mut taken = served.iter().map(|other| &other.id).chain(voices.iter().map(|other| &other.id));
        if taken.any(|id| *id == model.id) {
            return Err(EngineError::DuplicateModel { id: model.id.clone() });
        }
        if let Some(loaded) = speech::load(model) {
            voices.extend(served_voice(&model.id, loaded));
            continue;
        }
        let loader = Loader {
            backend: &backend,
            threads: i32::try_from(compute_threads).unwrap_or(1),
            waiting_limit: options.waiting_limit,
            died: &died,
        };
        let (model, thread) = loader.load(model)?;
        served.push(model);
        threads.push(thread);
    }
    if options.models.is_empty() {
        return Err(EngineError::NoModels);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(EngineError::Threads)?;
    let service = Arc::new(Service::new(served, voices, options.speech_limit));
    let outcome = runtime.block_on(listen(&options.socket, service.clone(), &stop, &died));
    service.close();
    drop(runtime);
    drop(service);
    for thread in threads {
        // A panic has been reported by the hook already, and the outcome says so.
        let _ = thread.join();
    }
    // The file may be gone with its directory.
    let _ = std::fs::remove_file(&options.socket);
    outcome
}

/// A voice that cannot speak here, for want of espeak-ng or of its files, is left out: no other model needs it.
fn served_voice(id: &str, loaded: Result<Voice, Box<dyn std::error::Error>>) -> Option<ServedVoice> {
    match loaded {
        Ok(voice) => {
            info!(model = id, "voice {id} is loaded");
            let loaded_at = jiff::Timestamp::now().as_second();
            Some(ServedVoice { id: id.to_owned(), voice: Arc::new(voice), metrics: Arc::default(), loaded_at })
        }
        Err(error) => {
            warn!(model = id, cause = error.source(), "voice {id} is not served: {error}");
            None
        }
    }
}

/// Two threads of one core share its arithmetic units, so one each is best.
fn default_threads() -> usize {
    let logical = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    physical_cores().map_or(logical, |cores| cores.min(logical)).max(1)
}

/// Distinct cores as Linux lists them; `None` where it does not say.
fn physical_cores() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let (mut package, mut cores) = ("", std::collections::HashSet::new());
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        match key.trim() {
            "physical id" => package = value,
            "core id" => drop(cores.insert((package, value))),
            _ => {}
        }
    }
    (!cores.is_empty()).then_some(cores.len())
}

fn spawn_thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<thread::JoinHandle<()>, EngineError> {
    thread::Builder::new().name(name.to_owned()).spawn(work).map_err(EngineError::Threads)
}

struct Loader<'a> {
    backend: &'a Arc<LlamaBackend>,
    threads: i32,
    waiting_limit: usize,
    died: &'a CancellationToken,
}

impl Loader<'_> {
    /// A model that generates or embeds.
    fn load(&self, options: &ModelOptions) -> Result<(ServedModel, thread::JoinHandle<()>), EngineError> {
        let id = options.id.clone();
        let load_error = |source| EngineError::Load { id: id.clone(), path: options.path.clone(), source };
        let model = LlamaModel::load_from_file(self.backend, &options.path, &LlamaModelParams::default());
        let model = Arc::new(model.map_err(load_error)?);
        let metrics = Arc::default();
        let trained = usize::try_from(model.n_ctx_train()).unwrap_or(usize::MAX);
        let (ready, is_ready) = std_mpsc::sync_channel(1);
        let ready = move |made| drop(ready.send(made));
        let died = self.died.clone().drop_guard();
        let backend = self.backend.clone();
        let (role, context_limit, thread) = if options.kind == ModelKind::Generate {
            let queue = Arc::new(Queue::new(self.waiting_limit));
            let settings = WorkerSettings {
                context_tokens: options.context_tokens,
                slots: options.slots.clamp(1, 64),
                threads: self.threads,
            };
            let worker =
                Worker { backend, model: model.clone(), queue: queue.clone(), metrics: Arc::clone(&metrics), settings };
            let thread = spawn_thread(&id, move || {
                let _died = died;
                worker.run(ready);
            })?;
            let template = chat_template(&id, &model).map(Box::new);
            let role = Role::Generate { queue, template, slots: settings.slots };
            (role, trained.min(options.context_tokens as usize), thread)
        } else {
            let (jobs, inbox) = std_mpsc::sync_channel(EMBED_QUEUE);
            let threads = self.threads;
            let worker =
                EmbedWorker { backend, model: model.clone(), jobs: inbox, metrics: Arc::clone(&metrics), threads };
            let thread = spawn_thread(&id, move || {
                let _died = died;
                worker.run(ready);
            })?;
            (Role::Embed { jobs }, trained.min(embed::PASS_TOKENS), thread)
        };
        is_ready
            .recv()
            .map_err(|_| EngineError::WorkerDied)?
            .map_err(|source| EngineError::Context { id: id.clone(), source })?;
        info!(model = id, threads = self.threads, context = context_limit, "model {id} is loaded");
        let loaded_at = jiff::Timestamp::now().as_second();
        Ok((ServedModel { id, model, metrics, context_limit, loaded_at, role }, thread))
    }
}

/// The template that the file carries, if it has one that compiles.
fn chat_template(id: &str, model: &LlamaModel) -> Option<ChatTemplate> {
    let source = model.meta_val_str("tokenizer.chat_template").ok()?;
    let vocab = model.vocab();
    let text = |token| String::from_utf8_lossy(&vocab.token_to_piece(token, true, None)).into_owned();
    let known = |token: llama_cpp_2::token::LlamaToken| if token.0 < 0 { String::new() } else { text(token) };
    match ChatTemplate::new(source, known(vocab.bos()), known(vocab.eos())) {
        Ok(template) => Some(template),
        Err(error) => {
            warn!(model = id, %error, "the chat template of {id} does not compile; it serves completions only");
            None
        }
    }
}

async fn listen(
    socket: &Path,
    service: Arc<Service>,
    stop: &Stop,
    died: &CancellationToken,
) -> Result<(), EngineError> {
    let open_error = |source| EngineError::Socket { path: socket.to_owned(), source };
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(open_error(error)),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(socket).map_err(open_error)?;
    info!(socket = %socket.display(), "engine is ready");
    let mut terminate = signal(SignalKind::terminate()).map_err(EngineError::Threads)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(EngineError::Threads)?;
    let tasks = Tasks::new();
    let patience = loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => serve_connection(&tasks, service.clone(), stream),
                Err(error) => {
                    warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            _ = terminate.recv(), if stop.on_signals => break DRAIN,
            _ = interrupt.recv(), if stop.on_signals => break DRAIN,
            () = stop.drain.cancelled() => break DRAIN,
            () = stop.abort.cancelled() => break Duration::ZERO,
            () = died.cancelled() => return Err(EngineError::WorkerDied),
        }
    };
    drop(listener);
    info!("engine is stopping");
    tokio::select! {
        _ = tasks.shutdown(patience) => Ok(()),
        () = stop.abort.cancelled() => Ok(()),
        () = died.cancelled() => Err(EngineError::WorkerDied),
    }
}

fn serve_connection(tasks: &Tasks, service: Arc<Service>, stream: UnixStream) {
    tasks.spawn("connection", |stop| async move {
        let answer = service_fn(move |request| service.clone().answer(request));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), answer);
        let mut connection = std::pin::pin!(connection);
        // Clients that go away end their connections with errors; that is how they cancel.
        let _ = tokio::select! {
            ended = &mut connection => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
    });
}
