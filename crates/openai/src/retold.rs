//! Holds: what a protocol must say of itself for chats to be answered in it.
//!
//! A request in another protocol is asked as a chat, and the chat's answer is told on in that protocol: whole, or event by
//! event. The gateway meters and charges the chat; whoever tells it changes no count.

use std::fmt;

use bytes::Bytes;

use crate::{Code, Tier};

/// A request of another protocol, asked as a chat or as a text completion.
#[derive(Debug)]
pub struct AskedAs {
    /// The body of that call. A stream asks for its usage (`stream_options.include_usage`).
    pub body: Bytes,
    /// How the answer is told.
    pub retelling: Box<dyn Retelling>,
}

/// Names of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// The public id.
    pub id: &'a str,
    /// The public name of the model.
    pub model: &'a str,
    /// Seconds since 1970.
    pub created: i64,
    /// The tier that it was served in, where one was asked for.
    pub tier: Option<Tier>,
}

/// How one request's answer is told in its protocol.
pub trait Retelling: fmt::Debug + Send + Sync {
    /// A whole answer; its usage is the one that is billed.
    fn whole(&self, chat: &[u8], names: Names<'_>) -> Bytes;

    /// A stream, from its beginning.
    fn stream(&self, names: Names<'_>) -> Box<dyn Telling>;

    /// The content type of a whole answer.
    fn content_type(&self) -> &'static str {
        "application/json"
    }

    /// What a member of the chat's body is called in the request, for messages about it.
    fn member<'a>(&self, chat_member: &'a str) -> &'a str;
}

/// A stream that is being told. Every method gives what is to be sent now, whole events or nothing.
pub trait Telling: Send {
    /// The data of the next chunk of the chat: JSON, with choices, usage or both.
    fn chunk(&mut self, data: &[u8]) -> Bytes;

    /// The chat has ended, whole.
    fn done(&mut self) -> Bytes;

    /// The chat broke off, or what was said since its last chunk is withheld; nothing follows. May come after
    /// [`done`](Self::done), whose events the client has then not seen.
    fn failed(&mut self, code: Code, message: &str) -> Bytes;
}
