//! Holds: sound made in the format that somebody asked for, whole or while it comes.
//!
//! What is pushed are bytes of 16-bit little-endian samples, split anywhere. What one format cannot have (a rate, a third
//! channel) is changed to the next thing that it can: [`Encoding::output`] tells.

mod codec;
mod flac;
mod mp3_tag;
mod opus;
mod plain;
mod running;

use std::{io, pin::Pin};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};

pub use self::codec::EncodeError;
use self::{
    codec::Codec,
    running::{Running, Step},
};
use crate::{
    format::{HIGHEST_RATE, LOWEST_RATE, MOST_CHANNELS, PcmSpec, SoundFormat},
    programs::{Programs, formats},
    reshape::{Reshaper, to_bytes},
};

/// Samples that are encoded before others have a turn on the thread: some milliseconds of work.
const PIECE_BYTES: usize = 32 * 1024;
/// The rates that MP3 has.
const MP3_RATES: [u32; 9] = [8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000];
/// AAC begins with 1024 moments of silence, and ADTS has no place to say so. At this rate they take 21 ms, at 24 kHz 43.
const AAC_RATE: u32 = 48_000;

/// What is to be made of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding {
    from: PcmSpec,
    to: SoundFormat,
    rate: u32,
    channels: u16,
}

/// Why an encoder could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// This machine has no program for the format.
    #[error("{format} cannot be made here; ask for {}", listed(.can))]
    CannotMake {
        /// What was asked for.
        format: SoundFormat,
        /// What can be made.
        can: Vec<SoundFormat>,
    },
    /// A rate or a number of channels that nothing has.
    #[error("{spec} is outside of {LOWEST_RATE} to {HIGHEST_RATE} Hz and 1 to {MOST_CHANNELS} channels")]
    BadSpec {
        /// The input's, or the output's that was asked for.
        spec: PcmSpec,
    },
    /// The program was there when it was looked for.
    #[error("could not start the program that makes {format}")]
    Spawn {
        /// What it makes.
        format: SoundFormat,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A library refused the format's numbers.
    #[error("could not start the encoder of {format}")]
    Library {
        /// What it makes.
        format: SoundFormat,
        /// What it said.
        #[source]
        source: EncodeError,
    },
}

/// Why a stream of encoded sound broke.
#[derive(Debug, thiserror::Error)]
pub enum EncodeStreamError<E> {
    /// The samples broke off.
    #[error("the sound broke off")]
    Input(E),
    /// They could not be encoded.
    #[error("the sound could not be encoded")]
    Encode(#[source] EncodeError),
}

/// Why sound that is all there could not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeWholeError {
    /// It could not begin.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It could not go on.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

fn listed(formats: &[SoundFormat]) -> String {
    formats.iter().map(|format| format.name()).collect::<Vec<_>>().join(", ")
}

impl Encoding {
    /// With the rate and the channels of the input, as far as the format has them.
    pub const fn new(from: PcmSpec, to: SoundFormat) -> Self {
        Self { from, to, rate: from.rate, channels: from.channels }
    }

    /// At this rate in Hz, as far as the format has it.
    #[must_use]
    pub const fn at_rate(self, rate: u32) -> Self {
        Self { rate, ..self }
    }

    /// With so many channels, as far as the format has them. One is the mean of all.
    #[must_use]
    pub const fn with_channels(self, channels: u16) -> Self {
        Self { channels, ..self }
    }

    /// What a decoder will find.
    pub fn output(&self) -> PcmSpec {
        let rate = match self.to {
            SoundFormat::Mp3 => MP3_RATES.into_iter().find(|rate| *rate >= self.rate).unwrap_or(48_000),
            SoundFormat::Opus => opus::rate(self.rate),
            SoundFormat::Aac => AAC_RATE,
            SoundFormat::Flac | SoundFormat::Wav | SoundFormat::Pcm => self.rate,
        };
        let most = match self.to {
            SoundFormat::Mp3 | SoundFormat::Opus | SoundFormat::Aac => 2,
            SoundFormat::Flac | SoundFormat::Wav | SoundFormat::Pcm => MOST_CHANNELS,
        };
        PcmSpec { rate, channels: self.channels.min(most) }
    }

    /// The output's moments for so many of the input.
    fn moments(&self, input: u64) -> u64 {
        (input.saturating_mul(self.output().rate.into())).div_ceil(self.from.rate.into())
    }
}

/// Takes samples and gives bytes of a format. A program that it needs is killed when it is dropped.
pub struct Encoder {
    reshaper: Reshaper,
    work: Work,
}

enum Work {
    Here(Box<dyn Codec>),
    Program(Box<Running>),
}

impl Encoder {
    /// For sound whose end nobody knows yet: headers that would tell its length say that it is unknown. Must be called
    /// within a runtime of tokio.
    pub fn start(encoding: &Encoding, programs: &Programs) -> Result<Self, StartError> {
        Self::begin(encoding, programs, None)
    }

    /// `moments` of the output, where they are known.
    fn begin(encoding: &Encoding, programs: &Programs, moments: Option<u64>) -> Result<Self, StartError> {
        let asked = PcmSpec { rate: encoding.rate, channels: encoding.channels };
        if let Some(spec) = [encoding.from, asked].into_iter().find(|spec| !spec.is_sane()) {
            return Err(StartError::BadSpec { spec });
        }
        let format = encoding.to;
        let spec = encoding.output();
        let library = |source| StartError::Library { format, source };
        let work = match format {
            SoundFormat::Mp3 | SoundFormat::Aac => {
                let program =
                    programs.maker(format).ok_or_else(|| StartError::CannotMake { format, can: formats(programs) })?;
                let running = Running::start(program, format, spec);
                Work::Program(Box::new(running.map_err(|source| StartError::Spawn { format, source })?))
            }
            SoundFormat::Opus => Work::Here(Box::new(opus::Opus::new(spec).map_err(library)?)),
            SoundFormat::Flac => Work::Here(Box::new(flac::Flac::new(spec, moments).map_err(library)?)),
            SoundFormat::Wav => Work::Here(Box::new(plain::Plain::wav(spec, moments))),
            SoundFormat::Pcm => Work::Here(Box::new(plain::Plain::pcm())),
        };
        Ok(Self { reshaper: Reshaper::new(encoding.from, spec), work })
    }

    /// Takes bytes of samples, and gives what there is by now; it may be nothing.
    pub async fn push(&mut self, pcm: &[u8]) -> Result<Bytes, EncodeError> {
        let mut out = Vec::new();
        for piece in pcm.chunks(PIECE_BYTES) {
            let samples = self.reshaper.push(piece);
            match &mut self.work {
                Work::Here(codec) => {
                    codec.push(&samples, &mut out)?;
                    tokio::task::yield_now().await;
                }
                Work::Program(running) => {
                    running.give(to_bytes(&samples));
                    while let Step::Wrote(bytes) = running.step().await? {
                        out.extend_from_slice(&bytes);
                    }
                }
            }
        }
        Ok(out.into())
    }

    /// What comes without anything being pushed: a program writes when it is ready, which may be after [`push`](Self::push) has
    /// returned. Never ends where there can be nothing. May be dropped while it waits.
    pub async fn written(&mut self) -> Result<Bytes, EncodeError> {
        match &mut self.work {
            Work::Here(_) => std::future::pending().await,
            Work::Program(running) => running.written().await,
        }
    }

    /// Gives the end.
    pub async fn finish(mut self) -> Result<Bytes, EncodeError> {
        self.end().await
    }

    async fn end(&mut self) -> Result<Bytes, EncodeError> {
        let samples = self.reshaper.finish();
        let mut out = Vec::new();
        match &mut self.work {
            Work::Here(codec) => {
                codec.push(&samples, &mut out)?;
                codec.finish(&mut out)?;
            }
            Work::Program(running) => {
                running.give(to_bytes(&samples));
                running.end();
                while let Step::Wrote(bytes) = running.step().await? {
                    out.extend_from_slice(&bytes);
                }
            }
        }
        Ok(out.into())
    }
}

/// Encodes samples that are all there, with true lengths in its headers.
pub async fn encode_whole(pcm: &[u8], encoding: &Encoding, programs: &Programs) -> Result<Bytes, EncodeWholeError> {
    let moments = encoding.moments((pcm.len() / encoding.from.frame_bytes().max(1)) as u64);
    let mut encoder = Encoder::begin(encoding, programs, Some(moments))?;
    let mut out = Vec::from(encoder.push(pcm).await?);
    out.extend_from_slice(&encoder.finish().await?);
    if encoding.to == SoundFormat::Mp3 {
        out = mp3_tag::tagged(out, moments);
    }
    Ok(out.into())
}

/// Encodes samples while they come. Bytes leave as soon as there are any, and nothing is read ahead of them.
pub fn encode_stream<S, E>(input: S, encoder: Encoder) -> impl Stream<Item = Result<Bytes, EncodeStreamError<E>>>
where
    S: Stream<Item = Result<Bytes, E>>,
{
    let streaming = Streaming { input: Box::pin(input), encoder, has_ended: false };
    futures::stream::unfold(Some(streaming), |streaming| async {
        let mut streaming = streaming?;
        match streaming.next().await {
            Ok(bytes) => bytes.map(|bytes| (Ok(bytes), Some(streaming))),
            Err(error) => Some((Err(error), None)),
        }
    })
}

struct Streaming<S> {
    input: Pin<Box<S>>,
    encoder: Encoder,
    /// Whether the input has.
    has_ended: bool,
}

impl<S, E> Streaming<S>
where
    S: Stream<Item = Result<Bytes, E>>,
{
    async fn next(&mut self) -> Result<Option<Bytes>, EncodeStreamError<E>> {
        match self.encoder.work {
            Work::Here(_) => self.next_here().await,
            Work::Program(_) => self.next_of_program().await,
        }
    }

    async fn next_here(&mut self) -> Result<Option<Bytes>, EncodeStreamError<E>> {
        while !self.has_ended {
            let bytes = match self.input.next().await {
                Some(pcm) => self.encoder.push(&pcm.map_err(EncodeStreamError::Input)?).await,
                None => {
                    self.has_ended = true;
                    self.encoder.end().await
                }
            };
            let bytes = bytes.map_err(EncodeStreamError::Encode)?;
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    async fn next_of_program(&mut self) -> Result<Option<Bytes>, EncodeStreamError<E>> {
        let Work::Program(running) = &mut self.encoder.work else { return Ok(None) };
        loop {
            match running.step().await.map_err(EncodeStreamError::Encode)? {
                Step::Wrote(bytes) => return Ok(Some(bytes)),
                Step::Done => return Ok(None),
                Step::Hungry => {}
            }
            // While no samples come, it may still write what it has of those before.
            let pcm = tokio::select! {
                pcm = self.input.next() => pcm,
                written = running.written() => {
                    return written.map(Some).map_err(EncodeStreamError::Encode);
                }
            };
            match pcm {
                Some(pcm) => {
                    let samples = self.encoder.reshaper.push(&pcm.map_err(EncodeStreamError::Input)?);
                    running.give(to_bytes(&samples));
                }
                None => {
                    running.give(to_bytes(&self.encoder.reshaper.finish()));
                    running.end();
                }
            }
        }
    }
}
