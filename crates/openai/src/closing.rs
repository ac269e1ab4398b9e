//! Holds: what is added to answers here: the usage that is billed, and the end of a stream that was cut off.

use std::fmt::Write;

use batchin_domain::CallKind;
use bytes::Bytes;

use crate::{
    members::quoted,
    rewrite::{Change, Member, members_of, splice},
    sse,
    tier::Tier,
    usage::Usage,
};

/// Whether the chunks of a call's streams are those of chats, with a `delta` in each choice, and not those of text
/// completions, with a `text`.
pub(crate) const fn streams_deltas(call: CallKind) -> bool {
    match call.asks() {
        CallKind::Chat | CallKind::Responses | CallKind::Messages => true,
        // Of the others there are no chunks.
        CallKind::Completions
        | CallKind::Fim
        | CallKind::Embeddings
        | CallKind::Rerank
        | CallKind::Speech
        | CallKind::Transcriptions
        | CallKind::Translations
        | CallKind::Images
        | CallKind::ImageEdits
        | CallKind::Video => false,
    }
}

/// What every chunk of a stream begins with.
#[derive(Clone, Copy, Debug)]
pub struct ChunkHead<'a> {
    /// The call.
    pub call: CallKind,
    /// The public id.
    pub id: &'a str,
    /// The public name of the model.
    pub model: &'a str,
    /// Seconds since 1970.
    pub created: i64,
    /// The tier that it is served in, where one was asked for.
    pub tier: Option<Tier>,
}

impl ChunkHead<'_> {
    /// The frame that ends these choices by `length`.
    pub fn end_by_length(self, choices: impl IntoIterator<Item = u64>) -> Bytes {
        let empty = if streams_deltas(self.call) { "\"delta\":{}" } else { "\"text\":\"\"" };
        let mut list = String::new();
        for index in choices {
            let comma = if list.is_empty() { "" } else { "," };
            let _ = write!(list, "{comma}{{\"index\":{index},{empty},\"logprobs\":null,\"finish_reason\":\"length\"}}");
        }
        self.frame(&format!("[{list}]"))
    }

    /// The frame with the usage.
    pub fn usage(self, usage: &Usage) -> Bytes {
        self.frame(&format!("[],\"usage\":{}", usage_json(usage, true)))
    }

    fn frame(self, choices: &str) -> Bytes {
        let object = if streams_deltas(self.call) { "chat.completion.chunk" } else { "text_completion" };
        let (id, model, created) = (quoted(self.id), quoted(self.model), self.created);
        let mut chunk = format!(
            "{{\"id\":{id},\"object\":\"{object}\",\"created\":{created},\"model\":{model},\"choices\":{choices}"
        );
        if let Some(tier) = self.tier {
            let _ = write!(chunk, ",\"service_tier\":{}", tier.json());
        }
        chunk.push('}');
        sse::frame(chunk.as_bytes())
    }
}

/// The answer with these counts as its `usage`, in place of whatever stood there. `generates` is whether its call
/// produces tokens.
pub fn with_usage(body: &Bytes, usage: &Usage, generates: bool) -> Bytes {
    with_member(body, "usage", usage_json(usage, generates))
}

/// The answer with the tier that it was served in, in place of what its server says.
pub fn with_tier(body: &Bytes, tier: Tier) -> Bytes {
    with_member(body, "service_tier", tier.json().to_owned())
}

/// The answer with this member once, in place of whatever stood there.
fn with_member(body: &Bytes, key: &str, json: String) -> Bytes {
    let Some((text, members)) = members_of(body) else { return body.clone() };
    let mut told = false;
    let change = |member: &Member<'_>| match member.key.as_ref() {
        known if known != key => Change::Keep,
        _ if !std::mem::replace(&mut told, true) => Change::to(member, json.clone()),
        _ => Change::Remove,
    };
    let changes: Vec<Change> = members.iter().map(change).collect();
    let added = if told { Vec::new() } else { vec![(key, json)] };
    splice(text, &members, &changes, &added)
}

pub(crate) fn usage_json(usage: &Usage, generates: bool) -> String {
    let (prompt, completion) = (usage.prompt_tokens.unwrap_or(0), usage.completion_tokens.unwrap_or(0));
    let mut json = format!("{{\"prompt_tokens\":{prompt}");
    if generates {
        let total = prompt.saturating_add(completion);
        let _ = write!(json, ",\"completion_tokens\":{completion},\"total_tokens\":{total}");
    } else {
        let _ = write!(json, ",\"total_tokens\":{prompt}");
    }
    let (cached, written) = (usage.cached_tokens, usage.cache_write_tokens);
    if cached > 0 || written > 0 {
        let _ = write!(json, ",\"prompt_tokens_details\":{{\"cached_tokens\":{cached}");
        if written > 0 {
            let _ = write!(json, ",\"cache_write_tokens\":{written}");
        }
        json.push('}');
    }
    if usage.reasoning_tokens > 0 {
        let _ = write!(json, ",\"completion_tokens_details\":{{\"reasoning_tokens\":{}}}", usage.reasoning_tokens);
    }
    json.push('}');
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_replace_what_stood_there() {
        let told = |body: &'static str| with_usage(&Bytes::from_static(body.as_bytes()), &Usage::of(2, 1), true);
        let counts = r#""usage":{"prompt_tokens":2,"completion_tokens":1,"total_tokens":3}"#;
        assert_eq!(told(r#"{"choices":[]}"#), format!(r#"{{"choices":[],{counts}}}"#));
        assert_eq!(told(r#"{"usage":null,"choices":[]}"#), format!(r#"{{{counts},"choices":[]}}"#));
        let vectors = with_usage(&Bytes::from_static(br#"{"data":[]}"#), &Usage::of(2, 0), false);
        assert_eq!(vectors, r#"{"data":[],"usage":{"prompt_tokens":2,"total_tokens":2}}"#);
        let parts = Usage { cached_tokens: 1, reasoning_tokens: 2, ..Usage::of(2, 3) };
        for parts in [
            parts,
            Usage { cache_write_tokens: 1, ..parts },
            Usage { cached_tokens: 0, cache_write_tokens: 2, ..parts },
        ] {
            let body = with_usage(&Bytes::from_static(b"{}"), &parts, true);
            assert_eq!(crate::usage_of(&body), Some(parts));
        }
        let written = Usage { cache_write_tokens: 2, ..Usage::of(2, 1) };
        let details = r#""prompt_tokens_details":{"cached_tokens":0,"cache_write_tokens":2}"#;
        assert!(
            usage_json(&written, true).contains(details) && !usage_json(&Usage::of(2, 1), true).contains("details")
        );
    }

    #[test]
    fn the_tier_served_takes_the_place_of_what_the_server_says() {
        let told = |body: &'static str| with_tier(&Bytes::from_static(body.as_bytes()), Tier::Flex);
        assert_eq!(told(r#"{"service_tier":null,"a":1}"#), r#"{"service_tier":"flex","a":1}"#);
        assert_eq!(told(r#"{"a":1}"#), r#"{"a":1,"service_tier":"flex"}"#);
        assert_eq!(told(r#"{"service_tier":"x","service_tier":1}"#), r#"{"service_tier":"flex"}"#);
    }

    #[test]
    fn a_cut_stream_ends_as_any_other() {
        let head = ChunkHead { call: CallKind::Chat, id: "chatcmpl_1", model: "m", created: 7, tier: None };
        assert_eq!(
            head.end_by_length([1]),
            "data: {\"id\":\"chatcmpl_1\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":\"m\",\"choices\":\
             [{\"index\":1,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"length\"}]}\n\n"
        );
        let flex = ChunkHead { tier: Some(Tier::Flex), ..head }.end_by_length([]);
        assert!(flex.ends_with(b"\"choices\":[],\"service_tier\":\"flex\"}\n\n"), "{flex:?}");
        let head = ChunkHead { call: CallKind::Completions, ..head };
        let frame = head.usage(&Usage::of(2, 1));
        let frame = std::str::from_utf8(&frame).unwrap();
        assert!(
            frame.contains("\"object\":\"text_completion\"") && frame.contains("\"choices\":[],\"usage\":{"),
            "{frame}"
        );
    }
}
