//! Holds: the hand-out of films to nodes, what a node notes of one while it is made, and what is left of those that are over.

use std::time::Duration;

use batchin_db::{Rerun, Value, retried};
use batchin_domain::{AccountId, FilmStatus, KeyId, Timestamp, VideoId, text::storable};
use uuid::Uuid;

use super::{FilmClaims, FilmError, FilmOrder, FilmPlace, OPEN, order, payer, time};
use crate::{FencedError, NodeIdentity, StoreError, fence::still};

/// How long a job stays that has gone, while its server is out of reach and still at it.
const TELL_FOR: Duration = Duration::from_secs(3_600);

/// A job under a node's claim.
#[derive(Clone, Debug)]
pub struct ClaimedFilm {
    /// Names the job and the claim.
    pub claim: FilmClaim,
    /// Who pays.
    pub account: AccountId,
    /// The key whose budget it counts for.
    pub key: Option<KeyId>,
    /// What is asked for.
    pub order: FilmOrder,
    /// Where a server makes it, if one was asked.
    pub place: Option<FilmPlace>,
    /// Tries that failed, or whose server lost the job.
    pub tries: u32,
}

/// A claim: old epochs are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FilmClaim {
    /// The job.
    pub video: VideoId,
    /// The claim's epoch.
    pub epoch: i64,
}

/// A claimed job that waits for the next claim.
#[derive(Clone, Debug)]
pub struct FilmReturn {
    /// What goes back.
    pub claim: FilmClaim,
    /// Not to be claimed again before.
    pub not_before: Timestamp,
    /// What it waits for, if its owner can change that.
    pub blocked: Option<&'static str>,
    /// Whether a try failed.
    pub counts: bool,
}

/// A server's job that nobody waits for any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftFilm {
    /// Whose server's job it was.
    pub video: VideoId,
    /// The server's configured name.
    pub upstream: String,
    /// What the server calls it.
    pub remote: String,
}

impl FilmClaims {
    /// Claims up to so many jobs. Accounts take turns, and none has more than `most_each` under claims.
    pub async fn claim_films(
        &self,
        node: NodeIdentity,
        (limit, most_each): (u32, u32),
        now: Timestamp,
    ) -> Result<Vec<ClaimedFilm>, FencedError> {
        let run = retried(Rerun::IfRolledBack, || async {
            let due = self.due((limit, most_each), now).await?;
            if due.is_empty() {
                return Ok(Some(Vec::new()));
            }
            let tx = self.db.write().await?;
            if !still(&tx, node).await? {
                return Ok(None);
            }
            let sql = format!(
                "UPDATE video_job SET node_id = $2, epoch = epoch + 1, blocked = NULL \
                 WHERE id = $1 AND {OPEN} AND node_id IS NULL RETURNING id, epoch, account_id, key_id, request_id, \
                 model, prompt, seconds, width, height, upstream, remote, submitted_at, tries"
            );
            let mut claimed = Vec::with_capacity(due.len());
            for id in due {
                // Another node may have been quicker.
                if let Some(row) = tx.one(sql.clone(), [id.into(), node.id.uuid().into()]).await? {
                    claimed.push(claimed_film(&row)?);
                }
            }
            tx.commit().await?;
            Ok(Some(claimed))
        });
        match run.await {
            Ok(Some(claimed)) => Ok(claimed),
            Ok(None) => Err(FencedError::Fenced),
            Err(cause) => Err(FencedError::Store(cause)),
        }
    }

    /// Jobs that may be claimed, in the order of their ids, in which rows are locked.
    async fn due(&self, (limit, most_each): (u32, u32), now: Timestamp) -> Result<Vec<Uuid>, StoreError> {
        let sql = format!(
            "WITH due AS (SELECT id, not_before, row_number() OVER (PARTITION BY account_id ORDER BY not_before, id) + \
             (SELECT count(*) FROM video_job r WHERE r.node_id IS NOT NULL AND r.account_id = v.account_id) AS turn \
             FROM video_job v WHERE {OPEN} AND node_id IS NULL AND not_before <= $1) \
             SELECT id FROM due WHERE turn <= $2 ORDER BY turn, not_before, id LIMIT $3"
        );
        let values: [Value; 3] = [now.micros().into(), i64::from(most_each).into(), i64::from(limit).into()];
        let rows = self.db.all(sql, values).await?;
        let mut ids = rows.iter().map(|row| row.get("id")).collect::<Result<Vec<Uuid>, _>>()?;
        ids.sort_unstable();
        Ok(ids)
    }

    /// A server has taken the job. Whether the claim is current: nothing was noted otherwise.
    pub async fn note_submitted(&self, claim: FilmClaim, place: &FilmPlace) -> Result<bool, StoreError> {
        let values = [
            place.upstream.as_str().into(),
            place.remote.as_str().into(),
            place.since.micros().into(),
            FilmStatus::InProgress.code().into(),
        ];
        self.change(claim, "upstream = $3, remote = $4, submitted_at = $5, status = $6", values.to_vec()).await
    }

    /// How far it is, in percent. Whether the claim is current.
    pub async fn note_progress(&self, claim: FilmClaim, progress: u32) -> Result<bool, StoreError> {
        // It never goes back, whatever a server says.
        let set = "progress = CASE WHEN progress > $3 THEN progress ELSE $3 END";
        self.change(claim, set, vec![i64::from(progress.min(99)).into()]).await
    }

    /// Its server lost the job, or failed at it: another one is to be asked. Whether the claim is current.
    pub async fn note_lost(&self, claim: FilmClaim) -> Result<bool, StoreError> {
        self.change(claim, "upstream = NULL, remote = NULL, submitted_at = NULL, tries = tries + 1", Vec::new()).await
    }

    /// Lets a job wait. Whether the claim was current.
    pub async fn return_film(&self, back: &FilmReturn) -> Result<bool, StoreError> {
        let values = vec![
            back.not_before.micros().into(),
            back.blocked.map(str::to_owned).into(),
            i64::from(back.counts).into(),
        ];
        self.change(back.claim, "node_id = NULL, not_before = $3, blocked = $4, tries = tries + $5", values).await
    }

    /// There will be no film. Whether the claim was current.
    pub async fn fail_film(
        &self,
        claim: FilmClaim,
        error: &FilmError,
        (now, gone_at): (Timestamp, Timestamp),
    ) -> Result<bool, StoreError> {
        let set = "status = $3, node_id = NULL, error_code = $4, error_message = $5, finished_at = $6, expires_at = $7";
        let values = vec![
            FilmStatus::Failed.code().into(),
            storable(&error.code).into(),
            storable(&error.message).into(),
            now.micros().into(),
            gone_at.micros().into(),
        ];
        self.change(claim, set, values).await
    }

    /// Whether the claim is current.
    pub async fn holds_film(&self, claim: FilmClaim) -> Result<bool, StoreError> {
        let sql = format!("SELECT id FROM video_job WHERE id = $1 AND epoch = $2 AND node_id IS NOT NULL AND {OPEN}");
        Ok(self.db.one(sql, [claim.video.uuid().into(), claim.epoch.into()]).await?.is_some())
    }

    async fn change(&self, claim: FilmClaim, set: &str, more: Vec<Value>) -> Result<bool, StoreError> {
        let sql = format!("UPDATE video_job SET {set} WHERE id = $1 AND epoch = $2 AND node_id IS NOT NULL AND {OPEN}");
        let values: Vec<Value> = [claim.video.uuid().into(), claim.epoch.into()].into_iter().chain(more).collect();
        retried(Rerun::IfRolledBack, || async {
            let tx = self.db.write().await?;
            let touched = tx.run(sql.clone(), values.clone()).await?;
            tx.commit().await?;
            Ok(touched == 1)
        })
        .await
    }

    /// Jobs of servers that nobody waits for any more, since they failed or were stopped here.
    pub async fn left_films(&self, limit: u32) -> Result<Vec<LeftFilm>, StoreError> {
        let sql = "SELECT id, upstream, remote FROM video_job WHERE status IN (3, 4) AND remote IS NOT NULL \
                   AND upstream IS NOT NULL ORDER BY id LIMIT $1";
        let rows = self.db.all(sql, [i64::from(limit).into()]).await?;
        let left = rows.iter().map(|row| {
            Ok(LeftFilm {
                video: VideoId::new(row.get("id")?),
                upstream: row.get("upstream")?,
                remote: row.get("remote")?,
            })
        });
        left.collect()
    }

    /// Its server was told, or is not asked any more.
    pub async fn forget_left(&self, video: VideoId) -> Result<(), StoreError> {
        let sql = "UPDATE video_job SET remote = NULL WHERE id = $1 AND status IN (3, 4)";
        self.run(sql, vec![video.uuid().into()]).await
    }

    /// Jobs that have gone by `now` and still have rows.
    pub async fn gone_films(&self, limit: u32, now: Timestamp) -> Result<Vec<VideoId>, StoreError> {
        // What its server is still to be told of waits for that, and not for ever.
        let sql = "SELECT id FROM video_job WHERE expires_at IS NOT NULL AND expires_at <= $1 \
                   AND (remote IS NULL OR expires_at <= $2) ORDER BY expires_at, id LIMIT $3";
        let long_ago = now.micros().saturating_sub(i64::try_from(TELL_FOR.as_micros()).unwrap_or(i64::MAX));
        let rows = self.db.all(sql, [now.micros().into(), long_ago.into(), i64::from(limit).into()]).await?;
        rows.iter().map(|row| Ok(VideoId::new(row.get("id")?))).collect()
    }

    /// Forgets a job that has gone and whose blobs are no more.
    pub async fn forget_film(&self, video: VideoId, now: Timestamp) -> Result<(), StoreError> {
        let sql = "DELETE FROM video_job WHERE id = $1 AND expires_at IS NOT NULL AND expires_at <= $2";
        self.run(sql, vec![video.uuid().into(), now.micros().into()]).await
    }

    async fn run(&self, sql: &'static str, values: Vec<Value>) -> Result<(), StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            tx.run(sql, values.clone()).await?;
            tx.commit().await
        })
        .await
    }
}

fn claimed_film(row: &batchin_db::Row) -> Result<ClaimedFilm, StoreError> {
    let (account, key) = payer(row)?;
    let (upstream, remote): (Option<String>, Option<String>) = (row.get("upstream")?, row.get("remote")?);
    let place = match (upstream, remote, time(row, "submitted_at")?) {
        (Some(upstream), Some(remote), Some(since)) => Some(FilmPlace { upstream, remote, since }),
        _ => None,
    };
    Ok(ClaimedFilm {
        claim: FilmClaim { video: VideoId::new(row.get("id")?), epoch: row.get("epoch")? },
        account,
        key,
        order: order(row)?,
        place,
        tries: super::number(row, "tries")?,
    })
}
