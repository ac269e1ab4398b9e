//! Sound, pictures and videos, judged by ffmpeg and ffprobe, which the machine must have.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says where")]

mod arbitrary;
mod decoding;
mod encoding;
mod outside;
mod pictures;
mod probing;
mod tones;
mod videos;
