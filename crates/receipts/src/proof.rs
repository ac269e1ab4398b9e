//! Holds: a proof in one text (C2SP tlog-proof): where an entry is, the way to the root, and the log's checkpoint.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{hash::Hash, words::number};

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";
/// A tree of 2^63 leaves is so high.
const MAX_HASHES: usize = 63;

/// That an entry is in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogProof {
    /// What the entry is made of; it is trusted for nothing.
    pub extra: Option<Vec<u8>>,
    /// Where the entry is.
    pub index: u64,
    /// From its sibling up.
    pub hashes: Vec<Hash>,
    /// The signed checkpoint, as it is.
    pub checkpoint: String,
}

/// A text is no such proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no proof of a transparency log (c2sp.org/tlog-proof@v1)")]
pub struct BadProof;

impl LogProof {
    /// As it is handed out.
    pub fn to_text(&self) -> String {
        let extra = self.extra.as_ref().map(|extra| format!("extra {}\n", STANDARD.encode(extra))).unwrap_or_default();
        let hashes: String = self.hashes.iter().map(|hash| format!("{hash}\n")).collect();
        format!("{FIRST_LINE}\n{extra}index {}\n{hashes}\n{}", self.index, self.checkpoint)
    }

    /// Reads one.
    pub fn parse(text: &str) -> Result<Self, BadProof> {
        let (head, checkpoint) = text.split_once("\n\n").ok_or(BadProof)?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(FIRST_LINE) {
            return Err(BadProof);
        }
        let extra = lines.next_if(|line| line.starts_with("extra ")).and_then(|line| line.strip_prefix("extra "));
        let extra = extra.map(|line| STANDARD.decode(line).map_err(|_| BadProof)).transpose()?;
        let index = lines.next().and_then(|line| line.strip_prefix("index ")).ok_or(BadProof)?;
        let index = number(index).ok_or(BadProof)?;
        let hashes: Vec<Hash> = lines.map(str::parse).collect::<Result<_, _>>().map_err(|_| BadProof)?;
        if hashes.len() > MAX_HASHES {
            return Err(BadProof);
        }
        Ok(Self { extra, index, hashes, checkpoint: checkpoint.to_owned() })
    }
}
