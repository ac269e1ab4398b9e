//! Holds: how long a file of sound lasts, by what is in it.
//!
//! Counted are samples and packets. What a header says of the length counts for nothing; what it says of the first and the
//! last moments that are no sound counts as far as encoders really add any.

use std::{
    io::{Read, Seek, SeekFrom},
    time::Duration,
};

use symphonia::core::{
    codecs::audio::{
        AudioDecoderOptions,
        well_known::{CODEC_ID_AAC, CODEC_ID_OPUS},
    },
    packet::Packet,
};

use crate::{
    container::{Container, Packets, Reads, SoundError, contained, who_reads},
    mp4::{self, Mp4Error},
    ogg_pages,
    span::span,
    wav::{Header, WavError},
};

/// The rate in which Opus is counted.
const OPUS_RATE: u32 = 48_000;
/// Moments of a frame of AAC.
const AAC_FRAME: u64 = 1_024;

/// What a sound is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoundFacts {
    /// What it lies in.
    pub format: Container,
    /// To the microsecond.
    pub duration: Duration,
    /// Moments a second, at least 1.
    pub rate: u32,
    /// Samples a moment.
    pub channels: u16,
}

/// Reads a file of sound from its beginning, as far as it must be read to know how long it lasts. Blocks.
pub fn probe_sound(mut reader: impl Read + Seek + Send + Sync) -> Result<SoundFacts, SoundError> {
    match who_reads(&mut reader)? {
        Reads::Wav => probe_wav(reader),
        Reads::Mp4 => probe_mp4(reader),
        Reads::Symphonia => contained(|| probe_packets(reader)),
    }
}

fn probe_wav(mut reader: impl Read + Seek) -> Result<SoundFacts, SoundError> {
    const PIECE: usize = 16 * 1024;
    let format = Container::Wav;
    let broken = |error: WavError| SoundError::Broken { container: format, why: error.to_string() };
    let mut header = Header::default();
    let mut piece = vec![0; PIECE];
    let mut begins = 0;
    loop {
        let count = reader.read(&mut piece)?;
        let mut rest = piece.get(..count).unwrap_or_default();
        let shape = header.push(&mut rest).map_err(broken)?;
        begins += (count - rest.len()) as u64;
        if let Some(shape) = shape {
            let there = reader.seek(SeekFrom::End(0))?.saturating_sub(begins);
            let bytes = shape.data_bytes.map_or(there, |said| said.min(there));
            let moments = bytes / shape.frame_bytes as u64;
            let duration = span(moments, shape.spec.rate);
            return Ok(SoundFacts { format, duration, rate: shape.spec.rate, channels: shape.spec.channels });
        }
        if count == 0 {
            return Err(broken(WavError::NoSamples));
        }
    }
}

fn probe_mp4(mut reader: impl Read + Seek) -> Result<SoundFacts, SoundError> {
    let format = Container::Mp4;
    let tracks = mp4::tracks(&mut reader).map_err(|error| match error {
        Mp4Error::Io(error) => SoundError::Io(error),
        other => SoundError::Broken { container: format, why: other.to_string() },
    })?;
    let sound = tracks.iter().find(|track| &track.handler == b"soun" && track.samples > 0);
    let sound = sound.ok_or(SoundError::NoSound { container: format })?;
    let duration = span(sound.units.saturating_sub(sound.skipped), sound.timescale);
    Ok(SoundFacts { format, duration, rate: sound.rate, channels: sound.channels })
}

fn probe_packets(mut reader: impl Read + Seek + Send + Sync) -> Result<SoundFacts, SoundError> {
    let mut packets = Packets::open(&mut reader)?;
    let format = packets.container;
    let codec = packets.track.params.codec;
    let rate = if codec == CODEC_ID_OPUS { OPUS_RATE } else { packets.track.rate };
    let channels = packets.track.channels;
    let moments = match (format, codec) {
        (_, CODEC_ID_OPUS) => count(&mut packets, opus_moments)?,
        (Container::Mp3, _) => count(&mut packets, mpeg_moments)?,
        // Times in Matroska are whole milliseconds, and nobody checks them.
        (Container::Matroska, CODEC_ID_AAC) => count(&mut packets, |_| AAC_FRAME)?,
        (Container::Matroska, _) => count_decoded(&mut packets)?,
        _ => count(&mut packets, |packet| packet.dur.saturating_add(packet.trim_end).get())?,
    };
    if moments == 0 {
        return Err(SoundError::NoSound { container: format });
    }
    let (ends, tracks) = (packets.track.ends(), std::mem::take(&mut packets.tracks));
    let in_header = packets.said(rate);
    drop(packets);
    let (moments, said) = match (format, codec) {
        // By position, whoever reads packets leaves out those whose page lies.
        (Container::Ogg, CODEC_ID_OPUS) => {
            (ogg_pages::opus_moments(&mut reader, &tracks)?, Some(ogg_pages::ends(&mut reader, &tracks)?))
        }
        (Container::Ogg, _) => (moments, Some(ogg_pages::ends(&mut reader, &tracks)?)),
        // The last packet is longer than the sound, and what was added to it stands where nobody reads it.
        (Container::Matroska, CODEC_ID_OPUS) => (moments, in_header),
        _ => (moments, None),
    };
    let inside = ends.within(moments, rate, said);
    Ok(SoundFacts { format, duration: span(inside.end - inside.start, rate), rate, channels })
}

/// Moments that a decoder would give.
fn count(packets: &mut Packets<'_>, moments_of: impl Fn(&Packet) -> u64) -> Result<u64, SoundError> {
    let mut moments: u64 = 0;
    while let Some(packet) = packets.next()? {
        moments = moments.saturating_add(moments_of(&packet));
    }
    Ok(moments)
}

fn opus_moments(packet: &Packet) -> u64 {
    opus::packet::get_nb_samples(&packet.data, OPUS_RATE).unwrap_or_default() as u64
}

/// By version and layer in the frame's header.
fn mpeg_moments(packet: &Packet) -> u64 {
    const MPEG1: u8 = 0b11;
    const LAYER_I: u8 = 0b11;
    const LAYER_III: u8 = 0b01;
    let second = packet.data.get(1).copied().unwrap_or_default();
    match (second >> 3 & 0b11, second >> 1 & 0b11) {
        (_, LAYER_I) => 384,
        (MPEG1, _) => 1_152,
        (_, LAYER_III) => 576,
        _ => 1_152,
    }
}

fn count_decoded(packets: &mut Packets<'_>) -> Result<u64, SoundError> {
    let no_sound = SoundError::NoSound { container: packets.container };
    let codecs = symphonia::default::get_codecs();
    let options = AudioDecoderOptions::default();
    let Ok(mut decoder) = codecs.make_audio_decoder(&packets.track.params, &options) else { return Err(no_sound) };
    let mut moments: u64 = 0;
    while let Some(packet) = packets.next()? {
        // A packet that is torn is silent for a decoder that goes on.
        moments += decoder.decode(&packet).map_or(0, |samples| samples.frames()) as u64;
    }
    Ok(moments)
}
