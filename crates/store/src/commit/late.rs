//! Holds: usage that comes when its node may not charge for it any more.

use batchin_db::{Rerun, retried};
use batchin_domain::{Timestamp, TransferId, ledger::Movement};

use crate::{Ledger, Settlement, StoreError};

impl Ledger {
    /// Books usage that came after its node was fenced: our loss, seen in `ledger check`, never the customer's. The same
    /// id is booked once.
    pub async fn book_late(&self, id: TransferId, settlement: &Settlement, now: Timestamp) -> Result<(), StoreError> {
        if settlement.charge.is_zero() {
            return Ok(());
        }
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            tx.run(
                "INSERT INTO transfer (id, account_id, movement, amount, request_id, price_version, created_at) \
                 VALUES ($1,$2,$3,$4,$5,$6,$7) ON CONFLICT (id) DO NOTHING",
                [
                    id.uuid().into(),
                    settlement.account.uuid().into(),
                    Movement::Late.code().into(),
                    settlement.charge.nanos().into(),
                    settlement.usage.as_ref().map(|u| u.request.uuid()).into(),
                    settlement.usage.as_ref().map(|u| u.price_version.0).into(),
                    now.micros().into(),
                ],
            )
            .await?;
            tx.commit().await
        })
        .await
    }
}
