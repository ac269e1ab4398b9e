//! Holds: films as OpenAI's clients know them: the same jobs as below `/v1/video`.

pub(crate) mod content;
pub(crate) mod create;
pub(crate) mod delete;
mod form;
pub(crate) mod list;
pub(crate) mod show;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use batchin_domain::FilmStatus;
use batchin_store::FilmRow;
use http::{HeaderName, HeaderValue};
use serde::Serialize;
use utoipa::ToSchema;

/// When OpenAI's packages look again, in milliseconds.
const POLL_AFTER: (HeaderName, HeaderValue) =
    (HeaderName::from_static("openai-poll-after-ms"), HeaderValue::from_static("1000"));

/// A job that makes a film, as OpenAI tells it.
#[derive(Serialize, ToSchema)]
#[schema(as = OpenAiVideo)]
pub(crate) struct OpenAiVideo {
    #[schema(example = "video_0197f3a000007000800000000000000a")]
    id: String,
    #[schema(example = "video")]
    object: &'static str,
    model: String,
    /// `queued`, `in_progress`, `completed` or `failed`. One that was cancelled has failed, and its error says so.
    #[schema(example = "queued")]
    status: &'static str,
    progress: u32,
    /// Unix seconds.
    created_at: i64,
    /// Unix seconds.
    #[schema(required = true)]
    completed_at: Option<i64>,
    /// Unix seconds.
    #[schema(required = true)]
    expires_at: Option<i64>,
    #[schema(required = true)]
    prompt: Option<String>,
    #[schema(example = "848x480")]
    size: String,
    /// How long it was asked to last, in seconds.
    #[schema(example = "4")]
    seconds: String,
    /// Always null: films are not made of others here.
    #[schema(required = true)]
    remixed_from_video_id: Option<String>,
    #[schema(required = true)]
    error: Option<OpenAiVideoFault>,
}

/// Why there is no film.
#[derive(Serialize, ToSchema)]
pub(crate) struct OpenAiVideoFault {
    code: String,
    message: String,
}

impl From<FilmRow> for OpenAiVideo {
    fn from(row: FilmRow) -> Self {
        let cancelled = || OpenAiVideoFault { code: "cancelled".to_owned(), message: "It was cancelled.".to_owned() };
        let error = row.error.map(|error| OpenAiVideoFault { code: error.code, message: error.message });
        let is_cancelled = row.status == FilmStatus::Cancelled;
        Self {
            id: row.id.to_string(),
            object: "video",
            model: row.order.model,
            status: if is_cancelled { FilmStatus::Failed.name() } else { row.status.name() },
            progress: row.progress,
            created_at: row.created_at.seconds(),
            completed_at: row.finished_at.filter(|_| row.status == FilmStatus::Completed).map(|at| at.seconds()),
            expires_at: row.expires_at.map(|at| at.seconds()),
            prompt: Some(row.order.prompt),
            size: row.order.frame.to_string(),
            seconds: row.order.seconds.to_string(),
            remixed_from_video_id: None,
            error: error.or_else(|| is_cancelled.then(cancelled)),
        }
    }
}

/// An answer that says when to look again.
fn polled(video: OpenAiVideo) -> Response {
    ([POLL_AFTER], Json(video)).into_response()
}
