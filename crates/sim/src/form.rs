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
}

impl ReceivedForm {
    /// Reads a body; `None` where it is no form.
    pub(crate) async fn of(headers: &HeaderMap, body: Bytes) -> Option<Self> {
        let boundary = multer::parse_boundary(headers.get(CONTENT_TYPE)?.to_str().ok()?).ok()?;
        let whole = stream::iter([Ok::<_, std::convert::Infallible>(body)]);
        let (mut form, mut found) = (Multipart::new(whole, boundary), Self::default());
        while let Some(field) = form.next_field().await.ok()? {
            let name = field.name()?.to_owned();
            if name == "file" {
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
            let value = if name == "stream" { Value::Bool(text == "true") } else { text.as_str().into() };
            (name.clone(), value)
        };
        let read =
            self.fields.iter().filter(|(name, _)| ["model", "stream", "response_format"].contains(&name.as_str()));
        Value::Object(read.map(member).collect::<Map<_, _>>()).to_string().into()
    }
}
