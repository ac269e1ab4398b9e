//! Holds: having one film made: money, a server, waiting, fetching, the charge.

use std::time::Duration;

use batchin_domain::AccountId;
use batchin_gateway::{Caller, FilmSeat, FilmState, HeldFilm};
use batchin_store::{ClaimedFilm, FilmClaim, FilmFinish, FilmPlace, FilmReturn, StoreError};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::Maker;
use crate::films::{
    fetch::{Length, NotFetched, fetch},
    outcome::{Came, MAX_TRIES, Next, next},
};

/// First pause between two looks at a job; grows by half each time, up to [`LOOK_MAX`].
const LOOK: Duration = Duration::from_millis(200);
const LOOK_MAX: Duration = Duration::from_secs(5);
/// Before what came of a job is noted again.
const NOTE_AGAIN: Duration = Duration::from_secs(1);
/// How long a server may be out of reach before it counts as having lost what it was doing: servers start again in minutes,
/// and know nothing then.
const AWAY: Duration = Duration::from_secs(120);

/// How waiting for a server ended.
enum Waited {
    Done { told: Option<u64> },
    Lost,
    Came(Came),
}

impl Maker {
    /// Goes on with a job until it is over or waits, and notes that.
    pub(super) async fn make(&self, mut job: ClaimedFilm, stop: CancellationToken) {
        let came = stop.run_until_cancelled(Box::pin(self.made(&mut job))).await.unwrap_or(Came::Stopping);
        debug!(video.id = %job.claim.video, "film {} came to {came:?}", job.claim.video);
        let next = next(came, job.tries);
        while let Err(cause) = self.conclude(job.claim, &next).await {
            warn!(error = &cause as &dyn std::error::Error, "what came of a film could not be noted");
            // With the node, its claims end.
            if stop.run_until_cancelled(sleep(NOTE_AGAIN)).await.is_none() {
                return;
            }
        }
    }

    async fn conclude(&self, claim: FilmClaim, next: &Next) -> Result<(), StoreError> {
        let now = self.gateway.clock().now();
        match *next {
            Next::Leave => {}
            Next::Again { pause, blocked, counts } => {
                let not_before = now.after(pause);
                self.claims.return_film(&FilmReturn { claim, not_before, blocked, counts }).await?;
                batchin_faults::point("film.returned");
            }
            Next::Fail(ref error) => {
                batchin_faults::point("film.failing");
                self.claims.fail_film(claim, error, (now, now.after(self.options.keep))).await?;
                batchin_faults::point("film.failed");
            }
        }
        Ok(())
    }

    async fn made(&self, job: &mut ClaimedFilm) -> Came {
        let caller = match self.caller(job).await {
            Ok(caller) => caller,
            Err(cause) => return not_noted(&cause),
        };
        let held = match self.gateway.hold_film(&caller, &job.order).await {
            Ok(held) => held,
            Err(cause) => return Came::NotBegun(cause),
        };
        loop {
            let seat = match self.seat(job, &held).await {
                Ok(Some(seat)) => seat,
                Ok(None) => match self.lost(job).await {
                    Some(came) => return came,
                    None => continue,
                },
                Err(came) => return came,
            };
            // Whoever has a seat has a place.
            let Some(place) = job.place.clone() else { return Came::NotNoted };
            let told = match self.wait(job, &held, (&seat, &place)).await {
                Waited::Done { told } => told,
                Waited::Lost => {
                    seat.failed();
                    match self.lost(job).await {
                        Some(came) => return came,
                        None => continue,
                    }
                }
                Waited::Came(came) => return came,
            };
            let length = Length { told, fps: held.fps(), seconds: job.order.seconds };
            match fetch((&self.gateway, &self.blobs), (&seat, &place.remote), job.claim, length).await {
                Ok(fetched) => {
                    let finish = FilmFinish {
                        video: job.claim.video,
                        epoch: job.claim.epoch,
                        film: fetched.film,
                        expires_at: self.gateway.clock().now().after(self.options.keep),
                    };
                    if let Err(cause) = held.settle(&self.gateway, finish, fetched.estimated).await {
                        return Came::NotSettled(cause);
                    }
                    batchin_faults::point("film.finished");
                    // We have it: the server need not keep it. One that keeps it all the same does no harm.
                    let _ = seat.leave(&place.remote).await;
                    seat.done();
                    return Came::Finished;
                }
                Err(NotFetched::TooLarge) => return Came::TooLarge,
                Err(NotFetched::NotStored) => return Came::NotStored,
                Err(NotFetched::Gone) => {
                    if let Some(came) = self.lost(job).await {
                        return came;
                    }
                }
                Err(NotFetched::Broken(cause)) => {
                    debug!(error = &cause as &dyn std::error::Error, "a film broke off on its way");
                    sleep(LOOK_MAX.min(self.patience(&place))).await;
                    if self.is_over_time(&place) {
                        return Came::TimedOut;
                    }
                }
            }
        }
    }

    /// A seat at the server that has the job, or at the one that is asked for it now. `None`: that server is not one of ours
    /// any more.
    async fn seat(&self, job: &mut ClaimedFilm, held: &HeldFilm) -> Result<Option<FilmSeat>, Came> {
        if let Some(place) = &job.place {
            return Ok(self.gateway.film_seat(held, &place.upstream));
        }
        batchin_faults::point("film.submitting");
        let (seat, remote) = self.gateway.submit_film(held, &job.order).await.map_err(Came::NotBegun)?;
        batchin_faults::point("film.submitted");
        let place = FilmPlace { upstream: seat.name().to_owned(), remote, since: self.gateway.clock().now() };
        match self.claims.note_submitted(job.claim, &place).await {
            Ok(true) => {}
            Ok(false) => {
                // Nobody knows of it but us.
                let _ = seat.leave(&place.remote).await;
                return Err(Came::Lost);
            }
            Err(cause) => {
                // Where it was noted all the same, the server has forgotten it, and another one is asked.
                let _ = seat.leave(&place.remote).await;
                return Err(not_noted(&cause));
            }
        }
        batchin_faults::point("film.noted");
        job.place = Some(place);
        Ok(Some(seat))
    }

    /// The server lost the job. What came of that, unless another one is asked.
    async fn lost(&self, job: &mut ClaimedFilm) -> Option<Came> {
        if job.tries + 1 >= MAX_TRIES {
            return Some(Came::LostTooOften);
        }
        match self.claims.note_lost(job.claim).await {
            Ok(true) => {
                batchin_faults::point("film.lost");
                job.tries += 1;
                job.place = None;
                None
            }
            Ok(false) => Some(Came::Lost),
            Err(cause) => Some(not_noted(&cause)),
        }
    }

    /// Waits until the server has made it.
    async fn wait(&self, job: &ClaimedFilm, held: &HeldFilm, (seat, place): (&FilmSeat, &FilmPlace)) -> Waited {
        let (mut pause, mut known, mut heard) = (LOOK, 0, Instant::now());
        loop {
            match seat.state(&place.remote).await {
                Ok(FilmState::Done { ms }) => return Waited::Done { told: ms },
                Ok(FilmState::Failed(said)) => return Waited::Came(Came::Failed(said)),
                Ok(FilmState::Lost) => return Waited::Lost,
                Ok(FilmState::Running { progress }) => {
                    heard = Instant::now();
                    if progress > known {
                        known = progress;
                        // What is not noted now is noted with the next.
                        if let Err(cause) = self.claims.note_progress(job.claim, progress).await {
                            warn!(error = &cause as &dyn std::error::Error, "a film's progress could not be noted");
                        }
                    }
                }
                Err(_) if heard.elapsed() > AWAY => return Waited::Lost,
                Err(cause) => {
                    debug!(error = &cause as &dyn std::error::Error, "a server does not say how a film stands");
                }
            }
            if self.is_over_time(place) {
                return Waited::Came(Came::TimedOut);
            }
            if !held.holds(&self.gateway) {
                return Waited::Came(Came::NotNoted);
            }
            match self.claims.holds_film(job.claim).await {
                Ok(true) => {}
                Ok(false) => return Waited::Came(Came::Lost),
                // The lease says whether it may go on.
                Err(cause) => debug!(error = &cause as &dyn std::error::Error, "a film's claim could not be looked at"),
            }
            sleep(pause.min(self.patience(place))).await;
            pause = (pause * 3 / 2).min(LOOK_MAX);
        }
    }

    /// How long the server still has; never nothing.
    fn patience(&self, place: &FilmPlace) -> Duration {
        let over = place.since.after(self.options.timeout);
        over.since(self.gateway.clock().now()).max(LOOK)
    }

    fn is_over_time(&self, place: &FilmPlace) -> bool {
        self.gateway.clock().now() >= place.since.after(self.options.timeout)
    }

    /// Whose budget and balance it counts for.
    async fn caller(&self, job: &ClaimedFilm) -> Result<Caller, StoreError> {
        let plain = plain_caller(job.account, job);
        let Some(key) = job.key else { return Ok(plain) };
        let record = self.keys.key_record(key).await?;
        Ok(Caller { monthly_budget: record.and_then(|record| record.monthly_budget), ..plain })
    }
}

fn plain_caller(account: AccountId, job: &ClaimedFilm) -> Caller {
    Caller { account, key: job.key, rate_limit_rpm: None, monthly_budget: None, capped_by: None }
}

fn not_noted(cause: &StoreError) -> Came {
    warn!(error = cause as &dyn std::error::Error, "something of a film could not be read or noted");
    Came::NotNoted
}
