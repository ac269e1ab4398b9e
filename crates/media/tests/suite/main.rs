//! Sound, pictures and videos, judged by ffmpeg and ffprobe, which the machine must have.

mod encoding;
mod outside;
mod tones;
