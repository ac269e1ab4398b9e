//! Holds: signed notes (C2SP signed-note), and the keys of logs and witnesses that sign them.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    hash::Hash,
    key::{SigningKey, VerifyingKey},
};

/// Longest note that is read: a checkpoint with its cosignatures is a tenth of it.
const MAX_NOTE_BYTES: usize = 64 * 1024;
/// A log's signature over a note's text.
const OF_LOG: u8 = 0x01;
/// A witness's signature over a checkpoint and a time (C2SP tlog-cosignature).
const OF_WITNESS: u8 = 0x04;
const SIGNATURE_BYTES: usize = 64;

/// A key that notes are checked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteKey {
    /// Whose it is; a log's is its origin.
    pub name: String,
    /// The key.
    pub key: VerifyingKey,
    is_witness: bool,
}

/// A signature line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSignature {
    /// Who signed.
    pub name: String,
    /// The key's short id and what it signed.
    bytes: Vec<u8>,
}

/// A text with signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The text with its last newline.
    pub text: String,
    /// Whoever signed it.
    pub signatures: Vec<NoteSignature>,
}

/// A text is no note, or no key of notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadNote {
    /// It is not formed as a note is.
    #[error("this is no signed note")]
    Form,
    /// It is not formed as a verifier key is.
    #[error("a verifier key is NAME+ID+BASE64")]
    Key,
    /// A key that is known has not signed this.
    #[error("the signature of a key that is known is wrong")]
    Wrong,
    /// No key that is known has signed it.
    #[error("nobody who is known has signed this")]
    Unsigned,
}

impl NoteKey {
    /// A log's.
    pub fn of_log(name: impl Into<String>, key: VerifyingKey) -> Self {
        Self { name: name.into(), key, is_witness: false }
    }

    /// A witness's.
    pub fn of_witness(name: impl Into<String>, key: VerifyingKey) -> Self {
        Self { name: name.into(), key, is_witness: true }
    }

    const fn kind(&self) -> u8 {
        if self.is_witness { OF_WITNESS } else { OF_LOG }
    }

    /// The first four bytes of its hash.
    fn id(&self) -> [u8; 4] {
        let hash = Hash::of(&[self.name.as_bytes(), b"\n", &[self.kind()], self.key.bytes()].concat());
        let [a, b, c, d, ..] = *hash.bytes();
        [a, b, c, d]
    }

    /// As verifiers are told it: `NAME+ID+BASE64`.
    pub fn text(&self) -> String {
        let key = STANDARD.encode([&[self.kind()][..], self.key.bytes()].concat());
        format!("{}+{}+{key}", self.name, hex::encode(self.id()))
    }

    /// Reads [`text`](Self::text).
    pub fn parse(text: &str) -> Result<Self, BadNote> {
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(BadNote::Key);
        };
        let bytes = STANDARD.decode(key).map_err(|_| BadNote::Key)?;
        let (kind, bytes) = bytes.split_first().ok_or(BadNote::Key)?;
        let key = VerifyingKey::new(bytes.try_into().map_err(|_| BadNote::Key)?);
        let is_witness = match *kind {
            OF_LOG => false,
            OF_WITNESS => true,
            _ => return Err(BadNote::Key),
        };
        let key = Self { name: name.to_owned(), key, is_witness };
        if is_name(name) && hex::encode(key.id()) == id { Ok(key) } else { Err(BadNote::Key) }
    }

    /// Signs a text as a log does.
    pub fn sign(&self, signer: &SigningKey, text: &str) -> NoteSignature {
        let signature = signer.sign(text.as_bytes());
        NoteSignature { name: self.name.clone(), bytes: [&self.id()[..], &signature].concat() }
    }

    /// Signs a checkpoint's text as a witness does, at a time in seconds since 1970.
    pub fn cosign(&self, signer: &SigningKey, text: &str, time: u64) -> NoteSignature {
        let signature = signer.sign(cosigned(time, text).as_bytes());
        let bytes = [&self.id()[..], &time.to_be_bytes(), &signature].concat();
        NoteSignature { name: self.name.clone(), bytes }
    }

    /// Whether a line is this key's; then it must be right.
    fn knows(&self, signature: &NoteSignature) -> bool {
        self.name == signature.name && signature.bytes.get(..4) == Some(&self.id()[..])
    }

    fn verify(&self, text: &str, signature: &NoteSignature) -> bool {
        let signed = signature.bytes.get(4..).unwrap_or_default();
        if !self.is_witness {
            return signed.len() == SIGNATURE_BYTES && self.key.verify(text.as_bytes(), signed);
        }
        let Some((time, signed)) = signed.split_first_chunk::<8>() else { return false };
        let message = cosigned(u64::from_be_bytes(*time), text);
        signed.len() == SIGNATURE_BYTES && self.key.verify(message.as_bytes(), signed)
    }
}

fn cosigned(time: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|letter| letter.is_whitespace() || letter.is_control() || letter == '+')
}

impl Note {
    /// Reads a note; its signatures are not checked.
    pub fn parse(note: &str) -> Result<Self, BadNote> {
        let is_plain = |letter: char| letter == '\n' || !letter.is_ascii_control();
        if note.len() > MAX_NOTE_BYTES || !note.chars().all(is_plain) {
            return Err(BadNote::Form);
        }
        let split = note.rfind("\n\n").ok_or(BadNote::Form)?;
        let (text, lines) = (&note[..=split], &note[split + 2..]);
        let lines = lines.strip_suffix('\n').ok_or(BadNote::Form)?;
        let signatures = lines.split('\n').map(signature).collect::<Option<Vec<_>>>().ok_or(BadNote::Form)?;
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// Which of these keys have signed it. A line of one of them that is wrong spoils the note.
    pub fn signed_by<'k>(&self, keys: &'k [NoteKey]) -> Result<Vec<&'k NoteKey>, BadNote> {
        let mut found = Vec::new();
        for signature in &self.signatures {
            let Some(key) = keys.iter().find(|key| key.knows(signature)) else { continue };
            if !key.verify(&self.text, signature) {
                return Err(BadNote::Wrong);
            }
            if !found.contains(&key) {
                found.push(key);
            }
        }
        if found.is_empty() { Err(BadNote::Unsigned) } else { Ok(found) }
    }

    /// As it is handed out.
    pub fn to_text(&self) -> String {
        let mut note = format!("{}\n", self.text);
        for signature in &self.signatures {
            // Writing to memory does not fail.
            let _ = writeln!(note, "{}", signature.line());
        }
        note
    }
}

impl NoteSignature {
    /// Its line, without the newline.
    pub fn line(&self) -> String {
        format!("\u{2014} {} {}", self.name, STANDARD.encode(&self.bytes))
    }
}

fn signature(line: &str) -> Option<NoteSignature> {
    let (name, base64) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
    let bytes = STANDARD.decode(base64).ok().filter(|bytes| bytes.len() > 4)?;
    is_name(name).then(|| NoteSignature { name: name.to_owned(), bytes })
}
