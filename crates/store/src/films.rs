//! Holds: jobs that make films, from the day that they are asked for to the day that they are forgotten.
//!
//! A job is one node's while its row says so: a claim raises its epoch, and what comes under an older one changes nothing.
//! The server that makes the film and its own name for the job are noted before anybody waits for it, so that the next node
//! asks the same server. Its film lies below a key of the job's, and goes before its row does.

pub(crate) mod claims;
pub(crate) mod rows;

use batchin_db::{Db, Row, Value, WriteTx, exactly};
use batchin_domain::{AccountId, Amount, FilmStatus, Frame, KeyId, NodeId, RequestId, Timestamp, VideoId};

use crate::{
    StoreError,
    stored::{stored, stored_amount, unsigned},
};

/// Films as their owners see them, asked for and given up. Held by who shows them.
#[derive(Clone)]
pub struct FilmRows {
    pub(crate) db: Db,
}

/// Films that wait, are made, or are to be forgotten. Held by who has them made.
#[derive(Clone)]
pub struct FilmClaims {
    pub(crate) db: Db,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilmOrder {
    /// Names its usage row.
    pub request: RequestId,
    /// The model as asked for.
    pub model: String,
    /// What is to be seen.
    pub prompt: String,
    /// How long it is to last.
    pub seconds: u32,
    /// Its size.
    pub frame: Frame,
}

/// Where a server makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilmPlace {
    /// The server's configured name.
    pub upstream: String,
    /// What the server calls the job.
    pub remote: String,
    /// Since when.
    pub since: Timestamp,
}

/// Why there is no film, in the words of OpenAI's errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilmError {
    /// An error code of the API, or the server's own where the request is at fault.
    pub code: String,
    /// For the owner to read.
    pub message: String,
}

/// A film that lies in our store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFilm {
    /// Its blob's key.
    pub blob: String,
    /// Its length, in bytes.
    pub bytes: u64,
    /// How long it lasts, as it was charged, in milliseconds.
    pub ms: u64,
}

/// A job as its owner sees it.
#[derive(Clone, Debug)]
pub struct FilmRow {
    /// Names it.
    pub id: VideoId,
    /// What was asked for.
    pub order: FilmOrder,
    /// How it stands.
    pub status: FilmStatus,
    /// How far the server says it is, in percent.
    pub progress: u32,
    /// What it waits for, if anything that its owner can change.
    pub blocked: Option<String>,
    /// Why there is none.
    pub error: Option<FilmError>,
    /// The film.
    pub film: Option<StoredFilm>,
    /// What was charged.
    pub cost: Amount,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it was over.
    pub finished_at: Option<Timestamp>,
    /// When it goes by itself.
    pub expires_at: Option<Timestamp>,
}

/// The end of a job whose film is there, under the claim that it was made with.
#[derive(Clone, Debug)]
pub struct FilmFinish {
    /// Which job.
    pub video: VideoId,
    /// The claim's epoch; an older one is refused.
    pub epoch: i64,
    /// Where it lies.
    pub film: StoredFilm,
    /// When it goes by itself.
    pub expires_at: Timestamp,
}

// States are written out, since a partial index is not used for a parameter.
/// A job that is not over.
pub(crate) const OPEN: &str = "status IN (0, 1)";
const _: () = assert!(FilmStatus::Queued.code() == 0 && FilmStatus::InProgress.code() == 1);
const _: () = assert!(FilmStatus::Failed.code() == 3 && FilmStatus::Cancelled.code() == 4);

const COLUMNS: &str = "id, request_id, model, prompt, seconds, width, height, status, progress, blocked, error_code, \
                       error_message, blob, bytes, delivered_ms, cost_nano, created_at, finished_at, expires_at";

fn order(row: &Row) -> Result<FilmOrder, StoreError> {
    Ok(FilmOrder {
        request: RequestId::new(row.get("request_id")?),
        model: row.get("model")?,
        prompt: row.get("prompt")?,
        seconds: number(row, "seconds")?,
        frame: Frame { width: number(row, "width")?, height: number(row, "height")? },
    })
}

fn number(row: &Row, column: &'static str) -> Result<u32, StoreError> {
    let number = unsigned(row, "video_job", column)?;
    u32::try_from(number).map_err(|_| StoreError::Corrupt { table: "video_job", column })
}

fn time(row: &Row, column: &str) -> Result<Option<Timestamp>, StoreError> {
    Ok(row.get::<Option<i64>>(column)?.map(Timestamp::from_micros))
}

fn film_row(row: &Row) -> Result<FilmRow, StoreError> {
    let code: Option<String> = row.get("error_code")?;
    let error = code.map(|code| Ok::<_, StoreError>(FilmError { code, message: row.get("error_message")? }));
    let blob: Option<String> = row.get("blob")?;
    let film = blob.map(|blob| {
        let number = |column| unsigned(row, "video_job", column);
        Ok::<_, StoreError>(StoredFilm { blob, bytes: number("bytes")?, ms: number("delivered_ms")? })
    });
    Ok(FilmRow {
        id: VideoId::new(row.get("id")?),
        order: order(row)?,
        status: stored(row, "video_job", "status")?,
        progress: number(row, "progress")?,
        blocked: row.get("blocked")?,
        error: error.transpose()?,
        film: film.transpose()?,
        cost: stored_amount(row, "video_job", "cost_nano")?,
        created_at: time(row, "created_at")?.unwrap_or(Timestamp::from_micros(0)),
        finished_at: time(row, "finished_at")?,
        expires_at: time(row, "expires_at")?,
    })
}

/// Whose job, and who pays.
fn payer(row: &Row) -> Result<(AccountId, Option<KeyId>), StoreError> {
    Ok((AccountId::new(row.get("account_id")?), row.get::<Option<_>>("key_id")?.map(KeyId::new)))
}

/// Whether the claim is current; locks it.
pub(crate) async fn is_current(tx: &WriteTx, finish: &FilmFinish) -> Result<bool, StoreError> {
    let lock = tx.dialect.for_update();
    let sql = format!("SELECT id FROM video_job WHERE id = $1 AND epoch = $2 AND {OPEN}{lock}");
    Ok(tx.one(sql, [finish.video.uuid().into(), finish.epoch.into()]).await?.is_some())
}

/// Whether this very end was written before.
pub(crate) async fn is_finished(tx: &WriteTx, finish: &FilmFinish) -> Result<bool, StoreError> {
    let values: [Value; 3] = [finish.video.uuid().into(), finish.epoch.into(), FilmStatus::Completed.code().into()];
    let sql = "SELECT id FROM video_job WHERE id = $1 AND epoch = $2 AND status = $3";
    Ok(tx.one(sql, values).await?.is_some())
}

/// Ends a job whose claim is current and locked.
pub(crate) async fn finish(tx: &WriteTx, finish: &FilmFinish, cost: Amount, now: Timestamp) -> Result<(), StoreError> {
    let touched = tx
        .run(
            "UPDATE video_job SET status = $2, progress = 100, node_id = NULL, remote = NULL, blocked = NULL, blob = $3, \
             bytes = $4, delivered_ms = $5, cost_nano = $6, finished_at = $7, expires_at = $8 WHERE id = $1",
            [
                finish.video.uuid().into(),
                FilmStatus::Completed.code().into(),
                finish.film.blob.as_str().into(),
                crate::stored::to_i64(finish.film.bytes).into(),
                crate::stored::to_i64(finish.film.ms).into(),
                cost.nanos().into(),
                now.micros().into(),
                finish.expires_at.micros().into(),
            ],
        )
        .await?;
    exactly(touched, 1, "video_job")
}

/// A node's jobs wait for the next one. Returns how many.
pub(crate) async fn take_back(tx: &WriteTx, node: NodeId) -> Result<u64, StoreError> {
    let theirs = format!("node_id = $1 AND {OPEN}");
    if tx.dialect == batchin_db::Dialect::Postgres {
        let lock = format!("SELECT count(*) FROM (SELECT 1 FROM video_job WHERE {theirs} ORDER BY id FOR UPDATE) q");
        tx.run(lock, [node.uuid().into()]).await?;
    }
    let back = format!("UPDATE video_job SET node_id = NULL, epoch = epoch + 1 WHERE {theirs}");
    tx.run(back, [node.uuid().into()]).await
}
