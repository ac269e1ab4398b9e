//! Holds: how the answer to one request is told: whole, or from its beginning on.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    echo::Echo,
    item::{Status, items_of},
    response::{Response, State},
    stream::Stream,
};
use crate::{Names, Retelling, Telling, hear};

/// How a request's answer is told.
#[derive(Debug)]
pub(super) struct Told(pub(super) Arc<Echo>);

impl Retelling for Told {
    fn whole(&self, chat: &[u8], names: Names<'_>) -> Bytes {
        let heard = hear(chat);
        let choice = heard.choices.into_iter().find(|choice| choice.index == 0).unwrap_or_default();
        let mut items = items_of(&choice, names.id, &self.0.called, self.0.logprobs);
        let state = State::ended_by(choice.finish);
        if let (State::Incomplete(_), Some(last)) = (state, items.last_mut()) {
            last.status = Status::Incomplete;
        }
        let mut out = Vec::with_capacity(chat.len() + self.0.members.len() + 512);
        Response { echo: &self.0, names, state, items: &items, usage: heard.usage }.write(&mut out);
        out.into()
    }

    fn stream(&self, names: Names<'_>) -> Box<dyn Telling> {
        Box::new(Stream::new(Arc::clone(&self.0), names))
    }

    fn member<'a>(&self, chat_member: &'a str) -> &'a str {
        match chat_member {
            "max_completion_tokens" | "max_tokens" => "max_output_tokens",
            "response_format" => "text.format",
            "reasoning_effort" => "reasoning.effort",
            "verbosity" => "text.verbosity",
            "logprobs" => "top_logprobs",
            _ if chat_member.starts_with("messages") => "input",
            _ => chat_member,
        }
    }
}
