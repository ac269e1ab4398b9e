//! Holds: the servers that spend money and run tasks, and the end of those that stay away.
//!
//! A node renews one lease for everything that it has: the money that it set aside and the tasks that it claimed are
//! its own for as long as its row says so. Joining again under the same identity, or being given up, raises the epoch;
//! whatever still carries the old one is refused from then on.

use std::time::Duration;

use batchin_db::{Db, Dialect, Rerun, Row, WriteTx, exactly, retried};
use batchin_domain::{NodeId, Purse, PurseKind, TaskStatus, Timestamp, escrow::may_reclaim};

use crate::{
    FencedError, NodeIdentity, StoreError,
    money::leases::{lock_available, parts, set_aside},
    stored::stored,
};

/// The nodes on one database, and their leases. Held by the keeper of this one's.
#[derive(Clone)]
pub struct Nodes {
    pub(crate) db: Db,
}

/// What was taken back from nodes that stayed away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Nodes given up.
    pub nodes: u64,
    /// Tasks that wait again.
    pub tasks: u64,
}

impl Nodes {
    /// Starts a new epoch of a node and takes back what its earlier epochs still had.
    pub async fn join(&self, id: NodeId, now: Timestamp, lease: Duration) -> Result<NodeIdentity, StoreError> {
        self.list_models().await?;
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            tx.run(
                "INSERT INTO node (id, epoch, expires_at, alive) VALUES ($1, 0, 0, $2) ON CONFLICT (id) DO NOTHING",
                [id.uuid().into(), false.into()],
            )
            .await?;
            lock(&tx, id).await?;
            let expires_at = format!("{} + $3", self.db.dialect().shared_now(2));
            let row = tx
                .one(
                    format!(
                        "UPDATE node SET epoch = epoch + 1, expires_at = {expires_at}, alive = $4 WHERE id = $1 \
                         RETURNING epoch"
                    ),
                    [id.uuid().into(), now.micros().into(), micros(lease).into(), true.into()],
                )
                .await?;
            let row = row.ok_or(StoreError::RowCount { table: "node", expected: 1, touched: 0 })?;
            let epoch = row.get("epoch")?;
            take_back(&tx, id).await?;
            tx.commit().await?;
            Ok(NodeIdentity { id, epoch })
        })
        .await
    }

    /// A node of an earlier version that still takes batches in does not note which models they have tasks for; nobody
    /// would find these.
    async fn list_models(&self) -> Result<(), StoreError> {
        let unlisted = "b.finished_at IS NULL AND b.status IN (0, 1) \
                        AND NOT EXISTS (SELECT 1 FROM batch_model m WHERE m.batch_id = b.id)";
        // None, nearly always: then nothing is written. Those whose file is still read have no tasks yet.
        let found = format!("SELECT b.id FROM batch b WHERE {unlisted} AND b.loaded > 0 LIMIT 1");
        if self.db.one(found, []).await?.is_none() {
            return Ok(());
        }
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            // CROSS: SQLite begins with the few batches.
            let sql = format!(
                "INSERT INTO batch_model (batch_id, model) SELECT DISTINCT t.batch_id, t.model \
                 FROM batch b CROSS JOIN task t WHERE t.batch_id = b.id AND {unlisted} AND t.state IN (0, 1) \
                 ON CONFLICT DO NOTHING"
            );
            tx.run(sql, []).await?;
            tx.commit().await
        })
        .await
    }

    /// Extends the node's lease. The node must have noted its own clock *before* it asks.
    pub async fn renew(&self, node: NodeIdentity, now: Timestamp, lease: Duration) -> Result<(), FencedError> {
        let run = retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            let expires_at = format!("{} + $4", self.db.dialect().shared_now(3));
            let touched = tx
                .run(
                    format!("UPDATE node SET expires_at = {expires_at} WHERE id = $1 AND epoch = $2 AND alive = $5"),
                    [node.id.uuid().into(), node.epoch.into(), now.micros().into(), micros(lease).into(), true.into()],
                )
                .await?;
            tx.commit().await?;
            Ok(touched)
        });
        match run.await {
            Ok(1) => Ok(()),
            Ok(_) => Err(FencedError::Fenced),
            Err(cause) => Err(FencedError::Store(cause)),
        }
    }

    /// Ends the node's epoch in good order and gives back all that it has.
    pub async fn leave(&self, node: NodeIdentity) -> Result<(), StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            lock(&tx, node.id).await?;
            let ended = tx
                .run(
                    "UPDATE node SET alive = $3, epoch = epoch + 1 WHERE id = $1 AND epoch = $2",
                    [node.id.uuid().into(), node.epoch.into(), false.into()],
                )
                .await?;
            if ended == 1 {
                take_back(&tx, node.id).await?;
            }
            tx.commit().await
        })
        .await
    }

    /// Gives up nodes whose lease ended longer than `grace` ago and takes back what they had.
    pub async fn reclaim(&self, now: Timestamp, grace: Duration) -> Result<Reclaimed, StoreError> {
        let mut reclaimed = Reclaimed::default();
        let alive = self.db.all(self.leases_sql(), [now.micros().into(), true.into()]).await?;
        for row in &alive {
            if !is_overdue(row, grace)? {
                continue;
            }
            let id = NodeId::new(row.get("id")?);
            // One transaction each: purses are locked in order, and two nodes' together would not be.
            let tasks = retried(Rerun::Harmless, || self.give_up(id, now, grace)).await?;
            batchin_faults::point("node.given_up");
            reclaimed.nodes += u64::from(tasks.is_some());
            reclaimed.tasks += tasks.unwrap_or(0);
        }
        Ok(reclaimed)
    }

    /// Nodes that are alive, when their leases end, and the present by the same clock.
    fn leases_sql(&self) -> String {
        format!("SELECT id, expires_at, {} AS present FROM node WHERE alive = $2", self.db.dialect().shared_now(1))
    }

    /// Ends a node's epoch if it is still overdue; returns how many tasks wait again.
    async fn give_up(&self, id: NodeId, now: Timestamp, grace: Duration) -> Result<Option<u64>, StoreError> {
        let tx = self.db.write().await?;
        let one = format!("{} AND id = $3{}", self.leases_sql(), tx.dialect.skip_locked());
        match tx.one(one, [now.micros().into(), true.into(), id.uuid().into()]).await? {
            Some(row) if is_overdue(&row, grace)? => {}
            _ => return Ok(None),
        }
        let ended = "UPDATE node SET alive = $2, epoch = epoch + 1 WHERE id = $1";
        exactly(tx.run(ended, [id.uuid().into(), false.into()]).await?, 1, "node")?;
        let tasks = take_back(&tx, id).await?;
        tx.commit().await?;
        Ok(Some(tasks))
    }

    /// How many nodes are alive; at least one.
    pub async fn live_nodes(&self) -> Result<u32, StoreError> {
        let row = self.db.one("SELECT count(*) AS n FROM node WHERE alive = $1", [true.into()]).await?;
        let count: i64 = row.map_or(Ok(1), |row: Row| row.get("n"))?;
        Ok(u32::try_from(count.max(1)).unwrap_or(u32::MAX))
    }
}

fn is_overdue(row: &Row, grace: Duration) -> Result<bool, StoreError> {
    let at = |column| row.get(column).map(Timestamp::from_micros);
    Ok(may_reclaim(at("expires_at")?, at("present")?, grace))
}

/// Waits for every transaction that relies on the node's epoch and holds off new ones, so that it can be ended.
async fn lock(tx: &WriteTx, id: NodeId) -> Result<(), StoreError> {
    let sql = format!("SELECT epoch FROM node WHERE id = $1{}", tx.dialect.for_update());
    tx.one(sql, [id.uuid().into()]).await?;
    Ok(())
}

/// Returns a node's tasks to the queue and its leases to their purses. Returns how many tasks wait again.
async fn take_back(tx: &WriteTx, node: NodeId) -> Result<u64, StoreError> {
    // Written out, since a partial index is not used for a parameter.
    let running = format!("node_id = $1 AND state = {}", TaskStatus::Running.code());
    if tx.dialect == Dialect::Postgres {
        let lock = format!("SELECT count(*) FROM (SELECT 1 FROM task WHERE {running} ORDER BY id FOR UPDATE) q");
        tx.run(lock, [node.uuid().into()]).await?;
    }
    let tasks = tx
        .run(
            format!("UPDATE task SET state = $2, node_id = NULL, epoch = epoch + 1 WHERE {running}"),
            [node.uuid().into(), TaskStatus::Pending.code().into()],
        )
        .await?;
    crate::films::take_back(tx, node).await?;
    tx.run("UPDATE batch SET steward = NULL WHERE chore <> 0 AND steward = $1", [node.uuid().into()]).await?;
    crate::outbox::deliveries::take_back(tx, node).await?;
    let leases =
        tx.all("SELECT kind, owner, win FROM lease WHERE node_id = $1 ORDER BY kind, owner, win", [node.uuid().into()]);
    for row in leases.await? {
        let kind = stored(&row, "lease", "kind")?;
        let purse = Purse::from_parts(kind, row.get("owner")?, row.get("win")?);
        // The purse before the lease: the order in which every verb locks.
        lock_available(tx, purse).await?;
        let (kind_code, owner, win) = parts(purse);
        let gone = tx
            .one(
                "DELETE FROM lease WHERE kind = $1 AND owner = $2 AND win = $3 AND node_id = $4 RETURNING outstanding",
                [kind_code.into(), owner.into(), win.into(), node.uuid().into()],
            )
            .await?;
        let outstanding: i64 = gone.map(|row| row.get("outstanding")).transpose()?.unwrap_or(0);
        // Nobody knows how many of a dead node's requests were made, so within their minute all count as made.
        if outstanding > 0 && kind != PurseKind::Requests {
            set_aside(tx, purse, -outstanding).await?;
        }
    }
    Ok(tasks)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
