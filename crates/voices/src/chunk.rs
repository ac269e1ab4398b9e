//! Holds: a piece of sound.

/// A piece of sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Samples a second; the same for all pieces of a speech.
    pub sample_rate: u32,
    /// One channel of 16-bit samples, little-endian.
    pub pcm: Vec<u8>,
}
