//! Holds: the record: what a receipt says, and the bytes of it that are signed.

use std::collections::BTreeMap;

use crate::{
    hash::Hash,
    key::{SigningKey, VerifyingKey},
    words::dsse,
};

/// The longest text that is hashed for a caller: 1 MiB each.
pub const MAX_TEXT_BYTES: usize = 1024 * 1024;
/// What is signed, for DSSE: nothing else that this key signs begins so.
const PAYLOAD_TYPE: &str = "application/vnd.batchin.audit.v1+json";
const VERSION: &str = "1";

/// Who says what a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Whoever holds a key says that these texts belong together; nobody has seen them made.
    ClientAsserted,
    /// This gateway carried them.
    Gateway,
}

/// What a receipt says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Names it.
    pub audit_id: String,
    /// Whose it is.
    pub account_id: String,
    /// When, as RFC 3339 in UTC.
    pub created_at: String,
    /// Who says so.
    pub source: Source,
    /// SHA-256 of the text that went in, as UTF-8, in lower-case hex.
    pub input_hash: String,
    /// SHA-256 of the text that came out.
    pub output_hash: String,
    /// The model.
    pub model_id: String,
    /// The GPU, as somebody said.
    pub gpu_id: Option<String>,
    /// 32 random bytes in hex: without them whoever sees the public log could try out short texts.
    pub blind: String,
}

/// A text is no signed record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// It is no JSON object of texts in its one form (RFC 8785).
    #[error("the signed payload is no canonical JSON of texts")]
    Form,
    /// It lacks a member.
    #[error("the signed payload lacks `{0}`")]
    Missing(&'static str),
    /// It is of a version or source that is not known here.
    #[error("the signed payload is of another version")]
    Version,
}

impl Source {
    /// Its word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClientAsserted => "client_asserted",
            Self::Gateway => "gateway",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::ClientAsserted, Self::Gateway].into_iter().find(|source| source.name() == word)
    }
}

impl Record {
    /// The bytes that are signed: JSON in its one form (RFC 8785), whose values are all texts. Made once and kept as they are:
    /// nobody has to make them again.
    pub fn payload(&self) -> String {
        let mut members = BTreeMap::from([
            ("account_id", self.account_id.as_str()),
            ("audit_id", &self.audit_id),
            ("blind", &self.blind),
            ("created_at", &self.created_at),
            ("input_hash", &self.input_hash),
            ("model_id", &self.model_id),
            ("output_hash", &self.output_hash),
            ("source", self.source.name()),
            ("version", VERSION),
        ]);
        if let Some(gpu) = &self.gpu_id {
            members.insert("gpu_id", gpu);
        }
        canonical(&members)
    }

    /// Reads signed bytes. Members that are not known pass unread.
    pub fn parse(payload: &str) -> Result<Self, BadRecord> {
        let mut members: BTreeMap<String, String> = serde_json::from_str(payload).map_err(|_| BadRecord::Form)?;
        if canonical(&members) != payload {
            return Err(BadRecord::Form);
        }
        let mut take = |name: &'static str| members.remove(name).ok_or(BadRecord::Missing(name));
        if take("version")? != VERSION {
            return Err(BadRecord::Version);
        }
        Ok(Self {
            audit_id: take("audit_id")?,
            account_id: take("account_id")?,
            created_at: take("created_at")?,
            source: Source::parse(&take("source")?).ok_or(BadRecord::Version)?,
            input_hash: take("input_hash")?,
            output_hash: take("output_hash")?,
            model_id: take("model_id")?,
            blind: take("blind")?,
            gpu_id: take("gpu_id").ok(),
        })
    }
}

/// Names are ASCII, so the order of bytes is RFC 8785's order of UTF-16; serde_json escapes as it does.
fn canonical<K: serde::Serialize + Ord, V: serde::Serialize>(members: &BTreeMap<K, V>) -> String {
    serde_json::to_string(members).unwrap_or_default()
}

/// What the log has of a record: the hash of its signed bytes.
pub fn entry_of(payload: &str) -> Hash {
    Hash::of(payload.as_bytes())
}

/// The bytes that the signature is over (DSSE, pre-authentication encoding).
pub fn record_bytes(payload: &str) -> Vec<u8> {
    dsse(PAYLOAD_TYPE, payload)
}

impl SigningKey {
    /// Signs a record's payload.
    pub fn sign_record(&self, payload: &str) -> [u8; 64] {
        self.sign(&record_bytes(payload))
    }
}

impl VerifyingKey {
    /// Whether a record's payload is signed so.
    pub fn verify_record(&self, payload: &str, signature: &[u8]) -> bool {
        self.verify(&record_bytes(payload), signature)
    }
}
