//! Holds: the pictures that a request brings, to be changed: looked at before anything is asked.

use std::{borrow::Cow, io::BufReader, ops::ControlFlow, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use batchin_media::{ImageFacts, MOST_PIXELS, probe_image_in};
use batchin_openai::{InvalidRequest, each_member};
use batchin_upstream::{Content, Upload};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::probing::apart;

/// OpenAI's limit on the pictures of one call, the mask aside.
pub const MAX_SHOWN: usize = 16;

const IMAGE: &str = "image";
const MASK: &str = "mask";

/// Pictures to be changed. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shown {
    pub(crate) uploads: Vec<Arc<Upload>>,
    /// Pixels of the largest.
    pub(crate) pixels: u64,
}

/// What a request brings, before it is looked at.
#[derive(Default)]
pub struct Brought {
    /// What is to be changed, in order.
    pub images: Vec<Content>,
    /// Where it is to be changed.
    pub mask: Option<Content>,
}

impl Shown {
    /// Looks at what came as files.
    ///
    /// # Errors
    ///
    /// One of them is no picture that is read here, or there are none or too many.
    pub async fn read(brought: Brought) -> Result<Self, InvalidRequest> {
        apart(|| Self::of(brought)).await.unwrap_or_else(|| Err(unread()))
    }

    /// Looks at what a JSON body has in it, without keeping others waiting.
    pub(crate) async fn in_body(body: Bytes) -> Result<Self, InvalidRequest> {
        apart(move || Self::of_body(&body)).await.unwrap_or_else(|| Err(unread()))
    }

    /// The same, at once.
    pub(crate) fn of_body(body: &[u8]) -> Result<Self, InvalidRequest> {
        Self::of(brought_in(body)?)
    }

    fn of(Brought { images, mask }: Brought) -> Result<Self, InvalidRequest> {
        let count = images.len();
        if count == 0 {
            let message = "`image` is required: send multipart/form-data, or a data URI in JSON";
            return Err(InvalidRequest::at(IMAGE, message));
        }
        if count > MAX_SHOWN {
            return Err(InvalidRequest::at(IMAGE, format!("`image` stands for {count} pictures; at most {MAX_SHOWN}")));
        }
        // OpenAI's name for one of several.
        let field = if count == 1 { IMAGE } else { "image[]" };
        let (mut uploads, mut most) = (Vec::with_capacity(count + 1), 0);
        let images = images.into_iter().map(|content| (field, IMAGE, content));
        for (field, member, content) in images.chain(mask.map(|content| (MASK, MASK, content))) {
            let (upload, pixels) = looked_at(field, member, content)?;
            uploads.push(Arc::new(upload));
            most = most.max(pixels);
        }
        Ok(Self { uploads, pixels: most })
    }
}

fn looked_at(field: &'static str, member: &str, content: Content) -> Result<(Upload, u64), InvalidRequest> {
    // What servers are told of a file is what was found in it, not what a client says.
    let bare = Arc::new(Upload { field, content, name: String::new(), content_type: String::new() });
    let facts = probe_image_in(BufReader::new(bare.reader()));
    let ImageFacts { format, width, height } =
        facts.map_err(|cause| InvalidRequest::at(member, format!("`{member}` cannot be seen: {cause}")))?;
    let pixels = u64::from(width) * u64::from(height);
    if pixels > MOST_PIXELS {
        let message = format!("`{member}` has {width} by {height} pixels; at most {MOST_PIXELS} together");
        return Err(InvalidRequest::at(member, message));
    }
    let mut upload = Arc::into_inner(bare).ok_or_else(unread)?;
    upload.name = format!("{member}.{}", format.name());
    format.content_type().clone_into(&mut upload.content_type);
    Ok((upload, pixels))
}

fn unread() -> InvalidRequest {
    InvalidRequest::at(IMAGE, "`image` could not be read; send it again")
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Named<'a> {
    Uri(#[serde(borrow)] Cow<'a, str>),
    Part {
        #[serde(borrow)]
        image_url: Cow<'a, str>,
    },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Images<'a> {
    One(#[serde(borrow)] Named<'a>),
    Several(#[serde(borrow)] Vec<Named<'a>>),
}

/// The pictures of a JSON body: `image`, or OpenAI's `images`, and `mask`, each once.
fn brought_in(body: &[u8]) -> Result<Brought, InvalidRequest> {
    let (mut images, mut mask, mut again) = (None::<(&str, &RawValue)>, None::<&RawValue>, None);
    each_member(std::str::from_utf8(body).unwrap_or_default(), |key, value| {
        let before = match key.as_ref() {
            "image" => images.replace((IMAGE, value)).is_some(),
            "image[]" => images.replace(("image[]", value)).is_some(),
            "images" => images.replace(("images", value)).is_some(),
            MASK => mask.replace(value).is_some(),
            _ => false,
        };
        if before {
            again = Some(key.into_owned());
        }
        ControlFlow::Continue(())
    })?;
    if let Some(name) = again {
        let message = format!("`{name}` stands in the body more than once, or beside another name of it; send it once");
        return Err(InvalidRequest::at(name, message));
    }
    let listed = match images.filter(|(_, value)| value.get() != "null") {
        None => Vec::new(),
        Some((member, value)) => match serde_json::from_str(value.get()) {
            Ok(Images::One(one)) => vec![content(member, one)?],
            Ok(Images::Several(several)) if several.len() <= MAX_SHOWN => {
                several.into_iter().map(|one| content(member, one)).collect::<Result<_, _>>()?
            }
            Ok(Images::Several(several)) => {
                let message = format!("`{member}` has {} pictures; at most {MAX_SHOWN}", several.len());
                return Err(InvalidRequest::at(member, message));
            }
            Err(_) => return Err(no_uri(member)),
        },
    };
    let mask = mask.filter(|value| value.get() != "null");
    let mask = mask.map(|value| content(MASK, serde_json::from_str(value.get()).map_err(|_| no_uri(MASK))?));
    Ok(Brought { images: listed, mask: mask.transpose()? })
}

fn content(member: &str, named: Named<'_>) -> Result<Content, InvalidRequest> {
    let (Named::Uri(uri) | Named::Part { image_url: uri }) = named;
    let inside = uri.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,"));
    let (_, encoded) = inside.ok_or_else(|| no_uri(member))?;
    let bytes = STANDARD
        .decode(encoded)
        .map_err(|_| InvalidRequest::at(member, format!("`{member}` is not the base64 that its data URI says")))?;
    Ok(Content::Memory(bytes.into()))
}

fn no_uri(member: &str) -> InvalidRequest {
    let message = format!(
        "`{member}` must be a data URI such as \"data:image/png;base64,…\", or a list of them; addresses are not fetched"
    );
    InvalidRequest::at(member, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first bytes of a PNG of this size, which are all that is looked at.
    fn png(width: u32, height: u32) -> String {
        let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        bytes.extend([width.to_be_bytes(), height.to_be_bytes()].concat());
        bytes.extend([8, 2, 0, 0, 0, 0, 0, 0, 0]);
        format!("data:image/x;base64,{}", STANDARD.encode(bytes))
    }

    #[test]
    fn pictures_are_found_in_every_form() {
        let (small, large) = (png(64, 32), png(128, 64));
        for (body, fields, pixels) in [
            (format!(r#"{{"image":"{small}"}}"#), vec!["image"], 2_048),
            (format!(r#"{{"image":["{small}","{large}"]}}"#), vec!["image[]"; 2], 8_192),
            (format!(r#"{{"image[]":["{small}"],"mask":"{large}"}}"#), vec!["image", "mask"], 8_192),
            (
                format!(r#"{{"images":[{{"image_url":"{small}"}}],"mask":{{"image_url":"{small}"}}}}"#),
                vec!["image", "mask"],
                2_048,
            ),
            (format!(r#"{{"image":"{small}","mask":null}}"#), vec!["image"], 2_048),
        ] {
            let shown = Shown::of_body(body.as_bytes()).unwrap();
            assert_eq!(shown.uploads.iter().map(|upload| upload.field).collect::<Vec<_>>(), fields, "{body}");
            assert_eq!(shown.pixels, pixels);
            assert!(shown.uploads.iter().all(|upload| upload.content_type == "image/png"));
        }
    }

    #[test]
    fn what_is_no_picture_is_refused_by_its_member() {
        let small = png(64, 32);
        let many = vec![format!("\"{small}\""); 17].join(",");
        for (body, param, said) in [
            ("{}".to_owned(), "image", "is required"),
            (r#"{"image":null}"#.to_owned(), "image", "is required"),
            (r#"{"image":[]}"#.to_owned(), "image", "is required"),
            (r#"{"image":7}"#.to_owned(), "image", "must be a data URI"),
            (r#"{"image":"https://example.com/a.png"}"#.to_owned(), "image", "addresses are not fetched"),
            (r#"{"image":"file:///etc/passwd"}"#.to_owned(), "image", "addresses are not fetched"),
            (r#"{"images":[{"file_id":"file-1"}]}"#.to_owned(), "images", "must be a data URI"),
            (r#"{"image":"data:image/png;base64,*"}"#.to_owned(), "image", "is not the base64"),
            (r#"{"image":"data:image/png;base64,AAAA"}"#.to_owned(), "image", "PNG, JPEG or WebP"),
            (format!(r#"{{"image":"{small}","mask":"data:image/png;base64,"}}"#), "mask", "PNG, JPEG or WebP"),
            (format!(r#"{{"image":"{small}","images":["{small}"]}}"#), "images", "more than once"),
            (format!(r#"{{"image":[{many}]}}"#), "image", "at most 16"),
            (format!(r#"{{"image":"{}"}}"#, png(100_000, 100_000)), "image", "100000 by 100000"),
        ] {
            let fault = Shown::of_body(body.as_bytes()).unwrap_err();
            assert_eq!(fault.param.as_deref(), Some(param), "{}", fault.message);
            assert!(fault.message.contains(said), "{}", fault.message);
        }
    }
}
