//! Holds: the words by which a choice ends, in OpenAI's own, whatever its server calls them.

use std::borrow::Cow;

use crate::{Code, UpstreamError};

/// Why a choice ended, by a word that is a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The model had said all, or met a stop sequence.
    Stop,
    /// It met the limit of its tokens, or was stopped because it repeated itself.
    Length,
    /// It calls tools.
    ToolCalls,
    /// It calls a function, as chats did before there were tools.
    FunctionCall,
    /// Its content was filtered.
    ContentFilter,
    /// Its server failed, and says so where others send an error.
    Failed,
}

impl Ending {
    /// By OpenAI's names and those that servers use beside them; JSON as it lies in the answer. Whoever ends for a reason
    /// that nobody knows has stopped.
    pub(crate) fn of(json: &str) -> Self {
        let inner = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(json);
        let word = if inner.contains('\\') {
            serde_json::from_str::<String>(json).map_or(Cow::Borrowed(inner), Cow::Owned)
        } else {
            Cow::Borrowed(inner)
        };
        match word.as_ref() {
            // vLLM's "repetition" is a model that was cut off in a loop; Mistral has "model_length".
            "length" | "max_tokens" | "model_length" | "repetition" => Self::Length,
            "tool_calls" | "tool_use" => Self::ToolCalls,
            "function_call" => Self::FunctionCall,
            "content_filter" => Self::ContentFilter,
            "error" => Self::Failed,
            // "abort" of vLLM and SGLang too: the answer ends here, and what it has is all that comes.
            _ => Self::Stop,
        }
    }

    /// OpenAI's word for it as JSON, in a chat or in a text completion, which knows fewer. `None` for a failure.
    pub(crate) const fn word(self, chat: bool) -> Option<&'static str> {
        match self {
            Self::ToolCalls if chat => Some("\"tool_calls\""),
            Self::FunctionCall if chat => Some("\"function_call\""),
            Self::Stop | Self::ToolCalls | Self::FunctionCall => Some("\"stop\""),
            Self::Length => Some("\"length\""),
            Self::ContentFilter => Some("\"content_filter\""),
            Self::Failed => None,
        }
    }
}

/// What is told of an answer that ended by a failure of which nothing else is known.
pub(crate) fn failed_choice() -> UpstreamError {
    UpstreamError {
        message: "The model server stopped this answer with an error.".to_owned(),
        param: None,
        code: Some(Code::UpstreamError.name().to_owned()),
        kind: Some(Code::UpstreamError.kind().to_owned()),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_becomes_one_of_openai_s() {
        for (word, chat, completion) in [
            ("stop", "stop", "stop"),
            ("length", "length", "length"),
            ("content_filter", "content_filter", "content_filter"),
            ("tool_calls", "tool_calls", "stop"),
            ("function_call", "function_call", "stop"),
            ("\\u0073top", "stop", "stop"),
            ("abort", "stop", "stop"),
            ("repetition", "length", "length"),
            ("max_tokens", "length", "length"),
            ("tool_use", "tool_calls", "stop"),
            ("eos_token", "stop", "stop"),
        ] {
            let ending = Ending::of(&format!("\"{word}\""));
            assert_eq!(ending.word(true), Some(format!("\"{chat}\"").as_str()), "{word}");
            assert_eq!(ending.word(false), Some(format!("\"{completion}\"").as_str()), "{word}");
        }
        assert_eq!(Ending::of("\"error\"").word(true), None);
    }

    #[test]
    fn a_failure_is_told_without_a_status_of_its_own() {
        let error = failed_choice();
        assert_eq!((error.status, error.blames_request()), (None, false));
        assert!(error.message.contains("stopped this answer"), "{}", error.message);
    }
}
