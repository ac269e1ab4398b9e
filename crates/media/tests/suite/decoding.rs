//! Samples of what model servers answer with, against ffmpeg's.

use batchin_media::{Encoding, PcmSpec, Programs, SoundError, SoundFormat, decode_to_pcm, encode_whole};

use crate::{
    outside::{decoded, ffmpeg, kept, place},
    tones::{last_tone, sound},
};

const SPEC: PcmSpec = PcmSpec { rate: 24_000, channels: 1 };

#[test]
fn samples_are_those_that_ffmpeg_has() {
    let cases: [(&str, &[&str], f64); 8] = [
        ("a.wav", &["-c:a", "pcm_s16le"], 0.0),
        ("a.wav", &["-c:a", "pcm_f32le"], 1.0),
        ("a.wav", &["-c:a", "pcm_u8"], 0.0),
        ("a.flac", &[], 0.0),
        ("a.mp3", &["-c:a", "libmp3lame"], 20.0),
        ("a.ogg", &["-c:a", "libvorbis"], 20.0),
        ("a.ogg", &["-c:a", "libopus", "-ar", "48000"], 20.0),
        ("a.webm", &["-c:a", "libopus", "-ar", "48000"], 20.0),
    ];
    let input =
        kept("in.wav", &ffmpeg(&["-f", "lavfi", "-i", "sine=sample_rate=24000:duration=1.3", "-f", "wav", "-"]));
    for (name, arguments, most) in cases {
        let file = place(name);
        let mut all = vec!["-i", input.file.to_str().unwrap()];
        all.extend(arguments);
        all.push(file.file.to_str().unwrap());
        ffmpeg(&all);
        let found = decode_to_pcm(&std::fs::read(&file.file).unwrap()).unwrap();
        let wanted = decoded(&file.file, found.spec.rate);
        let samples: Vec<i16> = found.samples.as_chunks().0.iter().map(|sample| i16::from_le_bytes(*sample)).collect();
        assert_eq!(found.spec.channels, 1, "{name}");
        // A webm says in whole milliseconds where its sound ends.
        let tail = if name == "a.webm" { 960 } else { 0 };
        assert!(
            samples.len().abs_diff(wanted.len()) <= tail,
            "{name} {arguments:?}: {} of {}",
            samples.len(),
            wanted.len()
        );
        let apart = samples.iter().zip(&wanted).map(|(a, b)| f64::from(a.abs_diff(*b))).fold(0.0, f64::max);
        assert!(apart <= most, "{name} {arguments:?}: {apart} apart");
    }
}

#[tokio::test]
async fn one_format_becomes_another_and_keeps_its_end() {
    let pcm = sound(SPEC, 31_003);
    for from in [SoundFormat::Wav, SoundFormat::Flac, SoundFormat::Mp3, SoundFormat::Opus, SoundFormat::Aac] {
        let made = encode_whole(&pcm, &Encoding::new(SPEC, from), &Programs::find()).await.unwrap();
        let found = decode_to_pcm(&made).unwrap();
        let encoding = Encoding::new(found.spec, SoundFormat::Pcm).at_rate(24_000).with_channels(1);
        let back = encode_whole(&found.samples, &encoding, &Programs::none()).await.unwrap();
        let samples: Vec<i16> = back.as_chunks().0.iter().map(|sample| i16::from_le_bytes(*sample)).collect();
        let most = if from == SoundFormat::Aac { 1_200 } else { 0 };
        assert!(samples.len().abs_diff(31_003) <= most, "{from}: {} moments", samples.len());
        assert!(last_tone(&samples, 24_000) > 0.5, "{from}");
        if matches!(from, SoundFormat::Wav | SoundFormat::Flac) {
            assert_eq!(back, pcm, "{from}");
        }
    }
}

#[test]
fn what_is_no_sound_is_an_error() {
    assert!(matches!(decode_to_pcm(b"{\"error\": 1}"), Err(SoundError::NotRead)));
    assert!(matches!(decode_to_pcm(b"RIFF\0\0\0\0WAVE"), Err(SoundError::Broken { .. })));
}
