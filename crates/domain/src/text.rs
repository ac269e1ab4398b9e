//! Holds: what every text must be that is stored, compared or repeated to its sender.

/// What is told of a text that [`is_storable`] refuses; follows the name of the field.
pub const NOT_STORABLE: &str = "must not contain U+0000";

/// Characters of a client's own text that a message repeats.
const MAX_ECHO_CHARS: usize = 100;

/// Whether both databases can store the text: PostgreSQL takes every character except U+0000.
pub fn is_storable(text: &str) -> bool {
    !text.contains('\0')
}

/// The text as both databases can store it, for texts that others sent and nobody can be asked about.
pub fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// A client's own text, short enough to be repeated to it.
pub fn echo(text: &str) -> String {
    match text.char_indices().nth(MAX_ECHO_CHARS) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_u0000_is_refused_and_replaced() {
        assert!(is_storable("a\u{1}\u{fffd}") && !is_storable("a\0b"));
        assert_eq!(storable("a\0b"), "a\u{fffd}b");
    }
}
