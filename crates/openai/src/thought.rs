//! Holds: reasoning under both of its names. Servers write one or the other, and each client reads one of them.

use std::{borrow::Cow, ops::Range};

use serde_json::value::RawValue;

use crate::{members::range_in, said::is_filled};

/// vLLM's and Ollama's name, and that of SGLang and llama.cpp.
const NAMES: [&str; 2] = ["reasoning", "reasoning_content"];

/// What a delta or a message says under either name. Of a member that stands in it twice, the last one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Thought<'a>([Option<&'a RawValue>; 2]);

/// What gives a text its second name.
pub(crate) struct Twin {
    /// What is replaced.
    pub(crate) at: Range<usize>,
    /// By this.
    pub(crate) value: String,
    /// Where the text's JSON begins in it.
    pub(crate) told_at: usize,
}

/// Whether a member has one of the names.
pub(crate) fn is_thought(key: &str) -> bool {
    NAMES.contains(&key)
}

/// The other name of a member that has one of them.
pub(crate) fn other_name(key: &str) -> Option<&'static str> {
    match key {
        "reasoning" => Some("reasoning_content"),
        "reasoning_content" => Some("reasoning"),
        _ => None,
    }
}

/// Whether an answer may have such members at all, before its messages are looked into.
pub(crate) fn may_think(json: &str) -> bool {
    memchr::memmem::find(json.as_bytes(), b"\"reasoning").is_some()
}

impl<'a> Thought<'a> {
    /// Takes in a member.
    pub(crate) fn take(&mut self, key: &str, value: &'a RawValue) {
        let [first, second] = &mut self.0;
        match key {
            "reasoning" => *first = Some(value),
            "reasoning_content" => *second = Some(value),
            _ => {}
        }
    }

    /// What has to change in the text for the other name to say the same. Nothing where both say something or neither does.
    pub(crate) fn twin(&self, text: &str) -> Option<Twin> {
        let said = |at: usize| self.0.get(at).copied().flatten().filter(|value| is_filled(value.get()));
        let (value, other) = match (said(0), said(1)) {
            (Some(value), None) => (value, 1),
            (None, Some(value)) => (value, 0),
            _ => return None,
        };
        if let Some(empty) = self.0.get(other).copied().flatten() {
            return Some(Twin { at: range_in(text, empty.get()), value: value.get().to_owned(), told_at: 0 });
        }
        let name = NAMES.get(other)?;
        let end = range_in(text, value.get()).end;
        let lead = format!(",\"{name}\":");
        let told_at = lead.len();
        Some(Twin { at: end..end, value: lead + value.get(), told_at })
    }
}

impl From<Twin> for (Range<usize>, Cow<'static, str>) {
    fn from(twin: Twin) -> Self {
        (twin.at, Cow::Owned(twin.value))
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;
    use crate::members::each_member;

    #[test]
    fn the_other_name_says_the_same() {
        for (delta, expected) in [
            (r#"{"reasoning":"a"}"#, Some(r#"{"reasoning":"a","reasoning_content":"a"}"#)),
            (r#"{"reasoning_content":"a\n","x":1}"#, Some(r#"{"reasoning_content":"a\n","reasoning":"a\n","x":1}"#)),
            (r#"{"reasoning_content":null,"reasoning":"a"}"#, Some(r#"{"reasoning_content":"a","reasoning":"a"}"#)),
            (r#"{"reasoning":"a","reasoning_content":""}"#, Some(r#"{"reasoning":"a","reasoning_content":"a"}"#)),
            (r#"{"reasoning":"a","reasoning_content":"b"}"#, None),
            (r#"{"reasoning":"","reasoning_content":null}"#, None),
            (r#"{"content":"a"}"#, None),
        ] {
            let mut thought = Thought::default();
            each_member(delta, |key, value| {
                thought.take(&key, value);
                ControlFlow::Continue(())
            })
            .unwrap();
            let told = thought.twin(delta).map(|twin| {
                assert!(twin.value[twin.told_at..].starts_with('"'), "{delta}");
                let mut told = delta.to_owned();
                told.replace_range(twin.at, &twin.value);
                told
            });
            assert_eq!(told.as_deref(), expected, "{delta}");
            assert!(delta == r#"{"content":"a"}"# || may_think(delta));
        }
        assert!(NAMES.iter().all(|name| is_thought(name) && other_name(name).is_some_and(is_thought)));
    }
}
