//! Holds: pictures: what they are, by their headers, and one format made into another.

use std::io::{BufRead, Cursor, Seek};

use bytes::Bytes;
use image::{DynamicImage, ImageEncoder as _, ImageReader, Limits, codecs};

/// A format of pictures, by its name in the `output_format` of a call that makes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ImageFormat {
    /// PNG, lossless.
    Png,
    /// JPEG, without transparency.
    Jpeg,
    /// WebP; written lossless, since nothing else writes it in this process.
    Webp,
}

/// What a picture is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageFacts {
    /// By its first bytes.
    pub format: ImageFormat,
    /// In pixels, at least 1.
    pub width: u32,
    /// In pixels, at least 1.
    pub height: u32,
}

/// The most pixels that are decoded: twice the largest picture that models make (4096 by 4096), 128 MB in memory.
pub const MOST_PIXELS: u64 = 2 * 4_096 * 4_096;
/// What decoding may allocate beside: colours of 16 bits, and what a decoder has for itself.
const MOST_DECODER_BYTES: u64 = MOST_PIXELS * 8 + (64 << 20);

/// Why a picture is not known or not converted.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// By its first bytes it is something else, or its header is broken.
    #[error("not a picture that is read; send PNG, JPEG or WebP")]
    NotRead,
    /// It would not fit into memory.
    #[error("a picture of {width} by {height} pixels is larger than the {MOST_PIXELS} that are read")]
    TooLarge {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
    },
    /// Its header is well, and what follows is not.
    #[error("the picture is broken")]
    Broken(#[source] image::ImageError),
    /// It could not be written.
    #[error("the picture could not be written as {}", format.name())]
    Encode {
        /// As what.
        format: ImageFormat,
        /// What the encoder said.
        #[source]
        source: image::ImageError,
    },
}

impl ImageFormat {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Png, Self::Jpeg, Self::Webp];

    /// As in a request: `png`, `jpeg`, `webp`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpeg",
            Self::Webp => "webp",
        }
    }

    /// The format of this name, in lower case as it stands in a request.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// What a `Content-Type` says of it.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Webp => "image/webp",
        }
    }

    const fn decoder(self) -> image::ImageFormat {
        match self {
            Self::Png => image::ImageFormat::Png,
            Self::Jpeg => image::ImageFormat::Jpeg,
            Self::Webp => image::ImageFormat::WebP,
        }
    }
}

/// What a picture is, by its headers alone.
pub fn probe_image(bytes: &[u8]) -> Result<ImageFacts, ImageError> {
    probe_image_in(Cursor::new(bytes))
}

/// The same of one that is read from its beginning, as far as its headers go.
pub fn probe_image_in(mut reader: impl BufRead + Seek) -> Result<ImageFacts, ImageError> {
    let format = match imagesize::reader_type(&mut reader) {
        Ok(imagesize::ImageType::Png) => ImageFormat::Png,
        Ok(imagesize::ImageType::Jpeg) => ImageFormat::Jpeg,
        Ok(imagesize::ImageType::Webp) => ImageFormat::Webp,
        _ => return Err(ImageError::NotRead),
    };
    reader.rewind().map_err(|_| ImageError::NotRead)?;
    let size = imagesize::reader_size(&mut reader).map_err(|_| ImageError::NotRead)?;
    let pixels = |size| u32::try_from(size).ok().filter(|size| *size > 0).ok_or(ImageError::NotRead);
    Ok(ImageFacts { format, width: pixels(size.width)?, height: pixels(size.height)? })
}

/// The same picture in another format. `quality`, 1 to 100, counts where the format loses anything: for JPEG. What is
/// transparent is white there. A picture of the format already is decoded too, so that what leaves is a whole one.
pub fn convert_image(bytes: &[u8], to: ImageFormat, quality: u8) -> Result<Bytes, ImageError> {
    let facts = probe_image(bytes)?;
    let ImageFacts { width, height, .. } = facts;
    if u64::from(width) * u64::from(height) > MOST_PIXELS {
        return Err(ImageError::TooLarge { width, height });
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), facts.format.decoder());
    let mut limits = Limits::default();
    // The decoder reads the header for itself, and may see another size in it.
    limits.max_image_width = Some(width);
    limits.max_image_height = Some(height);
    limits.max_alloc = Some(MOST_DECODER_BYTES);
    reader.limits(limits);
    let picture = reader.decode().map_err(ImageError::Broken)?;
    let mut out = Vec::new();
    let written = match to {
        ImageFormat::Png => picture.write_with_encoder(codecs::png::PngEncoder::new(&mut out)),
        ImageFormat::Webp => DynamicImage::ImageRgba8(picture.into_rgba8())
            .write_with_encoder(codecs::webp::WebPEncoder::new_lossless(&mut out)),
        ImageFormat::Jpeg => {
            let encoder = codecs::jpeg::JpegEncoder::new_with_quality(&mut out, quality.clamp(1, 100));
            let colours = on_white(picture);
            encoder.write_image(&colours, width, height, image::ExtendedColorType::Rgb8)
        }
    };
    written.map_err(|source| ImageError::Encode { format: to, source })?;
    Ok(out.into())
}

fn on_white(picture: DynamicImage) -> Vec<u8> {
    if !picture.color().has_alpha() {
        return picture.into_rgb8().into_raw();
    }
    let pixels = picture.into_rgba8().into_raw();
    let blend = |colour: u8, alpha: u8| {
        let (colour, alpha) = (u32::from(colour), u32::from(alpha));
        ((colour * alpha + 255 * (255 - alpha) + 127) / 255) as u8
    };
    let opaque = pixels
        .as_chunks::<4>()
        .0
        .iter()
        .flat_map(|[red, green, blue, alpha]| [blend(*red, *alpha), blend(*green, *alpha), blend(*blue, *alpha)]);
    opaque.collect()
}
