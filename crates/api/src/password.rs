//! Holds: passwords: argon2id at OWASP's parameters, off the async threads, a bounded number at once.

use std::sync::Arc;

use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version, password_hash::phc::PasswordHash};
use tokio::sync::Semaphore;

use crate::attempts::Attempt;

/// Shortest password, in characters.
pub const MIN_CHARS: usize = 8;
/// Longest password, in characters: nobody types more.
pub const MAX_CHARS: usize = 1_024;
/// OWASP: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const SALT_BYTES: usize = 16;
/// Hashes at once: each takes 19 MiB and a core.
const MAX_RUNNING: usize = 2;
/// Those that wait for their turn; each takes some tens of milliseconds.
const MAX_WAITING: usize = 64;
/// Of no password that anybody has; verified against where the email is unknown, so that it takes the same time.
const DUMMY: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5J3Mgc2FsdA$zXDQqlbHHY4UX9+5dTxp2+XnoQoDPwUXtwCUiNaHDA0";

/// Why a password was not hashed.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too short or too long.
    #[error("a password must have {MIN_CHARS} to {MAX_CHARS} characters")]
    Length,
    /// Too many at once.
    #[error("too many passwords are being checked")]
    Busy,
    /// The hash could not be computed.
    #[error("the password could not be hashed")]
    Hash,
}

/// A password's hash in PHC form; `random` is its salt. Takes tens of milliseconds: not for async threads.
pub fn hash(password: &str, random: [u8; 32]) -> Result<String, PasswordError> {
    if !fits(password) {
        return Err(PasswordError::Length);
    }
    let (salt, _) = random.split_at(SALT_BYTES);
    let hashed = hasher()?.hash_password_with_salt(password.as_bytes(), salt);
    hashed.map(|hash| hash.to_string()).map_err(|_| PasswordError::Hash)
}

/// Whether a password is long and short enough.
pub(crate) fn fits(password: &str) -> bool {
    (MIN_CHARS..=MAX_CHARS).contains(&password.chars().count())
}

/// Whether a password has this hash. Takes tens of milliseconds: not for async threads.
pub fn verify(password: &str, hash: &str) -> bool {
    let Ok(hasher) = hasher() else { return false };
    let Ok(parsed) = PasswordHash::new(hash) else { return false };
    password.chars().count() <= MAX_CHARS && hasher.verify_password(password.as_bytes(), &parsed).is_ok()
}

fn hasher() -> Result<Argon2<'static>, PasswordError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|_| PasswordError::Hash)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// Hashes and verifies beside the async threads, for whoever may try.
#[derive(Clone)]
pub(crate) struct Passwords {
    running: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

impl Passwords {
    pub(crate) fn new() -> Self {
        let places = Arc::new(Semaphore::new(MAX_RUNNING + MAX_WAITING));
        Self { running: Arc::new(Semaphore::new(MAX_RUNNING)), places }
    }

    pub(crate) async fn hash(
        &self,
        _: &Attempt<'_>,
        password: String,
        random: [u8; 32],
    ) -> Result<String, PasswordError> {
        self.beside(move || hash(&password, random)).await?
    }

    /// Whether the password is right; without a hash it is not, after the same time.
    pub(crate) async fn verify(
        &self,
        _: &Attempt<'_>,
        password: String,
        stored: Option<String>,
    ) -> Result<bool, PasswordError> {
        self.beside(move || match stored {
            Some(stored) => verify(&password, &stored),
            None => {
                verify(&password, DUMMY);
                false
            }
        })
        .await
    }

    async fn beside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, PasswordError> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| PasswordError::Busy)?;
        let running = Arc::clone(&self.running).acquire_owned().await.map_err(|_| PasswordError::Busy)?;
        let done = tokio::task::spawn_blocking(move || {
            // Held until the work is done, also when nobody waits for it any more.
            let _permits = (place, running);
            work()
        });
        done.await.map_err(|_| PasswordError::Hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_verifies_against_its_own_hash_only() {
        let stored = hash("correct horse", [1; 32]).unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert!(verify("correct horse", &stored));
        assert!(!verify("wrong horse", &stored));
        assert!(matches!(hash("short", [1; 32]), Err(PasswordError::Length)));
    }

    #[test]
    fn the_dummy_costs_what_a_real_one_costs() {
        let parsed = PasswordHash::new(DUMMY).unwrap();
        let params = Params::try_from(&parsed).unwrap();
        assert_eq!((params.m_cost(), params.t_cost(), params.p_cost()), (MEMORY_KIB, PASSES, LANES));
        assert_eq!(parsed.hash.unwrap().len(), 32);
    }
}
