//! Holds: the secrets that deliveries are signed with. They come and go sealed; the key to them is not in the database.

use batchin_db::{Rerun, Row, WriteTx, retried};
use batchin_domain::{AccountId, Timestamp};

use crate::{Outbox, StoreError};

/// An account's secret, and the one before while both count.
#[derive(Clone, Debug)]
pub struct SealedSecret {
    /// The secret in force.
    pub current: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
    /// The one before, and until when it counts.
    pub previous: Option<(Vec<u8>, Timestamp)>,
}

impl Outbox {
    /// What proves that a key is the one that this database's secrets are sealed with: what the first to ask brought.
    pub async fn webhook_key_proof(&self, mine: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        const READ: &str = "SELECT sealed FROM webhook_key";
        if let Some(row) = self.db.one(READ, []).await? {
            return row.get("sealed");
        }
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            let insert = "INSERT INTO webhook_key (one, sealed) VALUES (1, $1) ON CONFLICT (one) DO NOTHING";
            tx.run(insert, [mine.clone().into()]).await?;
            let row = tx.one(READ, []).await?;
            let row = row.ok_or(StoreError::RowCount { table: "webhook_key", expected: 1, touched: 0 })?;
            tx.commit().await?;
            row.get("sealed")
        })
        .await
    }

    /// The proof that is there, if any key has sealed anything yet.
    pub async fn known_webhook_key_proof(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let row = self.db.one("SELECT sealed FROM webhook_key", []).await?;
        row.map(|row| row.get("sealed")).transpose()
    }

    /// Forgets every secret and the proof of the key that sealed them, for when that key is lost. Returns how many
    /// accounts had one.
    pub async fn forget_webhook_secrets(&self) -> Result<u64, StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            let forgotten = tx.run("DELETE FROM webhook_secret", []).await?;
            tx.run("DELETE FROM webhook_key", []).await?;
            tx.commit().await?;
            Ok(forgotten)
        })
        .await
    }

    /// An account's secret, if it has one.
    pub async fn webhook_secret(&self, account: AccountId) -> Result<Option<SealedSecret>, StoreError> {
        let row = self.db.one(SELECT, [account.uuid().into()]).await?;
        row.as_ref().map(sealed_secret).transpose()
    }

    /// An account's secret; `fresh` becomes it when there is none.
    pub async fn ensure_webhook_secret(
        &self,
        account: AccountId,
        fresh: Vec<u8>,
        now: Timestamp,
    ) -> Result<SealedSecret, StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            tx.run(
                "INSERT INTO webhook_secret (account_id, sealed, created_at) VALUES ($1,$2,$3) \
                 ON CONFLICT (account_id) DO NOTHING",
                [account.uuid().into(), fresh.clone().into(), now.micros().into()],
            )
            .await?;
            let secret = one_secret(&tx, account).await?;
            tx.commit().await?;
            Ok(secret)
        })
        .await
    }

    /// Puts `fresh` in place of an account's secret, which counts beside it until a time. URLs that were switched off
    /// are on again for what happens from now on.
    pub async fn rotate_webhook_secret(
        &self,
        account: AccountId,
        fresh: Vec<u8>,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            // The same secret again is the same call, run again.
            tx.run(
                "INSERT INTO webhook_secret (account_id, sealed, created_at) VALUES ($1,$2,$3) \
                 ON CONFLICT (account_id) DO UPDATE SET previous = webhook_secret.sealed, previous_until = $4, \
                 sealed = excluded.sealed, created_at = excluded.created_at \
                 WHERE webhook_secret.sealed <> excluded.sealed",
                [account.uuid().into(), fresh.clone().into(), now.micros().into(), until.micros().into()],
            )
            .await?;
            tx.run("DELETE FROM webhook_off WHERE account_id = $1", [account.uuid().into()]).await?;
            tx.commit().await
        })
        .await
    }
}

const SELECT: &str = "SELECT sealed, created_at, previous, previous_until FROM webhook_secret WHERE account_id = $1";

async fn one_secret(tx: &WriteTx, account: AccountId) -> Result<SealedSecret, StoreError> {
    let row = tx.one(SELECT, [account.uuid().into()]).await?;
    sealed_secret(&row.ok_or(StoreError::RowCount { table: "webhook_secret", expected: 1, touched: 0 })?)
}

fn sealed_secret(row: &Row) -> Result<SealedSecret, StoreError> {
    let previous: Option<Vec<u8>> = row.get("previous")?;
    let until: Option<i64> = row.get("previous_until")?;
    Ok(SealedSecret {
        current: row.get("sealed")?,
        created_at: Timestamp::from_micros(row.get("created_at")?),
        previous: previous.zip(until.map(Timestamp::from_micros)),
    })
}
