//! Holds: checkpoints (C2SP tlog-checkpoint): what a log says of itself at some size.

use std::{fmt, str::FromStr};

use crate::{
    hash::Hash,
    key::SigningKey,
    note::{BadNote, Note, NoteKey},
    words::number,
};

/// A log's name: the address that it is served at, without its scheme.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin(String);

/// A log at some size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: Origin,
    /// How many entries it has.
    pub size: u64,
    /// Its tree's root.
    pub root: Hash,
}

/// A text is no checkpoint, or nobody who counts has signed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCheckpoint {
    /// It is not formed as a checkpoint is.
    #[error("this is no checkpoint")]
    Form,
    /// It is of another log.
    #[error("the checkpoint is of another log")]
    OtherLog,
    /// The note around it is wrong.
    #[error(transparent)]
    Note(#[from] BadNote),
}

impl FromStr for Origin {
    type Err = BadCheckpoint;

    fn from_str(text: &str) -> Result<Self, BadCheckpoint> {
        let is_plain = |letter: char| !letter.is_whitespace() && !letter.is_control() && letter != '+';
        let fits = (1..=255).contains(&text.len()) && text.chars().all(is_plain);
        if fits { Ok(Self(text.to_owned())) } else { Err(BadCheckpoint::Form) }
    }
}

impl Default for Origin {
    /// Of a log that is served nowhere yet.
    fn default() -> Self {
        Self("batchin/audit/log".to_owned())
    }
}

impl Origin {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Checkpoint {
    /// The text that is signed.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, self.root)
    }

    /// Signs it as the log.
    pub fn sign(&self, signer: &SigningKey) -> Note {
        let text = self.text();
        let key = NoteKey::of_log(self.origin.as_str(), signer.verifying());
        Note { signatures: vec![key.sign(signer, &text)], text }
    }

    /// Reads a note's text. Further lines are allowed and pass unread.
    pub fn parse(text: &str) -> Result<Self, BadCheckpoint> {
        let mut lines = text.strip_suffix('\n').ok_or(BadCheckpoint::Form)?.split('\n');
        let mut line = || lines.next().filter(|line| !line.is_empty()).ok_or(BadCheckpoint::Form);
        let (origin, size, root) = (line()?.parse()?, line()?, line()?);
        let size = number(size).ok_or(BadCheckpoint::Form)?;
        let root = root.parse().map_err(|_| BadCheckpoint::Form)?;
        if lines.all(|line| !line.is_empty()) { Ok(Self { origin, size, root }) } else { Err(BadCheckpoint::Form) }
    }

    /// Reads a signed checkpoint of a log, and whoever of these keys has signed it: one of the log's must have.
    pub fn verified<'k>(
        note: &str,
        origin: &Origin,
        keys: &'k [NoteKey],
    ) -> Result<(Self, Vec<&'k NoteKey>), BadCheckpoint> {
        let note = Note::parse(note)?;
        let signed_by = note.signed_by(keys)?;
        let checkpoint = Self::parse(&note.text)?;
        if checkpoint.origin != *origin {
            return Err(BadCheckpoint::OtherLog);
        }
        if !signed_by.iter().any(|key| key.name == origin.as_str()) {
            return Err(BadNote::Unsigned.into());
        }
        Ok((checkpoint, signed_by))
    }
}
