//! Holds: messages, events and errors as they are written.

use batchin_openai::Usage;
use serde::Serialize;
use serde_json::value::RawValue;

/// What an event of a stream says, or the body of an error.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Event<'a> {
    MessageStart {
        message: Message<'a>,
    },
    ContentBlockStart {
        index: u64,
        content_block: Block<'a>,
    },
    ContentBlockDelta {
        index: u64,
        delta: Delta<'a>,
    },
    ContentBlockStop {
        index: u64,
    },
    MessageDelta {
        delta: Ended<'a>,
        usage: Counts,
    },
    MessageStop {},
    Error {
        error: ErrorDetail<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        request_id: Option<&'a str>,
    },
}

/// A message. In a stream it begins without content and without an end.
#[derive(Serialize)]
#[serde(tag = "type", rename = "message")]
pub(crate) struct Message<'a> {
    pub(crate) id: &'a str,
    pub(crate) role: &'static str,
    pub(crate) model: &'a str,
    pub(crate) content: Vec<Block<'a>>,
    pub(crate) stop_reason: Option<&'static str>,
    pub(crate) stop_sequence: Option<&'a str>,
    pub(crate) usage: Counts,
}

/// A block of a message's content.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Block<'a> {
    Thinking { thinking: &'a str, signature: &'static str },
    Text { text: &'a str },
    ToolUse { id: &'a str, name: &'a str, input: Input<'a> },
}

/// The input of a call.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Input<'a> {
    Said(&'a RawValue),
    Empty {},
}

/// What comes to a block.
#[derive(Serialize)]
#[serde(tag = "type")]
pub(crate) enum Delta<'a> {
    #[serde(rename = "thinking_delta")]
    Thinking { thinking: &'a str },
    #[serde(rename = "signature_delta")]
    Signature { signature: &'static str },
    #[serde(rename = "text_delta")]
    Text { text: &'a str },
    #[serde(rename = "input_json_delta")]
    InputJson { partial_json: &'a str },
}

/// How a message ended.
#[derive(Serialize)]
pub(crate) struct Ended<'a> {
    pub(crate) stop_reason: &'static str,
    pub(crate) stop_sequence: Option<&'a str>,
}

/// What went wrong.
#[derive(Serialize)]
pub(crate) struct ErrorDetail<'a> {
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    pub(crate) message: &'a str,
}

/// Token counts. What was read from a cache or written to one is no part of the input here.
#[derive(Default, Serialize)]
pub(crate) struct Counts {
    input_tokens: u64,
    cache_creation_input_tokens: u64,
    cache_read_input_tokens: u64,
    output_tokens: u64,
}

impl From<Usage> for Counts {
    fn from(usage: Usage) -> Self {
        let in_cache = usage.cached_tokens.saturating_add(usage.cache_write_tokens);
        Self {
            input_tokens: usage.prompt_tokens.unwrap_or(0).saturating_sub(in_cache),
            cache_creation_input_tokens: usage.cache_write_tokens,
            cache_read_input_tokens: usage.cached_tokens,
            output_tokens: usage.completion_tokens.unwrap_or(0),
        }
    }
}

impl Event<'_> {
    /// Writes it as an event of a stream.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(self.name().as_bytes());
        out.extend_from_slice(b"\ndata: ");
        write_json(self, out);
        out.extend_from_slice(b"\n\n");
    }

    const fn name(&self) -> &'static str {
        match self {
            Event::MessageStart { .. } => "message_start",
            Event::ContentBlockStart { .. } => "content_block_start",
            Event::ContentBlockDelta { .. } => "content_block_delta",
            Event::ContentBlockStop { .. } => "content_block_stop",
            Event::MessageDelta { .. } => "message_delta",
            Event::MessageStop {} => "message_stop",
            Event::Error { .. } => "error",
        }
    }
}

/// Writes JSON.
pub(crate) fn write_json(value: &impl Serialize, out: &mut Vec<u8>) {
    // A vector takes whatever is written, and the names of members are texts.
    let _ = serde_json::to_writer(out, value);
}
