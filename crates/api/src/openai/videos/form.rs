//! Holds: a film that is asked for by a form, as OpenAI's packages ask.

use batchin_domain::text::{NOT_STORABLE, is_storable};
use batchin_openai::Code;
use bytes::Bytes;
use futures::stream;
use multer::{Field, Multipart};

use crate::{
    error::ApiError,
    films::{Asked, seconds},
};

/// What is taken, in either form.
pub(super) const KNOWN: &[&str] = &["model", "prompt", "seconds", "size"];
/// Fields of one form; there are four.
const MAX_FIELDS: usize = 16;

/// Reads a form, whose bytes are here.
pub(super) async fn read(body: Bytes, boundary: String) -> Result<Asked, ApiError> {
    let mut form = Multipart::new(stream::iter([Ok::<_, std::convert::Infallible>(body)]), boundary);
    let mut asked = Asked::default();
    for _ in 0..MAX_FIELDS {
        let Some(field) = form.next_field().await.map_err(broken)? else { return Ok(asked) };
        let name = field.name().unwrap_or_default().to_owned();
        let is_again = match name.as_str() {
            "model" => asked.model.replace(text("model", field).await?).is_some(),
            "prompt" => asked.prompt.replace(text("prompt", field).await?).is_some(),
            "size" => asked.size.replace(text("size", field).await?).is_some(),
            "seconds" => asked.seconds.replace(seconds("seconds", &text("seconds", field).await?)?).is_some(),
            "input_reference" => return Err(no_reference()),
            _ => return Err(unknown(&name)),
        };
        if is_again {
            return Err(ApiError::invalid(name, "A field is given more than once."));
        }
    }
    Err(ApiError::new(Code::InvalidRequest, format!("The form has more than {MAX_FIELDS} fields.")))
}

async fn text(name: &'static str, field: Field<'_>) -> Result<String, ApiError> {
    let bytes = field.bytes().await.map_err(broken)?;
    let text = String::from_utf8(bytes.into());
    let text = text.map_err(|_| ApiError::invalid(name, format!("`{name}` is not UTF-8.")))?;
    if is_storable(&text) { Ok(text) } else { Err(ApiError::invalid(name, format!("`{name}` {NOT_STORABLE}."))) }
}

pub(super) fn no_reference() -> ApiError {
    ApiError::invalid("input_reference", "`input_reference` is not taken: films are made of texts here.")
}

fn unknown(name: &str) -> ApiError {
    let shown = batchin_domain::text::echo(name);
    let message = format!("`{shown}` is not known; this call takes {}.", KNOWN.join(", "));
    ApiError::invalid(shown, message)
}

fn broken(_: multer::Error) -> ApiError {
    ApiError::new(Code::InvalidRequest, "The body is not multipart/form-data as its content-type says.")
}
