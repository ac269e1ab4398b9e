//! Holds: the inference calls that share one path through the gateway.
//!
//! Names only; what each accepts stands in `peek`.

use std::ops::ControlFlow;

use crate::members::each_member;

/// An inference call of OpenAI's API that has a JSON body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Completions,
    /// `/v1/embeddings`
    Embeddings,
}

impl Endpoint {
    /// All of them, in the order of the documentation.
    pub const ALL: [Endpoint; 3] = [Endpoint::Chat, Endpoint::Completions, Endpoint::Embeddings];

    /// The documented path, with `/v1`.
    pub const fn path(self) -> &'static str {
        match self {
            Endpoint::Chat => "/v1/chat/completions",
            Endpoint::Completions => "/v1/completions",
            Endpoint::Embeddings => "/v1/embeddings",
        }
    }

    /// The path below a base URL that already ends in `/v1`.
    pub const fn path_below_v1(self) -> &'static str {
        match self {
            Endpoint::Chat => "/chat/completions",
            Endpoint::Completions => "/completions",
            Endpoint::Embeddings => "/embeddings",
        }
    }

    /// The word for metrics and usage rows.
    pub const fn name(self) -> &'static str {
        match self {
            Endpoint::Chat => "chat",
            Endpoint::Completions => "completions",
            Endpoint::Embeddings => "embeddings",
        }
    }

    /// The endpoint of a task's `url`, with or without `/v1`.
    pub fn from_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|endpoint| url == endpoint.path() || url == endpoint.path_below_v1())
    }

    /// The endpoint that a task's body is meant for: `messages` chat, `input` embeddings, `prompt` completions.
    ///
    /// `None` when the body is not a JSON object or has none of them.
    pub fn infer(body: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?;
        let (mut chat, mut embeddings, mut completions) = (false, false, false);
        each_member(text, |key, _| {
            match key.as_ref() {
                "messages" => chat = true,
                "input" => embeddings = true,
                "prompt" => completions = true,
                _ => {}
            }
            ControlFlow::Continue(())
        })
        .ok()?;
        match (chat, embeddings, completions) {
            (true, _, _) => Some(Endpoint::Chat),
            (_, true, _) => Some(Endpoint::Embeddings),
            (_, _, true) => Some(Endpoint::Completions),
            _ => None,
        }
    }

    /// Whether the call produces text that can be streamed.
    pub const fn generates(self) -> bool {
        !matches!(self, Endpoint::Embeddings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_is_known_with_and_without_version() {
        for endpoint in Endpoint::ALL {
            assert_eq!(Endpoint::from_url(endpoint.path()), Some(endpoint));
            assert_eq!(Endpoint::from_url(endpoint.path_below_v1()), Some(endpoint));
        }
        assert_eq!(Endpoint::from_url("/v1/images/generations"), None);
        assert_eq!(Endpoint::from_url("/v1/chat/completions/"), None);
    }

    #[test]
    fn body_tells_the_endpoint() {
        assert_eq!(Endpoint::infer(br#"{"messages":[]}"#), Some(Endpoint::Chat));
        assert_eq!(Endpoint::infer(br#"{"input":"a"}"#), Some(Endpoint::Embeddings));
        assert_eq!(Endpoint::infer(br#"{"prompt":"a"}"#), Some(Endpoint::Completions));
        assert_eq!(Endpoint::infer(br#"{"prompt":"a","messages":[]}"#), Some(Endpoint::Chat));
        assert_eq!(Endpoint::infer(br#"{"text":"a"}"#), None);
        assert_eq!(Endpoint::infer(b"[1]"), None);
    }
}
