//! Holds: Opus in Ogg (RFC 7845), packet by packet.

use ogg::writing::{PacketWriteEndInfo, PacketWriter};
use opus::{Application, Bitrate, Channels};

use super::codec::{Codec, EncodeError};
use crate::format::PcmSpec;

/// Ogg counts Opus in moments of this rate, whatever the encoder was given.
const CLOCK: u32 = 48_000;
/// What the encoder takes as it is.
const RATES: [u32; 5] = [8_000, 12_000, 16_000, 24_000, 48_000];
/// Packets a second: 20 ms each, the format's default.
const PACKETS_PER_SECOND: u32 = 50;
const PACKET_CLOCK: u64 = (CLOCK / PACKETS_PER_SECOND) as u64;
/// Packets of a page. A listener waits for a page, each of which costs 30 bytes.
const PAGE_PACKETS: u64 = 10;
/// The most that a packet of 20 ms can be.
const MOST_PACKET_BYTES: usize = 1_275;
/// Bits a second of a channel: speech and music without artefacts that are heard.
const CHANNEL_BITS: i32 = 64_000;
/// A file holds one stream, so any number tells it from the others in it.
const SERIAL: u32 = 1;

/// Encodes packets and writes pages.
pub(crate) struct Opus {
    encoder: opus::Encoder,
    writer: PacketWriter<'static, Vec<u8>>,
    /// Samples of a packet, all channels.
    packet_samples: usize,
    /// Clock moments of one input moment.
    scale: u64,
    channels: usize,
    /// Clock moments that a decoder drops at the start.
    skip: u64,
    held: Vec<i16>,
    /// Input moments that were pushed.
    pushed: u64,
    /// Packets that were encoded.
    packets: u64,
    /// The newest packet, which is written when it is known whether it is the last.
    newest: Option<Vec<u8>>,
}

/// The rate that is encoded where this one was asked for.
pub(crate) fn rate(asked: u32) -> u32 {
    if RATES.contains(&asked) { asked } else { CLOCK }
}

impl Opus {
    /// The rate is one of [`RATES`], channels are 1 or 2.
    pub(crate) fn new(spec: PcmSpec) -> Result<Self, EncodeError> {
        let channels = if spec.channels == 1 { Channels::Mono } else { Channels::Stereo };
        let mut encoder = opus::Encoder::new(spec.rate, channels, Application::Audio).map_err(failed)?;
        encoder.set_bitrate(Bitrate::Bits(CHANNEL_BITS * i32::from(spec.channels))).map_err(failed)?;
        let scale = u64::from(CLOCK / spec.rate);
        let skip = encoder.get_lookahead().map_err(failed)?.unsigned_abs();
        let skip = u64::from(skip) * scale;
        let mut writer = PacketWriter::new(Vec::new());
        let end = PacketWriteEndInfo::EndPage;
        writer.write_packet(head(spec, skip), SERIAL, end, 0).map_err(failed)?;
        writer.write_packet(tags(), SERIAL, PacketWriteEndInfo::EndPage, 0).map_err(failed)?;
        Ok(Self {
            encoder,
            writer,
            packet_samples: (spec.rate / PACKETS_PER_SECOND) as usize * usize::from(spec.channels),
            scale,
            channels: spec.channels.into(),
            skip,
            held: Vec::new(),
            pushed: 0,
            packets: 0,
            newest: None,
        })
    }

    fn encode(&mut self, samples: &[i16]) -> Result<(), EncodeError> {
        let packet = self.encoder.encode_vec(samples, MOST_PACKET_BYTES).map_err(failed)?;
        if let Some(before) = self.newest.replace(packet) {
            let is_page_full = self.packets.is_multiple_of(PAGE_PACKETS);
            let end = if is_page_full { PacketWriteEndInfo::EndPage } else { PacketWriteEndInfo::NormalPacket };
            self.writer.write_packet(before, SERIAL, end, self.packets * PACKET_CLOCK).map_err(failed)?;
        }
        self.packets += 1;
        Ok(())
    }
}

impl Codec for Opus {
    fn push(&mut self, samples: &[i16], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.pushed += (samples.len() / self.channels) as u64;
        self.held.extend_from_slice(samples);
        let held = std::mem::take(&mut self.held);
        let packets = held.chunks_exact(self.packet_samples);
        self.held = packets.remainder().to_vec();
        for packet in packets {
            self.encode(packet)?;
        }
        out.append(self.writer.inner_mut());
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let end = self.skip + self.pushed * self.scale;
        // What the encoder looks ahead comes out after the input has ended, so silence is pushed behind it.
        while self.packets * PACKET_CLOCK < end || self.newest.is_none() {
            let mut packet = std::mem::take(&mut self.held);
            packet.resize(self.packet_samples, 0);
            self.encode(&packet)?;
        }
        let last = self.newest.take().unwrap_or_default();
        self.writer.write_packet(last, SERIAL, PacketWriteEndInfo::EndStream, end).map_err(failed)?;
        out.append(self.writer.inner_mut());
        Ok(())
    }
}

fn head(spec: PcmSpec, skip: u64) -> Vec<u8> {
    const VERSION: u8 = 1;
    const ONE_STREAM: u8 = 0;
    const NO_GAIN: [u8; 2] = [0, 0];
    let mut head = b"OpusHead".to_vec();
    head.extend([VERSION, spec.channels as u8]);
    head.extend((skip as u16).to_le_bytes());
    head.extend(spec.rate.to_le_bytes());
    head.extend(NO_GAIN);
    head.push(ONE_STREAM);
    head
}

fn tags() -> Vec<u8> {
    const VENDOR: &[u8] = b"batchin";
    const NO_COMMENTS: [u8; 4] = [0; 4];
    let mut tags = b"OpusTags".to_vec();
    tags.extend((VENDOR.len() as u32).to_le_bytes());
    tags.extend(VENDOR);
    tags.extend(NO_COMMENTS);
    tags
}

fn failed(said: impl ToString) -> EncodeError {
    EncodeError::Library { encoder: "Opus", said: said.to_string() }
}
