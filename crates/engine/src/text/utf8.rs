//! Holds: bytes of tokens put together to whole characters. A multibyte character often spans two or three tokens.

/// Collects bytes and gives out only whole characters; invalid bytes become U+FFFD.
#[derive(Debug, Default)]
pub(crate) struct Utf8Buffer {
    /// The beginning of a character whose end has not arrived: at most three bytes between calls.
    pending: Vec<u8>,
}

impl Utf8Buffer {
    /// Adds bytes and appends what is now whole to `out`.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut String) {
        if self.pending.is_empty()
            && let Ok(text) = std::str::from_utf8(bytes)
        {
            out.push_str(text);
            return;
        }
        self.pending.extend_from_slice(bytes);
        let mut done = 0;
        for chunk in self.pending.utf8_chunks() {
            out.push_str(chunk.valid());
            done += chunk.valid().len();
            let invalid = chunk.invalid();
            let unfinished = done + invalid.len() == self.pending.len() && may_continue(invalid);
            if invalid.is_empty() || unfinished {
                break;
            }
            out.push(char::REPLACEMENT_CHARACTER);
            done += invalid.len();
        }
        self.pending.drain(..done);
    }

    /// Ends the text: an unfinished character becomes U+FFFD.
    pub(crate) fn finish(&mut self, out: &mut String) {
        if !self.pending.is_empty() {
            out.push(char::REPLACEMENT_CHARACTER);
            self.pending.clear();
        }
    }
}

/// Whether these bytes are the beginning of a character rather than garbage.
fn may_continue(bytes: &[u8]) -> bool {
    matches!(std::str::from_utf8(bytes), Err(error) if error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(parts: &[&[u8]]) -> Vec<String> {
        let mut buffer = Utf8Buffer::default();
        let mut shown: Vec<String> = parts
            .iter()
            .map(|part| {
                let mut out = String::new();
                buffer.push(part, &mut out);
                out
            })
            .collect();
        let mut rest = String::new();
        buffer.finish(&mut rest);
        shown.push(rest);
        shown
    }

    #[test]
    fn a_split_character_waits_for_its_end() {
        assert_eq!(pieces(&[b"a\xF0\x9F", b"\x98", b"\x80b"]), ["a", "", "\u{1F600}b", ""]);
    }

    #[test]
    fn garbage_becomes_a_replacement_and_does_not_block() {
        assert_eq!(pieces(&[b"\xFFa", b"b"]), ["\u{FFFD}a", "b", ""]);
        assert_eq!(pieces(&[b"\xE2\x82", b"x"]), ["", "\u{FFFD}x", ""]);
    }

    #[test]
    fn an_unfinished_end_is_replaced() {
        assert_eq!(pieces(&[b"ok\xE2\x82"]), ["ok", "\u{FFFD}"]);
    }

    #[test]
    fn any_split_of_a_text_gives_the_text() {
        let text = "größer 日本語 😀 fin";
        for size in 1..6 {
            let parts: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            assert_eq!(pieces(&parts).concat(), text, "in chunks of {size}");
        }
    }
}
