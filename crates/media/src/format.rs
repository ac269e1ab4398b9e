//! Holds: the formats that sound is asked for in, and what plain samples are.

use std::fmt;

/// A format that a client may ask for, by its name in the `response_format` of a speech call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SoundFormat {
    /// MPEG audio layer III.
    Mp3,
    /// Opus in Ogg.
    Opus,
    /// AAC in ADTS frames.
    Aac,
    /// FLAC in its own container.
    Flac,
    /// 16-bit PCM behind a RIFF header.
    Wav,
    /// 16-bit little-endian samples and nothing else.
    Pcm,
}

impl SoundFormat {
    /// All of them, in the order in which they are listed to people.
    pub const ALL: [Self; 6] = [Self::Mp3, Self::Opus, Self::Aac, Self::Flac, Self::Wav, Self::Pcm];

    /// As in a request: `mp3`, `opus`, `aac`, `flac`, `wav`, `pcm`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mp3 => "mp3",
            Self::Opus => "opus",
            Self::Aac => "aac",
            Self::Flac => "flac",
            Self::Wav => "wav",
            Self::Pcm => "pcm",
        }
    }

    /// The format of this name, in lower case as it stands in a request.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// What a response's `Content-Type` says of it.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Mp3 => "audio/mpeg",
            Self::Opus => "audio/ogg",
            Self::Aac => "audio/aac",
            Self::Flac => "audio/flac",
            Self::Wav => "audio/wav",
            Self::Pcm => "audio/pcm",
        }
    }

    /// How the name of a file of it ends, without the dot.
    pub const fn extension(self) -> &'static str {
        self.name()
    }
}

impl fmt::Display for SoundFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What plain samples are: signed 16-bit little-endian, the channels of a moment side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PcmSpec {
    /// Moments a second, [`LOWEST_RATE`] to [`HIGHEST_RATE`].
    pub rate: u32,
    /// Samples a moment, 1 to [`MOST_CHANNELS`].
    pub channels: u16,
}

/// Telephones have 8 kHz; nothing that models make or hear has less.
pub const LOWEST_RATE: u32 = 4_000;
/// The highest that sound cards record.
pub const HIGHEST_RATE: u32 = 384_000;
/// As many as FLAC, Vorbis and 7.1 have.
pub const MOST_CHANNELS: u16 = 8;
/// Bytes of a sample.
pub const SAMPLE_BYTES: usize = 2;

impl PcmSpec {
    /// Whether both numbers are within their bounds.
    pub const fn is_sane(self) -> bool {
        self.rate >= LOWEST_RATE && self.rate <= HIGHEST_RATE && self.channels >= 1 && self.channels <= MOST_CHANNELS
    }

    /// Bytes of one moment.
    pub const fn frame_bytes(self) -> usize {
        self.channels as usize * SAMPLE_BYTES
    }
}

impl fmt::Display for PcmSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} Hz with {} channel(s)", self.rate, self.channels)
    }
}
