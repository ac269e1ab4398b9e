//! Holds: the samples of a whole sound, of whatever format its file is.

use std::io::Cursor;

use bytes::Bytes;
use symphonia::core::{
    codecs::audio::{AudioDecoder, AudioDecoderOptions, well_known::CODEC_ID_OPUS},
    packet::Packet,
};

use crate::{
    container::{Container, Packets, Reads, Sound, SoundError, contained, who_reads},
    format::{PcmSpec, SAMPLE_BYTES},
    ogg_pages,
    reshape::to_bytes,
    wav::{WavError, WavReader},
};

/// The most that is decoded, in bytes of samples: an hour and a half of speech at 24 kHz, half an hour of music.
pub const MOST_DECODED_BYTES: usize = 256 << 20;
/// The rate in which Opus is decoded.
const OPUS_RATE: u32 = 48_000;
/// The longest packet of Opus: 120 ms.
const MOST_OPUS_MOMENTS: usize = 5_760;

/// A sound as samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// What they are.
    pub spec: PcmSpec,
    /// Signed, 16-bit, little-endian, whole moments.
    pub samples: Bytes,
}

/// The samples of a whole sound: wav, flac, mp3, aac, or opus, vorbis and flac in ogg or webm. At most
/// [`MOST_DECODED_BYTES`]. Blocks for some milliseconds for each second of sound.
pub fn decode_to_pcm(bytes: &[u8]) -> Result<Decoded, SoundError> {
    match who_reads(&mut Cursor::new(bytes))? {
        Reads::Wav => decode_wav(bytes),
        Reads::Mp4 => Err(SoundError::NoSound { container: Container::Mp4 }),
        Reads::Symphonia => contained(|| decode_packets(bytes)),
    }
}

fn decode_wav(bytes: &[u8]) -> Result<Decoded, SoundError> {
    let broken = |error: WavError| SoundError::Broken { container: Container::Wav, why: error.to_string() };
    let mut reader = WavReader::new();
    let mut samples = Vec::new();
    // Samples of 8 bits become twice as many bytes.
    if bytes.len() > MOST_DECODED_BYTES / 2 {
        return Err(too_long());
    }
    reader.push(bytes, &mut samples).map_err(broken)?;
    let spec = reader.finish().map_err(broken)?;
    samples.truncate(samples.len() - samples.len() % spec.frame_bytes());
    Ok(Decoded { spec, samples: samples.into() })
}

fn decode_packets(bytes: &[u8]) -> Result<Decoded, SoundError> {
    let mut packets = Packets::open(Cursor::new(bytes))?;
    let container = packets.container;
    let mut decoder = Decoder::of(&packets.track).ok_or(SoundError::NoSound { container })?;
    let mut samples = Vec::new();
    while let Some(mut packet) = packets.next()? {
        // What is no sound is cut off at the end, by what is believed of it.
        (packet.trim_start, packet.trim_end) = Default::default();
        decoder.decode(&packet, &mut samples);
        if samples.len() * SAMPLE_BYTES > MOST_DECODED_BYTES {
            return Err(too_long());
        }
    }
    let spec = decoder.spec().filter(|spec| spec.is_sane()).ok_or(SoundError::NoSound { container })?;
    let moments = samples.len() / usize::from(spec.channels);
    let is_ogg = container == Container::Ogg;
    let said = if is_ogg { Some(ogg_pages::ends(&mut Cursor::new(bytes), &packets.tracks)?) } else { None };
    let inside = packets.track.ends().within(moments as u64, spec.rate, said);
    let (from, to) = (inside.start as usize, moments.min(inside.end as usize));
    let channels = usize::from(spec.channels);
    let kept = samples.get(from * channels..to * channels).unwrap_or_default();
    Ok(Decoded { spec, samples: to_bytes(kept).into() })
}

fn too_long() -> SoundError {
    SoundError::TooLong { most: format!("{MOST_DECODED_BYTES} bytes of samples") }
}

enum Decoder {
    Opus { decoder: opus::Decoder, spec: PcmSpec, packet: Vec<i16> },
    Other { decoder: Box<dyn AudioDecoder>, spec: Option<PcmSpec>, packet: Vec<i16> },
}

impl Decoder {
    fn of(track: &Sound) -> Option<Self> {
        if track.params.codec == CODEC_ID_OPUS {
            let channels = if track.channels == 1 { opus::Channels::Mono } else { opus::Channels::Stereo };
            let spec = PcmSpec { rate: OPUS_RATE, channels: channels as u16 };
            // More channels lie in several streams, which are for theatres.
            let decoder = opus::Decoder::new(OPUS_RATE, channels).ok().filter(|_| track.channels <= 2)?;
            return Some(Self::Opus { decoder, spec, packet: vec![0; MOST_OPUS_MOMENTS * channels as usize] });
        }
        let options = AudioDecoderOptions::default();
        let decoder = symphonia::default::get_codecs().make_audio_decoder(&track.params, &options).ok()?;
        Some(Self::Other { decoder, spec: None, packet: Vec::new() })
    }

    /// `None` as long as nothing was decoded.
    const fn spec(&self) -> Option<PcmSpec> {
        match self {
            Self::Opus { spec, .. } => Some(*spec),
            Self::Other { spec, .. } => *spec,
        }
    }

    /// Appends what is in a packet. One that is torn, or of other samples than the first, has nothing in it.
    fn decode(&mut self, from: &Packet, out: &mut Vec<i16>) {
        match self {
            Self::Opus { decoder, spec, packet } => {
                let moments = decoder.decode(&from.data, packet, false).unwrap_or_default();
                out.extend(packet.iter().take(moments * usize::from(spec.channels)));
            }
            Self::Other { decoder, spec, packet } => {
                let Ok(samples) = decoder.decode(from) else { return };
                let channels = u16::try_from(samples.spec().channels().count()).unwrap_or(u16::MAX);
                let found = PcmSpec { rate: samples.spec().rate(), channels };
                if *spec.get_or_insert(found) == found {
                    samples.copy_to_vec_interleaved(packet);
                    out.extend_from_slice(packet);
                }
            }
        }
    }
}
