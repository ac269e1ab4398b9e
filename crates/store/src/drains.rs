//! Holds: which model servers get nothing new, and what each node has still under way at them.
//!
//! Known by their configured names: settings and secrets of servers are not kept here.

use batchin_db::{Db, Rerun, Row, retried};
use batchin_domain::{AccountId, NodeId, Timestamp};

use crate::{
    StoreError,
    films::OPEN,
    stored::{to_i64, unsigned},
};

/// Which model servers get nothing new. Held by who sends them calls, and by the command that tells it.
#[derive(Clone)]
pub struct Drains {
    pub(crate) db: Db,
}

/// A model server that gets nothing new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Its configured name.
    pub upstream: String,
    /// Since when. Tells this drain from an earlier one of the same server.
    pub since: Timestamp,
    /// The email of who said so; `None`: the command line, or somebody who is not there any more.
    pub by: Option<String>,
    /// Calls that the asking node has noted as still under way.
    pub noted: Option<u64>,
    /// The same of all other nodes that are alive; `None` until each of them has noted some number, and so sends nothing
    /// new.
    pub elsewhere: Option<u64>,
}

impl Drains {
    /// Has a server get nothing new, on all nodes. One that gets nothing already keeps who said so, and since when.
    pub async fn drain(&self, upstream: &str, by: Option<AccountId>, now: Timestamp) -> Result<(), StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            tx.run(
                "INSERT INTO drained_upstream (name, drained_by, drained_at) VALUES ($1,$2,$3) \
                 ON CONFLICT (name) DO NOTHING",
                [upstream.into(), by.map(AccountId::uuid).into(), now.micros().into()],
            )
            .await?;
            tx.commit().await
        })
        .await
    }

    /// Has it get calls again; one that gets them is no error.
    pub async fn resume(&self, upstream: &str) -> Result<(), StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            tx.run("DELETE FROM drained_upstream WHERE name = $1", [upstream.into()]).await?;
            // A node that has not heard of it yet may note once more; that note is of a drain that is over.
            tx.run("DELETE FROM drained_calls WHERE name = $1", [upstream.into()]).await?;
            tx.commit().await
        })
        .await
    }

    /// All of them by name, as this node asks.
    pub async fn drains(&self, node: NodeId) -> Result<Vec<Drain>, StoreError> {
        const NOTED: &str = "c.name = d.name AND c.drained_at = d.drained_at";
        let sql = format!(
            "SELECT d.name, d.drained_at, u.email, \
             (SELECT c.outstanding FROM drained_calls c WHERE {NOTED} AND c.node_id = $1) AS noted, \
             (SELECT CAST(coalesce(sum(c.outstanding), 0) AS bigint) FROM drained_calls c \
              JOIN node n ON n.id = c.node_id WHERE {NOTED} AND n.alive = $2 AND n.id <> $1) AS elsewhere, \
             (SELECT count(*) FROM node n WHERE n.alive = $2 AND n.id <> $1 AND NOT EXISTS \
              (SELECT 1 FROM drained_calls c WHERE {NOTED} AND c.node_id = n.id)) AS silent \
             FROM drained_upstream d LEFT JOIN app_user u ON u.id = d.drained_by ORDER BY d.name"
        );
        self.db.all(sql, [node.uuid().into(), true.into()]).await?.iter().map(drain).collect()
    }

    /// Notes how many calls a node has still under way there, after it has stopped to send new ones for this drain.
    pub async fn note_outstanding(&self, node: NodeId, drain: &Drain, outstanding: u64) -> Result<(), StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            tx.run(
                "INSERT INTO drained_calls (name, node_id, drained_at, outstanding) VALUES ($1,$2,$3,$4) \
                 ON CONFLICT (name, node_id) DO UPDATE SET drained_at = excluded.drained_at, \
                 outstanding = excluded.outstanding",
                [
                    drain.upstream.as_str().into(),
                    node.uuid().into(),
                    drain.since.micros().into(),
                    to_i64(outstanding).into(),
                ],
            )
            .await?;
            tx.commit().await
        })
        .await
    }

    /// How many films each server makes, for whichever node; servers that make none are left out.
    pub async fn films_made(&self) -> Result<Vec<(String, u64)>, StoreError> {
        let sql = format!(
            "SELECT upstream, count(*) AS films FROM video_job WHERE {OPEN} AND upstream IS NOT NULL GROUP BY upstream"
        );
        let rows = self.db.all(sql, []).await?;
        rows.iter().map(|row| Ok((row.get("upstream")?, unsigned(row, "video_job", "films")?))).collect()
    }
}

fn drain(row: &Row) -> Result<Drain, StoreError> {
    let count = |column| unsigned(row, "drained_calls", column);
    let noted: Option<i64> = row.get("noted")?;
    Ok(Drain {
        upstream: row.get("name")?,
        since: Timestamp::from_micros(row.get("drained_at")?),
        by: row.get("email")?,
        noted: noted.map(|_| count("noted")).transpose()?,
        elsewhere: if count("silent")? == 0 { Some(count("elsewhere")?) } else { None },
    })
}
