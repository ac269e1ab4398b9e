//! Holds: which values in an answer say nothing. Servers fill members that they have no use for in many ways.

use std::ops::ControlFlow;

use serde_json::value::RawValue;

use crate::members::{each_item, each_member};

/// How deep a value is looked into; what lies deeper says something.
const MAX_DEPTH: u32 = 4;

/// Whether a `finish_reason` is one. Some servers write an empty text, or `"null"`, on each chunk.
pub(crate) fn is_reason(json: &str) -> bool {
    let inner = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner.is_some_and(|inner| !["null", "none"].iter().any(|word| inner.eq_ignore_ascii_case(word))) && !is_blank(json)
}

/// Whether an `error` is one: not null, false, 0, blank, or made of such alone.
pub(crate) fn says_something(json: &str) -> bool {
    says(json, 0)
}

fn says(json: &str, depth: u32) -> bool {
    if depth == MAX_DEPTH {
        return true;
    }
    let mut any = false;
    match json.as_bytes().first() {
        Some(b'"') => return !is_blank(json),
        Some(b'{') => {
            // The value is valid JSON; an object lists its members, an array its items.
            let _listed = each_member(json, |_, value| {
                any |= says(value.get(), depth + 1);
                if any { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
        }
        Some(b'[') => {
            let _listed = each_item(json, |value: &RawValue| any = any || says(value.get(), depth + 1));
        }
        _ => any = !matches!(json, "null" | "false" | "0"),
    }
    any
}

/// Whether a JSON string has nothing but white space in it.
fn is_blank(json: &str) -> bool {
    if json.contains('\\') {
        return serde_json::from_str::<String>(json).is_ok_and(|text| text.trim().is_empty());
    }
    json.trim_matches('"').trim().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_real_reason_ends_a_choice() {
        for none in ["null", "\"\"", "\" \"", "\"\\n\"", "\"null\"", "\"None\"", "0", "{}", "false", "[]"] {
            assert!(!is_reason(none), "{none}");
        }
        for some in ["\"stop\"", "\"length\"", "\"tool_calls\"", "\"\\u0073top\"", "\"error\""] {
            assert!(is_reason(some), "{some}");
        }
    }

    #[test]
    fn empty_errors_are_none() {
        for none in [
            "null",
            "false",
            "0",
            "\"\"",
            "\"  \"",
            "\"\\t\"",
            "{}",
            "[]",
            "{\"message\":\"\",\"code\":null}",
            "[null]",
        ] {
            assert!(!says_something(none), "{none}");
        }
        for some in ["true", "\"boom\"", "500", "{\"message\":\"boom\"}", "{\"code\":500}", "[\"a\"]", "[[[[[[]]]]]]"] {
            assert!(says_something(some), "{some}");
        }
    }
}
