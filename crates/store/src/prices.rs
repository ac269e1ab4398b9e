//! Holds: versions of the price list. The version in force when a hold is opened is the one that is charged.

use batchin_domain::{PriceVersion, Timestamp};

use crate::{
    Store, StoreError,
    connect::{Rerun, retried},
};

/// A price list as it was published.
#[derive(Clone, Debug)]
pub struct PriceListRow {
    /// Its version.
    pub version: PriceVersion,
    /// The list itself, as JSON.
    pub body: String,
    /// When.
    pub created_at: Timestamp,
}

/// More nodes than this never publish different lists at the same instant.
const PUBLISH_TRIES: usize = 16;

impl Store {
    /// Publishes a price list; the same list as the newest one keeps its version.
    pub async fn publish_prices(
        &self,
        fingerprint: &str,
        body: &str,
        now: Timestamp,
    ) -> Result<PriceVersion, StoreError> {
        retried(Rerun::Harmless, || async {
            // Nodes that start together meet here; whoever comes second finds the first one's list.
            for _ in 0..PUBLISH_TRIES {
                if let Some(version) = self.try_publish(fingerprint, body, now).await? {
                    return Ok(version);
                }
            }
            Err(StoreError::RowCount { table: "price_list", expected: 1, touched: 0 })
        })
        .await
    }

    /// `None`: another node took the next version meanwhile.
    async fn try_publish(
        &self,
        fingerprint: &str,
        body: &str,
        now: Timestamp,
    ) -> Result<Option<PriceVersion>, StoreError> {
        let tx = self.write().await?;
        let newest = tx.one("SELECT version, fingerprint FROM price_list ORDER BY version DESC LIMIT 1", []).await?;
        let newest: Option<(i64, String)> = newest
            .map(|row| Ok::<_, StoreError>((row.try_get("", "version")?, row.try_get("", "fingerprint")?)))
            .transpose()?;
        if let Some((version, known)) = &newest
            && known == fingerprint
        {
            return Ok(Some(PriceVersion(*version)));
        }
        let version = newest.map_or(1, |(version, _)| version + 1);
        let inserted = tx
            .run(
                "INSERT INTO price_list (version, fingerprint, body, created_at) VALUES ($1,$2,$3,$4) \
                 ON CONFLICT (version) DO NOTHING",
                [version.into(), fingerprint.into(), body.into(), now.micros().into()],
            )
            .await?;
        if inserted == 0 {
            return Ok(None);
        }
        tx.commit().await?;
        Ok(Some(PriceVersion(version)))
    }

    /// A price list by its version.
    pub async fn price_list(&self, version: PriceVersion) -> Result<Option<PriceListRow>, StoreError> {
        let row = self.one("SELECT body, created_at FROM price_list WHERE version = $1", [version.0.into()]).await?;
        row.map(|row| {
            Ok(PriceListRow {
                version,
                body: row.try_get("", "body")?,
                created_at: Timestamp::from_micros(row.try_get("", "created_at")?),
            })
        })
        .transpose()
    }
}
