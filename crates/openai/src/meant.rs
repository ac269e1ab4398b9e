//! Holds: which kind of call a body is meant for.

use std::ops::ControlFlow;

use batchin_domain::CallKind;

use crate::members::each_member;

/// The kind of call that a body is meant for, by the prompt it has.
///
/// `None` when the body is not a JSON object or has none.
pub fn meant_for(body: &[u8]) -> Option<CallKind> {
    let text = std::str::from_utf8(body).ok()?;
    let mut prompts = Vec::new();
    each_member(text, |key, _| {
        prompts.extend(CallKind::ALL.map(CallKind::prompt).into_iter().filter(|prompt| key == *prompt));
        ControlFlow::Continue(())
    })
    .ok()?;
    CallKind::meant_by(|prompt| prompts.contains(&prompt))
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
        assert_eq!(meant_for(br#"{"prompt":"a","input":"a"}"#), Some(CallKind::Embeddings));
        assert_eq!(meant_for(br#"{"text":"a"}"#), None);
        assert_eq!(meant_for(b"[1]"), None);
    }
}
