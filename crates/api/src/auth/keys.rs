//! Holds: keys by the hash of their secret, remembered for half a second.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use batchin_domain::{Clock, KeyId, Timestamp};
use batchin_gateway::Caller;
use batchin_store::{KeyRecord, Keys, StoreError};
use batchin_tasks::Tasks;
use quick_cache::sync::Cache;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::error::ApiError;

/// A revoked key must stop within a second everywhere; half of that leaves room for a slow look-up.
const REMEMBERED_FOR: Duration = Duration::from_millis(500);
/// Keys and non-keys remembered at once.
const MAX_REMEMBERED: usize = 50_000;
/// Uses noted before they are written; those beyond are written with the key's next one.
const MAX_NOTED: usize = 10_000;
/// Between two writes of when keys were last used.
const WRITE_EVERY: Duration = Duration::from_secs(5);

/// Looks keys up.
pub(crate) struct KeyBook {
    stored: Keys,
    clock: Arc<dyn Clock>,
    known: Cache<[u8; 32], Known>,
    /// std mutex: held for one insertion, or to take all of it; never across an await.
    used: Mutex<HashMap<KeyId, Timestamp>>,
}

/// What a hash proved when it was looked up.
#[derive(Clone)]
struct Known {
    /// `None` for what is no key, so that a client with a wrong one does not reach the database each time.
    caller: Result<Option<Caller>, Unanswered>,
    until: Instant,
}

/// The database did not say.
#[derive(Clone, Copy)]
struct Unanswered;

impl KeyBook {
    pub(crate) fn start(stored: Keys, clock: Arc<dyn Clock>, tasks: &Tasks) -> Arc<Self> {
        let book =
            Arc::new(Self { stored, clock, known: Cache::new(MAX_REMEMBERED), used: Mutex::new(HashMap::new()) });
        let writing = Arc::clone(&book);
        tasks.spawn("key_last_used", move |stop| async move { writing.write(stop).await });
        book
    }

    /// What a key is good for at this moment.
    pub(crate) async fn record(&self, hash: [u8; 32]) -> Result<Option<KeyRecord>, StoreError> {
        self.stored.key_by_hash(hash).await
    }

    /// Whom a key's hash proves; many askers at once make one look-up.
    pub(crate) async fn caller(&self, hash: [u8; 32]) -> Result<Option<Caller>, ApiError> {
        let now = Instant::now();
        let known = match self.known.get(&hash).filter(|known| now < known.until) {
            Some(known) => known,
            // Boxed, so that requests with a known key, which are nearly all, carry no room for the look-up.
            None => Box::pin(self.newly_known(hash, now)).await,
        };
        let unanswered = |_| ApiError::unavailable("The database does not answer; try again in a moment.");
        known.caller.map_err(unanswered)
    }

    async fn newly_known(&self, hash: [u8; 32], now: Instant) -> Known {
        // Of those that find it too old one removes it; all of them wait for the look-up of whoever asks first.
        self.known.remove_if(&hash, |known| known.until <= now);
        let looked_up = async {
            Ok::<_, Infallible>(match self.look_up(hash).await {
                Ok(caller) => Known { caller: Ok(caller), until: now + REMEMBERED_FOR },
                Err(cause) => {
                    warn!(error = &cause as &dyn std::error::Error, "a key could not be looked up");
                    // For those that wait now, lest each tries in turn; whoever comes later asks anew.
                    Known { caller: Err(Unanswered), until: now }
                }
            })
        };
        let Ok(known) = self.known.get_or_insert_async(&hash, looked_up).await;
        known
    }

    async fn look_up(&self, hash: [u8; 32]) -> Result<Option<Caller>, StoreError> {
        let Some(record) = self.stored.key_by_hash(hash).await? else { return Ok(None) };
        self.note(record.id);
        Ok(Some(Caller {
            account: record.account,
            key: Some(record.id),
            rate_limit_rpm: Some(record.rate_limit_rpm),
            monthly_budget: record.monthly_budget,
            capped_by: None,
        }))
    }

    fn note(&self, key: KeyId) {
        let now = self.clock.now();
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.len() < MAX_NOTED || used.contains_key(&key) {
            used.insert(key, now);
        }
    }

    async fn write(&self, stop: CancellationToken) {
        let mut ticks = interval(WRITE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let stopped = stop.run_until_cancelled(ticks.tick()).await.is_none();
            let used = std::mem::take(&mut *self.used.lock().unwrap_or_else(PoisonError::into_inner));
            let used: Vec<(KeyId, Timestamp)> = used.into_iter().collect();
            if !used.is_empty()
                && let Err(cause) = self.stored.touch_keys(&used).await
            {
                warn!(error = &cause as &dyn std::error::Error, "it could not be noted when keys were last used");
            }
            if stopped {
                return;
            }
        }
    }
}
