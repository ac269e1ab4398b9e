//! Holds: answers that come in the other form than was asked for: JSON for a stream, a stream for JSON.
//!
//! Some servers and proxies know one form alone. What they say is an answer all the same; it is told apart by how its
//! body begins, since their content types are as often wrong as right.

use batchin_openai::{
    AssembleError, Assembler, WholeAnswer,
    sse::{Decoder, Item},
    upstream_error_message,
};
use bytes::{Bytes, BytesMut};

use crate::{
    call::{Call, MAX_ANSWER_BYTES},
    failure::{CallError, CallErrorKind, Retry, Unanswered},
};

/// Names of fields that a stream of events may begin with, beside a comment.
const FIELDS: [&[u8]; 4] = [b"data", b"event", b"id", b"retry"];

/// The form of a body that was to be a stream, as far as it is known.
#[derive(Debug, Default)]
pub(crate) enum Form {
    /// Nothing but white space came so far.
    #[default]
    Unknown,
    /// Events.
    Events,
    /// One JSON object, so far.
    Json(BytesMut),
}

/// More than [`MAX_ANSWER_BYTES`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct TooLarge;

impl Form {
    /// Takes the next piece. `Some` is what the reader of events gets.
    pub(crate) fn take(&mut self, piece: Bytes) -> Result<Option<Bytes>, TooLarge> {
        match self {
            Self::Events => return Ok(Some(piece)),
            Self::Unknown => match piece.iter().find(|byte| !byte.is_ascii_whitespace()) {
                Some(b'{') => *self = Self::Json(BytesMut::from(piece)),
                Some(_) => {
                    *self = Self::Events;
                    return Ok(Some(piece));
                }
                // Blank lines between events say nothing.
                None => return Ok(None),
            },
            Self::Json(body) if body.len() + piece.len() > MAX_ANSWER_BYTES => return Err(TooLarge),
            Self::Json(body) => body.extend_from_slice(&piece),
        }
        Ok(None)
    }

    /// The JSON, once the body is at its end.
    pub(crate) fn take_json(&mut self) -> Option<Bytes> {
        match self {
            Self::Json(body) => {
                let body = std::mem::take(body).freeze();
                *self = Self::Events;
                Some(body)
            }
            Self::Unknown | Self::Events => None,
        }
    }
}

/// Whether a body that was to be JSON is a stream of events.
pub(crate) fn is_events(body: &[u8]) -> bool {
    let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body).trim_ascii_start();
    let field = body.split(|byte| matches!(byte, b':' | b'\n' | b'\r')).next().unwrap_or_default();
    body.first() == Some(&b':') || FIELDS.contains(&field)
}

/// The answer in a stream that came for a call which had asked for a whole one.
pub(crate) fn put_together(body: Bytes, call: &Call<'_>) -> Result<WholeAnswer, Unanswered> {
    let unreadable = || Unanswered::Failed(CallError::other_replica(CallErrorKind::BadAnswer));
    let mut answer = Assembler::new(call.kind, &call.public_id, call.public_model, MAX_ANSWER_BYTES);
    let mut events = Decoder::new();
    events.push(body);
    let (mut at_end, mut is_done) = (false, false);
    let asked = usize::try_from(call.answers).unwrap_or(usize::MAX);
    loop {
        let item = if at_end { events.finish() } else { events.next_item() };
        let event = match item.map_err(|_| too_large())? {
            Some(Item::Event(event)) => event,
            Some(Item::Comment) => continue,
            None if at_end => break,
            None => {
                at_end = true;
                continue;
            }
        };
        let data = event.data.trim_ascii();
        if data == b"[DONE]" {
            is_done = true;
            break;
        }
        let is_whole = answer.is_finished() && answer.seen() >= asked;
        if event.event.as_deref() == Some(b"error") && is_whole {
            break;
        }
        if event.event.as_deref() == Some(b"error") {
            return Err(Unanswered::Said(upstream_error_message(500, data)));
        }
        if data.is_empty() {
            continue;
        }
        let facts = answer.take(data).map_err(|error| match error {
            AssembleError::NotAChunk => unreadable(),
            AssembleError::TooLarge => too_large(),
        })?;
        if facts.error.is_some() && is_whole {
            break;
        }
        if let Some(error) = facts.error {
            return Err(Unanswered::Said(error));
        }
    }
    // Without the mark of its end, a stream that lacks a choice was cut off.
    if !answer.is_finished() || !(is_done || answer.seen() >= asked) {
        return Err(unreadable());
    }
    answer.finish().map_err(|_| unreadable())
}

fn too_large() -> Unanswered {
    Unanswered::Failed(CallError { kind: CallErrorKind::TooLarge, retry: Retry::Never, client_error: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_told_apart_by_their_beginning() {
        for events in
            ["data: {}\n\n", ": ping\n\n", "\n\nevent: x\ndata: {}\n\n", "\u{feff}data:{}", "id: 1\n", "data\n"]
        {
            assert!(is_events(events.as_bytes()), "{events}");
        }
        for other in ["{}", "", "[]", "<html>", "database: x", " {\"data\": 1}"] {
            assert!(!is_events(other.as_bytes()), "{other}");
        }
    }

    #[track_caller]
    fn check(pieces: &[&'static str], events: &str, json: Option<&str>) {
        let mut form = Form::default();
        let mut passed = Vec::new();
        for piece in pieces {
            passed.extend_from_slice(&form.take(Bytes::from_static(piece.as_bytes())).unwrap().unwrap_or_default());
        }
        assert_eq!(std::str::from_utf8(&passed).unwrap(), events);
        assert_eq!(form.take_json().as_deref(), json.map(str::as_bytes));
    }

    #[test]
    fn a_body_is_json_or_events_however_it_is_cut() {
        check(&["\n", "  {\"a\"", ":1}\n"], "", Some("  {\"a\":1}\n"));
        check(&["\n", "data: ", "{}\n\n"], "data: {}\n\n", None);
        check(&[": {\n", "{"], ": {\n{", None);
        check(&[" ", "\r\n"], "", None);
    }

    #[test]
    fn json_is_bounded() {
        let mut form = Form::default();
        form.take(Bytes::from_static(b"{")).unwrap();
        assert!(form.take(Bytes::from(vec![b' '; MAX_ANSWER_BYTES - 1])).unwrap().is_none());
        assert!(form.take(Bytes::from_static(b"}")).is_err());
    }
}
