//! Holds: which part of a tool call's arguments is its input, and what calls are named.

/// Finds the object in arguments that come in pieces.
///
/// Clients parse what they are told of an input as it grows, and an input is an object. So nothing is told of arguments that
/// are something else, as of a `null` or an empty text, and nothing of what follows the object's end.
#[derive(Debug, Default)]
pub(crate) struct Object {
    state: State,
    depth: u64,
    /// Within a text.
    in_text: bool,
    /// After a backslash.
    escaped: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Before,
    Within,
    Ended,
    NotAnObject,
}

impl Object {
    /// What of this piece belongs to the object.
    pub(crate) fn take<'p>(&mut self, piece: &'p str) -> &'p str {
        let piece = match self.state {
            State::Before => piece.trim_start(),
            State::Within => piece,
            State::Ended | State::NotAnObject => return "",
        };
        if self.state == State::Before && !piece.is_empty() {
            self.state = if piece.starts_with('{') { State::Within } else { State::NotAnObject };
        }
        if self.state != State::Within {
            return "";
        }
        &piece[..self.end_in(piece)]
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    fn end_in(&mut self, piece: &str) -> usize {
        for (at, byte) in piece.bytes().enumerate() {
            if std::mem::take(&mut self.escaped) {
                continue;
            }
            match byte {
                b'\\' => self.escaped = self.in_text,
                b'"' => self.in_text = !self.in_text,
                b'{' | b'[' if !self.in_text => self.depth = self.depth.saturating_add(1),
                b'}' | b']' if !self.in_text => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        self.state = State::Ended;
                        return at + 1;
                    }
                }
                _ => {}
            }
        }
        piece.len()
    }
}

/// The ids of an answer's calls so far, in the order in which they are told.
#[derive(Debug, Default)]
pub(crate) struct CallIds(Vec<String>);

impl CallIds {
    /// The next call's id: its server's, unless that is none that the protocol takes or was used before. `answer` is the
    /// answer's own id.
    pub(crate) fn next(&mut self, said: Option<&str>, answer: &str) -> &str {
        let at = self.0.len();
        let said = said.filter(|id| is_id(id) && !self.0.iter().any(|used| used == id));
        let id = said.map_or_else(|| derived(answer, at), str::to_owned);
        self.0.push(id);
        &self.0[at]
    }
}

fn is_id(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(is_of_id)
}

fn is_of_id(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-".contains(&byte)
}

fn derived(answer: &str, at: usize) -> String {
    let answer: String = answer.chars().filter(|letter| u8::try_from(*letter).is_ok_and(is_of_id)).collect();
    format!("toolu_{answer}_{at}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(pieces: &[&str]) -> (String, bool) {
        let mut object = Object::default();
        let told: String = pieces.iter().map(|piece| object.take(piece)).collect();
        (told, object.has_ended())
    }

    #[test]
    fn an_input_is_an_object() {
        for (pieces, told, ended) in [
            (&["{}"][..], "{}", true),
            (&[" ", "\n{\"a\":", "[{\"}", "\"},1]", "} x", "{}"], "{\"a\":[{\"}\"},1]}", true),
            (&["{\"a\\", "\"}\":1}"], "{\"a\\\"}\":1}", true),
            (&["{\"a\\\\\"", ":1}"], "{\"a\\\\\":1}", true),
            (&["{\"a\":"], "{\"a\":", false),
            (&["null", "{}"], "", false),
            (&["[{}]"], "", false),
            (&["", "  "], "", false),
        ] {
            assert_eq!(object(pieces), (told.to_owned(), ended), "{pieces:?}");
        }
    }

    #[test]
    fn ids_are_ones_that_the_protocol_takes() {
        let mut ids = CallIds::default();
        assert_eq!(ids.next(Some("call_1-a"), "msg_1"), "call_1-a");
        assert_eq!(ids.next(Some("functions.f:0"), "msg.1"), "toolu_msg1_1");
        assert_eq!(ids.next(Some("call_1-a"), "msg_1"), "toolu_msg_1_2");
        assert_eq!(ids.next(None, "msg_1"), "toolu_msg_1_3");
        assert_eq!(ids.next(Some(""), ""), "toolu__4");
    }
}
