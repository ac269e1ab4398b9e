//! Holds: what owners do with films: ask for one, look at it, give it up.

use batchin_db::{Rerun, Value, retried};
use batchin_domain::{AccountId, FilmStatus, KeyId, Timestamp, VideoId};

use super::{COLUMNS, FilmOrder, FilmRow, FilmRows, OPEN, film_row};
use crate::{
    FileOrder, IdempotencyScope, StoreError, StoredAnswer, inference::idempotency::remember, stored::unsigned,
};

/// What an owner sees, with the present as `$2`.
const VISIBLE: &str = "(expires_at IS NULL OR expires_at > $2)";

/// A job to be begun.
#[derive(Clone, Debug)]
pub struct NewFilm {
    /// Names it.
    pub id: VideoId,
    /// Who pays.
    pub account: AccountId,
    /// The key whose budget it counts for.
    pub key: Option<KeyId>,
    /// What is asked for.
    pub order: FilmOrder,
    /// The answer to remember, with the job, for the request's Idempotency-Key.
    pub answer: Option<(IdempotencyScope, StoredAnswer)>,
    /// When.
    pub now: Timestamp,
}

impl NewFilm {
    /// The job as its owner sees it once it is there.
    pub fn row(&self) -> FilmRow {
        FilmRow {
            id: self.id,
            order: self.order.clone(),
            status: FilmStatus::Queued,
            progress: 0,
            blocked: None,
            error: None,
            film: None,
            cost: batchin_domain::Amount::ZERO,
            created_at: self.now,
            finished_at: None,
            expires_at: None,
        }
    }
}

/// Part of an account's films.
#[derive(Clone, Copy, Debug)]
pub struct FilmPage {
    /// Only what follows this one in the order asked for.
    pub after: Option<VideoId>,
    /// Which first.
    pub order: FileOrder,
    /// Most rows.
    pub limit: u32,
}

impl FilmRows {
    /// Begins a job. The same again changes nothing.
    pub async fn create_film(&self, new: &NewFilm) -> Result<(), StoreError> {
        let order = &new.order;
        retried(Rerun::Harmless, || async {
            let values: [Value; 11] = [
                new.id.uuid().into(),
                new.account.uuid().into(),
                new.key.map(KeyId::uuid).into(),
                order.request.uuid().into(),
                order.model.as_str().into(),
                order.prompt.as_str().into(),
                i64::from(order.seconds).into(),
                i64::from(order.frame.width).into(),
                i64::from(order.frame.height).into(),
                FilmStatus::Queued.code().into(),
                new.now.micros().into(),
            ];
            let tx = self.db.write().await?;
            let sql = "INSERT INTO video_job (id, account_id, key_id, request_id, model, prompt, seconds, width, height, \
                       status, not_before, created_at) VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$11) \
                       ON CONFLICT (id) DO NOTHING";
            if tx.run(sql, values).await? == 1
                && let Some((scope, answer)) = &new.answer
            {
                remember(&tx, scope, answer).await?;
            }
            tx.commit().await
        })
        .await
    }

    /// One of an account's jobs, unless it was given up or has gone by itself.
    pub async fn film(&self, account: AccountId, id: VideoId, now: Timestamp) -> Result<Option<FilmRow>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM video_job WHERE account_id = $1 AND {VISIBLE} AND id = $3");
        let row = self.db.one(sql, [account.uuid().into(), now.micros().into(), id.uuid().into()]).await?;
        row.as_ref().map(film_row).transpose()
    }

    /// An account's jobs, those that have gone aside.
    pub async fn films(&self, account: AccountId, page: FilmPage, now: Timestamp) -> Result<Vec<FilmRow>, StoreError> {
        let mut sql = format!("SELECT {COLUMNS} FROM video_job WHERE account_id = $1 AND {VISIBLE}");
        let mut values: Vec<Value> = vec![account.uuid().into(), now.micros().into(), i64::from(page.limit).into()];
        let (beyond, direction) = match page.order {
            FileOrder::Newest => ('<', "DESC"),
            FileOrder::Oldest => ('>', "ASC"),
        };
        if let Some(after) = page.after {
            values.push(after.uuid().into());
            sql.push_str(&format!(" AND id {beyond} $4"));
        }
        sql.push_str(&format!(" ORDER BY id {direction} LIMIT $3"));
        self.db.all(sql, values).await?.iter().map(film_row).collect()
    }

    /// How many of an account's jobs are not over.
    pub async fn open_films(&self, account: AccountId) -> Result<u64, StoreError> {
        let sql = format!("SELECT count(*) AS n FROM video_job WHERE account_id = $1 AND {OPEN}");
        let row = self.db.one(sql, [account.uuid().into()]).await?;
        row.map_or(Ok(0), |row| unsigned(&row, "video_job", "n"))
    }

    /// Stops a job that is not over, which stays to be seen until `gone_at`; of one that is, the film goes, and the job with
    /// it. Returns the job as it stood before; `None`: there is none.
    pub async fn give_up_film(
        &self,
        (account, id): (AccountId, VideoId),
        now: Timestamp,
        gone_at: Timestamp,
    ) -> Result<Option<FilmRow>, StoreError> {
        retried(Rerun::IfRolledBack, || async {
            let tx = self.db.write().await?;
            let lock = tx.dialect.for_update();
            let sql = format!("SELECT {COLUMNS} FROM video_job WHERE account_id = $1 AND {VISIBLE} AND id = $3{lock}");
            let found = tx.one(sql, [account.uuid().into(), now.micros().into(), id.uuid().into()]).await?;
            let Some(row) = found.as_ref().map(film_row).transpose()? else { return Ok(None) };
            if row.status.is_over() {
                let gone: [Value; 2] = [id.uuid().into(), now.micros().into()];
                tx.run("UPDATE video_job SET expires_at = $2 WHERE id = $1", gone).await?;
            } else {
                // The epoch goes on, so that whoever makes it is refused from now on.
                let stop = "UPDATE video_job SET status = $2, node_id = NULL, epoch = epoch + 1, blocked = NULL, \
                            finished_at = $3, expires_at = $4 WHERE id = $1";
                let values: [Value; 4] = [
                    id.uuid().into(),
                    FilmStatus::Cancelled.code().into(),
                    now.micros().into(),
                    gone_at.micros().into(),
                ];
                tx.run(stop, values).await?;
            }
            tx.commit().await?;
            Ok(Some(row))
        })
        .await
    }
}
