//! Holds: the events of a server that has the Responses protocol, on their way to the client.
//!
//! They pass as they come. Those that have the whole response in them get its public names, and the last of them waits, as
//! it has the usage in it.

use std::ops::ControlFlow;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::response::usage_json;
use crate::{
    Code, Names, Rewrite, Telling, Tier, Usage, hear,
    members::{each_member, quoted},
    named_frame, rewrite,
    usage::count,
};

/// A response under the public names.
pub(super) fn told(response: &Bytes, (names, metadata): (Names<'_>, Option<&str>), usage: Option<Usage>) -> Bytes {
    let mut set = vec![("id", quoted(names.id)), ("model", quoted(names.model))];
    set.extend(metadata.map(|metadata| ("metadata", metadata.to_owned())));
    set.extend(names.tier.map(|tier| ("service_tier", tier.json().to_owned())));
    set.extend(usage.map(|usage| ("usage", usage_json(&usage))));
    rewrite(response, &Rewrite { set: &set, ..Rewrite::default() })
}

/// A stream that passes.
pub(super) struct Passing {
    id: String,
    model: String,
    created: i64,
    tier: Option<Tier>,
    metadata: Option<String>,
    /// The response as it was told last, under its public names.
    response: Bytes,
    /// The last event: its name, and its data as the server sent it.
    last: Option<(&'static str, Bytes)>,
    /// What is billed, where the server says something else.
    billed: Option<Usage>,
    /// The number of the next event.
    sequence: u64,
}

#[derive(Default)]
struct Read<'a> {
    kind: Option<&'a str>,
    response: Option<&'a RawValue>,
    sequence: Option<u64>,
}

impl Telling for Passing {
    fn chunk(&mut self, data: &[u8]) -> Bytes {
        let mut read = Read::default();
        let Ok(text) = std::str::from_utf8(data) else { return Bytes::new() };
        let _listed = each_member(text, |key, value| {
            match key.as_ref() {
                "type" => read.kind = Some(value.get().trim_matches('"')),
                "response" => read.response = Some(value),
                "sequence_number" => read.sequence = count(value.get()),
                _ => {}
            }
            ControlFlow::Continue(())
        });
        let Some(kind) = read.kind else {
            self.hear(data);
            return Bytes::new();
        };
        if self.last.is_some() {
            return Bytes::new();
        }
        let last = ["response.completed", "response.incomplete"].into_iter().find(|last| *last == kind);
        if let Some(last) = last {
            self.last = Some((last, Bytes::copy_from_slice(data)));
            return Bytes::new();
        }
        self.written(kind, data, &read)
    }

    fn done(&mut self) -> Bytes {
        let usage = self.billed;
        let Some((kind, data)) = self.last.take() else {
            // It was cut off.
            let usage = usage.as_ref().map_or_else(|| "null".to_owned(), usage_json);
            let limit = r#"{"reason":"max_output_tokens"}"#.to_owned();
            return self.ended("response.incomplete", ("incomplete", "incomplete_details", limit), usage);
        };
        let mut response = None;
        let mut sequence = None;
        if let Ok(text) = std::str::from_utf8(&data) {
            let _listed = each_member(text, |key, value| {
                match key.as_ref() {
                    "response" => response = Some(Bytes::copy_from_slice(value.get().as_bytes())),
                    "sequence_number" => sequence = count(value.get()),
                    _ => {}
                }
                ControlFlow::Continue(())
            });
        }
        let response = response.unwrap_or_default();
        self.response = told(&response, (self.names(), self.metadata.as_deref()), usage);
        self.framed(kind, &data, sequence)
    }

    fn failed(&mut self, code: Code, message: &str) -> Bytes {
        // OpenAI's type for it has these two of our codes alone.
        let code = if code == Code::RateLimitExceeded { "rate_limit_exceeded" } else { "server_error" };
        let error = format!("{{\"code\":\"{code}\",\"message\":{}}}", quoted(message));
        self.ended("response.failed", ("failed", "error", error), "null".to_owned())
    }
}

impl Passing {
    pub(super) fn new(names: Names<'_>, metadata: Option<String>) -> Self {
        Self {
            id: names.id.to_owned(),
            model: names.model.to_owned(),
            created: names.created,
            tier: names.tier,
            metadata,
            response: Bytes::new(),
            last: None,
            billed: None,
            sequence: 0,
        }
    }

    fn names(&self) -> Names<'_> {
        Names { id: &self.id, model: &self.model, created: self.created, tier: self.tier }
    }

    /// What the gateway tells in the words of a chat.
    fn hear(&mut self, data: &[u8]) {
        self.billed = hear(data).usage.or(self.billed);
    }

    fn written(&mut self, kind: &str, data: &[u8], read: &Read<'_>) -> Bytes {
        let Some(response) = read.response else {
            let numbered = self.numbered(data, read.sequence);
            return named_frame(kind, numbered.as_deref().unwrap_or(data));
        };
        let response = Bytes::copy_from_slice(response.get().as_bytes());
        self.response = told(&response, (self.names(), self.metadata.as_deref()), None);
        self.framed(kind, data, read.sequence)
    }

    /// An event with the response in it.
    fn framed(&mut self, kind: &str, data: &[u8], sequence: Option<u64>) -> Bytes {
        let response = String::from_utf8_lossy(&self.response).into_owned();
        let set = [("response", response)];
        let event = rewrite(&Bytes::copy_from_slice(data), &Rewrite { set: &set, ..Rewrite::default() });
        let numbered = self.numbered(&event, sequence);
        named_frame(kind, numbered.as_deref().unwrap_or(&event))
    }

    /// The event with its number, where its server gives it none.
    fn numbered(&mut self, data: &[u8], sequence: Option<u64>) -> Option<Bytes> {
        let number = sequence.unwrap_or(self.sequence);
        self.sequence = number.saturating_add(1);
        let set = [("sequence_number", number.to_string())];
        let with_it = || rewrite(&Bytes::copy_from_slice(data), &Rewrite { set: &set, ..Rewrite::default() });
        sequence.is_none().then(with_it)
    }

    /// The last event of a stream whose server did not tell one.
    fn ended(&mut self, kind: &str, (status, why, reason): (&str, &'static str, String), usage: String) -> Bytes {
        if self.response.is_empty() {
            let nothing = format!(
                "{{\"object\":\"response\",\"created_at\":{},\"error\":null,\"incomplete_details\":null,\"output\":[]}}",
                self.created
            );
            self.response = told(&nothing.into(), (self.names(), self.metadata.as_deref()), None);
        }
        let set = [("status", quoted(status)), (why, reason), ("usage", usage)];
        self.response = rewrite(&self.response, &Rewrite { set: &set, ..Rewrite::default() });
        let event = format!("{{\"type\":\"{kind}\"}}");
        self.framed(kind, event.as_bytes(), None)
    }
}
