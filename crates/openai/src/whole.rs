//! Holds: the choices of a whole answer, told as OpenAI tells them, whatever server made them.

use std::{borrow::Cow, ops::ControlFlow, ops::Range};

use crate::{
    choice,
    ending::Ending,
    members::{each_item, each_member, range_in},
    thought::{Thought, may_think},
};

/// A choice failed, and with it the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failed;

type RawChoice<'a> = choice::RawChoice<'a, ()>;
/// What takes the place of bytes.
type Edit = (Range<usize>, Cow<'static, str>);

/// The JSON of `choices` with an end that OpenAI knows in each, and with both names of reasoning; `None` where it says all
/// of that already. Choices that say nothing that is known pass as they are, and so does what is no list of them.
pub(crate) fn choices_told(json: &str) -> Result<Option<String>, Failed> {
    let thinks = may_think(json);
    let (mut edits, mut failed) = (Vec::<Edit>::new(), false);
    let listed = each_item(json, |choice: RawChoice<'_>| {
        if choice.said().is_none() && choice.text.is_none() {
            return;
        }
        if let Some(message) = choice.said().filter(|_| thinks) {
            let mut thought = Thought::default();
            let members = each_member(message.get(), |key, value| {
                thought.take(&key, value);
                ControlFlow::Continue(())
            });
            let twin = thought.twin(json).filter(|_| members.is_ok());
            edits.extend(twin.map(Into::into));
        }
        match ended(json, &choice) {
            Ok(edit) => edits.extend(edit),
            Err(Failed) => failed = true,
        }
    });
    if failed {
        return Err(Failed);
    }
    if listed.is_err() || edits.is_empty() {
        return Ok(None);
    }
    // A choice's members stand in any order.
    edits.sort_by_key(|(at, _)| at.start);
    let grown = edits.iter().map(|(_, value)| value.len()).sum::<usize>();
    let mut out = String::with_capacity(json.len() + grown);
    let mut from = 0;
    for (at, value) in edits {
        out.push_str(json.get(from..at.start).unwrap_or_default());
        out.push_str(&value);
        from = at.end;
    }
    out.push_str(json.get(from..).unwrap_or_default());
    Ok(Some(out))
}

/// What has to change for the choice to end in OpenAI's words. One that tells no end has stopped.
fn ended(json: &str, choice: &RawChoice<'_>) -> Result<Option<Edit>, Failed> {
    let Some(reason) = choice.finish_reason else {
        let end = choice.last.map(|last| range_in(json, last.get()).end);
        return Ok(end.map(|end| (end..end, Cow::Borrowed(",\"finish_reason\":\"stop\""))));
    };
    let ending = if choice.ends() { Ending::of(reason.get()) } else { Ending::Stop };
    let word = ending.word(choice.text.is_none()).ok_or(Failed)?;
    Ok((word != reason.get()).then(|| (range_in(json, reason.get()), Cow::Borrowed(word))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_end_in_openai_s_words_and_think_under_both_names() {
        for (choices, expected) in [
            (r#"[{"message":{"content":"a"},"finish_reason":"stop"}]"#, None),
            (r#"[{"index":0,"text":"a","finish_reason":"length"}]"#, None),
            (r#"[{"x":1.0}]"#, None),
            ("[1]", None),
            (
                r#"[{"finish_reason":"abort","message":{"content":"a","reasoning":"b"}},{"text":"c"}]"#,
                Some(
                    r#"[{"finish_reason":"stop","message":{"content":"a","reasoning":"b","reasoning_content":"b"}},{"text":"c","finish_reason":"stop"}]"#,
                ),
            ),
            (
                r#"[{"message":{"reasoning_content":"b","reasoning":null},"finish_reason":"repetition"}]"#,
                Some(r#"[{"message":{"reasoning_content":"b","reasoning":"b"},"finish_reason":"length"}]"#),
            ),
            (
                r#"[{"text":"a","finish_reason":"tool_calls"},{"text":"b","finish_reason":null}]"#,
                Some(r#"[{"text":"a","finish_reason":"stop"},{"text":"b","finish_reason":"stop"}]"#),
            ),
        ] {
            assert_eq!(choices_told(choices).unwrap().as_deref(), expected, "{choices}");
        }
        assert_eq!(choices_told(r#"[{"message":{"content":"a"},"finish_reason":"error"}]"#), Err(Failed));
    }
}
