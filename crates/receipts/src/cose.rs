//! Holds: COSE receipts (RFC 9942): the same leaf of the same tree, for programs of supply chains (SCITT, RFC 9943).

use ciborium::Value;

use crate::{
    checkpoint::Checkpoint,
    hash::Hash,
    key::{SigningKey, encoded},
};

const ALGORITHM: i64 = 1;
const EDDSA: i64 = -8;
const KEY_ID: i64 = 4;
const CLAIMS: i64 = 15;
const ISSUER: i64 = 1;
const SUBJECT: i64 = 2;
const DATA_STRUCTURE: i64 = 395;
const RFC9162_SHA256: i64 = 1;
const PROOFS: i64 = 396;
const INCLUSION: i64 = -1;
/// COSE_Sign1.
const TAG: u64 = 18;

/// The receipt of an entry in the tree of a checkpoint: the root is what is signed, and not in it. `subject` names the entry.
pub fn cose_receipt(
    signer: &SigningKey,
    checkpoint: &Checkpoint,
    subject: &str,
    (index, proof): (u64, &[Hash]),
) -> Vec<u8> {
    let text = |text: &str| Value::Text(text.to_owned());
    let claims = map([(ISSUER, text(checkpoint.origin.as_str())), (SUBJECT, text(subject))]);
    let protected = encoded(map([
        (ALGORITHM, EDDSA.into()),
        (KEY_ID, Value::Bytes(signer.verifying().id().as_str().as_bytes().to_vec())),
        (CLAIMS, claims),
        (DATA_STRUCTURE, RFC9162_SHA256.into()),
    ]));
    let hashes = proof.iter().map(|hash| Value::Bytes(hash.bytes().to_vec())).collect();
    let inclusion = encoded(Value::Array(vec![checkpoint.size.into(), index.into(), Value::Array(hashes)]));
    let proofs = map([(PROOFS, map([(INCLUSION, Value::Array(vec![Value::Bytes(inclusion)]))]))]);
    let signed = encoded(Value::Array(vec![
        text("Signature1"),
        Value::Bytes(protected.clone()),
        Value::Bytes(Vec::new()),
        Value::Bytes(checkpoint.root.bytes().to_vec()),
    ]));
    let signature = Value::Bytes(signer.sign(&signed).to_vec());
    let parts = vec![Value::Bytes(protected), proofs, Value::Null, signature];
    encoded(Value::Tag(TAG, Box::new(Value::Array(parts))))
}

fn map<const N: usize>(members: [(i64, Value); N]) -> Value {
    Value::Map(members.into_iter().map(|(label, value)| (label.into(), value)).collect())
}
