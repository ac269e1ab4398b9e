//! Holds: a request to servers that have the Messages protocol themselves: what they are sent, and what they answer.

use std::ops::ControlFlow;

use batchin_openai::{
    AnswerError, AskedNatively, ChunkError, ChunkFacts, Names, Native, NativeEvents, Rewrite, Telling, Usage,
    WholeAnswer, each_member, rewrite, text_bytes, upstream_error_message,
};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::native_stream::{Passing, told};

/// Members that [`ask_as_chat`](crate::ask_as_chat) takes only where they ask for nothing, and those that say at which price,
/// for whom and by which further work a server of Anthropic's answers.
const REMOVED: &[&str] = &[
    "anthropic_beta",
    "anthropic_version",
    "betas",
    "billing_policy",
    "compaction",
    "container",
    "context_management",
    "diagnostics",
    "fallback_credit_token",
    "inference_geo",
    "mcp_servers",
    "speed",
    "thread",
    "user_profile_id",
    "workspace_id",
];

/// Asks a request that [`ask_as_chat`](crate::ask_as_chat) has taken of servers that have the protocol.
pub fn ask_natively(body: &Bytes) -> AskedNatively {
    let asked = rewrite(body, &Rewrite { remove: REMOVED, ..Rewrite::default() });
    AskedNatively::new(asked, "messages", Box::new(Own))
}

/// A request in its own protocol.
#[derive(Debug)]
struct Own;

impl Native for Own {
    fn read(&self, answer: &Bytes) -> Result<WholeAnswer, AnswerError> {
        let message: Message<'_> = serde_json::from_slice(answer).map_err(|_| AnswerError::NotAnAnswer)?;
        let Some(content) = message.content.filter(|content| content.get().starts_with('[')) else {
            let is_told = message.error.is_some_and(|error| error.get() != "null");
            let said = || AnswerError::Refused(upstream_error_message(500, answer));
            return Err(if is_told { said() } else { AnswerError::NotAnAnswer });
        };
        let usage = message.usage.and_then(usage);
        let is_counted = usage.is_some_and(|usage| usage.counts_completion());
        let text_bytes = if is_counted { 0 } else { said(content) };
        Ok(WholeAnswer { body: answer.clone(), usage, text_bytes })
    }

    fn events(&self) -> Box<dyn NativeEvents> {
        Box::new(Events::default())
    }

    fn whole(&self, answer: &Bytes, names: Names<'_>, usage: Option<Usage>) -> Bytes {
        told(answer, names, usage)
    }

    fn stream(&self, names: Names<'_>) -> Box<dyn Telling> {
        Box::new(Passing::new(names))
    }
}

/// What is read of a message.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// Counts by the names of the Messages API, where what was read from a cache or written to one is no part of the input.
fn usage(raw: &RawValue) -> Option<Usage> {
    let (mut input, mut output, mut read, mut written) = (None, None, 0_u64, 0_u64);
    each_member(raw.get(), |key, value| {
        let count = value.get().parse::<u64>().ok();
        match key.as_ref() {
            "input_tokens" => input = count,
            "output_tokens" => output = count,
            "cache_read_input_tokens" => read = count.unwrap_or(0),
            "cache_creation_input_tokens" => written = count.unwrap_or(0),
            _ => {}
        }
        ControlFlow::Continue(())
    })
    .ok()?;
    let in_cache = read.saturating_add(written);
    let prompt = input.map(|input| input.saturating_add(in_cache)).filter(|prompt| *prompt > 0);
    if prompt.is_none() && output.unwrap_or(0) == 0 {
        return None;
    }
    Some(Usage {
        prompt_tokens: prompt,
        completion_tokens: output,
        cached_tokens: read,
        cache_write_tokens: written,
        reasoning_tokens: 0,
    })
}

/// Bytes of text in blocks: what is said, thought and called.
fn said(content: &RawValue) -> u64 {
    let blocks: Vec<&RawValue> = serde_json::from_str(content.get()).unwrap_or_default();
    blocks.into_iter().map(|block| in_block(block.get())).fold(0, u64::saturating_add)
}

/// Bytes of text in a block, or in what comes to one.
fn in_block(json: &str) -> u64 {
    let mut sum = 0_u64;
    let _listed = each_member(json, |key, value| {
        sum = sum.saturating_add(match key.as_ref() {
            "text" | "thinking" | "partial_json" | "name" => text_bytes(value),
            // A stream begins with an empty one.
            "input" if value.get() != "{}" => value.get().len() as u64,
            _ => 0,
        });
        ControlFlow::Continue(())
    });
    sum
}

/// What a stream's events say.
#[derive(Default)]
struct Events {
    has_begun: bool,
    has_ended: bool,
    /// What was counted so far: the last event may not repeat what the first one told.
    counted: Option<Usage>,
}

/// What is read of an event.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type", default)]
    kind: &'a str,
    #[serde(borrow, default)]
    message: Option<Message<'a>>,
    #[serde(borrow, default)]
    content_block: Option<&'a RawValue>,
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

impl NativeEvents for Events {
    fn facts(&mut self, data: &[u8]) -> Result<ChunkFacts, ChunkError> {
        let event: Event<'_> = serde_json::from_slice(data).map_err(|_| ChunkError::NotAChunk)?;
        let mut facts = ChunkFacts { has_choices: true, ..ChunkFacts::default() };
        match event.kind {
            "message_start" => facts.usage = self.count(event.message.and_then(|message| message.usage)),
            "message_delta" => {
                facts.usage = self.count(event.usage);
                if event.delta.is_some_and(has_stop_reason) {
                    facts.ends = u32::from(!std::mem::replace(&mut self.has_ended, true));
                }
            }
            "content_block_start" => {
                facts.text_bytes = event.content_block.map_or(0, |block| in_block(block.get()));
            }
            "content_block_delta" => facts.text_bytes = event.delta.map_or(0, |delta| in_block(delta.get())),
            "error" => facts.error = Some(upstream_error_message(500, data)),
            "" if event.error.is_some() => facts.error = Some(upstream_error_message(500, data)),
            // What says that the server is still there.
            "" | "ping" => return Ok(ChunkFacts::default()),
            _ => {}
        }
        facts.has_usage = facts.usage.is_some();
        facts.deltas = u32::from(facts.text_bytes > 0);
        self.has_begun = true;
        Ok(facts)
    }

    fn has_begun(&self) -> bool {
        self.has_begun
    }

    fn has_ended(&self) -> bool {
        self.has_ended
    }
}

impl Events {
    fn count(&mut self, told: Option<&RawValue>) -> Option<Usage> {
        let told = told.and_then(usage)?;
        self.counted = Some(self.counted.map_or(told, |earlier| earlier.merged(told)));
        self.counted
    }
}

fn has_stop_reason(delta: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Delta<'a> {
        #[serde(borrow, default)]
        stop_reason: Option<&'a RawValue>,
    }
    serde_json::from_str(delta.get())
        .is_ok_and(|delta: Delta<'_>| delta.stop_reason.is_some_and(|why| why.get() != "null"))
}
