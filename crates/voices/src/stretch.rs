//! Holds: playing sound slower or faster at the same pitch, for speeds at which a voice cannot speak.

/// Parts of a second: overlapping windows of a thirtieth, about four periods of a low voice.
const WINDOWS_PER_SECOND: usize = 30;

/// How far a window may be moved to meet the one before in phase, in parts of a second: one period of a low voice.
const SEARCHES_PER_SECOND: usize = 100;

/// Every third place and sample is compared: enough for voices, and nine times less work.
const STRIDE: usize = 3;

/// s16le samples that last `factor` times as long, a quarter to four. Each window is taken where it continues the one before best.
pub(crate) fn stretch(pcm: &[u8], factor: f32, sample_rate: u32) -> Vec<u8> {
    let samples: Vec<f32> = pcm.as_chunks::<2>().0.iter().map(|bytes| f32::from(i16::from_le_bytes(*bytes))).collect();
    let rate = usize::try_from(sample_rate).unwrap_or(usize::MAX);
    let (half, search) = (rate / WINDOWS_PER_SECOND / 2, rate / SEARCHES_PER_SECOND / 2);
    if half == 0 || samples.len() < 2 * half + 2 * search {
        return pcm.to_vec();
    }
    let last = samples.len() - 2 * half;
    let length = (samples.len() as f32 * factor) as usize;
    let mut out = vec![0.0_f32; length + 2 * half];
    let mut follows = 0;
    for to in (0..length).step_by(half) {
        let wanted = ((to as f32 / factor) as usize).min(last);
        let from = if to == 0 { 0 } else { best(&samples, follows, (wanted, search, half), last) };
        let window = samples.get(from..from + 2 * half).unwrap_or_default();
        for (at, (sum, sample)) in out.get_mut(to..).unwrap_or_default().iter_mut().zip(window).enumerate() {
            // Rises and falls in straight lines, two of which add up to 1.
            let weight = at.min(2 * half - at) as f32 / half as f32;
            *sum += sample * if to == 0 && at < half { 1.0 } else { weight };
        }
        follows = (from + half).min(last);
    }
    out.truncate(length);
    // Saturates at the ends of i16.
    out.into_iter().flat_map(|sample| (sample as i16).to_le_bytes()).collect()
}

/// The place near `wanted` whose samples are most like those that follow the window before.
fn best(samples: &[f32], follows: usize, (wanted, search, half): (usize, usize, usize), last: usize) -> usize {
    let reference = samples.get(follows..follows + half).unwrap_or_default();
    let likeness = |from: usize| {
        let candidate = samples.get(from..from + half).unwrap_or_default();
        reference.iter().zip(candidate).step_by(STRIDE).map(|(a, b)| a * b).sum::<f32>()
    };
    let places = (wanted.saturating_sub(search)..=(wanted + search).min(last)).step_by(STRIDE);
    places.map(|from| (likeness(from), from)).max_by(|a, b| a.0.total_cmp(&b.0)).map_or(wanted, |(_, from)| from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tone_lasts_as_long_as_asked_and_keeps_its_pitch_and_loudness() {
        let tone: Vec<i16> = (0..22_050).map(|n| ((n as f32 * 0.05).sin() * 10_000.0) as i16).collect();
        let pcm: Vec<u8> = tone.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let crossings = |tone: &[i16]| tone.windows(2).filter(|pair| (pair[0] < 0) != (pair[1] < 0)).count() as f32;
        for factor in [1.8, 0.5] {
            let played = stretch(&pcm, factor, 22_050);
            let played: Vec<i16> =
                played.chunks_exact(2).map(|bytes| i16::from_le_bytes([bytes[0], bytes[1]])).collect();
            assert!((played.len() as f32 - 22_050.0 * factor).abs() < 3.0, "{}", played.len());
            let ratio = crossings(&played) / crossings(&tone);
            assert!((ratio - factor).abs() < 0.05, "{ratio}");
            let middle = &played[2_000..9_000];
            assert!(middle.chunks(400).all(|part| part.iter().any(|sample| *sample > 8_500)));
            assert!(played.iter().all(|sample| sample.abs() < 11_000));
        }
    }

    #[test]
    fn what_is_too_short_stays_as_it_is() {
        assert_eq!(stretch(&[1, 2, 3, 4], 1.8, 22_050), [1, 2, 3, 4]);
        assert_eq!(stretch(&[], 1.8, 0), Vec::<u8>::new());
    }
}
