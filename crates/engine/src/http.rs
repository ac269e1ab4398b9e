//! Holds: the OpenAI protocol on the engine's socket: routes, and the models behind them.
//!
//! There is no authentication: the socket's file permissions are the fence, and the gateway the only client.

mod answer;
mod body;
mod cancel;
mod embeddings;
mod error;
mod generation;
mod messages;
mod sampling;
mod speech;
mod stream;
mod tools;

use std::{
    convert::Infallible,
    sync::{Arc, atomic::AtomicU64, atomic::Ordering::Relaxed},
};

use batchin_domain::CallKind;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use llama_cpp_2::model::LlamaModel;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use self::error::ApiError;
use crate::{
    embed::EmbedJob,
    generate::Queue,
    metrics::{self, ModelMetrics},
    speech::ServedVoice,
    text::chat_template::ChatTemplate,
};

/// The body of every answer.
pub(crate) type AnswerBody = UnsyncBoxBody<Bytes, BrokenOff>;

/// An answer that cannot be brought to its end and has no other way to say so: the connection is closed.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off")]
pub(crate) struct BrokenOff;

/// A model that answers requests.
pub(crate) struct ServedModel {
    pub(crate) id: String,
    pub(crate) model: Arc<LlamaModel>,
    pub(crate) metrics: Arc<ModelMetrics>,
    /// Tokens that one request may have, prompt and answer together.
    pub(crate) context_limit: usize,
    /// Seconds since 1970 when it was loaded.
    pub(crate) loaded_at: i64,
    pub(crate) role: Role,
}

/// What a served model does.
pub(crate) enum Role {
    Generate { queue: Arc<Queue>, template: Option<Box<ChatTemplate>>, slots: usize },
    Embed { jobs: std::sync::mpsc::SyncSender<EmbedJob> },
}

/// Everything the routes need.
pub(crate) struct Service {
    models: Vec<ServedModel>,
    voices: Vec<ServedVoice>,
    /// A place for each text that may be said at the same time.
    speaking: Arc<Semaphore>,
    speech_limit: usize,
    next_sequence: AtomicU64,
}

impl Service {
    pub(crate) fn new(models: Vec<ServedModel>, voices: Vec<ServedVoice>, speech_limit: usize) -> Self {
        let speaking = Arc::new(Semaphore::new(speech_limit.min(Semaphore::MAX_PERMITS)));
        Self { models, voices, speaking, speech_limit, next_sequence: AtomicU64::new(0) }
    }

    /// Ends the models' threads.
    pub(crate) fn close(&self) {
        for model in &self.models {
            if let Role::Generate { queue, .. } = &model.role {
                queue.close();
            }
        }
    }

    /// Answers one request.
    pub(crate) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<AnswerBody>, Infallible> {
        Ok(self.route(request).await.unwrap_or_else(ApiError::into_response))
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Response<AnswerBody>, ApiError> {
        let path = request.uri().path();
        if path == speech::PATH {
            let is_post = request.method() == Method::POST;
            return if is_post { speech::speak(self, request).await } else { Err(ApiError::method_not_allowed()) };
        }
        if let Some(call) = CallKind::asked().find(|call| call.path() == path) {
            if request.method() != Method::POST {
                return Err(ApiError::method_not_allowed());
            }
            return match call.asks() {
                CallKind::Chat | CallKind::Responses | CallKind::Messages => generation::chat(self, request).await,
                CallKind::Completions | CallKind::Fim => generation::completion(self, request).await,
                CallKind::Embeddings => embeddings::embed(self, request).await,
                // No model that it loads ranks documents.
                CallKind::Rerank
                | CallKind::Speech
                | CallKind::Transcriptions
                | CallKind::Translations
                | CallKind::Images
                | CallKind::ImageEdits
                | CallKind::Video => Err(ApiError::not_found()),
            };
        }
        let answer: fn(&Self) -> Response<AnswerBody> = match path {
            "/v1/models" => |service| json_response(&service.list_models()),
            "/health" => |_| json_response(&json!({"status": "ok"})),
            "/load" => |service| json_response(&service.load()),
            "/metrics" => Self::metrics,
            _ => return Err(ApiError::not_found()),
        };
        if request.method() == Method::GET { Ok(answer(self)) } else { Err(ApiError::method_not_allowed()) }
    }

    /// The model with this id that `fits`.
    fn find(&self, id: Option<&str>, fits: fn(&Role) -> bool) -> Result<&ServedModel, ApiError> {
        let id = id.ok_or_else(|| ApiError::invalid("model", "`model` is required."))?;
        self.models.iter().find(|model| model.id == id && fits(&model.role)).ok_or_else(|| {
            let served: Vec<&str> =
                self.models.iter().filter(|model| fits(&model.role)).map(|model| model.id.as_str()).collect();
            ApiError::model_not_found(&id.chars().take(128).collect::<String>(), &served.join(", "))
        })
    }

    /// The voice with this id.
    fn find_voice(&self, id: Option<&str>) -> Result<&ServedVoice, ApiError> {
        let id = id.ok_or_else(|| ApiError::invalid("model", "`model` is required."))?;
        self.voices.iter().find(|voice| voice.id == id).ok_or_else(|| {
            let served: Vec<&str> = self.voices.iter().map(|voice| voice.id.as_str()).collect();
            ApiError::model_not_found(&id.chars().take(128).collect::<String>(), &served.join(", "))
        })
    }

    fn list_models(&self) -> Value {
        let models = self.models.iter().map(ServedModel::describe);
        let data: Vec<Value> = models.chain(self.voices.iter().map(ServedVoice::describe)).collect();
        json!({"object": "list", "data": data})
    }

    /// What the scheduler asks: how many slots there are, how many work, and how many requests wait. Voices share places of
    /// their own and stand beside the sums.
    fn load(&self) -> Value {
        let models: Vec<(u64, u64, u64, Value)> = self.models.iter().map(ServedModel::load).collect();
        let voices = self.voices.iter().map(|voice| voice.load(self.speech_limit));
        let total = |pick: fn(&(u64, u64, u64, Value)) -> u64| models.iter().map(pick).sum::<u64>();
        json!({
            "slots": {"total": total(|m| m.0), "busy": total(|m| m.1)},
            "waiting": total(|m| m.2),
            "models": models.iter().map(|m| m.3.clone()).chain(voices).collect::<Vec<_>>(),
        })
    }

    fn metrics(&self) -> Response<AnswerBody> {
        let models = self.models.iter().map(|model| (model.id.as_str(), model.metrics.as_ref()));
        let voices = self.voices.iter().map(|voice| (voice.id.as_str(), voice.metrics.as_ref()));
        let mut response = Response::new(full(metrics::exposition(models.chain(voices))));
        let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }

    fn next_sequence_id(&self) -> u64 {
        self.next_sequence.fetch_add(1, Relaxed)
    }
}

impl ServedModel {
    fn describe(&self) -> Value {
        let template = match &self.role {
            Role::Generate { template, .. } => template.as_ref(),
            Role::Embed { .. } => None,
        };
        let serves = |call: &CallKind| match (call, &self.role) {
            (CallKind::Chat | CallKind::Responses | CallKind::Messages, _) => template.is_some(),
            (CallKind::Completions | CallKind::Fim, role) => matches!(role, Role::Generate { .. }),
            (CallKind::Embeddings, role) => matches!(role, Role::Embed { .. }),
            (
                CallKind::Rerank
                | CallKind::Speech
                | CallKind::Transcriptions
                | CallKind::Translations
                | CallKind::Images
                | CallKind::ImageEdits
                | CallKind::Video,
                _,
            ) => false,
        };
        let served = CallKind::asked().filter(serves).map(|call| call.needs().name());
        let tools = template.filter(|template| template.takes_tools()).map(|_| "tools");
        let capabilities: Vec<&str> = served.chain(tools).collect();
        json!({
            "id": self.id,
            "object": "model",
            "created": self.loaded_at,
            "owned_by": "batchin",
            "context_length": self.context_limit,
            "capabilities": capabilities,
            "parameters": self.model.n_params(),
        })
    }

    fn load(&self) -> (u64, u64, u64, Value) {
        let busy = self.metrics.processing.load(Relaxed);
        let (total, waiting) = match &self.role {
            Role::Generate { queue, slots, .. } => (*slots as u64, queue.waiting() as u64),
            Role::Embed { .. } => (1, 0),
        };
        let value = json!({"id": self.id, "slots": {"total": total, "busy": busy}, "waiting": waiting});
        (total, busy, waiting, value)
    }
}

impl ServedVoice {
    fn describe(&self) -> Value {
        json!({
            "id": self.id,
            "object": "model",
            "created": self.loaded_at,
            "owned_by": "batchin",
            "capabilities": ["speech"],
            "voices": self.voice.names(),
        })
    }

    fn load(&self, limit: usize) -> Value {
        let busy = self.metrics.processing.load(Relaxed);
        json!({"id": self.id, "slots": {"total": limit, "busy": busy}, "waiting": 0})
    }
}

/// A whole body.
fn full(text: String) -> AnswerBody {
    Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync()
}

fn json_response(value: &Value) -> Response<AnswerBody> {
    let mut response = Response::new(full(value.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
