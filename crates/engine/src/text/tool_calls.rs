//! Holds: tool calls found in generated text, in the `<tool_call>{"name": …, "arguments": …}</tool_call>` form that
//! Hermes, Qwen and many others write.

use super::stop::partial_suffix;

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";

/// Splits a growing text into what is said and what is called.
#[derive(Debug, Default)]
pub(crate) struct ToolCallParser {
    held: String,
    inside: bool,
    called: bool,
}

/// A part of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Text for the reader.
    Text(String),
    /// A whole call; `arguments` is JSON text, as clients expect it.
    Call { name: String, arguments: String },
}

impl ToolCallParser {
    /// Adds text and returns what is now certain.
    pub(crate) fn push(&mut self, text: &str) -> Vec<Piece> {
        self.held.push_str(text);
        let mut pieces = Vec::new();
        loop {
            let marker = if self.inside { CLOSE } else { OPEN };
            let Some(at) = self.held.find(marker) else { break };
            let before = self.held[..at].to_owned();
            self.held.drain(..at + marker.len());
            if self.inside {
                pieces.push(self.close(before));
            } else {
                self.say(before, &mut pieces);
            }
            self.inside = !self.inside;
        }
        if !self.inside {
            let safe = self.held.len() - partial_suffix(&self.held, OPEN);
            let text: String = self.held.drain(..safe).collect();
            self.say(text, &mut pieces);
        }
        pieces
    }

    /// Ends the text. A call that was not closed still counts when it is whole.
    pub(crate) fn finish(&mut self) -> Vec<Piece> {
        let rest = std::mem::take(&mut self.held);
        let mut pieces = Vec::new();
        if self.inside {
            pieces.push(self.close(rest));
            self.inside = false;
        } else {
            self.say(rest, &mut pieces);
        }
        pieces
    }

    /// Whether any call was found.
    pub(crate) fn called(&self) -> bool {
        self.called
    }

    fn say(&self, text: String, pieces: &mut Vec<Piece>) {
        // Models put line breaks between calls; nobody means them as an answer.
        let between_calls = self.called && text.trim().is_empty();
        if !text.is_empty() && !between_calls {
            pieces.push(Piece::Text(text));
        }
    }

    fn close(&mut self, body: String) -> Piece {
        match parse_call(&body) {
            Some(call) => {
                self.called = true;
                call
            }
            None => Piece::Text(format!("{OPEN}{body}{CLOSE}")),
        }
    }
}

fn parse_call(body: &str) -> Option<Piece> {
    let mut call: serde_json::Map<String, serde_json::Value> = serde_json::from_str(body.trim()).ok()?;
    let name = call.get("name")?.as_str()?.to_owned();
    let arguments = match call.remove("arguments").or_else(|| call.remove("parameters")) {
        Some(serde_json::Value::String(text)) => text,
        Some(value) => value.to_string(),
        None => "{}".to_owned(),
    };
    Some(Piece::Call { name, arguments })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(parts: &[&str]) -> Vec<Piece> {
        let mut parser = ToolCallParser::default();
        let mut pieces: Vec<Piece> = parts.iter().flat_map(|part| parser.push(part)).collect();
        pieces.extend(parser.finish());
        pieces
    }

    fn text(text: &str) -> Piece {
        Piece::Text(text.to_owned())
    }

    fn call(name: &str, arguments: &str) -> Piece {
        Piece::Call { name: name.to_owned(), arguments: arguments.to_owned() }
    }

    #[test]
    fn calls_are_found_across_pieces() {
        let parts = ["Let me see. <tool", "_call>\n{\"name\": \"f\", \"argum", "ents\": {\"a\": 1}}\n</tool_", "call>"];
        assert_eq!(parse(&parts), [text("Let me see. "), call("f", r#"{"a":1}"#)]);
    }

    #[test]
    fn several_calls_and_the_breaks_between_them() {
        let one =
            "<tool_call>{\"name\":\"f\"}</tool_call>\n<tool_call>{\"name\":\"g\",\"arguments\":\"{}\"}</tool_call>";
        assert_eq!(parse(&[one]), [call("f", "{}"), call("g", "{}")]);
    }

    #[test]
    fn an_unclosed_whole_call_counts_and_a_broken_one_is_text() {
        assert_eq!(parse(&["<tool_call>{\"name\":\"f\"}"]), [call("f", "{}")]);
        assert_eq!(parse(&["<tool_call>nope</tool_call>"]), [text("<tool_call>nope</tool_call>")]);
    }

    #[test]
    fn plain_text_passes() {
        assert_eq!(parse(&["1 <", " 2"]), [text("1 "), text("< 2")]);
    }
}
