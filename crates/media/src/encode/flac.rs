//! Holds: FLAC, frame by frame.
//!
//! The library makes frames; the stream's header is written here, since the library's counts the short last block as the
//! smallest one, which decoders take for a stream of changing block sizes.

use flacenc::{
    bitsink::ByteSink,
    component::{BitRepr as _, StreamInfo},
    config,
    error::{Verified, Verify as _},
    source::{Fill as _, FrameBuf},
};

use super::codec::{Codec, EncodeError};
use crate::format::PcmSpec;

/// Moments of a block: what the reference encoder takes, a sixth of a second at 24 kHz.
const BLOCK: usize = 4096;
/// The shortest block that is predicted; shorter ones are written as they are.
const SHORTEST_PREDICTED: usize = 64;
const BITS: usize = 16;

/// Collects blocks and writes frames.
pub(crate) struct Flac {
    spec: PcmSpec,
    info: StreamInfo,
    config: Verified<config::Encoder>,
    plain: Verified<config::Encoder>,
    header: Vec<u8>,
    /// Interleaved; less than a block.
    held: Vec<i32>,
    frames: usize,
}

impl Flac {
    /// `moments` where they are known.
    pub(crate) fn new(spec: PcmSpec, moments: Option<u64>) -> Result<Self, EncodeError> {
        let info = StreamInfo::new(spec.rate as usize, spec.channels.into(), BITS).map_err(failed)?;
        let config = config::Encoder::default().into_verified().map_err(|(_, said)| failed(said))?;
        let mut plain = config::Encoder::default();
        plain.subframe_coding.use_fixed = false;
        plain.subframe_coding.use_lpc = false;
        let plain = plain.into_verified().map_err(|(_, said)| failed(said))?;
        let header = header(spec, moments.unwrap_or(0));
        Ok(Self { spec, info, config, plain, header, held: Vec::new(), frames: 0 })
    }

    fn write(&mut self, block: &[i32], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let channels = usize::from(self.spec.channels);
        let moments = block.len() / channels;
        let mut buffer = FrameBuf::with_size(channels, BLOCK).map_err(failed)?;
        buffer.resize(moments);
        buffer.fill_interleaved(block).map_err(failed)?;
        let config = if moments < SHORTEST_PREDICTED { &self.plain } else { &self.config };
        let frame = flacenc::encode_fixed_size_frame(config, &buffer, self.frames, &self.info).map_err(failed)?;
        let mut sink = ByteSink::new();
        frame.write(&mut sink).map_err(failed)?;
        out.extend_from_slice(sink.as_slice());
        self.frames += 1;
        Ok(())
    }
}

impl Codec for Flac {
    fn push(&mut self, samples: &[i16], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.append(&mut self.header);
        self.held.extend(samples.iter().map(|sample| i32::from(*sample)));
        let held = std::mem::take(&mut self.held);
        let blocks = held.chunks_exact(BLOCK * usize::from(self.spec.channels));
        self.held = blocks.remainder().to_vec();
        for block in blocks {
            self.write(block, out)?;
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.append(&mut self.header);
        let last = std::mem::take(&mut self.held);
        if last.is_empty() { Ok(()) } else { self.write(&last, out) }
    }
}

/// The mark and STREAMINFO (RFC 9639, section 8.2). A count of 0 is unknown, as are sizes of frames and the digest.
fn header(spec: PcmSpec, moments: u64) -> Vec<u8> {
    const LAST_BLOCK_STREAMINFO: u8 = 0x80;
    const STREAMINFO_BYTES: [u8; 3] = [0, 0, 34];
    const MOST_MOMENTS: u64 = (1 << 36) - 1;
    let moments = if moments > MOST_MOMENTS { 0 } else { moments };
    let packed = (u64::from(spec.rate) << 44)
        | (u64::from(spec.channels.saturating_sub(1)) << 41)
        | ((BITS as u64 - 1) << 36)
        | moments;
    let mut header = b"fLaC".to_vec();
    header.push(LAST_BLOCK_STREAMINFO);
    header.extend(STREAMINFO_BYTES);
    header.extend((BLOCK as u16).to_be_bytes());
    header.extend((BLOCK as u16).to_be_bytes());
    header.extend([0; 6]);
    header.extend(packed.to_be_bytes());
    header.extend([0; 16]);
    header
}

fn failed(said: impl ToString) -> EncodeError {
    EncodeError::Library { encoder: "FLAC", said: said.to_string() }
}
