//! Pictures, against what ffmpeg sees in them.

use batchin_media::{ImageError, ImageFacts, ImageFormat, convert_image, probe_image};

use crate::outside::{ffmpeg, ffprobe, kept};

/// A picture of 96 by 64 pixels that ffmpeg made.
fn made(codec: &str, pixels: &str) -> Vec<u8> {
    let source = ["-f", "lavfi", "-i", "testsrc=size=96x64", "-frames:v", "1", "-pix_fmt", pixels];
    ffmpeg(&[source.as_slice(), &["-c:v", codec, "-f", "image2pipe", "-"]].concat())
}

/// The picture as ffmpeg sees it: red, green, blue.
fn seen(bytes: &[u8], format: ImageFormat) -> Vec<u8> {
    let file = kept(&format!("a.{}", format.name()), bytes);
    ffmpeg(&["-i", file.file.to_str().unwrap(), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"])
}

#[test]
fn every_format_becomes_every_other() {
    let sources =
        [("png", "rgb24"), ("png", "rgba"), ("png", "gray16be"), ("mjpeg", "yuvj420p"), ("libwebp", "yuv420p")];
    for (codec, pixels) in sources {
        let source = made(codec, pixels);
        let facts = probe_image(&source).unwrap();
        assert_eq!((facts.width, facts.height), (96, 64), "{codec}");
        let before = seen(&source, facts.format);
        for to in ImageFormat::ALL {
            let converted = convert_image(&source, to, 95).unwrap();
            assert_eq!(probe_image(&converted).unwrap(), ImageFacts { format: to, width: 96, height: 64 });
            let file = kept(&format!("a.{}", to.name()), &converted);
            let facts = ffprobe(&file.file);
            assert_eq!((&facts["streams"][0]["width"], &facts["streams"][0]["height"]), (&96.into(), &64.into()));
            let after = seen(&converted, to);
            let sum: u64 = before.iter().zip(&after).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
            let apart = sum as f64 / before.len() as f64;
            assert!(before.len() == after.len() && apart < 10.0, "{codec} {pixels} to {}: {apart} apart", to.name());
        }
    }
}

#[test]
fn quality_makes_a_jpeg_smaller() {
    let source = made("png", "rgb24");
    let sizes = [100, 50, 1, 0].map(|quality| convert_image(&source, ImageFormat::Jpeg, quality).unwrap().len());
    assert!(sizes[0] > sizes[1] && sizes[1] > sizes[2] && sizes[2] == sizes[3], "{sizes:?}");
}

#[test]
fn what_is_transparent_is_white_in_a_jpeg() {
    let source = ["-f", "lavfi", "-i", "color=black@0.0:size=32x32,format=rgba", "-frames:v", "1"];
    let clear = ffmpeg(&[source.as_slice(), &["-c:v", "png", "-f", "image2pipe", "-"]].concat());
    let jpeg = convert_image(&clear, ImageFormat::Jpeg, 90).unwrap();
    assert!(seen(&jpeg, ImageFormat::Jpeg).iter().all(|colour| *colour > 250));
}

#[test]
fn a_bomb_is_refused_by_its_header() {
    let mut bomb = made("png", "rgb24");
    bomb[16..20].copy_from_slice(&60_000_u32.to_be_bytes());
    bomb[20..24].copy_from_slice(&60_000_u32.to_be_bytes());
    assert_eq!(probe_image(&bomb).unwrap().width, 60_000);
    let error = convert_image(&bomb, ImageFormat::Jpeg, 90).unwrap_err();
    assert!(matches!(error, ImageError::TooLarge { width: 60_000, height: 60_000 }), "{error:?}");
}

#[test]
fn what_is_no_picture_or_torn_is_an_error() {
    assert!(matches!(probe_image(b"GIF89a\x01\0\x01\0"), Err(ImageError::NotRead)));
    assert!(matches!(probe_image(b""), Err(ImageError::NotRead)));
    let png = made("png", "rgb24");
    assert!(matches!(convert_image(&png[..png.len() / 2], ImageFormat::Webp, 90), Err(ImageError::Broken(_))));
}
