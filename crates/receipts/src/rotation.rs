//! Holds: that another key signs from here on: an entry of the log that anybody may read, signed by both keys.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::{
    checkpoint::Origin,
    key::{SigningKey, VerifyingKey},
    words::dsse,
};

/// What is signed, for DSSE.
const PAYLOAD_TYPE: &str = "application/vnd.batchin.audit-key.v1+json";

/// One key after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Of which log.
    pub origin: String,
    /// Signed until then.
    pub from: VerifyingKey,
    /// Signs from then on.
    pub to: VerifyingKey,
    /// When, as RFC 3339 in UTC.
    pub created_at: String,
}

/// A text is no rotation, or one of both keys has not signed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRotation {
    /// It is no DSSE envelope of one.
    #[error("this is no change of keys")]
    Form,
    /// A key has not signed it.
    #[error("the change of keys is not signed by both")]
    Unsigned,
}

/// DSSE's envelope.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Serialize, Deserialize)]
struct Signature {
    keyid: String,
    sig: String,
}

/// The entry that says that one key follows another, as a DSSE envelope, and the new key's signature.
pub fn rotation_entry(origin: &Origin, (from, to): (&SigningKey, &SigningKey), created_at: &str) -> (String, [u8; 64]) {
    let (old, new) = (from.verifying(), to.verifying());
    let (old_hex, new_hex) = (old.hex(), new.hex());
    let members = BTreeMap::from([
        ("created_at", created_at),
        ("from_key", &old_hex),
        ("origin", origin.as_str()),
        ("to_key", &new_hex),
        ("version", "1"),
    ]);
    let payload = serde_json::to_string(&members).unwrap_or_default();
    let bytes = dsse(PAYLOAD_TYPE, &payload);
    let newest = to.sign(&bytes);
    let signature =
        |key: &VerifyingKey, sig: &[u8]| Signature { keyid: key.id().to_string(), sig: STANDARD.encode(sig) };
    let envelope = Envelope {
        payload: STANDARD.encode(&payload),
        payload_type: PAYLOAD_TYPE.to_owned(),
        signatures: vec![signature(&old, &from.sign(&bytes)), signature(&new, &newest)],
    };
    (serde_json::to_string(&envelope).unwrap_or_default(), newest)
}

impl Rotation {
    /// Reads an entry, and checks that both keys have signed it.
    pub fn verified(entry: &str) -> Result<Self, BadRotation> {
        let envelope: Envelope = serde_json::from_str(entry).map_err(|_| BadRotation::Form)?;
        let payload = STANDARD.decode(&envelope.payload).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let payload = payload.filter(|_| envelope.payload_type == PAYLOAD_TYPE).ok_or(BadRotation::Form)?;
        let mut members: BTreeMap<String, String> = serde_json::from_str(&payload).map_err(|_| BadRotation::Form)?;
        let mut take = |name: &str| members.remove(name).ok_or(BadRotation::Form);
        let key = |hex: String| hex.parse::<VerifyingKey>().map_err(|_| BadRotation::Form);
        let (from, to) = (key(take("from_key")?)?, key(take("to_key")?)?);
        let bytes = dsse(PAYLOAD_TYPE, &payload);
        let has_signed = |key: &VerifyingKey| {
            let of_key = envelope.signatures.iter().filter(|signature| signature.keyid == key.id().as_str());
            of_key.filter_map(|signature| STANDARD.decode(&signature.sig).ok()).any(|sig| key.verify(&bytes, &sig))
        };
        if !has_signed(&from) || !has_signed(&to) {
            return Err(BadRotation::Unsigned);
        }
        Ok(Self { origin: take("origin")?, from, to, created_at: take("created_at")? })
    }
}
