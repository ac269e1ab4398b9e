//! Holds: accounts' secrets, from the first delivery to their rotation.

use std::{sync::Arc, time::Duration};

use batchin_domain::{AccountId, Clock, IdSource, Timestamp};
use batchin_store::{Outbox, StoreError};
use ring::hmac;
use tracing::error;

use crate::{
    secret::WebhookSecret,
    vault::{MasterKey, Sealed, Vault, VaultError},
};

/// How long an old secret signs beside the new one, so that a receiver can change over without losing an event.
const OVERLAP: Duration = Duration::from_secs(24 * 3600);

/// Of a code that shows whose an address is.
const CODE_BYTES: usize = 10;

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// This node's key is not the one that the database's secrets were sealed with.
    #[error("this node's server.secret_key does not open the database's secrets")]
    WrongKey,
    /// The store failed.
    #[error("the secret could not be read or stored")]
    Store(#[source] StoreError),
}

/// A new secret, to be shown once.
#[derive(Clone, Debug)]
pub struct Rotated {
    /// The secret.
    pub secret: WebhookSecret,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Accounts' secrets. Cheap to clone.
#[derive(Clone)]
pub struct Webhooks(Arc<Inner>);

struct Inner {
    outbox: Outbox,
    vault: Option<Vault>,
    codes: hmac::Key,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
}

impl Webhooks {
    /// Opens the secrets of a database. With a key that is not theirs everything else goes on, and what needs a secret
    /// is refused.
    pub async fn open(
        outbox: Outbox,
        key: &MasterKey,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdSource>,
    ) -> Result<Self, StoreError> {
        let vault = match Vault::open(&outbox, key, &*ids).await {
            Ok(vault) => Some(vault),
            Err(VaultError::Store(cause)) => return Err(cause),
            Err(cause @ VaultError::OtherKey) => {
                error!("{cause}: this node delivers no webhooks; give it the same server.secret_key as the others");
                None
            }
        };
        let codes = hmac::Key::new(hmac::HMAC_SHA256, &key.derive("codes of e-mail addresses"));
        Ok(Self(Arc::new(Inner { outbox, vault, codes, clock, ids })))
    }

    /// Whether this node can sign.
    pub fn can_sign(&self) -> bool {
        self.0.vault.is_some()
    }

    /// Makes an account's secret, or a new one. The old one signs beside it for a day.
    pub async fn rotate(&self, account: AccountId) -> Result<Rotated, SecretError> {
        let Inner { outbox, clock, ids, .. } = &*self.0;
        let (secret, created_at) = (WebhookSecret::new(ids.secret()), clock.now());
        let sealed = self.vault()?.seal(account, &secret, &**ids);
        let until = created_at.after(OVERLAP);
        outbox.rotate_webhook_secret(account, sealed, created_at, until).await.map_err(SecretError::Store)?;
        Ok(Rotated { secret, created_at })
    }

    /// What shows that an account's owner reads what comes to an address: told in a mail to it alone. It follows from
    /// `server.secret_key`, so that it is written down nowhere, and 80 bits are not guessed.
    pub fn email_code(&self, account: AccountId, address: &str) -> String {
        let mut context = hmac::Context::with_key(&self.0.codes);
        context.update(account.uuid().as_bytes());
        context.update(address.as_bytes());
        context.sign().as_ref()[..CODE_BYTES].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What an account's deliveries are signed with now, the newest first. An account that has none gets one, so that
    /// no event goes out without a signature.
    pub(crate) async fn secrets(&self, account: AccountId, now: Timestamp) -> Result<Vec<WebhookSecret>, SecretError> {
        let Inner { outbox, ids, .. } = &*self.0;
        let vault = self.vault()?;
        let stored = match outbox.webhook_secret(account).await.map_err(SecretError::Store)? {
            Some(stored) => stored,
            None => {
                let fresh = vault.seal(account, &WebhookSecret::new(ids.secret()), &**ids);
                outbox.ensure_webhook_secret(account, fresh, now).await.map_err(SecretError::Store)?
            }
        };
        let previous = stored.previous.filter(|(_, until)| now < *until).map(|(sealed, _)| sealed);
        let sealed = std::iter::once(stored.current).chain(previous);
        let opened = sealed.map(|sealed| vault.unseal(account, &sealed)).collect::<Result<_, Sealed>>();
        opened.map_err(|_| SecretError::WrongKey)
    }

    fn vault(&self) -> Result<&Vault, SecretError> {
        self.0.vault.as_ref().ok_or(SecretError::WrongKey)
    }

    pub(crate) fn outbox(&self) -> &Outbox {
        &self.0.outbox
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// Any number.
    pub(crate) fn jitter(&self) -> u16 {
        let [first, second, ..] = self.0.ids.secret();
        u16::from_le_bytes([first, second])
    }
}
