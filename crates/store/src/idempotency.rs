//! Holds: answers to requests that carried an Idempotency-Key, so that trying again gives the first answer.

use std::time::Duration;

use batchin_domain::{AccountId, Timestamp};

use crate::{NodeIdentity, Store, StoreError, StoredAnswer, connect::WriteTx};

/// What an Idempotency-Key is unique in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyScope {
    /// Whose request.
    pub account: AccountId,
    /// The header's value.
    pub key: String,
}

/// What became of beginning a request under an Idempotency-Key.
#[derive(Clone, Debug)]
pub enum Begun {
    /// It is ours to carry out.
    First,
    /// Another one is carrying it out now.
    Running,
    /// It was carried out; this was the answer.
    Done(StoredAnswer),
    /// The key was used for something else.
    Mismatch,
}

impl Store {
    /// Begins a request, or says what is known of it. What a node began whose epoch is over may be begun again.
    pub async fn begin_idempotent(
        &self,
        scope: &IdempotencyScope,
        route: &str,
        fingerprint: [u8; 32],
        node: NodeIdentity,
        now: Timestamp,
    ) -> Result<Begun, StoreError> {
        let tx = self.write().await?;
        let inserted = tx
            .run(
                "INSERT INTO idempotency (account_id, idem_key, route, fingerprint, node_id, node_epoch, created_at) \
                 VALUES ($1,$2,$3,$4,$5,$6,$7) ON CONFLICT (account_id, idem_key) DO NOTHING",
                [
                    scope.account.uuid().into(),
                    scope.key.as_str().into(),
                    route.into(),
                    fingerprint.to_vec().into(),
                    node.id.uuid().into(),
                    node.epoch.into(),
                    now.micros().into(),
                ],
            )
            .await?;
        if inserted == 1 {
            tx.commit().await?;
            return Ok(Begun::First);
        }
        let Some(row) = known(&tx, scope).await? else { return Ok(Begun::Running) };
        if row.route != route || row.fingerprint != fingerprint {
            return Ok(Begun::Mismatch);
        }
        if let Some(answer) = row.answer {
            return Ok(Begun::Done(answer));
        }
        if row.owner_lives {
            return Ok(Begun::Running);
        }
        tx.run(
            "UPDATE idempotency SET node_id = $3, node_epoch = $4, created_at = $5 \
             WHERE account_id = $1 AND idem_key = $2",
            [
                scope.account.uuid().into(),
                scope.key.as_str().into(),
                node.id.uuid().into(),
                node.epoch.into(),
                now.micros().into(),
            ],
        )
        .await?;
        tx.commit().await?;
        Ok(Begun::First)
    }

    /// Stores the answer of a request that cost nothing.
    pub async fn remember_answer(&self, scope: &IdempotencyScope, answer: &StoredAnswer) -> Result<(), StoreError> {
        let tx = self.write().await?;
        remember(&tx, scope, answer).await?;
        tx.commit().await
    }

    /// Forgets a request that did nothing, so that trying again tries again.
    pub async fn forget_idempotent(&self, scope: &IdempotencyScope) -> Result<(), StoreError> {
        let tx = self.write().await?;
        tx.run(
            "DELETE FROM idempotency WHERE account_id = $1 AND idem_key = $2 AND status IS NULL",
            [scope.account.uuid().into(), scope.key.as_str().into()],
        )
        .await?;
        tx.commit().await
    }

    /// Forgets answers older than `age`.
    pub async fn sweep_idempotent(&self, now: Timestamp, age: Duration) -> Result<u64, StoreError> {
        let before = now.micros().saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX));
        let tx = self.write().await?;
        let swept = tx.run("DELETE FROM idempotency WHERE created_at < $1", [before.into()]).await?;
        tx.commit().await?;
        Ok(swept)
    }
}

pub(crate) async fn remember(
    tx: &WriteTx<'_>,
    scope: &IdempotencyScope,
    answer: &StoredAnswer,
) -> Result<(), StoreError> {
    tx.run(
        "UPDATE idempotency SET status = $3, content_type = $4, body = $5 \
         WHERE account_id = $1 AND idem_key = $2 AND status IS NULL",
        [
            scope.account.uuid().into(),
            scope.key.as_str().into(),
            i32::from(answer.status).into(),
            answer.content_type.as_str().into(),
            answer.body.clone().into(),
        ],
    )
    .await?;
    Ok(())
}

struct Known {
    route: String,
    fingerprint: Vec<u8>,
    answer: Option<StoredAnswer>,
    owner_lives: bool,
}

async fn known(tx: &WriteTx<'_>, scope: &IdempotencyScope) -> Result<Option<Known>, StoreError> {
    let row = tx
        .one(
            "SELECT i.route, i.fingerprint, i.status, i.content_type, i.body, i.node_epoch, n.epoch, n.alive \
             FROM idempotency i LEFT JOIN node n ON n.id = i.node_id WHERE i.account_id = $1 AND i.idem_key = $2",
            [scope.account.uuid().into(), scope.key.as_str().into()],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let answer = match row.try_get::<Option<i32>>("", "status")? {
        None => None,
        Some(status) => Some(StoredAnswer {
            status: u16::try_from(status)
                .map_err(|_| StoreError::Corrupt { table: "idempotency", column: "status" })?,
            content_type: row.try_get("", "content_type")?,
            body: row.try_get("", "body")?,
        }),
    };
    let epoch: Option<i64> = row.try_get("", "epoch")?;
    let alive: Option<bool> = row.try_get("", "alive")?;
    Ok(Some(Known {
        route: row.try_get("", "route")?,
        fingerprint: row.try_get("", "fingerprint")?,
        answer,
        owner_lives: alive == Some(true) && epoch == Some(row.try_get("", "node_epoch")?),
    }))
}
