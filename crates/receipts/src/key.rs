//! Holds: Ed25519 keys (RFC 8032), and the forms in which a public one is handed out.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ciborium::{Value, cbor};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

use crate::hash::Hash;

/// What stands before the 32 bytes in a SubjectPublicKeyInfo (RFC 8410).
const SPKI_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Signs.
pub struct SigningKey(Ed25519KeyPair);

/// Checks signatures.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct VerifyingKey([u8; 32]);

/// Names a public key: the first 8 bytes of its SHA-256 hash, in hex.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(String);

/// This is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// The private key is neither PKCS#8 nor PEM of it.
    #[error("the file holds no Ed25519 private key in PKCS#8")]
    Private,
    /// The public key is not 32 bytes in hex.
    #[error("a public key is 64 hexadecimal digits")]
    Public,
}

impl SigningKey {
    /// From 32 secret random bytes.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, BadKey> {
        Ed25519KeyPair::from_seed_unchecked(seed).map(Self).map_err(|_| BadKey::Private)
    }

    /// From a PKCS#8 file of either version, as PEM or as bytes.
    pub fn from_pkcs8(file: &[u8]) -> Result<Self, BadKey> {
        let decoded = std::str::from_utf8(file).ok().and_then(of_pem);
        let der = decoded.as_deref().unwrap_or(file);
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map(Self).map_err(|_| BadKey::Private)
    }

    /// The public key.
    pub fn verifying(&self) -> VerifyingKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.public_key().as_ref());
        VerifyingKey(bytes)
    }

    /// Signs a message.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes.copy_from_slice(self.0.sign(message).as_ref());
        bytes
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.verifying().id())
    }
}

fn of_pem(text: &str) -> Option<Vec<u8>> {
    let body = text.trim().strip_prefix("-----BEGIN PRIVATE KEY-----")?.strip_suffix("-----END PRIVATE KEY-----")?;
    let body: String = body.split_ascii_whitespace().collect();
    STANDARD.decode(body).ok()
}

impl VerifyingKey {
    /// From its 32 bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether the signature is this key's over the message.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }

    /// Its name.
    pub fn id(&self) -> KeyId {
        KeyId(hex::encode(&Hash::of(&self.0).bytes()[..8]))
    }

    /// In lower-case hex.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// As a PEM file of a SubjectPublicKeyInfo.
    pub fn spki_pem(&self) -> String {
        let body = STANDARD.encode([&SPKI_HEAD[..], &self.0].concat());
        format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")
    }

    /// As a COSE_Key (RFC 9053, section 7.2), in lower-case hex.
    pub fn cose_key_hex(&self) -> String {
        let (kind, curve, x, alg) = (1, -1, -2, 3);
        let (okp, ed25519, eddsa) = (1, 6, -8);
        let bytes = Value::Bytes(self.0.to_vec());
        let key = cbor!({ kind => okp, alg => eddsa, curve => ed25519, x => bytes });
        hex::encode(encoded(key.unwrap_or(Value::Null)))
    }
}

/// CBOR of a value that can be nothing but encodable.
pub(crate) fn encoded(value: Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing to memory does not fail.
    let _ = ciborium::into_writer(&value, &mut bytes);
    bytes
}

impl FromStr for VerifyingKey {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map(|()| Self(bytes)).map_err(|_| BadKey::Public)
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({})", self.hex())
    }
}

impl KeyId {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
