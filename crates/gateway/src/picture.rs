//! Holds: pictures that a server gave, looked at, in the format that was asked for, and kept.
//!
//! What is charged are the pictures that are here and their own pixels, at most what was held for.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use batchin_domain::{Counts, Measure};
use batchin_files::WriteFileError;
use batchin_media::{ImageError, ImageFacts, ImageFormat, convert_image, probe_image};
use batchin_openai::{GivenPictures, PictureFormat, PictureTold, Pictures, ToldPicture, Wanted, tell_pictures};
use batchin_upstream::{CallError, CallErrorKind, Retry};
use bytes::Bytes;
use tracing::warn;

use crate::{
    Gateway,
    probing::apart,
    shelf::{Kept, Order},
};

/// Pictures that are here, and not kept yet.
#[derive(Clone, Debug)]
pub(crate) struct MadePictures {
    pictures: Vec<Picture>,
    usage: Option<String>,
}

#[derive(Clone, Debug)]
struct Picture {
    bytes: Bytes,
    format: PictureFormat,
    size: (u32, u32),
    revised_prompt: Option<String>,
}

/// Looks at what a server gave, so that another one can be asked where it is no pictures.
pub(crate) async fn made(given: GivenPictures, wanted: Wanted) -> Result<MadePictures, CallError> {
    let bad = || CallError { kind: CallErrorKind::BadAnswer, retry: Retry::OtherReplica, client_error: None };
    let Wanted::Pictures(wanted) = wanted else { return Err(bad()) };
    MadePictures::of(given, wanted).await.map_err(|cause| {
        warn!(error = &cause as &dyn std::error::Error, "what a server gave for a picture is none");
        bad()
    })
}

impl MadePictures {
    /// Looks at what a server gave, and makes it into what was asked for.
    async fn of(given: GivenPictures, wanted: Pictures) -> Result<Self, ImageError> {
        let GivenPictures { pictures, usage } = given;
        let work = move || {
            let each = pictures.into_iter().map(|given| picture(&given.bytes, wanted, given.revised_prompt));
            each.collect::<Result<Vec<_>, _>>()
        };
        let pictures = apart(work).await.unwrap_or(Err(ImageError::NotRead))?;
        Ok(Self { pictures, usage })
    }

    /// How many, and of how many pixels.
    pub(crate) fn counts(&self) -> Counts {
        let pixels = self.pictures.iter().map(|picture| u64::from(picture.size.0) * u64::from(picture.size.1));
        // Their servers say how large they are.
        let pixels = pixels.fold(0, u64::saturating_add);
        Counts::NONE.with(Measure::Images, self.pictures.len() as u64).with(Measure::Pixels, pixels)
    }

    /// All of them together.
    pub(crate) fn bytes(&self) -> usize {
        self.pictures.iter().map(|picture| picture.bytes.len()).sum()
    }

    /// Keeps them; the answer that tells of them.
    pub(crate) async fn keep(
        self,
        gateway: &Gateway,
        order: &Order<'_>,
        wanted: Pictures,
    ) -> Result<(Bytes, Kept), WriteFileError> {
        let (shelf, now) = (gateway.shelf(), gateway.clock().now());
        let numbered = self.pictures.iter().enumerate();
        let files: Vec<_> = numbered
            .map(|(index, picture)| (format!("-{}.{}", index + 1, picture.format.name()), picture.bytes.clone()))
            .collect();
        let kept = shelf.keep((gateway.ids(), gateway.tasks()), order, &files).await?;
        let (by_address, as_is) = match wanted.told {
            Some(told) => (told == PictureTold::Url, told == PictureTold::Base64),
            None => (true, order.in_both),
        };
        let pictures = self.pictures.iter().zip(&kept.ids).map(|(picture, id)| ToldPicture {
            url: by_address.then(|| shelf.links.address(*id, now, shelf.lasts(order))),
            b64_json: as_is.then(|| STANDARD.encode(&picture.bytes)),
            revised_prompt: picture.revised_prompt.clone(),
        });
        let first = self.pictures.first();
        let (size, format) = first.map_or(((0, 0), ""), |first| (first.size, first.format.name()));
        let told: Vec<_> = pictures.collect();
        Ok((tell_pictures(order.created, &told, size, format, self.usage.as_deref()), kept))
    }
}

fn picture(bytes: &Bytes, wanted: Pictures, revised_prompt: Option<String>) -> Result<Picture, ImageError> {
    let ImageFacts { format, width, height } = probe_image(bytes)?;
    let size = (width, height);
    match wanted.format.map(as_made).filter(|asked| *asked != format) {
        None => Ok(Picture { bytes: bytes.clone(), format: as_told(format), size, revised_prompt }),
        Some(asked) => {
            let bytes = convert_image(bytes, asked, wanted.quality)?;
            Ok(Picture { bytes, format: as_told(asked), size, revised_prompt })
        }
    }
}

const fn as_made(format: PictureFormat) -> ImageFormat {
    match format {
        PictureFormat::Png => ImageFormat::Png,
        PictureFormat::Jpeg => ImageFormat::Jpeg,
        PictureFormat::Webp => ImageFormat::Webp,
    }
}

const fn as_told(format: ImageFormat) -> PictureFormat {
    match format {
        ImageFormat::Png => PictureFormat::Png,
        ImageFormat::Jpeg => PictureFormat::Jpeg,
        ImageFormat::Webp => PictureFormat::Webp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_a_server_made_up_are_counted_as_the_most() {
        let size = (u32::MAX, u32::MAX);
        let picture = || Picture { bytes: Bytes::new(), format: PictureFormat::Png, size, revised_prompt: None };
        let made = MadePictures { pictures: vec![picture(), picture()], usage: None };
        assert_eq!(made.counts().of(Measure::Pixels), u64::MAX);
    }
}
