//! Holds: samples as they are, with a RIFF header before them or without.

use super::codec::{Codec, EncodeError};
use crate::{
    format::{PcmSpec, SAMPLE_BYTES},
    reshape::to_bytes,
};

/// The length of samples that are still coming, as everybody writes it who streams WAV.
const UNKNOWN: u32 = u32::MAX;
/// Bytes of the header after the field that counts them.
const HEADER_AFTER_LENGTH: u32 = 36;

/// Writes samples as they come.
pub(crate) struct Plain {
    header: Vec<u8>,
}

impl Plain {
    pub(crate) const fn pcm() -> Self {
        Self { header: Vec::new() }
    }

    /// `moments` where they are known.
    pub(crate) fn wav(spec: PcmSpec, moments: Option<u64>) -> Self {
        Self { header: header(spec, moments) }
    }
}

impl Codec for Plain {
    fn push(&mut self, samples: &[i16], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.append(&mut self.header);
        out.extend(to_bytes(samples));
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.append(&mut self.header);
        Ok(())
    }
}

fn header(spec: PcmSpec, moments: Option<u64>) -> Vec<u8> {
    const PCM: u16 = 1;
    const FORMAT_BYTES: u32 = 16;
    let frame = spec.frame_bytes();
    let length = moments.and_then(|moments| moments.checked_mul(frame as u64));
    // More than the field can say is said as if it were not known.
    let data = length.and_then(|length| u32::try_from(length).ok()).unwrap_or(UNKNOWN);
    let whole = if data == UNKNOWN { UNKNOWN } else { data.saturating_add(HEADER_AFTER_LENGTH) };
    let mut header = Vec::with_capacity(44);
    header.extend(b"RIFF");
    header.extend(whole.to_le_bytes());
    header.extend(b"WAVEfmt ");
    header.extend(FORMAT_BYTES.to_le_bytes());
    header.extend(PCM.to_le_bytes());
    header.extend(spec.channels.to_le_bytes());
    header.extend(spec.rate.to_le_bytes());
    header.extend(spec.rate.saturating_mul(frame as u32).to_le_bytes());
    header.extend((frame as u16).to_le_bytes());
    header.extend((SAMPLE_BYTES as u16 * 8).to_le_bytes());
    header.extend(b"data");
    header.extend(data.to_le_bytes());
    header
}
