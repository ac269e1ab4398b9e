//! Holds: a file that lies in JSON, in base64: taken out of it while it comes, so that no memory holds it.
//!
//! Pure. Of the JSON around it nothing is judged; what is left reads as if the file were empty.

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// The member that has the file.
const NAME: &[u8] = b"b64_json";

/// What does not belong into base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what lies in the answer is no base64")]
pub(crate) struct NotBase64;

/// Parts JSON that comes in pieces from the first file in it.
#[derive(Debug, Default)]
pub(crate) struct Inlaid {
    at: At,
    /// Characters that wait for the rest of their four.
    started: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// Between texts.
    #[default]
    Between,
    /// In a text, behind so many bytes that are the name's; `None` once it is another text.
    Text { same: Option<usize> },
    /// Behind a backslash in a text, which the name has none of.
    Escaped,
    /// Behind the name.
    Named,
    /// Behind the name and its colon.
    Member,
    /// In the file.
    Inside,
    /// Behind it. What follows is not looked at.
    Behind,
}

impl Inlaid {
    /// Takes a piece: adds the file's bytes to `file` and all else to `rest`. Whether the file is whole.
    pub(crate) fn take(&mut self, mut piece: &[u8], file: &mut Vec<u8>, rest: &mut Vec<u8>) -> Result<bool, NotBase64> {
        while let Some((&byte, behind)) = piece.split_first() {
            match self.at {
                At::Behind => {
                    rest.extend_from_slice(piece);
                    break;
                }
                At::Inside => piece = self.inside(piece, file, rest)?,
                _ => {
                    rest.push(byte);
                    self.at = next(self.at, byte);
                    piece = behind;
                }
            }
        }
        Ok(self.at == At::Behind)
    }

    /// Up to the file's end; what is behind it.
    fn inside<'a>(&mut self, piece: &'a [u8], file: &mut Vec<u8>, rest: &mut Vec<u8>) -> Result<&'a [u8], NotBase64> {
        let ends = piece.iter().position(|byte| *byte == b'"');
        let (encoded, behind) = piece.split_at(ends.unwrap_or(piece.len()));
        // Some writers put a backslash before each slash.
        self.started.extend(encoded.iter().filter(|byte| **byte != b'\\'));
        let whole = if ends.is_some() { self.started.len() } else { self.started.len() / 4 * 4 };
        let decoded = STANDARD.decode_vec(&self.started[..whole], file);
        decoded.map_err(|_| NotBase64)?;
        self.started.drain(..whole);
        let Some((quote, behind)) = behind.split_first() else { return Ok(behind) };
        rest.push(*quote);
        self.at = At::Behind;
        Ok(behind)
    }
}

fn next(at: At, byte: u8) -> At {
    match (at, byte) {
        (At::Between, b'"') => At::Text { same: Some(0) },
        (At::Between, _) => At::Between,
        (At::Text { same }, b'"') => {
            if same == Some(NAME.len()) {
                At::Named
            } else {
                At::Between
            }
        }
        (At::Text { .. }, b'\\') => At::Escaped,
        (At::Text { same }, _) => {
            At::Text { same: same.filter(|so_far| NAME.get(*so_far) == Some(&byte)).map(|so_far| so_far + 1) }
        }
        (At::Escaped, _) => At::Text { same: None },
        (At::Named | At::Member, b' ' | b'\t' | b'\n' | b'\r') => at,
        (At::Named, b':') => At::Member,
        (At::Member, b'"') => At::Inside,
        // A text that has the name as its value, or a member that has no text.
        (At::Named | At::Member, _) => At::Between,
        (At::Inside | At::Behind, _) => at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parted(json: &str, by: usize) -> Result<(bool, String, String), NotBase64> {
        let (mut inlaid, mut file, mut rest, mut whole) = (Inlaid::default(), Vec::new(), Vec::new(), false);
        for piece in json.as_bytes().chunks(by) {
            whole = inlaid.take(piece, &mut file, &mut rest)?;
        }
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ok((whole, text(file), text(rest)))
    }

    #[test]
    fn a_file_is_taken_out_wherever_the_pieces_end() {
        let json = r#"{"prompt":"say \"b64_json\":\"AAAA\" \\","a":"b64_json","result":{"b64_json" : "aGVsbG8gd29ybGQ=","fps":24},"status":"completed","b64_json":"x"}"#;
        let left = json.replace("aGVsbG8gd29ybGQ=", "");
        for by in 1..json.len() {
            assert_eq!(parted(json, by), Ok((true, "hello world".to_owned(), left.clone())), "{by}");
        }
    }

    #[test]
    fn without_a_file_all_is_left() {
        for json in
            [r#"{"result":null,"status":"queued"}"#, r#"{"b64_json":null,"b64_jsonx":"AAAA","xb64_json":"AAAA"}"#]
        {
            assert_eq!(parted(json, 3), Ok((false, String::new(), json.to_owned())));
        }
        assert_eq!(parted(r#"{"b64_json":"aGVs"#, 5), Ok((false, "hel".to_owned(), r#"{"b64_json":""#.to_owned())));
        for broken in [r#"{"b64_json":"aGV*"}"#, r#"{"b64_json":"aGVsb"}"#] {
            assert_eq!(parted(broken, 4), Err(NotBase64));
        }
        assert_eq!(parted(r#"{"b64_json":"Pz8\/"}"#, 4), parted(r#"{"b64_json":"Pz8/"}"#, 4));
    }
}
