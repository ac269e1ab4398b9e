//! Holds: the servers that spend money and run tasks, and the end of those that stay away.
//!
//! A node renews one lease for everything that it has: the money that it set aside and the tasks that it claimed are
//! its own for as long as its row says so. Joining again under the same identity, or being given up, raises the epoch;
//! whatever still carries the old one is refused from then on.

use std::time::Duration;

use batchin_domain::{NodeId, Purse, PurseKind, TaskStatus, Timestamp};
use sea_orm::QueryResult;

use crate::{
    Store, StoreError,
    connect::WriteTx,
    leases::{lock_available, parts, set_aside},
};

/// A node as one life of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    /// The same over restarts.
    pub id: NodeId,
    /// Grows with every start.
    pub epoch: i64,
}

/// The node's epoch is over: another process took its identity, or it stayed away too long.
#[derive(Debug, thiserror::Error)]
pub enum FencedError {
    /// A newer epoch is in force.
    #[error("this node's epoch has ended")]
    Fenced,
    /// The store failed.
    #[error("the node's lease could not be renewed")]
    Store(#[source] StoreError),
}

/// What was taken back from nodes that stayed away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Nodes given up.
    pub nodes: u64,
    /// Tasks that wait again.
    pub tasks: u64,
}

impl Store {
    /// Starts a new epoch of a node and takes back what its earlier epochs still had.
    pub async fn join(&self, id: NodeId, now: Timestamp, lease: Duration) -> Result<NodeIdentity, StoreError> {
        let tx = self.write().await?;
        let expires_at = format!("{} + $3", self.dialect.shared_now(2));
        tx.run(
            format!(
                "INSERT INTO node (id, epoch, expires_at, alive) VALUES ($1, 1, {expires_at}, $4) \
                 ON CONFLICT (id) DO UPDATE SET epoch = node.epoch + 1, expires_at = excluded.expires_at, alive = $4"
            ),
            [id.uuid().into(), now.micros().into(), micros(lease).into(), true.into()],
        )
        .await?;
        let row = tx.one("SELECT epoch FROM node WHERE id = $1", [id.uuid().into()]).await?;
        let epoch = row.ok_or(StoreError::RowCount { table: "node", expected: 1, touched: 0 })?.try_get("", "epoch")?;
        take_back(&tx, id).await?;
        tx.commit().await?;
        Ok(NodeIdentity { id, epoch })
    }

    /// Extends the node's lease. The node must have noted its own clock *before* it asks.
    pub async fn renew(&self, node: NodeIdentity, now: Timestamp, lease: Duration) -> Result<(), FencedError> {
        let run = async {
            let tx = self.write().await?;
            let expires_at = format!("{} + $4", self.dialect.shared_now(3));
            let touched = tx
                .run(
                    format!("UPDATE node SET expires_at = {expires_at} WHERE id = $1 AND epoch = $2 AND alive = $5"),
                    [node.id.uuid().into(), node.epoch.into(), now.micros().into(), micros(lease).into(), true.into()],
                )
                .await?;
            tx.commit().await?;
            Ok(touched)
        };
        match run.await {
            Ok(1) => Ok(()),
            Ok(_) => Err(FencedError::Fenced),
            Err(cause) => Err(FencedError::Store(cause)),
        }
    }

    /// Ends the node's epoch in good order and gives back all that it has.
    pub async fn leave(&self, node: NodeIdentity) -> Result<(), StoreError> {
        let tx = self.write().await?;
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
    }

    /// Gives up nodes whose lease ended longer than `grace` ago and takes back what they had.
    pub async fn reclaim(&self, now: Timestamp, grace: Duration) -> Result<Reclaimed, StoreError> {
        let overdue =
            format!("SELECT id FROM node WHERE alive = $1 AND expires_at + $2 <= {}", self.dialect.shared_now(3));
        let values = [true.into(), micros(grace).into(), now.micros().into()];
        if self.all(overdue.clone(), values.clone()).await?.is_empty() {
            return Ok(Reclaimed::default());
        }
        let tx = self.write().await?;
        let rows = tx.all(format!("{overdue}{}", self.dialect.skip_locked()), values).await?;
        let mut reclaimed = Reclaimed::default();
        for row in &rows {
            let id = NodeId::new(row.try_get("", "id")?);
            tx.run("UPDATE node SET alive = $2, epoch = epoch + 1 WHERE id = $1", [id.uuid().into(), false.into()])
                .await?;
            reclaimed.nodes += 1;
            reclaimed.tasks += take_back(&tx, id).await?;
        }
        tx.commit().await?;
        Ok(reclaimed)
    }

    /// How many nodes are alive; at least one.
    pub async fn live_nodes(&self) -> Result<u32, StoreError> {
        let row = self.one("SELECT count(*) AS n FROM node WHERE alive = $1", [true.into()]).await?;
        let count: i64 = row.map_or(Ok(1), |row: QueryResult| row.try_get("", "n"))?;
        Ok(u32::try_from(count.max(1)).unwrap_or(u32::MAX))
    }
}

/// Refuses to go on if the epoch is over; holds off whoever wants to end it until this transaction is done.
pub(crate) async fn still(tx: &WriteTx<'_>, node: NodeIdentity) -> Result<bool, StoreError> {
    let sql = format!("SELECT epoch FROM node WHERE id = $1 AND alive = $2{}", tx.dialect.for_share());
    let row = tx.one(sql, [node.id.uuid().into(), true.into()]).await?;
    Ok(row.map(|row| row.try_get::<i64>("", "epoch")).transpose()? == Some(node.epoch))
}

/// Returns a node's leases to their purses and its tasks to the queue. Returns how many tasks wait again.
async fn take_back(tx: &WriteTx<'_>, node: NodeId) -> Result<u64, StoreError> {
    let leases =
        tx.all("SELECT kind, owner, win FROM lease WHERE node_id = $1 ORDER BY kind, owner, win", [node.uuid().into()]);
    for row in leases.await? {
        let kind = PurseKind::from_code(row.try_get("", "kind")?)
            .ok_or(StoreError::Corrupt { table: "lease", column: "kind" })?;
        let purse = Purse::from_parts(kind, row.try_get("", "owner")?, row.try_get("", "win")?);
        // The purse before the lease: the order in which every verb locks.
        lock_available(tx, purse).await?;
        let (kind_code, owner, win) = parts(purse);
        let gone = tx
            .one(
                "DELETE FROM lease WHERE kind = $1 AND owner = $2 AND win = $3 AND node_id = $4 RETURNING outstanding",
                [kind_code.into(), owner.into(), win.into(), node.uuid().into()],
            )
            .await?;
        let outstanding: i64 = gone.map(|row| row.try_get("", "outstanding")).transpose()?.unwrap_or(0);
        // Nobody knows how many of a dead node's requests were made, so within their minute all count as made.
        if outstanding > 0 && kind != PurseKind::Requests {
            set_aside(tx, purse, -outstanding).await?;
        }
    }
    tx.run(
        "UPDATE task SET state = $2, node_id = NULL, epoch = epoch + 1 WHERE node_id = $1 AND state = $3",
        [node.uuid().into(), TaskStatus::Pending.code().into(), TaskStatus::Running.code().into()],
    )
    .await
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
