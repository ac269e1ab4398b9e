//! Holds: WAV, read from bytes that come in pieces.
//!
//! Servers that stream write lengths that they do not know: 0, or the largest that the field holds. Such samples go on to
//! the end of the bytes.

use crate::format::PcmSpec;

/// What stands before the samples, at most. Those who add pictures and lists do so behind them.
const MOST_HEADER_BYTES: u64 = 1 << 20;
/// The longest description of samples that is defined is 40 bytes.
const MOST_FORMAT_BYTES: u32 = 1 << 10;
/// From here on a length is one that was not known: some write the largest signed number, less their header.
const UNKNOWN_FROM: u32 = 0x7fff_f000;

/// Why bytes are not a WAV that is read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WavError {
    /// They do not begin as one.
    #[error("not a WAV: it must begin with RIFF and WAVE")]
    NotWav,
    /// They ended, or went on, without samples.
    #[error("the WAV's header does not lead to any samples")]
    NoSamples,
    /// Samples came before what describes them, or the description is impossible.
    #[error("the WAV's samples are not described; it needs a sane fmt chunk before its data chunk")]
    NoFormat,
    /// Samples that are not read.
    #[error("WAV of kind {tag} with {bits} bits is not read; send PCM of 8 to 32 bits, or float of 32 or 64")]
    Kind {
        /// The format's number in RIFF.
        tag: u16,
        /// Bits of a sample.
        bits: u16,
    },
}

/// How one sample lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Unsigned, 8 bits.
    U8,
    /// Signed, of so many bytes: 2 to 4.
    Int(usize),
    F32,
    F64,
    /// A law of the telephone, 8 bits; counted and not decoded.
    Law(u16),
}

/// What a header says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) spec: PcmSpec,
    pub(crate) kind: Kind,
    /// Bytes of one moment.
    pub(crate) frame_bytes: usize,
    /// Bytes of samples, where whoever wrote it knew.
    pub(crate) data_bytes: Option<u64>,
}

/// Reads a header from pieces.
#[derive(Debug, Default)]
pub(crate) struct Header {
    at: At,
    /// The beginning of what is read next; at most [`MOST_FORMAT_BYTES`].
    begun: Vec<u8>,
    format: Option<Shape>,
    read: u64,
}

#[derive(Clone, Copy, Debug, Default)]
enum At {
    #[default]
    Riff,
    Chunk,
    Format(u32),
    Skip(u64),
}

impl Header {
    /// Takes from the front of `bytes` what belongs to the header. The shape comes when samples follow.
    pub(crate) fn push(&mut self, bytes: &mut &[u8]) -> Result<Option<Shape>, WavError> {
        while !bytes.is_empty() {
            if let At::Skip(left) = self.at {
                let skipped = left.min(bytes.len() as u64);
                self.take(bytes, skipped as usize)?;
                self.at = if skipped == left { At::Chunk } else { At::Skip(left - skipped) };
                continue;
            }
            let wanted = match self.at {
                At::Riff => 12,
                At::Format(length) => length as usize,
                At::Chunk | At::Skip(_) => 8,
            };
            let taken = self.take(bytes, wanted - self.begun.len())?;
            self.begun.extend_from_slice(taken);
            if self.begun.len() == wanted
                && let Some(shape) = self.next()?
            {
                return Ok(Some(shape));
            }
        }
        Ok(None)
    }

    fn take<'a>(&mut self, bytes: &mut &'a [u8], most: usize) -> Result<&'a [u8], WavError> {
        let (taken, rest) = bytes.split_at(most.min(bytes.len()));
        *bytes = rest;
        self.read += taken.len() as u64;
        if self.read > MOST_HEADER_BYTES { Err(WavError::NoSamples) } else { Ok(taken) }
    }

    /// With what was begun now whole.
    fn next(&mut self) -> Result<Option<Shape>, WavError> {
        let begun = std::mem::take(&mut self.begun);
        self.at = match self.at {
            At::Riff => {
                let is_wav = matches!(begun.first_chunk(), Some(b"RIFF" | b"RF64")) && begun.ends_with(b"WAVE");
                if !is_wav {
                    return Err(WavError::NotWav);
                }
                At::Chunk
            }
            At::Format(length) => {
                self.format = Some(described(&begun)?);
                // Chunks begin at even bytes.
                At::Skip(u64::from(length % 2))
            }
            At::Chunk | At::Skip(_) => {
                let (name, length) = begun.split_first_chunk::<4>().ok_or(WavError::NotWav)?;
                let length = u32::from_le_bytes(*length.first_chunk().ok_or(WavError::NotWav)?);
                match name {
                    b"data" => {
                        let mut shape = self.format.ok_or(WavError::NoFormat)?;
                        let is_known = length > 0 && length < UNKNOWN_FROM;
                        shape.data_bytes = is_known.then_some(length.into());
                        return Ok(Some(shape));
                    }
                    b"fmt " if (16..=MOST_FORMAT_BYTES).contains(&length) => At::Format(length),
                    b"fmt " => return Err(WavError::NoFormat),
                    _ => At::Skip(u64::from(length) + u64::from(length % 2)),
                }
            }
        };
        if let At::Skip(0) = self.at {
            self.at = At::Chunk;
        }
        Ok(None)
    }
}

fn described(format: &[u8]) -> Result<Shape, WavError> {
    const EXTENSIBLE: u16 = 0xfffe;
    let word = |at: usize| format.get(at..).and_then(|rest| rest.first_chunk()).map(|bytes| u16::from_le_bytes(*bytes));
    let rate = format.get(4..).and_then(|rest| rest.first_chunk()).map(|bytes| u32::from_le_bytes(*bytes));
    let (Some(tag), Some(channels), Some(rate), Some(align), Some(bits)) = (word(0), word(2), rate, word(12), word(14))
    else {
        return Err(WavError::NoFormat);
    };
    let tag = if tag == EXTENSIBLE { word(24).unwrap_or(tag) } else { tag };
    let kind = match (tag, bits) {
        (1, 8) => Kind::U8,
        (1, 16) => Kind::Int(2),
        (1, 24) => Kind::Int(3),
        (1, 32) => Kind::Int(4),
        (3, 32) => Kind::F32,
        (3, 64) => Kind::F64,
        (6 | 7, 8) => Kind::Law(tag),
        _ => return Err(WavError::Kind { tag, bits }),
    };
    let spec = PcmSpec { rate, channels };
    let frame_bytes = usize::from(channels) * usize::from(bits / 8);
    if !spec.is_sane() || usize::from(align) != frame_bytes {
        return Err(WavError::NoFormat);
    }
    Ok(Shape { spec, kind, frame_bytes, data_bytes: None })
}

/// Strips a WAV that comes in pieces of its header, and makes its samples 16-bit little-endian ones.
#[derive(Debug, Default)]
pub struct WavReader {
    header: Header,
    shape: Option<Shape>,
    /// Bytes of samples that are still to come, where that is known.
    left: Option<u64>,
    /// The beginning of a sample.
    begun: Vec<u8>,
}

impl WavReader {
    /// Before the first byte.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the samples are, once the header has been read.
    pub fn spec(&self) -> Option<PcmSpec> {
        self.shape.map(|shape| shape.spec)
    }

    /// Appends the samples that these bytes complete. What stands behind the samples is dropped.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), WavError> {
        let shape = match self.shape {
            Some(shape) => shape,
            None => {
                let Some(shape) = self.header.push(&mut bytes)? else { return Ok(()) };
                if let Kind::Law(tag) = shape.kind {
                    return Err(WavError::Kind { tag, bits: 8 });
                }
                self.left = shape.data_bytes;
                self.shape = Some(shape);
                shape
            }
        };
        if let Some(left) = &mut self.left {
            let inside = (*left).min(bytes.len() as u64);
            *left -= inside;
            bytes = bytes.get(..inside as usize).unwrap_or_default();
        }
        let width = shape.frame_bytes / usize::from(shape.spec.channels);
        if !self.begun.is_empty() {
            let (missing, rest) = bytes.split_at((width - self.begun.len()).min(bytes.len()));
            self.begun.extend_from_slice(missing);
            bytes = rest;
            if self.begun.len() < width {
                return Ok(());
            }
            out.extend(sample(shape.kind, &self.begun).to_le_bytes());
            self.begun.clear();
        }
        let samples = bytes.chunks_exact(width);
        self.begun.extend_from_slice(samples.remainder());
        if shape.kind == Kind::Int(2) {
            out.extend_from_slice(bytes.get(..bytes.len() - samples.remainder().len()).unwrap_or_default());
        } else {
            out.extend(samples.flat_map(|bytes| sample(shape.kind, bytes).to_le_bytes()));
        }
        Ok(())
    }

    /// Says that no more comes. An error where there was not even a header.
    pub fn finish(&self) -> Result<PcmSpec, WavError> {
        self.spec().ok_or(WavError::NoSamples)
    }
}

/// The bytes are as many as the kind has.
fn sample(kind: Kind, bytes: &[u8]) -> i16 {
    match kind {
        Kind::U8 => bytes.first().map_or(0, |byte| (i16::from(*byte) - 128) << 8),
        // The highest two bytes are the last ones.
        Kind::Int(_) => bytes.last_chunk().map_or(0, |high| i16::from_le_bytes(*high)),
        Kind::F32 => bytes.first_chunk().map_or(0, |bytes| rounded(f32::from_le_bytes(*bytes).into())),
        Kind::F64 => bytes.first_chunk().map_or(0, |bytes| rounded(f64::from_le_bytes(*bytes))),
        Kind::Law(_) => 0,
    }
}

/// Of a sample from -1 to 1; what is louder is clipped, and what is no number is silent.
pub(crate) fn rounded(sample: f64) -> i16 {
    (sample * 32_768.0).round() as i16
}

#[cfg(test)]
mod tests {
    use super::{WavError, WavReader};

    fn wav(tag: u16, bits: u16, length: u32, samples: &[u8]) -> Vec<u8> {
        let mut wav = b"RIFF\0\0\0\0WAVELIST\x03\0\0\0abc\0fmt \x10\0\0\0".to_vec();
        for number in [tag, 1, 24_000, 0, 0, 0, bits / 8, bits] {
            wav.extend(number.to_le_bytes());
        }
        wav.extend(b"data");
        wav.extend(length.to_le_bytes());
        wav.extend(samples);
        wav
    }

    fn read(wav: &[u8], piece: usize) -> Result<Vec<u8>, WavError> {
        let mut reader = WavReader::new();
        let mut out = Vec::new();
        for piece in wav.chunks(piece) {
            reader.push(piece, &mut out)?;
        }
        assert_eq!(reader.finish()?.rate, 24_000);
        Ok(out)
    }

    #[test]
    fn every_kind_of_sample_is_the_same_sound_in_any_pieces() {
        let half = 16_384_i16.to_le_bytes();
        let down = (-16_384_i16).to_le_bytes();
        let wanted = [half, down].concat();
        let float = [0.5_f32.to_le_bytes(), (-0.5_f32).to_le_bytes()].concat();
        let double = [0.5_f64.to_le_bytes(), (-0.5_f64).to_le_bytes()].concat();
        let cases: [(u16, u16, Vec<u8>); 6] = [
            (1, 8, vec![0xc0, 0x40]),
            (1, 16, wanted.clone()),
            (1, 24, [&[7], half.as_slice(), &[9], &down].concat()),
            (1, 32, [&[7, 7], half.as_slice(), &[9, 9], &down].concat()),
            (3, 32, float),
            (3, 64, double),
        ];
        for (tag, bits, samples) in cases {
            let known = samples.len() as u32;
            for length in [known, 0, u32::MAX, 0x7fff_ffff - 36] {
                for piece in 1..=9 {
                    let got = read(&wav(tag, bits, length, &samples), piece);
                    assert_eq!(got.as_ref(), Ok(&wanted), "{tag}, {bits} bits, length {length}, pieces of {piece}");
                }
            }
        }
    }

    #[test]
    fn what_stands_behind_the_samples_is_no_sound() {
        let samples = [1, 2, 3, 4];
        let mut wav = wav(1, 16, 4, &samples);
        wav.extend(b"LIST\x04\0\0\0abcd");
        assert_eq!(read(&wav, 7), Ok(samples.to_vec()));
    }

    #[test]
    fn floats_beyond_the_loudest_are_clipped() {
        let samples: Vec<u8> = [9.0_f32, -9.0, f32::NAN].iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let wanted: Vec<u8> = [i16::MAX, i16::MIN, 0].iter().flat_map(|sample| sample.to_le_bytes()).collect();
        assert_eq!(read(&wav(3, 32, 12, &samples), 100), Ok(wanted));
    }

    #[test]
    fn what_is_not_read_says_why() {
        assert_eq!(read(b"<html>, not sound", 3), Err(WavError::NotWav));
        assert_eq!(read(&wav(17, 4, 0, &[]), 100), Err(WavError::Kind { tag: 17, bits: 4 }));
        assert_eq!(read(b"RIFF\0\0\0\0WAVEdata\0\0\0\0", 100), Err(WavError::NoFormat));
        assert_eq!(read(b"RIFF\0\0\0\0WAVE", 100), Err(WavError::NoSamples));
        let endless = [b"RIFF\0\0\0\0WAVELIST\xff\xff\xff\x7f".as_slice(), &vec![0; 2 << 20]].concat();
        assert_eq!(read(&endless, 4_096), Err(WavError::NoSamples));
    }
}
