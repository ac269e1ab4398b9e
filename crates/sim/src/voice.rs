//! Holds: what the simulated server sounds like: a tone, as long as its text. No speech.

use bytes::Bytes;
use serde_json::Value;

use crate::behaviour::Refusal;

/// Samples a second.
pub const RATE: u32 = 24_000;
/// What a character of a text lasts, in milliseconds.
pub const MS_PER_CHARACTER: u32 = 60;
/// Of the tone, in hertz.
const PITCH: f64 = 440.0;
/// A length that nobody knows yet.
const UNKNOWN: u32 = u32::MAX;

/// Samples of a tone: 16 bits, little-endian, one channel.
pub fn samples(ms: u32) -> Vec<u8> {
    let count = u64::from(ms) * u64::from(RATE) / 1_000;
    let at = |index: u64| (index as f64 / f64::from(RATE) * PITCH * std::f64::consts::TAU).sin() * 12_000.0;
    (0..count).flat_map(|index| (at(index) as i16).to_le_bytes()).collect()
}

/// The head of a WAV that is sent while it is made.
pub fn wav_head() -> Vec<u8> {
    let mut head = Vec::with_capacity(44);
    head.extend_from_slice(b"RIFF");
    head.extend_from_slice(&UNKNOWN.to_le_bytes());
    head.extend_from_slice(b"WAVEfmt ");
    for field in [16_u32.to_le_bytes(), [1, 0, 1, 0], RATE.to_le_bytes(), (RATE * 2).to_le_bytes(), [2, 0, 16, 0]] {
        head.extend_from_slice(&field);
    }
    head.extend_from_slice(b"data");
    head.extend_from_slice(&UNKNOWN.to_le_bytes());
    head
}

/// What a text sounds like: in OpenAI's call a WAV or samples, and nothing else; in CosyVoice's forms samples. In pieces
/// of a fifth of a second.
pub(crate) fn spoken(path: &str, body: &[u8]) -> Result<(&'static str, Vec<Bytes>), Refusal> {
    let (characters, head, kind) = if path.starts_with("/inference_") {
        // Enough of a form for a tone: the text stands in it, and how it is written adds little.
        (body.len().min(200), None, "")
    } else {
        let asked: Value = serde_json::from_slice(body).unwrap_or_default();
        let characters = asked["input"].as_str().unwrap_or_default().chars().count();
        match asked["response_format"].as_str() {
            Some("wav") | None => (characters, Some(wav_head()), "audio/wav"),
            Some("pcm") => (characters, None, "audio/pcm"),
            Some(_) => return Err(Refusal::vllm(400, "response_format: Input should be 'wav' or 'pcm'")),
        }
    };
    let tone = samples(u32::try_from(characters).unwrap_or(u32::MAX).saturating_mul(MS_PER_CHARACTER));
    let pieces = tone.chunks(RATE as usize * 2 / 5).map(Bytes::copy_from_slice);
    Ok((kind, head.into_iter().map(Bytes::from).chain(pieces).collect()))
}
