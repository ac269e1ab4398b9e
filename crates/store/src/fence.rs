//! Holds: a node as one life of it, and what refuses those that are over.

use batchin_db::WriteTx;
use batchin_domain::NodeId;

use crate::StoreError;

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

/// Refuses to go on if the epoch is over; holds off whoever wants to end it until this transaction is done.
pub(crate) async fn still(tx: &WriteTx, node: NodeIdentity) -> Result<bool, StoreError> {
    let sql = format!("SELECT epoch FROM node WHERE id = $1 AND alive = $2{}", tx.dialect.for_key_share());
    let row = tx.one(sql, [node.id.uuid().into(), true.into()]).await?;
    Ok(row.map(|row| row.get::<i64>("epoch")).transpose()? == Some(node.epoch))
}
