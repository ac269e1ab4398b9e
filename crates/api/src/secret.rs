//! Holds: API keys and session tokens as text, and the hashes by which they are known.
//!
//! A secret is shown once and never stored.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

/// What every API key begins with; also shown in place of a key.
pub(crate) const KEY_PREFIX: &str = "batchin_api";
const KEY_START: &str = "batchin_api_";
const SESSION_START: &str = "batchin_session_";
/// 256 bits in base64 without padding.
const RANDOM_CHARS: usize = 43;

/// A fresh secret.
pub struct Secret {
    /// The whole of it, for its owner's eyes.
    pub text: String,
    /// What is stored.
    pub hash: [u8; 32],
}

impl Secret {
    /// An API key from 256 random bits.
    pub fn api_key(bits: [u8; 32]) -> Self {
        Self::new(KEY_START, bits)
    }

    /// A session token from 256 random bits.
    pub fn session(bits: [u8; 32]) -> Self {
        Self::new(SESSION_START, bits)
    }

    fn new(start: &str, bits: [u8; 32]) -> Self {
        let text = format!("{start}{}", URL_SAFE_NO_PAD.encode(bits));
        Self { hash: hash(&text), text }
    }

    /// The last four characters, to tell keys apart.
    pub fn last4(&self) -> String {
        self.text.chars().skip(self.text.len().saturating_sub(4)).collect()
    }
}

/// SHA-256: a secret of 256 random bits needs no slow hash.
pub(crate) fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// What a client presents, by its form alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presented {
    /// It may be an API key with this hash.
    Key([u8; 32]),
    /// It may be a session token with this hash.
    Session([u8; 32]),
    /// It is neither.
    Neither,
}

impl Presented {
    pub(crate) fn of(text: &str) -> Self {
        let random = |start: &str| text.strip_prefix(start).is_some_and(|random| random.len() == RANDOM_CHARS);
        if random(KEY_START) {
            Self::Key(hash(text))
        } else if random(SESSION_START) {
            Self::Session(hash(text))
        } else {
            Self::Neither
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form_tells_what_a_secret_is() {
        let (key, session) = (Secret::api_key([7; 32]), Secret::session([7; 32]));
        assert_eq!(key.text.len(), KEY_START.len() + RANDOM_CHARS);
        assert_eq!(Presented::of(&key.text), Presented::Key(key.hash));
        assert_eq!(Presented::of(&session.text), Presented::Session(session.hash));
        assert_eq!(Presented::of("batchin_api_short"), Presented::Neither);
        assert!(key.text.ends_with(&key.last4()) && key.last4().len() == 4);
    }
}
