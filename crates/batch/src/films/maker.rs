//! Holds: the maker of films: what it claims of the jobs that there are, and how many it waits for.

mod making;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use batchin_files::Blobs;
use batchin_gateway::Gateway;
use batchin_store::{FilmClaims, Keys, StoreError};
use batchin_tasks::Tasks;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Films, FilmsOptions, folder_of};

/// Between two looks at what there is to do.
const POLL: Duration = Duration::from_millis(500);
/// Between two looks at what there is to be tidied.
const TIDY: Duration = Duration::from_secs(1);
/// Jobs claimed at once: what finds no room at the servers goes back, a write each.
const CLAIMS: u32 = 16;
/// What one account may have under claims of this node's places, in percent: jobs last for minutes, and the next account's
/// must not wait for all of them.
const MOST_PERCENT: u32 = 75;
/// Servers' jobs told at once that nobody waits for them.
const LEFT: u32 = 16;
/// Jobs forgotten at once.
const GONE: u32 = 100;

/// What a maker works with.
pub struct FilmParts {
    /// Pays for films, and knows the servers.
    pub gateway: Gateway,
    /// The jobs that there are.
    pub claims: FilmClaims,
    /// What the keys may spend that jobs are paid by.
    pub keys: Keys,
    /// Where films are kept.
    pub blobs: Blobs,
}

/// Has films made on this node.
pub struct Maker {
    pub(super) gateway: Gateway,
    pub(super) claims: FilmClaims,
    pub(super) keys: Keys,
    pub(super) blobs: Blobs,
    pub(super) options: FilmsOptions,
    wake: Arc<Notify>,
    /// Jobs that are worked on.
    working: AtomicU32,
    freed: Notify,
    runs: Tasks,
}

impl Maker {
    /// Starts to claim and make. `tasks` is asked to stop before the group that settles is.
    pub fn start(parts: FilmParts, films: &Films, tasks: &Tasks) {
        let FilmParts { gateway, claims, keys, blobs } = parts;
        let (wake, options) = (films.wake(), films.options());
        let (working, freed, runs) = (AtomicU32::new(0), Notify::new(), tasks.clone());
        let maker = Arc::new(Self { gateway, claims, keys, blobs, options, wake, working, freed, runs });
        let running = Arc::clone(&maker);
        tasks.spawn("film_maker", move |stop| running.run(stop));
        tasks.spawn("films_tidy", move |stop| maker.tidy(stop));
    }

    async fn run(self: Arc<Self>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let look = Instant::now() + POLL;
            let claimed = self.claim().await;
            if claimed == CLAIMS {
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.wake.notified() => {}
                () = self.freed.notified() => {}
                () = sleep_until(look) => {}
            }
        }
    }

    /// Begins on jobs that wait; returns how many.
    async fn claim(self: &Arc<Self>) -> u32 {
        let epoch = self.gateway.epoch();
        let places = self.options.concurrency.saturating_sub(self.working.load(Ordering::Acquire));
        if places == 0 || !epoch.holds() {
            return 0;
        }
        let most_each = (self.options.concurrency * MOST_PERCENT / 100).max(1);
        let now = self.gateway.clock().now();
        let claimed = match self.claims.claim_films(epoch.identity, (places.min(CLAIMS), most_each), now).await {
            Ok(claimed) => claimed,
            Err(cause) => {
                warn!(error = &cause as &dyn std::error::Error, "films could not be claimed");
                return 0;
            }
        };
        if !claimed.is_empty() {
            batchin_faults::point("film.claimed");
        }
        let count = u32::try_from(claimed.len()).unwrap_or(u32::MAX);
        for job in claimed {
            self.working.fetch_add(1, Ordering::AcqRel);
            let maker = Arc::clone(self);
            self.runs.spawn("film", move |stop| async move {
                maker.make(job, stop).await;
                maker.working.fetch_sub(1, Ordering::AcqRel);
                maker.freed.notify_one();
            });
        }
        count
    }

    /// Tells servers what nobody waits for any more, and removes what has gone.
    async fn tidy(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(TIDY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if let Some(Err(cause)) = stop.run_until_cancelled(self.tell_left()).await {
                warn!(error = &cause as &dyn std::error::Error, "films that were left could not be looked for");
            }
            if let Some(Err(cause)) = stop.run_until_cancelled(self.remove_gone()).await {
                warn!(error = &cause as &dyn std::error::Error, "films that have gone could not be removed");
            }
        }
    }

    async fn tell_left(&self) -> Result<(), StoreError> {
        for left in self.claims.left_films(LEFT).await? {
            // One that is out of reach is told later.
            if self.gateway.leave_film(&left.upstream, &left.remote).await {
                self.claims.forget_left(left.video).await?;
                batchin_faults::point("film.left");
            }
        }
        Ok(())
    }

    /// Removes films that have gone, each before its row.
    async fn remove_gone(&self) -> Result<(), RemoveError> {
        let now = self.gateway.clock().now();
        for video in self.claims.gone_films(GONE, now).await.map_err(RemoveError::Store)? {
            self.blobs.delete_folder(&folder_of(video)).await.map_err(RemoveError::Blob)?;
            batchin_faults::point("film.removed");
            self.claims.forget_film(video, now).await.map_err(RemoveError::Store)?;
        }
        Ok(())
    }
}

/// Why a film that has gone is still there.
#[derive(Debug, thiserror::Error)]
enum RemoveError {
    /// Its bytes.
    #[error("a film's bytes could not be removed")]
    Blob(#[source] batchin_files::BlobError),
    /// Its row.
    #[error("a film's row could not be removed")]
    Store(#[source] StoreError),
}
