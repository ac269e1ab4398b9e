//! Holds: one line of a batch's input, read and checked.
//!
//! Inline tasks and files meet here: an inline batch is written as a file of such lines.

use std::{borrow::Cow, ops::Range};

use batchin_domain::{
    CallKind, Class, RequestId,
    text::{NOT_STORABLE, is_storable},
};
use batchin_gateway::{AdmitError, Checked, Gateway, Inbound, Reader};
use batchin_openai::Code;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::json::{Fault, is_array};

/// Longest `custom_id`, in bytes.
pub(crate) const MAX_CUSTOM_ID: usize = 512;

/// What is wrong with a line of a file, in the members of OpenAI's `errors.data`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineFault {
    /// What kind of fault.
    pub code: Cow<'static, str>,
    /// What is wrong and what would be right.
    pub message: String,
    /// The member at fault, where one is.
    pub param: Option<String>,
    /// The line, from one; `None` for the file as a whole.
    pub line: Option<u64>,
}

impl LineFault {
    /// A fault of no line in particular.
    pub(crate) fn of_file(code: Code, message: impl Into<String>) -> Self {
        Self { code: code.name().into(), message: message.into(), param: None, line: None }
    }

    /// A fault of a member.
    pub(crate) fn at(param: impl Into<String>, code: Code, message: impl Into<String>) -> Self {
        Self { code: code.name().into(), message: message.into(), param: Some(param.into()), line: None }
    }

    pub(crate) fn on(self, line: u64) -> Self {
        Self { line: Some(line), ..self }
    }
}

/// A line as it stands, with its members in their places.
pub(crate) struct Line {
    /// The owner's name for it.
    pub custom_id: String,
    /// The kind of call.
    pub call: CallKind,
    /// Where its body lies in the line.
    pub body: Range<usize>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct RawLine<'a> {
    #[serde(borrow)]
    custom_id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<&'a RawValue>,
    #[serde(borrow)]
    url: Option<&'a RawValue>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
}

/// Reads a line. `declared` is the one kind of call that the batch has said it is made of.
pub(crate) fn read_line(line: &[u8], declared: Option<CallKind>) -> Result<Line, LineFault> {
    let text = std::str::from_utf8(line).map_err(|cause| {
        let message = format!("is not valid UTF-8 at byte {}", cause.valid_up_to() + 1);
        LineFault::of_file(Code::InvalidJsonLine, message)
    })?;
    if is_array(line) {
        return Err(LineFault::of_file(Code::InvalidJsonLine, "must be an object, not an array"));
    }
    let raw: RawLine<'_> = serde_json::from_str(text).map_err(|cause| bad_json(&cause))?;
    let custom_id = text_of("custom_id", raw.custom_id)?;
    check_custom_id(&custom_id)?;
    let method = text_of("method", raw.method)?;
    if method != "POST" {
        return Err(LineFault::at("method", Code::InvalidMethod, "must be \"POST\""));
    }
    let url = text_of("url", raw.url)?;
    let call = CallKind::from_url(&url)
        .ok_or_else(|| LineFault::at("url", Code::InvalidUrl, format!("must be one of {}", CallKind::paths())))?;
    if let Some(declared) = declared.filter(|declared| *declared != call) {
        let message = format!("must be the batch's endpoint, {}", declared.path());
        return Err(LineFault::at("url", Code::MismatchedEndpoint, message));
    }
    let body = raw.body.ok_or_else(|| missing("body"))?.get();
    if !body.starts_with('{') {
        return Err(LineFault::at("body", Code::InvalidType, "must be an object: the body of the call"));
    }
    // Both lie in the same text.
    let start = body.as_ptr() as usize - text.as_ptr() as usize;
    Ok(Line { custom_id, call, body: start..start + body.len() })
}

/// What must hold of every task's `custom_id`.
pub(crate) fn check_custom_id(custom_id: &str) -> Result<(), LineFault> {
    if custom_id.is_empty() || custom_id.len() > MAX_CUSTOM_ID {
        let message = format!("must have 1 to {MAX_CUSTOM_ID} bytes");
        return Err(LineFault::at("custom_id", Code::InvalidCustomId, message));
    }
    if !is_storable(custom_id) {
        return Err(LineFault::at("custom_id", Code::InvalidCustomId, NOT_STORABLE));
    }
    Ok(())
}

/// Checks the body of a call that is to run later, against the catalogue as it stands.
pub(crate) fn check_body(
    gateway: &Gateway,
    (call, class): (CallKind, Class),
    body: Bytes,
) -> Result<Checked, LineFault> {
    // Nothing is run, so nothing is ever called by this id.
    let request = RequestId::new(gateway.ids().uuid());
    let (task, sound, shown, idempotency) = (None, None, None, None);
    let inbound = Inbound { call, body, request, class, task, sound, shown, pictures_in_both: false, idempotency };
    let checked = gateway.check(&inbound).map_err(|cause| body_fault(&cause))?;
    if checked.streams {
        let message = "must not be true: the answer of a batched request is stored whole";
        return Err(LineFault::at("body.stream", Code::InvalidRequest, message));
    }
    Ok(checked)
}

fn body_fault(cause: &AdmitError) -> LineFault {
    // OpenAI's codes of what is wrong with a line say more than those of answers.
    let (code, member) = match cause {
        AdmitError::Invalid(_) | AdmitError::ModelNotFound { .. } | AdmitError::OverModelLimit { .. } => {
            (cause.code(), cause.param())
        }
        AdmitError::NotCapable { .. } => (Code::InvalidModel, cause.param()),
        AdmitError::Offline { .. } => (Code::ModelOffline, Some("model")),
    };
    let param = member.map_or_else(|| "body".to_owned(), |member| format!("body.{member}"));
    LineFault::at(param, code, cause.message(Reader::LineAuthor))
}

fn text_of(name: &'static str, value: Option<&RawValue>) -> Result<String, LineFault> {
    let raw = value.ok_or_else(|| missing(name))?.get();
    serde_json::from_str(raw).map_err(|_| LineFault::at(name, Code::InvalidType, "must be a string"))
}

fn missing(name: &'static str) -> LineFault {
    LineFault::at(name, Code::MissingRequiredParameter, format!("`{name}` is missing"))
}

fn bad_json(cause: &serde_json::Error) -> LineFault {
    // The line is the file's, and named beside.
    let Fault { what, is_syntax } = Fault::of(cause);
    let message = if is_syntax {
        format!("is not valid JSON at column {}: {what}", cause.column())
    } else {
        format!("must be an object: {what}")
    };
    LineFault::of_file(Code::InvalidJsonLine, message)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use batchin_domain::Capability;
    use batchin_openai::InvalidRequest;

    use super::*;

    #[test]
    fn every_fault_of_a_body_names_its_member() {
        let invalid = |param: Option<&str>| {
            let param = param.map(str::to_owned);
            AdmitError::Invalid(InvalidRequest { message: "bad".to_owned(), param, position: None })
        };
        let model = || "m".to_owned();
        for (error, expected) in [
            (invalid(None), ("body", "invalid_request", "bad")),
            (invalid(Some("n")), ("body.n", "invalid_request", "bad")),
            (
                AdmitError::ModelNotFound { model: model() },
                ("body.model", "model_not_found", "no model `m` is served here; GET /v1/models lists them"),
            ),
            (
                AdmitError::NotCapable { model: model(), needs: Capability::Chat },
                ("body.model", "invalid_model", "the model `m` does not serve chat"),
            ),
            (
                AdmitError::OverModelLimit { param: "max_tokens", asked: 9, limit: 8 },
                ("body.max_tokens", "invalid_request", "is 9; the model has at most 8"),
            ),
            (
                AdmitError::Offline { retry_after: Duration::from_secs(60) },
                ("body.model", "model_offline", "the model is offline; GET /v1/models shows when it is back"),
            ),
        ] {
            let LineFault { code, message, param, line } = body_fault(&error);
            assert_eq!(
                (param.as_deref().unwrap(), &*code, message.as_str(), line),
                (expected.0, expected.1, expected.2, None)
            );
        }
    }

    fn fault(line: &str) -> (String, Option<String>) {
        let Err(fault) = read_line(line.as_bytes(), Some(CallKind::Chat)) else { panic!("{line}") };
        (fault.code.into_owned(), fault.param)
    }

    #[test]
    fn a_line_tells_where_its_body_lies() {
        let text = r#" {"body" : {"model":"m"} , "url":"/v1/embeddings","method":"POST","custom_id":"\u0061"}"#;
        let line = read_line(text.as_bytes(), None).unwrap();
        assert_eq!((line.custom_id.as_str(), line.call), ("a", CallKind::Embeddings));
        assert_eq!(&text[line.body], r#"{"model":"m"}"#);
    }

    #[test]
    fn every_fault_names_its_member() {
        let whole = r#"{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{}}"#;
        assert!(read_line(whole.as_bytes(), Some(CallKind::Chat)).is_ok());
        let param = |param: &str| Some(param.to_owned());
        for (from, to, code, at) in [
            (r#""custom_id":"a","#, "", "missing_required_parameter", param("custom_id")),
            (r#":"a""#, ":7", "invalid_type", param("custom_id")),
            (r#":"a""#, r#":"""#, "invalid_custom_id", param("custom_id")),
            (r#":"a""#, r#":"a\u0000b""#, "invalid_custom_id", param("custom_id")),
            ("POST", "GET", "invalid_method", param("method")),
            ("chat/completions", "images/variations", "invalid_url", param("url")),
            ("chat/completions", "embeddings", "mismatched_endpoint", param("url")),
            (r#","body":{}"#, "", "missing_required_parameter", param("body")),
            ("{}", "[]", "invalid_type", param("body")),
            ("{}", "{", "invalid_json_line", None),
            (whole, "[1]", "invalid_json_line", None),
            (whole, "7", "invalid_json_line", None),
            // By position: serde would take it.
            (whole, r#" ["a","POST","/v1/chat/completions",{}]"#, "invalid_json_line", None),
        ] {
            assert_eq!(fault(&whole.replace(from, to)), (code.to_owned(), at), "{from} → {to}");
        }
        assert!(read_line(b"\xff", None).is_err());
        for line in ["7", "\"x\"", "null", "[]", "[1]"] {
            let Err(fault) = read_line(line.as_bytes(), None) else { panic!("{line}") };
            assert!(fault.message.starts_with("must be an object") && !fault.message.contains("Raw"), "{fault:?}");
        }
    }
}
