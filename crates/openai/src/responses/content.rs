//! Holds: the content of an item, read in the protocol's parts and written in those of chats.

use serde_json::value::RawValue;

use super::{
    fault::Fault,
    json::Object,
    reading::{inner, is_text, members_of, needed_text, text, try_each},
};

/// The kinds of parts that are taken.
const PARTS: &str = "must be one of \"input_text\", \"output_text\", \"text\", \"refusal\", \"input_image\", \"input_file\" \
                     and \"input_audio\"";

/// What a content must be.
const CONTENT: &str = "must be a string or an array of content parts";

/// A part; texts are as they lie in the body.
#[derive(Debug)]
pub(super) enum Part<'a> {
    Text(&'a RawValue),
    Image { url: &'a RawValue, detail: Option<&'a RawValue> },
    File { data: &'a RawValue, name: Option<&'a RawValue> },
    Audio(&'a RawValue),
}

/// The parts of a content; a text is one.
pub(super) fn parts(content: &RawValue) -> Result<Vec<Part<'_>>, Fault> {
    if is_text(content) {
        return Ok(vec![Part::Text(content)]);
    }
    let mut parts = Vec::new();
    try_each(content, CONTENT, |_, item| {
        parts.push(part(item)?);
        Ok(())
    })?;
    Ok(parts)
}

fn part(item: &RawValue) -> Result<Part<'_>, Fault> {
    let names = ["type", "text", "refusal", "input_audio"];
    let Some([kind, said, refusal, audio]) = members_of(item.get(), names) else {
        return Err(Fault::at("", "must be an object with a `type`"));
    };
    match kind.map(RawValue::get) {
        Some(r#""input_text""# | r#""output_text""# | r#""text""#) => needed_text(".text", said).map(Part::Text),
        Some(r#""refusal""#) => needed_text(".refusal", refusal).map(Part::Text),
        Some(r#""input_image""#) => image(item),
        Some(r#""input_file""#) => file(item),
        Some(r#""input_audio""#) => match audio {
            Some(audio) if audio.get().starts_with('{') => Ok(Part::Audio(audio)),
            _ => Err(Fault::at(".input_audio", "must be an object with `data` and `format`")),
        },
        _ => Err(Fault::at(".type", PARTS)),
    }
}

fn image(item: &RawValue) -> Result<Part<'_>, Fault> {
    let [url, detail, file_id] = members_of(item.get(), ["image_url", "detail", "file_id"]).unwrap_or_default();
    if file_id.is_some() {
        return Err(Fault::at(
            ".file_id",
            "is not supported: no file is looked up; send the image as `image_url`, for example as a data URL",
        ));
    }
    let must = "is required: give the image's URL or a data URL as a string";
    let url = text(".image_url", url)?.ok_or_else(|| Fault::at(".image_url", must))?;
    Ok(Part::Image { url, detail: text(".detail", detail)? })
}

fn file(item: &RawValue) -> Result<Part<'_>, Fault> {
    let names = ["file_data", "filename", "file_url", "file_id"];
    let [data, name, url, id] = members_of(item.get(), names).unwrap_or_default();
    for (path, other) in [(".file_url", url), (".file_id", id)] {
        if other.is_some() {
            return Err(Fault::at(path, "is not supported: no file is fetched; send its content as `file_data`"));
        }
    }
    Ok(Part::File { data: needed_text(".file_data", data)?, name: text(".filename", name)? })
}

/// Adds a content as chats have it.
pub(super) fn write(out: &mut Vec<u8>, parts: &[Part<'_>]) {
    match parts {
        [] => out.extend_from_slice(b"\"\""),
        [Part::Text(text)] => out.extend_from_slice(text.get().as_bytes()),
        parts => {
            for (at, part) in parts.iter().enumerate() {
                out.push(if at == 0 { b'[' } else { b',' });
                out.append(&mut part.as_chat());
            }
            out.push(b']');
        }
    }
}

/// The texts of a content that has nothing else, joined, as they lie between the quotes of a JSON string.
pub(super) fn joined(parts: &[Part<'_>], between: &str) -> Result<String, Fault> {
    let mut all = String::new();
    for (at, part) in parts.iter().enumerate() {
        let Part::Text(text) = part else {
            return Err(
                Fault::at(".type", "must be one of \"output_text\", \"text\" and \"refusal\" here").within_item(at)
            );
        };
        if at > 0 {
            all.push_str(between);
        }
        all.push_str(inner(text));
    }
    Ok(all)
}

impl Part<'_> {
    fn as_chat(&self) -> Vec<u8> {
        let mut part = Object::with_capacity(64);
        match self {
            Self::Text(text) => {
                part.set("type", "\"text\"");
                part.set("text", text.get());
            }
            Self::Image { url, detail } => {
                let mut image = Object::with_capacity(url.get().len() + 32);
                image.set("url", url.get());
                if let Some(detail) = detail {
                    image.set("detail", detail.get());
                }
                part.set("type", "\"image_url\"");
                part.member("image_url").append(&mut image.finish());
            }
            Self::File { data, name } => {
                let mut file = Object::with_capacity(data.get().len() + 64);
                if let Some(name) = name {
                    file.set("filename", name.get());
                }
                file.set("file_data", data.get());
                part.set("type", "\"file\"");
                part.member("file").append(&mut file.finish());
            }
            Self::Audio(audio) => {
                part.set("type", "\"input_audio\"");
                part.set("input_audio", audio.get());
            }
        }
        part.finish()
    }
}
