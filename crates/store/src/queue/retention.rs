//! Holds: forgetting ended batches' tasks after their time.
//!
//! The batch itself stays, with its counts, its cost and its times; charges and usage are never touched.

use batchin_db::{Rerun, retried};
use batchin_domain::{BatchId, Purse, Timestamp};

use crate::{Chores, StoreError, money::leases::parts};

/// The time at which a batch is to be forgotten whose tasks are being forgotten: what is left of them adds up to nothing.
const SWEEPING: i64 = 0;

impl Chores {
    /// Ended batches whose tasks have been kept long enough.
    pub async fn batches_to_sweep(&self, limit: u32, now: Timestamp) -> Result<Vec<BatchId>, StoreError> {
        let sql = "SELECT id FROM batch WHERE sweep_at IS NOT NULL AND sweep_at <= $1 ORDER BY sweep_at LIMIT $2";
        let rows = self.db.all(sql, [now.micros().into(), i64::from(limit).into()]).await?;
        rows.iter().map(|row| Ok(BatchId::new(row.get("id")?))).collect()
    }

    /// Forgets up to `limit` tasks of an ended batch; returns how many there were.
    pub async fn sweep_tasks(&self, batch: BatchId, limit: u32) -> Result<u64, StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            let swept = tx
                .run(
                    "DELETE FROM task WHERE id IN (SELECT t.id FROM task t JOIN batch b ON b.id = t.batch_id \
                     WHERE t.batch_id = $1 AND b.sweep_at IS NOT NULL ORDER BY t.idx LIMIT $2)",
                    [batch.uuid().into(), i64::from(limit).into()],
                )
                .await?;
            tx.run(
                "UPDATE batch SET sweep_at = $2 WHERE id = $1 AND sweep_at > $2",
                [batch.uuid().into(), SWEEPING.into()],
            )
            .await?;
            tx.commit().await?;
            Ok(swept)
        })
        .await
    }

    /// Nothing is left to sweep of this batch, neither tasks nor blobs.
    pub async fn swept(&self, batch: BatchId) -> Result<(), StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            let (kind, owner, win) = parts(Purse::Cap(batch));
            let gone = "DELETE FROM purse WHERE kind = $1 AND owner = $2 AND win = $3 AND leased = 0";
            tx.run(gone, [kind.into(), owner.into(), win.into()]).await?;
            tx.run("DELETE FROM batch_model WHERE batch_id = $1", [batch.uuid().into()]).await?;
            tx.run("UPDATE batch SET sweep_at = NULL WHERE id = $1", [batch.uuid().into()]).await?;
            tx.commit().await
        })
        .await
    }
}
