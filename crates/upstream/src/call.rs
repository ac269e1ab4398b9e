//! Holds: one request for a model server.

use std::{fmt, sync::Arc};

use batchin_domain::CallKind;
use batchin_openai::{Fim, Native, SoundFormat, Tier, Wanted};
use bytes::Bytes;

use crate::{adapters::Kind, breaker::Asker, upload::Upload};

/// Most bytes of an answer that is not streamed: 2048 embeddings of 4096 numbers as text stay below.
pub const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// One request for a model server, checked by [`batchin_openai::peek`] before.
#[derive(Clone)]
pub struct Call<'a> {
    /// Which call.
    pub kind: CallKind,
    /// How the answer is read, where the call is asked in a protocol of its own that is none of OpenAI's chats.
    pub native: Option<&'a dyn Native>,
    /// The client's body; it is copied only where it must be changed.
    pub body: Bytes,
    /// The files that go along; the call is a form then, with the body's members as its fields.
    pub uploads: Vec<Arc<Upload>>,
    /// The server's own name of the model, where it differs from the client's.
    pub upstream_model: Option<&'a str>,
    /// The id that the client sees, such as `chatcmpl_…`.
    pub public_id: String,
    /// The model's name that the client sees.
    pub public_model: &'a str,
    /// Whether the answer is streamed. The body's own `stream` is set to this.
    pub stream: bool,
    /// Whether the client asked for usage in its stream. Without, no chunk without choices leaves, and no usage.
    pub include_usage: bool,
    /// Whether it asked for counts in every chunk.
    pub continuous_usage: bool,
    /// Answers that the body asks for, over all its prompts: a stream that just ends must have had so many.
    pub answers: u32,
    /// What a whole answer must have in it.
    pub wanted: Wanted,
    /// The tier that each chunk of its stream names; `None` where what the server says of one is passed on.
    pub tier: Option<Tier>,
    /// Passed on as `x-request-id`.
    pub request_id: String,
    /// Lower is sooner. Sent to servers that were started with priority scheduling, in their own order.
    pub class_priority: Option<i32>,
    /// The most tokens that are held for a choice, which a body that states more or nothing is cut to; `None` where the
    /// body's own limit, if it has one, is held.
    pub max_tokens: Option<u32>,
    /// The most tokens that a choice may have whatever the prompt leaves of the context. Told where the body states no
    /// limit to servers that take one which does not fit behind the prompt.
    pub held: Option<u32>,
    /// How the model is asked for the middle of a text; `None` where the body asks for none.
    pub fim: Option<Fim>,
    /// How a text is to be spoken; `None` where nothing is.
    pub speech: Option<Speech>,
    /// Seconds since 1970, for answers whose server does not say when they were made.
    pub created: i64,
    /// Who asks, for what the server's failures are evidence of.
    pub asker: Asker,
}

/// How a text is to be spoken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Speech {
    /// By whom.
    pub voice: Voice,
    /// In what the sound is best sent, which need not be what the client hears it in.
    pub format: SoundFormat,
}

/// Who speaks.
#[derive(Clone, PartialEq, Eq)]
pub enum Voice {
    /// Whoever does at that server.
    Unsaid,
    /// One of the server's, by its own name.
    Named(String),
    /// One that sounds like a recording.
    Like {
        /// The recording.
        sound: Bytes,
        /// Its media type.
        content_type: String,
        /// What is said in it.
        words: String,
    },
}

/// What people said stays out of debug prints.
impl fmt::Debug for Voice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsaid => f.write_str("Unsaid"),
            Self::Named(name) => f.debug_tuple("Named").field(name).finish(),
            Self::Like { sound, .. } => f.debug_struct("Like").field("bytes", &sound.len()).finish_non_exhaustive(),
        }
    }
}

impl Call<'_> {
    /// The server's own name of the model.
    pub(crate) fn model(&self) -> &str {
        self.upstream_model.unwrap_or(self.public_model)
    }

    /// The most tokens that a server of this kind is told.
    pub(crate) fn most(&self, kind: Kind) -> Option<u32> {
        self.max_tokens.or(self.held.filter(|_| kind.takes_any_limit))
    }
}

/// The body is a customer's text and stays out of debug prints.
impl fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("kind", &self.kind)
            .field("public_id", &self.public_id)
            .field("stream", &self.stream)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A call with this body.
    pub(crate) fn call(body: &'static str, stream: bool) -> Call<'static> {
        Call {
            kind: CallKind::Chat,
            native: None,
            body: Bytes::from_static(body.as_bytes()),
            uploads: Vec::new(),
            upstream_model: None,
            public_id: "chatcmpl_1".into(),
            public_model: "m",
            stream,
            include_usage: false,
            continuous_usage: false,
            answers: 1,
            wanted: Wanted::Choices,
            tier: None,
            request_id: "r".into(),
            class_priority: Some(5),
            max_tokens: None,
            held: None,
            fim: None,
            speech: None,
            created: 7,
            asker: Asker::default(),
        }
    }

    #[test]
    fn debug_hides_the_body() {
        let shown = format!("{:?}", call("{\"messages\":\"secret\"}", false));
        assert!(!shown.contains("secret"), "{shown}");
    }
}
