//! Holds: what a protocol must say of itself for model servers to be asked in it that have it themselves.
//!
//! The answers of such servers pass as they come: the public names take the place of theirs, and a usage that is billed the
//! place of one that is not. The gateway meters them as it meters chats, and charges nothing by what is told here.

use std::{fmt, ops::Range};

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::{
    AnswerError, ChunkError, ChunkFacts, Names, Telling, Usage, WholeAnswer,
    members::{each_item, range_in},
    rewrite::members_of,
    said::string_bytes,
};

/// A request that servers are asked in its own protocol.
#[derive(Debug)]
pub struct AskedNatively {
    /// The client's body, without what is part of no request here.
    pub body: Bytes,
    /// Where the conversation lies in it.
    pub prompt: Range<usize>,
    /// How many items the conversation has.
    pub items: u32,
    /// How the answer is read and told.
    pub native: Box<dyn Native>,
}

/// How one request's answer is read and told where its server speaks the request's own protocol.
pub trait Native: fmt::Debug + Send + Sync {
    /// What a whole answer says. Its bytes stay as they are.
    fn read(&self, answer: &Bytes) -> Result<WholeAnswer, AnswerError>;

    /// What a stream's events say, from its beginning.
    fn events(&self) -> Box<dyn NativeEvents>;

    /// A whole answer under the public names, with this usage in place of its own.
    fn whole(&self, answer: &Bytes, names: Names<'_>, usage: Option<Usage>) -> Bytes;

    /// A stream under the public names, from its beginning. Its chunks are the data of the server's own events, and beside
    /// them the chunks of a chat by which the gateway tells of a usage that is billed, or of an answer that it cut off.
    fn stream(&self, names: Names<'_>) -> Box<dyn Telling>;
}

/// What the events of a stream say, one after the other.
pub trait NativeEvents: Send {
    /// What this event's data says. An event that is of no answer has neither choices nor usage.
    fn facts(&mut self, data: &[u8]) -> Result<ChunkFacts, ChunkError>;

    /// Whether the answer has begun.
    fn has_begun(&self) -> bool;

    /// Whether it has ended.
    fn has_ended(&self) -> bool;
}

impl AskedNatively {
    /// A body whose conversation is the member of this name.
    pub fn new(body: Bytes, conversation: &str, native: Box<dyn Native>) -> Self {
        let (mut prompt, mut items) = (0..0, 1);
        if let Some((text, members)) = members_of(&body)
            && let Some(member) = members.iter().find(|member| member.key == conversation)
        {
            prompt = range_in(text, member.value.get());
            let mut count = 0_u32;
            // A text is one item.
            let listed = each_item(member.value.get(), |_: &RawValue| count = count.saturating_add(1));
            items = if listed.is_ok() { count } else { 1 };
        }
        Self { body, prompt, items, native }
    }
}

/// Bytes of the text that this is; 0 of what is none.
pub fn text_bytes(value: &RawValue) -> u64 {
    string_bytes(value.get())
}

/// An event that has this name, with its data on one line.
pub fn named_frame(name: &str, data: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(name.len() + data.len() + "event: \ndata: \n\n".len());
    for part in [b"event: ", name.as_bytes(), b"\ndata: "] {
        out.extend_from_slice(part);
    }
    // A line break in JSON is white space, but in an event it would end the data.
    out.extend(data.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
    out.extend_from_slice(b"\n\n");
    out.into()
}
