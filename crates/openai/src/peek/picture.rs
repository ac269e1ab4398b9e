//! Holds: what the body of a call for pictures says in its own way.

use batchin_domain::{Counts, Measure};
use serde_json::value::RawValue;

use super::{Found, InputBound, InvalidRequest, Ways, scalar};
use crate::wanted::{PictureFormat, PictureTold, Pictures};

/// OpenAI's limit on the pictures of one call.
pub const MAX_PICTURES: u32 = 10;
/// OpenAI's limit on the prompt of one, in Unicode scalars.
pub const MAX_PICTURE_PROMPT: usize = 32_000;
/// The shortest side of a picture, in pixels: no model makes a smaller one.
const MIN_SIDE: u32 = 64;
/// The longest, in pixels.
const MAX_SIDE: u32 = 4_096;

/// What is made where nobody says a size, or `auto`: what a picture is priced by.
const USUAL_SIZE: (u32, u32) = (1_024, 1_024);
/// The most steps towards a picture; servers take some minutes for so many.
const MAX_STEPS: u32 = 200;
/// What OpenAI's `output_compression` is without one.
const USUAL_QUALITY: u32 = 100;

/// What stable-diffusion.cpp reads settings from, in the middle of a prompt: files on its disk, and how long it computes.
const SETTINGS_IN_A_PROMPT: &str = "<sd_cpp_extra_args>";

/// Twice as many pixels as usual: what servers make of a picture whose new size nobody says, unless that is larger.
pub const USUAL_EDIT_PIXELS: u64 = 2 * 1_024 * 1_024;

pub(super) const WAYS: Ways =
    Ways { bound: |found| bound(found, false), check, least_output: 1, max_output: |_| None, echoes: false };

/// Of pictures that are changed, which are no members: `gateway` holds for their own pixels where nobody says a size.
pub(super) const EDIT_WAYS: Ways = Ways { bound: |found| bound(found, true), ..WAYS };

fn check(_: &Found<'_>, stream: bool) -> Result<(), InvalidRequest> {
    let message = "`stream` is not supported for pictures, which come when they are done; leave it out";
    if stream { Err(InvalidRequest::at("stream", message)) } else { Ok(()) }
}

/// No tokens: so many pictures, and all their pixels.
fn bound(found: &Found<'_>, edits: bool) -> Result<InputBound, InvalidRequest> {
    check_prompt(found.prompt)?;
    let pictures = u64::from(count(found)?);
    let each = size(found, edits)?.map_or(USUAL_EDIT_PIXELS, |(width, height)| u64::from(width) * u64::from(height));
    let pixels = pictures * each;
    scalar::count("num_inference_steps", found.num_inference_steps, 1..=MAX_STEPS)?;
    let made = Counts::NONE.with(Measure::Images, pictures).with(Measure::Pixels, pixels);
    Ok(InputBound { items: 1, made, ..InputBound::default() })
}

pub(super) fn wanted(found: &Found<'_>, edits: bool) -> Result<Pictures, InvalidRequest> {
    let quality = scalar::count("output_compression", found.output_compression, 0..=100)?.unwrap_or(USUAL_QUALITY);
    Ok(Pictures {
        most: count(found)?,
        size: size(found, edits)?,
        format: word("output_format", found.output_format, &PictureFormat::ALL, PictureFormat::name)?,
        quality: u8::try_from(quality.max(1)).unwrap_or(100),
        told: word("response_format", found.response_format, &PictureTold::ALL, PictureTold::name)?,
    })
}

fn count(found: &Found<'_>) -> Result<u32, InvalidRequest> {
    Ok(scalar::count("n", found.n, 1..=MAX_PICTURES)?.unwrap_or(1))
}

fn check_prompt(raw: Option<&RawValue>) -> Result<(), InvalidRequest> {
    let text = scalar::prompt_to_see(raw, MAX_PICTURE_PROMPT)?;
    if text.to_ascii_lowercase().contains(SETTINGS_IN_A_PROMPT) {
        let message =
            format!("`prompt` must not contain {SETTINGS_IN_A_PROMPT}, which a model server takes for settings");
        return Err(InvalidRequest::at("prompt", message));
    }
    Ok(())
}

/// Width and height. Some servers take them as members of their own too, which would be another size than is paid for.
fn size(found: &Found<'_>, edits: bool) -> Result<Option<(u32, u32)>, InvalidRequest> {
    const NAME: &str = "size";
    for (name, raw) in [("width", found.width), ("height", found.height)] {
        if raw.is_some() {
            return Err(InvalidRequest::at(
                name,
                format!("`{name}` is not taken; give both sides in `size`, as \"1024x768\""),
            ));
        }
    }
    let wrong = || {
        let message =
            format!("`size` must be \"WIDTHxHEIGHT\" in pixels, each from {MIN_SIDE} to {MAX_SIDE}, or \"auto\"");
        InvalidRequest::at(NAME, message)
    };
    let usual = (!edits).then_some(USUAL_SIZE);
    let Some(raw) = found.size else { return Ok(usual) };
    let text = serde_json::from_str::<&str>(raw.get()).map_err(|_| wrong())?;
    if text == "auto" {
        return Ok(usual);
    }
    let side = |digits: &str| {
        let is_plain = (2..=4).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|side| is_plain && (MIN_SIDE..=MAX_SIDE).contains(side))
    };
    let sides = text.split_once('x').and_then(|(width, height)| Some((side(width)?, side(height)?)));
    sides.map(Some).ok_or_else(wrong)
}

fn word<T: Copy>(
    name: &str,
    raw: Option<&RawValue>,
    all: &[T],
    named: impl Fn(T) -> &'static str,
) -> Result<Option<T>, InvalidRequest> {
    let Some(raw) = raw else { return Ok(None) };
    let said = serde_json::from_str::<&str>(raw.get()).ok();
    let found = all.iter().copied().find(|known| said == Some(named(*known)));
    found.map(Some).ok_or_else(|| {
        let known: Vec<_> = all.iter().map(|known| format!("\"{}\"", named(*known))).collect();
        InvalidRequest::at(name, format!("`{name}` must be one of {}", known.join(", ")))
    })
}
