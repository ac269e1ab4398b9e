//! Holds: OpenAI's vocabulary cl100k, for texts that come as its token ids.
//!
//! From ids to text alone. A library that also makes ids of text would bring a table of four times the size and two engines
//! for regular expressions. The table is that of OpenAI's tiktoken (MIT licence): the length of each of its tokens in a byte,
//! then their bytes, packed by zlib.

use std::{io::Read as _, sync::LazyLock};

use bytes::Bytes;
use flate2::read::ZlibDecoder;

use crate::{
    members::quoted,
    peek::InvalidRequest,
    rewrite::{Change, Member, members_of, splice},
    scan::items_in,
};

const PACKED: &[u8] = include_bytes!("cl100k/tokens.zlib");
/// Tokens that are text. Those above steer OpenAI's own models.
const TOKENS: usize = 100_256;

struct Table {
    bytes: Vec<u8>,
    /// Where each token ends; it begins where the one before it ends.
    ends: Vec<usize>,
}

/// Unpacked with the first request that needs it: 1.5 MB that most servers never do.
static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut bytes = Vec::new();
    // A part of the executable, which a test reads to its end.
    let _unpacked = ZlibDecoder::new(PACKED).read_to_end(&mut bytes);
    let mut end = TOKENS;
    let ends = bytes.iter().take(TOKENS).map(|length| {
        end += usize::from(*length);
        end
    });
    Table { ends: ends.collect(), bytes }
});

impl Table {
    fn token(&self, id: usize) -> Option<&[u8]> {
        let from = id.checked_sub(1).map_or(Some(TOKENS), |before| self.ends.get(before).copied())?;
        self.bytes.get(from..*self.ends.get(id)?)
    }
}

/// The body of an embeddings call with the texts that its token ids mean, as cl100k has them. Refused is an id that it lacks.
///
/// The body must be one that [`peek`](crate::peek()) accepted.
pub fn tokens_as_texts(body: &Bytes) -> Result<Bytes, InvalidRequest> {
    let Some((text, members)) = members_of(body) else { return Ok(body.clone()) };
    let change = |member: &Member<'_>| match member.key.as_ref() {
        "input" => Ok(input_as_texts(member.value.get())?.map_or(Change::Keep, Change::Set)),
        _ => Ok(Change::Keep),
    };
    let changes = members.iter().map(change).collect::<Result<Vec<_>, InvalidRequest>>()?;
    Ok(splice(text, &members, &changes, &[]))
}

/// Most bytes of text that the ids of a call may mean: an id of six letters may mean 128 blanks.
const MOST_TEXT: usize = 16 * 1024 * 1024;

/// `None`: there are no ids in it.
fn input_as_texts(input: &str) -> Result<Option<String>, InvalidRequest> {
    let mut left = MOST_TEXT;
    let first = items_in(input).next().filter(|_| input.starts_with('['));
    match first.and_then(|first| first.bytes().next()) {
        Some(b'[') => {
            let texts = items_in(input).enumerate().map(|(at, ids)| text_of(ids, || format!("input[{at}]"), &mut left));
            let texts = texts.collect::<Result<Vec<_>, _>>()?;
            Ok(Some(format!("[{}]", texts.join(","))))
        }
        Some(byte) if byte.is_ascii_digit() => text_of(input, || "input".to_owned(), &mut left).map(Some),
        _ => Ok(None),
    }
}

/// As JSON. A text that was cut within a character lacks that one, as it does with tiktoken.
fn text_of(ids: &str, path: impl Fn() -> String, left: &mut usize) -> Result<String, InvalidRequest> {
    let mut bytes = Vec::new();
    for id in items_in(ids) {
        let token = id.parse().ok().and_then(|id| TABLE.token(id)).ok_or_else(|| unknown(path()))?;
        *left = left.checked_sub(token.len()).ok_or_else(|| too_much(path()))?;
        bytes.extend_from_slice(token);
    }
    Ok(quoted(&String::from_utf8_lossy(&bytes)))
}

fn too_much(path: String) -> InvalidRequest {
    let message = format!("`{path}` goes beyond the 16 MiB of text that the ids of one call may mean; send fewer");
    InvalidRequest::at(path, message)
}

fn unknown(path: String) -> InvalidRequest {
    let message = format!("`{path}` has a token id that is no text in cl100k, as which ids are read here; send texts");
    InvalidRequest::at(path, message)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use base64::{Engine as _, prelude::BASE64_STANDARD};
    use sha2::{Digest as _, Sha256};

    use super::*;

    /// What tiktoken expects of `cl100k_base.tiktoken`.
    const PUBLISHED: &str = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7";

    #[test]
    fn the_table_is_openai_s() {
        let mut file = String::new();
        for id in 0..TOKENS {
            writeln!(file, "{} {id}", BASE64_STANDARD.encode(TABLE.token(id).unwrap())).unwrap();
        }
        let hash = Sha256::digest(file).iter().fold(String::new(), |hash, byte| format!("{hash}{byte:02x}"));
        assert_eq!((hash.as_str(), TABLE.token(TOKENS)), (PUBLISHED, None));
    }

    #[track_caller]
    fn check(input: &str, expected: &str) {
        let body = Bytes::from(format!(r#"{{"model":"m", "input" : {input},"dimensions":2}}"#));
        let texts = tokens_as_texts(&body).unwrap();
        assert_eq!(texts, format!(r#"{{"model":"m", "input" : {expected},"dimensions":2}}"#));
    }

    #[test]
    fn ids_become_the_texts_that_they_were_made_of() {
        // As tiktoken encodes them.
        check("[9906,11,1917,0]", r#""Hello, world!""#);
        check("[[9906, 1917],[ 9906 ]]", r#"["Hello world","Hello"]"#);
        check("[1,198]", r#""\"\n""#);
        // A character that was cut off.
        check("[9468,239]", "\"\u{fffd}\"");
        for texts in [r#""a [1]""#, r#"["a","1"]"#] {
            check(texts, texts);
        }
    }

    #[test]
    fn unknown_ids_are_named_by_their_place() {
        for (input, param) in [("[1,100256]", "input"), ("[[1],[1,4294967295]]", "input[1]")] {
            let body = Bytes::from(format!(r#"{{"input":{input}}}"#));
            let fault = tokens_as_texts(&body).unwrap_err();
            assert_eq!(fault.param.as_deref(), Some(param));
            assert!(fault.message.contains("cl100k"), "{}", fault.message);
        }
    }
}
