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

impl Store {
    /// Publishes a price list; the same list as the newest one keeps its version.
    pub async fn publish_prices(
        &self,
        fingerprint: &str,
        body: &str,
        now: Timestamp,
    ) -> Result<PriceVersion, StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.write().await?;
            let newest =
                tx.one("SELECT version, fingerprint FROM price_list ORDER BY version DESC LIMIT 1", []).await?;
            let newest: Option<(i64, String)> = newest
                .map(|row| Ok::<_, StoreError>((row.try_get("", "version")?, row.try_get("", "fingerprint")?)))
                .transpose()?;
            if let Some((version, known)) = &newest
                && known == fingerprint
            {
                return Ok(PriceVersion(*version));
            }
            let version = newest.map_or(1, |(version, _)| version + 1);
            tx.run(
                "INSERT INTO price_list (version, fingerprint, body, created_at) VALUES ($1,$2,$3,$4)",
                [version.into(), fingerprint.into(), body.into(), now.micros().into()],
            )
            .await?;
            tx.commit().await?;
            Ok(PriceVersion(version))
        })
        .await
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
