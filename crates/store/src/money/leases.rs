//! Holds: leasing from purses to nodes, and back.

use batchin_db::{Dialect, Rerun, WriteTx, exactly, retried};
use batchin_domain::{BatchId, KeyId, Minute, Purse, PurseKind, Quantity, escrow::grant_size};
use uuid::Uuid;

use crate::{FencedError, NodeIdentity, Purses, StoreError, fence::still, money::credit::lock_balance, stored::stored};

/// A node asks for more of one purse.
#[derive(Clone, Copy, Debug)]
pub struct LeaseAsk {
    /// The node that asks.
    pub node: NodeIdentity,
    /// What it is to be leased from.
    pub purse: Purse,
    /// What the request at hand needs, in the purse's unit.
    pub need: Quantity,
    /// What recent spending suggests, in the purse's unit.
    pub want: Quantity,
    /// Names this grant, so that one whose commit went unheard is not granted twice when asked again.
    pub grant: Uuid,
    /// Whether other nodes are to be asked for what they have free, should there be too little; asked once, their
    /// answers are waited for.
    pub recall: bool,
}

/// What the store says to a [`LeaseAsk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseOutcome {
    /// Leased; `left` is what the purse still has for others.
    Granted {
        /// How much: at least what was needed.
        quantity: Quantity,
        /// What can still be leased.
        left: Quantity,
    },
    /// The purse has less than is needed.
    Short {
        /// What could be leased.
        available: Quantity,
        /// Whether other nodes have leases that they were asked to give back and have not answered yet.
        recalling: bool,
    },
    /// The purse's owner is gone.
    Gone,
}

impl Purses {
    /// Leases at least what is needed, or says what there is. When it is short, other nodes' leases are recalled.
    pub async fn lease(&self, ask: LeaseAsk) -> Result<LeaseOutcome, FencedError> {
        let run = retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            if !still(&tx, ask.node).await? {
                return Ok(None);
            }
            let outcome = lease_in(&tx, ask).await?;
            tx.commit().await?;
            Ok(Some(outcome))
        });
        run.await.map_err(FencedError::Store)?.ok_or(FencedError::Fenced)
    }

    /// Gives back part of what a node leased and does not need; also answers a recall. Nothing is a fine answer.
    ///
    /// They are the store's from the moment of the call: on an error the caller must not spend them, since they
    /// may have been returned. At worst they stay leased until the node's next epoch.
    pub async fn release(&self, node: NodeIdentity, returns: &[(Purse, Quantity)]) -> Result<(), FencedError> {
        let run = retried(Rerun::IfRolledBack, || async {
            let tx = self.db.write().await?;
            if !still(&tx, node).await? {
                return Ok(false);
            }
            let mut returns = returns.to_vec();
            returns.sort_by_key(|(purse, _)| *purse);
            for (purse, quantity) in returns {
                release_in(&tx, node, purse, quantity).await?;
            }
            tx.commit().await?;
            Ok(true)
        });
        match run.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(FencedError::Fenced),
            Err(cause) => Err(FencedError::Store(cause)),
        }
    }

    /// Purses of which other nodes want back what this node has free.
    pub async fn recalled(&self, node: NodeIdentity) -> Result<Vec<Purse>, StoreError> {
        let rows = self
            .db
            .all(
                "SELECT kind, owner, win FROM lease WHERE node_id = $1 AND recall = $2",
                [node.id.uuid().into(), true.into()],
            )
            .await?;
        rows.iter()
            .map(|row| {
                let kind = stored(row, "lease", "kind")?;
                Ok(Purse::from_parts(kind, row.get("owner")?, row.get("win")?))
            })
            .collect()
    }

    /// Forgets the windows of minutes that are over.
    pub async fn sweep_minutes(&self, before: Minute) -> Result<u64, StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            let values = [PurseKind::Requests.code().into(), before.index().into()];
            if tx.dialect == Dialect::Postgres {
                // The purses before their leases: the order in which every verb locks.
                let lock = "SELECT count(*) FROM (SELECT 1 FROM purse WHERE kind = $1 AND win < $2 \
                        ORDER BY owner, win FOR UPDATE) q";
                tx.run(lock, values.clone()).await?;
            }
            tx.run("DELETE FROM lease WHERE kind = $1 AND win < $2", values.clone()).await?;
            let swept = tx.run("DELETE FROM purse WHERE kind = $1 AND win < $2", values).await?;
            tx.commit().await?;
            Ok(swept)
        })
        .await
    }
}

async fn lease_in(tx: &WriteTx, ask: LeaseAsk) -> Result<LeaseOutcome, StoreError> {
    let Some(available) = lock_available(tx, ask.purse).await? else { return Ok(LeaseOutcome::Gone) };
    let (kind, owner, win) = parts(ask.purse);
    let leases = tx
        .all(
            "SELECT node_id, outstanding, recall, last_grant, last_amount FROM lease \
             WHERE kind = $1 AND owner = $2 AND win = $3",
            [kind.into(), owner.into(), win.into()],
        )
        .await?;
    let mut others = 1_u32;
    let (mut recallable, mut unanswered) = (false, false);
    for row in &leases {
        if row.get::<Uuid>("node_id")? != ask.node.id.uuid() {
            others = others.saturating_add(1);
            let outstanding = row.get::<i64>("outstanding")? > 0;
            recallable |= outstanding && ask.recall;
            unanswered |= outstanding && row.get::<bool>("recall")?;
        } else if row.get::<Option<Uuid>>("last_grant")? == Some(ask.grant) {
            // This very grant was committed and its answer got lost.
            let corrupt = StoreError::Corrupt { table: "lease", column: "last_amount" };
            let quantity = Quantity::from_units(row.get("last_amount")?).ok_or(corrupt)?;
            return Ok(LeaseOutcome::Granted { quantity, left: available });
        }
    }
    if available < ask.need {
        if recallable {
            tx.run(
                "UPDATE lease SET recall = $5 WHERE kind = $1 AND owner = $2 AND win = $3 AND node_id <> $4 \
                 AND outstanding > 0",
                [kind.into(), owner.into(), win.into(), ask.node.id.uuid().into(), true.into()],
            )
            .await?;
        }
        return Ok(LeaseOutcome::Short { available, recalling: recallable || unanswered });
    }
    let quantity = grant_size(ask.need, ask.want, available, others);
    set_aside(tx, ask.purse, quantity.units()).await?;
    tx.run(
        "INSERT INTO lease (kind, owner, win, node_id, outstanding, last_grant, last_amount) \
         VALUES ($1,$2,$3,$4,$5,$6,$5) ON CONFLICT (kind, owner, win, node_id) DO UPDATE SET \
         outstanding = lease.outstanding + excluded.outstanding, last_grant = excluded.last_grant, \
         last_amount = excluded.last_amount",
        [kind.into(), owner.into(), win.into(), ask.node.id.uuid().into(), quantity.units().into(), ask.grant.into()],
    )
    .await?;
    Ok(LeaseOutcome::Granted { quantity, left: available.saturating_sub(quantity) })
}

/// Locks the purse's row, making it first where it is a window's, and says what can be leased. `None`: no owner.
pub(crate) async fn lock_available(tx: &WriteTx, purse: Purse) -> Result<Option<Quantity>, StoreError> {
    let limit = match purse {
        Purse::Balance(account) => return Ok(lock_balance(tx, account).await?.map(Quantity::from)),
        Purse::Budget(key, _) => key_limit(tx, key, "coalesce(budget_nano, 9223372036854775807)").await?,
        Purse::Requests(key, _) => key_limit(tx, key, "rate_limit_rpm").await?,
        Purse::Cap(batch) => batch_limit(tx, batch).await?,
    };
    let Some(limit) = limit else { return Ok(None) };
    let (kind, owner, win) = parts(purse);
    tx.run(
        "INSERT INTO purse (kind, owner, win) VALUES ($1,$2,$3) ON CONFLICT (kind, owner, win) DO NOTHING",
        [kind.into(), owner.into(), win.into()],
    )
    .await?;
    let sql = format!(
        "SELECT spent, leased FROM purse WHERE kind = $1 AND owner = $2 AND win = $3{}",
        tx.dialect.for_update()
    );
    let row = tx.one(sql, [kind.into(), owner.into(), win.into()]).await?;
    let row = row.ok_or(StoreError::RowCount { table: "purse", expected: 1, touched: 0 })?;
    let used = row.get::<i64>("spent")?.saturating_add(row.get::<i64>("leased")?);
    Ok(Some(Quantity::from_units(limit.saturating_sub(used)).unwrap_or(Quantity::ZERO)))
}

async fn key_limit(tx: &WriteTx, key: KeyId, column: &str) -> Result<Option<i64>, StoreError> {
    let row = tx.one(format!("SELECT {column} AS cap FROM api_key WHERE id = $1"), [key.uuid().into()]).await?;
    row.map(|row| row.get("cap")).transpose()
}

async fn batch_limit(tx: &WriteTx, batch: BatchId) -> Result<Option<i64>, StoreError> {
    let sql = "SELECT coalesce(max_cost_nano, 9223372036854775807) AS cap FROM batch WHERE id = $1";
    let row = tx.one(sql, [batch.uuid().into()]).await?;
    row.map(|row| row.get("cap")).transpose()
}

/// Moves so many units from available to leased; a negative number moves them back.
pub(crate) async fn set_aside(tx: &WriteTx, purse: Purse, units: i64) -> Result<(), StoreError> {
    let (kind, owner, win) = parts(purse);
    let touched = if matches!(purse, Purse::Balance(_)) {
        let sql = "UPDATE account SET pending_debit = pending_debit + $2 WHERE id = $1";
        tx.run(sql, [owner.into(), units.into()]).await?
    } else {
        let sql = "UPDATE purse SET leased = leased + $4 WHERE kind = $1 AND owner = $2 AND win = $3";
        tx.run(sql, [kind.into(), owner.into(), win.into(), units.into()]).await?
    };
    exactly(touched, 1, "purse")
}

async fn release_in(tx: &WriteTx, node: NodeIdentity, purse: Purse, quantity: Quantity) -> Result<(), StoreError> {
    let (kind, owner, win) = parts(purse);
    // The purse before the lease: the order in which every verb locks.
    if lock_available(tx, purse).await?.is_none() {
        return Ok(());
    }
    let touched = tx
        .run(
            "UPDATE lease SET outstanding = outstanding - $5, recall = $6 \
             WHERE kind = $1 AND owner = $2 AND win = $3 AND node_id = $4",
            [kind.into(), owner.into(), win.into(), node.id.uuid().into(), quantity.units().into(), false.into()],
        )
        .await?;
    if touched == 1 && !quantity.is_zero() {
        set_aside(tx, purse, -quantity.units()).await?;
    }
    Ok(())
}

pub(crate) const fn parts(purse: Purse) -> (i16, Uuid, i64) {
    (purse.kind().code(), purse.owner(), purse.window())
}
