//! Holds: sound and pictures from one format to another, by itself or by programs that the machine has.
//!
//! Also how long a sound or a video lasts and how large a picture is, counted from what is in the file. No model, no
//! gateway, no network. Everything that reads is blocking and bounded by the bytes that it is given.

mod encode;
mod format;
mod programs;
mod resample;
mod reshape;

pub use self::{
    encode::{
        EncodeError, EncodeStreamError, EncodeWholeError, Encoder, Encoding, StartError, encode_stream, encode_whole,
    },
    format::{HIGHEST_RATE, LOWEST_RATE, MOST_CHANNELS, PcmSpec, SAMPLE_BYTES, SoundFormat},
    programs::{Programs, formats},
};
