//! Holds: the bodies of requests as clients send them, and how they are read. Meaning is given to them elsewhere.

use std::collections::BTreeMap;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _},
};
use serde_json::{Map, Value, error::Category, value::RawValue};

use super::error::ApiError;

/// Bytes of a request's body.
const BODY_LIMIT: usize = 16 * 1024 * 1024;

/// `/v1/chat/completions` and `/v1/completions`. Fields that change nothing here are accepted and ignored, because
/// clients and load generators send many.
#[derive(Debug, Default, Deserialize)]
pub(super) struct GenerateBody {
    pub(super) model: Option<String>,
    pub(super) messages: Option<Vec<Map<String, Value>>>,
    pub(super) prompt: Option<Prompt>,
    pub(super) suffix: Option<String>,
    pub(super) stream: Option<bool>,
    pub(super) stream_options: Option<StreamOptions>,
    #[serde(default, deserialize_with = "whole")]
    pub(super) max_tokens: Option<u32>,
    #[serde(default, deserialize_with = "whole")]
    pub(super) max_completion_tokens: Option<u32>,
    pub(super) temperature: Option<f32>,
    pub(super) top_p: Option<f32>,
    pub(super) top_k: Option<i64>,
    pub(super) min_p: Option<f32>,
    pub(super) seed: Option<i64>,
    pub(super) stop: Option<OneOrMany>,
    #[serde(default, deserialize_with = "whole")]
    pub(super) n: Option<usize>,
    #[serde(default, deserialize_with = "whole")]
    pub(super) best_of: Option<usize>,
    pub(super) echo: Option<bool>,
    pub(super) frequency_penalty: Option<f32>,
    pub(super) presence_penalty: Option<f32>,
    pub(super) logit_bias: Option<BTreeMap<String, f32>>,
    pub(super) logprobs: Option<Logprobs>,
    #[serde(default, deserialize_with = "whole")]
    pub(super) top_logprobs: Option<usize>,
    pub(super) response_format: Option<ResponseFormat>,
    // As text: the order of a tool's members is part of the prompt, and `Value` would sort them.
    pub(super) tools: Option<Vec<Box<RawValue>>>,
    pub(super) tool_choice: Option<Value>,
    pub(super) chat_template_kwargs: Option<Map<String, Value>>,
    pub(super) ignore_eos: Option<bool>,
}

/// `prompt` in its four forms.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Prompt {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<i32>),
    TokenLists(Vec<Vec<i32>>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// A boolean in chat, a number in completions.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Logprobs {
    Wanted(bool),
    Top(usize),
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct StreamOptions {
    pub(super) include_usage: Option<bool>,
    /// As vLLM has it: what was counted so far on every chunk.
    pub(super) continuous_usage_stats: Option<bool>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ResponseFormat {
    pub(super) r#type: String,
    pub(super) json_schema: Option<JsonSchema>,
}

#[derive(Debug, Deserialize)]
pub(super) struct JsonSchema {
    // As text: the order of its properties is the order in which they are generated.
    pub(super) schema: Option<Box<RawValue>>,
}

/// `/v1/embeddings`.
#[derive(Debug, Deserialize)]
pub(super) struct EmbeddingsBody {
    pub(super) model: Option<String>,
    pub(super) input: Option<Prompt>,
    pub(super) encoding_format: Option<String>,
    pub(super) dimensions: Option<usize>,
}

/// `/v1/audio/speech`.
#[derive(Debug, Deserialize)]
pub(super) struct SpeechBody {
    pub(super) model: Option<String>,
    pub(super) input: Option<String>,
    pub(super) voice: Option<VoiceName>,
    pub(super) response_format: Option<String>,
    pub(super) speed: Option<f32>,
    pub(super) stream_format: Option<String>,
}

/// A voice as OpenAI has it: by its name, or as an object with an id.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum VoiceName {
    Plain(String),
    Object { id: String },
}

/// A whole number, also one that is written `16.0`: JSON has one kind of number, and some clients' languages too.
fn whole<'de, D: Deserializer<'de>, T: TryFrom<u64>>(from: D) -> Result<Option<T>, D::Error> {
    /// All floats below are exact.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let Some(number) = Option::<serde_json::Number>::deserialize(from)? else { return Ok(None) };
    let float = || number.as_f64().filter(|float| float.fract() == 0.0 && (0.0..EXACT).contains(float));
    let count = number.as_u64().or_else(|| float().map(|float| float as u64));
    let fitting = count.and_then(|count| T::try_from(count).ok());
    fitting.map(Some).ok_or_else(|| D::Error::custom("expected a whole number within bounds"))
}

/// Puts U+FFFD in the place of each half of a surrogate pair: JavaScript and Python write one where a text was cut inside
/// of an emoji, and it stands for no character. Escapes keep their length, so positions stay right.
fn mend_surrogates(bytes: Bytes) -> Bytes {
    let unit = |at: usize| {
        let digits = bytes.get(at + 2..at + 6).filter(|_| bytes.get(at..at + 2) == Some(b"\\u"))?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let mut lone = Vec::new();
    let mut from = 0;
    while let Some(at) = memchr::memchr(b'\\', &bytes[from..]).map(|found| from + found) {
        from = match (unit(at), unit(at + 6)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => at + 12,
            (Some(0xD800..=0xDFFF), _) => {
                lone.push(at);
                at + 6
            }
            _ => at + 2,
        }
        .min(bytes.len());
    }
    if lone.is_empty() {
        return bytes;
    }
    let mut mended = Vec::from(&bytes[..]);
    for at in lone {
        mended[at..at + 6].copy_from_slice(b"\\ufffd");
    }
    mended.into()
}

/// Reads a whole body, within the limit.
pub(super) async fn read(body: Incoming) -> Result<Bytes, ApiError> {
    match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(collected) => Ok(mend_surrogates(collected.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::too_large(BODY_LIMIT)),
        Err(_) => Err(ApiError::malformed("The body could not be read to its end.")),
    }
}

/// Parses a body; an error names the position or the field.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let cause = error.into_inner();
        match cause.classify() {
            Category::Data if path != "." => {
                ApiError::invalid(path.clone(), format!("`{path}`: {}.", expectation(&cause)))
            }
            Category::Data => ApiError::malformed(format!("The body must be a JSON object: {}.", expectation(&cause))),
            Category::Syntax | Category::Eof | Category::Io => not_json(&cause),
        }
    })?;
    json.end().map_err(|error| not_json(&error))?;
    Ok(value)
}

fn not_json(error: &serde_json::Error) -> ApiError {
    let (line, column) = (error.line(), error.column());
    ApiError::malformed(format!("The body is not valid JSON at line {line} column {column}."))
}

/// What serde expected, without the value that it found: that may be part of a prompt.
fn expectation(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let at = text.rfind(" at line ").map_or(text.as_str(), |at| &text[..at]);
    match at.rfind("expected ") {
        Some(from) => at[from..].to_owned(),
        None => "has a form that is not understood".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(body: &str) -> String {
        parse::<GenerateBody>(body.as_bytes()).unwrap_err().to_json()
    }

    #[test]
    fn bad_json_gives_its_position() {
        assert!(error("{\"model\": }").contains("line 1 column 11"), "{}", error("{\"model\": }"));
        assert!(error("{} x").contains("line 1 column 4"), "{}", error("{} x"));
    }

    #[test]
    fn a_wrong_type_names_the_field_and_not_its_value() {
        let text = error(r#"{"temperature": "secret"}"#);
        assert!(text.contains(r#""param":"temperature""#) && text.contains("expected f32"), "{text}");
        assert!(!text.contains("secret"), "{text}");
        assert!(error(r#"{"messages": [1]}"#).contains(r#""param":"messages[0]""#));
    }

    #[test]
    fn unknown_fields_are_ignored() {
        let body: GenerateBody = parse(br#"{"user": "u", "store": false, "max_tokens": 3, "stop": ["a"]}"#).unwrap();
        assert_eq!(body.max_tokens, Some(3));
    }

    #[test]
    fn whole_numbers_may_be_written_as_floats() {
        let body: GenerateBody = parse(br#"{"max_tokens": 16.0, "n": 1, "best_of": null}"#).unwrap();
        assert_eq!((body.max_tokens, body.n, body.best_of), (Some(16), Some(1), None));
        for wrong in ["1.5", "-1", "-1.0", "1e300", "4294967296", "\"1\""] {
            let text = error(&format!(r#"{{"max_tokens": {wrong}}}"#));
            assert!(text.contains(r#""param":"max_tokens""#) && text.contains("expected"), "{text}");
        }
    }

    #[test]
    fn half_a_pair_stands_for_a_missing_character() {
        let mended = |text: &str| {
            let bytes = mend_surrogates(Bytes::from(text.to_owned()));
            serde_json::from_slice::<String>(&bytes).unwrap_or_else(|error| panic!("{text}: {error}"))
        };
        assert_eq!(mended(r#""a\ud83d\ude00b""#), "a😀b");
        assert_eq!(mended(r#""a\ud83d""#), "a\u{fffd}");
        assert_eq!(mended(r#""\udc00\ud800x\uD83D\ud83d\ude00""#), "\u{fffd}\u{fffd}x\u{fffd}😀");
        assert_eq!(mended(r#""\\ud800""#), r"\ud800");
    }

    #[test]
    fn tools_and_schemas_keep_their_order() {
        let text = r#"{"response_format": {"type": "json_schema", "json_schema": {"schema": {"b": 1, "a": 2}}}, "tools": [{"b": 1, "a": 2}]}"#;
        let body: GenerateBody = parse(text.as_bytes()).unwrap();
        assert_eq!(body.tools.unwrap()[0].get(), r#"{"b": 1, "a": 2}"#);
        let schema = body.response_format.unwrap().json_schema.unwrap().schema.unwrap();
        assert_eq!(schema.get(), r#"{"b": 1, "a": 2}"#);
    }
}
