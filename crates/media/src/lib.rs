//! Holds: sound and pictures from one format to another, by itself or by programs that the machine has.
//!
//! Also how long a sound or a video lasts and how large a picture is, counted from what is in the file. No model, no
//! gateway, no network. Everything that reads is blocking and bounded by the bytes that it is given.

mod container;
mod decode;
mod encode;
mod format;
mod mp4;
mod ogg_pages;
mod picture;
mod probe;
mod programs;
mod resample;
mod reshape;
mod span;
mod video;
mod wav;

pub use self::{
    container::{Container, SoundError},
    decode::{Decoded, MOST_DECODED_BYTES, decode_to_pcm},
    encode::{
        EncodeError, EncodeStreamError, EncodeWholeError, Encoder, Encoding, StartError, encode_stream, encode_whole,
    },
    format::{HIGHEST_RATE, LOWEST_RATE, MOST_CHANNELS, PcmSpec, SAMPLE_BYTES, SoundFormat},
    mp4::Mp4Error,
    picture::{ImageError, ImageFacts, ImageFormat, MOST_PIXELS, convert_image, probe_image, probe_image_in},
    probe::{SoundFacts, probe_sound},
    programs::{Programs, formats},
    video::{VideoError, VideoFacts, probe_video},
    wav::{WavError, WavReader},
};
