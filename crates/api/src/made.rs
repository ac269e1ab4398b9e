//! Holds: what requests made, as it stands beside their tokens in answers.

use batchin_domain::{Counts, Measure};
use serde::Serialize;
use utoipa::ToSchema;

/// What was counted but tokens; zeros of what was not asked for.
#[derive(Serialize, ToSchema)]
pub(crate) struct Made {
    /// Of text that was spoken, in Unicode scalars.
    characters: u64,
    /// Of sound, heard or made.
    audio_seconds: f64,
    /// Pictures made.
    images: u64,
    /// Their pixels, together.
    pixels: u64,
    /// Of film made.
    video_seconds: f64,
    /// Documents ranked.
    searches: u64,
}

/// Sums of the same.
#[derive(Serialize, ToSchema)]
pub(crate) struct TotalMade {
    total_characters: u64,
    total_audio_seconds: f64,
    total_images: u64,
    total_pixels: u64,
    total_video_seconds: f64,
    total_searches: u64,
}

impl From<Counts> for Made {
    fn from(counts: Counts) -> Self {
        Self {
            characters: counts.of(Measure::Characters),
            audio_seconds: seconds(counts.of(Measure::AudioMs)),
            images: counts.of(Measure::Images),
            pixels: counts.of(Measure::Pixels),
            video_seconds: seconds(counts.of(Measure::VideoMs)),
            searches: counts.of(Measure::Searches),
        }
    }
}

impl From<Counts> for TotalMade {
    fn from(counts: Counts) -> Self {
        let Made { characters, audio_seconds, images, pixels, video_seconds, searches } = counts.into();
        Self {
            total_characters: characters,
            total_audio_seconds: audio_seconds,
            total_images: images,
            total_pixels: pixels,
            total_video_seconds: video_seconds,
            total_searches: searches,
        }
    }
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}
