//! Holds: files of sound as packets, by symphonia; WAV and MP4 are read elsewhere.

use std::{
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
};

use symphonia::core::{
    codecs::audio::{
        AudioCodecParameters,
        well_known::{CODEC_ID_OPUS, CODEC_ID_VORBIS},
    },
    errors::Error,
    formats::{FormatOptions, FormatReader, Track, TrackType, probe::Hint, well_known},
    io::{MediaSource, MediaSourceStream},
    meta::MetadataOptions,
    packet::Packet,
};

/// What kind of file sound lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Container {
    /// RIFF.
    Wav,
    /// Bare frames of MPEG audio.
    Mp3,
    /// Bare frames of AAC: ADTS.
    Aac,
    /// Ogg, with Opus, Vorbis or FLAC.
    Ogg,
    /// FLAC's own.
    Flac,
    /// MP4 or M4A.
    Mp4,
    /// Matroska or WebM.
    Matroska,
}

impl Container {
    /// As people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wav => "wav",
            Self::Mp3 => "mp3",
            Self::Aac => "aac",
            Self::Ogg => "ogg",
            Self::Flac => "flac",
            Self::Mp4 => "mp4",
            Self::Matroska => "webm",
        }
    }

    /// The media type of sound in it.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Wav => "audio/wav",
            Self::Mp3 => "audio/mpeg",
            Self::Aac => "audio/aac",
            Self::Ogg => "audio/ogg",
            Self::Flac => "audio/flac",
            Self::Mp4 => "audio/mp4",
            Self::Matroska => "audio/webm",
        }
    }
}

/// Packets that are read of one file: days of sound in packets of 20 ms.
const MOST_PACKETS: u64 = 1 << 24;
/// Files that were put behind each other, as far as they are read.
const MOST_TRACKS: usize = 1 << 10;
/// Names of boxes that an MP4 begins with.
const MP4_BEGINNINGS: [&[u8; 4]; 7] = [b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp"];

/// Why a file of sound was not read.
#[derive(Debug, thiserror::Error)]
pub enum SoundError {
    /// The reader failed.
    #[error("could not read the file")]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("not a sound file that is read; send wav, mp3, aac, ogg (opus or vorbis), flac, mp4, m4a or webm")]
    NotRead,
    /// It begins as one, and has no sound in it.
    #[error("the {} file has no sound that is read", container.name())]
    NoSound {
        /// What it begins as.
        container: Container,
    },
    /// It begins as one, and cannot be read.
    #[error("the {} file is broken: {why}", container.name())]
    Broken {
        /// What it begins as.
        container: Container,
        /// What is wrong with it.
        why: String,
    },
    /// Longer than anybody's.
    #[error("the sound is longer than is read: {most}")]
    TooLong {
        /// The bound that was met, with its unit.
        most: String,
    },
}

/// By its first bytes: who reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    Wav,
    Mp4,
    Symphonia,
}

/// Looks at the first bytes, and goes back to them.
pub(crate) fn who_reads(reader: &mut (impl Read + Seek)) -> io::Result<Reads> {
    let mut start = Vec::new();
    reader.seek(SeekFrom::Start(0))?;
    reader.by_ref().take(12).read_to_end(&mut start)?;
    reader.seek(SeekFrom::Start(0))?;
    let is_mp4 = start.get(4..8).is_some_and(|name| MP4_BEGINNINGS.iter().any(|known| name == *known));
    Ok(match start.first_chunk() {
        Some(b"RIFF" | b"RF64") => Reads::Wav,
        _ if is_mp4 => Reads::Mp4,
        _ => Reads::Symphonia,
    })
}

/// A file of which packets are read.
pub(crate) struct Packets<'a> {
    pub(crate) container: Container,
    pub(crate) track: Sound,
    /// The tracks that sound came from: more than one where files were put behind each other.
    pub(crate) tracks: Vec<u32>,
    format: Box<dyn FormatReader + 'a>,
    read: u64,
}

/// What a file says of its sound.
pub(crate) struct Sound {
    id: u32,
    pub(crate) params: AudioCodecParameters,
    ends: Ends,
    pub(crate) rate: u32,
    pub(crate) channels: u16,
}

/// Moments that are decoded and are no sound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    /// At the start.
    pub(crate) skipped: u64,
    /// At the end.
    pub(crate) padding: u64,
}

/// What is believed of either: at most a fifth of a second, which is more than any encoder adds.
const MOST_END_PART: u32 = 5;

struct Source<R> {
    reader: R,
    length: u64,
}

impl<'a> Packets<'a> {
    /// Finds the container and its first sound.
    pub(crate) fn open(mut reader: impl Read + Seek + Send + Sync + 'a) -> Result<Self, SoundError> {
        let length = reader.seek(SeekFrom::End(0))?;
        reader.seek(SeekFrom::Start(0))?;
        let stream = MediaSourceStream::new(Box::new(Source { reader, length }), Default::default());
        let opened = symphonia::default::get_probe().probe(
            &Hint::new(),
            stream,
            FormatOptions::default(),
            MetadataOptions::default(),
        );
        let format = opened.map_err(|error| match error {
            Error::IoError(error) if error.kind() != io::ErrorKind::UnexpectedEof => SoundError::Io(error),
            _ => SoundError::NotRead,
        })?;
        let container = match format.format_info().format {
            well_known::FORMAT_ID_ADTS => Container::Aac,
            well_known::FORMAT_ID_OGG => Container::Ogg,
            well_known::FORMAT_ID_FLAC => Container::Flac,
            well_known::FORMAT_ID_MKV => Container::Matroska,
            _ => Container::Mp3,
        };
        let track = format.default_track(TrackType::Audio).and_then(Sound::of);
        let mut track = track.ok_or(SoundError::NoSound { container })?;
        // The others say it with the sound's end, which is believed or not.
        if container != Container::Mp3 {
            track.ends.padding = 0;
        }
        Ok(Self { container, tracks: vec![track.id], track, format, read: 0 })
    }

    /// Where the sound ends by a Matroska's header, in moments of this rate.
    pub(crate) fn said(&self, rate: u32) -> Option<u64> {
        let info = self.format.media_info();
        let base = info.time_base?;
        let ticks = u128::from(info.duration?.get()) * u128::from(base.numer.get());
        u64::try_from(ticks * u128::from(rate) / u128::from(base.denom.get())).ok()
    }

    /// The next packet of the sound. What follows the last one that can be read is not sound: tags, or a torn end.
    pub(crate) fn next(&mut self) -> Result<Option<Packet>, SoundError> {
        while self.read < MOST_PACKETS {
            match self.format.next_packet() {
                Ok(Some(packet)) => {
                    self.read += 1;
                    if packet.track_id == self.track.id {
                        return Ok(Some(packet));
                    }
                }
                Ok(None) => return Ok(None),
                // Another sound follows in the same file, as in a recording of a radio.
                Err(Error::ResetRequired) => {
                    self.read += 1;
                    match self.format.default_track(TrackType::Audio).and_then(Sound::of) {
                        Some(track) if track.rate == self.track.rate && self.tracks.len() < MOST_TRACKS => {
                            self.track.id = track.id;
                            self.tracks.push(track.id);
                        }
                        _ => return Ok(None),
                    }
                }
                Err(Error::IoError(error)) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error.into()),
                Err(error) if self.read == 0 => {
                    return Err(SoundError::Broken { container: self.container, why: error.to_string() });
                }
                Err(_) => return Ok(None),
            }
        }
        Err(SoundError::TooLong { most: format!("{MOST_PACKETS} packets") })
    }
}

impl Sound {
    fn of(track: &Track) -> Option<Self> {
        let params = track.codec_params.as_ref()?.audio()?.clone();
        let channels = params.channels.as_ref().map_or(0, |channels| channels.count());
        let skipped = if params.codec == CODEC_ID_OPUS {
            let head = params.extra_data.as_deref().unwrap_or_default();
            head.get(10..).and_then(|rest| rest.first_chunk()).map_or(0, |skip| u16::from_le_bytes(*skip).into())
        } else if params.codec == CODEC_ID_VORBIS {
            // What it says is what decoders drop by themselves.
            0
        } else {
            track.delay.unwrap_or_default().into()
        };
        Some(Self {
            id: track.id,
            ends: Ends { skipped, padding: track.padding.unwrap_or_default().into() },
            rate: params.sample_rate.filter(|rate| *rate > 0)?,
            channels: u16::try_from(channels).ok()?,
            params,
        })
    }

    /// As the file's beginning has them. Packets may say more.
    pub(crate) const fn ends(&self) -> Ends {
        self.ends
    }
}

impl Ends {
    /// Which of so many decoded moments are sound. `said` is the end by the pages of an Ogg or the header of a
    /// Matroska, which is believed where it is near: a file that begins in the middle of a broadcast, or lies, is counted.
    pub(crate) fn within(self, moments: u64, rate: u32, said: Option<u64>) -> Range<u64> {
        let most = u64::from(rate / MOST_END_PART);
        let from = self.skipped.min(most).min(moments);
        let to = moments.saturating_sub(self.padding.min(most)).max(from);
        from..said.filter(|said| said.abs_diff(to) <= most).map_or(to, |said| said.max(from))
    }
}

/// Does what reads a file by the libraries, whose sums are checked: a file made to overflow one ends this reading alone.
pub(crate) fn contained<T>(read: impl FnOnce() -> Result<T, SoundError>) -> Result<T, SoundError> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or(Err(SoundError::NotRead))
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl<R: Seek> Seek for Source<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.reader.seek(to)
    }
}

impl<R: Read + Seek + Send + Sync> MediaSource for Source<R> {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.length)
    }
}
