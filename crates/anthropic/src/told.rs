//! Holds: how one request's answer is told as a message.

use std::sync::Arc;

use batchin_openai::{Names, Retelling, Telling};
use bytes::Bytes;

use crate::{stream::Stream, whole};

/// What of a request its answer is told by.
#[derive(Debug)]
pub(crate) struct AsMessage {
    /// The stop sequences that it named.
    stop_sequences: Arc<[String]>,
}

impl AsMessage {
    pub(crate) fn new(stop_sequences: Vec<String>) -> Self {
        Self { stop_sequences: stop_sequences.into() }
    }
}

impl Retelling for AsMessage {
    fn whole(&self, chat: &[u8], names: Names<'_>) -> Bytes {
        whole::message(chat, names, &self.stop_sequences)
    }

    fn stream(&self, names: Names<'_>) -> Box<dyn Telling> {
        Box::new(Stream::new(names, Arc::clone(&self.stop_sequences)))
    }

    fn member<'a>(&self, chat_member: &'a str) -> &'a str {
        member(chat_member)
    }
}

/// What a member of the chat's body is called in the request. What lies within a member that was put together anew is called
/// by that member's name, as it lies elsewhere.
pub(crate) fn member(chat_member: &str) -> &str {
    let end = chat_member.find(['.', '[']).unwrap_or(chat_member.len());
    match &chat_member[..end] {
        "max_completion_tokens" => "max_tokens",
        "stop" => "stop_sequences",
        "stream_options" => "stream",
        "user" => "metadata.user_id",
        "parallel_tool_calls" => "tool_choice.disable_parallel_tool_use",
        "reasoning_effort" => "output_config.effort",
        "response_format" => "output_config.format",
        whole @ ("messages" | "tool_choice") => whole,
        "tools" => chat_member.find(']').map_or("tools", |end| &chat_member[..=end]),
        _ => chat_member,
    }
}

#[cfg(test)]
mod tests {
    use super::member;

    #[test]
    fn members_are_called_what_the_request_calls_them() {
        for (chat, ours) in [
            ("model", "model"),
            ("max_tokens", "max_tokens"),
            ("max_completion_tokens", "max_tokens"),
            ("temperature", "temperature"),
            ("stop[3]", "stop_sequences"),
            ("stop", "stop_sequences"),
            ("user", "metadata.user_id"),
            ("response_format.json_schema.schema", "output_config.format"),
            ("messages[4].content[0]", "messages"),
            ("messages", "messages"),
            ("tools[2].function.parameters", "tools[2]"),
            ("tools", "tools"),
            ("chat_template_kwargs.x", "chat_template_kwargs.x"),
            ("", ""),
        ] {
            assert_eq!(member(chat), ours);
        }
    }
}
