//! Holds: sealing: secrets that we must be able to use again lie encrypted in the database, and the key elsewhere.
//!
//! ChaCha20-Poly1305 from `ring`, which TLS brings anyway. Its nonce is random: 96 bits are plenty for some writes of
//! each account's secret.

use std::{fmt, sync::Arc};

use batchin_domain::{AccountId, IdSource};
use batchin_store::{Outbox, StoreError};
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf,
};
use secrecy::{ExposeSecret, SecretString};

use crate::secret::WebhookSecret;

/// Shortest text that a key is made of, in characters; it must be random, since nothing slows guessing down.
pub const MIN_KEY_CHARS: usize = 32;

/// How a sealed secret begins; another way of sealing gets another number.
const FORM: u8 = 1;
const PROOF: &[u8] = b"batchin";
const PROOF_OWNER: &[u8] = b"proof";

/// What this installation's secrets are sealed with.
#[derive(Clone)]
pub struct MasterKey(SecretString);

/// The text is too short to be random enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the secret key must have at least {MIN_KEY_CHARS} characters, all of them random")]
pub struct ShortKey;

impl MasterKey {
    /// From a long random text.
    pub fn new(text: SecretString) -> Result<Self, ShortKey> {
        if text.expose_secret().chars().count() < MIN_KEY_CHARS { Err(ShortKey) } else { Ok(Self(text)) }
    }

    /// A secret of its own for one purpose (HKDF, RFC 5869): none tells anything of another, or of the key.
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"batchin");
        let random = salt.extract(self.0.expose_secret().as_bytes());
        let mut secret = [0; 32];
        #[expect(clippy::expect_used, reason = "HKDF gives any length up to 255 hashes")]
        random
            .expand(&[purpose.as_bytes()], &CHACHA20_POLY1305)
            .and_then(|derived| derived.fill(&mut secret))
            .expect("a key has 32 bytes");
        secret
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey([REDACTED])")
    }
}

/// Why nothing can be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The database's secrets were sealed with another key.
    #[error("the secrets in this database were sealed with another server.secret_key")]
    OtherKey,
    /// The store failed.
    #[error("the proof of the secret key could not be read")]
    Store(#[source] StoreError),
}

/// Seals and opens. Cheap to clone.
#[derive(Clone)]
pub struct Vault(Arc<LessSafeKey>);

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault")
    }
}

/// What was sealed cannot be opened: other key, other owner, or damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sealed secret cannot be opened with this server.secret_key")]
pub(crate) struct Sealed;

impl Vault {
    /// Opens the vault of a database; the first key that comes is the key from then on.
    pub async fn open(outbox: &Outbox, key: &MasterKey, ids: &dyn IdSource) -> Result<Self, VaultError> {
        let vault = Self::of(key);
        let mine = vault.seal_bytes(PROOF_OWNER, PROOF, ids);
        let known = outbox.webhook_key_proof(mine).await.map_err(VaultError::Store)?;
        vault.check(&known).map(|()| vault)
    }

    /// Whether the key is the one of a database; leaves no trace. True while nothing has been sealed there.
    pub async fn try_key(outbox: &Outbox, key: &MasterKey) -> Result<(), VaultError> {
        match outbox.known_webhook_key_proof().await.map_err(VaultError::Store)? {
            Some(known) => Self::of(key).check(&known),
            None => Ok(()),
        }
    }

    fn of(key: &MasterKey) -> Self {
        #[expect(clippy::expect_used, reason = "the cipher's keys have as many bytes")]
        let derived = UnboundKey::new(&CHACHA20_POLY1305, &key.derive("webhook secrets")).expect("a key has 32 bytes");
        Self(Arc::new(LessSafeKey::new(derived)))
    }

    fn check(&self, proof: &[u8]) -> Result<(), VaultError> {
        match self.open_bytes(PROOF_OWNER, proof) {
            Ok(opened) if opened == PROOF => Ok(()),
            _ => Err(VaultError::OtherKey),
        }
    }

    /// Seals an account's secret; it opens for that account alone.
    pub(crate) fn seal(&self, account: AccountId, secret: &WebhookSecret, ids: &dyn IdSource) -> Vec<u8> {
        self.seal_bytes(account.uuid().as_bytes(), secret.bytes(), ids)
    }

    pub(crate) fn unseal(&self, account: AccountId, sealed: &[u8]) -> Result<WebhookSecret, Sealed> {
        let opened = self.open_bytes(account.uuid().as_bytes(), sealed)?;
        opened.try_into().map(WebhookSecret::new).map_err(|_| Sealed)
    }

    fn seal_bytes(&self, owner: &[u8], plain: &[u8], ids: &dyn IdSource) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&ids.secret()[..NONCE_LEN]);
        let mut cipher = plain.to_vec();
        #[expect(clippy::expect_used, reason = "only a text of many gigabytes cannot be sealed")]
        self.0
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(owner), &mut cipher)
            .expect("a short secret can be sealed");
        [&[FORM][..], &nonce, &cipher].concat()
    }

    fn open_bytes(&self, owner: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Sealed> {
        let [FORM, rest @ ..] = sealed else { return Err(Sealed) };
        let (nonce, cipher) = rest.split_at_checked(NONCE_LEN).ok_or(Sealed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Sealed)?;
        let mut cipher = cipher.to_vec();
        self.0.open_in_place(nonce, Aad::from(owner), &mut cipher).map(|plain| plain.to_vec()).map_err(|_| Sealed)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    struct Fixed;

    impl IdSource for Fixed {
        fn uuid(&self) -> Uuid {
            Uuid::nil()
        }

        fn secret(&self) -> [u8; 32] {
            [9; 32]
        }
    }

    fn vault(text: &str) -> Vault {
        Vault::of(&MasterKey::new(text.to_owned().into()).unwrap())
    }

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn a_secret_opens_for_its_account_and_key_alone() {
        let (ada, eve) = (AccountId::new(Uuid::from_u128(1)), AccountId::new(Uuid::from_u128(2)));
        let secret = WebhookSecret::new([7; 32]);
        let sealed = vault(KEY).seal(ada, &secret, &Fixed);
        assert!(!sealed.windows(4).any(|four| four == [7; 4]), "it lies in the open");
        assert_eq!(vault(KEY).unseal(ada, &sealed), Ok(secret));
        assert_eq!(vault(KEY).unseal(eve, &sealed), Err(Sealed));
        assert_eq!(vault("0123456789abcdef0123456789abcdeF").unseal(ada, &sealed), Err(Sealed));
        for broken in [&sealed[..0], &sealed[..5], &sealed[..sealed.len() - 1], &[2; 61]] {
            assert_eq!(vault(KEY).unseal(ada, broken), Err(Sealed));
        }
    }

    #[test]
    fn a_short_key_is_refused() {
        assert!(MasterKey::new(SecretString::from("short")).is_err());
    }
}
