//! Holds: samples at another rate, as they come.
//!
//! A windowed sinc: each output sample is a sum over the input around its moment. The output begins with the input's first
//! moment and ends with its last one, so nothing is late and nothing is lost.

use std::sync::LazyLock;

/// Zero crossings of the sinc on each side. With [`KAISER_BETA`] images and aliases are 80 dB down.
const CROSSINGS: usize = 32;
/// Points of the table between two zero crossings; those between them are on a straight line, 100 dB from the curve.
const POINTS: usize = 512;
const KAISER_BETA: f64 = 8.0;
/// The part of the narrower band that passes; the rest is the filter's slope.
const PASSED: f64 = 0.95;

/// One side of the windowed sinc, and one point more for the line beyond the last.
static CURVE: LazyLock<Vec<f64>> = LazyLock::new(|| {
    let width = CROSSINGS as f64;
    (0..=CROSSINGS * POINTS + 1)
        .map(|point| {
            let x = point as f64 / POINTS as f64;
            let window = bessel(KAISER_BETA * (1.0 - (x / width).powi(2)).max(0.0).sqrt()) / bessel(KAISER_BETA);
            sinc(x) * if x < width { window } else { 0.0 }
        })
        .collect()
});

/// Changes the rate of interleaved samples.
#[derive(Debug)]
pub(crate) struct Resampler {
    from: u64,
    to: u64,
    channels: usize,
    /// Input moments on each side that count.
    reach: u64,
    /// Of the filter, as a part of the input's rate.
    cutoff: f64,
    /// Interleaved, from input moment `first` of the input with `reach` moments of silence before it.
    held: Vec<i16>,
    first: u64,
    /// Input moments that were pushed.
    pushed: u64,
    /// Output moments that were made.
    made: u64,
}

impl Resampler {
    /// From and to in Hz, neither of them 0; at least one channel.
    pub(crate) fn new(from: u32, to: u32, channels: u16) -> Self {
        let cutoff = (f64::from(to) / f64::from(from)).min(1.0) * PASSED;
        let reach = (CROSSINGS as f64 / cutoff).ceil() as u64;
        let channels = usize::from(channels);
        let held = vec![0; reach as usize * channels];
        Self { from: from.into(), to: to.into(), channels, reach, cutoff, held, first: 0, pushed: 0, made: 0 }
    }

    /// Whole moments in, those out that can be made by now.
    pub(crate) fn push(&mut self, samples: &[i16], out: &mut Vec<i16>) {
        self.held.extend_from_slice(samples);
        self.pushed += (samples.len() / self.channels) as u64;
        while self.moment() + self.reach < self.pushed {
            self.make(out);
        }
        self.forget();
    }

    /// The rest.
    pub(crate) fn finish(&mut self, out: &mut Vec<i16>) {
        let all = (self.pushed * self.to).div_ceil(self.from);
        self.held.resize(self.held.len() + (self.reach as usize + 1) * self.channels, 0);
        while self.made < all {
            self.make(out);
        }
    }

    /// The input moment at or before the next output moment.
    fn moment(&self) -> u64 {
        self.made * self.from / self.to
    }

    fn make(&mut self, out: &mut Vec<i16>) {
        let moment = self.moment();
        let beyond = (self.made * self.from % self.to) as f64 / self.to as f64;
        // Silence of `reach` moments stands before the first one, so this is the moment `reach` before.
        let start = (moment - self.first) as usize * self.channels;
        let around = self.held.get(start..).unwrap_or_default();
        let mut sums = [0.0; crate::format::MOST_CHANNELS as usize];
        for (nth, frame) in around.chunks_exact(self.channels).take(2 * self.reach as usize + 2).enumerate() {
            let weight = self.cutoff * curve(self.cutoff * (nth as f64 - self.reach as f64 - beyond).abs());
            for (sum, sample) in sums.iter_mut().zip(frame) {
                *sum += weight * f64::from(*sample);
            }
        }
        let rounded = sums.iter().take(self.channels).map(|sum| sum.round() as i16);
        out.extend(rounded);
        self.made += 1;
    }

    fn forget(&mut self) {
        let past = self.moment().min(self.pushed) - self.first;
        let samples = (past as usize * self.channels).min(self.held.len());
        self.held.drain(..samples);
        self.first += (samples / self.channels) as u64;
    }
}

fn curve(x: f64) -> f64 {
    let at = x * POINTS as f64;
    let point = at as usize;
    let (Some(here), Some(next)) = (CURVE.get(point), CURVE.get(point + 1)) else { return 0.0 };
    here + (next - here) * at.fract()
}

fn sinc(x: f64) -> f64 {
    let angle = std::f64::consts::PI * x;
    if angle == 0.0 { 1.0 } else { angle.sin() / angle }
}

/// The modified Bessel function of order 0, by its series, to the precision of an f64 for arguments up to 20.
fn bessel(x: f64) -> f64 {
    const TERMS: u32 = 50;
    let mut term = 1.0;
    let mut sum = 1.0;
    for nth in 1..=TERMS {
        term *= (x / (2.0 * f64::from(nth))).powi(2);
        sum += term;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::Resampler;

    fn tone(rate: u32, hertz: f64, moments: usize) -> Vec<i16> {
        let angle = |nth: usize| std::f64::consts::TAU * hertz * nth as f64 / f64::from(rate);
        (0..moments).map(|nth| (angle(nth).sin() * 12_000.0).round() as i16).collect()
    }

    fn resampled(samples: &[i16], from: u32, to: u32, piece: usize) -> Vec<i16> {
        let mut resampler = Resampler::new(from, to, 1);
        let mut out = Vec::new();
        for piece in samples.chunks(piece) {
            resampler.push(piece, &mut out);
        }
        resampler.finish(&mut out);
        out
    }

    #[test]
    fn a_tone_is_the_same_tone_at_another_rate() {
        for (from, to) in [(24_000, 48_000), (48_000, 24_000), (44_100, 24_000), (16_000, 24_000), (11_111, 48_000)] {
            let out = resampled(&tone(from, 440.0, from as usize / 2), from, to, 777);
            let wanted = tone(to, 440.0, out.len());
            let expected = (u64::from(from) / 2 * u64::from(to)).div_ceil(from.into());
            assert_eq!(out.len() as u64, expected, "{from} to {to}");
            let edge = to as usize / 100;
            let apart = out.iter().zip(&wanted).map(|(a, b)| (i32::from(*a) - i32::from(*b)).abs());
            let worst = apart.skip(edge).take(out.len() - 2 * edge).max();
            assert!(worst < Some(12), "{from} to {to}: {worst:?} apart");
        }
    }

    #[test]
    fn what_the_lower_rate_cannot_have_is_silent() {
        let out = resampled(&tone(48_000, 15_000.0, 24_000), 48_000, 24_000, 4_096);
        let loudest = out.iter().skip(500).take(11_000).map(|sample| sample.unsigned_abs()).max();
        assert!(loudest < Some(8), "an alias of {loudest:?}");
    }

    #[test]
    fn pieces_make_no_difference() {
        let samples = tone(22_050, 1_000.0, 5_000);
        assert_eq!(resampled(&samples, 22_050, 24_000, 1), resampled(&samples, 22_050, 24_000, 5_000));
    }
}
