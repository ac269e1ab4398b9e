//! Holds: what wakes batches that wait for money. Whoever brings some, from whichever part, does it after its commit.

use batchin_db::{Db, Rerun, Row, Value, WriteTx, retried};
use batchin_domain::{AccountId, BatchId, KeyId};

use crate::StoreError;

/// What a batch says while its account's balance does not cover its next task.
pub const WAITS_FOR_BALANCE: &str = "payment_required";
/// What a batch says while its key's budget of the month does not cover its next task.
pub const WAITS_FOR_BUDGET: &str = "budget_used_up";

/// Whose `blocked_until` is no more than this has been woken: it is no time then but a place in line. As a time it
/// would be eleven days after 1970.
pub(crate) const WOKEN: i64 = 1_000_000_000_000;

/// Batches of `$1` that wait for `$2`, of key `$3` if it is given.
pub(crate) const WAITING: &str = "account_id = $1 AND finished_at IS NULL AND status IN (0, 1) AND blocked = $2 \
     AND ($3 IS NULL OR key_id = $3)";

/// A batch that waits for money.
pub(crate) struct InLine {
    pub(crate) id: uuid::Uuid,
    /// When it is asked, or its place among the woken.
    pub(crate) until: i64,
}

/// Has the batches of an account, or of one of its keys, asked again that wait for this reason: who waits for longest
/// first, and behind those that were woken before.
pub(crate) async fn wake(db: &Db, account: AccountId, reason: &str, key: Option<KeyId>) -> Result<(), StoreError> {
    let values = || [account.uuid().into(), reason.into(), key.map(KeyId::uuid).into()];
    // Nobody waits, nearly always: then nothing is written.
    let asleep = format!("SELECT id FROM batch WHERE {WAITING} AND blocked_until > {WOKEN} LIMIT 1");
    let waiting = db.one(asleep, values());
    if waiting.await?.is_none() {
        return Ok(());
    }
    retried(Rerun::Harmless, || async {
        let tx = db.write().await?;
        let line = lock_line(&tx, (account, reason, key), None).await?;
        let (woken, asleep): (Vec<_>, Vec<_>) = line.iter().partition(|one| one.until <= WOKEN);
        let mut place = woken.last().map_or(0, |last| last.until.saturating_add(1));
        for one in asleep {
            put(&tx, one.id, place).await?;
            place = place.saturating_add(1).min(WOKEN);
        }
        tx.commit().await
    })
    .await
}

/// Who waits, and `own` whether it does or not, locked; who is asked first comes first.
pub(crate) async fn lock_line(
    tx: &WriteTx,
    (account, reason, key): (AccountId, &str, Option<KeyId>),
    own: Option<BatchId>,
) -> Result<Vec<InLine>, StoreError> {
    let values: [Value; 4] = [
        account.uuid().into(),
        reason.into(),
        key.map(KeyId::uuid).into(),
        // Ids have a version, so that this is nobody's.
        own.map_or_else(uuid::Uuid::nil, BatchId::uuid).into(),
    ];
    // Every transaction locks rows in one order.
    let sql = format!(
        "SELECT id, blocked_until FROM batch WHERE id = $4 OR ({WAITING}) ORDER BY id{}",
        tx.dialect.for_update()
    );
    let one = |row: &Row| Ok(InLine { id: row.get("id")?, until: row.get("blocked_until")? });
    let mut line = tx.all(sql, values).await?.iter().map(one).collect::<Result<Vec<_>, StoreError>>()?;
    line.sort_by_key(|one| one.until);
    Ok(line)
}

pub(crate) async fn put(tx: &WriteTx, id: uuid::Uuid, until: i64) -> Result<(), StoreError> {
    tx.run("UPDATE batch SET blocked_until = $2 WHERE id = $1", [id.into(), until.into()]).await?;
    Ok(())
}
