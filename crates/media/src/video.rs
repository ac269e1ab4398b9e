//! Holds: how long a video lasts and how large it is, from the tables of an MP4.

use std::{
    io::{Read, Seek},
    time::Duration,
};

use crate::{
    mp4::{self, Mp4Error},
    span::span,
};

/// What a video is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VideoFacts {
    /// Of its frames together, to the microsecond. Muxers write nonsense for a single frame: see [`Self::lasting_at`].
    pub duration: Duration,
    /// In pixels, at least 1.
    pub width: u32,
    /// In pixels, at least 1.
    pub height: u32,
    /// Frames, at least 1.
    pub frames: u64,
    /// Frames a second on the mean; `None` where the frames last no time.
    pub frame_rate: Option<f64>,
}

/// Why a video's facts are not known.
#[derive(Debug, thiserror::Error)]
pub enum VideoError {
    /// Not an MP4 with tables.
    #[error("not a video that is read; send MP4")]
    NotRead(#[source] Mp4Error),
    /// No track of video, or one without frames.
    #[error("the MP4 has no frames of video")]
    NoFrames,
    /// No size, or 0 pixels.
    #[error("the MP4 does not say how large its frames are")]
    NoSize,
}

impl VideoFacts {
    /// How long as many frames last at this rate, whatever the file says. `None` for a rate that is not positive.
    pub fn lasting_at(&self, frames_per_second: f64) -> Option<Duration> {
        Duration::try_from_secs_f64(self.frames as f64 / frames_per_second).ok().filter(|span| !span.is_zero())
    }
}

/// Reads the tables of an MP4, and of the first video in it what its frames add up to. Reads no frame.
pub fn probe_video(mut reader: impl Read + Seek) -> Result<VideoFacts, VideoError> {
    let tracks = mp4::tracks(&mut reader).map_err(VideoError::NotRead)?;
    let video =
        tracks.iter().find(|track| &track.handler == b"vide" && track.samples > 0).ok_or(VideoError::NoFrames)?;
    if video.width == 0 || video.height == 0 {
        return Err(VideoError::NoSize);
    }
    let seconds = video.units as f64 / f64::from(video.timescale);
    Ok(VideoFacts {
        duration: span(video.units, video.timescale),
        width: video.width,
        height: video.height,
        frames: video.samples,
        frame_rate: (video.units > 0).then(|| video.samples as f64 / seconds),
    })
}
