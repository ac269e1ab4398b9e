//! Holds: checking a record as it is handed out, with nothing but keys.

use serde::{Deserialize, Serialize};

use crate::{
    checkpoint::{BadCheckpoint, Checkpoint, Origin},
    hash::{Hash, leaf_hash},
    key::VerifyingKey,
    note::NoteKey,
    record::{BadRecord, Record, entry_of},
    tree::{Unproven, verify_inclusion},
};

/// A record as it is handed out: `GET /v1/audit/{id}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShownRecord {
    /// Names it.
    pub audit_id: String,
    /// SHA-256 of the input text, in hex.
    pub input_hash: String,
    /// SHA-256 of the output text, in hex.
    pub output_hash: String,
    /// The model.
    pub model_id: String,
    /// The GPU, as somebody said; `null` where nobody did.
    #[serde(deserialize_with = "Option::deserialize")]
    pub gpu_id: Option<String>,
    /// `client_asserted` or `gateway`.
    pub source: String,
    /// When, as RFC 3339 in UTC.
    pub created_at: String,
    /// Ed25519 over the DSSE encoding of `signed_payload`, in hex.
    pub signature: String,
    /// Which key signed.
    pub key_id: String,
    /// What is signed.
    pub signed_payload: String,
    /// Its place in the log; `null` until it has one.
    #[serde(deserialize_with = "Option::deserialize")]
    pub log: Option<ShownLog>,
}

/// A record's place in the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShownLog {
    /// The log's name.
    pub origin: String,
    /// Where the entry is.
    pub index: u64,
    /// From its sibling up, in base64.
    pub inclusion_proof: Vec<String>,
    /// The signed checkpoint of the tree that the proof is of.
    pub checkpoint: String,
}

/// What was found in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// What the record says.
    pub record: Record,
    /// The log at the size that the proof is of; `None` where the record has no place yet.
    pub checkpoint: Option<Checkpoint>,
    /// Who has signed the checkpoint.
    pub signed_by: Vec<NoteKey>,
}

/// A record is not in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsound {
    /// No key that is known has this id.
    #[error("the record is signed by a key that is not known")]
    Key,
    /// The signature is wrong.
    #[error("the signature is wrong")]
    Signature,
    /// What is signed is no record.
    #[error(transparent)]
    Record(#[from] BadRecord),
    /// What is shown is not what is signed.
    #[error("`{0}` is not what is signed")]
    Shown(&'static str),
    /// The checkpoint is wrong.
    #[error(transparent)]
    Checkpoint(#[from] BadCheckpoint),
    /// A hash of the proof is none.
    #[error("the inclusion proof has something that is no hash")]
    Hash,
    /// The record is not where it is said to be.
    #[error("the record is not in the log where it is said to be")]
    Inclusion(#[from] Unproven),
}

/// Checks a record's signature and what is shown of it, and, where it has a place in the log, that it is there and that the log
/// has signed so. `keys` sign records and checkpoints; `witnesses` may have signed the checkpoint too.
pub fn verify_record(shown: &ShownRecord, keys: &[VerifyingKey], witnesses: &[NoteKey]) -> Result<Checked, Unsound> {
    let key = keys.iter().find(|key| key.id().as_str() == shown.key_id).ok_or(Unsound::Key)?;
    let signature = hex::decode(&shown.signature).map_err(|_| Unsound::Signature)?;
    // Hex has two forms of each letter, and a receipt one.
    if !key.verify_record(&shown.signed_payload, &signature) || hex::encode(&signature) != shown.signature {
        return Err(Unsound::Signature);
    }
    let record = Record::parse(&shown.signed_payload)?;
    for (name, is_so) in [
        ("audit_id", shown.audit_id == record.audit_id),
        ("input_hash", shown.input_hash == record.input_hash),
        ("output_hash", shown.output_hash == record.output_hash),
        ("model_id", shown.model_id == record.model_id),
        ("gpu_id", shown.gpu_id == record.gpu_id),
        ("source", shown.source == record.source.name()),
        ("created_at", shown.created_at == record.created_at),
    ] {
        if !is_so {
            return Err(Unsound::Shown(name));
        }
    }
    let Some(log) = &shown.log else { return Ok(Checked { record, checkpoint: None, signed_by: Vec::new() }) };
    let origin: Origin = log.origin.parse()?;
    let known: Vec<NoteKey> =
        keys.iter().map(|key| NoteKey::of_log(origin.as_str(), *key)).chain(witnesses.iter().cloned()).collect();
    let (checkpoint, signed_by) = Checkpoint::verified(&log.checkpoint, &origin, &known)?;
    let proof: Vec<Hash> =
        log.inclusion_proof.iter().map(|hash| hash.parse()).collect::<Result<_, _>>().map_err(|_| Unsound::Hash)?;
    let leaf = leaf_hash(entry_of(&shown.signed_payload).bytes());
    verify_inclusion((log.index, checkpoint.size), &leaf, &proof, &checkpoint.root)?;
    let signed_by = signed_by.into_iter().cloned().collect();
    Ok(Checked { record, checkpoint: Some(checkpoint), signed_by })
}
