//! Videos that ffmpeg made, against what ffprobe counts in them.

use std::{fs::File, io::Cursor, time::Duration};

use batchin_media::{Mp4Error, VideoError, VideoFacts, probe_video};

use crate::outside::{ffmpeg, ffprobe, place};

fn made(frames: u32, arguments: &[&str]) -> (VideoFacts, u64) {
    let file = place("a.mp4");
    let frames = frames.to_string();
    let mut all = vec!["-f", "lavfi", "-i", "testsrc=size=96x64:rate=24", "-frames:v", &frames, "-pix_fmt", "yuv420p"];
    all.extend(arguments);
    all.push(file.file.to_str().unwrap());
    ffmpeg(&all);
    let counted = ffprobe(&file.file)["streams"][0]["nb_read_frames"].as_str().unwrap().parse().unwrap();
    (probe_video(File::open(&file.file).unwrap()).unwrap(), counted)
}

#[test]
fn frames_are_counted_in_every_kind_of_mp4() {
    let cases: [&[&str]; 5] = [
        &["-c:v", "libx264"],
        &["-c:v", "libx264", "-bf", "3", "-movflags", "+faststart"],
        &["-c:v", "libx264", "-movflags", "+frag_keyframe+empty_moov+default_base_moof", "-g", "10"],
        &["-c:v", "mpeg4"],
        &["-c:v", "libx264", "-f", "mov"],
    ];
    for arguments in cases {
        for frames in [2, 49, 121] {
            let (facts, counted) = made(frames, arguments);
            assert_eq!((facts.frames, counted), (frames.into(), frames.into()), "{arguments:?}");
            assert_eq!((facts.width, facts.height), (96, 64), "{arguments:?}");
            let wanted = Duration::from_secs_f64(f64::from(frames) / 24.0);
            assert!(facts.duration.abs_diff(wanted) < Duration::from_micros(100), "{arguments:?}: {facts:?}");
            assert!((facts.frame_rate.unwrap() - 24.0).abs() < 0.01, "{arguments:?}: {facts:?}");
        }
    }
}

#[test]
fn a_single_frame_lasts_as_long_as_its_rate_says() {
    let (facts, _) = made(1, &["-c:v", "libx264"]);
    assert_eq!(facts.frames, 1);
    assert_eq!(facts.lasting_at(24.0), Some(Duration::from_secs_f64(1.0 / 24.0)));
    assert_eq!(facts.lasting_at(0.0), None);
    assert_eq!(facts.lasting_at(f64::NAN), None);
}

#[test]
fn headers_that_lie_count_for_nothing() {
    let file = place("a.mp4");
    let source = "testsrc=size=96x64:rate=24:duration=2";
    ffmpeg(&["-f", "lavfi", "-i", source, "-c:v", "libx264", "-pix_fmt", "yuv420p", file.file.to_str().unwrap()]);
    let mut bytes = std::fs::read(&file.file).unwrap();
    for (name, duration_at) in [(b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)] {
        let at = bytes.windows(4).position(|four| four == name).unwrap() + duration_at;
        bytes[at..at + 4].copy_from_slice(&7_u32.to_be_bytes());
    }
    assert_eq!(probe_video(Cursor::new(&bytes)).unwrap().duration, Duration::from_secs(2));
    // More frames than there are bytes.
    let at = bytes.windows(4).position(|four| four == b"stsz").unwrap();
    bytes[at + 8..at + 12].copy_from_slice(&1_u32.to_be_bytes());
    bytes[at + 12..at + 16].copy_from_slice(&u32::MAX.to_be_bytes());
    let at = bytes.windows(4).position(|four| four == b"stts").unwrap();
    bytes[at + 12..at + 16].copy_from_slice(&u32::MAX.to_be_bytes());
    let error = probe_video(Cursor::new(&bytes)).unwrap_err();
    assert!(matches!(error, VideoError::NotRead(Mp4Error::Broken { name: "stsz" })), "{error:?}");
}

#[test]
fn what_is_no_video_says_why() {
    assert!(matches!(probe_video(Cursor::new(b"nothing at all")), Err(VideoError::NotRead(Mp4Error::NoTables))));
    let sound = place("a.m4a");
    ffmpeg(&["-f", "lavfi", "-i", "sine=duration=1", "-c:a", "aac", sound.file.to_str().unwrap()]);
    assert!(matches!(probe_video(File::open(&sound.file).unwrap()), Err(VideoError::NoFrames)));
}
