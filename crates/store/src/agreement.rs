//! Holds: what all nodes on one database must have in common, and how those that are alive differ.

use batchin_db::{Db, Rerun, retried};
use batchin_domain::{NodeId, PriceVersion};

use crate::{StoreError, schema::MIGRATIONS};

/// What all nodes have in common. Held by the server that joins them.
#[derive(Clone)]
pub struct Agreement {
    pub(crate) db: Db,
}

impl Agreement {
    /// What all nodes must have in common under this name. The first one to ask says what it is.
    pub async fn agree(&self, name: &str, value: &str) -> Result<String, StoreError> {
        if let Some(agreed) = self.agreed(name).await? {
            return Ok(agreed);
        }
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            tx.run(
                "INSERT INTO agreement (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
                [name.into(), value.into()],
            )
            .await?;
            tx.commit().await
        })
        .await?;
        self.agreed(name).await?.ok_or(StoreError::RowCount { table: "agreement", expected: 1, touched: 0 })
    }

    /// The same, if any node has said what it is.
    pub async fn agreed(&self, name: &str) -> Result<Option<String>, StoreError> {
        let row = self.db.one("SELECT value FROM agreement WHERE name = $1", [name.into()]).await?;
        row.map(|row| row.get("value")).transpose()
    }

    /// Writes down which price list a node charges by.
    pub async fn note_prices(&self, node: NodeId, version: PriceVersion) -> Result<(), StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            tx.run("UPDATE node SET prices = $2 WHERE id = $1", [node.uuid().into(), version.0.into()]).await?;
            tx.commit().await
        })
        .await
    }

    /// Nodes that are alive and charge by a list with another fingerprint than this, without `besides`.
    pub async fn other_prices(&self, besides: Option<NodeId>, fingerprint: &str) -> Result<Vec<NodeId>, StoreError> {
        let rows = self.db.all(
            "SELECT n.id FROM node n JOIN price_list p ON p.version = n.prices \
             WHERE n.alive = $1 AND p.fingerprint <> $2 ORDER BY n.id",
            [true.into(), fingerprint.into()],
        );
        let ids = rows.await?.iter().map(|row| Ok(NodeId::new(row.get("id")?))).collect::<Result<Vec<_>, _>>();
        ids.map(|ids| ids.into_iter().filter(|id| Some(*id) != besides).collect())
    }

    /// How many versions of the schema the database has beyond those that this program knows: another program has
    /// brought it up to date.
    pub async fn schema_ahead(&self) -> Result<usize, StoreError> {
        Ok(self.db.schema_version().await?.saturating_sub(MIGRATIONS.len()))
    }
}
