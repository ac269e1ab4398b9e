//! Holds: sessions of people who logged in, known by the hash of their token.

use batchin_db::{Rerun, retried};
use batchin_domain::{AccountId, Timestamp};

use crate::{Accounts, Role, StoreError, stored::stored};

/// A session that has not ended.
#[derive(Clone, Debug)]
pub struct SessionRow {
    /// Whose.
    pub user: AccountId,
    /// The user is an operator.
    pub admin: bool,
    /// When it ends by itself.
    pub expires_at: Timestamp,
}

impl Accounts {
    /// Stores a session by the SHA-256 of its token, and forgets those that have ended.
    pub async fn create_session(
        &self,
        hash: [u8; 32],
        user: AccountId,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<(), StoreError> {
        retried(Rerun::Harmless, || async {
        let tx = self.db.write().await?;
        tx.run(
            "DELETE FROM session WHERE user_id = $1 AND expires_at <= $2",
            [user.uuid().into(), now.micros().into()],
        )
        .await?;
        tx.run(
            "INSERT INTO session (hash, user_id, created_at, expires_at) VALUES ($1,$2,$3,$4) ON CONFLICT (hash) DO NOTHING",
            [hash.to_vec().into(), user.uuid().into(), now.micros().into(), expires_at.micros().into()],
        )
        .await?;
        tx.commit().await
        })
        .await
    }

    /// The session with this token hash, if it has not ended and its user is not disabled.
    pub async fn session(&self, hash: [u8; 32], now: Timestamp) -> Result<Option<SessionRow>, StoreError> {
        let row = self
            .db
            .one(
                "SELECT s.user_id, s.expires_at, u.role FROM session s JOIN app_user u ON u.id = s.user_id \
                 WHERE s.hash = $1 AND s.expires_at > $2 AND u.disabled = $3",
                [hash.to_vec().into(), now.micros().into(), false.into()],
            )
            .await?;
        row.map(|row| {
            Ok(SessionRow {
                user: AccountId::new(row.get("user_id")?),
                admin: stored::<Role>(&row, "app_user", "role")? == Role::Admin,
                expires_at: Timestamp::from_micros(row.get("expires_at")?),
            })
        })
        .transpose()
    }

    /// Ends a session; one that is not there is no error.
    pub async fn end_session(&self, hash: [u8; 32]) -> Result<(), StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            tx.run("DELETE FROM session WHERE hash = $1", [hash.to_vec().into()]).await?;
            tx.commit().await
        })
        .await
    }
}
