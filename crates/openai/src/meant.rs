//! Holds: which kind of call a body is meant for.

use std::ops::ControlFlow;

use batchin_domain::CallKind;

use crate::members::each_member;

/// The kind of call that a body is meant for: `messages` chat, `input` embeddings, `prompt` completions.
///
/// `None` when the body is not a JSON object or has none of them.
pub fn meant_for(body: &[u8]) -> Option<CallKind> {
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
        (true, _, _) => Some(CallKind::Chat),
        (_, true, _) => Some(CallKind::Embeddings),
        (_, _, true) => Some(CallKind::Completions),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_tells_the_kind_of_call() {
        assert_eq!(meant_for(br#"{"messages":[]}"#), Some(CallKind::Chat));
        assert_eq!(meant_for(br#"{"input":"a"}"#), Some(CallKind::Embeddings));
        assert_eq!(meant_for(br#"{"prompt":"a"}"#), Some(CallKind::Completions));
        assert_eq!(meant_for(br#"{"prompt":"a","messages":[]}"#), Some(CallKind::Chat));
        assert_eq!(meant_for(br#"{"text":"a"}"#), None);
        assert_eq!(meant_for(b"[1]"), None);
    }
}
