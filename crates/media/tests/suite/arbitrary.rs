//! Whatever bytes come, no reader panics, and none reads for long.

use std::{io::Cursor, sync::LazyLock};

use batchin_media::{ImageFormat, WavReader, convert_image, decode_to_pcm, probe_image, probe_sound, probe_video};
use proptest::prelude::*;

use crate::outside::{ffmpeg, place};

/// Real files, of which some bytes are changed.
static REAL: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let names = ["a.wav", "a.mp3", "a.ogg", "a.opus", "a.flac", "a.aac", "a.m4a", "a.webm"];
    let sounds = names.map(|name| {
        let file = place(name);
        ffmpeg(&["-f", "lavfi", "-i", "sine=duration=0.3", file.file.to_str().unwrap()]);
        std::fs::read(&file.file).unwrap()
    });
    let pictures = ["png", "mjpeg", "libwebp"].map(|codec| {
        let source = ["-f", "lavfi", "-i", "testsrc=size=32x32", "-frames:v", "1", "-c:v", codec];
        ffmpeg(&[source.as_slice(), &["-f", "image2pipe", "-"]].concat())
    });
    let fragments = ["-f", "lavfi", "-i", "testsrc=size=32x32:duration=1", "-movflags", "empty_moov+frag_keyframe"];
    let video = ffmpeg(&[fragments.as_slice(), &["-f", "mp4", "-"]].concat());
    sounds.into_iter().chain(pictures).chain([video]).collect()
});

/// Nothing to assert but that they return: an error is as good as facts.
fn read(bytes: &[u8]) {
    drop(probe_sound(Cursor::new(bytes)));
    drop(probe_video(Cursor::new(bytes)));
    drop(decode_to_pcm(bytes));
    drop(probe_image(bytes));
    drop(convert_image(bytes, ImageFormat::Png, 80));
    drop(WavReader::new().push(bytes, &mut Vec::new()));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn arbitrary_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..4_096)) {
        read(&bytes);
    }

    #[test]
    fn torn_files_are_read_without_a_panic(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        early in prop::collection::vec((0_usize..256, any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let mut bytes = which.get(&REAL).clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        for (at, byte) in early {
            bytes[at] = byte;
        }
        if is_cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        read(&bytes);
    }
}
