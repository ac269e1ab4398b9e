//! Holds: samples of one kind made into samples of another, from bytes that are split anywhere.

use crate::{
    format::{PcmSpec, SAMPLE_BYTES},
    resample::Resampler,
};

/// Takes bytes of one kind and gives samples of another: other channels, another rate.
#[derive(Debug)]
pub(crate) struct Reshaper {
    from: PcmSpec,
    channels: u16,
    resampler: Option<Resampler>,
    /// The beginning of a moment whose end has not come; less than one moment.
    begun: Vec<u8>,
}

impl Reshaper {
    /// Both are sane.
    pub(crate) fn new(from: PcmSpec, to: PcmSpec) -> Self {
        let resampler = (from.rate != to.rate).then(|| Resampler::new(from.rate, to.rate, to.channels));
        Self { from, channels: to.channels, resampler, begun: Vec::new() }
    }

    /// The samples that are complete by now.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<i16> {
        let frame = self.from.frame_bytes();
        let mut mixed = Vec::with_capacity(bytes.len() / SAMPLE_BYTES);
        let mut rest = bytes;
        if !self.begun.is_empty() {
            let (missing, after) = bytes.split_at((frame - self.begun.len()).min(bytes.len()));
            self.begun.extend_from_slice(missing);
            rest = after;
            if self.begun.len() == frame {
                mix(&self.begun, self.from.channels, self.channels, &mut mixed);
                self.begun.clear();
            }
        }
        let (whole, begun) = rest.split_at(rest.len() - rest.len() % frame);
        mix(whole, self.from.channels, self.channels, &mut mixed);
        self.begun.extend_from_slice(begun);
        let Some(resampler) = &mut self.resampler else { return mixed };
        let mut out = Vec::new();
        resampler.push(&mixed, &mut out);
        out
    }

    /// What is still held. The beginning of a moment that never ended is dropped.
    pub(crate) fn finish(&mut self) -> Vec<i16> {
        let mut out = Vec::new();
        if let Some(resampler) = &mut self.resampler {
            resampler.finish(&mut out);
        }
        out
    }
}

/// Bytes of samples, as they lie in PCM and WAV.
pub(crate) fn to_bytes(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|sample| sample.to_le_bytes()).collect()
}

/// One channel is the mean of all, or stands in all; else those that both have are kept and the rest is silent.
fn mix(bytes: &[u8], from: u16, to: u16, out: &mut Vec<i16>) {
    let (from, to) = (usize::from(from), usize::from(to));
    for frame in bytes.chunks_exact(from * SAMPLE_BYTES) {
        let mut samples = frame.as_chunks::<SAMPLE_BYTES>().0.iter().map(|bytes| i16::from_le_bytes(*bytes));
        if from == to {
            out.extend(samples);
        } else if to == 1 {
            let sum: i32 = samples.map(i32::from).sum();
            out.push((sum / from as i32) as i16);
        } else if from == 1 {
            out.extend(std::iter::repeat_n(samples.next().unwrap_or_default(), to));
        } else {
            out.extend(samples.chain(std::iter::repeat(0)).take(to));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Reshaper, to_bytes};
    use crate::format::PcmSpec;

    #[test]
    fn channels_are_mixed_and_doubled_whatever_the_splits() {
        let cases: [(u16, u16, &[i16], &[i16]); 4] = [
            (2, 1, &[100, 300, -5, -7], &[200, -6]),
            (1, 2, &[4, -9], &[4, 4, -9, -9]),
            (2, 2, &[1, 2, 3, 4], &[1, 2, 3, 4]),
            (4, 2, &[1, 2, 3, 4], &[1, 2]),
        ];
        for (from, to, samples, wanted) in cases {
            let spec = |channels| PcmSpec { rate: 24_000, channels };
            for split in 1..=8 {
                let mut reshaper = Reshaper::new(spec(from), spec(to));
                let mut got = Vec::new();
                for piece in to_bytes(samples).chunks(split) {
                    got.extend(reshaper.push(piece));
                }
                got.extend(reshaper.finish());
                assert_eq!(got, wanted, "{from} to {to} channels in pieces of {split}");
            }
        }
    }
}
