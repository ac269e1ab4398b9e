//! Holds: films as their owner sees them.

pub(crate) mod content;
pub(crate) mod delete;
pub(crate) mod generate;
pub(crate) mod list;
pub(crate) mod show;

use batchin_domain::FilmStatus;
use batchin_store::FilmRow;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{app::App, cents::Cents};

/// A job that makes a film.
#[derive(Serialize, ToSchema)]
#[schema(as = VideoGeneration)]
pub(crate) struct VideoObject {
    #[schema(example = "video_0197f3a000007000800000000000000a")]
    id: String,
    #[schema(example = "video.generation")]
    object: &'static str,
    /// `queued`, `in_progress`, `completed`, `failed` or `cancelled`. It never goes back.
    #[schema(example = "queued")]
    status: &'static str,
    /// How far it is, in percent, as far as the model server says.
    progress: u32,
    model: String,
    /// How long it was asked to last.
    duration_seconds: u32,
    /// How long it lasts, by its frames; what is charged.
    #[schema(required = true)]
    delivered_seconds: Option<f64>,
    #[schema(example = "848x480")]
    size: String,
    /// Where the film is once the job has completed, for whoever has a key of the account.
    output_url: String,
    /// What it waits for, if its owner can change that: `payment_required` or `budget_used_up`.
    #[schema(required = true)]
    blocked: Option<String>,
    /// Why there is none.
    #[schema(required = true)]
    error: Option<VideoFault>,
    /// What it cost: nothing unless it completed.
    cost_cents: Cents,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(required = true, format = DateTime)]
    completed_at: Option<String>,
    /// When the film goes by itself.
    #[schema(required = true, format = DateTime)]
    expires_at: Option<String>,
}

/// Why there is no film.
#[derive(Serialize, ToSchema)]
pub(crate) struct VideoFault {
    code: String,
    message: String,
}

impl VideoObject {
    pub(crate) fn of(app: &App, row: FilmRow) -> Self {
        Self {
            id: row.id.to_string(),
            object: "video.generation",
            status: row.status.name(),
            progress: row.progress,
            model: row.order.model,
            duration_seconds: row.order.seconds,
            // Milliseconds of an hour are far from where such a number is inexact.
            delivered_seconds: row.film.map(|film| film.ms as f64 / 1_000.0),
            size: row.order.frame.to_string(),
            output_url: format!("{}/v1/video/{}/content", app.settings.public_url, row.id),
            blocked: row.blocked,
            error: row.error.map(|error| VideoFault { code: error.code, message: error.message }),
            cost_cents: row.cost.into(),
            created_at: row.created_at.to_string(),
            completed_at: row.finished_at.filter(|_| row.status == FilmStatus::Completed).map(|at| at.to_string()),
            expires_at: row.expires_at.map(|at| at.to_string()),
        }
    }
}
