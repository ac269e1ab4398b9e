//! Every format, whole and streamed, as ffmpeg hears it.

use std::convert::Infallible;

use batchin_media::{
    EncodeError, EncodeStreamError, Encoder, Encoding, PcmSpec, Programs, SoundFormat, StartError, encode_stream,
    encode_whole, formats,
};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::{
    outside::{decoded, ffprobe, kept},
    tones::{last_tone, sound},
};

const SPEECH: PcmSpec = PcmSpec { rate: 24_000, channels: 1 };
/// Neither whole blocks nor whole packets of anything.
const MOMENTS: u32 = 29_011;

/// Asserts that ffmpeg hears in these bytes what was encoded, as long to `apart_ms`.
fn check_sound(bytes: &[u8], encoding: &Encoding, format: SoundFormat, seconds: f64, apart_ms: f64) {
    let wanted = encoding.output();
    if format == SoundFormat::Pcm {
        let samples: Vec<i16> = bytes.as_chunks().0.iter().map(|sample| i16::from_le_bytes(*sample)).collect();
        let moments = samples.len() / usize::from(wanted.channels);
        assert!((moments as f64 / f64::from(wanted.rate) - seconds).abs() < 0.001);
        let one: Vec<i16> = samples.into_iter().step_by(wanted.channels.into()).collect();
        assert!(last_tone(&one, wanted.rate) > 0.8);
        return;
    }
    let file = kept(&format!("sound.{}", format.extension()), bytes);
    let facts = ffprobe(&file.file);
    let container = match format {
        SoundFormat::Opus => "ogg",
        other => other.name(),
    };
    assert_eq!(facts["format"]["format_name"], container);
    // ffmpeg counts Opus at 48 kHz, whatever was encoded.
    let rate = if format == SoundFormat::Opus { 48_000 } else { wanted.rate };
    assert_eq!(facts["streams"][0]["sample_rate"], rate.to_string(), "{format}");
    assert_eq!(facts["streams"][0]["channels"], wanted.channels, "{format}");
    let samples = decoded(&file.file, rate);
    let lasts = samples.len() as f64 / f64::from(rate);
    let apart = (lasts - seconds) * 1_000.0;
    assert!(apart.abs() < apart_ms, "{format} lasts {lasts} s, {apart} ms more than its input");
    let heard = last_tone(&samples, rate);
    assert!(heard > 0.5, "of the last tone of {format} {heard} is heard");
}

/// What the headers of a stream cannot say: where the frames of MP3 and AAC have silence.
fn apart_ms(format: SoundFormat, encoding: &Encoding, is_whole: bool) -> f64 {
    let rate = encoding.output().rate;
    match format {
        // Half a frame or one at the start, and at the end what fills up to two.
        SoundFormat::Mp3 if !is_whole => {
            f64::from(if rate < 32_000 { 3 * 576 } else { 2 * 1_152 }) * 1e3 / f64::from(rate)
        }
        SoundFormat::Aac => 50.0,
        _ => 0.1,
    }
}

async fn streamed(pcm: Vec<u8>, piece: usize, encoding: &Encoding, programs: &Programs) -> Vec<u8> {
    let pieces: Vec<_> = pcm.chunks(piece).map(|piece| Ok::<_, Infallible>(Bytes::copy_from_slice(piece))).collect();
    let encoder = Encoder::start(encoding, programs).unwrap();
    let out: Vec<Bytes> = encode_stream(stream::iter(pieces), encoder).try_collect().await.unwrap();
    assert!(out.iter().all(|bytes| !bytes.is_empty()));
    out.concat()
}

#[tokio::test]
async fn every_format_is_heard_as_it_was_whole_and_streamed() {
    let programs = Programs::find();
    assert_eq!(formats(&programs), SoundFormat::ALL);
    let specs = [SPEECH, PcmSpec { rate: 44_100, channels: 2 }, PcmSpec { rate: 16_000, channels: 1 }];
    for spec in specs {
        let seconds = f64::from(MOMENTS) / f64::from(spec.rate);
        for format in SoundFormat::ALL {
            let encoding = Encoding::new(spec, format);
            let pcm = sound(spec, MOMENTS);
            let whole = encode_whole(&pcm, &encoding, &programs).await.unwrap();
            check_sound(&whole, &encoding, format, seconds, apart_ms(format, &encoding, true));
            let streamed = streamed(pcm, 1_001, &encoding, &programs).await;
            check_sound(&streamed, &encoding, format, seconds, apart_ms(format, &encoding, false));
        }
    }
}

#[tokio::test]
async fn ffmpeg_makes_mp3_where_lame_is_missing() {
    let programs = Programs::find().without_lame();
    let encoding = Encoding::new(SPEECH, SoundFormat::Mp3);
    let pcm = sound(SPEECH, MOMENTS);
    let seconds = f64::from(MOMENTS) / 24_000.0;
    let whole = encode_whole(&pcm, &encoding, &programs).await.unwrap();
    check_sound(&whole, &encoding, SoundFormat::Mp3, seconds, apart_ms(SoundFormat::Mp3, &encoding, true));
    let streamed = streamed(pcm, 4_000, &encoding, &programs).await;
    check_sound(&streamed, &encoding, SoundFormat::Mp3, seconds, apart_ms(SoundFormat::Mp3, &encoding, false));
}

#[tokio::test]
async fn another_rate_and_one_channel_are_made_of_what_came() {
    let from = PcmSpec { rate: 44_100, channels: 2 };
    let seconds = f64::from(MOMENTS) / 44_100.0;
    for format in SoundFormat::ALL {
        let encoding = Encoding::new(from, format).at_rate(24_000).with_channels(1);
        let whole = encode_whole(&sound(from, MOMENTS), &encoding, &Programs::find()).await.unwrap();
        check_sound(&whole, &encoding, format, seconds, apart_ms(format, &encoding, true));
    }
}

#[tokio::test]
async fn lengths_at_the_edge_of_blocks_lose_nothing() {
    for moments in [0, 1, 17, 63, 64, 480, 481, 4_096, 4_097, 8_193] {
        let pcm: Vec<u8> = (0..moments).flat_map(|nth: i16| (nth * 3).to_le_bytes()).collect();
        for format in [SoundFormat::Flac, SoundFormat::Opus] {
            let encoding = Encoding::new(SPEECH, format);
            let whole = encode_whole(&pcm, &encoding, &Programs::none()).await.unwrap();
            let streamed = streamed(pcm.clone(), 100, &encoding, &Programs::none()).await;
            for bytes in [whole.to_vec(), streamed] {
                // ffmpeg has nothing to say of FLAC without a frame but that it failed.
                if moments == 0 && format == SoundFormat::Flac {
                    continue;
                }
                if format == SoundFormat::Opus {
                    let heard = decoded(&kept("sound", &bytes).file, 48_000);
                    assert_eq!(heard.len(), 2 * moments as usize, "{format}");
                } else {
                    let heard = decoded(&kept("sound", &bytes).file, 24_000);
                    let bytes: Vec<u8> = heard.iter().flat_map(|sample| sample.to_le_bytes()).collect();
                    assert_eq!(bytes, pcm, "{format} of {moments}");
                }
            }
        }
    }
}

#[tokio::test]
async fn the_header_of_a_streamed_wav_says_that_its_length_is_unknown() {
    let encoding = Encoding::new(SPEECH, SoundFormat::Wav);
    let streamed = streamed(sound(SPEECH, 1_000), 64, &encoding, &Programs::none()).await;
    assert_eq!((&streamed[4..8], &streamed[40..44]), ([0xff; 4].as_slice(), [0xff; 4].as_slice()));
    let whole = encode_whole(&sound(SPEECH, 1_000), &encoding, &Programs::none()).await.unwrap();
    assert_eq!(whole[4..8], 2_036_u32.to_le_bytes());
    assert_eq!(whole[40..44], 2_000_u32.to_le_bytes());
}

#[tokio::test]
async fn bytes_leave_before_the_sound_has_ended() {
    for format in SoundFormat::ALL {
        let encoder = Encoder::start(&Encoding::new(SPEECH, format), &Programs::find()).unwrap();
        let pcm = Bytes::from(sound(SPEECH, 24_000 * 4));
        let never_ends = stream::iter([Ok::<_, Infallible>(pcm)]).chain(stream::pending());
        let mut out = Box::pin(encode_stream(never_ends, encoder));
        let mut got = 0;
        while got < 2_000 {
            got += out.next().await.unwrap().unwrap().len();
        }
    }
}

#[tokio::test]
async fn a_format_that_cannot_be_made_names_those_that_can() {
    for format in [SoundFormat::Mp3, SoundFormat::Aac] {
        let error = Encoder::start(&Encoding::new(SPEECH, format), &Programs::none()).err().unwrap();
        let said = format!("{format} cannot be made here; ask for opus, flac, wav, pcm");
        assert_eq!(error.to_string(), said);
    }
    let too_many = PcmSpec { rate: 24_000, channels: 9 };
    let error = Encoder::start(&Encoding::new(too_many, SoundFormat::Wav), &Programs::none()).err().unwrap();
    assert!(matches!(error, StartError::BadSpec { spec } if spec == too_many));
}

#[tokio::test]
async fn a_program_that_fails_is_an_error_with_what_it_said() {
    use std::os::unix::fs::PermissionsExt as _;
    let scripts = [
        ("echo no such codec >&2; exit 3", "exit status: 3", "no such codec"),
        // Ends well, long before its input does.
        ("head -c 10; exit 0", "exit status: 0", ""),
        // Says more than a pipe holds before it reads anything.
        (
            "head -c 300000 /dev/zero | tr '\\0' x >&2; echo the end >&2; cat >/dev/null; exit 1",
            "exit status: 1",
            "the end",
        ),
    ];
    for (script, wanted_status, wanted) in scripts {
        let file = kept("ffmpeg", format!("#!/bin/sh\n{script}\n").as_bytes());
        std::fs::set_permissions(&file.file, std::fs::Permissions::from_mode(0o755)).unwrap();
        let programs = Programs::none().with_ffmpeg(file.file.clone());
        let encoder =
            Encoder::start(&Encoding::new(PcmSpec { rate: 48_000, channels: 1 }, SoundFormat::Aac), &programs).unwrap();
        let pieces = (0..20).map(|_| Ok::<_, Infallible>(Bytes::from(vec![1; 100_000])));
        let error = encode_stream(stream::iter(pieces), encoder).try_collect::<Vec<_>>().await.unwrap_err();
        let EncodeStreamError::Encode(EncodeError::ProgramFailed { program: "ffmpeg", status, said }) = error else {
            panic!("{script}: {error:?}");
        };
        assert_eq!(status, wanted_status, "{script}");
        assert!(said.ends_with(wanted) && said.len() <= 2 * 1024, "{script}: {said}");
    }
}

#[tokio::test]
async fn a_broken_input_is_told_apart_and_ends_the_stream() {
    for format in [SoundFormat::Mp3, SoundFormat::Flac] {
        let encoder = Encoder::start(&Encoding::new(SPEECH, format), &Programs::find()).unwrap();
        let broken = stream::iter([Ok(Bytes::from(vec![0; 3])), Err("the server died")]);
        let items: Vec<_> = encode_stream(broken, encoder).collect().await;
        assert!(matches!(items.last(), Some(Err(EncodeStreamError::Input("the server died")))), "{items:?}");
    }
}
