//! Holds: answers to requests that carried an Idempotency-Key, so that trying again gives the first answer.

use std::time::Duration;

use batchin_db::{Db, Rerun, WriteTx, retried};
use batchin_domain::{AccountId, NodeId, Timestamp};

use crate::{Answers, NodeIdentity, StoreError};

/// What an Idempotency-Key is unique in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyScope {
    /// Whose request.
    pub account: AccountId,
    /// The header's value.
    pub key: String,
}

/// A first answer, kept so that it can be given again.
#[derive(Clone, Debug)]
pub struct StoredAnswer {
    /// HTTP status.
    pub status: u16,
    /// `content-type`.
    pub content_type: String,
    /// The body; `None` if it was too large to keep.
    pub body: Option<Vec<u8>>,
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

impl Answers {
    /// Begins a request, or says what is known of it. What a node began whose epoch is over may be begun again.
    #[expect(clippy::too_many_arguments, reason = "what is asked, by whom and when: each a type of its own")]
    pub async fn begin_idempotent(
        &self,
        scope: &IdempotencyScope,
        route: &str,
        fingerprint: [u8; 32],
        node: NodeIdentity,
        now: Timestamp,
    ) -> Result<Begun, StoreError> {
        let begin = Begin { scope, route, fingerprint, node, now };
        match retried(Rerun::IfRolledBack, || begin.run(&self.db, Earlier::None)).await {
            Err(StoreError::Unsure(_)) => retried(Rerun::IfRolledBack, || begin.run(&self.db, Earlier::Unheard)).await,
            done => done,
        }
    }

    /// Stores the answer of a request that cost nothing.
    pub async fn remember_answer(&self, scope: &IdempotencyScope, answer: &StoredAnswer) -> Result<(), StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            remember(&tx, scope, answer).await?;
            tx.commit().await
        })
        .await
    }

    /// Forgets a request that did nothing, so that trying again tries again; unless another node has taken it over.
    pub async fn forget_idempotent(&self, scope: &IdempotencyScope, node: NodeIdentity) -> Result<(), StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            tx.run(
                "DELETE FROM idempotency \
                 WHERE account_id = $1 AND idem_key = $2 AND status IS NULL AND node_id = $3 AND node_epoch = $4",
                [scope.account.uuid().into(), scope.key.as_str().into(), node.id.uuid().into(), node.epoch.into()],
            )
            .await?;
            tx.commit().await
        })
        .await
    }

    /// Forgets answers older than `age`.
    pub async fn sweep_idempotent(&self, now: Timestamp, age: Duration) -> Result<u64, StoreError> {
        retried(Rerun::Harmless, || async {
            let before = now.micros().saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX));
            let tx = self.db.write().await?;
            let swept = tx.run("DELETE FROM idempotency WHERE created_at < $1", [before.into()]).await?;
            tx.commit().await?;
            Ok(swept)
        })
        .await
    }
}

struct Begin<'a> {
    scope: &'a IdempotencyScope,
    route: &'a str,
    fingerprint: [u8; 32],
    node: NodeIdentity,
    now: Timestamp,
}

/// Whether this very call may have begun the request before, in a commit that nothing was heard of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Earlier {
    None,
    Unheard,
}

impl Begin<'_> {
    async fn run(&self, db: &Db, earlier: Earlier) -> Result<Begun, StoreError> {
        let tx = db.write().await?;
        let inserted = tx
            .run(
                "INSERT INTO idempotency (account_id, idem_key, route, fingerprint, node_id, node_epoch, created_at) \
                 VALUES ($1,$2,$3,$4,$5,$6,$7) ON CONFLICT (account_id, idem_key) DO NOTHING",
                [
                    self.scope.account.uuid().into(),
                    self.scope.key.as_str().into(),
                    self.route.into(),
                    self.fingerprint.to_vec().into(),
                    self.node.id.uuid().into(),
                    self.node.epoch.into(),
                    self.now.micros().into(),
                ],
            )
            .await?;
        if inserted == 1 {
            tx.commit().await?;
            return Ok(Begun::First);
        }
        let Some(row) = known(&tx, self.scope).await? else { return Ok(Begun::Running) };
        if row.route != self.route || row.fingerprint != self.fingerprint {
            return Ok(Begun::Mismatch);
        }
        if let Some(answer) = row.answer {
            return Ok(Begun::Done(answer));
        }
        if earlier == Earlier::Unheard && row.owner == self.node && row.created_at == self.now {
            return Ok(Begun::First);
        }
        if row.owner_lives || !self.take_over(&tx, row.owner).await? {
            return Ok(Begun::Running);
        }
        tx.commit().await?;
        Ok(Begun::First)
    }

    /// Of several that find the same dead owner, one takes over.
    async fn take_over(&self, tx: &WriteTx, owner: NodeIdentity) -> Result<bool, StoreError> {
        let touched = tx
            .run(
                "UPDATE idempotency SET node_id = $3, node_epoch = $4, created_at = $5 \
                 WHERE account_id = $1 AND idem_key = $2 AND status IS NULL AND node_id = $6 AND node_epoch = $7",
                [
                    self.scope.account.uuid().into(),
                    self.scope.key.as_str().into(),
                    self.node.id.uuid().into(),
                    self.node.epoch.into(),
                    self.now.micros().into(),
                    owner.id.uuid().into(),
                    owner.epoch.into(),
                ],
            )
            .await?;
        Ok(touched == 1)
    }
}

pub(crate) async fn remember(tx: &WriteTx, scope: &IdempotencyScope, answer: &StoredAnswer) -> Result<(), StoreError> {
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
    owner: NodeIdentity,
    owner_lives: bool,
    created_at: Timestamp,
}

async fn known(tx: &WriteTx, scope: &IdempotencyScope) -> Result<Option<Known>, StoreError> {
    let row = tx
        .one(
            "SELECT i.route, i.fingerprint, i.status, i.content_type, i.body, i.node_id, i.node_epoch, \
             i.created_at, n.epoch, n.alive \
             FROM idempotency i LEFT JOIN node n ON n.id = i.node_id WHERE i.account_id = $1 AND i.idem_key = $2",
            [scope.account.uuid().into(), scope.key.as_str().into()],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let answer = match row.get::<Option<i32>>("status")? {
        None => None,
        Some(status) => Some(StoredAnswer {
            status: u16::try_from(status)
                .map_err(|_| StoreError::Corrupt { table: "idempotency", column: "status" })?,
            content_type: row.get("content_type")?,
            body: row.get("body")?,
        }),
    };
    let owner = NodeIdentity { id: NodeId::new(row.get("node_id")?), epoch: row.get("node_epoch")? };
    let epoch: Option<i64> = row.get("epoch")?;
    let alive: Option<bool> = row.get("alive")?;
    Ok(Some(Known {
        route: row.get("route")?,
        fingerprint: row.get("fingerprint")?,
        answer,
        owner,
        owner_lives: alive == Some(true) && epoch == Some(owner.epoch),
        created_at: Timestamp::from_micros(row.get("created_at")?),
    }))
}
