//! Holds: forms as they arrive: fields, and a file.

use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, header::CONTENT_TYPE};
use multer::Multipart;
use serde_json::{Map, Value};

/// A form that has been read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReceivedForm {
    /// Its fields in order, but for the file.
    pub fields: Vec<(String, String)>,
    /// The file's bytes.
    pub file: Bytes,
    /// The file's name.
    pub filename: String,
    /// The file's media type.
    pub content_type: String,
    /// Files under other names: the name, the media type, the bytes.
    pub pictures: Vec<(String, String, Bytes)>,
}

impl ReceivedForm {
    /// Reads a body; `None` where it is no form.
    pub(crate) async fn of(headers: &HeaderMap, body: Bytes) -> Option<Self> {
        let boundary = multer::parse_boundary(headers.get(CONTENT_TYPE)?.to_str().ok()?).ok()?;
        let whole = stream::iter([Ok::<_, std::convert::Infallible>(body)]);
        let (mut form, mut found) = (Multipart::new(whole, boundary), Self::default());
        while let Some(field) = form.next_field().await.ok()? {
            let name = field.name()?.to_owned();
            if field.file_name().is_some() && name != "file" {
                let content_type = field.content_type()?.to_string();
                found.pictures.push((name, content_type, field.bytes().await.ok()?));
            } else if name == "file" {
                found.filename = field.file_name()?.to_owned();
                found.content_type = field.content_type()?.to_string();
                found.file = field.bytes().await.ok()?;
            } else {
                found.fields.push((name, field.text().await.ok()?));
            }
        }
        Some(found)
    }

    /// Its fields as members, as far as a simulated model reads them.
    pub(crate) fn members(&self) -> Bytes {
        let member = |(name, text): &(String, String)| {
            let value = match name.as_str() {
                "stream" => Value::Bool(text == "true"),
                "n" => text.parse::<u32>().map_or(Value::Null, Value::from),
                _ => text.as_str().into(),
            };
            (name.clone(), value)
        };
        let is_read =
            |name: &str| ["model", "stream", "response_format", "prompt", "n", "size", "output_format"].contains(&name);
        let read = self.fields.iter().filter(|(name, _)| is_read(name));
        Value::Object(read.map(member).collect::<Map<_, _>>()).to_string().into()
    }
}
