//! How long sounds last that ffmpeg made, against what it decodes of them.

use std::{fs::File, io::Cursor, time::Duration};

use batchin_media::{Container, Encoding, PcmSpec, Programs, SoundError, SoundFormat, encode_whole, probe_sound};

use crate::{
    outside::{decoded, ffmpeg, kept, place},
    tones::sound,
};

const SECONDS: &str = "3.217";

/// Makes a file with these arguments, and asserts that it is as long as ffmpeg decodes it, or as what it was made of.
fn check(name: &str, wanted: Container, rate: u32, arguments: &[&str]) {
    let file = place(name);
    let tone = format!("sine=frequency=440:sample_rate=44100:duration={SECONDS}");
    let mut all = vec!["-f", "lavfi", "-i", &tone, "-ac", "2"];
    all.extend(arguments);
    all.push(file.file.to_str().unwrap());
    ffmpeg(&all);
    let facts = probe_sound(File::open(&file.file).unwrap()).unwrap();
    assert_eq!((facts.format, facts.rate, facts.channels), (wanted, rate, 2), "{arguments:?}");
    let heard = decoded(&file.file, rate).len() as f64 / f64::from(rate);
    let true_one: f64 = SECONDS.parse().unwrap();
    let found = facts.duration.as_secs_f64();
    // ffmpeg decodes what M4A's tables cut off at the end.
    let apart = (found - heard).abs().min((found - true_one).abs());
    assert!(apart < 0.005, "{name} {arguments:?}: {found} s, of which ffmpeg hears {heard}");
}

#[test]
fn every_format_is_as_long_as_ffmpeg_hears_it() {
    let cases: [(&str, Container, u32, &[&str]); 17] = [
        ("a.wav", Container::Wav, 44_100, &[]),
        ("a.wav", Container::Wav, 44_100, &["-c:a", "pcm_s24le"]),
        ("a.wav", Container::Wav, 44_100, &["-c:a", "pcm_f32le"]),
        ("a.wav", Container::Wav, 8_000, &["-c:a", "pcm_mulaw", "-ar", "8000"]),
        ("a.mp3", Container::Mp3, 44_100, &["-c:a", "libmp3lame"]),
        ("a.mp3", Container::Mp3, 24_000, &["-c:a", "libmp3lame", "-ar", "24000", "-q:a", "4"]),
        ("a.mp3", Container::Mp3, 11_025, &["-c:a", "libmp3lame", "-ar", "11025"]),
        ("a.ogg", Container::Ogg, 48_000, &["-c:a", "libopus"]),
        ("a.ogg", Container::Ogg, 48_000, &["-c:a", "libopus", "-frame_duration", "60"]),
        ("a.ogg", Container::Ogg, 44_100, &["-c:a", "libvorbis"]),
        ("a.oga", Container::Ogg, 44_100, &["-c:a", "flac"]),
        ("a.flac", Container::Flac, 44_100, &[]),
        ("a.aac", Container::Aac, 44_100, &["-c:a", "aac"]),
        ("a.m4a", Container::Mp4, 44_100, &["-c:a", "aac"]),
        ("a.mp4", Container::Mp4, 48_000, &["-c:a", "libopus"]),
        ("a.webm", Container::Matroska, 48_000, &["-c:a", "libopus"]),
        ("a.webm", Container::Matroska, 44_100, &["-c:a", "libvorbis"]),
    ];
    for (name, container, rate, arguments) in cases {
        check(name, container, rate, arguments);
    }
}

#[test]
fn sound_is_found_beside_a_video() {
    let file = place("a.mp4");
    let sources =
        ["-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=2", "-f", "lavfi", "-i", "sine=duration=2"];
    let out = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "aac", file.file.to_str().unwrap()];
    ffmpeg(&[sources.as_slice(), &out].concat());
    let facts = probe_sound(File::open(&file.file).unwrap()).unwrap();
    assert_eq!((facts.format, facts.rate, facts.channels), (Container::Mp4, 44_100, 1));
    assert_eq!(facts.duration, Duration::from_secs(2));
}

#[test]
fn a_wav_from_a_pipe_is_counted_by_its_bytes() {
    let wav = ffmpeg(&["-f", "lavfi", "-i", "sine=sample_rate=24000:duration=1.5", "-f", "wav", "-"]);
    assert_eq!(wav[4..8], [0xff; 4], "ffmpeg knew the length");
    assert_eq!(probe_sound(Cursor::new(&wav)).unwrap().duration, Duration::from_millis(1_500));
    // Cut off, there is less, whatever any header says.
    let cut = &wav[..wav.len() - 24_000];
    assert_eq!(probe_sound(Cursor::new(cut)).unwrap().duration, Duration::from_millis(1_000));
}

#[test]
fn an_mp3_whose_tag_lies_is_counted_by_its_frames() {
    let mut mp3 = ffmpeg(&["-f", "lavfi", "-i", "sine=duration=2", "-write_xing", "1", "-f", "mp3", "-"]);
    let file = place("a.mp3");
    ffmpeg(&["-f", "lavfi", "-i", "sine=duration=2", "-id3v2_version", "0", file.file.to_str().unwrap()]);
    if let Ok(seekable) = std::fs::read(&file.file) {
        mp3 = seekable;
    }
    let tag = mp3.windows(4).position(|four| four == b"Info" || four == b"Xing").unwrap();
    mp3[tag + 8..tag + 12].copy_from_slice(&5_u32.to_be_bytes());
    let found = probe_sound(Cursor::new(&mp3)).unwrap().duration;
    assert!(found.abs_diff(Duration::from_secs(2)) < Duration::from_millis(5), "{found:?}");
}

#[test]
fn an_ogg_whose_last_page_lies_is_counted_by_its_packets() {
    let mut ogg = ffmpeg(&["-f", "lavfi", "-i", "sine=duration=2", "-c:a", "libopus", "-f", "ogg", "-"]);
    let last = ogg.windows(4).rposition(|four| four == b"OggS").unwrap();
    ogg[last + 6..last + 14].copy_from_slice(&400_u64.to_le_bytes());
    ogg[last + 22..last + 26].fill(0);
    let checksum = page_checksum(&ogg[last..]);
    ogg[last + 22..last + 26].copy_from_slice(&checksum.to_le_bytes());
    let found = probe_sound(Cursor::new(&ogg)).unwrap().duration;
    assert!(found >= Duration::from_millis(1_990), "{found:?}");
}

fn page_checksum(page: &[u8]) -> u32 {
    page.iter().fold(0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << 24, |crc, _| (crc << 1) ^ if crc >> 31 == 1 { 0x04c1_1db7 } else { 0 })
    })
}

#[tokio::test]
async fn what_was_made_here_is_as_long_as_it_was() {
    let spec = PcmSpec { rate: 24_000, channels: 1 };
    let pcm = sound(spec, 36_077);
    for format in SoundFormat::ALL.into_iter().filter(|format| *format != SoundFormat::Pcm) {
        let made = encode_whole(&pcm, &Encoding::new(spec, format), &Programs::find()).await.unwrap();
        let found = probe_sound(Cursor::new(&made)).unwrap().duration.as_secs_f64();
        let apart = found - 36_077.0 / 24_000.0;
        // Frames of AAC hold 21 ms at 48 kHz, and the first one is silent.
        let most = if format == SoundFormat::Aac { 0.05 } else { 0.000_021 };
        assert!(apart.abs() < most, "{format}: {apart} s more");
    }
}

#[test]
fn what_is_no_sound_is_told_what_is_read() {
    for bytes in [b"".as_slice(), b"{\"error\": \"no\"}", &[0; 5_000], b"<html></html>"] {
        let error = probe_sound(Cursor::new(bytes)).unwrap_err();
        assert!(matches!(error, SoundError::NotRead), "{error:?}");
        assert!(error.to_string().ends_with("send wav, mp3, aac, ogg (opus or vorbis), flac, mp4, m4a or webm"));
    }
    let silent = kept(
        "a.mp4",
        &ffmpeg(&["-f", "lavfi", "-i", "testsrc=duration=1", "-movflags", "empty_moov", "-f", "mp4", "-"]),
    );
    let error = probe_sound(File::open(&silent.file).unwrap()).unwrap_err();
    assert!(matches!(error, SoundError::NoSound { container: Container::Mp4 }), "{error:?}");
}
