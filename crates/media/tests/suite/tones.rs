//! Holds: sound whose end is heard by a tone that nothing else in it has.

use batchin_media::PcmSpec;

const BODY_HERTZ: f64 = 330.0;
const LAST_HERTZ: f64 = 1_500.0;
const LOUDNESS: f64 = 9_000.0;
const LAST_MS: u32 = 30;

/// So many moments of a low tone, of which the last 30 ms are a higher one, on all channels.
pub fn sound(spec: PcmSpec, moments: u32) -> Vec<u8> {
    let last = moments - spec.rate * LAST_MS / 1_000;
    let sample = |moment: u32| {
        let hertz = if moment < last { BODY_HERTZ } else { LAST_HERTZ };
        let angle = std::f64::consts::TAU * hertz * f64::from(moment) / f64::from(spec.rate);
        (angle.sin() * LOUDNESS) as i16
    };
    (0..moments).flat_map(|moment| vec![sample(moment).to_le_bytes(); spec.channels.into()].concat()).collect()
}

/// How loud the last tone is where it should be, as a part of what it was; `samples` are one channel.
pub fn last_tone(samples: &[i16], rate: u32) -> f64 {
    let window = (rate * LAST_MS / 1_000) as usize;
    let end = samples.len().saturating_sub(4 * window);
    let loudness = |piece: &[i16]| {
        let (mut re, mut im) = (0.0, 0.0);
        for (nth, sample) in piece.iter().enumerate() {
            let angle = std::f64::consts::TAU * LAST_HERTZ * nth as f64 / f64::from(rate);
            re += f64::from(*sample) * angle.cos();
            im += f64::from(*sample) * angle.sin();
        }
        2.0 * f64::hypot(re, im) / piece.len() as f64 / LOUDNESS
    };
    samples[end..].windows(window).step_by(window / 16).map(loudness).fold(0.0, f64::max)
}
