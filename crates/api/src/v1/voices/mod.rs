//! Holds: the voices that an account has made, as it sees them.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod list;

use batchin_store::VoiceRow;
use serde::Serialize;
use utoipa::ToSchema;

/// A voice that sounds like a recording.
#[derive(Serialize, ToSchema)]
#[schema(as = Voice)]
pub(crate) struct VoiceObject {
    /// What speech calls name as their `voice`.
    #[schema(example = "ada")]
    name: String,
    #[schema(example = "audio.voice")]
    object: &'static str,
    /// What is said in the recording.
    ref_text: String,
    /// What was said of the speaker's consent.
    consent: String,
    /// Of the recording.
    #[schema(example = "audio/wav")]
    content_type: String,
    duration_seconds: f64,
    #[schema(format = DateTime)]
    created_at: String,
}

impl From<VoiceRow> for VoiceObject {
    fn from(row: VoiceRow) -> Self {
        Self {
            name: row.name,
            object: "audio.voice",
            ref_text: row.words,
            consent: row.consent,
            content_type: row.content_type,
            duration_seconds: row.duration.as_secs_f64(),
            created_at: row.created_at.to_string(),
        }
    }
}
