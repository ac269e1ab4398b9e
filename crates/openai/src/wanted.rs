//! Holds: what a whole answer must have in it, by what was asked for.

use batchin_domain::listed;

/// What a whole answer must have in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// Choices, as they come.
    #[default]
    Choices,
    /// A vector for each input.
    Vectors(Vectors),
    /// The best of the documents.
    Ranking(Ranking),
    /// A text, spoken.
    Sound(Spoken),
    /// What is said in a sound, as JSON.
    Transcript,
    /// Pictures.
    Pictures(Pictures),
}

/// The vectors of an embeddings call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vectors {
    /// How many.
    pub inputs: u32,
    /// How they are written.
    pub encoding: Encoding,
}

/// The ranking of a rerank call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranking {
    /// How many documents there are.
    pub documents: u32,
    /// How many of them are told, at most all.
    pub best: u32,
    /// Whether their texts are told too.
    pub returns_documents: bool,
}

/// The sound of a speech call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spoken {
    /// What the client hears it in.
    pub format: SoundFormat,
    /// Whether it comes as server-sent events, with the sound in base64, and not as it is.
    pub as_events: bool,
}

/// The pictures of a call that makes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pictures {
    /// How many, 1 to 10.
    pub most: u32,
    /// Each one's width and height, in pixels; `None`: as the server makes of the picture that it changes.
    pub size: Option<(u32, u32)>,
    /// The format that they are to be in; as the server makes them without one.
    pub format: Option<PictureFormat>,
    /// How much of them is to be kept where a format loses anything, 1 to 100.
    pub quality: u8,
    /// How they are told, where the body says.
    pub told: Option<PictureTold>,
}

listed! {
    /// A format of pictures, by its name in OpenAI's API.
    pub enum PictureFormat {
        /// PNG.
        Png => "png",
        /// JPEG.
        Jpeg => "jpeg",
        /// WebP.
        Webp => "webp",
    }
}

listed! {
    /// How a picture is told.
    pub enum PictureTold {
        /// By an address from which it can be fetched for a while.
        Url => "url",
        /// As it is, in base64.
        Base64 => "b64_json",
    }
}

impl PictureFormat {
    /// The media type of its bytes.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Webp => "image/webp",
        }
    }
}

listed! {
    /// A format of sound, by its name in OpenAI's API.
    pub enum SoundFormat {
        /// MPEG layer 3.
        Mp3 => "mp3",
        /// Opus in Ogg.
        Opus => "opus",
        /// AAC in ADTS frames.
        Aac => "aac",
        /// FLAC.
        Flac => "flac",
        /// PCM in RIFF.
        Wav => "wav",
        /// 16-bit little-endian samples of one channel, 24,000 a second, without a head.
        Pcm => "pcm",
    }
}

impl SoundFormat {
    /// What an answer that does not say which is in.
    pub const DEFAULT: Self = Self::Mp3;

    /// The media type of its bytes.
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
}

/// How a vector is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// A list of numbers.
    #[default]
    Float,
    /// The little-endian bytes of its 32-bit floats, in base64.
    Base64,
}
