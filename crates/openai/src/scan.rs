//! Holds: where items and members lie in JSON that is known to be valid.
//!
//! It looks for brackets and quotes alone, at the speed of memory, so that a large answer can be looked into once it has been
//! read. It judges nothing: of what is no JSON it says anything.

use memchr::{memchr2, memchr3};

/// The items of an array, as they lie in the text.
pub(crate) fn items_in(array: &str) -> impl Iterator<Item = &str> {
    let mut at = 1;
    std::iter::from_fn(move || {
        let from = next_token(array, at).filter(|from| !is_closing(array, *from))?;
        let end = end_of_value(array, from);
        at = end;
        array.get(from..end)
    })
}

/// The members of an object: the name with its quotes, and the value.
pub(crate) fn members_in(object: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut at = 1;
    std::iter::from_fn(move || {
        let from = next_token(object, at).filter(|from| !is_closing(object, *from))?;
        let name = object.get(from..end_of_value(object, from))?;
        let value_at = next_token(object, from + name.len())?;
        let end = end_of_value(object, value_at);
        at = end;
        Some((name, object.get(value_at..end)?))
    })
}

/// Where the next thing stands, past white space, commas and colons.
fn next_token(text: &str, from: usize) -> Option<usize> {
    let rest = text.as_bytes().get(from..)?;
    let is_between = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b',' | b':');
    Some(from + rest.iter().position(|byte| !is_between(byte))?)
}

fn is_closing(text: &str, at: usize) -> bool {
    matches!(text.as_bytes().get(at), Some(b']' | b'}'))
}

fn end_of_value(text: &str, from: usize) -> usize {
    let bytes = text.as_bytes();
    match bytes.get(from) {
        Some(b'"') => after_string(bytes, from),
        Some(b'[') => after_nest(bytes, from, (b'[', b']')),
        Some(b'{') => after_nest(bytes, from, (b'{', b'}')),
        _ => {
            let ends = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b',' | b']' | b'}');
            let rest = bytes.get(from..).unwrap_or_default();
            from + rest.iter().position(ends).unwrap_or(rest.len())
        }
    }
}

/// Brackets of one kind are balanced whatever lies between them, but for those in strings.
fn after_nest(bytes: &[u8], from: usize, (open, close): (u8, u8)) -> usize {
    let (mut at, mut depth) = (from, 0_usize);
    while let Some(step) = bytes.get(at..).and_then(|rest| memchr3(open, close, b'"', rest)) {
        at += step;
        if bytes[at] == b'"' {
            at = after_string(bytes, at);
            continue;
        }
        depth = if bytes[at] == open { depth + 1 } else { depth.saturating_sub(1) };
        at += 1;
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}

fn after_string(bytes: &[u8], from: usize) -> usize {
    let mut at = from + 1;
    while let Some(step) = bytes.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += step;
        if bytes[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_and_members_are_found_in_any_spelling() {
        let list = r#" [1.5e3,"a,]\"" , [ [2] , "}" ] ,{"a":"]"},null ]"#.trim();
        assert_eq!(
            items_in(list).collect::<Vec<_>>(),
            ["1.5e3", r#""a,]\"""#, r#"[ [2] , "}" ]"#, r#"{"a":"]"}"#, "null"]
        );
        let object = "{ \"a\" : 1 ,\"b}\\\\\":{\"c\":{}},\"d\":\"\\\"\"}";
        let members: Vec<_> = members_in(object).collect();
        assert_eq!(members, [("\"a\"", "1"), ("\"b}\\\\\"", "{\"c\":{}}"), ("\"d\"", "\"\\\"\"")]);
        assert_eq!((items_in("[ ]").count(), members_in("{}").count()), (0, 0));
    }

    #[test]
    fn what_is_no_json_ends_all_the_same() {
        for text in ["", "[", "{", "[\"", "{\"a", "{\"a\":", "[[[", "[1,", "[\"\\", "{,:}", "]"] {
            let _any = (items_in(text).count(), members_in(text).count());
        }
    }
}
