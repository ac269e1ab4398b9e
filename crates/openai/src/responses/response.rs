//! Holds: a response as JSON, at any time of its life.

use std::io::Write;

use super::{echo::Echo, item::Item, json::push_text};
use crate::{Code, Finish, Names, Usage};

/// How far a response is.
#[derive(Clone, Copy, Debug)]
pub(super) enum State<'a> {
    InProgress,
    Completed,
    /// For this reason.
    Incomplete(&'static str),
    Failed {
        code: Code,
        message: &'a str,
    },
}

/// A response.
pub(super) struct Response<'a> {
    pub(super) echo: &'a Echo,
    pub(super) names: Names<'a>,
    pub(super) state: State<'a>,
    pub(super) items: &'a [Item],
    pub(super) usage: Option<Usage>,
}

impl State<'_> {
    /// Of an answer that ended so.
    pub(super) fn ended_by(finish: Option<Finish>) -> Self {
        match finish {
            Some(Finish::Length) => Self::Incomplete("max_output_tokens"),
            Some(Finish::ContentFilter) => Self::Incomplete("content_filter"),
            Some(Finish::Stop | Finish::ToolCalls) | None => Self::Completed,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Incomplete(_) => "incomplete",
            Self::Failed { .. } => "failed",
        }
    }
}

impl Response<'_> {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"id\":");
        push_text(out, self.names.id);
        // Writing to memory does not fail.
        let _ = write!(out, ",\"object\":\"response\",\"created_at\":{},\"status\":\"", self.names.created);
        out.extend_from_slice(self.state.name().as_bytes());
        out.extend_from_slice(b"\",\"error\":");
        self.write_error(out);
        out.extend_from_slice(b",\"incomplete_details\":");
        match self.state {
            State::Incomplete(reason) => {
                out.extend_from_slice(b"{\"reason\":");
                push_text(out, reason);
                out.push(b'}');
            }
            State::InProgress | State::Completed | State::Failed { .. } => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"model\":");
        push_text(out, self.names.model);
        out.extend_from_slice(b",\"output\":[");
        for (at, item) in self.items.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            item.write(out);
        }
        out.extend_from_slice(b"],");
        out.extend_from_slice(&self.echo.members);
        if let Some(tier) = self.names.tier {
            let _ = write!(out, ",\"service_tier\":\"{}\"", tier.name());
        }
        out.extend_from_slice(b",\"usage\":");
        self.write_usage(out);
        out.push(b'}');
    }

    fn write_error(&self, out: &mut Vec<u8>) {
        let State::Failed { code, message } = self.state else { return out.extend_from_slice(b"null") };
        // OpenAI's type for it has these two of our codes alone.
        let code = if code == Code::RateLimitExceeded { "rate_limit_exceeded" } else { "server_error" };
        out.extend_from_slice(b"{\"code\":");
        push_text(out, code);
        out.extend_from_slice(b",\"message\":");
        push_text(out, message);
        out.push(b'}');
    }

    fn write_usage(&self, out: &mut Vec<u8>) {
        match &self.usage {
            Some(usage) => out.extend_from_slice(usage_json(usage).as_bytes()),
            None => out.extend_from_slice(b"null"),
        }
    }
}

/// Counts, as a response tells them.
pub(super) fn usage_json(usage: &Usage) -> String {
    let (input, output) = (usage.prompt_tokens.unwrap_or(0), usage.completion_tokens.unwrap_or(0));
    let Usage { cached_tokens: cached, cache_write_tokens: written, reasoning_tokens: reasoning, .. } = usage;
    let total = input.saturating_add(output);
    format!(
        "{{\"input_tokens\":{input},\"input_tokens_details\":{{\"cached_tokens\":{cached},\"cache_write_tokens\":{written}}},\
         \"output_tokens\":{output},\"output_tokens_details\":{{\"reasoning_tokens\":{reasoning}}},\
         \"total_tokens\":{total}}}"
    )
}
