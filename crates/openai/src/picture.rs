//! Holds: pictures in OpenAI's words: what a server's answer has in it, and the answer that leaves.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{answer::AnswerError, blank::says_something, error::upstream_error_message};

/// A picture as a server gave it.
#[derive(Clone, PartialEq, Eq)]
pub struct GivenPicture {
    /// Its bytes, in whatever format.
    pub bytes: Bytes,
    /// What the server made of the prompt.
    pub revised_prompt: Option<String>,
}

/// What a server gave.
#[derive(Clone, Debug, Default)]
pub struct GivenPictures {
    /// At least one.
    pub pictures: Vec<GivenPicture>,
    /// Tokens, where the server counts as OpenAI's models of pictures do; the JSON as it came.
    pub usage: Option<String>,
}

/// A picture as it is told.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ToldPicture {
    /// Where it can be fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// In base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub b64_json: Option<String>,
    /// What the server made of the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revised_prompt: Option<String>,
}

#[derive(Deserialize)]
struct Whole<'a> {
    #[serde(borrow)]
    data: Option<Vec<Item<'a>>>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow)]
    b64_json: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow)]
    url: Option<std::borrow::Cow<'a, str>>,
    revised_prompt: Option<String>,
}

/// Reads a whole answer: at most so many pictures, each in base64, or as a data URI. An address of the server's own is no
/// picture: who has asked could not fetch it, and we fetch nothing that a server names.
pub fn read_pictures(body: &[u8], most: u32) -> Result<GivenPictures, AnswerError> {
    let whole: Whole<'_> = serde_json::from_slice(body).map_err(|_| AnswerError::NotAnAnswer)?;
    let Some(items) = whole.data.filter(|items| !items.is_empty()) else {
        return Err(refused(body));
    };
    let pictures: Option<Vec<_>> = items.into_iter().take(most as usize).map(Item::into_picture).collect();
    let usage = whole.usage.filter(|usage| counts_as_openai_does(usage)).map(|usage| usage.get().to_owned());
    Ok(GivenPictures { pictures: pictures.ok_or(AnswerError::NotAnAnswer)?, usage })
}

/// The answer of a call that makes pictures. `size` and `format` are those of the first; `usage` is JSON.
pub fn tell_pictures(
    created: i64,
    pictures: &[ToldPicture],
    (width, height): (u32, u32),
    format: &str,
    usage: Option<&str>,
) -> Bytes {
    #[derive(Serialize)]
    struct Told<'a> {
        created: i64,
        data: &'a [ToldPicture],
        size: String,
        output_format: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        usage: Option<&'a RawValue>,
    }
    let usage = usage.and_then(|usage| serde_json::from_str(usage).ok());
    let told = Told { created, data: pictures, size: format!("{width}x{height}"), output_format: format, usage };
    // Nothing in it can fail to be written.
    serde_json::to_vec(&told).unwrap_or_default().into()
}

impl Item<'_> {
    fn into_picture(self) -> Option<GivenPicture> {
        let of_uri = || {
            let (head, data) = self.url.as_deref()?.split_once(";base64,")?;
            head.starts_with("data:image/").then_some(data)
        };
        let text = self.b64_json.as_deref().filter(|text| !text.is_empty()).or_else(of_uri)?;
        let bytes = STANDARD.decode(text).ok()?.into();
        Some(GivenPicture { bytes, revised_prompt: self.revised_prompt })
    }
}

/// A body without pictures.
fn refused(body: &[u8]) -> AnswerError {
    #[derive(Deserialize)]
    struct Said<'a> {
        #[serde(borrow)]
        error: Option<&'a RawValue>,
        #[serde(borrow)]
        detail: Option<&'a RawValue>,
        #[serde(borrow)]
        message: Option<&'a RawValue>,
    }
    let Ok(Said { error, detail, message }) = serde_json::from_slice(body) else { return AnswerError::NotAnAnswer };
    let says = [error, detail, message].into_iter().flatten().any(|said: &RawValue| says_something(said.get()));
    if says { AnswerError::Refused(upstream_error_message(500, body)) } else { AnswerError::NotAnAnswer }
}

/// Others count as for a chat, and zeros at that.
fn counts_as_openai_does(usage: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Counted {
        input_tokens: Option<u64>,
        output_tokens: Option<u64>,
    }
    let counted = serde_json::from_str::<Counted>(usage.get());
    counted.is_ok_and(|counted| counted.input_tokens.is_some() && counted.output_tokens.is_some())
}

/// The picture is a customer's and stays out of debug prints.
impl std::fmt::Debug for GivenPicture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GivenPicture").field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_read_from_each_server_s_words() {
        for (body, expected) in [
            // vLLM-Omni.
            (
                r#"{"created":1,"data":[{"b64_json":"AAEC","url":null,"revised_prompt":null}],"size":"8x8","metrics":{}}"#,
                1,
            ),
            // SGLang Diffusion.
            (
                r#"{"id":"a","data":[{"b64_json":"AAEC","url":null,"file_path":"/srv/x.png"}],"usage":{"prompt_tokens":0}}"#,
                1,
            ),
            // stable-diffusion.cpp.
            (r#"{"created":1,"output_format":"png","data":[{"b64_json":"AAEC"},{"b64_json":"AAEC"}]}"#, 2),
            // As a data URI.
            (r#"{"data":[{"url":"data:image/png;base64,AAEC"}]}"#, 1),
            // More than were asked for.
            (r#"{"data":[{"b64_json":"AAEC"},{"b64_json":"AAEC"},{"b64_json":"AAEC"}]}"#, 2),
        ] {
            let given = read_pictures(body.as_bytes(), 2).unwrap();
            assert_eq!(given.pictures.len(), expected, "{body}");
            assert!(
                given.pictures.iter().all(|picture| picture.bytes == [0, 1, 2][..] && picture.revised_prompt.is_none())
            );
            assert!(given.usage.is_none(), "{body}");
        }
        let counted =
            r#"{"data":[{"b64_json":"AAEC","revised_prompt":"a kite"}],"usage":{"input_tokens":9,"output_tokens":0}}"#;
        let given = read_pictures(counted.as_bytes(), 1).unwrap();
        assert_eq!(given.usage.as_deref(), Some(r#"{"input_tokens":9,"output_tokens":0}"#));
        assert_eq!(given.pictures[0].revised_prompt.as_deref(), Some("a kite"));
    }

    #[test]
    fn what_has_no_pictures_is_no_answer() {
        for body in [
            "",
            "[]",
            "{}",
            r#"{"data":[]}"#,
            r#"{"data":[{}]}"#,
            r#"{"data":[{"url":"/v1/images/1/content"}]}"#,
            r#"{"data":[{"b64_json":"*"}]}"#,
            r#"{"data":[{"b64_json":"AAEC"},{"url":"https://x/y.png"}]}"#,
        ] {
            assert_eq!(read_pictures(body.as_bytes(), 2).unwrap_err(), AnswerError::NotAnAnswer, "{body}");
        }
        for body in [r#"{"error":"out of memory"}"#, r#"{"detail":"out of memory"}"#] {
            let AnswerError::Refused(said) = read_pictures(body.as_bytes(), 2).unwrap_err() else { panic!("{body}") };
            assert_eq!(said.message, "out of memory");
        }
    }

    #[test]
    fn an_answer_is_told_as_openai_tells_it() {
        let told = ToldPicture { url: Some("https://x/1".into()), ..ToldPicture::default() };
        let body = tell_pictures(7, &[told], (64, 128), "png", Some(r#"{"input_tokens":1}"#));
        let expected = r#"{"created":7,"data":[{"url":"https://x/1"}],"size":"64x128","output_format":"png","usage":{"input_tokens":1}}"#;
        assert_eq!(body, expected);
    }
}
